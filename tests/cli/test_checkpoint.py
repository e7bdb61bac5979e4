"""`tpo-lab checkpoint`: what a checkpoint holds is shown without loading the model, and what it lost is found."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tpo_lab.cli.checkpoint import _alike
from tpo_lab.cli.models import checkpoint_folder
from tpo_lab.errors import UsageError


def copy_of(trained: Path, folder: Path) -> Path:
    return Path(shutil.copytree(trained / "checkpoint", folder / "copy"))


def test_inspect_counts_every_tensor_of_the_file(call, trained: Path):
    found = call("checkpoint", "inspect", trained, "--json").document
    tensors = load_file(trained / "checkpoint" / "tpo.safetensors")
    assert {name: tuple(entry["shape"]) for name, entry in found["tensors"].items()} == {n: tuple(t.shape) for n, t in tensors.items()}
    assert found["parts"]["heads.region"]["parameters"] == sum(t.numel() for n, t in tensors.items() if n.startswith("heads.region."))
    assert sum(row["tensors"] for row in found["parts"].values()) == len(tensors)
    assert (found["num_frames"], [head["name"] for head in found["heads"]]) == (4, ["region", "temporal", "mask"])
    assert [entry["stage"] for entry in found["history"]] == ["1", "2.temporal", "2.mask", "2.region", "3a", "3b"]
    assert "fingerprints" not in found


def test_inspect_shows_it_to_a_person(call, trained: Path):
    words = call("checkpoint", "inspect", trained / "checkpoint").words
    for expected in (
        ", 4 frames",
        "head region",
        "rank 16, alpha 32.0",
        "trained backbone connector., vision.",
        "stage 2.region",
    ):
        assert expected in words


def test_inspect_gives_layers_that_are_alike_one_row():
    entry = {"shape": [3, 4], "dtype": "F32"}
    tensors = {"llm.0.up": entry, "llm.1.up": entry, "llm.2.up": {"shape": [5], "dtype": "F32"}, "scale": {"shape": [], "dtype": "F16"}}
    assert _alike(tensors) == [("llm.*.up", "2", "3 x 4", "F32"), ("llm.2.up", "1", "5", "F32"), ("scale", "1", "scalar", "F16")]


def test_inspect_of_damaged_or_missing_checkpoints_is_a_sentence(call, trained: Path, tmp_path: Path):
    folder = copy_of(trained, tmp_path)
    (folder / "tpo.safetensors").write_bytes(b"no tensors")
    done = call("checkpoint", "inspect", folder)
    assert done.status == 2 and "The file is damaged." in done.err
    (folder / "tpo.json").write_text("{")
    assert "expected JSON" in call("checkpoint", "inspect", folder).err
    assert call("checkpoint", "inspect", tmp_path).status == 2
    assert "got 'nowhere'" in call("checkpoint", "inspect", "nowhere").err


def test_audit_of_a_whole_checkpoint(call, trained: Path):
    done = call("checkpoint", "audit", trained, "--json")
    assert (done.status, done.document["equals_memory"], done.document["reload_difference"]) == (0, True, 0)
    assert done.document["parts"]["llm.base"]["changed"] == 0 < done.document["parts"]["vision"]["changed"]
    assert "The reloaded model equals the one in memory." in call("checkpoint", "audit", trained).words


def test_audit_finds_a_changed_weight(call, trained: Path, tmp_path: Path):
    folder = copy_of(trained, tmp_path)
    tensors = load_file(folder / "tpo.safetensors")
    name = next(name for name in tensors if name.startswith("heads.region"))
    tensors[name].view(-1)[0] += 1
    save_file(tensors, folder / "tpo.safetensors")
    done = call("checkpoint", "audit", folder, "--json")
    assert done.status == 1
    assert done.document["error"]["kind"] == "failed" and name in done.document["error"]["message"]


def test_audit_finds_a_missing_tensor(call, trained: Path, tmp_path: Path):
    folder = copy_of(trained, tmp_path)
    tensors = load_file(folder / "tpo.safetensors")
    lost = sorted(tensors)[-1]
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, folder / "tpo.safetensors")
    done = call("checkpoint", "audit", folder)
    assert done.status == 1 and lost in done.err


def test_pack_copies_at_half_the_size_and_the_copy_answers(call, trained: Path, tmp_path: Path):
    before = (trained / "checkpoint" / "tpo.safetensors").read_bytes()
    found = call("checkpoint", "pack", trained, "--out", tmp_path / "packed", "--json").document
    assert (trained / "checkpoint" / "tpo.safetensors").read_bytes() == before
    assert found["bytes"] < found["bytes_before"]
    whole, half = load_file(trained / "checkpoint" / "tpo.safetensors"), load_file(tmp_path / "packed" / "tpo.safetensors")
    assert {name: value.half().tolist() for name, value in whole.items()} == {name: value.tolist() for name, value in half.items()}
    assert "stored in half precision" in call("checkpoint", "audit", tmp_path / "packed").words
    history = [call("checkpoint", "inspect", folder, "--json").document["history"] for folder in (trained, tmp_path / "packed")]
    assert history[0] == history[1]


def test_pack_writes_over_nothing(call, trained: Path, tmp_path: Path):
    done = call("checkpoint", "pack", trained, "--out", trained)
    assert done.status == 2 and "--out: expected a new folder" in done.err
    assert call("checkpoint", "pack", "nowhere", "--out", tmp_path / "new").status == 2
    assert not (tmp_path / "new").exists()


def test_run_folder_means_its_checkpoint(trained: Path):
    assert checkpoint_folder(str(trained)) == checkpoint_folder(str(trained / "checkpoint")) == trained / "checkpoint"
    with pytest.raises(UsageError, match=r"got 'nano-tpu'. Did you mean 'nano-tpo'"):
        checkpoint_folder("nano-tpu")


def test_parameters_are_products_of_shapes(call, trained: Path):
    found = json.loads(call("checkpoint", "inspect", trained, "--json").out)
    total = sum(math.prod(entry["shape"]) for entry in found["tensors"].values())
    assert total == sum(row["parameters"] for row in found["parts"].values()) > 0
