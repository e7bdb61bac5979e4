"""LoRA merged into the weights: a folder that plain transformers opens for its text side, and TPO Lab as a backbone or a checkpoint.

The merged language model is measured, not trusted: the folder is opened again, and its logits for a fixed row are compared with those of
the model with LoRA beside its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tpo_lab import checkpoint
from tpo_lab.backbones.nano import NanoBackbone
from tpo_lab.checkpoint import fixed_outputs
from tpo_lab.checkpoints.atomic import new_folder
from tpo_lab.errors import TPOError, UsageError, unknown_name

if TYPE_CHECKING:
    from tpo_lab.backbones.base import Backbone
    from tpo_lab.model import TPOModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest difference of two logits, as a share of the largest logit.

In fp32 merging changes the order of a sum only: up to 4e-7 in tiny models of every family and 8e-7 in the shipped one; 1e-4 leaves room for
depth. A bf16 weight has 8 significant bits, so rounding W + BA moves each weight by up to 1/512 of itself, as storing any model in bf16
does: up to 1.1e-2, and in fp16, with 11 bits, 1.4e-3. LoRA that was merged with the wrong scale, or not at all, differs by what it does.
"""
HERE = "."
"""The backbone of a checkpoint that has it in its own folder."""


@dataclass(frozen=True)
class Merged:
    """What merging did.

    Attributes:
        folder: with the merged model.
        layers: how many layers had LoRA.
        dtype: of the merged weights.
        largest_logit: of the model before.
        logit_difference: the largest, between the model before and the folder opened again, on a fixed row.
        relative_difference: that as a share of `largest_logit`.
        tolerance: what `relative_difference` may be.
        lora_effect: the largest difference that LoRA makes to a logit of that row; where `logit_difference` comes near it, little of what
            was trained is left.
        rounding: what rounding to `dtype` took of what LoRA adds to a weight: the norm of the error as a share of the norm of BA, over all
            layers; 0 where nothing was rounded. Where it nears 1, the steps of training are finer than the type's.
        untied: whether the output layer was made a matrix of its own.
    """

    folder: Path
    layers: int
    dtype: str
    largest_logit: float
    logit_difference: float
    relative_difference: float
    tolerance: float
    lora_effect: float
    rounding: float
    untied: bool


def merge(source: Path, folder: Path, *, dtype: str | None = None, tolerance: float | None = None, untie: bool = False) -> Merged:
    """Write a checkpoint with its LoRA merged into the weights of the backbone.

    The folder holds the whole model: the backbone as its own family stores it (config.json, model.safetensors, tokenizer), and heads,
    tokens and prompts in tpo.safetensors.

    Args:
        source: a checkpoint folder.
        folder: a new folder.
        dtype: of the merged backbone, "fp32", "bf16" or "fp16"; as it was where None.
        tolerance: of the logits, as a share of the largest; the one of `TOLERANCES` where None.
        untie: give the output layer a matrix of its own, where LoRA lies on one that is also the input embedding.

    Raises:
        UsageError: no such checkpoint, `folder` exists, an unknown `dtype`, or LoRA on a tied output layer without `untie`.
        TPOError: the logits differ by more than the tolerance; nothing is left behind.
    """
    if folder.exists():
        raise UsageError("out", expected="a new folder", got=str(folder))
    if dtype is not None and dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    model = checkpoint.load(source).to(_device())
    wanted = DTYPES[dtype] if dtype is not None else _dtype(model.backbone)
    _require_writable(model, untie=untie)
    before = fixed_outputs(model)["logits"]
    effect = _compared(before, _without_lora(model))[1]
    untied = _on_tied_output(model)
    layers, rounding = _merge_layers(model, wanted)
    allowed = TOLERANCES[wanted] if tolerance is None else tolerance
    with new_folder(folder) as partial:
        _write(model, partial, wanted)
        del model
        found = _compared(before, fixed_outputs(checkpoint.load(partial).to(_device()))["logits"])
        if not found[2] <= allowed:
            raise TPOError(
                f"merge {source}: expected logits within {allowed:g} of the largest one ({found[0]:g}), got a difference of {found[1]:g} "
                f"({found[2]:.2g}). Nothing was written. Try --dtype fp32, or allow more with --tolerance."
            )
    return Merged(folder, layers, _named(wanted), *found, allowed, effect, rounding, untied)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _named(dtype: torch.dtype) -> str:
    return next((name for name, value in DTYPES.items() if value is dtype), str(dtype))


def _dtype(backbone: Backbone) -> torch.dtype:
    found = backbone.embedding.weight.dtype
    if found not in TOLERANCES:
        raise UsageError("backbone", expected=f"weights in one of {', '.join(DTYPES)}", got=str(found), hint="Give --dtype.")
    return found  # type: ignore[return-value]


