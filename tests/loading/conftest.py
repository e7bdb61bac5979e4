"""Clips as files, some of them damaged, and a stage that shows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.loading.small_films import stage
from tpo_lab.datasets.world.synth import synthesise
from tpo_lab.sample import Sample, read
from tpo_lab.training import StageData, by_task


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Questions about regions of some clips, which lie as files in one folder."""
    return read(synthesise(tmp_path_factory.mktemp("films"), samples=30, split="train", tasks=("region",)))


@pytest.fixture(scope="session")
def regions(films: list[Sample]) -> StageData:
    return StageData(by_task(films), stage(), seed=3)


@pytest.fixture
def damaged(films: list[Sample], tmp_path: Path) -> Callable[..., list[Sample]]:
    """The same samples on copies of the files, some of which are cut to a few bytes: `damaged(2)` the first two clips."""

    def made(count: int) -> list[Sample]:
        names = list(dict.fromkeys(sample.media.path for sample in films))
        for place, name in enumerate(names):
            target = tmp_path / "films" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            whole = (films[0].root / name).read_bytes()
            target.write_bytes(whole[:40] if place < count else whole)
        return [sample.at(tmp_path / "films") for sample in films]

    return made
