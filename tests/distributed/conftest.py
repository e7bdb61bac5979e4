"""Two processes that wait for work, what one process gives for the same, and jobs in folders of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.team import Team, unused_port


@pytest.fixture(scope="session")
def two() -> Iterator[Team]:
    """Two processes joined by gloo."""
    team = Team(2)
    yield team
    team.end()


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """What one process gives for the same job, done once for each."""
    done: dict[str, Any] = {}

    def run(job: Any) -> Any:
        from tests.distributed import jobs

        key = repr(replace(job, out="", options={name: value for name, value in job.options.items() if name != "shard"}))
        if key not in done:
            out = tmp_path_factory.mktemp("alone") / "run"
            options = {name: value for name, value in job.options.items() if name != "shard"}
            done[key] = jobs.train(replace(job, out=str(out), options=options))
        return done[key]

    return run


@pytest.fixture
def free_port() -> int:
    return unused_port()


@pytest.fixture
def job(tiny_base: Path, tmp_path: Path) -> Callable[..., Any]:
    """A job in a folder of its own."""
    from tests.distributed.jobs import Job

    return lambda **settings: Job(str(tiny_base), str(tmp_path / "run"), **settings)
