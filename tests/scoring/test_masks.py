"""Scores of masks on disk: each layout by hand, ids and frames that do not fit, broken files, and several processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tpo_lab.errors import UsageError
from tpo_lab.rle import decode_rle
from tpo_lab.scoring import Report, Request, davis, score
from tpo_lab.scoring.masks import read_labels

SIZE = (30, 50)


def block(top: int, left: int, height: int, width: int, value: int = 1) -> np.ndarray:
    made = np.zeros(SIZE, dtype=np.uint8)
    made[top : top + height, left : left + width] = value
    return made


NOTHING = block(0, 0, 0, 0)
LEFT, HALF, FAR = block(5, 5, 10, 10), block(5, 5, 10, 5), block(5, 35, 10, 10)
TWO = block(5, 30, 10, 10, value=2)


def png(path: Path, labels: np.ndarray, *, palette: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    if palette:
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [64] * 759)
    image.save(path)
    return path


def video(folder: Path, frames: list[np.ndarray], *, step: int = 1) -> Path:
    for place, labels in enumerate(frames):
        png(folder / f"{place * step:05d}.png", labels)
    return folder


def runs(mask: np.ndarray) -> list[int]:
    """Run lengths column by column, one pixel after the other."""
    found, last = [0], False
    for pixel in np.asarray(mask, dtype=bool).T.ravel():
        if pixel != last:
            found.append(0)
        found[-1] += 1
        last = pixel
    return found


def letters(counts: list[int]) -> str:
    """COCO's text of run lengths: five bits a letter, low ones first, from the fourth on the difference to two places before."""
    text = ""
    for place, count in enumerate(counts):
        left = count - (counts[place - 2] if place > 2 else 0)
        while True:
            bits, left = left & 31, left >> 5
            more = not (left == -1 if bits & 16 else left == 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


def rle(mask: np.ndarray) -> dict:
    return {"size": list(mask.shape), "counts": letters(runs(mask))}


def asked(benchmark: str, root: Path, **options) -> Report:
    return score(benchmark, Request(root / "pred", root / "gt", **options))


def j_and_f(report: Report) -> tuple[float, float]:
    return report.metrics["J"], report.metrics["F"]


# -- run lengths -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_come_back_as_the_mask(seed: int):
    generator = np.random.default_rng(seed)
    mask = np.repeat(generator.random((3 + seed, 41)) < 0.5, 1 + 20 * seed, axis=0)
    assert (decode_rle("m", rle(mask)) == mask).all()
    assert (decode_rle("m", {"size": list(mask.shape), "counts": runs(mask)}) == mask).all()
    assert (decode_rle("m", {"size": list(mask.shape), "counts": letters(runs(mask)).encode()}) == mask).all()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"size": [3, 5]}, r"m: expected run lengths with 'size' and 'counts', got \['size'\]"),
        ("text", r"m: expected run lengths .*got 'text'"),
        ({"size": [3, 0], "counts": "?"}, r"m, size: expected a height and a width in pixels, got \[3, 0\]"),
        ({"size": [3, 5.0], "counts": "?"}, r"m, size: .*got \[3, 5.0\]"),
        ({"size": [3, 5], "counts": [14]}, r"m, counts: expected runs that fill 3 x 5 = 15 pixels, got 14"),
        ({"size": [3, 5], "counts": [20, -5]}, r"fill 3 x 5 = 15 pixels"),
        ({"size": [3, 5], "counts": [15.0]}, r"m, counts: expected a text or a list of whole numbers, got \[15.0\]"),
        ({"size": [3, 5], "counts": "o"}, r"m, counts: expected COCO's run lengths, got b'o'"),
        ({"size": [3, 5], "counts": ""}, r"m, counts: expected COCO's run lengths, got b''"),
        ({"size": [3, 5], "counts": "é"}, r"m, counts: expected COCO's run lengths"),
        ({"size": [3, 5], "counts": "o" * 40 + "0"}, r"m, counts: expected COCO's run lengths"),
    ],
)
def test_broken_run_lengths_are_named(value, message: str):
    with pytest.raises(UsageError, match=message):
        decode_rle("m", value)


