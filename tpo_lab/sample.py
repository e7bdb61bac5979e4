"""The sample schema `tpo_lab.sample/1`: one conversation about one video or image, with its prompts and head targets, and its JSONL files.

Times are seconds from `media.start_sec` (0 is the first instant shown to the model), boxes and points pixels of the original frame.
Not here: the reading of pixels, the decoding of RLE, the tokens that markers become.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tpo_lab.errors import UsageError

SCHEMA = "tpo_lab.sample/1"
DURATION_SLACK_SEC = 1e-6  # end_sec - start_sec is rounded by floating point
_MARKER = re.compile(r"<([a-z][a-z0-9_-]*)>")
_MENTION = re.compile(r"<prompt:([0-9]{1,9})>")
_SHOWN_CHARACTERS = 120


@dataclass(frozen=True)
class Problem:
    """One broken rule of one record: line (from 1), dotted field ("" = the whole record), the value there, the rule's name.

    `message` says what was expected, as a phrase.
    """

    line: int
    field: str
    value: object
    rule: str
    message: str

    def __str__(self) -> str:
        """One line for a terminal or a log."""
        where = f"line {self.line}, {self.field}" if self.field else f"line {self.line}"
        return f"{where}: expected {self.message}, got {shorten(repr(self.value))} (rule {self.rule})"


def markers(text: str) -> list[str]:
    """The head names marked in an assistant's text, in order: "It is here <region>" gives ["region"]."""
    return _MARKER.findall(text)


def mentions(text: str) -> list[int]:
    """The prompt indices mentioned in a user's text, in order: "Where is <prompt:0>?" gives [0]."""
    return [int(index) for index in _MENTION.findall(text)]


def shorten(text: str) -> str:
    """`text` cut to what an error message can show."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


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

    A path with a scheme ("world://...") is no file: it is kept as it is and never looked for.
    """

    path: Annotated[str, Field(pattern=r"^[^\x00]+$")]
    start_sec: NonNegative = 0.0
    end_sec: NonNegative | None = None

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


class ScribblePrompt(_Record):
    """A stroke through two or more points, (x, y) in pixels, on the frame at `time_sec`."""

    type: Literal["scribble"] = "scribble"
    time_sec: NonNegative = 0.0
    xys: Annotated[tuple[Point, ...], Field(min_length=2)]


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
        problems = [*_turn_problems(self), *_prompt_problems(self), *_marker_problems(self), *_time_problems(self)]
        if problems:
            sentence = "; ".join(f"{p.field}: expected {p.message}, got {shorten(repr(p.value))}" for p in problems)
            raise PydanticCustomError("sample_rules", "{sentence}", {"sentence": sentence, "problems": problems})
        return self


def _turn_problems(sample: Sample) -> Iterator[Problem]:
    for index, turn in enumerate(sample.conversation):
        due = ("user", "assistant")[index % 2]
        if turn.role != due:
            yield Problem(0, f"conversation[{index}].role", turn.role, "roles_alternate", f"'{due}', since turns alternate from the user")


def _prompt_problems(sample: Sample) -> Iterator[Problem]:
    mentioned: set[int] = set()
    for index, turn in enumerate(sample.conversation):
        field, found = f"conversation[{index}].text", mentions(turn.text)
        if turn.text.count("<prompt:") != len(found):
            yield Problem(0, field, turn.text, "mention_form", "mentions written as <prompt:0>")
        if found and turn.role == "assistant":
            yield Problem(0, field, turn.text, "mention_role", "<prompt:i> in user turns only")
            continue
        mentioned.update(found)
        if any(prompt >= len(sample.prompts) for prompt in found):
            yield Problem(0, field, turn.text, "mention_has_prompt", f"mentions of the {len(sample.prompts)} prompts, counted from 0")
    for index in range(len(sample.prompts)):
        if index not in mentioned:
            yield Problem(0, f"prompts[{index}]", sample.prompts[index].type, "prompt_mentioned", f"a user turn with <prompt:{index}>")


