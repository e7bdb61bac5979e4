"""Questions that are answered by one point, made of those that are answered by one box: the point is its middle."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tpo_lab.sample import Sample

HEAD = "point"
"""The marker in the answers, and the key of the targets, [x, y] in pixels."""
REQUEST = "Point at it."
"""Put behind the question, so that it can be told from the one that asks for a box."""
BOX = "box_xyxy"
"""The key of `meta` that keeps the box, in pixels."""


def asked_to_point(samples: Iterable[Sample], head: str = HEAD) -> list[Sample]:
    """The samples that ask for exactly one box, each asking for the middle of that box; all others are left out.

    Args:
        samples: of any mixture of tasks.
        head: the marker of the answers and the key of the targets.
    """
    return [_pointing(sample, head) for sample in samples if len(sample.targets.region or ()) == 1]


def _pointing(sample: Sample, head: str) -> Sample:
    record: dict[str, Any] = sample.model_dump(mode="json")
    box = record["targets"]["region"][0]["xyxy"]
    *before, question, answer = record["conversation"]
    record["id"] = f"{sample.id}-{head}"
    record["conversation"] = [*before, {**question, "text": f"{question['text']} {REQUEST}"}, {**answer, "text": f"<{head}>"}]
    record["targets"] = {head: [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]}
    record["meta"] = {**record["meta"], "task": head, BOX: box}
    made = Sample.model_validate(record)
    return made if sample.root is None else made.at(sample.root)
