"""The names and sizes of the published weights: all of them, and no others, are known."""

from __future__ import annotations

import re
from math import prod

import pytest
import torch

from tests.sam2.test_weights import official_names
from tpo_lab.backbones.videochat2_parts.configuration import VideoChat2Config
from tpo_lab.backbones.videochat2_parts.keys import (
    LINEAR,
    VIDEOCHAT2,
    VIDEOCHAT_TPO,
    language_names,
    lora_names,
    require_names,
    tower_names,
)
from tpo_lab.backbones.videochat2_parts.task_keys import ADDED, cg_detr_origins, task_origins
from tpo_lab.backbones.videochat2_parts.writing import wanted_shapes
from tpo_lab.errors import UsageError
from tpo_lab.heads import CGDETRSettings
from tpo_lab.heads.cg_detr.network import Network
from tpo_lab.heads.mask.adapter import MaskAdapter
from tpo_lab.prompts import PromptEncoder
from tpo_lab.sam2.configs import sam2_config
from tpo_lab.sam2.weights import to_official

CONFIG = VideoChat2Config()
TEMPORAL = CGDETRSettings(vision_dim=768, behaviour="official")
D, ROWS = 4096, 32_007
INDEX = {"names": 2594, "characters": 258_591, "bytes": 16_202_736_564}
"""Of the published index: its names, the characters of the file, and the size of all tensors that it states."""


def both(name: str, outer: int, inner: int) -> dict[str, int]:
    return {f"{name}.weight": outer * inner, f"{name}.bias": outer}


def ours() -> dict[str, str]:
    return tower_names(CONFIG, VIDEOCHAT_TPO) | language_names(CONFIG, VIDEOCHAT_TPO.language, VIDEOCHAT_TPO.base)


def unread_sizes() -> dict[str, int]:
    """Numbers in each published tensor that nothing of ours is made of."""
    sizes = {f"qformer.bert.embeddings.{name}": size for name, size in (("position_embeddings.weight", 512 * 768), ("position_ids", 512))}
    # BERT's vocabulary and one token for the start of what is written
    sizes["qformer.bert.embeddings.word_embeddings.weight"] = 30_523 * 768
    for layer in range(12):
        stem = f"qformer.bert.encoder.layer.{layer}"
        sizes |= both(f"{stem}.intermediate.dense", 3072, 768) | both(f"{stem}.output.dense", 768, 3072)
        sizes |= both(f"{stem}.output.LayerNorm", 768, 1)
    sizes |= both("merge_proj", D, 3072) | both("project_down", 768, D)
    sizes |= both("temporal_embed.layers.0", D, D) | both("temporal_embed.layers.1", 2, D)
    sizes |= both("action_embed.layers.0", D, D) | both("action_embed.layers.1", 1, D)
    sizes |= {"cg_criterion.empty_weight": 2, "cg_model.txt_position_embed.position_embeddings.weight": 100 * 256}
    sizes |= both("cg_model.txt_position_embed.LayerNorm", 256, 1)
    sizes |= both("cg_model.txt_proj_linear.LayerNorm", D, 1) | both("cg_model.txt_proj_linear.net.1", 256, D)
    stem = "cg_model.transformer.decoder"
    for layer, width in enumerate((256, 256, 2)):
        sizes |= both(f"{stem}.bbox_embed.layers.{layer}", width, 256)
        keys = [f"{kind}_k{part}" for kind in ("sa", "ca") for part in ("content", "pos")]
        sizes |= {f"{stem}.layers.{layer}.{key}_proj.bias": 256 for key in keys}
    return sizes


def read_sizes() -> dict[str, int]:
    """Numbers in each published tensor that something of ours is made of."""
    shapes = wanted_shapes(CONFIG)
    sizes = {theirs: prod(shapes[name]) for name, theirs in ours().items()}
    sizes[ours()["lm_head.weight"]] = sizes[ours()["model.language_model.embed_tokens.weight"]] = ROWS * D
    linear = {name: shapes[f"model.language_model.layers.0.{name}.weight"] for name in LINEAR} | {"lm_head": (ROWS, D)}
    for name in lora_names(CONFIG, VIDEOCHAT_TPO.language).values():
        outer, inner = next(shape for layer, shape in linear.items() if f"{layer}.lora_" in name)
        sizes[name] = 16 * (inner if "lora_A" in name else outer)
    sizes |= dict.fromkeys(("box_token", "temporal_token", "track_token"), D)
    sizes |= (
        both("loc_encoder.0", 2048, 4) | both("loc_encoder.2", D, 2048) | both("loc_decoder.0", 2048, D) | both("loc_decoder.2", 4, 2048)
    )
    sizes |= both("track_embed.layers.0", D, D) | both("track_embed.layers.1", 768, D)
    sizes |= both("track_embed_decode2.layers.0", D, D) | both("track_embed_decode2.layers.1", 4, D)
    with torch.device("meta"):
        network = Network(D, TEMPORAL).state_dict()
    for name, origin in cg_detr_origins(TEMPORAL).items():
        for theirs in origin.names:
            sizes[theirs] = network[name].numel() * (3 if ".in_proj_" in theirs else 1)
    return sizes


def sam_sizes() -> dict[str, int]:
    from transformers import Sam2VideoModel

    with torch.device("meta"):
        state = Sam2VideoModel(sam2_config("hiera-large", version="2.0")).state_dict()
    return {f"sam.{name}": tensor.numel() for name, tensor in to_official(state, official_names("hiera-large", "2.0")).items()}