def _lora_layers(model: TPOModel) -> dict[str, Any]:
    """The layers that carry LoRA, by their names in the model of transformers."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.backbone.model.named_modules() if isinstance(module, LoraLayer)}


def _without_lora(model: TPOModel) -> Tensor:
    """The logits of the fixed row as they are where LoRA is switched off."""
    layers = _lora_layers(model).values()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        return fixed_outputs(model)["logits"]
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _is_output(name: str) -> bool:
    return name.rpartition(".")[2] == "lm_head"


def _on_tied_output(model: TPOModel) -> bool:
    rows, embedding = model.backbone.output_rows, model.backbone.embedding.weight
    return any(map(_is_output, _lora_layers(model))) and rows.data_ptr() == embedding.data_ptr()  # type: ignore[operator]


def _require_writable(model: TPOModel, *, untie: bool) -> None:
    if not _on_tied_output(model):
        return
    what = "LoRA on lm_head, whose matrix is the input embedding too: merging would change what every word means"
    if isinstance(model.backbone, NanoBackbone):
        hint = "A nano backbone has one matrix for both: train without LoRA on lm_head."
        raise UsageError("checkpoint", expected="LoRA on layers that can be merged", got=what, hint=hint)
    if not untie:
        hint = "Give it a matrix of its own with --untie (as many parameters more as the embedding has)."
        raise UsageError("checkpoint", expected="LoRA on layers that can be merged", got=what, hint=hint)


@torch.no_grad()
def _merge_layers(model: TPOModel, dtype: torch.dtype) -> tuple[int, float]:
    """Put W + BA in the place of each layer's W, and plain layers in the place of peft's.

    Returns:
        How many layers there were, and what rounding took of BA.
    """
    layers = _lora_layers(model)
    lost = added = 0.0
    for name, layer in layers.items():
        base = layer.get_base_layer()
        before = base.weight.float()
        # peft adds in the type of W, which rounds BA and then the sum; in fp32 the sum alone is rounded, once
        base.weight = torch.nn.Parameter(before.clone(), requires_grad=False)
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise TPOError(f"merge: expected finite weights in {name}, got LoRA with NaN or infinity. Nothing was written.") from error
        whole = base.weight
        kept = whole.to(dtype)
        lost += float((kept.float() - whole).double().square().sum())
        added += float((whole - before).double().square().sum())
        base.weight = torch.nn.Parameter(kept, requires_grad=False)
        parent, _, last = name.rpartition(".")
        setattr(model.backbone.model.get_submodule(parent), last, base)
        if _is_output(name):
            _untie(model.backbone.model)
    model.backbone.model.to(dtype)
    vars(model.backbone.model).pop("peft_config", None)
    model.lora = None
    # what was trained of the backbone is in the backbone now; what heads took from elsewhere is still beside it
    model.trained_backbone_parts = {part for part in model.trained_backbone_parts if part.startswith("heads.")}
    return len(layers), (lost / added) ** 0.5 if added else 0.0


def _untie(module: Any) -> None:
    for config in {id(each): each for each in (module.config, module.config.get_text_config())}.values():
        config.tie_word_embeddings = False


def _write(model: TPOModel, folder: Path, dtype: torch.dtype) -> None:
    """The backbone first, then what TPO adds, which names the folder itself as its backbone."""
    model.backbone.save(folder)
    if not (folder / "config.json").is_file():
        _write_like_transformers(model.backbone, folder, dtype)
    model.backbone.name = HERE
    added = checkpoint.save(model.cpu(), folder / "added")
    for file in added.iterdir():
        file.rename(folder / file.name)
    added.rmdir()


def _write_like_transformers(backbone: Backbone, folder: Path, dtype: torch.dtype) -> None:
    """For a backbone with a form of its own (nano: in half precision): its file as it is in memory, and a config.json beside it."""
    from safetensors.torch import load_file, save_file

    names = load_file(folder / "model.safetensors").keys()
    state: Mapping[str, Tensor] = backbone.model.state_dict()
    save_file({name: state[name].to(dtype).cpu().contiguous() for name in names}, folder / "model.safetensors", metadata={"format": "pt"})
    config = backbone.model.config
    config.architectures, config.dtype = [type(backbone.model).__name__], dtype
    config.save_pretrained(folder)
    # such a backbone is always read into fp32
    backbone.model.float()


def _compared(before: Tensor, after: Tensor) -> tuple[float, float, float]:
    """The largest logit, the largest difference, and the one as a share of the other; infinite where one is finite alone."""
    finite = before.isfinite()
    if before.shape != after.shape or not torch.equal(finite, after.isfinite()):
        return float("nan"), float("inf"), float("inf")
    largest = float(before[finite].abs().max())
    difference = float((before[finite].double() - after[finite].double()).abs().max())
    return largest, difference, difference / largest if largest else difference
