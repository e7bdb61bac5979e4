"""The sample schema `tpo_lab.sample/1`: one conversation about one video or image, with its prompts and head targets.

Times are seconds from `media.start_sec` (0 is the first instant shown to the model), boxes and points pixels of the original frame.
Not here: the reading of pixels, the decoding of RLE, the tokens that markers become.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tpo_lab.sample.rules import problems_of, shorten

SCHEMA = "tpo_lab.sample/1"


def _check_box(xyxy: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    if not (xyxy[0] < xyxy[2] and xyxy[1] < xyxy[3]):
        raise PydanticCustomError("box_corners", "x1 < x2 and y1 < y2")
    return xyxy


def _check_window(window: tuple[float, float]) -> tuple[float, float]:
    if not window[0] < window[1]:
        raise PydanticCustomError("window_order", "start < end")
    return window


def _check_times(times_sec: tuple[float, ...]) -> tuple[float, ...]:
    if any(later <= earlier for earlier, later in itertools.pairwise(times_sec)):
        raise PydanticCustomError("times_ascending", "strictly ascending times")
    return times_sec


Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
NonNegative = Annotated[Finite, Field(ge=0)]
Positive = Annotated[Finite, Field(gt=0)]
Point = tuple[NonNegative, NonNegative]
Box = Annotated[tuple[NonNegative, NonNegative, NonNegative, NonNegative], AfterValidator(_check_box)]
Window = Annotated[tuple[NonNegative, NonNegative], AfterValidator(_check_window)]
Times = Annotated[tuple[NonNegative, ...], Field(min_length=1), AfterValidator(_check_times)]
Filled = Annotated[str, Field(pattern=r"\S")]


class _Record(BaseModel):
    """Frozen, refuses unknown fields, and leaves declared fields that are None out of its JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    @model_serializer(mode="wrap")
    def _without_absent_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        declared = type(self).model_fields
        return {name: value for name, value in handler(self).items() if value is not None or name not in declared}


class Media(_Record):
    """A video file, an image, or a glob pattern of frames, and the part of it that the sample is about (seconds of the file).

    `fps` says how many images of a pattern are shown a second (1 where it is not given), and so for how long an image is: 0.125 shows a
    single one for 8 seconds. A video carries its own times. A path with a scheme ("world://...") is no file: it is kept as it is and
    never looked for.
    """

    path: Annotated[str, Field(pattern=r"^[^\x00]+$")]
    start_sec: NonNegative = 0.0
    end_sec: NonNegative | None = None
    fps: Positive | None = None

    @property
    def is_file(self) -> bool:
        """Whether the path leads into the file system."""
        return "://" not in self.path

    @property
    def duration_sec(self) -> float | None:
        """Length of the part, or None where `end_sec` is not known."""
        return None if self.end_sec is None else self.end_sec - self.start_sec

    @model_validator(mode="after")
    def _check_order(self) -> Media:
        if self.end_sec is not None and not self.start_sec < self.end_sec:
            raise PydanticCustomError("media_order", "start_sec < end_sec")
        return self


class Turn(_Record):
    """One message. User text points with `<prompt:i>`, assistant text marks where a head answers with `<region>`, `<temporal>`, ..."""

    role: Literal["user", "assistant"]
    text: Filled


class BoxPrompt(_Record):
    """A box, xyxy in pixels, on the frame at `time_sec`."""

    type: Literal["box"] = "box"
    time_sec: NonNegative = 0.0
    xyxy: Box


class PointPrompt(_Record):
    """A point, (x, y) in pixels, on the frame at `time_sec`."""

    type: Literal["point"] = "point"
    time_sec: NonNegative = 0.0
    xy: Point

    @property
    def points(self) -> tuple[Point, ...]:
        """As a stroke has them."""
        return (self.xy,)


class ScribblePrompt(_Record):
    """A stroke through two or more points, (x, y) in pixels, on the frame at `time_sec`."""

    type: Literal["scribble"] = "scribble"
    time_sec: NonNegative = 0.0
    xys: Annotated[tuple[Point, ...], Field(min_length=2)]

    @property
    def points(self) -> tuple[Point, ...]:
        """Of the stroke, in order."""
        return self.xys


Prompt = Annotated[BoxPrompt | PointPrompt | ScribblePrompt, Field(discriminator="type")]


