"""How every notebook begins: seeds, threads and device, and the synthetic world."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WORLDS = "TPO_WORLDS"
"""Environment variable: the folder in which notebooks that are given no data make their worlds."""
_FAST = {"train": 480, "val": 120}


def start(*, seed: int, threads: int) -> str:
    """Seeds torch and sets its threads, unless they are 0; returns the device: "cuda" where there is one, or "cpu"."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    return "cuda" if torch.cuda.is_available() else "cpu"


def world(data: str, *, seed: int, fast: bool = False) -> Path:
    """The folder with train.jsonl and val.jsonl.

    Args:
        data: the folder where the user has one; "" makes the synthetic world, once for each seed, in `../runs`.
        seed: of the world.
        fast: a small one.
    """
    from tpo_lab.demo import world_data

    if data:
        return Path(data)
    folder = Path(os.environ.get(WORLDS) or "../runs") / f"world-{seed}{'-fast' if fast else ''}"
    # two notebooks of a sweep may want the same world at the same time
    with _alone(folder):
        return world_data(folder, seed=seed, sizes=_FAST if fast else None)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":
        yield
        return
    import fcntl

    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
