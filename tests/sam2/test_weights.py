"""Official names and those of transformers, there and back, for all published sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Sam2VideoModel

from tpo_lab.errors import UsageError
from tpo_lab.sam2 import SIZES, nano_config, sam2_config, untrained
from tpo_lab.sam2.weights import from_official, load_official, load_sam2, official_kind, to_official, transformers_name

NAMES = {
    "maskmem_tpos_enc": "memory_temporal_positional_encoding",
    "image_encoder.trunk.blocks.3.mlp.layers.1.weight": "vision_encoder.backbone.blocks.3.mlp.proj_out.weight",
    "image_encoder.trunk.blocks.0.norm1.bias": "vision_encoder.backbone.blocks.0.layer_norm1.bias",
    "image_encoder.trunk.patch_embed.proj.weight": "vision_encoder.backbone.patch_embed.projection.weight",
    "image_encoder.neck.convs.2.conv.weight": "vision_encoder.neck.convs.2.weight",
    "memory_attention.layers.1.cross_attn_image.out_proj.weight": "memory_attention.layers.1.cross_attn_image.o_proj.weight",
    "memory_attention.layers.1.norm3.weight": "memory_attention.layers.1.layer_norm3.weight",
    "memory_attention.norm.weight": "memory_attention.layer_norm.weight",
    "memory_encoder.mask_downsampler.encoder.3.weight": "memory_encoder.mask_downsampler.layers.1.conv.weight",
    "memory_encoder.mask_downsampler.encoder.10.bias": "memory_encoder.mask_downsampler.layers.3.layer_norm.bias",
    "memory_encoder.mask_downsampler.encoder.12.bias": "memory_encoder.mask_downsampler.final_conv.bias",
    "memory_encoder.fuser.layers.0.gamma": "memory_encoder.memory_fuser.layers.0.scale",
    "memory_encoder.fuser.layers.1.pwconv2.weight": "memory_encoder.memory_fuser.layers.1.pointwise_conv2.weight",
    "sam_prompt_encoder.mask_downscaling.6.weight": "prompt_encoder.mask_embed.conv3.weight",
    "sam_mask_decoder.transformer.layers.0.mlp.layers.0.bias": "mask_decoder.transformer.layers.0.mlp.proj_in.bias",
    "sam_mask_decoder.transformer.layers.1.norm4.bias": "mask_decoder.transformer.layers.1.layer_norm4.bias",
    "sam_mask_decoder.transformer.layers.0.self_attn.out_proj.bias": "mask_decoder.transformer.layers.0.self_attn.o_proj.bias",
    "sam_mask_decoder.output_upscaling.3.weight": "mask_decoder.upscale_conv2.weight",
    "sam_mask_decoder.output_hypernetworks_mlps.2.layers.1.weight": "mask_decoder.output_hypernetworks_mlps.2.layers.0.weight",
    "sam_mask_decoder.iou_prediction_head.layers.2.bias": "mask_decoder.iou_prediction_head.proj_out.bias",
    "obj_ptr_proj.layers.0.weight": "object_pointer_proj.proj_in.weight",
    "obj_ptr_tpos_proj.bias": "temporal_positional_encoding_projection_layer.bias",
}


COUNTS = {"hiera-tiny": 468, "hiera-small": 516, "hiera-base-plus": 612, "hiera-large": 900}
"""Tensors of the published SAM2.0 files; those of 2.1 have three more."""


def official_names(size: str, version: str) -> list[str]:
    """The names of a published file, spelled out from what the model is made of."""

    def both(*stems: str) -> list[str]:
        return [f"{stem}.{kind}" for stem in stems for kind in ("weight", "bias")]

    hiera = SIZES[size]
    names = ["maskmem_tpos_enc", "no_mem_embed", "no_mem_pos_enc", "no_obj_ptr", *both("mask_downsample")]
    names += [f"image_encoder.trunk.{part}" for part in ("pos_embed", "pos_embed_window")] + both("image_encoder.trunk.patch_embed.proj")
    for block in range(sum(hiera.blocks)):
        stem = f"image_encoder.trunk.blocks.{block}"
        names += both(*(f"{stem}.{part}" for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.layers.0", "mlp.layers.1")))
        if block in (sum(hiera.blocks[:stage]) for stage in (1, 2, 3)):
            names += both(f"{stem}.proj")
    names += both(*(f"image_encoder.neck.convs.{level}.conv" for level in range(4)))
    four = ("q_proj", "k_proj", "v_proj", "out_proj")
    for layer in range(4):
        stem = f"memory_attention.layers.{layer}"
        names += both(*(f"{stem}.{attention}.{part}" for attention in ("self_attn", "cross_attn_image") for part in four))
        names += both(*(f"{stem}.{part}" for part in ("linear1", "linear2", "norm1", "norm2", "norm3")))
    names += both("memory_attention.norm", *(f"memory_encoder.mask_downsampler.encoder.{at}" for at in (0, 1, 3, 4, 6, 7, 9, 10, 12)))
    names += both("memory_encoder.pix_feat_proj", "memory_encoder.out_proj")
    for layer in range(2):
        stem = f"memory_encoder.fuser.layers.{layer}"
        names += [f"{stem}.gamma", *both(*(f"{stem}.{part}" for part in ("dwconv", "norm", "pwconv1", "pwconv2")))]
    names += ["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    names += [f"sam_prompt_encoder.point_embeddings.{kind}.weight" for kind in range(4)]
    names += [f"sam_prompt_encoder.{part}.weight" for part in ("not_a_point_embed", "no_mask_embed")]
    names += both(*(f"sam_prompt_encoder.mask_downscaling.{at}" for at in (0, 1, 3, 4, 6)))
    decoder = "sam_mask_decoder"
    for layer in range(2):
        stem = f"{decoder}.transformer.layers.{layer}"
        attentions = ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
        names += both(*(f"{stem}.{attention}.{part}" for attention in attentions for part in four))
        names += both(*(f"{stem}.{part}" for part in ("norm1", "norm2", "norm3", "norm4", "mlp.layers.0", "mlp.layers.1")))
    names += both(*(f"{decoder}.transformer.final_attn_token_to_image.{part}" for part in four), f"{decoder}.transformer.norm_final_attn")
    names += [f"{decoder}.{token}.weight" for token in ("iou_token", "mask_tokens", "obj_score_token")]
    names += both(*(f"{decoder}.output_upscaling.{at}" for at in (0, 1, 3)), f"{decoder}.conv_s0", f"{decoder}.conv_s1")
    three = [f"{decoder}.output_hypernetworks_mlps.{mask}" for mask in range(4)]
    three += [f"{decoder}.iou_prediction_head", f"{decoder}.pred_obj_score_head", "obj_ptr_proj"]
    names += both(*(f"{stem}.layers.{layer}" for stem in three for layer in range(3)))
    return names + (["no_obj_embed_spatial", *both("obj_ptr_tpos_proj")] if version == "2.1" else [])


def on_paper(size: str, version: Any) -> dict[str, Tensor]:
    """The state of a model whose tensors have shapes and no values."""
    with torch.device("meta"):
        return Sam2VideoModel(sam2_config(size, version=version, image_size=256)).state_dict()


@pytest.mark.parametrize(("official", "ours"), NAMES.items())
def test_names(official: str, ours: str) -> None:
    assert transformers_name(official) == ours


@pytest.mark.parametrize("version", ["2.0", "2.1"])
@pytest.mark.parametrize("size", SIZES)
def test_every_published_size_maps_one_to_one(size: str, version: Any) -> None:
    names = official_names(size, version)
    assert len(set(names)) == len(names) == COUNTS[size] + (3 if version == "2.1" else 0)
    wanted = on_paper(size, version)
    official = to_official(wanted, names)
    assert official_kind(official) == (size, version)
    again = from_official(official)
    assert {name: tensor.shape for name, tensor in again.items()} == {name: tensor.shape for name, tensor in wanted.items()}


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sam2VideoModel]:
    torch.manual_seed(0)
    model = untrained(sam2_config("hiera-tiny", version="2.0", image_size=64)).eval()
    place = tmp_path_factory.mktemp("sam2") / "sam2_hiera_tiny.pt"
    torch.save({"model": to_official(model.state_dict(), official_names("hiera-tiny", "2.0"))}, place)
    return place, model


def test_an_official_file_gives_the_same_model(official: tuple[Path, Sam2VideoModel]) -> None:
    place, model = official
    loaded = load_sam2(place, image_size=64)
    assert not loaded.training and loaded.config.enable_occlusion_spatial_embedding is False
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_halves_are_loaded_as_whole_numbers_of_32_bits(tmp_path: Path) -> None:
    model = untrained(nano_config())
    model.to(torch.float16).save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in load_sam2(tmp_path).parameters()} == {torch.float32}


def test_a_folder_gives_the_same_model_at_another_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Sam2VideoModel(nano_config()).eval()
    model.save_pretrained(tmp_path)
    same, larger = load_sam2(tmp_path), load_sam2(tmp_path, image_size=128)
    assert (same.config.image_size, larger.config.image_size) == (64, 128)
    for name, tensor in model.state_dict().items():
        assert torch.equal(same.state_dict()[name], tensor) and torch.equal(larger.state_dict()[name], tensor), name
    with torch.no_grad():
        assert larger.get_image_features(torch.zeros(1, 3, 128, 128)).fpn_hidden_states[-1].shape == (256, 1, 64)


def broken(official: Path, tmp_path: Path, change: Any) -> Path:
    content = torch.load(official, weights_only=True)
    change(content["model"])
    torch.save(content, tmp_path / "broken.pt")
    return tmp_path / "broken.pt"


def test_files_that_do_not_fit_are_told(official: tuple[Path, Sam2VideoModel], tmp_path: Path) -> None:
    place, _ = official
    with pytest.raises(UsageError, match="no such file"):
        load_official(tmp_path / "none.pt")
    (tmp_path / "garbage.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UsageError, match="cannot be read"):
        load_official(tmp_path / "garbage.pt")
    with pytest.raises(UsageError, match=r"1 missing: memory_attention\.layer_norm\.weight"):
        load_official(broken(place, tmp_path, lambda state: state.pop("memory_attention.norm.weight")), image_size=64)
    with pytest.raises(UsageError, match="1 not known: more"):
        load_official(broken(place, tmp_path, lambda state: state.update(more=torch.zeros(1))), image_size=64)
    with pytest.raises(UsageError, match="1 of another shape: no_object_pointer"):
        load_official(broken(place, tmp_path, lambda state: state.update(no_obj_ptr=torch.zeros(2))), image_size=64)
    with pytest.raises(UsageError, match="official SAM2 image encoder"):
        load_official(broken(place, tmp_path, dict.clear))
    with pytest.raises(UsageError, match=r"image_size.*multiple of 16"):
        load_official(place, image_size=50)
