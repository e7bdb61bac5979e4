"""A sweep in a process of its own that is killed at random times; what must hold in the end. Also used by the benchmark."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.reruns.small_jobs import MARK, events
from tpo_lab.reruns.disk.store import Store

ROOT = Path(__file__).parents[2]


def start_sweep(sweep: Path, out: Path, *options: str, mark: str = "") -> subprocess.Popen[str]:
    """`tpo-lab rerun` with --json, as a process that is alone in its session."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "widgets")]), MARK: mark}
    command = [sys.executable, "-m", "tpo_lab", "rerun", str(sweep), "--out", str(out), "--json", *options]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def summary_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the sweep prints in the end."""
    out, err = process.communicate(timeout=500)
    assert out, err
    found: dict[str, Any] = json.loads(out)
    return found


def kill_at_random(sweep: Path, out: Path, kills: int, seed: int, mark: str) -> int:
    """Start the sweep and kill it, so many times; each time the same command again. Ends early where nothing is left to do.

    It is killed at any time up to two seconds after 0 to 6 things have happened in it: a slow machine is so not killed in its imports
    each time.

    Returns:
        how often it was killed.
    """
    chance = random.Random(seed)
    for number in range(kills):
        process, enough = start_sweep(sweep, out, "--workers", "2", mark=mark), happenings(out) + chance.randint(0, 6)
        until = time.monotonic() + 300
        while process.poll() is None and happenings(out) < enough and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(chance.uniform(0.0, 2.0))
        is_over = process.poll() is not None
        process.kill()
        process.communicate()
        if is_over:
            return number
    return kills


def happenings(out: Path) -> int:
    """How often a notebook has begun or finished or an attempt has ended, in all jobs."""
    return sum(len(path.read_text().splitlines()) for name in ("events.txt", "attempts.jsonl") for path in out.glob(f"jobs/*/{name}"))


def check_all_ran_once(out: Path, summary: dict[str, Any], doubles: list[float]) -> None:
    """Nothing lost, nothing run again once it was finished, the results right, and every attempt on record."""
    store = Store(out)
    jobs = store.jobs()
    assert (summary["jobs"], summary["done"], summary["failed"], summary["skipped"]) == (len(doubles), len(doubles), 0, 0), summary
    assert sorted(store.record(job.key)["result"]["headline"]["double"] for job in jobs) == sorted(doubles)
    for job in jobs:
        happened, attempts = events(store.folder(job.key).path), store.attempts(job.key)
        assert "finished" not in happened[:-1] and happened.count("begun") >= 1, (job.name, happened)
        assert [each["state"] for each in attempts].count("done") == 1 and attempts[-1]["state"] == "done", attempts
        assert {each["state"] for each in attempts[:-1]} <= {"killed", "interrupted"}, attempts
        assert [each["number"] for each in attempts] == list(range(1, len(attempts) + 1))
        # an attempt that was killed before its first cell has begun nothing
        assert happened.count("begun") <= len(attempts)
