"""LoRA in peft's own form: peft puts it on the plain backbone, and the logits are ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tpo_lab import checkpoint
from tpo_lab.backbones import load_backbone
from tpo_lab.checkpoints.adapter import part_name, peft_name
from tpo_lab.model import TPOModel
from tpo_lab.stages import Lora


def trained(model: TPOModel, lora: Lora) -> TPOModel:
    model.add_lora(lora)
    with torch.no_grad():
        for name, parameter in model.named_parts().items():
            if name.startswith(("llm.lora.", "tokens.")):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
@pytest.mark.parametrize(
    "lora", [Lora(rank=3, alpha=7.0, targets=("q_proj", "down_proj")), Lora(rank=2, alpha=5.0, targets=("v_proj",), lm_head=True)]
)
def test_peft_loads_it_on_the_plain_model_with_our_logits(
    build_tiny: Callable[..., TPOModel], tiny_base: Path, tmp_path: Path, lora: Lora
) -> None:
    from peft import PeftModel

    model = trained(build_tiny(("region",)), lora)
    folder = checkpoint.save(model, tmp_path / "a")
    plain = load_backbone(str(tiny_base)).model
    ids = torch.arange(5, 5 + 3 * 11).reshape(3, 11)
    assert not set(ids.flatten().tolist()) & set(model.tokens.ids.all)
    with torch.no_grad():
        without = plain(input_ids=ids).logits
        loaded = PeftModel.from_pretrained(plain, folder / "adapter").eval()
        here, there = model.backbone.model(input_ids=ids).logits, loaded(input_ids=ids).logits
    assert torch.equal(here, there)
    assert (here - without).abs().max() > 1e-3


def test_its_files_have_pefts_names(build_tiny: Callable[..., TPOModel], tmp_path: Path) -> None:
    model = trained(build_tiny(("region",)), Lora(rank=3, alpha=7.0, dropout=0.05, targets=("q_proj",)))
    folder = checkpoint.save(model, tmp_path / "a") / "adapter"
    names = set(load_file(folder / "adapter_model.safetensors"))
    layers = [f"base_model.model.model.language_model.layers.{layer}.self_attn.q_proj" for layer in range(3)]
    assert names == {f"{layer}.lora_{side}.weight" for layer in layers for side in "AB"}
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["lora_dropout"]) == ("LORA", 3, 7.0, 0.05)
    assert config["base_model_name_or_path"] == model.backbone.name and config["inference_mode"]
    assert not model.backbone.model.peft_config["default"].inference_mode, "that of the model in memory stays"


@pytest.mark.parametrize(
    "name",
    [
        "llm.lora.model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "llm.lora.lm_head.lora_B.default.weight",
        "llm.lora.default.language_model.default.up_proj.lora_A.default.weight",
    ],
)
def test_names_come_back(name: str) -> None:
    assert part_name(peft_name(name)) == name
    assert peft_name(name).startswith("base_model.model.") and "lora_A.default" not in peft_name(name)


def test_a_model_without_lora_has_no_adapter(build_tiny: Callable[..., TPOModel], tmp_path: Path) -> None:
    folder = checkpoint.save(build_tiny(("region",)), tmp_path / "a")
    assert not (folder / "adapter").exists()
    assert checkpoint.load(folder).lora is None
