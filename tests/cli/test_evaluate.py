"""`tpo-lab evaluate`: scores of both ways side by side, the confusion of routes, and a file with all of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from tpo_lab.cli.evaluate import _number, _view
from tpo_lab.sample import read, write

SCORES = {
    "region": {"routed": {"acc@0.5": 0.25, "several": {"f1@0.5": 0.5}}, "teacher_forced": {"acc@0.5": 0.75, "miou": 0.625}},
    "qa": {"accuracy": 0.125, "accuracy/interval": [0.1, 0.2], "count": 16.0},
    "routing": {"accuracy": 0.875, "count": 8.0, "labels": ["none", "region"], "confusion": [[5, 1], [0, 2]]},
}


def rows_of(view) -> list[list[str]]:
    console = Console(width=120, color_system=None)
    with console.capture() as shown:
        console.print(view)
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in shown.get().splitlines() if line.startswith("│")]


def test_routed_and_teacher_forced_stand_side_by_side():
    rows = rows_of(_view(SCORES))
    assert ["task", "metric", "routed", "teacher-forced"] in rows
    assert ["region", "acc@0.5", "0.250", "0.750"] in rows
    assert ["region", "several.f1@0.5", "0.500", "-"] in rows
    assert ["region", "miou", "-", "0.625"] in rows
    assert ["qa", "accuracy", "0.125", "-"] in rows and ["qa", "accuracy/interval", "0.100 to 0.200", "-"] in rows


def test_confusion_has_expected_routes_as_rows():
    rows = rows_of(_view(SCORES))
    start = rows.index(["expected / emitted", "none", "region"])
    assert rows[start + 1 : start + 3] == [["none", "5", "1"], ["region", "0", "2"]]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.0, "0.000"), (1.0, "1.000"), (12.0, "12"), (1.25, "1.250"), ([0, 0.5], "0.000 to 0.500")]
)
def test_number(value, text: str):
    assert _number(value) == text


def test_document_and_file_hold_the_same(call, trained: Path, data: Path, tmp_path: Path):
    done = call("evaluate", trained, "--data", data, "--out", tmp_path / "new", "--limit", 9, "--json")
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "new" / "evaluation.json").read_text()) == done.document
    assert {"routed", "teacher_forced"} == done.document["scores"]["region"].keys()
    asked = [sample for sample in read(data)[:9] if sample.meta["kind"] != "caption"]
    assert done.document["scores"]["routing"]["count"] == len(asked)
    assert (done.document["limit"], done.document["blind"], "records" in done.document) == (9, False, False)
    assert f"samples: {len(asked)}/{len(asked)}" in done.err


def test_records_hold_every_answer(call, trained: Path, data: Path):
    done = call("evaluate", trained, "--data", data, "--limit", 12, "--records", "--json")
    asked = [sample.id for sample in read(data)[:12] if sample.meta["kind"] != "caption"]
    assert [record["id"] for record in done.document["records"]] == asked


def test_blind_shows_other_frames(call, data: Path):
    seen, blind = (call("evaluate", "nano", "--data", data, "--limit", 16, *words, "--json").document for words in ((), ("--blind",)))
    assert (seen["blind"], blind["blind"]) == (False, True)
    assert seen["scores"]["qa"]["accuracy"] > blind["scores"]["qa"]["accuracy"], "the shipped backbone looks at the video"


def test_several_files_count_towards_one_limit(call, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from tpo_lab import evaluation

    seen = []

    def evaluate(model, samples, **_):
        seen.extend(sample.id for sample in samples)
        return evaluation.Evaluation(SCORES)

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    samples = read(data)
    for name, part in (("a", samples[:2]), ("b", samples[2:])):
        write(tmp_path / f"{name}.jsonl", part)
    assert call("evaluate", "--data", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "nano", "--limit", 3).status == 0
    assert seen == [sample.id for sample in samples[:3]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nano_tpo"], "Did you mean 'nano-tpo'"),
        (["nano", "--limit", "0"], "Invalid value for '--limit'"),
    ],
)
def test_wrong_call_is_a_sentence(call, data: Path, words: list[str], message: str):
    done = call("evaluate", *words, "--data", data)
    assert done.status == 2 and message in done.err


def test_bad_record_is_named_before_the_model_is_loaded(call, tmp_path: Path):
    (tmp_path / "bad.jsonl").write_text('{"id": "a"}\n')
    done = call("evaluate", "nowhere", "--data", tmp_path / "bad.jsonl")
    assert done.status == 2 and "bad.jsonl, line 1: media: expected this field" in done.err


def test_untrained_heads_are_the_same_at_every_call(call, data: Path):
    first, second = (call("evaluate", "nano", "--data", data, "--limit", 16, "--json").document for _ in range(2))
    assert first["scores"]["region"]["teacher_forced"] == second["scores"]["region"]["teacher_forced"]


def test_only_captions_are_nothing_to_score(call, data: Path, tmp_path: Path):
    write(tmp_path / "c.jsonl", [sample for sample in read(data) if sample.meta["kind"] == "caption"])
    done = call("evaluate", "nano", "--data", tmp_path / "c.jsonl")
    assert done.status == 2 and "samples: expected at least one that is no caption" in done.err


def test_predictions_are_samples_with_the_models_answers(call, trained: Path, data: Path, tmp_path: Path):
    out = tmp_path / "answers.jsonl"
    done = call("evaluate", trained, "--data", data, "--limit", 9, "--predictions", out, "--json")
    assert done.status == 0, done.err
    answered, asked = read(out), {sample.id: sample for sample in read(data)}
    assert done.document["predictions"] == {"file": str(out), "samples": len(answered)} and answered
    assert all(each.media_path.name == asked[each.id].media_path.name and each.meta["predicted"] == "routed" for each in answered)
