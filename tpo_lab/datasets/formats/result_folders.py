"""Folders of predictions: written beside their place and moved there when whole; and answers at the times that an evaluation asks for."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tpo_lab.errors import UsageError
from tpo_lab.sample import Sample
from tpo_lab.sample.times import nearest_annotation

Value = TypeVar("Value")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `path` when all went well; on any failure nothing is left.

    Raises:
        UsageError: `path` is a file, or a folder that holds something.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(str(path), expected="a new or an empty folder", got="a folder with files" if path.is_dir() else "a file")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        if path.exists():
            path.rmdir()
        os.replace(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def relative(root: Path, sample: Sample, parts: Sequence[Any]) -> Path:
    """The place of a sample's predictions below `root`.

    Raises:
        UsageError: it would lie elsewhere.
    """
    if not all(isinstance(part, str) and part.strip(". ") and not {*part} & {*"/\\\x00"} for part in parts):
        raise UsageError(f"sample {sample.id}, meta.raw", expected="names of folders", got=list(parts))
    return root.joinpath(*parts)


def answers_at(times_sec: Sequence[float], answered_sec: Sequence[float], values: Sequence[Value | None]) -> list[Value | None]:
    """The answer at every time: the nearest one, if it is no further than half the least distance of two times; otherwise None.

    Args:
        times_sec: what is asked for, ascending.
        answered_sec: when there are answers, ascending.
        values: the answers.
    """
    reach_sec = float(np.diff(np.asarray(times_sec, dtype=np.float64)).min()) / 2 if len(times_sec) > 1 else math.inf
    nearest, near = nearest_annotation(times_sec, answered_sec, reach_sec=reach_sec)
    return [values[place] if is_near else None for place, is_near in zip(nearest.tolist(), near.tolist(), strict=True)]
