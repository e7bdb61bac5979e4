"""The audit compares outputs as well, and reads checkpoints of the first version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.small_runs import recipe, stage, two_stages
from tpo_lab import checkpoint
from tpo_lab.backbones import shipped
from tpo_lab.checkpoints.layout import seal
from tpo_lab.checkpoints.outputs import fixed_outputs, fixed_row, largest_difference
from tpo_lab.errors import TPOError
from tpo_lab.heads.cg_detr import NANO
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora
from tpo_lab.training import fit

Build = Callable[..., TPOModel]


@pytest.fixture
def model(build_tiny: Build) -> TPOModel:
    made = build_tiny()
    made.add_lora(Lora(rank=2, dropout=0.3, targets=("q_proj",)))
    with torch.no_grad():
        for name, parameter in made.named_parts().items():
            if name.startswith(("llm.lora.", "tokens.", "heads.")):
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return made


def test_outputs_equal_those_in_memory(model: TPOModel, tmp_path: Path) -> None:
    folder = checkpoint.save(model, tmp_path / "a")
    assert checkpoint.audit(folder)["outputs"] == {"against": None, "difference": None}
    assert checkpoint.audit(folder, model.train())["outputs"] == {"against": "memory", "difference": 0.0}
    assert model.training, "the model is left as it was"


def test_outputs_that_were_stored_are_compared_without_the_model(model: TPOModel, tmp_path: Path) -> None:
    folder = checkpoint.save(model, tmp_path / "a", outputs=fixed_outputs(model))
    assert checkpoint.audit(folder)["outputs"] == {"against": "stored", "difference": 0.0}
    stored = load_file(folder / "outputs.safetensors")
    stored["logits"][0, 0] += stored["logits"].abs().max()
    save_file(stored, folder / "outputs.safetensors")
    seal(folder)
    with pytest.raises(TPOError, match=r"expected the outputs stored, got outputs that differ by up to \d"):
        checkpoint.audit(folder)


def test_a_part_that_is_no_parameter_shows_in_the_outputs(model: TPOModel, tmp_path: Path) -> None:
    """No tensor of the checkpoint knows of it."""
    folder = checkpoint.save(model, tmp_path / "a")
    model.backbone.model.model.language_model.norm.variance_epsilon = 0.1
    with pytest.raises(TPOError, match=r"expected the outputs of the model in memory, got outputs that differ by up to"):
        checkpoint.audit(folder, model)


def test_what_changed_since_the_save_shows_against_the_model_in_memory(model: TPOModel, tmp_path: Path) -> None:
    folder = checkpoint.save(model, tmp_path / "a")
    with torch.no_grad():
        model.tokens.task["temporal"].add_(1.0)
    assert checkpoint.audit(folder)["equals_memory"]
    with pytest.raises(TPOError, match=r"outputs that differ"):
        checkpoint.audit(folder, model)


def test_a_head_that_cannot_answer_the_fixed_row_is_saved_all_the_same(
    build_tiny: Build, world: Callable[..., list[Sample]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_tiny()
    predict = type(model.head("temporal")).predict

    def only_in_training(head: Any, *inputs: Any) -> Any:
        if not head.training:
            raise RuntimeError("no such\nclip")
        return predict(head, *inputs)

    monkeypatch.setattr(type(model.head("temporal")), "predict", only_in_training)
    said: list[str] = []
    data = [sample for index in range(3) for sample in world(index)]
    run = fit(model, data, recipe(stage("1", 1)), tmp_path, report=said.append)
    assert "warning: no outputs are stored for later audits: no such clip" in said
    assert not (run.path / "checkpoint" / "outputs.safetensors").exists() and (run.path / "checkpoint" / "tpo.json").exists()


def test_a_model_in_half_precision_has_outputs(model: TPOModel) -> None:
    model.backbone.model.to(torch.bfloat16)
    outputs = fixed_outputs(model)
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in outputs.values())


def test_the_fixed_row_asks_every_head_and_changes_no_random_number(build_all: Build) -> None:
    model = build_all()
    state = torch.get_rng_state()
    outputs = fixed_outputs(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert {name.split(".")[1] for name in outputs if name.startswith("embeddings.")} == {"region", "temporal", "mask"}
    assert {name.split(".")[1] for name in outputs if name.startswith("predictions.")} == {"region", "temporal", "mask"}
    row = fixed_row(model)
    assert row.frames.shape == (4, 3, 64, 64) and len(row.frames.unique()) > 200
    assert largest_difference(outputs, fixed_outputs(model)) == 0


def test_heads_that_look_at_files_are_asked_too(build_tiny: Build, tmp_path: Path) -> None:
    spec = {"name": "temporal", "head": "cg-detr", **NANO, "features": [{"folder": "clip", "width": 6}], "step_sec": 2.0}
    model = build_tiny((spec,))
    folder = checkpoint.save(model, tmp_path / "a")
    assert checkpoint.audit(folder, model)["outputs"] == {"against": "memory", "difference": 0.0}


def test_largest_difference_by_hand() -> None:
    inf, nan = float("inf"), float("nan")
    here = {"a": torch.tensor([1.0, inf, nan]), "b": torch.zeros(0)}
    assert largest_difference(here, {"a": torch.tensor([1.0, inf, nan]), "b": torch.zeros(0)}) == 0
    assert largest_difference(here, {"a": torch.tensor([1.5, inf, nan]), "b": torch.zeros(0)}) == 0.5
    assert largest_difference(here, {"a": torch.tensor([1.0, 2.0, nan]), "b": torch.zeros(0)}) == inf
    assert largest_difference(here, {"a": torch.tensor([1.0, inf, 0.0]), "b": torch.zeros(0)}) == inf
    assert largest_difference(here, {"a": torch.zeros(2), "b": torch.zeros(0)}) == inf
    assert largest_difference(here, {"a": here["a"]}) == inf


@pytest.fixture
def first_version(model: TPOModel, tmp_path: Path) -> Path:
    """The same model as the first version wrote it: two files, with LoRA among the weights."""
    new = checkpoint.save(model, tmp_path / "new")
    config = json.loads((new / "tpo.json").read_text())
    weights = checkpoint.read_weights(new, config)
    folder = tmp_path / "old"
    folder.mkdir()
    config = {name: value for name, value in config.items() if name != "training"}
    (folder / "tpo.json").write_text(json.dumps({**config, "schema": "tpo_lab.checkpoint/1"}))
    save_file(weights, folder / "tpo.safetensors", metadata={"format": "pt", "schema": "tpo_lab.checkpoint/1"})
    return folder


def test_the_first_version_loads_and_passes_the_audit(model: TPOModel, first_version: Path) -> None:
    loaded = checkpoint.load(first_version)
    mine = model.named_parts()
    assert not [name for name, value in loaded.named_parts().items() if not torch.equal(value, mine[name])]
    found = checkpoint.audit(first_version, model)
    assert found["equals_memory"] and found["outputs"]["difference"] == 0 and found["training"] is None
    assert found["parts"]["llm.lora"]["saved"] == found["parts"]["llm.lora"]["tensors"] > 0


def test_the_first_version_is_replaced_by_the_second(model: TPOModel, first_version: Path) -> None:
    checkpoint.save(checkpoint.load(first_version), first_version)
    assert checkpoint.read_config(first_version)["schema"] == checkpoint.SCHEMA
    assert checkpoint.audit(first_version, model.eval())["equals_memory"]


def test_the_shipped_checkpoint_is_of_the_first_version_and_loads(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shipped("nano-tpo"), tmp_path / "a"))
    assert checkpoint.read_config(folder)["schema"] == checkpoint.FIRST_SCHEMA
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = checkpoint.load(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    again = checkpoint.save(model, tmp_path / "b")
    assert checkpoint.audit(again, model)["equals_memory"]


def test_a_stage_of_a_run_audits_each_checkpoint(build_tiny: Build, world: Callable[..., list[Sample]], tmp_path: Path) -> None:
    model = build_tiny()
    run = fit(model, [sample for index in range(3) for sample in world(index)], two_stages(1), tmp_path)
    assert checkpoint.audit(run.path / "checkpoint", model)["outputs"]["against"] == "memory"
    stored = checkpoint.audit(run.path / "checkpoint")
    assert stored["outputs"] == {"against": "stored", "difference": 0.0} and stored["training"] is None
    found = checkpoint.audit(run.path / "checkpoints" / "2.region-1")
    assert (found["training"]["stage"], found["training"]["step"]) == ("2.region", 1)
