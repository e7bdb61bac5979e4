"""Peak memory of following through 2,000 frames against 200, nano SAM2, a fresh process each: from the first frame, and both ways."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tpo_lab.sam2 import Tracker, nano_config, untrained
from tpo_lab.sam2.footage import follow_footage

ROOT = Path(__file__).parents[2]
SHORT, LONG, BAR = 200, 2000, 1.15
GROWTH_MB = 16.0
"""A bank that forgets nothing makes it grow by 55 MiB, which the bar alone would let pass at this size."""
SIZE = (120, 160)


class Made:
    """A video whose frames are made when they are asked for."""

    def __init__(self, frames: int) -> None:
        self.times_sec: NDArray[np.float64] = np.arange(frames) / 25.0
        self.duration_sec = frames / 25.0
        self.notes: tuple[str, ...] = ()

    def decode(self, frames: Sequence[int], fit: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Iterator[tuple[int, object]]:
        for frame in sorted(frames):
            yield frame, fit(np.random.default_rng(frame).integers(0, 256, (*SIZE, 3), dtype=np.uint8))


def follow(frames: int, at: int) -> None:
    """Follow one object from frame `at` to both ends, and print the peak memory of this process in MiB."""
    torch.manual_seed(0)
    sam = untrained(nano_config()).eval()
    # it is there throughout, so that nothing is left out
    torch.nn.init.constant_(sam.mask_decoder.pred_obj_score_head.proj_out.bias, 5.0)
    tracker = Tracker(sam)
    box = torch.tensor([[10.0, 10.0, 40.0, 40.0]])
    found = sum(
        each.masks().shape[-2:] == SIZE for each in follow_footage(tracker, Made(frames), lambda _: [tracker.prompt_boxes(box)], at=at)
    )
    assert found == frames, found
    print(peak_mb())


def peak_mb() -> float:
    """The peak of this process alone: what `resource.getrusage` tells of a child is at least its parent's size before it started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def peak_of(frames: int, at: int) -> float:
    code = f"from tests.benchmarks.test_tracking_memory import follow; follow({frames}, {at})"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT, env=env)
    return float(done.stdout.split()[-1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("share", [0.0, 0.5], ids=["from the first frame", "from the middle, both ways"])
def test_memory_does_not_grow_with_the_video(share: float, capsys: pytest.CaptureFixture[str]) -> None:
    short, long = (peak_of(frames, int(share * frames)) for frames in (SHORT, LONG))
    with capsys.disabled():
        print(f"\n{SHORT} frames {short:.0f} MiB, {LONG} frames {long:.0f} MiB: {long - short:+.1f} MiB, {long / short:.3f} x")
    assert long <= BAR * short and long - short <= GROWTH_MB
