"""The checkpoints of a run: `checkpoints/<stage>-<step>`, of which the last few are kept."""

from __future__ import annotations

import shutil
from pathlib import Path

from tpo_lab.checkpoints.atomic import SUFFIXES, drop, recover
from tpo_lab.checkpoints.config import read_config
from tpo_lab.checkpoints.layout import CONFIG, read_object
from tpo_lab.errors import UsageError

FOLDER = "checkpoints"
TRAINED = "checkpoint"
"""The folder of a run with the trained model, once it is done."""


def folder_of(run: Path, stage: str, step: int) -> Path:
    """Where the checkpoint of a stage after so many steps belongs."""
    return run / FOLDER / f"{stage}-{step}"


def checkpoints(run: Path) -> list[Path]:
    """A run's resumable checkpoints, the latest first; those that cannot be read come last."""
    folders = [path for path in (run / FOLDER).glob("*-*") if path.is_dir() and path.suffix not in SUFFIXES]
    return sorted(folders, key=order_of, reverse=True)


def latest(run: Path | str) -> Path | None:
    """The latest checkpoint of a run whose configuration can be read; None where it has none."""
    for folder in checkpoints(Path(run)):
        try:
            read_config(folder)
        except UsageError:
            continue
        return folder
    return None


def prune(run: Path, keep: int) -> None:
    """Remove all but the last few; folders that cannot be read are left to people."""
    for folder in checkpoints(run)[keep:]:
        if order_of(folder):
            drop(folder)


def tidy(run: Path) -> None:
    """Clear away what a killed process left unfinished."""
    for left in [*(run / FOLDER).glob("*"), *run.glob(f"{TRAINED}.*")]:
        if left.suffix in SUFFIXES and left.is_dir():
            recover(left.with_suffix(""))
    if (run / FOLDER).is_dir() and not any((run / FOLDER).iterdir()):
        shutil.rmtree(run / FOLDER)


def order_of(folder: Path) -> int:
    """1 for the first checkpoint of its run, 2 for the next one; 0 where it does not say."""
    try:
        return int((read_object(folder / CONFIG).get("training") or {})["order"])
    except (OSError, KeyError, UsageError, ValueError, TypeError):
        return 0
