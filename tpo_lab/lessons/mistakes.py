"""Samples as plain records, and the mistakes that people make when they write them: planted, for notebooks in which they are found."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tpo_lab.errors import UsageError
from tpo_lab.sample import Sample

Records = list[dict[str, Any]]


def records_of(samples: Iterable[Sample]) -> Records:
    """The samples as they stand in their file, one dictionary a line, free to be changed."""
    return [sample.model_dump(mode="json") for sample in samples]


def write_records(path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]]) -> Path:
    """Write records as JSON lines, right or wrong: unlike `tpo_lab.write` this checks nothing. Returns the path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return target


def plant_mistakes(samples: Sequence[Sample]) -> Records:
    """The records of these samples with four mistakes, each in a record of its own.

    A window whose ends are swapped, a box that reaches beyond its frame (as if in pixels of a larger picture), a video under a name that
    does not exist, and a marker whose target was forgotten.

    Args:
        samples: at least two with a box and two with a window.

    Raises:
        UsageError: there are fewer.
    """
    records = records_of(samples)
    boxed = [record for record in records if "region" in record["targets"]]
    timed = [record for record in records if "temporal" in record["targets"]]
    if len(boxed) < 2 or len(timed) < 2:
        raise UsageError("samples", expected="two with a box and two with a window", got=f"{len(boxed)} and {len(timed)}")
    window = timed[0]["targets"]["temporal"]["windows_sec"][0]
    window.reverse()
    box = boxed[0]["targets"]["region"][0]
    box["xyxy"] = [10 * edge for edge in box["xyxy"]]
    media = timed[1]["media"]
    media["path"] = str(Path(media["path"]).with_suffix(".mov"))
    boxed[1]["targets"] = {}
    return records


def halve_boxes(samples: Iterable[Sample]) -> list[Sample]:
    """The samples with the numbers of their region targets halved, as if read off a picture of half the size: no rule is broken."""
    return [_halved(sample) for sample in samples]


def _halved(sample: Sample) -> Sample:
    record = sample.model_dump(mode="json")
    for target in record["targets"].get("region", ()):
        target["xyxy"] = [edge / 2 for edge in target["xyxy"]]
    made = Sample.model_validate(record)
    return made if sample.root is None else made.at(sample.root)