# -- DAVIS -------------------------------------------------------------------------------------------------------------------------------


def test_davis_leaves_first_and_last_frame_out(tmp_path: Path):
    video(tmp_path / "gt" / "a", [LEFT] * 5), video(tmp_path / "pred" / "a", [FAR, LEFT, HALF, LEFT, FAR])
    report = asked("davis", tmp_path)
    # three frames: the first quarter is frames 1 and 2, the last one frame 3
    assert report.metrics["J"] == pytest.approx(100 * (1 + 0.5 + 1) / 3)
    assert (report.metrics["J-Recall"], report.metrics["J-Decay"]) == (pytest.approx(100 * 2 / 3), pytest.approx(-25.0))
    assert report.metrics["J&F"] == pytest.approx((report.metrics["J"] + report.metrics["F"]) / 2)
    assert list(report.metrics) == ["J&F", "J", "F", "J-Recall", "J-Decay", "F-Recall", "F-Decay"]
    assert report.options["frames"] == "without first and last"


def test_davis_weighs_objects_and_not_sequences(tmp_path: Path):
    both = np.maximum(LEFT, TWO)
    video(tmp_path / "gt" / "a", [both] * 4), video(tmp_path / "gt" / "b", [LEFT] * 11)
    video(tmp_path / "pred" / "a", [both] * 4), video(tmp_path / "pred" / "b", [NOTHING] * 11)
    report = asked("davis", tmp_path)
    assert j_and_f(report) == (pytest.approx(200 / 3), pytest.approx(200 / 3))
    assert report.detail["objects"] == {"a/1": {"J": 100.0, "F": 100.0}, "a/2": {"J": 100.0, "F": 100.0}, "b/1": {"J": 0.0, "F": 0.0}}


def test_davis_object_that_neither_side_has_in_a_frame_is_right(tmp_path: Path):
    both = np.maximum(LEFT, TWO)
    video(tmp_path / "gt" / "a", [both, LEFT, both, LEFT]), video(tmp_path / "pred" / "a", [both, LEFT, LEFT, both])
    assert asked("davis", tmp_path).detail["objects"]["a/2"] == {"J": 50.0, "F": 50.0}


def test_davis_void_is_background_and_late_objects_do_not_count(tmp_path: Path):
    void = np.where(block(20, 20, 5, 20), 255, LEFT).astype(np.uint8)
    late = np.maximum(LEFT, TWO)
    video(tmp_path / "gt" / "a", [void, void, late, void]), video(tmp_path / "pred" / "a", [LEFT, LEFT, LEFT, LEFT])
    assert j_and_f(asked("davis", tmp_path)) == (100.0, 100.0)
    over_void = np.maximum(LEFT, block(20, 20, 5, 20))
    video(tmp_path / "pred" / "a", [LEFT, over_void, LEFT, LEFT])
    assert asked("davis", tmp_path).metrics["J"] == 75.0  # 100 of 200 pixels in one of two frames


