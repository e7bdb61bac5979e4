"""Ego4D's natural language queries: the nested document by hand, clips and whole videos, the official scorer, and broken documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpo_lab.datasets.formats import format_named
from tpo_lab.errors import UsageError
from tpo_lab.sample import Targets
from tpo_lab.scoring import Request, score

FILE = Path("nlq") / "nlq_val.json"
QUERY = {"query": "Where is it?", "clip_start_sec": 1.0, "clip_end_sec": 2.5}


def clip(name: str, *queries: object, **fields: object) -> dict[str, object]:
    return {"clip_uid": name, "annotations": [{"annotation_uid": "n", "language_queries": list(queries)}], **fields}


def put(folder: Path, *clips: object) -> Path:
    path = folder / "nlq_val.json"
    path.write_text(json.dumps({"videos": [{"video_uid": "v", "clips": list(clips)}]}))
    return path


def test_queries_by_hand(take, tiny, same_from_file):
    samples, dropped, reading = take("nlq", tiny / FILE, split="val")
    assert not dropped and reading.counts["adjusted"] == {"query that nobody wrote down left out": 1}
    assert [each.id for each in samples] == [f"nlq-clip-1/{name}" for name in ("ann-1/0", "ann-1/2", "ann-2/0")]
    assert [each.targets.temporal.windows_sec for each in samples] == [((10.5, 14.0),), ((200.0, 203.0),), ((0.0, 2.0),)]
    assert (samples[0].media.path, samples[0].media.end_sec, samples[0].meta["duration_sec"]) == ("clip-1.mp4", None, 480.0)
    assert '"Where did I put the saw?"' in samples[0].conversation[0].text
    same_from_file(samples)


def test_clips_of_whole_videos(take, tiny, same_from_file):
    samples, dropped, _ = take("nlq", tiny / FILE, variant="videos")
    media = samples[0].media
    assert not dropped and (media.path, media.start_sec, media.end_sec) == ("vid-1.mp4", 100.0, 580.0)
    assert samples[0].targets.temporal.windows_sec == ((10.5, 14.0),), "seconds of the clip"
    same_from_file(samples)
    with pytest.raises(UsageError, match="rows do not say where in the video"):
        take("nlq", tiny / "nlq" / "val.jsonl", variant="videos")
    _, dropped, _ = take("nlq", tiny / "nlq" / "nlq_test_unannotated.json", variant="videos")
    assert [(each.rule, each.where.endswith("language_queries[0], clip")) for each in dropped] == [("missing", True)]


def test_the_unannotated_split_asks_only(take, tiny):
    (sample,), _, _ = take("nlq", tiny / "nlq" / "nlq_test_unannotated.json")
    assert sample.id == "nlq-clip-2/ann-3/0" and [turn.role for turn in sample.conversation] == ["user"]
    assert not sample.targets.names and "duration_sec" not in sample.meta


def test_the_truth_as_a_submission_scores_100(take, tiny, tmp_path: Path):
    out = tmp_path / "submission.json"
    assert format_named("nlq").write(take("nlq", tiny / FILE)[0], out) == 3
    document = json.loads(out.read_text())
    assert (document["version"], document["challenge"]) == ("1.0", "ego4d_nlq_challenge")
    assert document["results"][1] == {
        "clip_uid": "clip-1",
        "annotation_uid": "ann-1",
        "query_idx": 2,
        "predicted_times": [[200.0, 203.0]],
    }
    assert set(score("nlq", Request(out, tiny / FILE)).metrics.values()) == {100.0}
    format_named("nlq").write([each.model_copy(update={"targets": Targets()}) for each in take("nlq", tiny / FILE)[0]], out)
    assert set(score("nlq", Request(out, tiny / FILE)).metrics.values()) == {0.0}


@pytest.mark.parametrize(
    ("changed", "field", "rule"),
    [
        ({"clip_end_sec": 1.0}, "clip_start_sec, clip_end_sec[0]", "window_order"),
        ({"clip_end_sec": 0.5}, "clip_start_sec, clip_end_sec[0]", "window_order"),
        ({"clip_start_sec": -1}, "clip_start_sec, clip_end_sec", "window_in_video"),
        ({"clip_start_sec": "1"}, "clip_start_sec", "number"),
        ({"clip_end_sec": None}, "clip_end_sec", "number"),
        ({"query": " "}, "query", "words"),
        ({"query": 5}, "query", "words"),
    ],
)
def test_a_bad_query_is_named_and_the_others_go_on(take, tmp_path: Path, changed, field, rule):
    path = put(tmp_path, clip("c", QUERY, {**QUERY, **changed}, QUERY))
    samples, dropped, _ = take("nlq", path)
    assert [each.id for each in samples] == ["nlq-c/n/0", "nlq-c/n/2"]
    where = f"{path}, videos, [0], clips[0], annotations[0], language_queries[1]"
    assert [(each.where, each.field, each.rule) for each in dropped] == [(where, field, rule)]


@pytest.mark.parametrize(
    ("bad", "where", "field", "rule"),
    [
        (7, ", clips[1]", "", "object"),
        ({"clip_uid": "b"}, ", clips[1]", "", "missing"),
        ({"clip_uid": "b", "annotations": 7}, ", clips[1]", "annotations", "list"),
        ({"clip_uid": "b", "annotations": [None]}, ", clips[1], annotations[0]", "", "object"),
        (clip("b", 7), ", clips[1], annotations[0], language_queries[0]", "", "object"),
        (clip("", QUERY), ", clips[1], annotations[0], language_queries[0]", "clip_uid", "words"),
        (clip("b", QUERY, video_start_sec=5), ", clips[1], annotations[0], language_queries[0], clip", "", "missing"),
        (
            clip("b", QUERY, video_start_sec=5, video_end_sec=5),
            ", clips[1], annotations[0], language_queries[0], clip",
            "length",
            "positive",
        ),
    ],
)
def test_a_bad_clip_is_named_and_the_others_go_on(take, tmp_path: Path, bad, where, field, rule):
    path = put(tmp_path, clip("a", QUERY), bad, clip("c", QUERY))
    samples, dropped, _ = take("nlq", path)
    assert [each.id for each in samples] == ["nlq-a/n/0", "nlq-c/n/0"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{path}, videos, [0]{where}", field, rule)]


@pytest.mark.parametrize("variant", ["clips", "videos"])
def test_broken_clips_are_dropped_or_read(withstands, tmp_path: Path, variant: str):
    bounds = {"video_start_sec": 10, "video_end_sec": 70}

    def broken(raw: bytes) -> Path:
        first, last = (json.dumps(clip(name, QUERY, **bounds)).encode() for name in ("a", "c"))
        path = tmp_path / "nlq_val.json"
        path.write_bytes(b'{"videos": [{"video_uid": "v", "clips": [' + first + b", " + raw + b", " + last + b"]}]}")
        return path

    document = clip("b", QUERY, {**QUERY, "query": None}, **bounds)
    withstands("nlq", broken, document, good=["nlq-a/n/0", "nlq-c/n/0"], rounds=600, variant=variant)
