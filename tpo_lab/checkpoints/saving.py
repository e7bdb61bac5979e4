"""A model, and what its training needs to go on, written as a checkpoint folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab.checkpoints import adapter
from tpo_lab.checkpoints.atomic import new_folder
from tpo_lab.checkpoints.config import describe
from tpo_lab.checkpoints.contents import Contents, gather
from tpo_lab.checkpoints.layout import CONFIG, OUTPUTS, WEIGHTS, looks_like_one, seal, write_tensors
from tpo_lab.errors import UsageError
from tpo_lab.runs import write_json

if TYPE_CHECKING:
    from torch import Tensor

    from tpo_lab.checkpoints.resumable import TrainingPart
    from tpo_lab.model import TPOModel


def save(
    model: TPOModel,
    folder: Path | str,
    *,
    half: bool = False,
    training: TrainingPart | None = None,
    outputs: Mapping[str, Tensor] | None = None,
    writes: bool = True,
) -> Path:
    """Write a checkpoint folder. The backbone is named, not copied, except for parts that were trained.

    An interrupted write leaves an earlier checkpoint in `folder` as it was.

    Args:
        half: store weights in half precision (for shipping; training checkpoints keep fp32).
        training: what a run needs to go on from here.
        outputs: what `tpo_lab.checkpoints.outputs.fixed_outputs` gave for the model in memory, for later audits.
        writes: False for every process but the main one: it takes part where weights are spread over processes, and writes nothing.

    Raises:
        UsageError: `folder` holds something else than a checkpoint.
        TPOError: a weight is too large for half precision, or the folder cannot be written.
    """
    folder = Path(folder)
    if writes:
        _refuse_other_contents(folder)
    contents = gather(model, half=half, wanted=writes)
    if writes:
        with new_folder(folder) as partial:
            _write(model, contents, partial, half=half, training=training, outputs=outputs)
    return folder


def _refuse_other_contents(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and (looks_like_one(folder) or not any(folder.iterdir()))):
        raise UsageError("checkpoint", expected="a new folder, or one with a checkpoint to replace", got=str(folder))


def _write(
    model: TPOModel,
    contents: Contents,
    folder: Path,
    *,
    half: bool,
    training: TrainingPart | None,
    outputs: Mapping[str, Tensor] | None,
) -> None:
    """All files; the manifest comes last."""
    config: dict[str, Any] = describe(model, contents.fingerprints, half=half, training=None if training is None else training.summary)
    write_json(folder / CONFIG, config)
    write_tensors(folder / WEIGHTS, {name: value for name, value in contents.tensors.items() if not name.startswith(adapter.PART)})
    if model.lora is not None:
        adapter.write(model, contents.tensors, folder)
    if outputs is not None:
        write_tensors(folder / OUTPUTS, outputs)
    if training is not None:
        training.write(folder)
    seal(folder)
