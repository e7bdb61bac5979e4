"""LoRA merged into the weights: the same model, for plain transformers, as a backbone and as a checkpoint; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tpo_lab
from tpo_lab import checkpoint, merging
from tpo_lab.backbones import FAMILIES, load_backbone
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.checkpoint import fixed_outputs
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.model import TPOModel
from tpo_lab.stages import Lora

TRANSFORMERS = ("llava_onevision", "qwen2_5_vl", "qwen3_vl", "internvl")
LORA = Lora(rank=3, alpha=6, dropout=0.1)


def with_lora(model: TPOModel, settings: Lora = LORA, *, scale: float = 0.05) -> TPOModel:
    """LoRA that does something: both of its matrices are random. And some of the backbone's other parts were trained."""
    model.add_lora(settings)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parts().items():
            if ".lora_" in name:
                parameter.normal_(std=scale)
            elif name.startswith("connector."):
                parameter.add_(torch.randn_like(parameter) * 0.01)
    model.trained_backbone_parts = {"connector."}
    return model.eval()


def saved(model: TPOModel, folder: Path) -> Path:
    return checkpoint.save(model, folder / "checkpoint")


def close(here: dict[str, Tensor], there: dict[str, Tensor], tolerance: float) -> bool:
    assert here.keys() == there.keys()
    pairs = [(here[name].nan_to_num(posinf=0, neginf=0), there[name].nan_to_num(posinf=0, neginf=0)) for name in here]
    return all(float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max())) for a, b in pairs if a.numel())


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a tiny model of a family, written once for each family and type."""
    made: dict[tuple[str, torch.dtype], Path] = {}

    def base(family: str, dtype: torch.dtype) -> Path:
        if (family, dtype) not in made:
            made[family, dtype] = write_tiny(family, tmp_path_factory.mktemp(family), dtype=dtype)
        return made[family, dtype]

    return base


def built(base: Path, *heads: str) -> TPOModel:
    torch.manual_seed(0)
    return tpo_lab.build(str(base), heads or ("region", "temporal"), num_frames=4)


def test_merged_nano_answers_as_before_and_opens_everywhere(
    build_tiny: Callable[..., TPOModel], tmp_path: Path, say: Callable[..., Any]
) -> None:
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    model = with_lora(build_tiny(("region", "temporal", "mask")))
    source = saved(model, tmp_path)
    found = merging.merge(source, tmp_path / "merged")
    assert (found.layers, found.dtype, found.rounding, found.untied) == (3 * 7, "fp32", 0.0, False)
    assert 0 <= found.relative_difference < 1e-5 and found.tolerance == 1e-4
    before = fixed_outputs(model)
    assert found.largest_logit == pytest.approx(float(before["logits"][before["logits"].isfinite()].abs().max()))
    merged = checkpoint.load(tmp_path / "merged")
    assert close(fixed_outputs(merged), before, 1e-4)
    assert merged.lora is None and merged.trained_backbone_parts == set()
    assert merged.tokens.ids == model.tokens.ids
    assert checkpoint.audit(tmp_path / "merged")["equals_memory"]
    backbone = load_backbone(str(tmp_path / "merged"))
    assert tpo_lab.build(backbone, ("region",)).backbone.hidden_size == model.backbone.hidden_size
    # the text side in plain transformers; the stem of nano's vision tower is its own
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    words = AutoTokenizer.from_pretrained(tmp_path / "merged")("where is the red ball", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = model.backbone.model(input_ids=words).logits
        assert torch.allclose(plain(input_ids=words).logits, expected, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_merged_families_are_what_they_were(bases: Callable[..., Path], tmp_path: Path, family: str, dtype: str) -> None:
    model = with_lora(built(bases(family, merging.DTYPES[dtype])))
    found = merging.merge(saved(model, tmp_path), tmp_path / "merged")
    assert found.dtype == dtype and found.relative_difference <= found.tolerance
    assert (found.rounding > 0) == (dtype == "bf16")
    assert close(fixed_outputs(checkpoint.load(tmp_path / "merged")), fixed_outputs(model), 1e-4 if dtype == "fp32" else 0.1)


@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_merged_families_open_in_plain_transformers(bases: Callable[..., Path], tmp_path: Path, family: str, dtype: str) -> None:
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    model = with_lora(built(bases(family, merging.DTYPES[dtype])))
    merging.merge(saved(model, tmp_path), tmp_path / "merged")
    plain, names = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype="auto", output_loading_info=True)
    assert not any(names[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert plain.dtype == merging.DTYPES[dtype]
    words = AutoTokenizer.from_pretrained(tmp_path / "merged")("where is the red ball", return_tensors="pt").input_ids
    with torch.no_grad():
        expected, got = (each(input_ids=words).logits.float() for each in (model.backbone.model.eval(), plain.eval()))
    assert float((got - expected).abs().max()) <= merging.TOLERANCES[merging.DTYPES[dtype]] * float(expected.abs().max())
    assert (tmp_path / "merged" / "config.json").is_file()


def test_merged_weight_is_rounded_once(bases: Callable[..., Path], tmp_path: Path) -> None:
    """(W + 2 BA) in fp32, then to bf16: neither BA nor the sum is rounded before."""
    model = with_lora(built(bases("llava_onevision", torch.bfloat16)))
    parts = {name: value.detach().clone() for name, value in model.named_parts().items()}
    merging.merge(saved(model, tmp_path), tmp_path / "merged")
    merged = checkpoint.load(tmp_path / "merged").named_parts()
    layers = [name.removesuffix(".lora_A.default.weight") for name in parts if name.endswith(".lora_A.default.weight")]
    assert len(layers) == 4 * 7
    lost = added = 0.0
    for layer in layers:
        down, up = (parts[f"{layer}.lora_{side}.default.weight"].float() for side in "AB")
        base = layer.replace("llm.lora.", "llm.base.")
        whole = parts[f"{base}.base_layer.weight"].float() + 2.0 * (up @ down)
        assert torch.equal(merged[f"{base}.weight"], whole.to(torch.bfloat16)), layer
        lost += float((whole.to(torch.bfloat16).float() - whole).square().sum())
        added += float((2.0 * up @ down).square().sum())
    folder = merging.merge(saved(model, tmp_path), tmp_path / "again")
    assert folder.rounding == pytest.approx((lost / added) ** 0.5, rel=1e-3)
    others = [name for name in merged if ".base_layer" not in name and name in parts]
    assert all(torch.equal(merged[name], parts[name]) for name in others), "nothing else has changed"


def test_other_type_is_that_of_the_whole_backbone(bases: Callable[..., Path], tmp_path: Path) -> None:
    model = with_lora(built(bases("llava_onevision", torch.bfloat16)))
    found = merging.merge(saved(model, tmp_path), tmp_path / "merged", dtype="fp32", tolerance=5e-2)
    merged = checkpoint.load(tmp_path / "merged")
    assert found.rounding == 0 and found.dtype == "fp32"
    assert {value.dtype for value in merged.backbone.model.parameters()} == {torch.float32}
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("wrong", ["nothing is merged", "twice the scale", "another layer's"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_wrong_merge_is_found_and_leaves_nothing(
    bases: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, dtype: str
) -> None:
    from peft.tuners.lora import Linear

    model = with_lora(built(bases("llava_onevision", merging.DTYPES[dtype])), scale=0.15)
    source = saved(model, tmp_path)
    delta = Linear.get_delta_weight
    changes: dict[str, Callable[..., Tensor]] = {
        "nothing is merged": lambda self, adapter: 0 * delta(self, adapter),
        "twice the scale": lambda self, adapter: 2 * delta(self, adapter),
        "another layer's": lambda self, adapter: delta(self, adapter).flip(0),
    }
    monkeypatch.setattr(Linear, "get_delta_weight", changes[wrong])
    with pytest.raises(TPOError, match=r"expected logits within .* of the largest one .* Nothing was written"):
        merging.merge(source, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_adapter_that_is_broken_is_not_merged(bases: Callable[..., Path], tmp_path: Path) -> None:
    model = with_lora(built(bases("llava_onevision", torch.float32)))
    next(value for name, value in model.named_parts().items() if ".lora_B" in name).data[0, 0] = float("nan")
    with pytest.raises(TPOError, match=r"expected finite weights in .*layers\.0.*proj, got LoRA with NaN"):
        merging.merge(saved(model, tmp_path), tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_lora_on_a_tied_output_layer_is_refused(build_tiny: Callable[..., TPOModel], tmp_path: Path) -> None:
    model = with_lora(build_tiny(), Lora(rank=3, alpha=6, dropout=0.0, lm_head=True))
    source = saved(model, tmp_path)
    for untie in (False, True):
        with pytest.raises(UsageError, match=r"LoRA on lm_head, whose matrix is the input embedding too.*train without LoRA on lm_head"):
            merging.merge(source, tmp_path / "merged", untie=untie)
    assert not (tmp_path / "merged").exists()


def tied(base: Path, folder: Path) -> Path:
    """The same model with one matrix for words that go in and words that come out."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    model: Any = AutoModelForImageTextToText.from_pretrained(base)
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = True
    model.lm_head.weight = model.get_input_embeddings().weight
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_tied_output_layer_is_untied_where_told(bases: Callable[..., Path], tmp_path: Path) -> None:
    base = tied(bases("llava_onevision", torch.float32), tmp_path / "tied")
    model = with_lora(built(base), Lora(rank=3, alpha=6, dropout=0.0, lm_head=True))
    assert model.backbone.output_rows.data_ptr() == model.backbone.embedding.weight.data_ptr(), "the test is about tied weights"
    source = saved(model, tmp_path)
    with pytest.raises(UsageError, match="Give it a matrix of its own with --untie"):
        merging.merge(source, tmp_path / "merged")
    found = merging.merge(source, tmp_path / "merged", untie=True)
    assert found.untied and found.relative_difference < 1e-5
    merged = checkpoint.load(tmp_path / "merged")
    assert torch.equal(merged.backbone.embedding.weight, model.backbone.embedding.weight), "words that go in mean what they meant"
    layer = model.backbone.model.lm_head
    expected = layer.base_layer.weight + layer.get_delta_weight("default")
    assert torch.allclose(merged.backbone.output_rows, expected, atol=1e-6)


