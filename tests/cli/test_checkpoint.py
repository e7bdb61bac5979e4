"""`tpo-lab checkpoint`: what a checkpoint holds is shown without loading the model, and what it lost is found."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tpo_lab.checkpoints.layout import seal
from tpo_lab.cli.checkpoint import _alike
from tpo_lab.cli.models import checkpoint_folder
from tpo_lab.errors import UsageError


def copy_of(trained: Path, folder: Path) -> Path:
    return Path(shutil.copytree(trained / "checkpoint", folder / "copy"))


def test_inspect_counts_every_tensor_of_the_file(call, trained: Path):
    found = call("checkpoint", "inspect", trained, "--json").document
    tensors: dict[str, tuple[str, torch.Tensor]] = {}
    for file in sorted((trained / "checkpoint").rglob("*.safetensors")):
        place = file.relative_to(trained / "checkpoint").as_posix()
        tensors |= {name: (place, value) for name, value in load_file(file).items() if name not in tensors}
    assert "adapter/adapter_model.safetensors" in {place for place, _ in tensors.values()}
    assert sum(row["tensors"] for row in found["parts"].values()) == found["total"]["tensors"] == len(found["tensors"])
    for name, (place, value) in tensors.items():
        entry = found["tensors"].get(name) or found["tensors"][f"{place}: {name}"]
        assert (entry["shape"], entry["bytes"], entry["file"]) == (list(value.shape), value.nbytes, place)
    region = [value for name, (place, value) in tensors.items() if name.startswith("heads.region.") and place == "tpo.safetensors"]
    assert found["parts"]["heads.region"]["parameters"] == sum(value.numel() for value in region)
    lora = [value for place, value in tensors.values() if place.startswith("adapter/")]
    assert found["parts"]["llm.lora"] == {
        "tensors": len(lora),
        "parameters": sum(value.numel() for value in lora),
        "bytes": sum(value.nbytes for value in lora),
    }
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
    seal(folder)
    done = call("checkpoint", "audit", folder, "--json")
    assert done.status == 1
    assert done.document["error"]["kind"] == "failed" and name in done.document["error"]["message"]


def test_audit_finds_a_missing_tensor(call, trained: Path, tmp_path: Path):
    folder = copy_of(trained, tmp_path)
    tensors = load_file(folder / "tpo.safetensors")
    lost = sorted(tensors)[-1]
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, folder / "tpo.safetensors")
    seal(folder)
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


def test_inspect_of_other_people_s_files(call, tmp_path: Path):
    torch.save({"model": {"layers.0.weight": torch.zeros(3, 4), "layers.1.weight": torch.zeros(3, 4)}, "step": 3}, tmp_path / "a.pt")
    found = call("checkpoint", "inspect", tmp_path / "a.pt", "--json").document
    assert found["total"] == {"tensors": 2, "parameters": 24, "bytes": 96}
    assert found["parts"] == {"model.layers": {"tensors": 2, "parameters": 24, "bytes": 96}}
    assert found["tensors"]["model.layers.1.weight"] == {"shape": [3, 4], "dtype": "F32", "bytes": 48}
    shown = call("checkpoint", "inspect", tmp_path / "a.pt")
    assert "model.layers.*.weight" in shown.words and "2 tensors, 24 parameters, 0.0 MB" in shown.words


def test_inspect_of_an_adapter_of_peft(call, trained: Path):
    adapter = trained / "checkpoint" / "adapter"
    found = call("checkpoint", "inspect", adapter, "--json").document
    assert (found["peft_type"], found["r"], found["lora_alpha"]) == ("LORA", 16, 32.0)
    assert set(found["target_modules"] if isinstance(found["target_modules"], list) else [found["target_modules"]])
    assert found["total"]["tensors"] == len(load_file(adapter / "adapter_model.safetensors"))
    assert "peft type LORA" in call("checkpoint", "inspect", adapter).words


def test_inspect_does_not_run_a_program(call, tmp_path: Path):
    trace = tmp_path / "it ran"
    (tmp_path / "evil.bin").write_bytes(b"cos\nmkdir\n(S'" + str(trace).encode() + b"'\ntR.")
    done = call("checkpoint", "inspect", tmp_path / "evil.bin", "--json")
    assert done.status == 2 and not trace.exists()
    assert done.document["error"]["got"] == "os.mkdir" and "Nothing in the file was run." in done.document["error"]["message"]


def test_inspect_of_a_folder_of_transformers(call, tiny_base: Path, tmp_path: Path):
    from tpo_lab.backbones.tiny import write_tiny

    folder = write_tiny("llava_onevision", tmp_path / "tiny")
    found = call("checkpoint", "inspect", folder, "--json").document
    assert found["model_type"] == "llava_onevision" and found["total"]["parameters"] > 100_000
    assert call("checkpoint", "inspect", tiny_base, "--json").document["total"]["tensors"] > 50


def test_merge_says_how_far_the_logits_moved(call, trained: Path, clip: Path, tmp_path: Path):
    done = call("checkpoint", "merge", trained, "--out", tmp_path / "merged", "--json")
    assert done.status == 0, done.err
    found = done.document
    assert found["folder"] == str(tmp_path / "merged") and found["layers"] > 0 and found["dtype"] == "fp32"
    assert 0 <= found["relative_difference"] <= found["tolerance"] == 1e-4
    assert found["bytes"] == sum(file.stat().st_size for file in (tmp_path / "merged").iterdir())
    answers = [call("predict", model, clip, "Where?", "--json").document for model in (trained, tmp_path / "merged")]
    assert answers[0]["text"] == answers[1]["text"]
    assert call("checkpoint", "audit", tmp_path / "merged").status == 0
    assert call("checkpoint", "inspect", tmp_path / "merged", "--json").document["lora"] is None
    again = call("checkpoint", "merge", trained, "--out", tmp_path / "merged")
    assert again.status == 2 and "--out: expected a new folder" in again.err


def test_merge_beyond_the_tolerance_fails_and_leaves_nothing(call, trained: Path, tmp_path: Path):
    done = call("checkpoint", "merge", trained, "--out", tmp_path / "merged", "--dtype", "bf16", "--tolerance", "1e-9")
    assert done.status == 1 and "expected logits within 1e-09 of the largest one" in done.err and "Nothing was written." in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dtype", "bf61"], "got 'bf61'. Did you mean 'bf16'"),
        (["--tolerance", "-1"], "--tolerance"),
    ],
)
def test_merge_of_wrong_words_is_a_sentence(call, trained: Path, tmp_path: Path, words: list[str], message: str):
    done = call("checkpoint", "merge", trained, "--out", tmp_path / "merged", *words)
    assert done.status == 2 and message in done.err and not (tmp_path / "merged").exists()


def test_convert_refuses_what_it_does_not_know(call, tmp_path: Path):
    (tmp_path / "a.pt").write_bytes(b"")
    cases = [
        (("sam3", tmp_path / "a.pt", "--out", tmp_path / "b"), "KIND: expected one of sam2, videochat-tpo, videochat2, got 'sam3'"),
        (("sam2", tmp_path / "absent.pt", "--out", tmp_path / "b"), "There is no such file."),
        (("sam2", tmp_path / "a.pt", "--out", tmp_path), "--out: expected a new folder"),
        (("sam2", tmp_path / "a.pt", "--out", tmp_path / "b", "--base", tmp_path), "--base: expected none for sam2"),
        (("videochat2", tmp_path / "a.pt", "--out", tmp_path / "b"), "--base: expected the folder that videochat2 needs"),
        (("sam2", tmp_path / "a.pt", "--out", tmp_path / "b"), "It cannot be read"),
    ]
    for words, message in cases:
        done = call("checkpoint", "convert", *words)
        assert done.status == 2 and message in done.err, words
        assert not (tmp_path / "b").exists()