class RegionTarget(_Record):
    """One object's box, xyxy in pixels, on the frame at `time_sec`."""

    time_sec: NonNegative = 0.0
    xyxy: Box


class Saliency(_Record):
    """One score per clip of `step_sec` seconds; clip k starts at k * step_sec."""

    step_sec: Positive
    scores: Annotated[tuple[Finite, ...], Field(min_length=1)]


class TemporalTarget(_Record):
    """Windows [start, end) in seconds, and the saliency per clip; at least one of the two."""

    windows_sec: tuple[Window, ...] = ()
    saliency: Saliency | None = None

    @model_validator(mode="after")
    def _check_filled(self) -> TemporalTarget:
        if not self.windows_sec and self.saliency is None:
            raise PydanticCustomError("temporal_filled", "at least one window or a saliency")
        return self


class Rle(_Record):
    """One mask as COCO compressed run lengths: `size` is [height, width] in pixels, `counts` column-major."""

    size: tuple[Annotated[int, Field(strict=True, gt=0)], Annotated[int, Field(strict=True, gt=0)]]
    counts: Annotated[str, Field(pattern=r"^[0-o]+$")]


class MaskTarget(_Record):
    """One object's mask per time; None where it is not visible."""

    times_sec: Times
    rle: tuple[Rle | None, ...]

    @model_validator(mode="after")
    def _check_frames(self) -> MaskTarget:
        _check_lengths(self.times_sec, self.rle)
        if len({rle.size for rle in self.rle if rle is not None}) > 1:
            raise PydanticCustomError("mask_size", "one size for all masks of a video")
        return self


class TrackTarget(_Record):
    """One object's box per time, xyxy in pixels; None where it is not visible."""

    times_sec: Times
    xyxy: tuple[Box | None, ...]

    @model_validator(mode="after")
    def _check_frames(self) -> TrackTarget:
        _check_lengths(self.times_sec, self.xyxy)
        return self


def _check_lengths(times_sec: Sequence[float], values: Sequence[object]) -> None:
    if len(times_sec) != len(values):
        raise PydanticCustomError("lengths_equal", "as many values as times_sec")


class Targets(_Record):
    """What each head should answer, by head name. Names other than the four are kept as they are: a user's own head reads its own."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    region: tuple[RegionTarget, ...] | None = None
    temporal: TemporalTarget | None = None
    mask: MaskTarget | None = None
    track: TrackTarget | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The heads that have a target, in schema order, own heads last. An empty region list (no such object) counts."""
        return tuple(name for name, value in self if value is not None)


class Sample(_Record):
    """One conversation about one video or image.

    Rules beside the types: turns alternate and start with the user; each `<prompt:i>` of a user turn has a prompt and each prompt is
    mentioned; each marker of an assistant turn has a target and each target a marker. `region: []` says that the object is absent: it
    has no marker. `<region>` stands at most once per box, `<temporal>`, `<mask>` and `<track>` once. No time lies outside the media.
    """

    id: Filled
    source: str = ""
    split: str = ""
    media: Media
    conversation: Annotated[tuple[Turn, ...], Field(min_length=1)]
    prompts: tuple[Prompt, ...] = ()
    targets: Targets = Field(default_factory=Targets)
    meta: dict[str, JsonValue] = Field(default_factory=dict)
    _root: Path | None = PrivateAttr(default=None)

    @property
    def root(self) -> Path | None:
        """The folder that a relative `media.path` starts from: the folder of the file the sample was read from."""
        return self._root

    @property
    def media_path(self) -> Path:
        """Where the media lies, or the glob pattern of its frames; means nothing where `media.is_file` is False."""
        return (self._root or Path()) / self.media.path

    def at(self, root: str | os.PathLike[str]) -> Sample:
        """The same sample with its media looked for under `root`."""
        moved = self.model_copy()
        moved._root = Path(root)
        return moved

    @model_validator(mode="after")
    def _check_rules(self) -> Sample:
        problems = problems_of(self)
        if problems:
            sentence = "; ".join(f"{p.field}: expected {p.message}, got {shorten(repr(p.value))}" for p in problems)
            raise PydanticCustomError("sample_rules", "{sentence}", {"sentence": sentence, "problems": problems})
        return self
