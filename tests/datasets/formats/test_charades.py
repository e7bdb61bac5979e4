"""Charades-STA: values by hand, both ground truths, the real files, the official scorer, and broken lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpo_lab.datasets.formats import format_named
from tpo_lab.errors import UsageError
from tpo_lab.scoring import Request, score

TEXT = Path("charades-sta") / "charades_sta_test.txt"


def test_lines_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("charades-sta", tiny / TEXT, split="test")
    assert not dropped
    assert [each.id for each in samples] == [f"charades-sta-{name}" for name in ("AB1CD-0", "AB1CD-1", "EF2GH-2", "EF2GH-3")]
    assert [each.targets.temporal.windows_sec for each in samples] == [((2.5, 9.0),), ((8.0, 21.5),), ((0.0, 4.2),), ((0.0, 4.2),)]
    assert '"person folds a ## of paper."' in samples[1].conversation[0].text, "only the first ## divides"
    assert (samples[1].media.path, samples[1].media.end_sec, samples[1].split) == ("AB1CD.mp4", None, "test")
    assert samples[1].meta["raw"] == {
        "qid": 1,
        "vid": "AB1CD",
        "start": 8.0,
        "end": 21.5,
        "query": "person folds a ## of paper.",
        "duration": 20.25,
    }
    assert samples[1].meta["duration_sec"] == 20.25
    same_from_file(samples)


def test_cut_at_the_end_of_the_video_the_text_is_the_rows(take, tiny):
    samples, _, reading = take("charades-sta", tiny / TEXT, clip=True)
    rows, _, _ = take("charades-sta", tiny / "charades-sta" / "charades_test_release.jsonl")
    assert [each.targets for each in samples[:2]] == [each.targets for each in rows]
    assert samples[1].targets.temporal.windows_sec == ((8.0, 20.25),)
    assert reading.counts["adjusted"] == {"window cut at the end of its video": 1}


def test_durations_are_optional_unless_windows_are_to_be_cut(take, tmp_path: Path):
    path = tmp_path / "charades_sta_test.txt"
    path.write_text("AB1CD 1.0 2.0##a\n")
    (sample,), _, _ = take("charades-sta", path)
    assert "duration_sec" not in sample.meta
    with pytest.raises(UsageError, match=r"Name it with --with durations=PATH"):
        take("charades-sta", path, clip=True)
    table = tmp_path / "lengths.csv"
    table.write_text("id,length\nXX,5\nAB1CD,1.5\nEF,none\nGH,-1\n")
    samples, dropped, _ = take("charades-sta", path, clip=True, side={"durations": table})
    assert samples[0].targets.temporal.windows_sec == ((1.0, 1.5),)
    assert [(each.where, each.rule) for each in dropped] == [(f"{table}, line 4", "number"), (f"{table}, line 5", "positive")]
    path.write_text("AB1CD 1.0 2.0##a\nZZ 1.0 2.0##a\n")
    _, dropped, _ = take("charades-sta", path, clip=True, side={"durations": table})
    assert (dropped[-1].where, dropped[-1].rule) == (f"{path}, line 2", "missing")


@pytest.mark.parametrize(
    ("line", "field", "rule"),
    [
        ("EF 4.0 1.0##a", "start, end[0]", "window_order"),
        ("EF 4.0 4.0##a", "start, end[0]", "window_order"),
        ("EF -1 4.0##a", "start, end", "window_in_video"),
        ("EF x 4.0##a", "start", "number"),
        ("EF 1 nan##a", "end", "number"),
        ("EF 1 inf##a", "end", "number"),
        ("EF 1##a", "", "line"),
        ("EF 1 4.0#a", "", "line"),
        ("EF 1 4.0##  ", "query", "words"),
    ],
)
def test_a_bad_line_is_named_and_the_others_go_on(take, tmp_path: Path, line, field, rule):
    path = tmp_path / "charades_sta_train.txt"
    path.write_text(f"AB 0.0 1.0##one\n{line}\nCD 0.0 1.0##two\n")
    samples, dropped, _ = take("charades-sta", path)
    assert [sample.id for sample in samples] == ["charades-sta-AB-0", "charades-sta-CD-2"], "their place in the file stays"
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{path}, line 2", field, rule)]


def test_the_truth_as_a_submission_scores_100(take, tiny, tmp_path: Path):
    out = tmp_path / "submission.jsonl"
    assert format_named("charades-sta").write(take("charades-sta", tiny / TEXT)[0], out) == 4
    assert set(score("charades-sta", Request(out, tiny / TEXT)).metrics.values()) == {100.0}


def test_the_clipped_truth_is_not_the_raw_one(take, tiny, tmp_path: Path):
    out = tmp_path / "submission.jsonl"
    format_named("charades-sta").write(take("charades-sta", tiny / TEXT, clip=True)[0], out)
    iou = (20.25 - 8.0) / (21.5 - 8.0)
    assert score("charades-sta", Request(out, tiny / TEXT)).metrics["mIoU"] == pytest.approx(100 * (3 + iou) / 4)


def test_a_thousand_broken_lines_are_dropped_or_read(withstands, tmp_path: Path):
    def put(raw: bytes) -> Path:
        """The document is a line as a list of its parts; what is no such list is written as it comes."""
        try:
            video, start, end, query = json.loads(raw)
            raw = f"{video} {start} {end}##{query}".encode("utf-8", "surrogatepass")
        except (ValueError, TypeError):
            pass
        (tmp_path / "charades_sta_test.txt").write_bytes(b"AB 0.0 1.0##one\n" + raw.replace(b"\n", b" ") + b"\nCD 0.0 1.0##two\n")
        return tmp_path / "charades_sta_test.txt"

    withstands("charades-sta", put, ["EF", 1.0, 2.5, "three"], good=["charades-sta-AB-0", "charades-sta-CD-2"])


def test_the_real_files_and_their_two_ground_truths(real, take, same_from_file, tmp_path: Path):
    text, rows = real / "charades_sta" / "charades_sta_test.txt", real / "charades_sta" / "charades_test_release.jsonl"
    raw, dropped, _ = take("charades-sta", text)
    assert (len(raw), dropped) == (3720, []) and all("duration_sec" in each.meta for each in raw)
    cut, dropped, reading = take("charades-sta", text, clip=True)
    assert (len(cut), dropped) == (3720, []) and reading.counts["adjusted"] == {"window cut at the end of its video": 562}
    published, dropped, _ = take("charades-sta", rows)
    assert (len(published), dropped) == (3720, [])
    assert [each.targets for each in cut] == [each.targets for each in published]
    assert sum(one.targets != other.targets for one, other in zip(raw, published, strict=True)) == 562
    same_from_file(cut[:400])
    for samples, path in ((raw, text), (published, rows)):
        format_named("charades-sta").write(samples, tmp_path / "s.jsonl")
        assert set(score("charades-sta", Request(tmp_path / "s.jsonl", path)).metrics.values()) == {100.0}
    assert len(take("charades-sta", real / "charades_sta" / "charades_sta_train.head400.txt")[0]) == 400
