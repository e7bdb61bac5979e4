"""LoRA in the form of peft: `peft.PeftModel.from_pretrained(model, folder)` puts it on the plain model of the same backbone."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tpo_lab.checkpoints.layout import ADAPTER, ADAPTER_WEIGHTS, read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from tpo_lab.model import TPOModel

PART = "llm.lora."
_PEFT = "base_model.model."
_NAMED = re.compile(r"(\.lora_\w+)\.default(?=\.|$)")
_UNNAMED = re.compile(r"(\.lora_\w+)(?=\.|$)")


def peft_name(name: str) -> str:
    """`llm.lora.<layer>.lora_A.default.weight` as peft's files have it: without our part, and without the adapter's name."""
    return _PEFT + _NAMED.sub(r"\1", name.removeprefix(PART))


def part_name(name: str) -> str:
    """The other way round."""
    return PART + _UNNAMED.sub(r"\1.default", name.removeprefix(_PEFT), count=1)


def write(model: TPOModel, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write the adapter's configuration and weights.

    Args:
        model: that carries LoRA; its settings are what is written.
        tensors: by their names among the model's parts; others than LoRA's are left out.
    """
    config = copy.copy(model.backbone.model.peft_config["default"])
    config.inference_mode, config.base_model_name_or_path = True, model.backbone.name
    config.save_pretrained(str(folder / ADAPTER))
    write_tensors(folder / ADAPTER_WEIGHTS, {peft_name(name): value for name, value in tensors.items() if name.startswith(PART)})


def read(folder: Path) -> dict[str, Tensor]:
    """LoRA's weights by their names among the model's parts.

    Raises:
        UsageError: the file is missing or damaged.
    """
    return {part_name(name): value for name, value in read_tensors(folder / ADAPTER_WEIGHTS).items()}
