"""Fixtures that time calls, and add a row for each to the table at the end and to build/benchmarks.json: `measure` and `race`."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
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
        return note(request.config, request.node.name, seconds)

    return run


@pytest.fixture(scope="session")
def race(pytestconfig: pytest.Config) -> Callable[..., dict[str, float]]:
    """`race({"name": call, ...}, rounds=3, units=1)`: processor seconds per unit by name, medians of rounds in which the calls take turns.

    Whatever slows the machine down slows all of them down, and what other jobs take is not counted.
    """

    def run(calls: Mapping[str, Callable[[], object]], *, rounds: int = 3, units: int = 1) -> dict[str, float]:
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                start = time.process_time()
                call()
                seconds[name].append((time.process_time() - start) / units)
        return {name: note(pytestconfig, name, each) for name, each in seconds.items()}

    return run


def note(config: pytest.Config, name: str, seconds: Sequence[float]) -> float:
    """Add a row for these rounds; their median."""
    row = {"name": name, "rounds": len(seconds), "median_sec": statistics.median(seconds), "min_sec": min(seconds)}
    config.stash[ROWS].append(row)
    return statistics.median(seconds)


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