def test_davis_unsupervised_assigns_proposals_in_all_frames_and_ignores_void(tmp_path: Path):
    both = np.maximum(LEFT, TWO)
    void = np.where(block(20, 20, 5, 20), 255, both).astype(np.uint8)
    swapped = np.maximum(3 * LEFT, TWO // 2)
    in_void = np.maximum(swapped, block(20, 20, 5, 20, value=3))
    video(tmp_path / "gt" / "a", [void, both]), video(tmp_path / "pred" / "a", [in_void, swapped])
    assert set(asked("davis", tmp_path, variant="unsupervised").metrics.values()) == {100.0, 0.0}
    # fewer proposals than objects: the rest is empty
    video(tmp_path / "pred" / "a", [LEFT, LEFT])
    assert j_and_f(asked("davis", tmp_path, variant="unsupervised")) == (50.0, 50.0)
    video(tmp_path / "pred" / "a", [21 * LEFT, LEFT])
    with pytest.raises(UsageError, match=r"00000.png: expected object ids up to 20, the largest number of proposals, got 21"):
        asked("davis", tmp_path, variant="unsupervised")


def test_davis_decodes_each_predicted_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    video(tmp_path / "gt" / "a", [LEFT] * 3), video(tmp_path / "pred" / "a", [LEFT] * 3)
    opened: list[Path] = []
    monkeypatch.setattr(davis, "read_labels", lambda path, size=None: (opened.append(path), read_labels(path, size))[1])
    for variant, frames in (("semi-supervised", 1), ("unsupervised", 3)):
        opened.clear()
        assert asked("davis", tmp_path, variant=variant).metrics["J"] == 100.0
        assert len([path for path in opened if "pred" in path.parts]) == frames


def test_davis_root_scores_the_validation_set(tmp_path: Path):
    for name in ("a", "train-1"):
        video(tmp_path / "gt" / "Annotations" / "480p" / name, [LEFT] * 3)
    listed = tmp_path / "gt" / "ImageSets" / "2017" / "val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("a\n")
    video(tmp_path / "pred" / "a", [LEFT] * 3)
    assert asked("davis", tmp_path).counts.ground_truth == 1
    listed.write_bytes(b"\xef\xbb\xbfa\n")
    assert asked("davis", tmp_path).counts.ground_truth == 1
    inside = tmp_path / "gt" / "Annotations" / "480p"
    assert score("davis", Request(tmp_path / "pred", inside)).metrics["J&F"] == 100.0


def test_davis_decay_is_undefined_above_256_frames_with_and_without_intervals(tmp_path: Path):
    video(tmp_path / "gt" / "a", [LEFT] * 259), video(tmp_path / "pred" / "a", [LEFT] * 259)
    video(tmp_path / "gt" / "b", [LEFT] * 3), video(tmp_path / "pred" / "b", [LEFT] * 3)
    report = asked("davis", tmp_path, bootstrap=5)
    assert np.isnan(report.metrics["J-Decay"]) and report.metrics["J"] == 100.0
    assert report.detail["intervals"]["J"] == [100.0, 100.0] and "J-Decay" not in report.detail["intervals"]


def test_davis_faults_are_named(tmp_path: Path):
    video(tmp_path / "gt" / "a", [LEFT] * 4), video(tmp_path / "pred" / "a", [LEFT] * 4)
    fault = tmp_path / "pred" / "a" / "00001.png"
    png(fault, np.maximum(LEFT, TWO))
    with pytest.raises(UsageError, match=r"pred.a.00001.png: expected object ids up to 1, the number of objects .*, got 2"):
        asked("davis", tmp_path)
    png(fault, LEFT.T.copy())
    with pytest.raises(UsageError, match=r"00001.png: expected the size of the true mask, 30 x 50, got '50 x 30'"):
        asked("davis", tmp_path)
    Image.fromarray(LEFT).convert("RGB").save(fault)
    with pytest.raises(UsageError, match=r"00001.png: expected a palette or grey image .*, got 'values \(30, 50, 3\)'"):
        asked("davis", tmp_path)
    whole = png(fault, LEFT).read_bytes()
    for broken in (b"", b"no image", whole[:60], whole[:-30]):
        fault.write_bytes(broken)
        with pytest.raises(UsageError, match=r"00001.png: expected a PNG image"):
            asked("davis", tmp_path)
    fault.unlink()
    with pytest.raises(UsageError, match=r"00001.png: expected the image of this frame, got 'nothing'"):
        asked("davis", tmp_path, allow_missing=True)
    (tmp_path / "gt" / "a" / "00003.png").unlink(), (tmp_path / "gt" / "a" / "00002.png").unlink()
    with pytest.raises(UsageError, match=r"gt.a: expected at least 3 frames.*got 2"):
        asked("davis", tmp_path)


@pytest.mark.parametrize("benchmark", ["davis", "sav"])
def test_missing_and_extra_videos(tmp_path: Path, benchmark: str):
    for name in ("a", "b"):
        video(tmp_path / "gt" / name, [LEFT] * 3)
    for name in ("b", "c"):
        video(tmp_path / "pred" / name, [LEFT] * 3)
    with pytest.raises(UsageError, match=r"1 missing: a.*--allow-missing"):
        asked(benchmark, tmp_path)
    report = asked(benchmark, tmp_path, allow_missing=True)
    assert report.metrics["J&F"] == 100.0 and (report.counts.missing, report.counts.extra) == (1, 1)


def test_ground_truth_without_an_object_or_a_frame(tmp_path: Path):
    video(tmp_path / "gt" / "a", [255 * LEFT] * 3), video(tmp_path / "pred" / "a", [NOTHING] * 3)
    with pytest.raises(UsageError, match=r"expected an object in the first frame of a sequence, got 'none'. 255 stands for void"):
        asked("davis", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty: expected a folder of PNGs per sequence"):
        score("davis", Request(tmp_path / "pred", tmp_path / "empty"))
    with pytest.raises(UsageError, match=r"00000.png: expected a folder, got 'a file'"):
        score("davis", Request(tmp_path / "pred" / "a" / "00000.png", tmp_path / "gt"))


# -- SA-V --------------------------------------------------------------------------------------------------------------------------------


def test_sav_scores_object_folders_every_fourth_frame(tmp_path: Path):
    gt = tmp_path / "gt" / "Annotations_6fps" / "v"
    video(gt / "000", [LEFT] * 4, step=4), video(gt / "001", [block(8, 8, 9, 9)] * 4, step=4)
    video(tmp_path / "pred" / "v" / "000", [255 * LEFT] * 13), video(tmp_path / "pred" / "v" / "001", [NOTHING] * 13)
    report = asked("sav", tmp_path)
    assert j_and_f(report) == (50.0, 50.0) and report.detail["objects"]["v/000"]["J"] == 100.0


def test_sav_counts_an_object_from_where_either_side_sees_it(tmp_path: Path):
    true = [LEFT, LEFT, LEFT, np.maximum(LEFT, TWO), LEFT]
    video(tmp_path / "gt" / "v", true)
    # object 2: unseen in frame 1, predicted too early in frame 2, right in frame 3; object 3 is in no true frame
    video(tmp_path / "pred" / "v", [LEFT, LEFT, np.maximum(LEFT, TWO), np.maximum(3 * (block(20, 5, 5, 5)), true[3]), LEFT])
    report = asked("sav", tmp_path)
    assert report.detail["objects"] == {"v/1": {"J": 100.0, "F": 100.0}, "v/2": {"J": 50.0, "F": 50.0}}
    video(tmp_path / "pred" / "v", true)
    # with all frames, object 2 is absent on both sides in the last one: right
    assert j_and_f(asked("sav", tmp_path, variant="all-frames")) == (100.0, 100.0)


def test_sav_knows_no_void_in_palette_images(tmp_path: Path):
    void = np.where(block(20, 20, 5, 20), 255, LEFT).astype(np.uint8)
    video(tmp_path / "gt" / "v", [LEFT, void, LEFT]), video(tmp_path / "pred" / "v", [LEFT] * 3)
    assert {name: each["J"] for name, each in asked("sav", tmp_path).detail["objects"].items()} == {"v/1": 100.0, "v/255": 0.0}


def test_sav_takes_no_notice_of_an_object_that_the_truth_never_shows(tmp_path: Path):
    for name, mask in (("000", LEFT), ("001", NOTHING)):
        video(tmp_path / "gt" / "v" / name, [mask] * 3), video(tmp_path / "pred" / "v" / name, [LEFT] * 3)
    report = asked("sav", tmp_path)
    assert report.metrics["J"] == 100.0 and report.detail["left_out"] == ["v/001"]


def test_sav_faults_are_named(tmp_path: Path):
    video(tmp_path / "gt" / "v" / "000", [LEFT] * 3), video(tmp_path / "pred" / "v" / "000", [np.maximum(LEFT, TWO)] * 3)
    with pytest.raises(UsageError, match=r"pred.v.000.00001.png: expected one object and background.*got \[0, 1, 2\]"):
        asked("sav", tmp_path)
    (tmp_path / "pred" / "v" / "000").rename(tmp_path / "pred" / "v" / "007")
    with pytest.raises(UsageError, match=r"pred.v.000.00001.png: expected the image of this frame, got 'nothing'"):
        asked("sav", tmp_path)


# -- expressions -------------------------------------------------------------------------------------------------------------------------

TWO_MASK = (TWO > 0).astype(np.uint8)


def mevis(root: Path) -> dict:
    """Two videos; expression a/1 joins two objects, the second of which is hidden in frame 1."""
    expressions = {"0": {"exp": "left", "anno_id": [7]}, "1": {"exp": "both", "anno_id": [7, 8]}}
    meta = {"videos": {"a": {"frames": ["00000", "00005"], "expressions": expressions}}}
    meta["videos"]["b"] = {"frames": ["00000"], "expressions": {"0": {"exp": "right", "anno_id": [9]}}}
    masks = {"7": [rle(LEFT), rle(LEFT)], "8": [rle(TWO_MASK), None], "9": [None]}
    (root / "gt").mkdir(parents=True, exist_ok=True)
    (root / "gt" / "meta_expressions.json").write_text(json.dumps(meta))
    (root / "gt" / "mask_dict.json").write_text(json.dumps(masks))
    video(root / "pred" / "a" / "0", [LEFT] * 2, step=5), video(root / "pred" / "b" / "0", [NOTHING])
    video(root / "pred" / "a" / "1", [LEFT + TWO_MASK, LEFT], step=5)
    return masks


def test_mevis_joins_objects_in_all_frames(tmp_path: Path):
    mevis(tmp_path)
    assert asked("mevis", tmp_path).metrics == {"J&F": 100.0, "J": 100.0, "F": 100.0}
    png(tmp_path / "pred" / "a" / "1" / "00000.png", 255 * LEFT, palette=False)
    png(tmp_path / "pred" / "a" / "1" / "00005.png", 2 * LEFT)  # any colour that is not black
    png(tmp_path / "pred" / "b" / "0" / "00000.png", FAR)
    report = asked("mevis", tmp_path)
    assert report.detail["expressions"]["a/1"]["J"] == 75.0 and report.detail["expressions"]["b/0"] == {"J": 0.0, "F": 0.0}
    assert report.metrics["J"] == pytest.approx(175 / 3)


def test_mevis_video_without_a_folder_scores_0_if_allowed(tmp_path: Path):
    mevis(tmp_path)
    (tmp_path / "pred" / "b").rename(tmp_path / "b")
    with pytest.raises(UsageError, match="every expression of gt, got 1 missing: b/0"):
        asked("mevis", tmp_path)
    report = asked("mevis", tmp_path, allow_missing=True)
    assert j_and_f(report) == (pytest.approx(200 / 3), pytest.approx(200 / 3)) and report.counts.missing == 1
    assert report.options["missing video"] == "J = F = 0"
    (tmp_path / "pred" / "a" / "1").rename(tmp_path / "1")
    with pytest.raises(UsageError, match=r"pred.a.1: expected a folder of masks, as its video has a folder, got 'nothing'"):
        asked("mevis", tmp_path, allow_missing=True)


def test_mevis_faults_are_named(tmp_path: Path):
    masks = mevis(tmp_path)
    path = tmp_path / "gt" / "mask_dict.json"
    for broken, message in [
        ({**masks, "8": [rle(TWO_MASK)]}, r"mask_dict.json, 8: expected a mask or null for each of 2 frames, got 1"),
        ({**masks, "8": [rle(TWO_MASK.T), None]}, r"a.1.00000.png: expected the size of the true mask, 50 x 30, got '30 x 50'"),
        ({**masks, "8": [{"size": [30, 50], "counts": [3]}, None]}, r"mask_dict.json, 8\[0\], counts: expected runs that fill 30 x 50"),
        ({"7": masks["7"], "9": masks["9"]}, r"mask_dict.json: expected the field '8', got \['7', '9'\]"),
    ]:
        path.write_text(json.dumps(broken))
        with pytest.raises(UsageError, match=message):
            asked("mevis", tmp_path)
    meta = {"videos": {"a": {"frames": ["00000"], "expressions": {"0": {"exp": "x"}}}}}
    (tmp_path / "gt" / "meta_expressions.json").write_text(json.dumps(meta))
    with pytest.raises(UsageError, match=r"a, 0, anno_id: expected a list with at least one entry, got None. Where the objects are hidden"):
        asked("mevis", tmp_path)


def ref_youtube_vos(root: Path, meta: Path, annotations: Path) -> None:
    expressions = {"0": {"exp": "left", "obj_id": "1"}, "1": {"exp": "right", "obj_id": 2}}
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"videos": {"a": {"frames": ["00000", "00005", "00010"], "expressions": expressions}}}))
    video(annotations / "a", [LEFT, np.maximum(LEFT, TWO), LEFT], step=5)
    video(root / "pred" / "a" / "0", [255 * LEFT] * 3, step=5), video(root / "pred" / "a" / "1", [NOTHING] * 3, step=5)


