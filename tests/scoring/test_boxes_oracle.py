"""Scores of boxes from files, against slow oracles: referring boxes, LaSOT by each of its three evaluators, and GOT-10k."""

from __future__ import annotations

import math
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scoring.samples import jsonl, text
from tpo_lab.errors import UsageError
from tpo_lab.metrics.tracking import LASOT_VARIANTS
from tpo_lab.scoring import Request, score

side = st.integers(0, 9)
true_box = st.tuples(side, side, st.integers(1, 8), st.integers(1, 8)).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
answer = st.none() | true_box | st.tuples(side, side, side, side).map(list)


def pixel_iou(one, other) -> Fraction:
    """By counting; a box that ends before it starts holds no pixel."""
    cells = [{(x, y) for x in range(each[0], each[2]) for y in range(each[1], each[3])} for each in (one, other)]
    return Fraction(len(cells[0] & cells[1]), len(cells[0] | cells[1]))


@given(
    rows=st.lists(st.tuples(true_box, answer, st.sampled_from(["val", "testA", "testB"])), min_size=1, max_size=10), strict=st.booleans()
)
@settings(max_examples=40)
def test_refcoco_equals_counting_pixels(rows, strict: bool):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # the same expression of the same image twice is two samples
        name = {"img_path": "a.jpg", "expression": "cat"}
        gt = jsonl(root / "g.jsonl", [{**name, "bbox": box, "dataset_name": split} for box, _, split in rows])
        pred = jsonl(root / "p.jsonl", [{**name, "pred_bbox": each} for _, each, _ in rows])
        report = score("refcoco", Request(pred, gt, variant="strict" if strict else ""))
    ious = [pixel_iou(each or (0, 0, 0, 0), box) for box, each, _ in rows]
    hits = [each > Fraction(1, 2) if strict else each >= Fraction(1, 2) for each in ious]
    assert report.metrics == pytest.approx({"Acc@0.5": 100 * np.mean(hits), "mIoU": 100 * float(sum(ious) / len(ious))})
    splits = {split for _, _, split in rows}
    by_set = {split: 100 * np.mean([hit for hit, row in zip(hits, rows, strict=True) if row[2] == split]) for split in splits}
    assert report.detail["Acc@0.5"] == pytest.approx(by_set)
    assert report.counts.unparsable == sum(each is None or each[2] < each[0] or each[3] < each[1] for _, each, _ in rows)


# -- tracking ----------------------------------------------------------------------------------------------------------------------------


def near(generator: np.random.Generator, box: list[float]) -> list[float]:
    """The box itself, one beside it, or one far away."""
    kind = generator.integers(4)
    if kind == 0:
        return list(box)
    if kind == 1:
        return [300.125, 200.0625, 5.5, 6.5]
    moved = np.array(box) + generator.normal(0, 3.1, 4)
    return exact([*moved[:2], *np.abs(moved[2:]).clip(0.7)])


def exact(values) -> list[float]:
    """Rounded to 64ths, which add up without rounding, so that equal boxes have IoU 1; yet hardly any IoU lies on a threshold."""
    return [round(float(each) * 64) / 64 for each in values]


def sequence(seed: int, *, variant: str) -> tuple[list, list, list]:
    """Predicted boxes, true ones and absent flags, with all that the evaluators treat each in its way."""
    generator = np.random.default_rng(seed)
    frames = int(generator.integers(2, 9))
    true = [exact([*generator.uniform(0.5, 60, 2), *generator.uniform(1, 20, 2)]) for _ in range(frames)]
    predicted = [near(generator, box) for box in true]
    absent = [0] + [int(each) for each in generator.random(frames - 1) < 0.2]
    for frame in range(1, frames):
        if generator.random() < 0.25:
            true[frame] = [[0.0, 0.0, 0.0, 0.0], [5.0, 6.0, 0.0, 4.0], [0.0, 7.0, 3.0, 4.0]][generator.integers(3)]
        if generator.random() < 0.2 and variant != "got10k":
            lost = [[math.nan] * 4, [1.0, math.nan, 3.0, 4.0], [4.0, 4.0, -2.0, 5.0], [4.0, 4.0, 0.0, 5.0]]
            predicted[frame] = lost[3 if variant == "pytracking" else generator.integers(4)]
        if generator.random() < 0.1 and variant == "got10k":
            true[frame] = [math.nan] * 4
    if seed % 11 == 0:
        absent = [1] * frames
    return predicted + [[1.0, 2.0, 3.0, 4.0]] * int(generator.integers(2)), true, absent


def overlap(one: list[float], other: list[float], pixel: int) -> float:
    """IoU of x, y, w, h; with `pixel` 1 a box ends on its last pixel."""
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    # the + 1 of the shared part undoes the - 1 of both ends
    shared = max(0.0, across - pixel + pixel) * max(0.0, down - pixel + pixel)
    union = one[2] * one[3] + other[2] * other[3] - shared
    return shared / union if union else 0.0


