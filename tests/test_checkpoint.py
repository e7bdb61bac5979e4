"""Checkpoints lose nothing, say in one sentence what is wrong, and never destroy what was there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tpo_lab import checkpoint
from tpo_lab.batch import Batch
from tpo_lab.checkpoints.layout import seal
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.heads import HEADS, Head, register
from tpo_lab.heads.base import Visual
from tpo_lab.media import Frames
from tpo_lab.model import Forward, TPOModel
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora

LORA = Lora(rank=3, alpha=7.0, targets=("q_proj", "down_proj"), lm_head=True)
STAGE_3 = {"vision.", "connector."}


def grown(model: TPOModel, *parts: str, lora: Lora | None = LORA) -> TPOModel:
    """The model with LoRA and noise on everything that a stage may train, and on these parts of the backbone."""
    if lora is not None:
        model.add_lora(lora)
    model.trained_backbone_parts = set(parts)
    model.provenance.history.append({"recipe": "r", "stage": "1", "steps": 2, "seed": 0})
    with torch.no_grad():
        for name, parameter in model.named_parts().items():
            if name.startswith(("tokens.", "prompts.", "heads.", "llm.lora.", *parts)):
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


@pytest.fixture
def trained(build_tiny: Callable[..., TPOModel]) -> TPOModel:
    return grown(build_tiny(({"name": "region", "loss": "official"}, "temporal")), *STAGE_3)


@pytest.fixture
def run(say: Callable[..., Sample]) -> Callable[[TPOModel], Forward]:
    box = [{"time_sec": 3.0, "xyxy": [4.0, 8.0, 20.0, 40.0]}]
    sample = say(0, "<prompt:0>, when?", "<region> <temporal>", boxes=[[0, 16, 32, 64]], region=box, temporal={"windows_sec": [[1.0, 2.5]]})

    def forward(model: TPOModel) -> Forward:
        batch: Batch = model.collate([Frames(model.backbone).row([sample])])
        with torch.no_grad():
            return model(batch)

    return forward


def test_reload_equals_memory_to_the_bit(trained: TPOModel, run: Callable[[TPOModel], Forward], tmp_path: Path) -> None:
    folder = checkpoint.save(trained, tmp_path / "a")
    loaded = checkpoint.load(folder)
    assert not loaded.training
    assert (loaded.lora, loaded.provenance.history) == (LORA, trained.provenance.history)
    assert loaded.head("region").spec() == trained.head("region").spec()
    here, there = run(trained), run(loaded)
    assert torch.equal(here.logits, there.logits)
    assert torch.equal(here.predictions["region"].boxes_xyxy, there.predictions["region"].boxes_xyxy)
    assert torch.equal(here.predictions["temporal"].start_logits, there.predictions["temporal"].start_logits)
    mine, theirs = trained.named_parts(), loaded.named_parts()
    assert mine.keys() == theirs.keys()
    assert not [name for name in mine if not torch.equal(mine[name], theirs[name])]


def test_checkpoint_holds_every_trained_part_and_not_the_frozen_base(trained: TPOModel, tmp_path: Path) -> None:
    stored = stored_in(checkpoint.save(trained, tmp_path / "a"))
    expected = {name for name in trained.named_parts() if not name.startswith("llm.base.")}
    assert set(stored) == expected
    assert {"tokens.rows.input", "tokens.rows.output", "tokens.task.region", "llm.lora.lm_head.lora_B.default.weight"} <= expected
    lighter = stored_in(checkpoint.save(_untrained_vision(trained), tmp_path / "b"))
    assert set(lighter) == {name for name in expected if not name.startswith(("vision.", "connector."))}


def stored_in(folder: Path) -> dict[str, Tensor]:
    return checkpoint.read_weights(folder, checkpoint.read_config(folder))


def _untrained_vision(model: TPOModel) -> TPOModel:
    model.trained_backbone_parts = set()
    return model


def test_half_is_close_and_half_the_size(trained: TPOModel, run: Callable[[TPOModel], Forward], tmp_path: Path) -> None:
    full, half = checkpoint.save(trained, tmp_path / "a"), checkpoint.save(trained, tmp_path / "b", half=True)
    assert (half / "tpo.safetensors").stat().st_size < 0.6 * (full / "tpo.safetensors").stat().st_size
    loaded = checkpoint.load(half)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.allclose(run(loaded).logits, run(trained).logits, atol=0.05)
    assert not torch.equal(run(loaded).logits, run(trained).logits)


def test_a_weight_that_half_precision_cannot_hold_is_named(trained: TPOModel, tmp_path: Path) -> None:
    name, value = next((n, p) for n, p in trained.named_parts().items() if n.startswith("heads."))
    value.data.flatten()[0] = 1e6
    with pytest.raises(TPOError, match=rf"{name}: expected values up to 65504.*got 1e\+06"):
        checkpoint.save(trained, tmp_path / "a", half=True)
    assert not list(tmp_path.iterdir())


class Measured(Head[Tensor, Tensor]):
    """A head whose state is in buffers, one of which is no floating-point number."""

    name = "measured"
    weight: Tensor
    seen: Tensor

    def __init__(self, embed_dim: int, settings: Any = None) -> None:
        super().__init__(embed_dim, settings)
        self.register_buffer("weight", torch.randn(embed_dim))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("scratch", torch.randn(2), persistent=False)

    def predict(self, task_embedding: Tensor, visual: Visual) -> Tensor:
        return task_embedding @ self.weight

    def losses(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"l1": (prediction - target).abs()}


def test_buffers_of_heads_are_saved_too(build_tiny: Callable[..., TPOModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, "measured", {})
    register(Measured)
    model = build_tiny(("measured",))
    head = model.head("measured")
    head.get_buffer("seen").fill_(100_003)
    for half in (False, True):
        torch.manual_seed(9)
        loaded = checkpoint.load(checkpoint.save(model, tmp_path / "a", half=half)).head("measured")
        assert torch.allclose(loaded.get_buffer("weight"), head.get_buffer("weight"), atol=1e-2 if half else 0)
        assert loaded.get_buffer("seen").item() == 100_003
    assert "heads.measured.scratch" not in load_file(tmp_path / "a" / "tpo.safetensors")


def test_save_replaces_a_checkpoint_and_leaves_nothing_beside_it(trained: TPOModel, tmp_path: Path) -> None:
    checkpoint.save(trained, tmp_path / "a")
    with torch.no_grad():
        trained.tokens.task["region"].fill_(3.0)
    checkpoint.save(trained, tmp_path / "a")
    assert load_file(tmp_path / "a" / "tpo.safetensors")["tokens.task.region"].eq(3).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["adapter", "manifest.json", "tpo.json", "tpo.safetensors"]


@pytest.mark.parametrize("place", ["weights", "config", "manifest", "rename"])
def test_an_interrupted_save_leaves_the_old_checkpoint(
    trained: TPOModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = checkpoint.save(trained, tmp_path / "a")
    before = trained.tokens.task["region"].detach().clone()
    with torch.no_grad():
        trained.tokens.task["region"].fill_(3.0)

    def fail(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        if place == "weights":
            broken.setattr("safetensors.torch.save_file", fail)
        elif place == "config":
            broken.setattr("tpo_lab.checkpoints.saving.write_json", fail)
        elif place == "manifest":
            broken.setattr("tpo_lab.checkpoints.layout.write_json", fail)
        else:
            replace = os.replace
            broken.setattr(os, "replace", lambda a, b: fail() if str(a).endswith(".partial") and Path(a).is_dir() else replace(a, b))
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(trained, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
    assert torch.equal(checkpoint.load(folder).tokens.task["region"], before)
    checkpoint.save(trained, folder)
    assert checkpoint.load(folder).tokens.task["region"].eq(3).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_save_refuses_to_replace_what_is_no_checkpoint(trained: TPOModel, tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"expected a new folder, or one with a checkpoint to replace, got '.*thesis'"):
        checkpoint.save(trained, folder)
    assert (folder / "chapter.tex").read_text() == "years of work"


@pytest.fixture
def saved(build_tiny: Callable[..., TPOModel], tmp_path: Path) -> Path:
    return checkpoint.save(grown(build_tiny(("region",))), tmp_path / "a")


def edited(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "tpo.json").read_text())
    config.update(changes)
    (folder / "tpo.json").write_text(json.dumps({key: value for key, value in config.items() if value != "gone"}))


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "tpo.safetensors")
    tensors.pop("tokens.rows.output")
    save_file(tensors, folder / "tpo.safetensors")


def with_another_tensor(folder: Path) -> None:
    tensors = load_file(folder / "tpo.safetensors")
    save_file({**tensors, "tokens.rows.other": torch.zeros(7)}, folder / "tpo.safetensors")


def with_a_foreign_shape(folder: Path) -> None:
    tensors = load_file(folder / "tpo.safetensors")
    tensors["tokens.task.region"] = torch.zeros(7)
    save_file(tensors, folder / "tpo.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tpo.json").unlink(), r"checkpoint: expected a folder with tpo\.json, got '.*a'"),
        (lambda folder: (folder / "tpo.json").write_text("{half"), r"tpo\.json: expected JSON, got '.*'\. The file is damaged"),
        (lambda folder: (folder / "tpo.json").write_bytes(b"\xff\xfe\x00"), r"tpo\.json: expected JSON"),
        (lambda folder: (folder / "tpo.json").write_text("[1]"), r"schema: expected tpo_lab\.checkpoint/1 or .*/2, got None"),
        (lambda folder: edited(folder, schema="other/2"), r"schema: expected .*, got 'other/2'\. Another version of TPO Lab wrote it"),
        (lambda folder: edited(folder, heads="gone"), r"tpo\.json: heads: expected an entry, got None"),
        (lambda folder: edited(folder, lora={"rnk": 1}), r"lora: expected one of .*got 'rnk'"),
        (lambda folder: edited(folder, heads=[{"name": "depth"}]), r"head: expected one of .*got 'depth'"),
        (lambda folder: edited(folder, backbone="nowhere/at/all"), r"backbone: expected .*got 'nowhere/at/all'"),
        (lambda folder: (folder / "tpo.safetensors").unlink(), r"manifest\.json: expected an entry for tpo\.safetensors"),
        (lambda folder: (folder / "adapter" / "adapter_model.safetensors").unlink(), r"expected a folder with adapter_model\.safetensors"),
        (
            lambda folder: (folder / "tpo.safetensors").write_bytes(b"not weights"),
            r"tpo\.safetensors: expected a safetensors file.*damaged",
        ),
        (lambda folder: os.truncate(folder / "tpo.safetensors", 5000), r"tpo\.safetensors: expected a safetensors file"),
        (without_a_tensor, r"expected one tensor per trained part, got 1 missing \['tokens\.rows\.output'\] and \[\] extra"),
        (with_another_tensor, r"got 0 missing \[\] and \['tokens\.rows\.other'\] extra"),
        (with_a_foreign_shape, r"tokens\.task\.region expected shape \(64,\), got \(7,\)"),
    ],
)
def test_damaged_and_foreign_files_give_one_sentence(saved: Path, damage: Callable[[Path], None], message: str) -> None:
    """Even where the manifest agrees with them."""
    damage(saved)
    seal(saved)
    with pytest.raises(TPOError, match=message) as error:
        checkpoint.load(saved)
    assert "\n" not in str(error.value)


def test_audit_finds_everything_saved_and_equal_to_memory(trained: TPOModel, tmp_path: Path) -> None:
    found = checkpoint.audit(checkpoint.save(trained, tmp_path / "a"))
    assert set(found["parts"]) == {"vision", "connector", "llm.base", "llm.lora", "tokens", "prompts", "heads.region", "heads.temporal"}
    assert found["parts"]["llm.base"]["changed"] == found["parts"]["llm.base"]["saved"] == 0 < found["parts"]["llm.base"]["tensors"]
    for part in ("vision", "connector", "tokens", "heads.region", "llm.lora"):
        counts = found["parts"][part]
        assert counts["changed"] == counts["saved"] == counts["tensors"] > 0, part
    assert (found["reload_difference"], found["equals_memory"], found["half"]) == (0.0, True, False)
    assert found["saved"] == sum(counts["saved"] for counts in found["parts"].values())
    assert json.loads(json.dumps(found)) == found


def test_audit_of_half_precision_reports_that_bits_differ(trained: TPOModel, tmp_path: Path) -> None:
    found = checkpoint.audit(checkpoint.save(trained, tmp_path / "a", half=True))
    assert (found["half"], found["equals_memory"], found["reload_difference"]) == (True, False, 0.0)


@pytest.mark.parametrize("part", ["vision.", "connector.", "llm.base."])
def test_audit_fails_where_a_changed_part_was_not_saved(build_tiny: Callable[..., TPOModel], tmp_path: Path, part: str) -> None:
    model = grown(build_tiny(("region",)))
    name, parameter = next((name, p) for name, p in model.named_parts().items() if name.startswith(part))
    with torch.no_grad():
        parameter.view(-1)[0] += 1e-3
    folder = checkpoint.save(model, tmp_path / "a")
    with pytest.raises(TPOError, match=rf"1 changed tensors were not saved: {name}"):
        checkpoint.audit(folder)
    model.trained_backbone_parts.add(part)
    assert checkpoint.audit(checkpoint.save(model, folder))["equals_memory"]


def test_audit_fails_where_a_stored_tensor_was_altered(saved: Path) -> None:
    tensors = load_file(saved / "tpo.safetensors")
    tensors["tokens.rows.output"][2, 5] += 1e-6
    save_file(tensors, saved / "tpo.safetensors")
    with pytest.raises(TPOError, match=r"tpo\.safetensors: expected \d+ bytes, as manifest\.json says, got \d+") as error:
        checkpoint.audit(saved)
    assert not isinstance(error.value, UsageError), "the call was right"
    seal(saved)
    with pytest.raises(TPOError, match=r"1 tensors reload as something else: tokens\.rows\.output"):
        checkpoint.audit(saved)


def test_audit_needs_fingerprints(saved: Path) -> None:
    edited(saved, fingerprints="gone")
    seal(saved)
    with pytest.raises(UsageError, match=r"fingerprints: expected an entry, got None\. Save the checkpoint again"):
        checkpoint.audit(saved)


def test_fingerprint_sees_one_bit_and_no_order_or_layout() -> None:
    tensor = torch.randn(5, 7)
    assert checkpoint.fingerprint(tensor.T) == checkpoint.fingerprint(tensor)
    changed = tensor.clone()
    changed.view(torch.int32)[2, 3] ^= 1
    assert abs(checkpoint.fingerprint(changed) - checkpoint.fingerprint(tensor)) == 1
    for dtype in (torch.float64, torch.bfloat16, torch.int8, torch.bool):
        assert isinstance(checkpoint.fingerprint(tensor.to(dtype)), int)
    assert checkpoint.fingerprint(nn.Parameter(torch.zeros(0))) == 0


def test_a_checkpoint_says_what_it_understands_and_one_that_does_not_understands_boxes_alone(
    build_tiny: Callable[..., TPOModel], tmp_path: Path
) -> None:
    model = build_tiny()
    model.task_input = "token+prompts"
    folder = checkpoint.save(model, tmp_path / "now")
    assert checkpoint.load(folder).task_input == "token+prompts"
    assert checkpoint.load(folder).prompts.understood == model.prompts.understood == "box+stroke"
    config = json.loads((folder / "tpo.json").read_text())
    assert config.pop("prompts") == "box+stroke"
    (folder / "tpo.json").write_text(json.dumps(config))
    seal(folder)
    with pytest.raises(TPOError, match=r"prompts\.stroke"):
        checkpoint.load(folder)
    weights = {name: value for name, value in load_file(folder / "tpo.safetensors").items() if not name.startswith("prompts.stroke")}
    save_file(weights, folder / "tpo.safetensors")
    seal(folder)
    assert checkpoint.load(folder).prompts.understood == "box"