def test_ref_youtube_vos_scores_all_frames(tmp_path: Path):
    ref_youtube_vos(tmp_path, tmp_path / "gt" / "meta_expressions.json", tmp_path / "gt" / "Annotations")
    report = asked("ref-youtube-vos", tmp_path)
    assert j_and_f(report) == (pytest.approx(100 * (1 + 2 / 3) / 2), pytest.approx(100 * (1 + 2 / 3) / 2))
    (tmp_path / "gt" / "meta_expressions.json").write_text('{"videos": {"a": {"frames": ["00000"], "expressions": {"0": {"exp": "x"}}}}}')
    with pytest.raises(UsageError, match=r"a, 0, obj_id: expected the number of an object, got None. Where the objects are hidden"):
        asked("ref-youtube-vos", tmp_path)
    (tmp_path / "gt" / "meta_expressions.json").unlink()
    with pytest.raises(UsageError, match=r"gt: expected meta_expressions.json and a folder Annotations, got \['Annotations'\]"):
        asked("ref-youtube-vos", tmp_path)


def test_ref_youtube_vos_root_without_the_videos_of_the_test(tmp_path: Path):
    root = tmp_path / "gt"
    ref_youtube_vos(tmp_path, root / "meta_expressions" / "valid" / "meta_expressions.json", root / "valid" / "Annotations")
    (tmp_path / "pred").rename(tmp_path / "submission")
    (tmp_path / "pred").mkdir()
    (tmp_path / "submission").rename(tmp_path / "pred" / "Annotations")
    assert asked("ref-youtube-vos", tmp_path).counts.ground_truth == 2
    valid = root / "meta_expressions" / "valid" / "meta_expressions.json"
    videos = json.loads(valid.read_text())["videos"]
    valid.write_text(json.dumps({"videos": {**videos, "t": videos["a"]}}))
    hidden = root / "meta_expressions" / "test" / "meta_expressions.json"
    hidden.parent.mkdir()
    hidden.write_text(json.dumps({"videos": {"t": {}}}))
    assert asked("ref-youtube-vos", tmp_path).counts.ground_truth == 2


