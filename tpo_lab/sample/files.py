"""JSONL files of samples: read, checked, written."""

from __future__ import annotations

import gc
import glob
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from tpo_lab.errors import UsageError
from tpo_lab.files.writing import replaced
from tpo_lab.sample.rules import SHOWN_CHARACTERS, Problem, shorten
from tpo_lab.sample.schema import SCHEMA, Sample


def read(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Sample]:
    """All samples of one or several JSONL files, in order.

    Raises:
        UsageError: a file is missing, or a record is bad; names file, line, field, value and rule.
    """
    several = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    with _without_garbage_collection():
        return [sample for path in several for sample in iter_samples(path)]


def iter_samples(path: str | os.PathLike[str]) -> Iterator[Sample]:
    """The samples of one JSONL file, one at a time. Raises as `read`, when the bad record is reached."""
    for found in scan(path):
        if isinstance(found, Sample):
            yield found
            continue
        problem = found[0]
        where = ": ".join(part for part in (f"{path}, line {problem.line}", problem.field) if part)
        got = problem.value if len(repr(problem.value)) <= SHOWN_CHARACTERS else shorten(str(problem.value))
        raise UsageError(where, expected=f"{problem.message} (rule {problem.rule})", got=got)


def validate(path: str | os.PathLike[str], *, check_media: bool = False) -> list[Problem]:
    """Every problem of every record of one JSONL file; `check_media` also looks for the media files.

    Raises:
        UsageError: there is no such file.
    """
    return [problem for found in scan(path, check_media=check_media) if not isinstance(found, Sample) for problem in found]


def scan(path: str | os.PathLike[str], *, check_media: bool = False) -> Iterator[Sample | list[Problem]]:
    """Every record of one JSONL file, one at a time: a sample, or what is wrong with it.

    Raises:
        UsageError: there is no such file.
    """
    return _scan(Path(path), check_media)


def write(path: str | os.PathLike[str], samples: Iterable[Sample]) -> int:
    """Writes samples as JSONL behind a header line and returns how many; on any failure `path` is left as it was.

    A relative `media.path` of a sample that was read elsewhere is rewritten, so that it still leads to the same file.

    Raises:
        UsageError: two samples share an id, or `meta` holds what JSON cannot.
    """
    path = Path(path)
    ids: set[str] = set()
    with replaced(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps({"schema": SCHEMA}) + "\n")
        for sample in samples:
            if sample.id in ids:
                raise UsageError("samples", expected="ids that differ", got=sample.id)
            ids.add(sample.id)
            file.write(_to_line(sample, path.parent))
    return len(ids)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Millions of small objects that all stay: looking through them for garbage again and again takes two fifths of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


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
        raise UsageError("samples", expected="a JSONL file of samples", got=str(path))
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
            if check_media and not has_media(found):
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
        return [replace(problem, line=line) for problem in explain(error)]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def explain(error: ValidationError) -> Iterator[Problem]:
    """The problems of a record that the schema refused; `line` is 0."""
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


def has_media(sample: Sample) -> bool:
    """Whether the file of a sample is there, or one that its pattern matches; True for media that are no file."""
    path = sample.media_path
    if not sample.media.is_file or os.path.exists(path):
        return True
    return glob.has_magic(str(path)) and next(glob.iglob(str(path)), None) is not None
