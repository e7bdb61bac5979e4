"""One fixture, `measure`: it times a call and adds a row to the table at the end and to build/benchmarks.json."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROWS = pytest.StashKey[list[dict[str, object]]]()
OUT = Path("build/benchmarks.json")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Callable[..., float]:
    """`measure(call, rounds=5, units=1)`: seconds per unit, the median of the rounds after one that is not counted."""

    def run(call: Callable[[], object], *, rounds: int = 5, units: int = 1) -> float:
        call()
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            call()
            seconds.append((time.perf_counter() - start) / units)
        row = {"name": request.node.name, "rounds": rounds, "median_sec": statistics.median(seconds), "min_sec": min(seconds)}
        request.config.stash[ROWS].append(row)
        return statistics.median(seconds)

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[ROWS]
    if not rows:
        return
    terminalreporter.section("benchmarks")
    for row in rows:
        terminalreporter.write_line(f"{row['name']:<56} median {row['median_sec'] * 1e3:10.2f} ms   min {row['min_sec'] * 1e3:10.2f} ms")
    out = config.rootpath / OUT
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"machine": platform.platform(), "python": platform.python_version(), "rows": rows}, indent=1) + "\n")
