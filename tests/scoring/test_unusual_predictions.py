"""Prediction files as models leave them: reversed windows, short lists, NaN, other separators and palettes, files nobody asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.scoring.samples import MOMENTS, jsonl, runs, text
from tpo_lab.errors import UsageError
from tpo_lab.scoring import Report, Request, score

TRUE = {"qid": 1, "vid": "a", "query": "x", "duration": 20, "relevant_clip_ids": [0, 1, 2], "saliency_scores": [[4, 4, 4]] * 3}


def highlights(root: Path, fields: dict[str, Any], windows: list[list[float]], **options: Any) -> Report:
    gt = jsonl(root / "g.jsonl", [{**TRUE, "relevant_windows": windows}])
    return score("qvhighlights", Request(jsonl(root / "p.jsonl", [{"qid": 1, **fields}]), gt, **options))


# -- windows that end before they start --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allow_missing", [False, True])
def test_qvhighlights_scores_reversed_windows_as_the_official_tool_does(tmp_path: Path, allow_missing: bool):
    """Its cross IoU divides 0 by 0 where the lengths are opposite, which no threshold is above; anything else reversed meets nothing."""
    windows = [[0, 6]]
    for pred, mean_precision in ([10, 4], 100.0), ([10, 5], 0.0), ([30, 24], 100.0), ([4, 4], 0.0):
        report = highlights(tmp_path, {"pred_relevant_windows": [[*pred, 0.5]]}, windows, allow_missing=allow_missing)
        assert (report.metrics["MR-full-mAP"], report.metrics["MR-full-R1@0.3"]) == (mean_precision, 0.0)
        assert report.counts.unparsable == (pred[1] < pred[0])


def test_qvhighlights_undefined_overlap_takes_its_window_before_any_other(tmp_path: Path):
    """The window [0, 4] is taken by the reversed one, so that its perfect prediction, which comes later, is a false alarm."""
    made = [[9, 5, 0.9], [0, 4, 0.8], [10, 16, 0.7]]
    report = highlights(tmp_path, {"pred_relevant_windows": made}, [[0, 4], [10, 16]])
    # hits at ranks 1 and 3 of two windows: 1/2 * 1 + 1/2 * 2/3
    assert report.metrics["MR-full-mAP"] == 83.33 and report.metrics["MR-full-R1@0.3"] == 0.0


@pytest.mark.parametrize("benchmark", ["charades-sta", "activitynet", "tacos", "hirest", "nlq"])
def test_reversed_windows_are_misses_and_are_counted(tmp_path: Path, benchmark: str):
    gt = jsonl(tmp_path / "g.jsonl", [{**TRUE, "qid": n, "relevant_windows": [[2, 8]]} for n in range(4)])
    windows = [[[8, 2]], [[2, 8], [7, 3]], [], [[100, -5]]]
    pred = jsonl(tmp_path / "p.jsonl", [{"qid": n, "pred_relevant_windows": each} for n, each in enumerate(windows)])
    report = score(benchmark, Request(pred, gt))
    assert report.metrics["mIoU"] == pytest.approx(25.0) and report.metrics["R1@0.3"] == 25.0
    # of nlq five windows count, of the others the first
    assert report.counts.unparsable == (4 if benchmark == "nlq" else 3)


# -- lists of another length -------------------------------------------------------------------------------------------------------------


def test_qvhighlights_takes_any_number_of_windows_in_any_order_and_beyond_the_video(tmp_path: Path):
    lower_first = [[40, 44, 0.1], [0, 6, 0.9]]
    report = highlights(tmp_path, {"pred_relevant_windows": lower_first}, [[0, 6]])
    assert (report.metrics["MR-full-mAP"], report.metrics["MR-full-R1@0.5"]) == (100.0, 0.0), "precision sorts by score, recall does not"
    eleventh = [[40, 44, 0.1]] * 10 + [[0, 6, 0.9]]
    assert highlights(tmp_path, {"pred_relevant_windows": eleventh}, [[0, 6]]).metrics["MR-full-mAP"] == 0.0
    assert highlights(tmp_path, {"pred_relevant_windows": [[0, 12, 1]]}, [[0, 6]]).metrics["MR-full-mIoU"] == 50.0
    assert highlights(tmp_path, {"pred_relevant_windows": []}, [[0, 6]]).metrics["MR-full-mAP"] == 0.0


@pytest.mark.parametrize(
    ("saliency", "hit", "precision"),
    [
        ([1.0, 0.0], 100.0, 65.0),  # the other clips get 0: one threshold finds 1 of 1, the next 3 of 10
        ([-1.0, -2.0, -3.0], 100.0, 30.0),  # and here those clips rank before all three positive ones
        ([0.1] * 10 + [0.9], 0.0, 30.0),  # the best clip lies behind the video
        ([3, 2, 1] + [0] * 30, 100.0, 100.0),
    ],
)
def test_qvhighlights_saliency_that_is_too_short_or_too_long(tmp_path: Path, saliency: list[float], hit: float, precision: float):
    metrics = highlights(tmp_path, {"pred_saliency_scores": saliency}, [[0, 6]]).metrics
    assert len(metrics) == 6 and metrics["HL-min-VeryGood-Hit1"] == hit
    assert metrics["HL-min-VeryGood-mAP"] == precision


def test_qvhighlights_allowed_to_miss_queries_scores_those_on_both_sides(tmp_path: Path):
    gt = jsonl(tmp_path / "g.jsonl", [{**TRUE, "qid": n, "relevant_windows": [[0, 6]]} for n in (1, 2, 3)])
    pred = jsonl(tmp_path / "p.jsonl", [{"qid": n, "pred_relevant_windows": [[0, 6, 1.0]]} for n in (3, 1, 9)])
    report = score("qvhighlights", Request(pred, gt, allow_missing=True))
    assert report.metrics["MR-full-mAP"] == 100.0 and len(report.metrics) == 8, "no window is long, and none is middle"
    assert (report.counts.missing, report.counts.extra, report.options["allow_missing"]) == (1, 1, True)


def test_didemo_takes_a_ranking_without_the_moments_of_no_annotator(tmp_path: Path):
    gt = text(tmp_path / "g.json", json.dumps([{"annotation_id": 7, "num_segments": 5, "times": [[1, 1]] * 3 + [[0, 4]]}]))
    shorter = [each for each in MOMENTS if each[1] < 5]
    ranked = [[1, 1], *(each for each in shorter if list(each) != [1, 1])]
    assert len(ranked) == 15
    metrics = score("didemo", Request(text(tmp_path / "p.json", json.dumps([ranked])), gt)).metrics
    assert metrics == {"rank@1": 100.0, "rank@5": 100.0, "mIoU": 100.0}
    with pytest.raises(UsageError, match=r"p.json, \[0\], segments: expected .* as \[0, 4\], got '1 moments without it'"):
        score("didemo", Request(text(tmp_path / "p.json", json.dumps([[[1, 1]]])), gt))


# -- HiREST ------------------------------------------------------------------------------------------------------------------------------


def test_hirest_passes_over_predictions_for_entries_without_a_clip_and_refuses_others(tmp_path: Path):
    entry = {"relevant": True, "v_duration": 40, "bounds": [0, 10]}
    gt = text(tmp_path / "g.json", json.dumps({"Make tea": {"v.mp4": {**entry, "clip": True}, "w.mp4": {**entry, "clip": False}}}))
    made = {"Make tea": {name: {"bounds": [0, 10]} for name in ("v.mp4", "w.mp4")}}
    report = score("hirest", Request(text(tmp_path / "p.json", json.dumps(made)), gt))
    assert report.metrics["R1@0.7"] == 100.0 and (report.counts.predictions, report.counts.extra) == (1, 0)
    made["Make tea"]["x.mp4"] = {"bounds": [0, 10]}
    with pytest.raises(UsageError, match="got 1 extra: x: Make tea"):
        score("hirest", Request(text(tmp_path / "p.json", json.dumps(made)), gt))


def test_hirest_steps_by_video_are_the_truth_of_another_task(tmp_path: Path):
    steps = {"v.mp4": {"captions": [{"start": 0, "end": 9, "sentence": "boil"}], "bounds": [[0.0, 9.0]]}}
    gt, pred = (text(tmp_path / name, json.dumps(steps)) for name in ("g.json", "p.json"))
    with pytest.raises(UsageError, match=r"key v.mp4: expected videos by prompt.*got 'steps of a video'\. Steps by video"):
        score("hirest", Request(pred, gt))


# -- tracks ------------------------------------------------------------------------------------------------------------------------------


def lasot(root: Path, lines: list[str], variant: str, *, absent: str = "0\n" * 4) -> Report:
    text(root / "annos" / "cat-1.txt", "10,20,4,5\n" * 4)
    text(root / "annos" / "absent" / "cat-1.txt", absent)
    text(root / "pred" / "cat-1.txt", "".join(f"{line}\n" for line in lines))
    return score("lasot", Request(root / "pred", root / "annos", variant=variant))


@pytest.mark.parametrize("variant", ["matlab", "pytracking", "got10k"])
def test_lasot_separators_say_nothing(tmp_path: Path, variant: str):
    boxes = ["1 1 4 5", "11 20 4 5", "10 21.5 4 5", "40 20 4e0 5"]
    found = [lasot(tmp_path, [box.replace(" ", mark) for box in boxes], variant).metrics for mark in (",", "\t", " ", "   ", ", ", ",\t")]
    assert all(each == found[0] for each in found) and 0 < found[0]["Success"] < 100


def test_lasot_boxes_that_are_none_are_what_each_evaluator_makes_of_them(tmp_path: Path):
    good = "10,20,4,5"
    # the box before it takes the place of a NaN (matlab), or it fails (got10k), or the file is refused (pytracking)
    lines = [good, good, "NaN,NaN,NaN,NaN", "nan nan nan nan"]
    assert lasot(tmp_path, lines, "matlab").metrics["P"] == 100.0
    assert lasot(tmp_path, lines, "got10k").metrics["P"] == 50.0
    with pytest.raises(UsageError, match=r"cat-1.txt, pred_xywh\[2\]: expected no NaN"):
        lasot(tmp_path, lines, "pytracking")
    lines = [good, "0,0,0,0", good, "10,20,0,5"]
    # the first box is what a broken second one becomes before the true one takes its place
    found = {variant: lasot(tmp_path, lines, variant).metrics["SR@0.5"] for variant in ("matlab", "pytracking", "got10k")}
    assert found == {"matlab": 100.0, "pytracking": 100.0, "got10k": 50.0}
    negative = [good, good, "10,20,-4,5", good]
    assert lasot(tmp_path, negative, "matlab").metrics["SR@0.5"] == 100.0
    with pytest.raises(UsageError, match="no negative size"):
        lasot(tmp_path, negative, "pytracking")


def test_lasot_a_broken_second_frame_becomes_the_first_prediction_and_not_the_true_box(tmp_path: Path):
    lines = ["90,90,4,5", "NaN,NaN,NaN,NaN", "10,20,4,5", "10,20,4,5"]
    assert lasot(tmp_path, lines, "matlab").metrics["P"] == 75.0


def test_lasot_fewer_lines_than_frames(tmp_path: Path):
    lines = ["10,20,4,5"] * 3
    for variant in ("matlab", "pytracking"):
        with pytest.raises(UsageError, match=r"cat-1.txt, pred_xywh: expected one box per true box \(4\), got 3"):
            lasot(tmp_path, lines, variant)
    assert lasot(tmp_path, lines, "got10k").metrics["P"] == 100.0, "the longer list is cut"


def test_notes_beside_the_boxes_are_no_sequences(tmp_path: Path):
    """pytracking writes times and scores beside the boxes, the GOT-10k toolkit times."""
    for note in ("time", "all_scores", "object_presence_scores"):
        text(tmp_path / "pred" / f"cat-1_{note}.txt", "0.1\n")
    assert lasot(tmp_path, ["10,20,4,5"] * 4, "pytracking").counts.extra == 0
    text(tmp_path / "pred" / "dog-1_time.txt", "0.1\n")
    with pytest.raises(UsageError, match="got 1 extra: dog-1_time"):
        lasot(tmp_path, ["10,20,4,5"] * 4, "pytracking")
    truth, name = tmp_path / "got", "GOT-10k_Val_000001"
    text(truth / name / "groundtruth.txt", "1,1,4,4\n" * 3), text(truth / name / "cover.label", "8\n" * 3)
    text(truth / name / "meta_info.ini", "resolution: (64, 48)\n")
    text(tmp_path / "flat" / f"{name}.txt", "1,1,4,4\n" * 3), text(tmp_path / "flat" / f"{name}_time.txt", "0.1\n")
    text(tmp_path / "deep" / name / f"{name}_001.txt", "1,1,4,4\n" * 3), text(tmp_path / "deep" / name / f"{name}_time.txt", "0.1\n")
    for folder in ("flat", "deep"):
        assert score("got10k", Request(tmp_path / folder, truth)).metrics["AO"] == 100.0


def test_lasot_got10k_needs_no_flags(tmp_path: Path):
    lasot(tmp_path, ["10,20,4,5"] * 4, "got10k")
    (tmp_path / "annos" / "absent" / "cat-1.txt").unlink()
    assert score("lasot", Request(tmp_path / "pred", tmp_path / "annos", variant="got10k")).metrics["P"] == 100.0
    with pytest.raises(UsageError, match=r"absent.cat-1.txt: expected a file, got 'nothing of that name'"):
        score("lasot", Request(tmp_path / "pred", tmp_path / "annos"))


# -- masks -------------------------------------------------------------------------------------------------------------------------------

SIZE = (30, 50)


def block(left: int, value: int = 1) -> np.ndarray:
    made = np.zeros(SIZE, dtype=np.uint8)
    made[5:15, left : left + 10] = value
    return made


def image(path: Path, labels: np.ndarray, mode: str) -> Path:
    """The same labels in another form of PNG: `palette N` has N colours, none of which is the usual one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind, _, count = mode.partition(" ")
    made = Image.fromarray(labels)
    if kind == "palette":
        made.putpalette([(7 * place + 3) % 256 if place > 2 else 0 for place in range(3 * int(count))])
    elif kind == "bits":
        made = Image.fromarray(labels > 0)
    elif kind != "grey":
        made = Image.fromarray(255 * (labels > 0).astype(np.uint8)).convert(kind)
    made.save(path, **({"bits": 2} if count == "4" else {}))
    return path