def frame_values(pred: list[float], true: list[float], is_absent: bool, variant: str) -> tuple[float, float, float] | None:
    """IoU, error in pixels, error in sizes; None for a frame that no numerator counts."""
    along = [(pred[axis] + pred[axis + 2] / 2) - (true[axis] + true[axis + 2] / 2) for axis in (0, 1)]
    if variant == "got10k":
        return overlap(pred, true, 0), math.hypot(*along), math.hypot(along[0] / max(1, true[2]), along[1] / max(1, true[3]))
    if variant == "matlab" and is_absent:
        return None
    if variant == "pytracking" and is_absent:
        return -1.0, math.inf, math.inf
    if variant == "matlab" and not all(each > 0 for each in true):
        return -1.0, -1.0, -1.0
    if true[2] <= 0 or true[3] <= 0:
        return -1.0, math.inf, -1.0
    return overlap(pred, true, 1), math.hypot(*along), math.hypot(along[0] / true[2], along[1] / true[3])


def slow_curves(predicted: list, true: list, absent: list, variant: str) -> list[list[float]]:
    predicted = [list(each) for each in predicted[: len(true)]]
    if variant != "got10k":
        for frame in range(1, len(true)):
            box = predicted[frame]
            if any(math.isnan(each) for each in box) or box[2] <= 0 or box[3] <= 0:
                predicted[frame] = predicted[frame - 1]
    predicted[0] = list(true[0])
    counted = [n for n in range(len(true)) if variant != "got10k" or not any(math.isnan(each) for each in true[n])]
    values = [frame_values(predicted[n], true[n], bool(absent[n]), variant) for n in counted]
    values = [each for each in values if each is not None]
    success = [sum(iou > k / 20 + 1e-12 for iou, _, _ in values) / len(counted) for k in range(21)]
    precision = [sum(error <= k for _, error, _ in values) / len(counted) for k in range(51)]
    norm = [sum(error <= k / 100 for _, _, error in values) / len(counted) for k in range(51)]
    return [success, precision, norm]


def over_videos(curves: list[list[float]], variant: str) -> list[float]:
    kept = [each for each in curves if variant != "matlab" or any(each)]
    return [sum(column) / len(kept) for column in zip(*kept, strict=True)] if kept else [0.0] * len(curves[0])


@pytest.mark.parametrize("variant", LASOT_VARIANTS)
@given(seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=4, unique=True))
@settings(max_examples=40)
def test_lasot_equals_plain_loops(variant: str, seeds: list[int]):
    videos = {f"cat-{n}": sequence(seed, variant=variant) for n, seed in enumerate(seeds)}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for place, (name, (predicted, true, absent)) in enumerate(videos.items()):
            between = (",", "\t", " ")[place % 3]
            text(root / "pred" / f"{name}.txt", "".join(between.join(map(repr, box)) + "\n" for box in predicted))
            text(root / "annos" / f"{name}.txt", "".join(",".join(map(repr, box)) + "\n" for box in true))
            text(root / "annos" / "absent" / f"{name}.txt", "".join(f"{each}\n" for each in absent))
        report = score("lasot", Request(root / "pred", root / "annos", variant=variant))
    curves = [slow_curves(*video, variant) for video in videos.values()]
    success, precision, norm = (over_videos([each[kind] for each in curves], variant) for kind in range(3))
    expected = {
        "Success": sum(success) / 21,
        "P": precision[20],
        "P_norm": sum(norm) / 51 if variant == "got10k" else norm[20],
        "SR@0.5": success[10],
        "SR@0.75": success[15],
    }
    assert report.metrics == pytest.approx({name: 100 * value for name, value in expected.items()}, abs=1e-9)


def test_lasot_root_with_flags_in_one_line_equals_the_toolkits_folder(tmp_path: Path):
    predicted, true, _ = sequence(3, variant="matlab")
    occluded, out = [n % 2 for n in range(len(true))], [int(n == 2) for n in range(len(true))]
    boxes = "".join(",".join(map(repr, box)) + "\n" for box in true)
    text(tmp_path / "pred" / "cat-1.txt", "".join(",".join(map(repr, box)) + "\n" for box in predicted))
    text(tmp_path / "root" / "cat" / "cat-1" / "groundtruth.txt", boxes), text(tmp_path / "annos" / "cat-1.txt", boxes)
    for name, flags in (("full_occlusion", occluded), ("out_of_view", out)):
        text(tmp_path / "root" / "cat" / "cat-1" / f"{name}.txt", ",".join(map(str, flags)))
    either = [int(one or other) for one, other in zip(occluded, out, strict=True)]
    text(tmp_path / "annos" / "absent" / "cat-1.txt", "".join(f"{each}\n" for each in either))
    for variant in ("matlab", "got10k"):
        of = [score("lasot", Request(tmp_path / "pred", tmp_path / gt, variant=variant)).metrics for gt in ("root", "annos")]
        assert of[0] == of[1]


