"""`tpo-lab data convert`, `data formats` and `data validate --format`: what is read, what is dropped, and calls that are wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tpo_lab.sample import read

TINY = Path(__file__).parents[2] / "data" / "formats" / "qvhighlights" / "highlight_train_release.jsonl"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Three good rows, a bad one and one that is no JSON."""
    path = tmp_path / "rows.jsonl"
    good = TINY.read_text().splitlines()
    bad = {**json.loads(good[0]), "qid": 99, "relevant_windows": [[9, 3]]}
    path.write_text("\n".join([good[0], json.dumps(bad), good[1], "{", good[2]]) + "\n")
    return path


def test_convert_writes_samples_and_counts_drops(call, rows: Path, tmp_path: Path):
    out, drops = tmp_path / "out" / "qvh.jsonl", tmp_path / "drops.jsonl"
    done = call("data", "convert", "qvhighlights", rows, "--out", out, "--split", "val", "--dropped", drops, "--json")
    assert done.status == 0, done.err
    document = done.document
    assert (document["records"], document["samples"], document["dropped"]) == (5, 3, 2)
    assert document["dropped_by_rule"] == {"json": 1, "window_order": 1}
    samples = read(out)
    assert [sample.split for sample in samples] == ["val"] * 3 and samples[0].meta["raw"]["qid"] == 7
    assert samples[0].media_path.resolve() == (tmp_path / "abc_0.0_20.0.mp4").resolve()
    first = json.loads(drops.read_text().splitlines()[0])
    assert (first["where"], first["field"], first["value"], first["rule"]) == (
        f"{rows}, line 2",
        "relevant_windows[0]",
        [9.0, 3.0],
        "window_order",
    )


def test_convert_says_in_words_what_it_dropped(call, rows: Path, tmp_path: Path):
    done = call("data", "convert", "qvhighlights", rows, "--out", tmp_path / "o.jsonl", "--no-raw")
    assert done.status == 0
    assert f"{rows}, line 2, relevant_windows[0]: expected a window with start < end, got [9.0, 3.0] (rule window_order)" in done.words
    assert "5 records, 2 dropped (json 1, window_order 1)" in done.words
    assert all("raw" not in sample.meta for sample in read(tmp_path / "o.jsonl"))


@pytest.mark.parametrize(("limit", "status"), [("1", 1), ("2", 0), ("39%", 1), ("40%", 0)])
def test_convert_fails_where_more_are_dropped_than_allowed(call, rows: Path, tmp_path: Path, limit: str, status: int):
    out, drops = tmp_path / "o.jsonl", tmp_path / "d.jsonl"
    out.write_text("as it was")
    done = call("data", "convert", "qvhighlights", rows, "--out", out, "--dropped", drops, "--max-dropped", limit)
    assert done.status == status
    assert len(drops.read_text().splitlines()) == 2
    if status:
        assert f"2 of 5 records were dropped, more than --max-dropped {limit}: " in done.err and str(drops) in done.err
        assert out.read_text() == "as it was" and not list(tmp_path.glob(".*"))


def test_a_clean_file_leaves_no_list_of_drops_behind(call, tmp_path: Path):
    drops = tmp_path / "d.jsonl"
    drops.write_text("of an earlier run")
    assert call("data", "convert", "qvhighlights", TINY, "--out", tmp_path / "o.jsonl", "--dropped", drops).status == 0
    assert not drops.exists()


def test_back_writes_the_submission(call, tmp_path: Path):
    samples, out = tmp_path / "o.jsonl", tmp_path / "submission.jsonl"
    call("data", "convert", "qvhighlights", TINY, "--out", samples)
    done = call("data", "convert", "qvhighlights", samples, "--back", "--out", out, "--json")
    assert (done.status, done.document["predictions"]) == (0, 3)
    scored = call("score", "qvhighlights", "--pred", out, "--gt", TINY, "--json")
    assert scored.document["metrics"]["MR-full-mAP"] == 100.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["qvhighlight", "SRC", "--out", "OUT"], "Did you mean 'qvhighlights'?"),
        (["qvhighlights", "nowhere.jsonl", "--out", "OUT"], "SRC: expected an existing file or folder, got 'nowhere.jsonl'."),
        (["qvhighlights", "SRC", "--out", "OUT", "--media", "nowhere"], "--media: expected an existing folder, got 'nowhere'."),
        (["qvhighlights", "SRC", "--out", "OUT", "--variant", "x"], "--variant: expected none: qvhighlights has no variants, got 'x'."),
        (["qvhighlights", "SRC", "--out", "OUT", "--with", "a=b"], "--with: expected none: qvhighlights is read from SRC alone, got 'a'."),
        (["qvhighlights", "SRC", "--out", "OUT", "--with", "a"], "--with: expected NAME=PATH, got 'a'."),
        (
            ["qvhighlights", "SRC", "--out", "OUT", "--max-dropped", "few"],
            "--max-dropped: expected a number of records, or a share such as 1%",
        ),
        (["qvhighlights", "EMPTY", "--out", "OUT"], "expected at least one record that qvhighlights can be read from, got 'none'."),
        (["qvhighlights", "BINARY", "--out", "OUT"], "1 records, all dropped; the first: "),
    ],
)
def test_wrong_calls(call, tmp_path: Path, words: list[str], message: str):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00\x01")
    names = {"SRC": TINY, "OUT": tmp_path / "o.jsonl", "EMPTY": tmp_path / "empty.jsonl", "BINARY": tmp_path / "binary.jsonl"}
    done = call("data", "convert", *(names.get(word, word) for word in words))
    assert (done.status, done.out) == (2, "")
    assert message in " ".join(done.err.split())
    assert not (tmp_path / "o.jsonl").exists()