def _marker_problems(sample: Sample) -> Iterator[Problem]:
    marked: Counter[str] = Counter()
    most = {"region": len(sample.targets.region or ()), "temporal": 1, "mask": 1, "track": 1}
    expected = {name for name in sample.targets.names if name != "region" or sample.targets.region}
    for index, turn in enumerate(sample.conversation):
        for name in markers(turn.text) if turn.role == "assistant" else ():
            field = f"conversation[{index}].text"
            if name not in expected:
                got = "only an empty list, which says that the object is absent" if name in sample.targets.names else "none"
                yield Problem(0, field, turn.text, "marker_has_target", f"a target named '{name}' for <{name}> (there is {got})")
            elif marked[name] == most.get(name):
                yield Problem(0, field, turn.text, "marker_count", f"<{name}> at most {most[name]} times, as its target has it")
            marked[name] += 1
    for name in sorted(expected - set(marked)):
        yield Problem(0, f"targets.{name}", name, "target_has_marker", f"<{name}> in an assistant turn")


def _time_problems(sample: Sample) -> Iterator[Problem]:
    targets = sample.targets
    region_sec = [item.time_sec for item in targets.region or ()]
    if region_sec != sorted(region_sec):
        yield Problem(0, "targets.region", region_sec, "times_ascending", "ascending time_sec")
    duration = sample.media.duration_sec
    if duration is None:
        return
    for field, time_sec in _times(sample, region_sec):
        if time_sec > duration + DURATION_SLACK_SEC:
            yield Problem(0, field, time_sec, "time_in_media", f"a time within the media's {duration:g} s")
    if targets.temporal and (saliency := targets.temporal.saliency):
        last_start_sec = (len(saliency.scores) - 1) * saliency.step_sec
        if last_start_sec >= duration + DURATION_SLACK_SEC:
            field = "targets.temporal.saliency.scores"
            yield Problem(0, field, len(saliency.scores), "time_in_media", f"clips that start within the media's {duration:g} s")


def _times(sample: Sample, region_sec: list[float]) -> Iterator[tuple[str, float]]:
    yield from ((f"prompts[{i}].time_sec", prompt.time_sec) for i, prompt in enumerate(sample.prompts))
    yield from ((f"targets.region[{i}].time_sec", time_sec) for i, time_sec in enumerate(region_sec))
    if sample.targets.temporal:
        yield from ((f"targets.temporal.windows_sec[{i}]", end) for i, (_, end) in enumerate(sample.targets.temporal.windows_sec))
    for name, target in (("mask", sample.targets.mask), ("track", sample.targets.track)):
        yield from ((f"targets.{name}.times_sec[{i}]", time_sec) for i, time_sec in enumerate(target.times_sec if target else ()))


def read(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Sample]:
    """All samples of one or several JSONL files, in order.

    Raises:
        UsageError: a file is missing, or a record is bad; names file, line, field, value and rule.
    """
    several = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    return [sample for path in several for sample in iter_samples(path)]


def iter_samples(path: str | os.PathLike[str]) -> Iterator[Sample]:
    """The samples of one JSONL file, one at a time. Raises as `read`, when the bad record is reached."""
    for found in _scan(Path(path), check_media=False):
        if isinstance(found, Sample):
            yield found
            continue
        problem = found[0]
        where = ": ".join(part for part in (f"{path}, line {problem.line}", problem.field) if part)
        got = problem.value if len(repr(problem.value)) <= _SHOWN_CHARACTERS else shorten(str(problem.value))
        raise UsageError(where, expected=f"{problem.message} (rule {problem.rule})", got=got)


def validate(path: str | os.PathLike[str], *, check_media: bool = False) -> list[Problem]:
    """Every problem of every record of one JSONL file; `check_media` also looks for the media files.

    Raises:
        UsageError: there is no such file.
    """
    return [problem for found in _scan(Path(path), check_media) if not isinstance(found, Sample) for problem in found]


