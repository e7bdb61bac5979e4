"""A folder of training runs, as `tpo-lab train` leaves them, as a table: a row per run with what its last step logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab.reruns.results.frames import frame_of
from tpo_lab.runs import METRICS, last_jsonl

if TYPE_CHECKING:
    import pandas as pd


def training_runs(folder: Path) -> list[Path]:
    """The run folders in a folder, at any depth, sorted; the folder itself where it is one."""
    return sorted(path.parent for path in folder.rglob("config.json") if (path.parent / METRICS).is_file())


def training_table(folder: Path) -> pd.DataFrame:
    """A row per training run: recipe, stages, seed, state ("done" where its checkpoint is written), and the numbers of its last step."""
    rows = [_row(folder, path) for path in training_runs(folder)]
    return frame_of(rows, list(dict.fromkeys(name for row in rows for name in row)))


def _row(folder: Path, path: Path) -> dict[str, Any]:
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    last = last_jsonl(path / METRICS) or {}
    return {
        "run": path.name if path == folder else str(path.relative_to(folder)),
        "recipe": config.get("recipe", {}).get("name"),
        "stages": config.get("stage"),
        "seed": config.get("options", {}).get("seed"),
        "state": "done" if (path / "checkpoint").is_dir() else "stopped",
        "last_stage": last.get("stage"),
        **{name: value for name, value in last.items() if name != "stage" and isinstance(value, (int, float))},
    }
