"""The smallest stage that shows films, and how its rows are compared."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from tpo_lab.batch import Row
from tpo_lab.stages import Stage

FRAMES, SIDE = 3, 20


def cut(frames: Tensor) -> Tensor:
    """A resize that can be sent to other processes."""
    return frames[..., :SIDE, :SIDE].contiguous()


def small_backbone() -> Any:
    return SimpleNamespace(num_frames=FRAMES, image_size=SIDE, resize=cut)


def stage(**changes: Any) -> Stage:
    settings: dict[str, Any] = {
        "title": "regions",
        "learning_rates": {"heads.region.*": 1e-2, "tokens.task.region": 1e-2, "llm.lora.*": 1e-2},
        "data": {"region": 1.0},
        "losses": {"mlm": 1.0, "region": 1.0},
        "steps": 11,
        "batch_size": 4,
        "max_questions": 2,
        "precision": "fp32",
    }
    return Stage(name="2.region", **{**settings, **changes})


def shown(row: Row) -> tuple[Any, ...]:
    return (row.key, row.clip, [sample.id for sample in row.samples], row.frames.numpy().tobytes())


def vanished(pids: list[int], seconds: float = 60.0) -> bool:
    """Whether all these processes are gone after a while; one that ended and was not asked for its status counts as gone."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(_is_alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