def write(path: str | os.PathLike[str], samples: Iterable[Sample]) -> int:
    """Writes samples as JSONL behind a header line and returns how many; on any failure `path` is left as it was.

    A relative `media.path` of a sample that was read elsewhere is rewritten, so that it still leads to the same file.

    Raises:
        UsageError: two samples share an id, or `meta` holds what JSON cannot.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    ids: set[str] = set()
    try:
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps({"schema": SCHEMA}) + "\n")
            for sample in samples:
                if sample.id in ids:
                    raise UsageError("samples", expected="ids that differ", got=sample.id)
                ids.add(sample.id)
                file.write(_to_line(sample, path.parent))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return len(ids)


def _to_line(sample: Sample, folder: Path) -> str:
    record = sample.model_dump(mode="json")
    is_relative = sample.media.is_file and not Path(sample.media.path).is_absolute()
    if is_relative and sample.root is not None and (old := sample.root.resolve()) != (new := folder.resolve()):
        record["media"]["path"] = Path(os.path.relpath(old / sample.media.path, new)).as_posix()
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
        line.encode()
    except ValueError as error:
        raise UsageError(f"sample {sample.id}", expected="finite numbers and valid Unicode", got=str(error)) from error
    return line + "\n"


def _scan(path: Path, check_media: bool) -> Iterator[Sample | list[Problem]]:
    if not path.is_file():
        raise UsageError("path", expected="a JSONL file of samples", got=str(path))
    line_of: dict[str, int] = {}
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            found = _parse(line, raw, path.parent)
            if not isinstance(found, Sample):
                if found:
                    yield found
                continue
            problems = []
            if (first := line_of.setdefault(found.id, line)) != line:
                problems.append(Problem(line, "id", found.id, "id_unique", f"an id other than that of line {first}"))
            if check_media and found.media.is_file and not _exists(found.media_path):
                message = f"an existing file, or a pattern that matches one, under {path.parent}"
                problems.append(Problem(line, "media.path", found.media.path, "media_exists", message))
            yield problems or found


def _parse(line: int, raw: bytes, root: Path) -> Sample | list[Problem]:
    """A sample, or its problems; blank lines and headers (on any line, so that files may be joined) have none."""
    try:
        text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
        record = json.loads(text, parse_constant=_refuse_constant) if text else {"schema": SCHEMA}
        if "\\u" in text:
            json.dumps(record, ensure_ascii=False).encode()  # refuses lone surrogates, which JSON can spell and UTF-8 cannot
    except (ValueError, RecursionError) as error:
        return [Problem(line, "", shorten(raw.decode("utf-8", "replace").strip()), "json", f"one JSON object in UTF-8 ({error})")]
    if not isinstance(record, dict):
        return [Problem(line, "", record, "json", "a JSON object")]
    is_header = set(record) == {"schema"}
    if (schema := record.pop("schema", SCHEMA)) != SCHEMA:
        return [Problem(line, "schema", schema, "schema", f"the schema '{SCHEMA}', the only one this version reads")]
    if is_header:
        return []
    try:
        return Sample.model_validate(record).at(root)
    except ValidationError as error:
        return [replace(problem, line=line) for problem in _explain(error)]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _explain(error: ValidationError) -> Iterator[Problem]:
    phrases = {"missing": "this field", "extra_forbidden": "only the schema's fields"}
    for detail in error.errors(include_url=False):
        if detail["type"] == "sample_rules":
            yield from detail["ctx"]["problems"]
            continue
        value = None if detail["type"] == "missing" else detail["input"]
        message = phrases.get(detail["type"], detail["msg"].removeprefix("Input should be "))
        yield Problem(0, _dotted(detail["loc"]), value, detail["type"], message)


def _dotted(location: tuple[int | str, ...]) -> str:
    """`conversation[0].text` for ("conversation", 0, "text"), without the kind that pydantic puts after a prompt's index."""
    parts = location[:2] + location[3:] if location[:1] == ("prompts",) else location
    return shorten("".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix("."))


def _exists(path: Path) -> bool:
    return os.path.exists(path) or (glob.has_magic(str(path)) and next(glob.iglob(str(path)), None) is not None)