def test_lasot_variants_on_one_video_by_hand(tmp_path: Path):
    """Five frames: the given one; an exact box; half the box; an absent frame; a visible one without a true size."""
    true = ["10,10,10,10", "10,10,10,10", "10,10,10,10", "10,10,10,10", "10,10,0,10"]
    pred = ["90,90,5,5", "10,10,10,10", "10,10,5,10", "10,10,10,10", "10,10,10,10"]
    text(tmp_path / "annos" / "v.txt", "\n".join(true)), text(tmp_path / "pred" / "v.txt", "\n".join(pred))
    text(tmp_path / "annos" / "absent" / "v.txt", "0\n0\n0\n1\n0\n")
    found = {v: score("lasot", Request(tmp_path / "pred", tmp_path / "annos", variant=v)).metrics for v in LASOT_VARIANTS}
    # two exact frames of five meet the 20 thresholds below 1, the half box the 10 below 0.5 (it is not above 0.5)
    for variant in ("matlab", "pytracking"):
        assert found[variant]["Success"] == pytest.approx(100 * (2 * 20 + 10) / 5 / 21)
        assert (found[variant]["SR@0.5"], found[variant]["SR@0.75"]) == pytest.approx((40, 40))
    # the frame without a size passes MATLAB's errors, and pytracking's normalised one only
    assert (found["matlab"]["P"], found["pytracking"]["P"]) == pytest.approx((80, 60))
    # the half box is 0.25 of a width aside: more than 0.20
    assert (found["matlab"]["P_norm"], found["pytracking"]["P_norm"]) == pytest.approx((60, 60))
    # the absent frame counts; the frame without a size has IoU 0 and error 5 px, which is 5 times max(1, 0)
    assert found["got10k"]["Success"] == pytest.approx(100 * (3 * 20 + 10) / 5 / 21)
    assert found["got10k"]["P"] == pytest.approx(100)
    assert found["got10k"]["P_norm"] == pytest.approx(100 * (3 * 51 + 26) / 5 / 51)


# -- GOT-10k -----------------------------------------------------------------------------------------------------------------------------


def clipped(box: list[float], width: float, height: float) -> list[float]:
    x, y = min(max(box[0], 0), width), min(max(box[1], 0), height)
    return [x, y, min(max(box[2], 0), width - x), min(max(box[3], 0), height - y)]


@given(seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=3, unique=True), runs=st.integers(1, 3))
@settings(max_examples=30)
def test_got10k_equals_plain_loops(seeds: list[int], runs: int):
    ious: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for seed in seeds:
            generator, name = np.random.default_rng(seed), f"GOT-10k_Val_{seed:06d}"
            frames, width, height = int(generator.integers(3, 8)), 60.0, 45.0
            true = [exact([*generator.uniform(-8, 50, 2), *generator.uniform(1, 30, 2)]) for _ in range(frames)]
            cover = [8, 8, *generator.integers(0, 3, frames - 2).tolist()]
            text(root / "gt" / name / "groundtruth.txt", "".join(",".join(map(repr, box)) + "\n" for box in true))
            text(root / "gt" / name / "cover.label", "".join(f"{each}\n" for each in cover))
            text(root / "gt" / name / "meta_info.ini", f"[METAINFO]\nurl: x\nresolution: ({int(width)}, {int(height)})\n")
            for run in range(runs):
                predicted = [near(generator, box) for box in true]
                lines = "".join(",".join(map(repr, box)) + "\n" for box in predicted)
                text(root / "pred" / name / f"{name}_{run + 1:03d}.txt", lines)
                text(root / "pred" / name / f"{name}_time.txt", "0.1\n")
                for frame in range(1, frames):
                    if cover[frame] > 0:
                        one, other = clipped(predicted[frame], width, height), clipped(true[frame], width, height)
                        ious.append(overlap(one, other, 0))
        report = score("got10k", Request(root / "pred", root / "gt"))
    expected = {"AO": np.mean(ious), "SR@0.5": np.mean([each > 0.5 for each in ious]), "SR@0.75": np.mean([each > 0.75 for each in ious])}
    assert report.metrics == pytest.approx({name: 100 * value for name, value in expected.items()}, abs=1e-9)


def test_got10k_hit_is_above_and_not_at_the_threshold(tmp_path: Path):
    text(tmp_path / "gt" / "v" / "groundtruth.txt", "0,0,8,8\n" * 4), text(tmp_path / "gt" / "v" / "cover.label", "8\n" * 4)
    text(tmp_path / "gt" / "v" / "meta_info.ini", "[METAINFO]\nresolution: (64, 48)\n")
    text(tmp_path / "pred" / "v.txt", "0,0,8,8\n0,0,4,8\n0,0,6,8\n0,0,8,8\n")
    metrics = score("got10k", Request(tmp_path / "pred", tmp_path / "gt")).metrics
    assert metrics == pytest.approx({"AO": 75.0, "SR@0.5": 200 / 3, "SR@0.75": 100 / 3})


def test_got10k_hidden_truth_is_left_to_its_server(tmp_path: Path):
    text(tmp_path / "gt" / "v" / "groundtruth.txt", "0,0,8,8\n"), text(tmp_path / "pred" / "v.txt", "0,0,8,8\n" * 4)
    with pytest.raises(UsageError, match=r"groundtruth.txt: expected a box per frame, got 1. The test set's boxes are hidden"):
        score("got10k", Request(tmp_path / "pred", tmp_path / "gt"))
