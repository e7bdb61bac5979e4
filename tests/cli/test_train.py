"""`tpo-lab train`: stages run and are summed up, knobs reach the recipe, an interrupted run goes on, wrong calls train nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tpo_lab.cli.settings import named_values
from tpo_lab.errors import UsageError
from tpo_lab.heads.cg_detr import NANO
from tpo_lab.runs import read_probes
from tpo_lab.sample import read, write

ROOT = Path(__file__).parents[2]
SHORT = ("--set", "all.steps=1", "--set", "all.batch_size=2", "--set", "frames=4")
TWO_ROWS = SHORT[2:]


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_run_folder_holds_every_stage(trained: Path):
    assert [line["stage"] for line in metrics(trained)] == ["1", "2.temporal", "2.mask", "2.region", "3a", "3b"]
    config = json.loads((trained / "config.json").read_text())
    assert [stage["steps"] for stage in config["recipe"]["stages"]] == [1] * 6
    assert (trained / "checkpoint" / "tpo.safetensors").exists()


def test_one_stage_is_announced_with_its_freeze_table_and_summed_up(call, data: Path, tiny_base: Path, tmp_path: Path):
    words = ("--backbone", tiny_base, "--data", data)
    done = call("train", *words, "--out", tmp_path / "r", "--stage", "2.region", "--set", "2.region.steps=2", *TWO_ROWS)
    assert done.status == 0, done.err
    lines = done.err.splitlines()
    assert lines[0].startswith("stage 2.region: ")
    assert [line.split()[1:4:2] for line in lines if "heads.region" in line] == [["heads.region", "trained"]]
    assert [line.split()[1:4:2] for line in lines if "heads.temporal" in line] == [["heads.temporal", "frozen"]]
    assert [line.split()[:3] for line in lines if "/2 " in line] == [["stage", "2.region:", "1/2"], ["stage", "2.region:", "2/2"]]
    assert all(name in lines[-1] for name in ("mlm ", "assign ", "region "))
    assert "2.region" in done.words and str(tmp_path / "r" / "checkpoint") in done.words.replace(" ", "")


def test_json_document_names_checkpoint_and_losses(call, data: Path, tiny_base: Path, tmp_path: Path):
    words = ("--backbone", tiny_base, "--data", data, "--micro-batch", 1, "--threads", 1)
    done = call("train", *words, "--out", tmp_path / "r", "--stage", "1", *SHORT, "--json")
    assert done.document["checkpoint"] == str(tmp_path / "r" / "checkpoint")
    assert [(stage["name"], stage["steps"]) for stage in done.document["stages"]] == [("1", 1)]
    assert done.document["stages"][0]["last_loss"] == metrics(tmp_path / "r")[0]["loss"] > 0


def test_gradients_are_measured_where_asked_and_the_run_is_the_same(call, data: Path, tiny_base: Path, tmp_path: Path):
    words = ("--backbone", tiny_base, "--data", data, "--stage", "1", *SHORT, "--set", "1.steps=3")
    assert call("train", *words, "--out", tmp_path / "plain").status == 0
    done = call("train", *words, "--out", tmp_path / "probed", "--probe-every", 2)
    assert done.status == 0, done.err
    assert [(line["stage"], line["step"]) for line in read_probes(tmp_path / "probed")] == [("1", 1), ("1", 2)]
    assert read_probes(tmp_path / "plain") == []
    assert [line["loss"] for line in metrics(tmp_path / "plain")] == [line["loss"] for line in metrics(tmp_path / "probed")]
    assert json.loads((tmp_path / "probed" / "config.json").read_text())["options"]["probe_every"] == 2
    refused = call("train", *words, "--out", tmp_path / "none", "--probe-every", 0)
    assert refused.status == 2 and "--probe-every" in refused.err and not (tmp_path / "none").exists()


def test_features_are_kept_where_asked_and_a_second_run_is_the_same(call, data: Path, tiny_base: Path, tmp_path: Path):
    words = ("--backbone", tiny_base, "--data", data, "--stage", "1", *SHORT, "--feature-cache", tmp_path / "kept")
    assert call("train", *words, "--out", tmp_path / "a").status == 0
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.safetensors")}
    assert kept and call("train", *words, "--out", tmp_path / "b").status == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.safetensors")} == kept
    assert metrics(tmp_path / "a")[0]["loss"] == metrics(tmp_path / "b")[0]["loss"]
    done = call("train", *words[:-1], data, "--out", tmp_path / "c")
    assert done.status == 2 and "feature_cache: expected a folder, new or of earlier features" in done.err


def test_several_files_are_joined(call, data: Path, tmp_path: Path):
    samples = read(data)
    halves = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, part in zip(halves, (samples[::2], samples[1::2]), strict=True):
        write(path, part)
    done = call("train", "--dry-run", "--stage", "1", "--data", *halves, "--json")
    assert sum(done.document["samples"].values()) == len(samples)


def test_start_from_a_checkpoint_adds_to_its_history(call, data: Path, trained: Path, tmp_path: Path):
    done = call("train", "--checkpoint", trained, "--data", data, "--out", tmp_path / "r", "--stage", "2.region", *SHORT, "--seed", 7)
    assert done.status == 0, done.err
    history = json.loads((tmp_path / "r" / "checkpoint" / "tpo.json").read_text())["history"]
    assert [(entry["stage"], entry["seed"]) for entry in history][-2:] == [("3b", 0), ("2.region", 7)]
    old, new = (load_file(run / "checkpoint" / "tpo.safetensors") for run in (trained, tmp_path / "r"))
    same = {name for name in old if old[name].equal(new[name])}
    assert {name for name in same if name.startswith("heads.temporal")} and not {name for name in same if name.startswith("heads.region")}


def test_dry_run_prints_recipe_and_freeze_tables_and_trains_nothing(call, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    done = call("train", "--dry-run", "--set", "2.region.learning_rates.heads.region.*=0.0625", "--set", "lora.rank=4")
    assert done.status == 0, done.err
    assert "LoRA rank 4 alpha 32" in done.words and "0.0625" in done.words
    assert "stage 2.temporal: the temporal head and its task token" in done.words
    assert "stage 2.mask: the mask head and its task token" in done.words
    assert list(tmp_path.iterdir()) == []


def test_dry_run_with_data_counts_the_steps_of_epochs(call, data: Path):
    knobs = ("--set", "1.epochs=3", "--set", "1.batch_size=4", "--set", "1.max_questions=1")
    done = call("train", "--dry-run", "--stage", "1", *knobs, "--data", data, "--json")
    stage = done.document["stages"][0]
    asked = sum(count for task, count in done.document["samples"].items() if task != "conversation")
    assert asked / 4 * 3 <= stage["steps"] < (asked / 4 + 2) * 3
    assert stage["parts"]["llm.lora"]["trained"] and not stage["parts"]["vision"]["trained"]
    assert done.document["stages"][0]["trained"] < stage["total"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "papre"], "Did you mean 'paper' or 'paper-text'?"),
        (["--recipe", "absent.toml"], "expected an existing .json or .toml file, got 'absent.toml'"),
        (["--stage", "2.regoin"], "Did you mean '2.region'?"),
        (["--set", "1.step=3"], "Did you mean 'steps'"),
        (["--set", "1.steps"], "--set: expected KNOB=VALUE, such as 2.region.steps=100, got '1.steps'."),
        (["--set", "1.steps=-3"], "expected a number >= 1"),
        (["--set", "1.steps=many"], "expected a whole number, got 'many'"),
        (["--checkpoint", "nowhere"], "checkpoint: expected one of"),
        (["--checkpoint", "nowhere", "--backbone", "nano"], "--backbone: expected none beside --checkpoint"),
        (["--data", "absent.jsonl"], "got 'absent.jsonl'"),
    ],
)
def test_wrong_call_is_refused_before_anything_is_written(call, data: Path, tmp_path: Path, words: list[str], message: str):
    done = call("train", "--data", data, "--out", tmp_path / "r", *words)
    assert done.status == 2, done.err
    assert message in done.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("words", "name"), [([], "--data"), (["--data", "x.jsonl"], "--out")])
def test_data_and_out_are_needed_unless_nothing_is_trained(call, words: list[str], name: str):
    done = call("train", *words)
    assert done.status == 2 and done.err == f"error: {name}: expected a value, got None. Only --dry-run needs none.\n"


def test_data_without_a_task_of_the_stage_is_refused(call, data: Path, tmp_path: Path):
    write(tmp_path / "talk.jsonl", [sample for sample in read(data) if sample.meta["task"] == "conversation"])
    done = call("train", "--data", tmp_path / "talk.jsonl", "--out", tmp_path / "r", "--stage", "1")
    assert done.status == 2 and "data of stage 1: expected samples of temporal, mask, region, got 'conversation" in done.err


def test_folder_with_a_run_is_kept(call, data: Path, trained: Path):
    before = (trained / "metrics.jsonl").read_bytes()
    done = call("train", "--data", data, "--out", trained, *SHORT)
    assert done.status == 2 and "Add --resume to go on" in done.err
    assert (trained / "metrics.jsonl").read_bytes() == before


def test_resume_of_a_finished_run_changes_no_weight(call, data: Path, trained: Path):
    before = load_file(trained / "checkpoint" / "tpo.safetensors")
    backbone = json.loads((trained / "checkpoint" / "tpo.json").read_text())["backbone"]
    done = call("train", "--backbone", backbone, "--data", data, "--out", trained, *SHORT, "--resume", "--json")
    assert done.status == 0, done.err
    after = load_file(trained / "checkpoint" / "tpo.safetensors")
    assert all(before[name].equal(after[name]) for name in before) and before.keys() == after.keys()


def test_recipe_from_a_file(call, tmp_path: Path):
    document = call("train", "--dry-run", "--stage", "1", "--json").document
    recipe = document["recipe"]
    recipe["name"], recipe["stages"][0]["steps"] = "mine", 17
    (tmp_path / "mine.json").write_text(json.dumps(recipe))
    found = call("train", "--dry-run", "--stage", "1", "--recipe", tmp_path / "mine.json", "--json").document
    assert (found["recipe"]["name"], found["stages"][0]["steps"]) == ("mine", 17)


def test_knobs_read_json_and_leave_words_as_they_are():
    found = named_values(
        "--set", "KNOB=VALUE", ["1.steps=3", "switches.region_loss=official", "3a.grad_clip=null", "name=a=b", "1.betas=[0.5, 0.75]"]
    )
    assert found == {"1.steps": 3, "switches.region_loss": "official", "3a.grad_clip": None, "name": "a=b", "1.betas": [0.5, 0.75]}
    with pytest.raises(UsageError, match=r"KNOB=VALUE.*got '=3'"):
        named_values("--set", "KNOB=VALUE", ["=3"])


def test_interrupted_run_says_how_to_go_on_and_ends_where_an_undisturbed_one_does(call, data: Path, tiny_base: Path, tmp_path: Path):
    words = ["train", "--backbone", str(tiny_base), "--data", str(data), "--stage", "1", "--set", "1.steps=12", *TWO_ROWS]
    process = subprocess.Popen(
        [sys.executable, "-m", "tpo_lab", *words, "--out", str(tmp_path / "a"), "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    patience = threading.Timer(400, process.kill)
    patience.start()
    try:
        for line in process.stderr:
            if line.startswith("stage 1: 2/12"):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate()
    finally:
        patience.cancel()
        process.kill()
    assert process.returncode == 130, err
    error = json.loads(out)["error"]
    assert error["kind"] == "interrupted" and error["message"] == err.splitlines()[-1]
    assert f"Go on with --resume. The run is in {tmp_path / 'a'}." in error["message"]
    assert 2 <= len(metrics(tmp_path / "a")) < 12
    assert call(*words, "--out", tmp_path / "a", "--resume").status == call(*words, "--out", tmp_path / "b").status == 0
    first, second = (load_file(tmp_path / run / "checkpoint" / "tpo.safetensors") for run in "ab")
    assert all(first[name].equal(second[name]) for name in second)
    assert [line["step"] for line in metrics(tmp_path / "a")] == list(range(1, 13))


def test_head_is_built_from_json_with_its_settings(call, tiny_base: Path):
    spec = {"name": "temporal", "head": "cg-detr", "features": [{"folder": "clip", "width": 5}], **NANO}
    done = call("train", "--backbone", tiny_base, "--head", json.dumps(spec), "--stage", "2.temporal", "--dry-run", "--json")
    assert done.status == 0, done.err
    (stage,) = done.document["stages"]
    assert "heads.temporal" in stage["parts"] and "heads.region" not in stage["parts"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--head", '{"name": "temporal"'), "--head: expected a name, or JSON such as"),
        (("--head", "regoin"), "Did you mean 'region'"),
        (("--head", "region", "--checkpoint", "nano-tpo"), "--head: expected none beside --checkpoint"),
    ],
)
def test_wrong_head_is_refused(call, words: tuple[str, ...], message: str):
    done = call("train", *words, "--dry-run")
    assert done.status == 2 and message in " ".join(done.err.split())