# -- referring segmentation of images ----------------------------------------------------------------------------------------------------


def records(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_refseg_of_records(tmp_path: Path):
    truth = [{"id": n, "segmentation": rle(mask)} for n, mask in enumerate((LEFT, LEFT, NOTHING))] + [{"id": 3, "mask": None}]
    pred = [{"id": n, "pred_mask": each} for n, each in enumerate((rle(HALF), None, rle(NOTHING), None))]
    report = score("refseg", Request(records(tmp_path / "p.jsonl", pred[::-1]), records(tmp_path / "g.jsonl", truth)))
    assert report.metrics["gIoU"] == pytest.approx(100 * (50 / 100.00001 + 0 + 1 + 1) / 4, abs=1e-9)
    assert report.metrics["cIoU"] == pytest.approx(25.0) and report.counts.unparsable == 2


def test_refseg_ignores_void_of_records_and_images(tmp_path: Path):
    right_half = LEFT - HALF
    pred = records(tmp_path / "p.jsonl", [{"id": "x", "rle": rle(HALF)}])
    row = {"id": "x", "segmentation": rle(LEFT), "ignore": rle(right_half)}
    assert score("refseg", Request(pred, records(tmp_path / "g.jsonl", [row]))).metrics["cIoU"] == pytest.approx(100)
    png(tmp_path / "gt" / "x.png", np.where(right_half, 255, HALF).astype(np.uint8), palette=False)
    assert score("refseg", Request(pred, tmp_path / "gt")).metrics["gIoU"] == pytest.approx(100, abs=1e-4)
    assert score("refseg", Request(pred, tmp_path / "gt", variant="binary")).metrics["gIoU"] == pytest.approx(50, abs=1e-4)
    png(tmp_path / "gt" / "x.png", 255 * LEFT, palette=False)
    with pytest.raises(UsageError, match=r"x.png: expected 0, 1 for the object, and 255 .*got \[0, 255\]. --variant binary"):
        score("refseg", Request(pred, tmp_path / "gt"))


def test_refseg_polygons_are_filled_as_coco_does(tmp_path: Path):
    square = {"id": 1, "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]], "height": SIZE[0], "width": SIZE[1]}
    pred = records(tmp_path / "p.jsonl", [{"id": 1, "rle": rle(LEFT)}])
    assert score("refseg", Request(pred, records(tmp_path / "g.jsonl", [square]))).metrics["cIoU"] == pytest.approx(100)
    with pytest.raises(UsageError, match=r"line 1, polygon \[0\]: expected x and y of three points or more, got \[5, 5, 15\]"):
        score("refseg", Request(pred, records(tmp_path / "g.jsonl", [{**square, "segmentation": [[5, 5, 15]]}])))


def test_refseg_faults_are_named(tmp_path: Path):
    gt = records(tmp_path / "g.jsonl", [{"id": 1, "mask": rle(LEFT)}])
    for row, message in [
        ({"id": 1, "rle": rle(LEFT.T)}, r"p.jsonl, line 1, pred: expected a mask of the size of the true one \(30, 50\), got \(50, 30\)"),
        ({"id": 1, "rle": {"size": [30, 50], "counts": "?"}}, r"p.jsonl, line 1, counts: expected runs that fill 30 x 50"),
        ({"id": 1}, r"p.jsonl, line 1: expected the field 'pred_mask', got \['id'\]"),
        ({"id": 2, "rle": rle(LEFT)}, r"1 missing: 1"),
    ]:
        with pytest.raises(UsageError, match=message):
            score("refseg", Request(records(tmp_path / "p.jsonl", [row]), gt))


# -- processes and real samples ----------------------------------------------------------------------------------------------------------


def test_two_processes_give_the_same_in_the_same_order_and_faults_come_through(tmp_path: Path):
    mevis(tmp_path)
    generator = np.random.default_rng(0)
    for path in sorted((tmp_path / "pred").rglob("*.png")):
        png(path, (generator.random(SIZE) < 0.5).astype(np.uint8))
    heard: list[tuple[int, int]] = []
    one = asked("mevis", tmp_path).to_dict()
    two = asked("mevis", tmp_path, workers=2, progress=lambda done, total: heard.append((done, total))).to_dict()
    assert two["options"].pop("workers") == 2 and one["options"].pop("workers") == 1
    assert two == one and json.dumps(two) == json.dumps(one) and heard == [(1, 3), (2, 3), (3, 3)]
    (tmp_path / "pred" / "a" / "1" / "00005.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"a.1.00005.png: expected a PNG image"):
        asked("mevis", tmp_path, workers=2)


def test_real_run_lengths_are_read_as_pycocotools_reads_them(real: Path):
    from pycocotools import mask as coco

    masks = json.loads((real / "evaluation" / "mevis" / "mask_dict.json").read_text())
    rows = json.loads((real / "coco_results" / "instances_val2014_fakesegm100_results.json").read_text())
    found = [runs for frames in masks.values() for runs in frames[::6] if runs] + [row["segmentation"] for row in rows[:30]]
    assert len(found) > 40
    for each in found:
        assert (decode_rle("m", each) == coco.decode(each)).all()


def test_true_masks_of_a_real_sequence_are_perfect(tmp_path: Path, real: Path):
    for side in ("gt", "pred"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "pigs").symlink_to(real / "evaluation" / "davis_jf" / "gt" / "pigs")
    for benchmark in ("davis", "sav"):
        assert asked(benchmark, tmp_path).metrics["J&F"] == 100.0