@pytest.mark.parametrize("mode", ["palette 256", "palette 4", "grey"])
def test_davis_reads_indices_whatever_their_colours(tmp_path: Path, mode: str):
    both = block(5) + block(30, 2)
    for place in range(4):
        image(tmp_path / "gt" / "a" / f"{place:05d}.png", both, "palette 256")
        image(tmp_path / "pred" / "a" / f"{place:05d}.png", both, mode)
    report = score("davis", Request(tmp_path / "pred", tmp_path / "gt"))
    assert (report.metrics["J&F"], set(report.detail["objects"])) == (100.0, {"a/1", "a/2"})


def test_davis_predicted_void_and_missing_frames_are_refused_as_officially(tmp_path: Path):
    for place in range(4):
        image(tmp_path / "gt" / "a" / f"{place:05d}.png", block(5), "palette 256")
        image(tmp_path / "pred" / "a" / f"{place:05d}.png", block(5), "palette 256")
    for outer in ("00000.png", "00003.png"):
        (tmp_path / "pred" / "a" / outer).unlink()
    assert score("davis", Request(tmp_path / "pred", tmp_path / "gt")).metrics["J&F"] == 100.0, "the outer frames are not looked at"
    image(tmp_path / "pred" / "a" / "00001.png", np.maximum(block(5), block(30, 255)), "palette 256")
    with pytest.raises(UsageError, match=r"00001.png: expected object ids up to 1.*got 255"):
        score("davis", Request(tmp_path / "pred", tmp_path / "gt"))
    (tmp_path / "pred" / "a" / "00001.png").unlink()
    with pytest.raises(UsageError, match=r"a.00001.png: expected the image of this frame, got 'nothing'"):
        score("davis", Request(tmp_path / "pred", tmp_path / "gt"))