def test_output_layer_of_its_own_is_merged_as_any_other(bases: Callable[..., Path], tmp_path: Path) -> None:
    model = with_lora(built(bases("llava_onevision", torch.float32)), Lora(rank=3, alpha=6, dropout=0.0, lm_head=True))
    found = merging.merge(saved(model, tmp_path), tmp_path / "merged")
    assert (found.layers, found.untied) == (4 * 7 + 1, False) and found.relative_difference < 1e-5


def test_what_lora_does_to_the_logits_is_measured(bases: Callable[..., Path], tmp_path: Path) -> None:
    plain = fixed_outputs(built(bases("llava_onevision", torch.float32)).eval())["logits"]
    model = built(bases("llava_onevision", torch.float32))
    model.add_lora(LORA)
    source = saved(model.eval(), tmp_path)
    assert merging.merge(source, tmp_path / "untrained").lora_effect == 0.0, "LoRA begins as nothing"
    torch.manual_seed(3)
    for name, parameter in model.named_parts().items():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    changed = fixed_outputs(model)["logits"]
    found = merging.merge(saved(model, tmp_path / "trained"), tmp_path / "merged")
    both = plain.isfinite()
    assert found.lora_effect == pytest.approx(float((changed - plain)[both].abs().max())) and found.lora_effect > 0.1