def test_validate_reads_official_files_too(call, rows: Path, tmp_path: Path):
    done = call("data", "validate", rows, "--format", "qvhighlights", "--json")
    assert (done.status, done.document["records"], done.document["bad_records"]) == (1, 5, 2)
    assert done.document["by_rule"] == {"json": 1, "window_order": 1}
    assert call("data", "validate", rows, "--format", "qvhighlights", "--max-dropped", "40%").status == 0
    assert call("data", "validate", TINY, "--format", "qvhighlights").status == 0
    absent = call("data", "validate", TINY, "--format", "qvhighlights", "--media", "--json")
    assert (absent.status, absent.document["by_rule"]) == (1, {"media_exists": 3})


def test_validate_writes_every_broken_rule_to_a_file(call, tmp_path: Path):
    path, drops = tmp_path / "bad.jsonl", tmp_path / "drops.jsonl"
    path.write_text("{}\n" * 150)
    done = call("data", "validate", path, "--dropped", drops)
    assert done.status == 1 and f"more; all in {drops}" in done.words
    written = [json.loads(line) for line in drops.read_text().splitlines()]
    assert {each["where"] for each in written} == {f"{path}, line {line}" for line in range(1, 151)}
    assert {each["field"] for each in written} == {"id", "media", "conversation"}


def test_formats_lists_all_and_shows_one(call):
    listed = call("data", "formats", "--json").document["formats"]
    assert {"qvhighlights"} <= {each["name"] for each in listed}
    assert all(each["home"] and each["licence"] and each["layout"] and each["asks_for"] for each in listed)
    assert "CC BY-NC-SA 4.0" in call("data", "formats", "qvhighlights").words
    assert call("data", "formats", "qvhighlight").status == 2


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A mixture of two data sets in two stages, one of whose files is missing."""
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "train.jsonl").write_bytes(TINY.read_bytes())
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\n"
        "datasets:\n"
        "  q: {format: qvhighlights, path: q/train.jsonl, split: train}\n"
        "  gone: {path: gone/train.jsonl, media: gone/videos}\n"
        'stages: {"1": [{of: {q: 2}, samples: 5}], "2.temporal": [{of: [gone]}]}\n'
    )
    return path


def test_mixture_says_what_is_there_and_what_is_missing(call, mixed: Path):
    done = call("data", "mixture", mixed, "--json")
    assert done.status == 1
    assert [(row["name"], row["there"], row["stages"]) for row in done.document["datasets"]] == [
        ("q", "yes", "1"),
        ("gone", "no", "2.temporal"),
    ]
    assert [(each["what"], each["path"]) for each in done.document["missing"]] == [
        ("path", str(mixed.parent / "gone/train.jsonl")),
        ("media", str(mixed.parent / "gone/videos")),
    ]
    assert f"missing: {mixed.parent / 'gone/videos'} (gone, media)" in call("data", "mixture", mixed).words
    assert call("data", "mixture", mixed, "--stage", "1").status == 0


def test_mixture_writes_the_samples_of_a_stage(call, mixed: Path, tmp_path: Path):
    done = call("data", "mixture", mixed, "--stage", "1", "--out", tmp_path / "out", "--json")
    assert done.status == 0, done.err
    samples = read(tmp_path / "out" / "1.jsonl")
    assert done.document["files"]["1"]["samples"] == len(samples) == 5
    assert samples[0].media_path.resolve().parent == (tmp_path / "q").resolve()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["papr"], "Did you mean 'paper'?"),
        (["none.yaml"], "mixture: expected an existing YAML file, got 'none.yaml'."),
        (["MIXED", "--stage", "2"], "stage of mixture mine: expected one of 1, 2.temporal, got '2'."),
        (["MIXED", "--out", "OUT"], "mixture mine: expected all of its files, got '2 missing: "),
        (["paper", "--root", "OUT", "--stage", "1", "--out", "OUT"], "mixture paper: expected all of its files, got "),
    ],
)
def test_wrong_mixtures(call, mixed: Path, tmp_path: Path, words: list[str], message: str):
    names = {"MIXED": mixed, "OUT": tmp_path / "o"}
    done = call("data", "mixture", *(names.get(word, word) for word in words))
    assert (done.status, done.out) == (2, "") and message in " ".join(done.err.split())
    assert not (tmp_path / "o").exists()


def test_training_takes_a_mixture_and_refuses_a_root_without_one(call, mixed: Path, tmp_path: Path):
    done = call("train", "--data", mixed, "--out", tmp_path / "r", "--stage", "2.temporal")
    assert done.status == 2 and "mixture mine: expected all of its files" in done.err
    done = call("train", "--data", TINY, "--root", tmp_path, "--out", tmp_path / "r")
    assert done.status == 2 and "--root: expected none without a mixture in --data" in done.err
    done = call("train", "--data", mixed, "--data", TINY, "--out", tmp_path / "r")
    assert done.status == 2 and "--data: expected one mixture, or files of samples" in done.err
    assert not (tmp_path / "r").exists()


def test_an_interrupted_conversion_leaves_the_file_as_it_was(tmp_path: Path):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    row = json.loads(TINY.read_text().splitlines()[0])
    rows.write_text("".join(json.dumps({**row, "qid": place}) + "\n" for place in range(200_000)))
    out.write_text("as it was")
    words = [sys.executable, "-m", "tpo_lab", "data", "convert", "qvhighlights", str(rows), "--out", str(out)]
    job = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    while not list(tmp_path.glob(".out.jsonl.*")):
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 130 and "Interrupted." in err
    assert out.read_text() == "as it was" and not list(tmp_path.glob(".out*"))
