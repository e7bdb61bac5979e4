"""Weights of SAM2: folders of transformers, and official .pt files through a strict map of names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tpo_lab.errors import UsageError
from tpo_lab.sam2.configs import SIZES, Version, resize, sam2_config

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

_ATTENTION = "(self_attn|cross_attn_image|cross_attn_token_to_image|cross_attn_image_to_token|final_attn_token_to_image)"
_THREE_LAYERED = r"iou_prediction_head|pred_obj_score_head|object_pointer_proj|output_hypernetworks_mlps\.\d"
_THREE_LAYERS = {"0": "proj_in", "1": "layers.0", "2": "proj_out"}
_TWO_LAYERS = {"0": "proj_in", "1": "proj_out"}
_MASK_EMBED = {
    at: f"mask_embed.{name}" for at, name in {"0": "conv1", "1": "layer_norm1", "3": "conv2", "4": "layer_norm2", "6": "conv3"}.items()
}
_UPSCALING = {"0": "upscale_conv1", "1": "upscale_layer_norm", "3": "upscale_conv2"}
_DOWNSAMPLER = {
    str(3 * layer + part): f"layers.{layer}.{name}" for layer in range(4) for part, name in enumerate(("conv", "layer_norm"))
} | {"12": "final_conv"}
_FUSER = {
    "dwconv": "depthwise_conv",
    "norm": "layer_norm",
    "pwconv1": "pointwise_conv1",
    "pwconv2": "pointwise_conv2",
    "gamma": "scale",
}

_STARTS: tuple[tuple[str, str], ...] = (
    ("image_encoder.trunk.patch_embed.proj.", "vision_encoder.backbone.patch_embed.projection."),
    ("image_encoder.trunk.", "vision_encoder.backbone."),
    ("image_encoder.neck.", "vision_encoder.neck."),
    ("memory_attention.norm.", "memory_attention.layer_norm."),
    ("memory_encoder.pix_feat_proj.", "memory_encoder.feature_projection."),
    ("memory_encoder.fuser.", "memory_encoder.memory_fuser."),
    ("memory_encoder.out_proj.", "memory_encoder.projection."),
    ("sam_prompt_encoder.", "prompt_encoder."),
    ("sam_mask_decoder.output_upscaling.", "mask_decoder."),
    ("sam_mask_decoder.transformer.norm_final_attn.", "mask_decoder.transformer.layer_norm_final_attn."),
    ("sam_mask_decoder.", "mask_decoder."),
    ("obj_ptr_tpos_proj.", "temporal_positional_encoding_projection_layer."),
    ("obj_ptr_proj.", "object_pointer_proj."),
)
"""How the beginnings of names change; the first that fits counts."""
_WHOLE = {
    "maskmem_tpos_enc": "memory_temporal_positional_encoding",
    "no_mem_embed": "no_memory_embedding",
    "no_mem_pos_enc": "no_memory_positional_encoding",
    "no_obj_ptr": "no_object_pointer",
    "no_obj_embed_spatial": "occlusion_spatial_embedding_parameter",
}
_PLACES = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_POINTS = "sam_prompt_encoder.point_embeddings.{}.weight"


def transformers_name(official: str) -> str:
    """The name in transformers of a tensor of an official SAM2 file, where the two hold the same."""
    if official in _WHOLE:
        return _WHOLE[official]
    name = official
    for old, new in _STARTS:
        if official.startswith(old):
            name = new + official.removeprefix(old)
            break
    if name.startswith("vision_encoder.backbone.blocks."):
        name = _swap(name, r"(\.mlp)\.layers\.(\d)\.", _TWO_LAYERS)
        return re.sub(r"\.norm([12])\.", r".layer_norm\1.", name)
    if name.startswith("vision_encoder.neck."):
        return name.replace(".conv.", ".")
    if name.startswith("memory_encoder.mask_downsampler."):
        return _swap(name, r"(mask_downsampler)\.encoder\.(\d+)\.", _DOWNSAMPLER)
    if name.startswith("memory_encoder.memory_fuser."):
        return _swap(name, r"(\.layers\.\d)\.(\w+)", _FUSER)
    if name.startswith("prompt_encoder.mask_downscaling."):
        return _swap(name, r"(prompt_encoder)\.mask_downscaling\.(\d)\.", _MASK_EMBED)
    if official.startswith("sam_mask_decoder.output_upscaling."):
        return _swap(name, r"(mask_decoder)\.(\d)\.", _UPSCALING)
    name = re.sub(rf"\.{_ATTENTION}\.out_proj\.", r".\1.o_proj.", name)
    name = re.sub(r"(layers\.\d)\.norm(\d)\.", r"\1.layer_norm\2.", name)
    name = _swap(name, r"(\.layers\.\d\.mlp)\.layers\.(\d)\.", _TWO_LAYERS)
    return _swap(name, rf"({_THREE_LAYERED})\.layers\.(\d)\.", _THREE_LAYERS)


def _swap(name: str, pattern: str, words: Mapping[str, str]) -> str:
    """Replace what follows the pattern's first group by what its second one stands for."""
    found = re.search(pattern, name)
    if found is None or found[2] not in words:
        return name
    return f"{name[: found.end(1)]}.{words[found[2]]}{name[found.end(2) :]}"


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an official state under the names of `transformers.Sam2VideoModel`.

    The four embeddings of points become one, and the frequencies of places, which transformers has twice, two.
    """
    found: dict[str, Tensor] = {}
    points = [_POINTS.format(kind) for kind in range(4)]
    for name, tensor in state.items():
        if name in points:
            continue
        if name == _PLACES:
            found["prompt_encoder.shared_embedding.positional_embedding"] = tensor
            found["shared_image_embedding.positional_embedding"] = tensor
        else:
            found[transformers_name(name)] = tensor
    if all(name in state for name in points):
        found["prompt_encoder.point_embed.weight"] = torch.cat([state[name] for name in points])
    return found


def to_official(state: Mapping[str, Tensor], names: Mapping[str, Any] | list[str]) -> dict[str, Tensor]:
    """The tensors of a transformers state under the official `names`; the inverse of `from_official`."""
    found = {}
    for name in names:
        if name == _PLACES:
            found[name] = state["shared_image_embedding.positional_embedding"]
        elif (kind := re.fullmatch(_POINTS.replace(".", r"\.").format(r"(\d)"), name)) is not None:
            found[name] = state["prompt_encoder.point_embed.weight"][int(kind[1])][None]
        else:
            found[name] = state[transformers_name(name)]
    return found


def official_kind(state: Mapping[str, Tensor]) -> tuple[str, Version]:
    """Size and version of an official state, by its image encoder and by what 2.1 has in addition.

    Raises:
        UsageError: the image encoder is of no published size.
    """
    blocks = {int(found[1]) for name in state if (found := re.match(r"image_encoder\.trunk\.blocks\.(\d+)\.", name))}
    width = state["image_encoder.trunk.pos_embed"].shape[1] if "image_encoder.trunk.pos_embed" in state else 0
    for name, size in SIZES.items():
        if (width, len(blocks)) == (size.width, sum(size.blocks)):
            return name, "2.1" if "no_obj_embed_spatial" in state else "2.0"
    published = ", ".join(f"{name}: {size.width} wide, {sum(size.blocks)} blocks" for name, size in SIZES.items())
    raise UsageError("checkpoint", expected=f"an official SAM2 image encoder ({published})", got=f"{width} wide, {len(blocks)} blocks")


def load_official(path: str | Path, *, image_size: int = 1024) -> Sam2VideoModel:
    """The model of an official SAM2 or SAM2.1 .pt file; its size and version are read off the tensors.

    Args:
        path: a file as published; only tensors are read from it, no code is run.
        image_size: side of the square that frames are resized to.

    Raises:
        UsageError: no such file, or one that holds no SAM2; the message lists names that are missing or left over.
    """
    from transformers import Sam2VideoModel

    path = Path(path)
    if not path.is_file():
        raise UsageError("checkpoint", expected="an official SAM2 .pt file", got=str(path), hint="There is no such file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have errors of their own
        raise UsageError("checkpoint", expected="an official SAM2 .pt file", got=str(path), hint=f"It cannot be read: {error}") from error
    state = content.get("model", content) if isinstance(content, dict) else {}
    size, version = official_kind(state)
    model = Sam2VideoModel(sam2_config(size, version=version, image_size=image_size))
    load_strictly(model, from_official(state), path)
    model.train(False)
    return model


def load_strictly(model: Sam2VideoModel, state: Mapping[str, Tensor], source: object) -> None:
    """Load every tensor, and leave none of the model's as it was.

    Raises:
        UsageError: names that are missing or left over, or other shapes.
    """
    wanted = model.state_dict()
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shapes = sorted(name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape)
    if missing or extra or shapes:
        parts = {"missing": missing, "not known": extra, "of another shape": shapes}
        got = "; ".join(f"{len(names)} {what}: {', '.join(names[:3])}" for what, names in parts.items() if names)
        raise UsageError("checkpoint", expected=f"the {len(wanted)} tensors of SAM2", got=f"{source}: {got}")
    model.load_state_dict(dict(state), strict=True)


def load_sam2(path: str | Path, *, image_size: int | None = None) -> Sam2VideoModel:
    """The model in a folder as transformers saves it, or in an official .pt file.

    Args:
        path: folder, file, or the hub id of a model.
        image_size: side of the square that frames are resized to; the folder's own, or 1024, where None. Another than that of the
            training costs accuracy.
    """
    from transformers import Sam2VideoConfig, Sam2VideoModel

    place = Path(path)
    if place.suffix in (".pt", ".pth"):
        return load_official(place, image_size=image_size or 1024)
    config = Sam2VideoConfig.from_pretrained(path)
    if image_size is not None:
        resize(config, image_size)
    model: Sam2VideoModel = Sam2VideoModel.from_pretrained(path, config=config, dtype=torch.float32)
    model.train(False)
    return model
