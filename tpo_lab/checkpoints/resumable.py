"""The folder `training/` of a checkpoint: what a run needs to go on, as tensors and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab.checkpoints.layout import STATE, TRAINING, check, read_object, read_tensors, write_tensors
from tpo_lab.errors import UsageError
from tpo_lab.runs import write_json

if TYPE_CHECKING:
    from torch import Tensor

STATE_SCHEMA = "tpo_lab.training_state/1"


@dataclass(frozen=True)
class TrainingPart:
    """What a run needs beside the model.

    Attributes:
        state: JSON-ready; see `tpo_lab.training.resume.state` for its entries.
        tensors: by the name of a file, without its suffix, the tensors in it.
    """

    state: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, Tensor]]

    @property
    def summary(self) -> dict[str, Any]:
        """What `tpo.json` says of it: recipe, stage, step of a total, and "order": 1 for the run's first checkpoint, 2 for the next."""
        state = self.state
        return {"recipe": state["recipe"]["name"], **{name: state[name] for name in ("stage", "step", "total", "order")}}

    def write(self, folder: Path) -> None:
        """Into a checkpoint folder."""
        write_json(folder / STATE, {"schema": STATE_SCHEMA, **self.state})
        for name, tensors in self.tensors.items():
            write_tensors(folder / TRAINING / f"{name}.safetensors", tensors)


def read_training(folder: Path) -> TrainingPart:
    """What was written; every file of the checkpoint is compared with the manifest first.

    Raises:
        UsageError: it is missing or damaged, or of another version.
    """
    check(folder)
    path = folder / STATE
    if not path.is_file():
        raise UsageError(f"checkpoint {folder}", expected=f"a file {STATE}", got=None, hint="It holds a trained model alone.")
    state = read_object(path)
    if state.get("schema") != STATE_SCHEMA:
        raise UsageError(f"checkpoint {path}: schema", expected=STATE_SCHEMA, got=state.get("schema"))
    files = sorted((folder / TRAINING).glob("*.safetensors"))
    return TrainingPart(state, {file.stem: read_tensors(file) for file in files})
