"""A call of the command line inside this process, and the small things that calls are made on."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tpo_lab import cli


@dataclass(frozen=True)
class Called:
    """What a call left behind."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document; fails where standard output holds anything beside it."""
        return json.loads(self.out)

    @property
    def words(self) -> str:
        """Standard output as one line, however the tables wrapped it."""
        return " ".join(self.out.split())


def called(*words: object) -> Called:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.run([str(word) for word in words])
    return Called(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def call() -> Callable[..., Called]:
    return called


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of all three tasks about six clips, one of which has a box prompt."""
    from tpo_lab.datasets.world.samples import samples_of
    from tpo_lab.datasets.world.scene import sample_scene
    from tpo_lab.sample import write

    path = tmp_path_factory.mktemp("data") / "world.jsonl"
    write(path, [sample for index in range(6) for sample in samples_of(sample_scene(index, seed=5), questions=2)])
    return path


@pytest.fixture(scope="session")
def trained(data: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: all stages on the tiny backbone, one step each."""
    out = tmp_path_factory.mktemp("runs") / "first"
    short = ("--set", "all.steps=1", "--set", "all.batch_size=2", "--set", "frames=4")
    done = called("train", "--backbone", tiny_base, "--data", data, "--out", out, *short, "--json")
    assert done.status == 0, done.err
    return out


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of 8 frames, 64 x 48 pixels, each frame brighter than the one before."""
    from tpo_lab.video import write_clip

    path = tmp_path_factory.mktemp("clips") / "brighter.mp4"
    frames = np.stack([np.full((48, 64, 3), 20 + 25 * index, np.uint8) for index in range(8)])
    write_clip(path, frames, 4.0)
    return path
