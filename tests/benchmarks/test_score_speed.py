"""Seconds of `tpo-lab score`: QVHighlights val as a whole command, and LaSOT's test set, which grows with its size and takes workers.

The bars are on the time of the processor, which other jobs do not change; the table shows the time on the clock.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tpo_lab.scoring import Request, score

ROOT = Path(__file__).parents[2]
QUERIES, QVHIGHLIGHTS_SEC = 1550, 3.0
SEQUENCES, FRAMES, LASOT_SEC = 280, 685_360, 30.0
# a test set of a quarter of the size may take this much more than a quarter of the time
LINEAR = 1.5
# two processes must save something even on a busy machine of two cores
TWO_WORKERS = 0.9


def command(*words: object) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "tpo_lab", "score", *map(str, words), "--json"], check=True, capture_output=True, env=env)


def processor_seconds(call: Callable[[], object]) -> float:
    """Of this process and of those that it started and that have ended."""
    start = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    call()
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) - start


def write_qvhighlights(root: Path, queries: int = QUERIES) -> tuple[Path, Path]:
    """A split of two-minute videos: 1 to 3 true windows, 10 predicted ones and a score per clip for each query."""
    generator = np.random.default_rng(0)
    truth, made = [], []
    for qid in range(queries):
        starts = np.sort(generator.choice(14, int(generator.integers(1, 4)), replace=False)) * 10
        windows = [[int(start), int(start) + 2 * int(generator.integers(1, 6))] for start in starts]
        clips = [clip for start, end in windows for clip in range(start // 2, end // 2)]
        levels = generator.integers(0, 5, (len(clips), 3)).tolist()
        truth.append({"qid": qid, "duration": 150, "relevant_windows": windows, "relevant_clip_ids": clips, "saliency_scores": levels})
        given = np.concatenate([np.sort(generator.integers(0, 151, (10, 2)), axis=1), generator.random((10, 1)).round(4)], axis=1)
        given[:, 1] += 1
        made.append(
            {"qid": qid, "pred_relevant_windows": given.tolist(), "pred_saliency_scores": generator.normal(size=75).round(6).tolist()}
        )
    for name, rows in (("p.jsonl", made), ("g.jsonl", truth)):
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "p.jsonl", root / "g.jsonl"


def write_lasot(root: Path, sequences: int, frames: int) -> Request:
    """Results and annotations of `sequences` videos with `frames` frames in all."""
    generator = np.random.default_rng(1)
    for name in ("pred", "annos/absent"):
        (root / name).mkdir(parents=True)
    for place, count in enumerate(np.diff(np.linspace(0, frames, sequences + 1).astype(int))):
        true = np.concatenate([generator.integers(1, 900, (count, 2)), generator.integers(5, 300, (count, 2))], axis=1)
        pred = true + generator.normal(0, 8, true.shape)
        np.savetxt(root / "annos" / f"v-{place}.txt", true, fmt="%d", delimiter=",")
        np.savetxt(root / "pred" / f"v-{place}.txt", pred.clip(0.5), fmt="%.2f", delimiter=",")
        np.savetxt(root / "annos" / "absent" / f"v-{place}.txt", generator.random(count) < 0.03, fmt="%d")
    return Request(root / "pred", root / "annos", variant="pytracking")


def test_qvhighlights_val_as_a_command(tmp_path: Path, measure):
    pred, gt = write_qvhighlights(tmp_path)
    measure(lambda: command("qvhighlights", "--pred", pred, "--gt", gt), rounds=3)
    seconds = processor_seconds(lambda: command("qvhighlights", "--pred", pred, "--gt", gt))
    print(f"{seconds:.2f} s of one core")
    assert seconds <= QVHIGHLIGHTS_SEC


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Request]:
    return {
        "quarter": write_lasot(tmp_path_factory.mktemp("quarter"), SEQUENCES // 4, FRAMES // 4),
        "whole": write_lasot(tmp_path_factory.mktemp("whole"), SEQUENCES, FRAMES),
    }


def test_lasot_test_set(sets, measure):
    measure(lambda: score("lasot", sets["whole"]), rounds=1)
    calls = [partial(score, "lasot", each) for each in sets.values()]
    quarter, whole = (min(processor_seconds(call) for _ in range(2)) for call in calls)
    print(f"{whole:.2f} s of one core, a quarter of it {quarter:.2f} s")
    assert whole <= LASOT_SEC and whole <= 4 * LINEAR * quarter


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
def test_lasot_with_two_workers(sets):
    seconds = {}
    for workers in (1, 2):
        start = time.perf_counter()
        score("lasot", replace(sets["whole"], workers=workers))
        seconds[workers] = time.perf_counter() - start
    print(f"one worker {seconds[1]:.2f} s, two {seconds[2]:.2f} s")
    assert seconds[2] <= TWO_WORKERS * seconds[1] or seconds[1] <= LASOT_SEC / 10
