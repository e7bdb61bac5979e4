"""Run folders: the first config stays, metrics survive interruptions, and the commit is that of this code."""

from __future__ import annotations

import json
import pickle
import subprocess
from pathlib import Path

import pytest
import torch

from tpo_lab import runs
from tpo_lab.errors import UsageError
from tpo_lab.runs import RunFolder, commit, environment, is_loss, last_jsonl, read_jsonl, read_probes, save_state, stopwatch, write_json


def test_run_folder_writes_its_config_first_and_keeps_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a" / "run", {"seed": 3})
    first = json.loads((run.path / "config.json").read_text())
    assert first["seed"] == 3
    assert first["environment"].keys() == environment().keys() >= {"tpo_lab", "commit", "python", "torch", "device", "command"}
    RunFolder(run.path, {"seed": 4})
    assert json.loads((run.path / "config.json").read_text()) == first


def test_metrics_are_appended_line_by_line(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {})
    assert run.metrics() == []
    run.log(stage="1", step=1, loss=0.5)
    run.log(stage="1", step=2, loss=0.25)
    assert run.metrics() == [{"stage": "1", "step": 1, "loss": 0.5}, {"stage": "1", "step": 2, "loss": 0.25}]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_keep_until_drops_later_steps_of_that_stage_only(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {})
    for stage, step in (("1", 1), ("1", 2), ("2.region", 1), ("2.region", 2), ("2.region", 3)):
        run.log(stage=stage, step=step)
    run.keep_until("2.region", 1)
    assert [(line["stage"], line["step"]) for line in run.metrics()] == [("1", 1), ("1", 2), ("2.region", 1)]
    run.keep_until("1", 0)
    assert [line["stage"] for line in run.metrics()] == ["2.region"]


def test_probes_are_kept_and_dropped_like_metrics(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {})
    assert run.probes() == read_probes(tmp_path) == [] and not (tmp_path / "probes.jsonl").exists()
    run.keep_until("1", 0)
    assert not (tmp_path / "probes.jsonl").exists()
    for stage, step in (("1", 1), ("2.region", 1), ("2.region", 5)):
        run.log_probe(stage=stage, step=step, gradients={"norms": [1.0, float("nan")], "losses": {"mlm": float("inf")}})
    broken = {"norms": [1.0, None], "losses": {"mlm": None}}
    assert run.probes()[0] == {"stage": "1", "step": 1, "gradients": broken}
    run.keep_until("2.region", 4)
    assert [(line["stage"], line["step"]) for line in read_probes(str(tmp_path))] == [("1", 1), ("2.region", 1)]
    assert run.metrics() == []


def test_numbers_that_are_not_finite_are_named_in_place_of_their_values(tmp_path: Path) -> None:
    run, heard = RunFolder(tmp_path, {}), []
    run.listener = heard.append
    run.log(stage="1", step=1, loss=float("nan"), mlm=0.5, assign=float("-inf"))
    assert run.metrics() == [{"stage": "1", "step": 1, "mlm": 0.5, "not_finite": ["loss", "assign"]}]
    assert heard[0]["assign"] == float("-inf"), "trackers hear what it was"


def test_losses_are_told_from_what_else_a_line_holds() -> None:
    others = ["stage", "step", "seconds", "lr", "rows", "memory_mib", "cuda_mib", "gradient/region", "not_finite"]
    losses = ["loss", "mlm", "assign", "region/l1", "temporal/saliency_rank"]
    assert [name for name in (*others, *losses) if is_loss(name)] == losses


def test_a_line_cut_by_an_interruption_is_dropped_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {})
    run.log(stage="1", step=1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "1", "st')
    assert run.metrics() == [{"stage": "1", "step": 1}]
    run.keep_until("1", 1)
    run.log(stage="1", step=2)
    assert [line["step"] for line in run.metrics()] == [1, 2]


def test_last_jsonl_is_the_last_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert last_jsonl(path) is None
    path.write_text('{"a": 1')
    assert last_jsonl(path) is None, "still being written"
    for step in range(2000):
        with path.open("a") as file:
            file.write(("}\n" if step == 0 else "") + json.dumps({"step": step}) + "\n")
        if step % 400 == 0:
            assert last_jsonl(path, within=64) == {"step": step} == read_jsonl(path)[-1]
    with path.open("a") as file:
        file.write('{"step": 2000')
    assert last_jsonl(path, within=64) == {"step": 1999}
    with path.open("a") as file:
        file.write(f', "note": "{"long " * 500}"}}\n')
    assert last_jsonl(path, within=64) == read_jsonl(path)[-1] == {"step": 2000, "note": "long " * 500}


def test_read_jsonl_names_a_damaged_line_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"a": 1}\nnot json\n{"a": 2}\n')
    with pytest.raises(UsageError, match=r"m\.jsonl, line 2: expected JSON, got 'not json'"):
        read_jsonl(path)
    path.write_text('{"a": 1}\n\n{"a": "x\u2028y"}')
    assert read_jsonl(path) == [{"a": 1}, {"a": "x\u2028y"}], "an empty line is nothing, and U+2028 ends no line"


def test_write_json_never_leaves_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_save_state_never_leaves_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_state(path, {"step": 1, "weight": torch.ones(2)})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_state(path, {"step": 2, "weight": lambda: None})
    assert torch.load(path, weights_only=True)["step"] == 1
    save_state(path, {"step": 3})
    assert torch.load(path, weights_only=True) == {"step": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_commit_is_that_of_the_checkout_with_a_mark_for_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "package" / "runs.py"
    code.parent.mkdir()
    code.write_text("1")
    monkeypatch.setattr(runs, "__file__", str(code))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() is None, "no checkout at all"
    git(tmp_path, "init", "-q")
    assert commit() is None, "somebody else's checkout, in which this package is merely installed"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    assert commit() == git(tmp_path, "rev-parse", "HEAD")
    code.write_text("2")
    assert commit() == git(tmp_path, "rev-parse", "HEAD") + "+changes"


def test_stopwatch_measures_a_block_even_if_it_fails() -> None:
    with pytest.raises(KeyError), stopwatch() as found:
        raise KeyError
    assert 0 <= found["seconds"] < 5
