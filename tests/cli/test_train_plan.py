"""`tpo-lab train --dry-run`: what a run would take, as tables and as one document; no weights are read, nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.cli.train_plan import size
from tpo_lab.sample import read, write


def test_tables_of_steps_data_and_memory(call, data: Path):
    done = call("train", "--dry-run", "--data", data)
    assert done.status == 0, done.err
    for title in ("Steps", "Data", "Memory of a step, in each process"):
        assert title in done.out
    assert "Counted for one process, fp32, no --checkpointing, the longest row looked at." in done.words
    assert "Nothing was trained." in done.words
    cells = [[cell.strip() for cell in line.split("│")] for line in done.out.splitlines() if "│" in line]
    assert ["3a", "region", "world"] in [row[1:4] for row in cells]
    assert ["2.region", "the region head and its task token", "420", "8"] in [row[1:5] for row in cells]


def test_json_holds_all_of_it(call, data: Path):
    done = call("train", "--dry-run", "--data", data, "--stage", "3b", "--micro-batch", 2, "--checkpointing", "--json")
    (stage,) = done.document["stages"]
    assert {"name", "title", "steps", "batch_size", "parts", "groups", "mixture", "memory", "trained", "total"} <= set(stage)
    assert {each["task"] for each in stage["mixture"]} == {"region", "temporal", "mask", "conversation"}
    assert sum(each["share"] for each in stage["mixture"]) == pytest.approx(1)
    assert sum(group["parameters"] for group in stage["groups"]) == stage["trained"]
    memory = stage["memory"]
    assert memory["total"] == sum(memory[name] for name in ("parameters", "gradients", "optimizer", "activations"))
    assert (memory["rows"], memory["checkpointing"], memory["processes"]) == (2, True, 1)
    plain = call("train", "--dry-run", "--data", data, "--stage", "3b", "--micro-batch", 2, "--json").document["stages"][0]
    assert plain["memory"]["activations"] > 1.5 * memory["activations"] and plain["memory"]["gradients"] == memory["gradients"]


def test_checkpointing_halves_what_the_language_model_keeps(call, data: Path):
    words = ("train", "--dry-run", "--data", data, "--stage", "3b", "--micro-batch", 2, "--head", "region", "--json")
    plain, again = (call(*words, *more).document["stages"][0]["memory"] for more in ((), ("--checkpointing",)))
    assert plain["activations"] > 2 * again["activations"] and plain["gradients"] == again["gradients"]


def test_missing_clips_are_counted_and_said(call, data: Path, tmp_path: Path):
    gone = [s.model_copy(update={"media": s.media.model_copy(update={"path": "gone.mp4"})}) for s in read(data)[:2]]
    write(tmp_path / "some.jsonl", [*gone, *read(data)[2:]])
    done = call("train", "--dry-run", "--data", tmp_path / "some.jsonl")
    assert "Clips are missing: training ends at the first one, or goes on without their samples with --on-bad skip." in done.words
    stages = call("train", "--dry-run", "--data", tmp_path / "some.jsonl", "--json").document["stages"]
    assert sum(each["missing"] for each in stages[-1]["mixture"]) >= 1
    assert "Clips are missing" not in call("train", "--dry-run", "--data", data).words


def test_a_real_backbone_needs_no_weights(call, data: Path, tmp_path: Path):
    folder = write_tiny("qwen3_vl", tmp_path / "model")
    words = ("train", "--dry-run", "--backbone", folder, "--recipe", "paper", "--head", "region", "--data", data, "--json")
    whole = call(*words)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    outline = call(*words)
    assert whole.status == outline.status == 0, outline.err
    assert outline.document["stages"] == whole.document["stages"] and outline.document["stages"][0]["memory"]["parameters"] > 0
    assert call(*words[:1], *words[2:-1], "--out", tmp_path / "run").status == 2, "to train, weights are needed"


def test_with_more_processes_it_counts_for_each(call, data: Path, monkeypatch: pytest.MonkeyPatch):
    one = call("train", "--dry-run", "--data", data, "--stage", "1", "--json").document["stages"][0]
    monkeypatch.setenv("WORLD_SIZE", "4")
    done = call("train", "--dry-run", "--data", data, "--stage", "1", "--shard", "fsdp", "--json")
    each = done.document["stages"][0]
    assert each["steps"] == one["steps"] and each["memory"]["rows"] == one["memory"]["rows"] // 4
    assert each["memory"]["parameters"] < one["memory"]["parameters"]
    words = call("train", "--dry-run", "--data", data, "--stage", "1", "--shard", "fsdp").words
    assert "Counted for 4 processes, language model in pieces, fp32" in words
    monkeypatch.setenv("WORLD_SIZE", "3")
    refused = call("train", "--dry-run", "--data", data, "--stage", "1")
    assert refused.status == 2 and "processes: expected a number that divides the batch of 8 of stage 1, got 3" in refused.err


def test_options_of_the_loading_reach_the_run_and_wrong_ones_are_refused(call, data: Path, tiny_base: Path, tmp_path: Path):
    short = ("--set", "all.steps=1", "--set", "all.batch_size=2", "--set", "frames=4")
    words = ("train", "--backbone", tiny_base, "--data", data, "--stage", "1", *short)
    more = ("--workers", 1, "--frame-cache", tmp_path / "frames", "--on-bad", "skip", "--max-dropped", "2%", "--on-corrupt", "drop")
    done = call(*words, "--out", tmp_path / "run", *more)
    assert done.status == 0, done.err
    options = json.loads((tmp_path / "run" / "config.json").read_text())["options"]
    assert {name: options[name] for name in ("workers", "on_bad", "max_dropped", "on_corrupt")} == {
        "workers": 1,
        "on_bad": "skip",
        "max_dropped": "2%",
        "on_corrupt": "drop",
    }
    assert options["frame_cache"] == str(tmp_path / "frames")
    for wrong, said in ((("--on-bad", "skp"), "Did you mean 'skip'?"), (("--max-dropped", "x"), "--max-dropped: expected a number")):
        refused = call(*words, "--out", tmp_path / "other", *wrong)
        assert refused.status == 2 and said in refused.err and not (tmp_path / "other").exists()


def test_a_clip_that_cannot_be_read_ends_the_job_in_one_sentence(call, data: Path, tiny_base: Path, tmp_path: Path):
    bad = [s.model_copy(update={"media": s.media.model_copy(update={"path": f"{n}.mp4"})}) for n, s in enumerate(read(data))]
    for number in range(len(bad)):
        (tmp_path / f"{number}.mp4").write_bytes(b"no film")
    write(tmp_path / "bad.jsonl", bad)
    words = ("train", "--backbone", tiny_base, "--data", tmp_path / "bad.jsonl", "--stage", "1", "--set", "frames=4")
    done = call(*words, "--out", tmp_path / "run", "--workers", 1)
    assert done.status == 1 and "Traceback" not in done.err
    said = done.err.splitlines()[-1]
    assert (
        said.startswith("error: stage 1, step 1, sample ")
        and ".mp4: expected" in said
        and said.endswith("--on-bad skip leaves such samples out.")
    )
    done = call(*words, "--out", tmp_path / "other", "--on-bad", "skip")
    assert done.status == 1
    assert f"more than --max-dropped 1%. They are listed in {tmp_path / 'other' / 'dropped.jsonl'}." in done.err.replace("\n", " ")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (2**20, "1 MiB"), (3.25 * 2**30, "3.25 GiB"), (1234 * 2**30, "1,234.0 GiB")]
)
def test_bytes_as_a_person_reads_them(count: float, text: str):
    assert size(count) == text
