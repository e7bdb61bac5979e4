"""PromptPad: draw on the frames of a clip, ask a question, see the answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import traitlets
from ipywidgets import CallbackDispatcher

from tpo_lab.errors import TPOError, UsageError
from tpo_lab.sample import Prompt, Sample
from tpo_widgets.playhead import Playhead
from tpo_widgets.prompts.answer import AnswerDrawing
from tpo_widgets.prompts.content import PromptPadContent
from tpo_widgets.prompts.drawn import plain, prompts_of
from tpo_widgets.prompts.question import DrawnQuestion, hindrance, remark
from tpo_widgets.view import View

if TYPE_CHECKING:
    from tpo_lab.answer import Answer

ASKING, ANSWERED, FAILED = "asking", "answered", "failed"


class PromptPad(View):
    """Draw boxes, points or scribbles on the frames of a clip, ask a question, and see the answer.

    What is drawn can be read and set in Python at any time:

        pad = PromptPad("clip.mp4", tpo.load("nano-tpo"), "Where is it?")
        pad.prompts = [BoxPrompt(xyxy=(10, 20, 40, 50))]
        pad.ask().boxes_xyxy

    Args:
        clip: the path of a video or an image, "world://...", a `Sample`, whose last question is taken, or frames, uint8 [frame, h, w, 3].
        model: a `TPOModel`, or what has its `answer`; nothing can be asked where None.
        question: what to ask; may mention `<prompt:0>`, ...; prompts that it does not mention are put at its end.
        times_sec: of frames in memory, rising; one a second where None.
        prompts: what is drawn at first.
        theme: "light", "dark", or "auto", which follows the page.
        playhead: the moment, maybe shared with other views.

    Attributes:
        question: the text as it stands in the field.
        drawn: the prompts as JSON, as the page has them; `prompts` gives them as records.
        selected: place of the selected prompt, -1 for none.
        status: "" before a question, then "asking", "answered" or "failed".
        sentence: what happens, or why it failed.
        said: the text of the answer as far as it is written.
        found: what is drawn of the answer.
        hindrance: why nothing can be asked, "" where it can.
        remark: what is special in how the model reads the prompts.
        model: that is asked; may be replaced.
        answer: the last, or None.
        failure: what went wrong with the last question, or None.
    """

    front = "prompt_pad"
    question = traitlets.Unicode("").tag(sync=True)
    drawn = traitlets.List(traitlets.Dict()).tag(sync=True)
    selected = traitlets.Int(-1).tag(sync=True)
    status = traitlets.Enum(("", ASKING, ANSWERED, FAILED), "").tag(sync=True)
    sentence = traitlets.Unicode("").tag(sync=True)
    said = traitlets.Unicode("").tag(sync=True)
    found = traitlets.Dict().tag(sync=True)
    hindrance = traitlets.Unicode("").tag(sync=True)
    remark = traitlets.Unicode("").tag(sync=True)
    model: Any = traitlets.Any(None)

    def __init__(
        self,
        clip: Any,
        model: Any = None,
        question: str = "",
        *,
        times_sec: Sequence[float] | None = None,
        prompts: Any = None,
        theme: str = "auto",
        playhead: Playhead | None = None,
    ) -> None:
        self.answer: Answer | None = None
        self.failure: Exception | None = None
        self._asked: DrawnQuestion | None = None
        self._one_at_a_time = threading.Lock()
        self._listeners = CallbackDispatcher()
        make = lambda: PromptPadContent.of(clip, question, prompts=prompts, times_sec=times_sec)  # noqa: E731
        super().__init__(make, theme=theme, playhead=playhead)
        if isinstance(self.content, PromptPadContent):
            with self.hold_sync():
                self.question, self.drawn = self.content.question.text, self.content.drawn
        self.model = model
        self._follow(None)

    @property
    def prompts(self) -> list[Prompt]:
        """What is drawn, in pixels of the original frame, each on the frame on display at its time.

        Raises:
            UsageError: when set, for the first that is no prompt, or lies outside the frame or the clip; nothing is changed then.
        """
        return list(self.content.prompts) if isinstance(self.content, PromptPadContent) else []

    @prompts.setter
    def prompts(self, given: Iterable[Any]) -> None:
        film = self._opened().clip.film
        self.drawn = plain(prompts_of(given, film.size_wh, film.duration_sec))

    def sample(self, name: str = "question") -> Sample:
        """The question as a sample, which can be passed on or written with `tpo_lab.sample.write`.

        Args:
            name: its id.

        Raises:
            UsageError: there is no question, or it mentions a prompt that is not drawn, or the frames lie in memory.
        """
        return self._opened().question.sample(name)

    def ask(self) -> Answer | None:
        """Ask the question, as the button does. What goes wrong stands in the pad and in `failure`, and None is given back.

        Raises:
            UsageError: the model still answers an earlier question.
        """
        if not self._one_at_a_time.acquire(blocking=False):
            raise UsageError("ask", expected="one question at a time", got="another one while the model still answers")
        try:
            return self._ask()
        finally:
            self._one_at_a_time.release()

    def on_answer(self, callback: Callable[[Answer], None], *, remove: bool = False) -> None:
        """Call a function with every answer that comes, or no more."""
        self._listeners.register_callback(callback, remove=remove)

    def head_view(self, **options: Any) -> View:
        """The last answer in a HeadView; the options are those of HeadView.

        Raises:
            UsageError: there is no answer.
        """
        from tpo_widgets.heads.view import HeadView

        if self.answer is None or self._asked is None:
            raise UsageError("answer", expected="a question that was answered", got=None, hint="Call ask() first, or press the button.")
        clip = self._asked.clip
        if clip.frames is not None:
            options = {"frames": clip.frames, "times_sec": clip.film.times_sec, **options}
        return HeadView(self._asked.record(), self.answer, **options)

    def heard(self, message: Any) -> None:
        """The button was pressed: {"ask": true, "question": text, "drawn": prompts}, which may come before the traits that it repeats."""
        if not isinstance(message, dict) or not message.get("ask") or self._one_at_a_time.locked():
            return
        self.set_state({name: message[name] for name in ("drawn", "question") if name in message})
        self.ask()

    def _opened(self) -> PromptPadContent:
        if isinstance(self.content, PromptPadContent):
            return self.content
        raise UsageError("clip", expected="one that could be opened", got=self.problem)

    def _ask(self) -> Answer | None:
        self.failure = None
        # sent before anything is computed, so that the page says what goes on
        self._tell(ASKING, "The model reads the question.")
        try:
            question = self._opened().question
            answer = question.ask(self.model, self._write)
        except KeyboardInterrupt:
            self._tell(FAILED, "It was interrupted.")
            raise
        except Exception as error:
            # whatever a model does wrong is said in the pad, and the notebook goes on
            self.failure = error
            self._tell(FAILED, _sentence(error))
            return None
        self._keep(question, answer)
        self._listeners(answer)
        return answer

    def _keep(self, question: DrawnQuestion, answer: Answer) -> None:
        self.answer, self._asked = answer, question
        drawing = AnswerDrawing(answer, int(self.found.get("number", 0)) + 1, question.full_text)
        try:
            found = drawing.document
        except Exception as error:
            self.failure = error
            # an earlier answer must not be taken for this one
            self.content, self.found = replace(self._opened(), drawing=None), {"number": drawing.number}
            self._tell(FAILED, f"There is an answer, and it cannot be drawn: {_sentence(error)}")
            return
        self.content = replace(self._opened(), drawing=drawing)
        with self.hold_sync():
            self.found, self.said = found, answer.text
            self.status, self.sentence = ANSWERED, ""

    def _write(self, piece: str) -> None:
        self.said += piece

    def _tell(self, status: str, sentence: str) -> None:
        with self.hold_sync():
            self.status, self.sentence = status, sentence
            if status == ASKING:
                self.said = ""

    @traitlets.validate("drawn")
    def _checked(self, proposal: Any) -> Any:
        if not isinstance(self.content, PromptPadContent):
            return []
        film = self.content.clip.film
        try:
            found = plain(prompts_of(proposal.value, film.size_wh, film.duration_sec))
        except UsageError as error:
            # the one that makes traitlets put back what was there
            raise traitlets.TraitError(str(error)) from None
        # what the page has sent (8 for 8.0) is not sent back, since it may have gone on by then
        return proposal.value if found == proposal.value else found

    @traitlets.observe("drawn", "question", "model")
    def _follow(self, _: Any) -> None:
        """Keep the content as the page has it, for pictures and pages."""
        if not isinstance(self.content, PromptPadContent):
            return
        clip = self.content.clip
        question = DrawnQuestion(clip, self.question, prompts_of(self.drawn, clip.film.size_wh, clip.film.duration_sec))
        self.content = replace(self.content, question=question)
        self.selected = min(self.selected, len(question.prompts) - 1)
        self.hindrance, self.remark = hindrance(question, self.model), remark(question, self.model)


def _sentence(error: Exception) -> str:
    """One line of an error."""
    text = " ".join(str(error).split())
    return text if isinstance(error, TPOError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
