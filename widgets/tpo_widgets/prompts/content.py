"""What PromptPad shows: the frames of a clip, what is drawn on them, a question and its answer. Made without a browser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import UsageError
from tpo_lab.sample import Prompt, Sample
from tpo_widgets.content import Moment, Resource
from tpo_widgets.prompts.answer import AnswerDrawing
from tpo_widgets.prompts.drawn import plain, prompts_of
from tpo_widgets.prompts.question import Clip, DrawnQuestion, question_of

if TYPE_CHECKING:
    from PIL.Image import Image

EVEN_SEC = 1e-7
"""How far frames may lie from equal steps to be told as such; players show the same frames for times that differ by less than 1e-6 s."""


@dataclass(frozen=True)
class PromptPadContent:
    """A question about what is drawn on a clip, and its answer.

    Attributes:
        question: with the clip and the prompts.
        drawing: of the answer; None before there is one.
    """

    question: DrawnQuestion
    drawing: AnswerDrawing | None = None

    @classmethod
    def of(cls, clip: Any, question: str = "", *, prompts: Any = None, times_sec: Sequence[float] | None = None) -> PromptPadContent:
        """A pad from what a caller gives; of a sample, its last question and what that points at.

        Raises:
            UsageError: the clip cannot be read, or a prompt does not lie in it.
        """
        if not isinstance(question, str):
            raise UsageError("question", expected="a text", got=question)
        opened = Clip.of(clip, times_sec)
        asked, pointed = question_of(clip) if isinstance(clip, Sample) else ("", ())
        given = prompts_of(pointed if prompts is None else prompts, opened.film.size_wh, opened.film.duration_sec)
        return cls(DrawnQuestion(opened, question or asked, given))

    @property
    def clip(self) -> Clip:
        """What is drawn on."""
        return self.question.clip

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """What is drawn."""
        return self.question.prompts

    @property
    def document(self) -> dict[str, Any]:
        """JSON of the clip alone: name, size [w, h] in pixels, seconds of the frames, or their number and equal step, and duration."""
        film = self.clip.film
        step = film.times_sec[-1] / max(len(film) - 1, 1)
        even = all(abs(time - step * place) < EVEN_SEC for place, time in enumerate(film.times_sec))
        times = {"count": len(film), "step_sec": step} if even else [round(time, 6) for time in film.times_sec]
        return {"name": self.clip.name, "size": list(film.size_wh), "times": times, "duration_sec": film.duration_sec}

    def resource(self, name: str) -> Resource:
        """Frame n of the film as "frame/n", and "mask/answer/n", the masks of an answer on its n-th frame.

        Raises:
            UsageError: there is no such resource, or the clip cannot be read any more.
        """
        kind, *numbers = name.split("/")
        if kind == "frame" and len(numbers) == 1 and numbers[0].isdecimal():
            return Resource(self.clip.film.jpeg(int(numbers[0])))
        if self.drawing is not None and name in set(self.drawing.names()):
            return self.drawing.resource(int(numbers[-1]))
        raise UsageError("resource", expected='"frame/n", or "mask/answer/n" of the last answer', got=name)

    def names(self) -> Iterable[str]:
        """The first frame and those that are drawn on, the masks, and the other frames."""
        film = self.clip.film
        drawn_on = dict.fromkeys([0, *(film.nearest(prompt.time_sec) for prompt in self.prompts)])
        masks = () if self.drawing is None else self.drawing.names()
        rest = (number for number in range(len(film)) if number not in drawn_on)
        return (*(f"frame/{number}" for number in drawn_on), *masks, *(f"frame/{number}" for number in rest))

    def picture(self, moment: Moment, *, dark: bool, width: int) -> Image:
        """The frame at the moment with what is drawn on it, the question and the answer."""
        from tpo_widgets.prompts.picture import pad_picture

        return pad_picture(self, moment.time_sec, dark=dark, width=width)

    @property
    def drawn(self) -> list[dict[str, Any]]:
        """The prompts as JSON."""
        return plain(self.prompts)
