"""LaSOT and GOT-10k: boxes by hand in each convention, rules, exact scores of the truth, lost objects, broken files, the real sample."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tpo_lab.datasets.formats import format_named
from tpo_lab.errors import UsageError
from tpo_lab.sample import Targets, TrackTarget
from tpo_lab.scoring import Request, score

ROUNDS = 1000


def answered(sample, times_sec, xyxy):
    target = TrackTarget.model_validate({"times_sec": times_sec, "xyxy": xyxy})
    return sample.model_copy(update={"targets": Targets(track=target)})


def unanswered(sample):
    return sample.model_copy(update={"targets": Targets()})


def written(form: str, samples, folder: Path) -> dict[str, list[str]]:
    assert format_named(form).write(samples, folder) == len(samples)
    return {str(file.relative_to(folder)): file.read_text().splitlines() for file in sorted(folder.rglob("*.txt"))}


# -- LaSOT -------------------------------------------------------------------------------------------------------------------------------


def test_lasot_pixels_from_1_become_corners_from_0(take, tiny, same_from_file):
    samples, dropped, reading = take("lasot", tiny / "lasot")
    assert [each.id for each in samples] == ["lasot-kite-1", "lasot-kite-2"] and not dropped
    seen, lost = samples
    assert (seen.media.path, seen.media.fps) == ("kite/kite-1/img/*.jpg", 30.0)
    assert seen.targets.track.xyxy[:2] == ((0, 2, 5, 6), (1, 2, 6, 6))
    assert seen.targets.track.times_sec == tuple(place / 30 for place in range(5))
    assert (seen.prompts[0].time_sec, seen.prompts[0].xyxy) == (0, (0, 2, 5, 6))
    assert "<prompt:0>" in seen.conversation[0].text and seen.conversation[1].text == "<track>"
    assert lost.targets.track.xyxy == ((3, 3, 9, 8), (4, 3, 10, 8), None, (6, 3, 12, 8))
    assert seen.meta["raw"] == {"sequence": "kite-1", "class": "kite", "first_xywh": [1, 3, 5, 4], "nlp": "a red kite above the trees"}
    assert (seen.meta["task"], seen.meta["frame_count"]) == ("mask", 5) and not reading.counts["adjusted"]
    same_from_file(samples)


def test_lasot_splits_follow_the_list(take, tiny, tmp_path: Path):
    assert [each.id for each in take("lasot", tiny / "lasot", split="test")[0]] == ["lasot-kite-2"]
    assert [each.id for each in take("lasot", tiny / "lasot", split="train")[0]] == ["lasot-kite-1"]
    shutil.copytree(tiny / "lasot" / "kite", tmp_path / "kite")
    named = take("lasot", tmp_path, split="test", side={"testing_set": tiny / "lasot" / "testing_set.txt"})[0]
    assert [each.id for each in named] == ["lasot-kite-2"]
    with pytest.raises(UsageError, match=r"Name it with --with testing_set=PATH"):
        take("lasot", tmp_path, split="train")
    with pytest.raises(UsageError, match=r"folders with groundtruth.txt, or <sequence>.txt files, got 'none'"):
        take("lasot", tiny / "davis")


def test_lasot_language_asks_by_the_sentence(take, tiny, same_from_file):
    samples, dropped, _ = take("lasot", tiny / "lasot", variant="language")
    assert [each.id for each in samples] == ["lasot-kite-1"] and not samples[0].prompts
    assert '"a red kite above the trees"' in samples[0].conversation[0].text and samples[0].targets.track.xyxy[0] == (0, 2, 5, 6)
    assert [(Path(each.where).parent.name, each.field, each.rule) for each in dropped] == [("kite-2", "nlp.txt", "words")]
    same_from_file(samples)


def test_lasot_a_sequence_a_class_and_the_root_are_the_same_boxes(take, tiny):
    paths = {"img/*.jpg": "kite/kite-1", "kite-1/img/*.jpg": "kite", "kite/kite-1/img/*.jpg": ""}
    for media, inside in paths.items():
        sample = take("lasot", tiny / "lasot" / inside)[0][0]
        assert (sample.media.path, sample.targets.track.xyxy[4]) == (media, (4, 2, 9, 6))
        assert sample.media_path.parent == tiny / "lasot" / "kite" / "kite-1" / "img"


def test_lasot_truth_scores_what_its_thresholds_allow(take, tiny, tmp_path: Path):
    samples = take("lasot", tiny / "lasot", split="train")[0]
    lines = written("lasot", samples, tmp_path / "out")
    assert lines == {"kite-1.txt": (tiny / "lasot" / "kite" / "kite-1" / "groundtruth.txt").read_text().splitlines()}
    for variant in ("matlab", "pytracking", "got10k"):
        metrics = score("lasot", Request(tmp_path / "out", tiny / "lasot" / "kite" / "kite-1", variant=variant)).metrics
        # an IoU of 1 is not above the last of the 21 thresholds
        assert metrics["Success"] == pytest.approx(100 * 20 / 21)
        assert (metrics["P"], metrics["P_norm"], metrics["SR@0.5"], metrics["SR@0.75"]) == (100, 100, 100, 100)


def test_lasot_absent_frames_count_as_the_variant_says(take, tiny, tmp_path: Path):
    samples = take("lasot", tiny / "lasot", split="test")[0]
    lines = written("lasot", samples, tmp_path / "out")["kite-2.txt"]
    # the lost object keeps its last box
    assert lines == ["4,4,6,5", "5,4,6,5", "5,4,6,5", "7,4,6,5"]
    matlab = score("lasot", Request(tmp_path / "out", tiny / "lasot", variant="matlab")).metrics
    # the absent frame leaves the numerator alone: three of four frames
    assert matlab["Success"] == pytest.approx(100 * 3 / 4 * 20 / 21) and matlab["P"] == 75


def test_lasot_lost_objects_keep_the_last_box_and_never_lose_their_size(take, tiny, tmp_path: Path):
    seen = take("lasot", tiny / "lasot", split="train")[0][0]
    asked = take("lasot", tiny / "lasot", variant="language")[0][0]
    late = [None, None, (9.25, 1.0, 12.0, 5.5), None, None]
    times = seen.targets.track.times_sec
    for name, sample, expected in (
        ("late", answered(seen, times, late), ["1,3,5,4"] * 2 + ["10.25,2,2.75,4.5"] * 3),
        ("never", unanswered(seen), ["1,3,5,4"] * 5),
        # without a box in the question, the first of the answer
        ("asked", answered(asked, times, late), ["10.25,2,2.75,4.5"] * 5),
        ("nothing", unanswered(asked), ["1,1,1,1"] * 5),
        # the answer is given at half the frames
        ("half", answered(seen, [0.0, 2 / 30, 4 / 30], [(0, 0, 1, 1), None, (2, 2, 4, 5)]), ["1,1,1,1"] * 4 + ["3,3,2,3"]),
    ):
        assert written("lasot", [sample], tmp_path / name) == {"kite-1.txt": expected}


def test_lasot_boxes_are_cut_and_those_without_size_are_not_visible(take, tmp_path: Path):
    folder = tmp_path / "cat-1"
    (folder / "img").mkdir(parents=True)
    rows = ["5,5,4,4", "0,-1,6,6", "5,5,0,4", "NaN,NaN,NaN,NaN", "18,10,9,9", "30,30,4,4"]
    (folder / "groundtruth.txt").write_text("\n".join(rows))
    for name in ("full_occlusion.txt", "out_of_view.txt"):
        (folder / name).write_text(",".join("0" * len(rows)))
    for place in range(len(rows)):
        Image.new("L", (20, 12)).save(folder / "img" / f"{place + 1:08d}.jpg")
    samples, _, reading = take("lasot", tmp_path)
    assert samples[0].targets.track.xyxy == ((4, 4, 8, 8), (0, 0, 5, 4), None, None, (17, 9, 20, 12), None)
    assert samples[0].meta["size"] == [20, 12]
    assert reading.counts["adjusted"] == {
        "box cut at the edge of its frame": 2,
        "box without size or outside of its frame taken as not visible": 3,
    }


@pytest.mark.parametrize(
    ("file", "content", "field", "rule"),
    [
        ("groundtruth.txt", "1,2,3\n", "line 1", "boxes"),
        ("groundtruth.txt", "1,2,3,4\na,b,c,d\n", "line 2", "boxes"),
        ("groundtruth.txt", "", "", "boxes"),
        ("groundtruth.txt", "1,2,3,4\n", "full_occlusion.txt", "lengths_equal"),
        ("groundtruth.txt", "0,0,0,0\n" * 4, "", "first_box"),
        ("full_occlusion.txt", "0,0,2,0", "full_occlusion.txt", "flags"),
        ("full_occlusion.txt", "1,0,0,0", "", "first_box"),
        ("out_of_view.txt", "0,0,0", "out_of_view.txt", "lengths_equal"),
        ("out_of_view.txt", None, "out_of_view.txt", "flags"),
        ("img/00000001.jpg", "x", "img", "lengths_equal"),
    ],
)
def test_lasot_bad_sequence_is_named_and_the_others_go_on(take, tiny, tmp_path: Path, file, content, field, rule):
    shutil.copytree(tiny / "lasot" / "kite", tmp_path / "kite")
    path = tmp_path / "kite" / "kite-2" / file
    path.parent.mkdir(exist_ok=True)
    path.unlink() if content is None else path.write_text(content)
    samples, dropped, _ = take("lasot", tmp_path)
    assert [each.id for each in samples] == ["lasot-kite-1"]
    where = str(tmp_path / "kite" / "kite-2" / "groundtruth.txt")
    assert [(each.where, each.field, each.rule) for each in dropped] == [(where, field, rule)]


def test_lasot_a_sample_without_its_number_of_frames_is_refused(take, tiny, tmp_path: Path):
    sample = take("lasot", tiny / "lasot")[0][0]
    meta = {key: value for key, value in sample.meta.items() if key != "frame_count"}
    with pytest.raises(UsageError, match=r"sample lasot-kite-1, meta\.frame_count: expected the number of frames"):
        format_named("lasot").write([sample.model_copy(update={"meta": meta})], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def text_files(raw: bytes, names: list[str], folder: Path) -> None:
    """Lines of the files of a broken document, or its bytes as the first file."""
    try:
        document = json.loads(raw)
    except ValueError:
        (folder / names[0]).write_bytes(raw)
        return
    for name in names:
        value = document.get(name) if isinstance(document, dict) else None
        rows = value if isinstance(value, list) else [value]
        lines = (",".join(str(each) for each in row) if isinstance(row, list) else str(row) for row in rows)
        (folder / name).write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")


def test_lasot_withstands_broken_files(withstands, tiny, tmp_path: Path):
    shutil.copytree(tiny / "lasot" / "kite", tmp_path / "kite")
    document = {
        "groundtruth.txt": [[4, 4, 6, 5], [5, 4, 6, 5], [0, 0, 0, 0], [7, 4, 6, 5]],
        "full_occlusion.txt": [[0, 0, 0, 0]],
        "out_of_view.txt": [[0, 0, 1, 0]],
        "nlp.txt": ["a kite"],
    }

    def put(raw: bytes) -> Path:
        text_files(raw, list(document), tmp_path / "kite" / "kite-2")
        return tmp_path

    for variant in ("box", "language"):
        withstands("lasot", put, document, good=["lasot-kite-1"], rounds=ROUNDS // 2, variant=variant)


def test_lasot_real(take, real, tmp_path: Path, same_from_file):
    folder = real / "evaluation" / "lasot" / "annos"
    samples, dropped, reading = take("lasot", folder, split="test")
    assert (len(samples), dropped) == (6, [])
    tiger = next(each for each in samples if each.id == "lasot-tiger-6")
    assert (tiger.media.path, tiger.meta["frame_count"]) == ("tiger/tiger-6/img/*.jpg", 2295)
    assert tiger.targets.track.xyxy[0] == (132, 327, 132 + 188, 327 + 100)
    assert tiger.meta["raw"]["nlp"] == "tiger playing with another tiger on dry grass"
    # the three visible frames without a size, one each in tiger-6, lion-5 and microphone-6
    assert reading.counts["adjusted"]["box without size or outside of its frame taken as not visible"] == 3
    same_from_file(samples)
    format_named("lasot").write(samples, tmp_path / "out")
    report = score("lasot", Request(tmp_path / "out", folder, variant="matlab"))
    for each in samples:
        nulls = sum(box is None for box in each.targets.track.xyxy)
        # every visible frame is exact: 20 of the 21 thresholds; absent ones, and those without a size, are never a success
        expected = 100 * (1 - nulls / each.meta["frame_count"]) * 20 / 21
        assert report.detail["videos"][each.meta["raw"]["sequence"]]["Success"] == pytest.approx(expected)
    assert len(take("lasot", folder, variant="language")[0]) == 6


# -- GOT-10k -----------------------------------------------------------------------------------------------------------------------------


def test_got10k_boxes_and_absence(take, tiny, same_from_file):
    samples, dropped, _ = take("got10k", tiny / "got10k", split="val")
    (sample,) = samples
    assert (sample.id, sample.media.path, sample.media.fps) == ("got10k-GOT-10k_Val_000901", "val/GOT-10k_Val_000901/*.jpg", 10.0)
    assert sample.targets.track.xyxy == ((2.5, 3, 8.5, 7), (3.5, 3, 9.5, 7), None, (5.5, 3, 11.5, 7))
    assert sample.targets.track.times_sec == (0, 0.1, 0.2, 3 / 10)
    assert sample.prompts[0].xyxy == (2.5, 3, 8.5, 7) and sample.meta["size"] == [20, 12]
    assert sample.meta["raw"]["object_class"] == "kite" and not dropped
    same_from_file(samples)
    inside = take("got10k", tiny / "got10k" / "val")[0][0]
    assert (inside.media.path, inside.targets) == ("GOT-10k_Val_000901/*.jpg", sample.targets)


def test_got10k_test_split_is_a_question_and_its_images_say_how_many_boxes(take, tiny, tmp_path: Path):
    samples, dropped, _ = take("got10k", tiny / "got10k", split="test")
    (sample,) = samples
    assert (len(sample.conversation), sample.targets.names, sample.prompts[0].xyxy) == (1, (), (1, 2, 6, 6)) and not dropped
    predicted = answered(sample, [0.0, 0.1, 0.2], [(1, 2, 6, 6), (1.5, 2, 6.5, 6), None])
    assert written("got10k", [predicted], tmp_path / "out") == {
        "GOT-10k_Test_000901/GOT-10k_Test_000901_001.txt": ["1.000,2.000,5.000,4.000"] + ["1.500,2.000,5.000,4.000"] * 2
    }
    with pytest.raises(UsageError, match=r"expected folders with groundtruth.txt, got 'none'. The root's splits are train, val, test."):
        take("got10k", tiny / "got10k")


def test_got10k_truth_as_submission_scores_100(take, tiny, tmp_path: Path):
    samples = take("got10k", tiny / "got10k", split="val")[0]
    lines = written("got10k", samples, tmp_path / "out")["GOT-10k_Val_000901/GOT-10k_Val_000901_001.txt"]
    assert lines[2] == lines[1] == "3.500,3.000,6.000,4.000"
    metrics = score("got10k", Request(tmp_path / "out", tiny / "got10k" / "val")).metrics
    # the absent frame is not covered and so does not count
    assert metrics == {"AO": pytest.approx(100, abs=1e-9), "SR@0.5": 100.0, "SR@0.75": 100.0}


@pytest.mark.parametrize(
    ("file", "content", "field", "rule"),
    [
        ("groundtruth.txt", "1,2,3\n", "groundtruth.txt", "boxes"),
        ("groundtruth.txt", "1,2,NaN,4\n", "groundtruth.txt", "boxes"),
        ("groundtruth.txt", None, "groundtruth.txt", "boxes"),
        ("absence.label", "1\n0\n0\n0\n", "", "first_box"),
        ("absence.label", "0\n0\n", "absence.label", "lengths_equal"),
        ("absence.label", "0\n0\nx\n0", "absence.label", "flags"),
        ("absence.label", None, "absence.label", "flags"),
        ("00000001.jpg", "x", "", "lengths_equal"),
    ],
)
def test_got10k_bad_sequence_is_named_and_the_others_go_on(take, tiny, tmp_path: Path, file, content, field, rule):
    for name in ("a", "b", "c"):
        shutil.copytree(tiny / "got10k" / "val" / "GOT-10k_Val_000901", tmp_path / name)
    (tmp_path / "list.txt").write_text("a\nb\nc\n")
    path = tmp_path / "b" / file
    path.unlink() if content is None else path.write_text(content)
    samples, dropped, _ = take("got10k", tmp_path)
    assert [each.id for each in samples] == ["got10k-a", "got10k-c"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [(str(tmp_path / "b"), field, rule)]


def test_got10k_withstands_broken_files(withstands, tiny, tmp_path: Path):
    for name in ("a", "b"):
        shutil.copytree(tiny / "got10k" / "val" / "GOT-10k_Val_000901", tmp_path / name)
    document = {
        "groundtruth.txt": [[2.5, 3, 6, 4], [3.5, 3, 6, 4], [0, 0, 0, 0], [5.5, 3, 6, 4]],
        "absence.label": [0, 0, 1, 0],
        "meta_info.ini": ["[METAINFO]", "object_class: kite", "resolution: (20, 12)"],
    }

    def put(raw: bytes) -> Path:
        text_files(raw, list(document), tmp_path / "b")
        return tmp_path

    withstands("got10k", put, document, good=["got10k-a"], rounds=ROUNDS)