def test_merged_folder_may_be_moved(bases: Callable[..., Path], tmp_path: Path) -> None:
    model = with_lora(built(bases("llava_onevision", torch.float32)))
    merging.merge(saved(model, tmp_path), tmp_path / "merged")
    expected = fixed_outputs(checkpoint.load(tmp_path / "merged"))
    (tmp_path / "far").mkdir()
    (tmp_path / "merged").rename(tmp_path / "far" / "away")
    moved = checkpoint.load(tmp_path / "far" / "away")
    assert moved.backbone.name == str(tmp_path / "far" / "away")
    assert close(fixed_outputs(moved), expected, 0.0)
    assert checkpoint.audit(tmp_path / "far" / "away")["equals_memory"]


def test_merged_model_is_trained_on_with_new_lora(bases: Callable[..., Path], tmp_path: Path) -> None:
    model = with_lora(built(bases("llava_onevision", torch.float32)))
    merging.merge(saved(model, tmp_path), tmp_path / "merged")
    again = with_lora(checkpoint.load(tmp_path / "merged"))
    second = checkpoint.load(checkpoint.save(again, tmp_path / "second"))
    assert close(fixed_outputs(second), fixed_outputs(again), 0.0)
    found = merging.merge(tmp_path / "second", tmp_path / "merged twice")
    assert found.relative_difference < 1e-5


def test_checkpoint_without_lora_becomes_a_folder_of_its_own(bases: Callable[..., Path], tmp_path: Path) -> None:
    model = built(bases("llava_onevision", torch.float32)).eval()
    found = merging.merge(saved(model, tmp_path), tmp_path / "merged")
    assert (found.layers, found.rounding, found.logit_difference) == (0, 0.0, 0.0)


def test_wrong_calls_are_refused_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "load", lambda folder: pytest.fail("a model was loaded"))
    with pytest.raises(UsageError, match="dtype: expected one of bf16, fp16, fp32, got 'half'"):
        merging.merge(tmp_path, tmp_path / "new", dtype="half")
    with pytest.raises(UsageError, match="out: expected a new folder"):
        merging.merge(tmp_path, tmp_path)
