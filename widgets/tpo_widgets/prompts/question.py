"""A question about what was drawn on a clip: as a sample, and put to a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from tpo_lab.errors import TPOError, UsageError
from tpo_lab.sample import BoxPrompt, Media, Prompt, Sample, Turn, explain, mentions
from tpo_widgets.film import Film, film_of, film_of_frames

if TYPE_CHECKING:
    from tpo_lab.answer import Answer
    from tpo_lab.batch import Row
    from tpo_lab.model import TPOModel

_CLIPS = 'the path of a video or an image, "world://...", a Sample, or uint8 RGB frames [frame, h, w, 3]'
_MEMORY = "memory://frames"
"""Stands where the media of a sample would be."""


@dataclass(frozen=True)
class Clip:
    """What is drawn on.

    Attributes:
        film: its frames for looking at.
        media: where it lies; None for frames in memory.
        root: the folder that a relative path starts from.
        frames: uint8 RGB [frame, h, w, 3] in memory; None for others.
        name: for people.
    """

    film: Film
    media: Media | None = None
    root: Path | None = None
    frames: NDArray[np.uint8] | None = None
    name: str = ""

    @classmethod
    def of(cls, clip: Any, times_sec: Sequence[float] | None = None) -> Clip:
        """A clip from what a caller gives.

        Args:
            clip: a path, a reference with a scheme, a sample or frames.
            times_sec: of frames in memory.

        Raises:
            UsageError: none of these, or it cannot be read.
        """
        if hasattr(clip, "__array__") or isinstance(clip, (list, tuple)):
            film = film_of_frames(clip, times_sec)
            return cls(film, frames=np.asarray(clip), name=f"{len(film)} frames in memory")
        if times_sec is not None:
            raise UsageError("times_sec", expected="none for a file, which has times of its own", got=times_sec)
        if isinstance(clip, Sample):
            return cls(film_of(clip), clip.media, clip.root, name=f"{clip.id}: {clip.media.path}")
        if not isinstance(clip, (str, Path)) or not str(clip):
            raise UsageError("clip", expected=_CLIPS, got=clip if isinstance(clip, str) else type(clip).__name__)
        media = Media(path=str(clip) if "://" in str(clip) else str(Path(clip).absolute()))
        return cls(film_of(_about(media)), media, name=media.path if "://" in media.path else Path(clip).name)


@dataclass(frozen=True)
class DrawnQuestion:
    """A question and what it points at.

    Attributes:
        clip: what it is about.
        text: of the user; prompts that it does not mention are put at its end.
        prompts: in pixels of the original frame, each on the frame on display at its time.
    """

    clip: Clip
    text: str = ""
    prompts: tuple[Prompt, ...] = ()

    @property
    def full_text(self) -> str:
        """The text with every prompt mentioned."""
        text = self.text.strip()
        for place in range(len(self.prompts)):
            if f"<prompt:{place}>" not in text:
                text = f"{text} <prompt:{place}>"
        return text

    def elsewhere(self) -> list[int]:
        """Places of the prompts that lie on another frame than the first."""
        return [place for place, prompt in enumerate(self.prompts) if self.clip.film.nearest(prompt.time_sec)]

    def sample(self, name: str = "question") -> Sample:
        """The question as a sample without an answer.

        Args:
            name: the sample's id.

        Raises:
            UsageError: no text, a mention without a prompt, or frames in memory, which a sample cannot name.
        """
        if self.clip.media is None:
            hint = "Write the frames as a video and draw on that."
            raise UsageError("clip", expected="a file or a reference, which a sample can name", got=self.clip.name, hint=hint)
        return self.record(name)

    def record(self, name: str = "question") -> Sample:
        """The same also for frames in memory, whose media then leads nowhere."""
        if not self.text.strip():
            raise UsageError("question", expected="some text", got=self.text)
        turn, media = Turn(role="user", text=self.full_text), self.clip.media or Media(path=_MEMORY)
        try:
            made = Sample(id=name, media=media, conversation=(turn,), prompts=self.prompts)
        except ValidationError as error:
            problem = next(explain(error))
            raise UsageError(problem.field or "question", expected=problem.message, got=problem.value) from None
        return made if self.clip.root is None else made.at(self.clip.root)

    def ask(self, model: Any, on_text: Callable[[str], None]) -> Answer:
        """Put the question to a model.

        Args:
            model: a `TPOModel`, or what answers like one where all prompts lie on the first frame of a file.
            on_text: called with each piece of the text.

        Raises:
            UsageError: what the model cannot be asked; see `hindrance`.
            TPOError: what came back is no answer.
        """
        from tpo_lab.answer import Answer

        if reason := hindrance(self, model):
            raise TPOError(reason)
        self.record()
        found = self._of_row(model, on_text) if self._needs_row() else self._of_file(model, on_text)
        if not isinstance(found, Answer):
            raise TPOError(f"The model was expected to give an Answer, and gave {type(found).__name__}.")
        return found

    def _needs_row(self) -> bool:
        """Whether `TPOModel.answer` has no words for it."""
        return self.clip.media is None or self.clip.media.fps is not None or bool(self.elsewhere())

    def _of_file(self, model: Any, on_text: Callable[[str], None]) -> Any:
        media = self.clip.media
        assert media is not None
        boxes = [place for place, prompt in enumerate(self.prompts) if isinstance(prompt, BoxPrompt)]
        strokes = [place for place in range(len(self.prompts)) if place not in boxes]
        # `answer` counts the boxes first
        text = _renumbered(self.full_text, {old: new for new, old in enumerate([*boxes, *strokes])})
        given: dict[str, Any] = {"boxes": [list(self.prompts[place].xyxy) for place in boxes]}  # type: ignore[union-attr]
        given["strokes"] = [[list(point) for point in self.prompts[place].points] for place in strokes]  # type: ignore[union-attr]
        if media.start_sec or media.end_sec is not None:
            given |= {"start_sec": media.start_sec, "end_sec": media.end_sec}
        if self.clip.root is not None and getattr(model, "feature_files", None):
            given["features"] = self.clip.root
        path = str((self.clip.root or Path()) / media.path) if media.is_file else media.path
        return model.answer(path, text, on_text=on_text, **given)

    def _of_row(self, model: TPOModel, on_text: Callable[[str], None]) -> Answer:
        from tpo_lab.answer import Answerer

        row = self._row(model)
        was_training = model.training
        model.eval()
        try:
            return Answerer(model).answer([row], on_text=lambda _, piece: on_text(piece))[0]
        finally:
            model.train(was_training)

    def _row(self, model: TPOModel) -> Row:
        import torch

        from tpo_lab.batch import Row
        from tpo_lab.heads.base import ClipInfo
        from tpo_lab.media import Frames
        from tpo_lab.video.sampling import displayed_frames, segment_centres

        if self.clip.frames is None:
            return Frames(model.backbone, features=model.feature_files, keep=False).row([self.sample()])
        film = self.clip.film
        shown = displayed_frames(np.asarray(film.times_sec), segment_centres(0, film.duration_sec, model.backbone.num_frames))
        pixels = torch.from_numpy(np.ascontiguousarray(self.clip.frames[shown])).permute(0, 3, 1, 2)
        times = tuple(film.times_sec[place] for place in shown.tolist())
        info = ClipInfo(*film.size_wh, film.duration_sec, times)
        return Row(model.backbone.resize(pixels), info, (self.record(),), f"{_MEMORY}|{id(self.clip.frames)}|{times}")


def question_of(sample: Sample) -> tuple[str, tuple[Prompt, ...]]:
    """The last question of a sample, and the prompts that it mentions, counted anew."""
    asked = [turn.text for turn in sample.conversation if turn.role == "user"][-1]
    places = list(dict.fromkeys(mentions(asked)))
    return _renumbered(asked, {old: new for new, old in enumerate(places)}), tuple(sample.prompts[place] for place in places)


def hindrance(question: DrawnQuestion, model: Any) -> str:
    """Why a model cannot be asked, in one sentence; "" where it can."""
    if model is None:
        return "There is no model to ask; PromptPad(clip, model) has one."
    if not callable(getattr(model, "answer", None)):
        return f"A model with answer(video, question) is needed to ask, and {type(model).__name__} has none."
    understood, is_whole = _understood(model), hasattr(model, "backbone")
    if understood == "box" and (strokes := [place for place, prompt in enumerate(question.prompts) if prompt.type != "box"]):
        return f"This model understands boxes alone, and {_named(question, strokes)}."
    if not is_whole and question.clip.frames is not None:
        return "Frames in memory can be asked about with a TPOModel alone; write them as a video for others."
    unread = [place for place in question.elsewhere() if not _reads_elsewhere(model, question.prompts[place])]
    if unread:
        what, when = "boxes" if understood == "box+stroke" else "prompts", question.prompts[unread[0]].time_sec
        return f"This model reads {what} as lying on the first frame, and {_named(question, unread)} at {when:.2f} s: move it there to ask."
    return ""


def remark(question: DrawnQuestion, model: Any) -> str:
    """What a user should know of how the model reads the prompts, in one sentence; "" where nothing is special."""
    if not question.elsewhere() or hindrance(question, model):
        return ""
    count = model.backbone.num_frames
    return f"The model sees {count} frames of the clip; a prompt counts on the one that is shown nearest to its time."


def _understood(model: Any) -> str:
    return str(getattr(getattr(model, "prompts", None), "understood", ""))


def _reads_elsewhere(model: Any, prompt: Prompt) -> bool:
    """Whether a model knows on which frame a prompt lies: it sees that frame under a drawing, and a box by numbers has no frame."""
    if not hasattr(model, "backbone"):
        return False
    mask = dict(model.heads.items()).get("mask") if hasattr(model, "heads") else None
    if prompt.type == "box" and getattr(getattr(mask, "settings", None), "prompt", "") == "direct":
        return False
    return _understood(model) == "drawn" or (prompt.type != "box" and _understood(model) == "box+stroke")


def _named(question: DrawnQuestion, places: Sequence[int]) -> str:
    return f"<prompt:{places[0]}> is a {question.prompts[places[0]].type}"


def _renumbered(text: str, new: dict[int, int]) -> str:
    """Mentions with other numbers; those that have none are kept."""
    for old in mentions(text):
        text = text.replace(f"<prompt:{old}>", f"<prompt {new.get(old, old)}>")
    return text.replace("<prompt ", "<prompt:")


def _about(media: Media) -> Sample:
    return Sample(id="clip", media=media, conversation=(Turn(role="user", text="?"),))
