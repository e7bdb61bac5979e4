"""Sweeps on disk for the tests of RunsView: finished, failed and running runs, with what they logged as they trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.reruns.written import FAILURE, Wrote, sweep_folder
from tpo_lab.runs import RunFolder

RATES, MODES, SEEDS = (1e-4, 1e-3, 1e-1), ("plain", "focal"), (0, 1)


def result(**headline: float) -> dict[str, Any]:
    return {"schema": "tpo_lab.result/1", "headline": headline, "after": {"region": {"iou": 0.25}}}


def accuracy(rate: float, mode: str, seed: int) -> float:
    return round(0.5 + 0.05 * math.log10(rate / 1e-4) + (0.1 if mode == "focal" else 0.0) + 0.01 * seed, 4)


def grid() -> list[Wrote]:
    """3 rates x 2 modes x 2 seeds: one failed, one waits; `iou` is missing in those of mode "plain"."""
    runs = []
    for rate in RATES:
        for mode in MODES:
            for seed in SEEDS:
                found = accuracy(rate, mode, seed)
                iou = {"iou": round(found / 2, 4)} if mode == "focal" else {}
                runs.append(Wrote({"lr": rate, "mode": mode}, seed, result(acc=found, **iou, loss=round(1 - found, 4))))
    runs[5] = Wrote({"lr": 1e-3, "mode": "plain"}, 1, error=FAILURE)
    runs[11] = Wrote({"lr": 1e-1, "mode": "focal"}, 1)
    return runs


def train(folder: Path, runs: Sequence[Wrote], steps: int = 5) -> None:
    """Lets each of these runs have logged a training: loss = 2 / step + its place."""
    for place, run in enumerate(runs):
        made = RunFolder(folder / "jobs" / run.key / "run" / "2.region", {"stage": "2.region"})
        for step in range(1, steps + 1):
            made.log(
                stage="2.region", step=step, seconds=0.5, lr=0.1, loss=2 / step + place, **{"region/l1": 1 / step, "gradient/region": 3.0}
            )


def many(out: Path, count: int) -> Path:
    """A sweep of so many runs in 3 modes."""
    runs = [
        Wrote({"lr": 10.0 ** -(1 + place % 4), "mode": ("a", "b", "c")[place % 3], "number": place}, place % 5, result(acc=place / count))
        if place % 7
        else Wrote({"lr": 0.1, "mode": "a", "number": place}, place % 5, error=FAILURE)
        for place in range(count)
    ]
    return sweep_folder(out, runs)
