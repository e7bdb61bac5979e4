"""The nano backbone: its sizes, its stem, and the round trip through a folder."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tpo_lab.backbones import Inputs, load_backbone
from tpo_lab.backbones.nano import LANGUAGE, VISION, ConvolutionalStem, NanoBackbone, load_nano, nano_config, new_nano
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.stages import Lora


def run(backbone: NanoBackbone) -> tuple[torch.Tensor, torch.Tensor]:
    frames = torch.arange(2 * 3 * 64 * 64, dtype=torch.uint8).reshape(1, 2, 3, 64, 64)
    with torch.no_grad():
        tokens = backbone.video_features(frames).tokens
        ids = torch.tensor([[1, 2, *backbone.video_placeholder((0.0, 1.0)), 40, 41]])
        inputs = Inputs(backbone.embed(ids, tokens[0]), torch.arange(ids.shape[1])[None])
        hidden, _ = backbone.language_model(inputs, mask=None)
        return tokens, backbone.logits(hidden)


def test_config_has_the_nano_sizes_and_takes_others_by_name() -> None:
    default = nano_config(128, video_token=5, image_token=6)
    assert {name: getattr(default.vision_config, name) for name in VISION} == dict(VISION)
    assert {name: getattr(default.text_config, name) for name in LANGUAGE} == dict(LANGUAGE)
    other = nano_config(128, video_token=5, image_token=6, vision={"hidden_size": 16}, language={"num_hidden_layers": 1})
    assert (other.vision_config.hidden_size, other.vision_config.num_hidden_layers) == (16, VISION["num_hidden_layers"])
    assert (other.text_config.num_hidden_layers, other.text_config.hidden_size) == (1, LANGUAGE["hidden_size"])


def test_config_refuses_a_size_that_is_none() -> None:
    with pytest.raises(UsageError, match=r"language sizes of a nano model: expected one of .*got 'num_layers'.*'num_hidden_layers'"):
        nano_config(128, video_token=5, image_token=6, language={"num_layers": 1})


def test_stem_gives_one_vector_for_each_8_pixels() -> None:
    stem = ConvolutionalStem(16)
    assert stem(torch.zeros(2, 3, 64, 48)).shape == (2, 16, 8, 6)
    assert stem.weight.shape == (4, 3, 3, 3)


def test_new_nano_pads_its_rows_to_64_and_ties_its_embeddings(tiny_backbone: NanoBackbone) -> None:
    assert tiny_backbone.vocabulary % 64 == 0 and tiny_backbone.vocabulary - len(tiny_backbone.tokenizer) < 64
    assert tiny_backbone.output_rows is tiny_backbone.embedding.weight
    assert (tiny_backbone.hidden_size, tiny_backbone.image_size, tiny_backbone.num_frames) == (64, 64, 4)
    assert tiny_backbone.video_token == tiny_backbone.tokenizer.convert_tokens_to_ids("<video>")


def test_save_and_load_round_trip(tiny_tokenizer: Any, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"vision": {"hidden_size": 24, "num_attention_heads": 3}, "language": {"num_hidden_layers": 1}}
    backbone = new_nano(copy.deepcopy(tiny_tokenizer), **sizes)
    backbone.num_frames = 3
    backbone.save(tmp_path / "deep" / "a")
    config = json.loads((tmp_path / "deep" / "a" / "nano.json").read_text())
    assert (config["vision"]["hidden_size"], config["language"]["num_hidden_layers"]) == (24, 1)
    loaded = load_nano(tmp_path / "deep" / "a")
    assert loaded.num_frames == 3 and not loaded.model.training
    assert loaded.tokenizer.get_vocab() == backbone.tokenizer.get_vocab()
    mine, theirs = backbone.model.state_dict(), loaded.model.state_dict()
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name].half().float(), theirs[name])] == []
    assert loaded.output_rows is loaded.embedding.weight, "tied after loading, too"
    loaded.save(tmp_path / "b")
    again = load_nano(tmp_path / "b")
    assert all(torch.equal(one, other) for one, other in zip(run(loaded), run(again), strict=True)), "half precision loses once, not twice"


def test_weights_are_stored_once_and_in_half_precision(tiny_base: Path) -> None:
    stored = load_file(tiny_base / "model.safetensors")
    assert "lm_head.weight" not in stored
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


def test_a_folder_without_sizes_has_the_default_ones(tiny_base: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny_base / name).read_bytes())
    config = json.loads((tiny_base / "nano.json").read_text())
    (tmp_path / "nano.json").write_text(json.dumps({name: config[name] for name in ("num_frames", "vocabulary")}))
    with pytest.raises(RuntimeError, match=rf"size mismatch.*{LANGUAGE['hidden_size']}"):
        load_nano(tmp_path)


def test_load_refuses_a_folder_without_a_nano_model_and_weights_of_another(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a folder with nano\.json and model\.safetensors, got"):
        load_nano(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "nano.json"):
        (tmp_path / name).write_bytes((tiny_base / name).read_bytes())
    stored = load_file(tiny_base / "model.safetensors")
    stored.pop("model.image_newline")
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match=r"expected the weights of a nano model, got .*model\.image_newline"):
        load_nano(tmp_path)


def test_load_backbone_by_folder_keeps_its_name_and_takes_a_number_of_frames(tiny_base: Path) -> None:
    backbone = load_backbone(str(tiny_base), num_frames=7)
    assert (backbone.name, backbone.num_frames) == (str(tiny_base), 7)
    assert load_backbone(str(tiny_base)).num_frames == 8


def test_save_refuses_lora(build_tiny: Callable[..., TPOModel], tmp_path: Path) -> None:
    model = build_tiny(())
    model.add_lora(Lora(rank=2))
    with pytest.raises(UsageError, match=r"backbone: expected weights without LoRA, got 'LoRA'"):
        model.backbone.save(tmp_path / "a")
    assert not (tmp_path / "a" / "nano.json").exists()


def test_a_saved_tokenizer_with_added_tokens_is_the_same_to_the_next_model(build_tiny: Callable[..., TPOModel], tmp_path: Path) -> None:
    model = build_tiny(("region",))
    model.backbone.save(tmp_path / "a")
    again = TPOModel(load_nano(tmp_path / "a"))
    assert again.tokens.ids.prompt == model.tokens.ids.prompt
    assert again.backbone.vocabulary == model.backbone.vocabulary