def test_davis_object_that_was_never_predicted_has_no_overlap(tmp_path: Path):
    for place in range(4):
        image(tmp_path / "gt" / "a" / f"{place:05d}.png", block(5) + block(30, 2), "palette 256")
        image(tmp_path / "pred" / "a" / f"{place:05d}.png", block(5), "palette 256")
    assert score("davis", Request(tmp_path / "pred", tmp_path / "gt")).metrics["J&F"] == 50.0


@pytest.mark.parametrize("mode", ["palette 256", "palette 4", "grey", "bits", "RGB", "RGBA", "LA"])
def test_mevis_takes_every_pixel_that_is_not_black_in_any_form_of_image(tmp_path: Path, mode: str):
    expression = {"exp": "both", "obj_id": [0, 1], "anno_id": [7, 8]}
    meta = {"videos": {"a": {"vid_id": 0, "frames": ["00000", "00001", "00002"], "expressions": {"0": expression}}}}
    # two objects that touch in the first frame, one in the second, none in the third: null, or runs without a pixel
    masks = {"7": [runs(block(5)), runs(block(5)), None], "8": [runs(block(10)), None, runs(block(5) * 0)]}
    text(tmp_path / "gt" / "meta_expressions.json", json.dumps(meta)), text(tmp_path / "gt" / "mask_dict.json", json.dumps(masks))
    for place, labels in enumerate((np.maximum(block(5), block(10)), block(5), 0 * block(5))):
        image(tmp_path / "pred" / "a" / "0" / f"{place:05d}.png", labels, mode)
    assert score("mevis", Request(tmp_path / "pred", tmp_path / "gt")).metrics == {"J&F": 100.0, "J": 100.0, "F": 100.0}
    image(tmp_path / "pred" / "a" / "0" / "00002.png", block(5), mode)
    assert score("mevis", Request(tmp_path / "pred", tmp_path / "gt")).metrics["J"] == pytest.approx(200 / 3)
