"""The tiny LLaVA-OneVision on disk: it loads as a real one does, and what is counted from its configuration is what it has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tpo_lab.backbones import load_backbone
from tpo_lab.backbones.counting import (
    head_widths,
    linear_shapes,
    llava_onevision_7b,
    lora_parameters,
    parameter_counts,
    tokens_per_clip,
)
from tpo_lab.backbones.llava_onevision import LlavaOnevisionBackbone
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.stages import Lora


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("llava_onevision", tmp_path_factory.mktemp("llava"), width=40, layers=3)


@pytest.fixture
def backbone(folder: Path) -> LlavaOnevisionBackbone:
    found = load_backbone(str(folder), num_frames=3)
    assert isinstance(found, LlavaOnevisionBackbone)
    return found


def test_it_loads_in_bfloat16_as_the_hub_has_them(backbone: LlavaOnevisionBackbone) -> None:
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {torch.bfloat16}
    assert backbone.output_rows is not backbone.embedding.weight
    assert (backbone.hidden_size, backbone.num_frames) == (40, 3)


def test_words_of_the_world_are_few_tokens_and_any_text_survives(backbone: LlavaOnevisionBackbone) -> None:
    for words in ("Where is the red ball?", "Grüße, 你好"):
        assert backbone.tokenizer.decode(backbone.tokenizer.encode(words)) == words
    assert len(backbone.tokenizer.encode(" the red ball")) <= 4
    assert len(backbone.tokenizer.encode("<|im_end|>")) == 1


def test_the_seed_decides_the_weights_and_nothing_else_is_drawn(folder: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    write_tiny("llava_onevision", tmp_path / "same", width=40, layers=3)
    write_tiny("llava_onevision", tmp_path / "other", width=40, layers=3, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    weights = [(each / "model.safetensors").read_bytes() for each in (folder, tmp_path / "same", tmp_path / "other")]
    assert weights[0] == weights[1] != weights[2]


def test_added_tokens_fit_into_its_output_rows(backbone: LlavaOnevisionBackbone) -> None:
    model = TPOModel(backbone)
    assert max(model.tokens.ids.all) < backbone.vocabulary


def test_parameters_are_counted_without_weights(backbone: LlavaOnevisionBackbone) -> None:
    counted = parameter_counts(backbone.model.config)
    named = TPOModel(backbone).named_parts()
    for part in ("vision", "connector"):
        assert counted[part] == sum(p.numel() for name, p in named.items() if name.startswith(f"{part}."))
    assert counted["llm"] == sum(p.numel() for name, p in named.items() if name.startswith("llm.base."))


@pytest.mark.parametrize("lora", [Lora(rank=3), Lora(rank=2, targets=("v_proj", "down_proj"), lm_head=True)])
def test_lora_is_counted_as_it_is_built(backbone: LlavaOnevisionBackbone, lora: Lora) -> None:
    model = TPOModel(backbone)
    model.add_lora(lora)
    built = sum(p.numel() for name, p in model.named_parts().items() if name.startswith("llm.lora."))
    assert lora_parameters(backbone.model.config, lora) == built


def test_shapes_are_those_of_the_layers(backbone: LlavaOnevisionBackbone) -> None:
    layer = backbone.model.model.language_model.layers[0]
    modules = {name.rpartition(".")[2]: module for name, module in layer.named_modules() if isinstance(module, torch.nn.Linear)}
    text = backbone.model.config.text_config
    assert linear_shapes(text) == {name: tuple(module.weight.shape) for name, module in modules.items()}
    assert head_widths(text) == (40, 20)


@pytest.mark.parametrize("frames", [1, 5])
def test_tokens_of_a_clip_are_those_that_stand_for_it(backbone: LlavaOnevisionBackbone, frames: int) -> None:
    assert tokens_per_clip(backbone.model.config, frames) == backbone.video_placeholder(range(frames)).count(backbone.video_token)


def test_the_published_size_by_hand() -> None:
    config = llava_onevision_7b()
    assert tokens_per_clip(config, 16) == 16 * 14 * 14 + 1
    counted = parameter_counts(config)
    # q, o: 3584 x 3584; k, v: 512 x 3584; three of 18944 x 3584; biases of q, k, v; two norms
    layer = 2 * 3584**2 + 2 * 512 * 3584 + 3 * 18944 * 3584 + (3584 + 2 * 512) + 2 * 3584
    assert counted["llm"] == 28 * layer + 2 * 152_000 * 3584 + 3584
    assert sum(counted.values()) == 8_029_890_080
    assert lora_parameters(config, Lora(rank=1)) == 28 * (2 * 7168 + 2 * 4096 + 3 * 22528)


def test_what_no_layer_has_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"q_porj.*q_proj"):
        lora_parameters(llava_onevision_7b(), Lora(targets=("q_porj",)))
    with pytest.raises(UsageError, match="frames: expected at least 1, got 0"):
        tokens_per_clip(llava_onevision_7b(), 0)
