"""A sweep's folder as it lies on disk after its runs, without having run them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tpo_lab.reruns.plan.job import Job

FAILURE = {"cell": 7, "type": "ValueError", "message": "a | b_c <d>\nand more"}


@dataclass(frozen=True)
class Wrote:
    """What one run left: the result record of a done one, the error of a failed one, or neither."""

    point: Mapping[str, Any]
    seed: int | None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    link: str = "head"
    after: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return " ".join([self.link, *(f"{name}={value}" for name, value in self.point.items()), f"seed={self.seed}"])

    @property
    def key(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]

    @property
    def job(self) -> Job:
        values = {"fast": True, **self.point, **({} if self.seed is None else {"seed": self.seed}), **self.values}
        return Job(self.key, self.name, self.link, f"/notebooks/{self.link}.ipynb", dict(self.point), self.seed, values, self.after)


def sweep_folder(out: Path, runs: Sequence[Wrote], *, baseline: Mapping[str, Any] | None = None, **environment: Any) -> Path:
    """Writes sweep.json and the folder of each run."""
    for run in runs:
        _write(out / "jobs" / run.key, run)
    sweep = {"file": "s.yaml", "name": "s", "notebook": "head.ipynb", **({} if baseline is None else {"baseline": dict(baseline)})}
    document = {"schema": "tpo_lab.sweep/1", **sweep, "environment": {"torch": "2.9", **environment}}
    (out / "sweep.json").write_text(json.dumps({**document, "jobs": [run.key for run in runs]}))
    return out


def _write(folder: Path, run: Wrote) -> None:
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps(run.job.to_dict()))
    began = {"number": 1, "began": "2030-01-02T03:04:05+00:00", "seconds": 12.5, "worker": "slot 1", "host": "here"}
    if run.result is not None:
        done = {"schema": "tpo_lab.job/1", "key": run.key, "result": run.result, "seconds": 12.5, "peak_memory_mb": 321.0, "finished": "x"}
        (folder / "done.json").write_text(json.dumps(done))
    if run.result is not None or run.error is not None:
        attempt = {**began, "state": "done" if run.error is None else "failed", "error": run.error}
        (folder / "attempts.jsonl").write_text(json.dumps(attempt) + "\n")
        (folder / "executed.ipynb").write_text(json.dumps(NOTEBOOK))


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
NOTEBOOK: dict[str, Any] = {
    "cells": [
        {"cell_type": "markdown", "metadata": {}, "source": "# Title"},
        {
            "cell_type": "code",
            "metadata": {},
            "source": "draw()",
            "execution_count": 1,
            "outputs": [{"output_type": "display_data", "metadata": {}, "data": {"image/png": PIXEL, "text/plain": "a picture"}}],
        },
    ],
    "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 4,
}


def scored(point: Mapping[str, Any], seed: int | None, accuracy: float | None, **more: Any) -> Wrote:
    """A done run with one figure in its headline and one below it."""
    result = {"schema": "tpo_lab.result/1", "headline": {"acc": accuracy}, "after": {"region": {"iou": 0.25}, "kind": "nano"}, **more}
    return Wrote(point, seed, result)
