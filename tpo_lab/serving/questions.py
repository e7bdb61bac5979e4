"""What can be asked: questions as they are written by hand, and samples of any data set; as objects and as lines of a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tpo_lab.asking import question_sample, require_inside
from tpo_lab.errors import UsageError
from tpo_lab.files import BadRecord, stream_lines
from tpo_lab.heads.base import ClipInfo
from tpo_lab.sample import SCHEMA, Box, Point, Sample, Targets, explain

_LONGEST_HEADER = 200
"""Characters; a header holds nothing but the schema's name."""


class Question(BaseModel):
    """One question about one video or image.

    Attributes:
        id: names the answer.
        video: a file, a folder of images or a pattern of them.
        question: may mention `<prompt:0>`, ..., first the boxes, then the points, then the scribbles; what it does not mention is put at
            its end.
        boxes: xyxy in pixels of the original first frame.
        points: (x, y) in the same pixels.
        scribbles: two or more points each.
        history: earlier (question, answer) pairs.
        start_sec: where the clip begins in the video.
        end_sec: where it ends; at the video's end where None.
        fps: how many images of a folder are shown a second; 1 where None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = "question"
    video: Annotated[str, Field(min_length=1)]
    question: str
    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    scribbles: tuple[Annotated[tuple[Point, ...], Field(min_length=2)], ...] = ()
    history: tuple[tuple[str, str], ...] = ()
    start_sec: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    end_sec: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    fps: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


@dataclass(frozen=True)
class Line:
    """A line of a file of questions, not yet understood.

    Attributes:
        number: of the line, from 1.
        text: the line; a `Question`, or a sample of the schema `tpo_lab.sample/1`, as one JSON object.
        folder: where relative paths in it start from.
    """

    number: int
    text: str | BadRecord
    folder: Path

    def understood(self) -> Question | Sample:
        """The question; without an id of its own it has the line's number.

        Raises:
            UsageError: the line is neither.
        """
        record = self._record()
        record.setdefault("id", str(self.number))
        if "conversation" in record and record.pop("schema", SCHEMA) != SCHEMA:
            raise UsageError("schema", expected=SCHEMA, got=json.loads(str(self.text))["schema"])
        kind: type[Question] | type[Sample] = Sample if "conversation" in record else Question
        try:
            return kind.model_validate(record)
        except ValidationError as error:
            problem = next(explain(error))
            raise UsageError(problem.field or "line", expected=problem.message, got=problem.value) from None

    def named(self) -> str | None:
        """The id of a line that may be wrong in all else, None where it has none."""
        try:
            found = self._record().get("id", str(self.number))
        except UsageError:
            return None
        return found if isinstance(found, str) else None

    def _record(self) -> dict[str, Any]:
        if isinstance(self.text, BadRecord):
            raise self.text
        try:
            record = json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise UsageError("line", expected=f"one JSON object ({error})", got=self.text[:80]) from None
        if not isinstance(record, dict):
            raise UsageError("line", expected="one JSON object", got=self.text[:80])
        return record


def read_lines(path: Path) -> Iterator[Line]:
    """The questions of a JSONL file, one at a time; blank lines and the headers of sample files are left out.

    Raises:
        UsageError: there is no such file.
    """
    number = 0
    for found in stream_lines(path):
        if isinstance(found, BadRecord):
            number += 1
            yield Line(_line_number(found, number), found, path.parent)
            continue
        number, text = found
        if not _is_header(text):
            yield Line(number, text, path.parent)


def _line_number(bad: BadRecord, guess: int) -> int:
    last = bad.where.rpartition("line ")[2]
    return int(last) if last.isdigit() else guess


def _is_header(text: str) -> bool:
    if len(text) > _LONGEST_HEADER or '"schema"' not in text:
        return False
    try:
        record = json.loads(text)
    except ValueError:
        return False
    return isinstance(record, dict) and set(record) == {"schema"} and record["schema"] == SCHEMA


@dataclass(frozen=True)
class Put:
    """A question as it is put to the model.

    Attributes:
        sample: ends with the user, has no targets, and its media's path means the same from every folder.
        video: as it was written.
        boxes, strokes: what must lie in the frame. That of samples is taken as it is, as in training and evaluation.
    """

    sample: Sample
    video: str
    boxes: tuple[Box, ...] = ()
    strokes: tuple[tuple[Point, ...], ...] = ()

    def require_inside(self, clip: ClipInfo) -> None:
        """Refuses what does not lie in the frame."""
        require_inside(clip, self.boxes, self.strokes)


def put(question: Question | Sample | Line, features: Path | None) -> Put:
    """A question as it is put to the model.

    Args:
        question: of any kind.
        features: where relative folders of precomputed features start from; the folder of the file of questions where None.

    Raises:
        UsageError: it cannot be understood.
    """
    folder = question.folder if isinstance(question, Line) else None
    found = question.understood() if isinstance(question, Line) else question
    made = _of_sample(found, folder) if isinstance(found, Sample) else _of_question(found, folder)
    root = features or made.sample.root or folder or Path()
    return Put(made.sample.at(root), made.video, made.boxes, made.strokes)


def _of_question(question: Question, folder: Path | None) -> Put:
    strokes = (*((point,) for point in question.points), *question.scribbles)
    video = question.video if folder is None or "://" in question.video else folder / question.video
    sample = question_sample(
        video,
        question.question,
        id=question.id,
        boxes=question.boxes,
        strokes=strokes,
        history=question.history,
        start_sec=question.start_sec,
        end_sec=question.end_sec,
        fps=question.fps,
    )
    return Put(sample, question.video, question.boxes, strokes)


def _of_sample(sample: Sample, folder: Path | None) -> Put:
    """A sample up to its last question; earlier answers stay."""
    turns = sample.conversation[:-1] if sample.conversation[-1].role == "assistant" else sample.conversation
    found = sample if folder is None or sample.root is not None else sample.at(folder)
    changes: dict[str, Any] = {"conversation": turns, "targets": Targets()}
    if found.media.is_file:
        changes["media"] = found.media.model_copy(update={"path": str(found.media_path.absolute())})
    return Put(found.model_copy(update=changes), sample.media.path)
