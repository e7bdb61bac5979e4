"""Checkpoints of runs on the command line: how many are kept, what is refused, and that each is a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import called
from tpo_lab import checkpoint
from tpo_lab.datasets.world.samples import samples_of
from tpo_lab.datasets.world.scene import sample_scene
from tpo_lab.sample import write

SHORT = ("--stage", "1", "--head", "region", "--head", "temporal", "--set", "all.batch_size=2", "--set", "frames=4")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "world.jsonl"
    write(
        path, [sample for index in range(3) for sample in samples_of(sample_scene(index, seed=5), ("conversation", "region", "temporal"))]
    )
    return path


@pytest.fixture(scope="module")
def run(data: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    words = ("--backbone", tiny_base, "--data", data, "--out", out, *SHORT, "--set", "1.steps=5", "--save-every", 1, "--keep", 3)
    done = called("train", *words, "--json")
    assert done.status == 0, done.err
    return out


def test_the_last_few_are_kept(run: Path) -> None:
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["1-3", "1-4", "1-5"]


def test_each_is_a_model_for_the_other_commands(run: Path, data: Path, tmp_path: Path) -> None:
    folder = run / "checkpoints" / "1-4"
    found = called("evaluate", folder, "--data", data, "--limit", 4, "--json")
    assert found.status == 0, found.err
    found = called("checkpoint", "audit", folder, "--json").document
    assert found["equals_memory"] and found["outputs"]["against"] is None
    assert {name: found["training"][name] for name in ("stage", "step", "total")} == {"stage": "1", "step": 4, "total": 5}
    shown = called("checkpoint", "audit", run)
    assert "of outputs for a fixed row, against those of the model that was saved: 0" in shown.words


def test_a_changed_byte_fails_the_audit_with_the_name_of_the_file(run: Path, tmp_path: Path) -> None:
    folder = checkpoint.save(checkpoint.load(run / "checkpoint"), tmp_path / "copy")
    path = folder / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    done = called("checkpoint", "audit", folder, "--json")
    assert done.status == 1 and "adapter/adapter_model.safetensors: expected the SHA-256" in done.document["error"]["message"]
    assert called("evaluate", folder, "--data", "nowhere.jsonl").status == 2


def test_a_change_is_refused_until_it_is_told(run: Path, data: Path, tiny_base: Path, tmp_path: Path) -> None:
    words = ("train", "--backbone", tiny_base, "--data", data, "--out", tmp_path / "run", *SHORT, "--json")
    assert called(*words, "--set", "1.steps=2").status == 0
    wider = ("--set", "2.region.batch_size=3", "--resume")
    done = called(*words, *wider)
    assert done.status == 2
    message = done.document["error"]["message"]
    assert "recipe 2.region.batch_size: 2 before, 3 now" in message and "Add --resume-anyway" in message
    assert called(*words, *wider[:2], "--resume-anyway").status == 0
    history = json.loads((tmp_path / "run" / "checkpoint" / "tpo.json").read_text())["history"]
    assert [change["name"] for change in history[-1]["changes"]] == ["recipe 2.region.batch_size"]
