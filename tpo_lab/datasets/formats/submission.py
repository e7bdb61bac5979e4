"""What the official evaluations take: predictions, as samples whose targets are a model's answers, written in their forms."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tpo_lab.errors import UsageError
from tpo_lab.files.writing import replaced
from tpo_lab.sample import Sample


def raw_of(sample: Sample, *fields: str) -> dict[str, Any]:
    """The record that a sample was made of.

    Raises:
        UsageError: the sample was not made of such a record, or one of the fields is missing in it.
    """
    raw = sample.meta.get("raw")
    if not isinstance(raw, dict) or any(name not in raw for name in fields):
        expected = f"the raw record with {', '.join(fields)}, which `tpo-lab data convert` keeps"
        raise UsageError(f"sample {sample.id}, meta.raw", expected=expected, got=sorted(raw) if isinstance(raw, dict) else raw)
    return raw


def ranked_windows(sample: Sample) -> list[list[float]]:
    """Windows with scores, best first, as the sample has them; where `meta.scores` gives none, the rank is the score: 1, then less.

    A sample without windows gives [].
    """
    target = sample.targets.temporal
    found = [] if target is None else [list(each) for each in target.windows_sec]
    scores = sample.meta.get("scores")
    if not isinstance(scores, list) or len(scores) != len(found):
        scores = [1.0 - rank / len(found) for rank in range(len(found))]
    return [[*window, float(score)] for window, score in zip(found, scores, strict=True)]  # type: ignore[arg-type]


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Writes lines of text and returns how many; on any failure `path` is left as it was."""
    count = 0
    with replaced(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(line + "\n")
            count += 1
    return count


def write_text(path: Path, text: str) -> None:
    """Writes a file; on any failure `path` is left as it was."""
    with replaced(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
