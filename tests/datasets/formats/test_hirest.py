"""HiREST: prompts as queries by hand, the withheld test split, the official scorer, the real files, and broken entries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpo_lab.datasets.formats import format_named
from tpo_lab.sample import Targets
from tpo_lab.scoring import Request, score

FILE = Path("hirest") / "all_data_val.json"
ENTRY = {
    "relevant": True,
    "clip": True,
    "v_duration": 90.5,
    "bounds": [12, 60],
    "steps": [{"index": 0, "heading": "glue it", "absolute_bounds": [12, 30]}],
}


def test_prompts_by_hand(take, tiny, same_from_file):
    samples, dropped, reading = take("hirest", tiny / FILE, split="val")
    assert not dropped and reading.counts["adjusted"] == {"entry without a moment left out": 2}
    assert [each.id for each in samples] == ["hirest-aaAA_1-Repair a Kite", "hirest-aaAA_1-Peel a Pumpkin"]
    assert [each.targets.temporal.windows_sec for each in samples] == [((12.0, 60.0),), ((0.0, 9.0),)]
    assert '"Repair a Kite"' in samples[0].conversation[0].text
    assert (samples[0].media.path, samples[0].meta["duration_sec"]) == ("aaAA_1.mp4", 90.5)
    same_from_file(samples)


def test_steps_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("hirest", tiny / FILE, variant="steps")
    assert not dropped and [each.id for each in samples] == ["hirest-aaAA_1-Repair a Kite-0", "hirest-aaAA_1-Repair a Kite-1"]
    assert [each.targets.temporal.windows_sec for each in samples] == [((12.0, 30.0),), ((30.0, 60.0),)]
    assert '"glue the spar"' in samples[0].conversation[0].text
    same_from_file(samples)


FORMATTED = {
    "captions": [{"start": 1, "end": 4, "sentence": "cut it"}, {"start": 4, "end": 9, "sentence": "glue it"}],
    "bounds": [[1.0, 4.0], [4.0, 9.0]],
}


def test_steps_by_video_by_hand(take, tiny, same_from_file):
    samples, dropped, reading = take(
        "hirest", tiny / "hirest" / "formatted_moment_evaluation_gt.json", variant="formatted-steps", split="val"
    )
    assert [each.id for each in samples] == ["hirest-aaAA_1-0", "hirest-aaAA_1-1"] and reading.counts["adjusted"] == {}
    assert [each.targets.temporal.windows_sec for each in samples] == [((12.0, 30.0),), ((30.0, 60.0),)]
    assert '"glue the spar"' in samples[0].conversation[0].text and samples[0].media.path == "aaAA_1.mp4"
    assert "duration_sec" not in samples[0].meta and samples[0].meta["raw"]["caption"]["sentence"] == "glue the spar "
    assert [(each.where.rpartition("json, ")[2], each.rule) for each in dropped] == [("ddDD_4.mp4, captions[0]", "window_order")]
    same_from_file(samples)


@pytest.mark.parametrize(
    ("changed", "inside", "field", "rule"),
    [
        ({"captions": FORMATTED["captions"][:1]}, "", "captions", "lengths_equal"),
        ({"captions": None}, "", "captions", "list"),
        ({"bounds": 3}, "", "bounds", "list"),
        ({"captions": [7], "bounds": [[1, 4]]}, ", captions[0], caption", "", "object"),
        ({"captions": [{"start": 1, "end": 4}], "bounds": [[1, 4]]}, ", captions[0], caption", "", "missing"),
        ({"captions": FORMATTED["captions"][:1], "bounds": [[1, 5]]}, ", captions[0]", "bounds", "bounds_equal"),
        ({"captions": FORMATTED["captions"][:1], "bounds": [[4, 1]]}, ", captions[0]", "bounds[0]", "window_order"),
        ({"captions": FORMATTED["captions"][:1], "bounds": [[-1, 4]]}, ", captions[0]", "bounds", "window_in_video"),
    ],
)
def test_bad_steps_by_video_are_named_and_the_others_go_on(take, tmp_path: Path, changed, inside, field, rule):
    path = tmp_path / "formatted.json"
    path.write_text(json.dumps({"a.mp4": FORMATTED, "b.mp4": {**FORMATTED, **changed}, "c.mp4": FORMATTED}))
    samples, dropped, _ = take("hirest", path, variant="formatted-steps")
    assert [each.id for each in samples] == ["hirest-a-0", "hirest-a-1", "hirest-c-0", "hirest-c-1"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{path}, b.mp4{inside}", field, rule)]


def test_a_thousand_broken_steps_by_video_are_dropped_or_read(withstands, tmp_path: Path):
    def put(raw: bytes) -> Path:
        whole = json.dumps(FORMATTED).encode()
        path = tmp_path / "formatted.json"
        path.write_bytes(b'{"a.mp4": ' + whole + b', "b.mp4": ' + raw + b', "c.mp4": ' + whole + b"}")
        return path

    withstands("hirest", put, FORMATTED, good=["hirest-a-0", "hirest-a-1", "hirest-c-0", "hirest-c-1"], variant="formatted-steps")


def test_the_real_steps_by_video_are_read_whole(real, take):
    samples, dropped, _ = take("hirest", real / "hirest" / "formatted_moment_evaluation_gt.head40.json", variant="formatted-steps")
    assert (len(samples), dropped) == (279, [])


def test_the_test_split_asks_only(take, tiny):
    (sample,), _, _ = take("hirest", tiny / "hirest" / "all_data_test.json")
    assert [turn.role for turn in sample.conversation] == ["user"] and not sample.targets.names


def test_the_truth_as_a_submission_scores_100(take, tiny, tmp_path: Path):
    out = tmp_path / "submission.json"
    assert format_named("hirest").write(take("hirest", tiny / FILE)[0], out) == 2
    assert json.loads(out.read_text())["Repair a Kite"] == {"aaAA_1.mp4": {"bounds": [12.0, 60.0]}}
    metrics = score("hirest", Request(out, tiny / FILE)).metrics
    assert metrics["R1@0.7"] == 100 and metrics["mIoU"] == pytest.approx(100)


def test_no_answer_is_never_right(take, tiny, tmp_path: Path):
    samples = [each.model_copy(update={"targets": Targets()}) for each in take("hirest", tiny / FILE)[0]]
    format_named("hirest").write(samples, tmp_path / "s.json")
    assert set(score("hirest", Request(tmp_path / "s.json", tiny / FILE)).metrics.values()) == {0.0}


@pytest.mark.parametrize(
    ("changed", "variant", "inside", "field", "rule"),
    [
        ({"bounds": [60, 12]}, "moments", "", "bounds[0]", "window_order"),
        ({"bounds": [7, 7]}, "moments", "", "bounds[0]", "window_order"),
        ({"bounds": [-2, 7]}, "moments", "", "bounds", "window_in_video"),
        ({"bounds": 7}, "moments", "", "bounds[0]", "numbers"),
        ({"v_duration": 0}, "moments", "", "v_duration", "positive"),
        ({"clip": "yes"}, "moments", "", "clip", "flag"),
        ({"relevant": None}, "steps", "", "relevant", "flag"),
        ({"steps": None}, "steps", "", "steps", "list"),
        ({"steps": [1]}, "steps", ", steps[0], step", "", "object"),
        ({"steps": [{"heading": "", "absolute_bounds": [1, 2]}]}, "steps", ", steps[0], step", "heading", "words"),
        ({"steps": [{"heading": "a", "absolute_bounds": [2, 2]}]}, "steps", ", steps[0], step", "absolute_bounds[0]", "window_order"),
    ],
)
def test_a_bad_entry_is_named_and_the_others_go_on(take, tmp_path: Path, changed, variant, inside, field, rule):
    path = tmp_path / "all_data_val.json"
    path.write_text(json.dumps({"P": {"a.mp4": ENTRY, "b.mp4": {**ENTRY, **changed}, "c.mp4": ENTRY}}))
    samples, dropped, _ = take("hirest", path, variant=variant)
    tail = "-0" if variant == "steps" else ""
    assert [each.id for each in samples] == [f"hirest-a-P{tail}", f"hirest-c-P{tail}"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{path}, P, b.mp4{inside}", field, rule)]


def test_what_is_no_object_is_named(take, tmp_path: Path):
    path = tmp_path / "all_data_val.json"
    path.write_text(json.dumps({"P": [1], "Q": {"a.mp4": 2, "b.mp4": ENTRY}, " ": {"c.mp4": ENTRY}}))
    samples, dropped, _ = take("hirest", path)
    assert [each.id for each in samples] == ["hirest-b-Q"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [
        (f"{path}, P", "", "object"),
        (f"{path}, Q, a.mp4", "", "object"),
        (f"{path},  , c.mp4", "prompt", "words"),
    ]


@pytest.mark.parametrize("variant", ["moments", "steps"])
def test_broken_entries_are_dropped_or_read(withstands, tmp_path: Path, variant: str):
    def put(raw: bytes) -> Path:
        whole = json.dumps(ENTRY).encode()
        path = tmp_path / "all_data_val.json"
        path.write_bytes(b'{"P": {"a.mp4": ' + whole + b', "b.mp4": ' + raw + b'}, "Q": {"c.mp4": ' + whole + b"}}")
        return path

    tail = "-0" if variant == "steps" else ""
    withstands("hirest", put, ENTRY, good=[f"hirest-a-P{tail}", f"hirest-c-Q{tail}"], rounds=600, variant=variant)


@pytest.mark.parametrize(
    ("split", "moments", "points", "steps", "step_points"),
    [("train", 164, 1, 910, 3), ("val", 110, 0, 603, 3), ("test", 130, 0, 0, 0)],
)
def test_the_real_files_hold_a_few_windows_without_length(real, take, tmp_path: Path, split, moments, points, steps, step_points):
    path = real / "hirest" / f"all_data_{split}.head60.json"
    samples, dropped, _ = take("hirest", path)
    assert (len(samples), [each.rule for each in dropped]) == (moments, ["window_order"] * points)
    assert all((not each.targets.names) == (split == "test") for each in samples)
    of_steps, dropped, _ = take("hirest", path, variant="steps")
    assert (len(of_steps), [each.rule for each in dropped]) == (steps, ["window_order"] * step_points)
    if split == "val":
        format_named("hirest").write(samples, tmp_path / "s.json")
        metrics = score("hirest", Request(tmp_path / "s.json", path)).metrics
        assert metrics["R1@0.7"] == 100 and metrics["mIoU"] == pytest.approx(100)