@pytest.fixture(scope="module")
def sizes() -> dict[str, int]:
    return unread_sizes() | read_sizes() | sam_sizes()


def test_every_name_of_the_published_index_is_known_and_no_other(sizes: dict[str, int]) -> None:
    """The index is a line for each name, as long as the name and the same frame around it."""
    head = '{\n  "metadata": {\n    "total_size": 16202736564\n  },\n  "weight_map": {\n'
    lines = [f'    "{name}": "model-00001-of-00004.safetensors"' for name in sizes]
    assert len(sizes) == INDEX["names"]
    assert len(head + ",\n".join(lines) + "\n  }\n}\n") == INDEX["characters"]


def test_the_sizes_add_up_to_the_published_one_to_the_byte(sizes: dict[str, int]) -> None:
    """Two bytes a number, but eight for BERT's numbers of places."""
    assert 2 * sum(sizes.values()) + 6 * 512 == INDEX["bytes"]


def test_what_the_index_holds_is_accepted_and_what_is_not_read_is_told(sizes: dict[str, int]) -> None:
    wanted = [*read_sizes(), *sam_sizes()]
    assert sorted(require_names(sizes, wanted, VIDEOCHAT_TPO.unused, "it")) == sorted(unread_sizes())


def test_names_seen_in_the_index() -> None:
    """Some of them, letter by letter."""
    names = ours()
    assert names["model.vision_tower.layers.22.attention.qkv.weight"] == "vision_encoder.encoder.blocks.22.attn.qkv.weight"
    assert names["model.vision_tower.layers.0.attention.q_bias"] == "vision_encoder.encoder.blocks.0.attn.q_bias"
    assert names["model.vision_tower.layers.3.fc2.bias"] == "vision_encoder.encoder.blocks.3.mlp.fc2.bias"
    assert names["model.vision_tower.norm.weight"] == "vision_layernorm.weight"
    crossed = "qformer.bert.encoder.layer.10.crossattention.self.key.weight"
    assert names["model.qformer.encoder.layer.10.crossattention.attention.key.weight"] == crossed
    assert "model.qformer.encoder.layer.1.crossattention.attention.key.weight" not in names
    assert names["model.qformer.layernorm.bias"] == "qformer.bert.embeddings.LayerNorm.bias"
    assert names["model.language_model.norm.weight"] == "lm.base_model.model.model.norm.weight"
    inner = "model.layers.31.mlp.gate_proj"
    assert names[f"model.language_model.{inner.removeprefix('model.')}.weight"] == f"lm.base_model.model.{inner}.base_layer.weight"
    origins = task_origins(CONFIG, TEMPORAL)
    assert origins["llm.lora.lm_head.lora_A.default.weight"].names == ("lm.base_model.model.lm_head.lora_A.default.weight",)
    assert origins["heads.mask.adapter.tokens.2.weight"].names == ("track_embed.layers.1.weight",)
    assert origins["heads.temporal.network.saliency.prototypes"].names == ("cg_model.global_rep_token",)


def test_every_tensor_of_ours_has_an_origin() -> None:
    assert set(ours()) == set(wanted_shapes(CONFIG))
    with torch.device("meta"):
        parts = {
            "heads.temporal.network": Network(D, TEMPORAL),
            "heads.mask.adapter": MaskAdapter(D, 256, 2),
            "prompts": PromptEncoder(D, "box"),
        }
    origins = task_origins(CONFIG, TEMPORAL)
    for prefix, part in parts.items():
        found = {name for name in origins if name.startswith(f"{prefix}.")}
        assert found == {f"{prefix}.{name}" for name in part.state_dict()}


def test_added_tokens_are_in_the_order_of_our_table() -> None:
    """Published: box_begin, time_begin, temp, boxes, track_begin, tracking, track_box."""
    published = ("region route", "temporal route", "temporal slot", "region slot", "mask route", "mask slot", "prompt")
    table = ["prompt", *(f"{head} {kind}" for head in ("region", "temporal", "mask") for kind in ("route", "slot"))]
    assert [published[number] for number in ADDED] == table


def test_videochat2_has_lora_on_seven_layers_of_each_of_32() -> None:
    """448 names under its prefix, as people who loaded the file have counted, and two of the output layer."""
    names = set(lora_names(CONFIG, VIDEOCHAT2.language).values())
    assert len([name for name in names if name.startswith("mistral_model.base_model.model.model.")]) == 448
    assert len(names) == 450
    assert tower_names(CONFIG, VIDEOCHAT2)["model.projector.weight"] == "mistral_proj.weight"


def test_ten_names_of_each_kind_are_listed_and_all_are_counted() -> None:
    wanted = [f"a.{number:02}" for number in range(15)]
    given = [*wanted[13:], *(f"b.{number:02}" for number in range(12)), "merge_proj.bias"]
    with pytest.raises(UsageError) as caught:
        require_names(given, wanted, VIDEOCHAT_TPO.unused, "there")
    text = str(caught.value)
    assert "13 missing: a.00, a.01, " in text and "12 not known: b.00" in text and "expected 15 published tensors" in text
    assert re.findall(r"[ab]\.\d\d", text) == [*wanted[:10], *(f"b.{number:02}" for number in range(10))]
    assert "merge_proj" not in text


def test_without_patterns_every_rest_is_unknown() -> None:
    with pytest.raises(UsageError, match="1 not known: b"):
        require_names(["a", "b"], ["a"], (), "there")
