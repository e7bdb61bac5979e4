"""MeViS, Ref-YouTube-VOS, SA-V and DAVIS: values by hand, rules, the scorers' 100, broken files, and the real samples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tpo_lab.datasets.formats import format_named
from tpo_lab.datasets.formats.members import Members
from tpo_lab.datasets.formats.run_lengths import box_around, checked
from tpo_lab.errors import UsageError
from tpo_lab.files import BadRecord, Record
from tpo_lab.rle import decode_rle, encode_rle
from tpo_lab.sample import MaskTarget, Targets
from tpo_lab.scoring import Request, score
from tpo_lab.scoring.masks import read_labels
from tpo_lab.video import open_source

SIZE = (12, 20)
ROUNDS = 1000


def block(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def rle(*corner: int) -> dict:
    return encode_rle(block(*corner))


def shown(rle) -> np.ndarray:
    return decode_rle("rle", rle.model_dump())


def answered(sample, times_sec, masks):
    target = MaskTarget.model_validate({"times_sec": times_sec, "rle": masks})
    return sample.model_copy(update={"targets": Targets(mask=target)})


# -- MeViS -------------------------------------------------------------------------------------------------------------------------------


def test_mevis_unites_the_objects_of_an_expression(take, tiny, same_from_file):
    samples, dropped, reading = take("mevis", tiny / "mevis", split="train")
    assert [each.id for each in samples] == ["mevis-a1b2-0", "mevis-a1b2-1", "mevis-c3-0"] and not dropped
    kite, both, dog = samples
    assert (kite.media.path, kite.media.fps, kite.split) == ("JPEGImages/a1b2/*.jpg", 6.0, "train")
    assert '"The kite flying to the right"' in kite.conversation[0].text and kite.conversation[1].text == "<mask>"
    assert kite.targets.mask.times_sec == (0, 1 / 6, 2 / 6, 3 / 6)
    assert kite.targets.mask.rle[0].counts == rle(2, 3, 4, 5)["counts"] and kite.targets.mask.rle[3] is None
    assert (shown(both.targets.mask.rle[1]) == (block(2, 4, 4, 5) | block(7, 10, 3, 6))).all()
    assert both.targets.mask.rle[3].counts == rle(7, 10, 3, 6)["counts"]
    assert dog.targets.mask.rle[0] is None and len(dog.targets.mask.rle) == 3
    assert kite.meta["raw"] == {
        "video": "a1b2",
        "expression": "0",
        "exp": "The kite flying to the right",
        "obj_id": [0],
        "anno_id": [5],
    }
    assert (kite.meta["task"], kite.meta["size"], kite.meta["frames"][3]) == ("mask", [20, 12], "00003")
    assert not reading.counts["adjusted"]
    same_from_file(samples)


def test_mevis_file_and_named_masks_are_the_same_as_the_folder(take, tiny, tmp_path: Path):
    whole = take("mevis", tiny / "mevis")[0]
    assert take("mevis", tiny / "mevis" / "meta_expressions.json")[0] == whole
    shutil.copy(tiny / "mevis" / "meta_expressions.json", tmp_path)
    elsewhere = take("mevis", tmp_path, side={"mask_dict": tiny / "mevis" / "mask_dict.json"})[0]
    assert [each.model_dump() for each in elsewhere] == [each.model_dump() for each in whole]
    with pytest.raises(UsageError, match=r"beside it mask_dict.json, got 'no such file'. Name it with --with mask_dict=PATH"):
        take("mevis", tmp_path)


def test_mevis_split_without_annotations_has_questions_only(take, tmp_path: Path):
    videos = {"v": {"frames": ["00000", "00001"], "expressions": {"0": {"exp": "a bird"}, "1": {"exp": "two birds"}}}}
    (tmp_path / "meta_expressions.json").write_text(json.dumps({"videos": videos}))
    samples, dropped, _ = take("mevis", tmp_path)
    assert [len(each.conversation) for each in samples] == [1, 1] and not dropped
    assert not samples[0].targets.names and "size" not in samples[0].meta


META = {
    "good": {"frames": ["00000", "00001"], "expressions": {"0": {"exp": "a bird", "obj_id": [0], "anno_id": [1]}}},
    "v": {"frames": ["00000", "00001"], "expressions": {"0": {"exp": "a dog", "obj_id": [0, 1], "anno_id": [1, 2]}, "1": {"exp": "x"}}},
    "last": {"frames": ["00000"], "expressions": {"0": {"exp": "a bird", "obj_id": [0], "anno_id": [1]}}},
}
MASKS = {"1": [rle(1, 1, 2, 2), rle(1, 2, 2, 2)], "2": [None, rle(5, 5, 3, 3)]}


def mevis_files(folder: Path, meta, masks) -> Path:
    (folder / "meta_expressions.json").write_text(json.dumps({"videos": meta}))
    (folder / "mask_dict.json").write_text(json.dumps(masks))
    return folder


@pytest.mark.parametrize(
    ("changed", "masks", "field", "rule"),
    [
        ({"exp": "  "}, {}, "exp", "words"),
        ({"anno_id": []}, {}, "anno_id", "anno_id_some"),
        ({"anno_id": 1}, {}, "anno_id", "list"),
        ({"anno_id": [1, 3]}, {}, "anno_id", "anno_id_known"),
        ({"obj_id": [0]}, {}, "obj_id", "lengths_equal"),
        ({}, {"2": [None]}, "mask_dict.json, 2", "lengths_equal"),
        ({}, {"2": [None, 5]}, "mask_dict.json, 2[1]", "rle"),
        ({}, {"2": [None, {"size": [12], "counts": "0"}]}, "mask_dict.json, 2[1].size", "rle"),
        ({}, {"2": [None, {"size": [12, 20], "counts": "é"}]}, "mask_dict.json, 2[1].counts", "rle"),
        ({}, {"2": [None, {"size": [12, 20], "counts": "oo"}]}, "mask_dict.json, 2[1].counts", "rle"),
        ({}, {"2": [None, {"size": [12, 20], "counts": "11"}]}, "anno_id, frame 1, counts", "rle"),
        ({}, {"2": [None, encode_rle(np.ones((3, 4)))]}, "anno_id, frame 1", "mask_size"),
    ],
)
def test_mevis_bad_expression_is_named_and_the_others_go_on(take, tmp_path: Path, changed, masks, field, rule):
    first, second = META["v"]["expressions"]["0"], META["v"]["expressions"]["1"]
    meta = {**META, "v": {**META["v"], "expressions": {"0": {**first, **changed}, "1": second}}}
    samples, dropped, _ = take("mevis", mevis_files(tmp_path, meta, {**MASKS, **masks}))
    assert [each.id for each in samples] == ["mevis-good-0", "mevis-v-1", "mevis-last-0"]
    where = f"{tmp_path / 'meta_expressions.json'}, v, expressions, 0"
    assert [(each.where, each.field, each.rule) for each in dropped] == [(where, field, rule)]


@pytest.mark.parametrize(
    ("video", "field", "rule"),
    [
        ({"frames": []}, "frames", "frames"),
        ({"frames": ["00001", "00000"]}, "frames[1]", "frames_ascending"),
        ({"frames": ["../x"]}, "frames[0]", "file_name"),
        ({"expressions": []}, "", "object"),
    ],
)
def test_mevis_bad_video_is_one_drop(take, tmp_path: Path, video, field, rule):
    samples, dropped, _ = take("mevis", mevis_files(tmp_path, {**META, "v": {**META["v"], **video}}, MASKS))
    assert [each.id for each in samples] == ["mevis-good-0", "mevis-last-0"]
    assert [(each.field, each.rule) for each in dropped] == [(field, rule)]


def test_mevis_counts_masks_behind_the_listed_frames(take, tmp_path: Path):
    _, _, reading = take("mevis", mevis_files(tmp_path, META, MASKS))
    assert reading.counts["adjusted"] == {"masks after the last listed frame left out": 1}


def test_frame_times_are_those_of_the_images_on_disk(take, tmp_path: Path):
    images = tmp_path / "JPEGImages" / "good"
    images.mkdir(parents=True)
    for name in ("00000", "0000a", "00001"):
        Image.new("L", (4, 4)).save(images / f"{name}.jpg")
    samples, _, _ = take("mevis", mevis_files(tmp_path, META, MASKS))
    source = open_source(samples[0].media_path, fps=samples[0].media.fps)
    assert [source.files[place].stem for place in range(3)] == ["00000", "0000a", "00001"]
    assert samples[0].targets.mask.times_sec == (source.times_sec[0], source.times_sec[2])
    (images / "00001.jpg").unlink()
    _, dropped, _ = take("mevis", tmp_path)
    assert [(each.field, each.rule, each.value) for each in dropped] == [("frames", "frame_on_disk", "00001")]


def test_mevis_truth_as_submission_scores_100(take, tiny, tmp_path: Path):
    samples = take("mevis", tiny / "mevis")[0]
    assert format_named("mevis").write(samples, tmp_path / "out") == 3
    assert score("mevis", Request(tmp_path / "out", tiny / "mevis")).metrics == {"J&F": 100.0, "J": 100.0, "F": 100.0}
    assert sorted(file.name for file in (tmp_path / "out" / "a1b2" / "1").iterdir()) == [f"0000{place}.png" for place in range(4)]


def test_a_mask_answers_the_nearest_frame_and_no_answer_is_empty(take, tiny, tmp_path: Path):
    kite, both, _ = take("mevis", tiny / "mevis")[0]
    near = answered(kite, [0.17, 0.49], [rle(0, 0, 2, 2), rle(0, 0, 3, 3)])
    nothing = both.model_copy(update={"targets": Targets()})
    format_named("mevis").write([near, nothing], tmp_path / "out")
    pixels = [(read_labels(tmp_path / "out" / "a1b2" / "0" / f"0000{place}.png") > 0).sum() for place in range(4)]
    assert pixels == [0, 4, 0, 9]
    assert not read_labels(tmp_path / "out" / "a1b2" / "1" / "00002.png").any()


def test_a_folder_with_files_is_not_written_into_and_a_failure_leaves_nothing(take, tiny, tmp_path: Path, say):
    samples = take("mevis", tiny / "mevis")[0]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UsageError, match="expected a new or an empty folder, got 'a folder with files'"):
        format_named("mevis").write(samples, tmp_path / "full")
    with pytest.raises(UsageError, match=r"sample s0, meta\.raw: expected the raw record with video, expression"):
        format_named("mevis").write([samples[0], say(0, "When?")], tmp_path / "out")
    escaping = samples[0].model_copy(update={"meta": {**samples[0].meta, "raw": {"video": "..", "expression": "0"}}})
    with pytest.raises(UsageError, match=r"meta\.raw: expected names of folders, got \['\.\.', '0'\]"):
        format_named("mevis").write([escaping], tmp_path / "out")
    small = answered(samples[0], [0.0], [encode_rle(np.ones((3, 4)))])
    with pytest.raises(UsageError, match=r"targets\.mask: expected masks of the frame's size, 12 x 20, got '3 x 4'"):
        format_named("mevis").write([small], tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["full"]


def test_mevis_withstands_broken_expressions(withstands, tmp_path: Path):
    def put(document: bytes) -> Path:
        head, tail = (json.dumps({name: META[name]}).encode()[1:-1] for name in ("good", "last"))
        (tmp_path / "mask_dict.json").write_text(json.dumps(MASKS))
        (tmp_path / "meta_expressions.json").write_bytes(b'{"videos": {' + head + b', "v": ' + document + b", " + tail + b"}}")
        return tmp_path

    withstands("mevis", put, META["v"], good=["mevis-good-0", "mevis-last-0"], rounds=ROUNDS)


def test_mevis_withstands_broken_masks(withstands, tmp_path: Path):
    (tmp_path / "meta_expressions.json").write_text(json.dumps({"videos": META}))

    def put(document: bytes) -> Path:
        (tmp_path / "mask_dict.json").write_bytes(b'{"1": ' + json.dumps(MASKS["1"]).encode() + b', "2": ' + document + b"}")
        return tmp_path

    withstands("mevis", put, MASKS["2"], good=["mevis-good-0", "mevis-last-0"], rounds=ROUNDS)


def test_mevis_real(take, real, tmp_path: Path, same_from_file):
    folder = real / "evaluation" / "mevis"
    samples, dropped, reading = take("mevis", folder)
    # the video "ghost" has one frame and takes the 18 masks of another one
    assert (len(samples), dropped, reading.counts["adjusted"]) == (7, [], {"masks after the last listed frame left out": 1})
    assert [len(each.targets.mask.rle) for each in samples] == [18, 20, 20, 16, 16, 16, 1]
    same_from_file(samples)
    format_named("mevis").write(samples[:1] + samples[6:], tmp_path / "out")
    report = score("mevis", Request(tmp_path / "out", folder, allow_missing=True))
    assert report.detail["expressions"]["blackswan/0"] == report.detail["expressions"]["ghost/0"] == {"J": 100.0, "F": 100.0}


# -- members of a large object -----------------------------------------------------------------------------------------------------------


def members(tmp_path: Path, text: str | bytes) -> Members:
    (tmp_path / "m.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return Members(tmp_path / "m.json")


def test_members_are_those_of_json(tmp_path: Path):
    document = {
        "a": ["}", '"', "\\", {"b": [None, 1.5]}],
        "é\n": None,
        '"': -1e3,
        "": "x,{",
        "t": {},
        "[": [],
        "n": {"{": [{"}": {}}]},
        "last": True,
    }
    for text in (
        json.dumps(document),
        json.dumps(document, indent=2, ensure_ascii=False),
        b"\xef\xbb\xbf " + json.dumps(document).encode(),
    ):
        found = members(tmp_path, text)
        assert len(found) == len(document) and all(key in found and found.value(key) == value for key, value in document.items())
    assert len(members(tmp_path, " { } ")) == 0
    assert members(tmp_path, '{"a": 1, "a": 2}').value("a") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "m.json: expected a JSON object, got 'an empty file'"),
        ("[1]", r"m.json: expected a JSON object, got \"b'\[1\]'\""),
        ('{"a": [1', "byte 8: expected a closing bracket"),
        ('{"a": {"b": {}', "byte 14: expected a closing bracket"),
        ('{"a": 1', "byte 7: expected a comma or a closing brace"),
        ('{"a": }', "byte 6: expected a value"),
        ('{"a": 1,}', "byte 8: expected a key"),
        ('{"a" 1}', "byte 1: expected a key"),
    ],
)
def test_members_of_a_broken_file_are_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(UsageError, match=message):
        members(tmp_path, text)


def test_a_broken_member_is_refused_when_it_is_read(tmp_path: Path):
    found = members(tmp_path, '{"a": [1 2], "b": 3}')
    assert found.value("b") == 3
    with pytest.raises(UsageError, match=r"m\.json, a: expected JSON"):
        found.value("a")


# -- run lengths -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (12, 20), (480, 854), (1, 33)])
def test_empty_masks_become_none_without_being_decoded(size):
    at = Record("here", {})
    assert checked(at, "m", encode_rle(np.zeros(size, dtype=bool))) is None
    corner = np.zeros(size, dtype=bool)
    corner[-1, -1] = True
    for mask in (corner, ~corner if corner.size > 1 else corner, np.ones(size, dtype=bool)):
        assert checked(at, "m", encode_rle(mask)) == encode_rle(mask)


@pytest.mark.parametrize("counts", ["", "P", "@", "0 1", "p", 5, None, ["1"]])
def test_texts_that_are_no_run_lengths_are_refused(counts):
    with pytest.raises(BadRecord) as caught:
        checked(Record("here", {}), "m", {"size": [3, 5], "counts": counts})
    assert (caught.value.rule, caught.value.field) == ("rle", "m.counts")


def test_the_box_around_a_mask_ends_behind_its_last_pixel():
    assert box_around(block(3, 5, 2, 7)) == [5.0, 3.0, 12.0, 5.0]
    assert box_around(block(11, 19, 1, 1)) == [19.0, 11.0, 20.0, 12.0]


# -- Ref-YouTube-VOS ---------------------------------------------------------------------------------------------------------------------


def test_ref_youtube_vos_object_of_palette_images(take, tiny, same_from_file):
    samples, dropped, _ = take("ref-youtube-vos", tiny / "ref-youtube-vos", split="train")
    assert [each.id for each in samples] == ["ref-youtube-vos-aa11-0", "ref-youtube-vos-aa11-1"] and not dropped
    ball, boy = samples
    assert (ball.media.path, ball.media.fps) == ("train/JPEGImages/aa11/*.jpg", 6.0)
    assert ball.targets.mask.times_sec == (0, 1 / 6, 2 / 6)
    assert (shown(ball.targets.mask.rle[2]) == block(1, 4, 4, 4)).all()
    assert boy.targets.mask.rle[0] is None and (shown(boy.targets.mask.rle[1]) == block(6, 8, 5, 5)).all()
    assert boy.meta["raw"] == {"video": "aa11", "expression": "1", "exp": "a boy behind it", "obj_id": "2"}
    same_from_file(samples)


def test_ref_youtube_vos_valid_leaves_out_the_videos_of_test(take, tiny):
    root = tiny / "ref-youtube-vos"
    for path in (root, root / "meta_expressions" / "valid" / "meta_expressions.json"):
        samples, dropped, _ = take("ref-youtube-vos", path, split="valid")
        assert [(each.id, len(each.conversation)) for each in samples] == [("ref-youtube-vos-bb22-0", 1)] and not dropped
        assert samples[0].media_path.parent.resolve() == root / "valid" / "JPEGImages" / "bb22"
    assert [each.id for each in take("ref-youtube-vos", root, split="test")[0]] == ["ref-youtube-vos-cc33-0"]


def flat(tiny: Path, folder: Path) -> Path:
    shutil.copytree(tiny / "ref-youtube-vos" / "train" / "Annotations", folder / "Annotations")
    shutil.copy(tiny / "ref-youtube-vos" / "meta_expressions" / "train" / "meta_expressions.json", folder)
    return folder


def test_ref_youtube_vos_truth_as_submission_scores_100(take, tiny, tmp_path: Path):
    root = flat(tiny, tmp_path / "gt")
    samples = take("ref-youtube-vos", root)[0]
    assert samples[0].media.path == "JPEGImages/aa11/*.jpg"
    assert format_named("ref-youtube-vos").write(samples, tmp_path / "out") == 2
    assert score("ref-youtube-vos", Request(tmp_path / "out", root)).metrics == {"J&F": 100.0, "J": 100.0, "F": 100.0}


@pytest.mark.parametrize("value", ["x", "0", "255", 1.5, None, True, "-1"])
def test_ref_youtube_vos_bad_object_is_one_drop(take, tiny, tmp_path: Path, value):
    root = flat(tiny, tmp_path / "gt")
    meta = json.loads((root / "meta_expressions.json").read_text())
    meta["videos"]["aa11"]["expressions"]["0"]["obj_id"] = value
    (root / "meta_expressions.json").write_text(json.dumps(meta))
    samples, dropped, _ = take("ref-youtube-vos", root)
    assert [each.id for each in samples] == ["ref-youtube-vos-aa11-1"]
    assert [(each.field, each.rule) for each in dropped] == [("obj_id", "object_id")]


def test_ref_youtube_vos_video_without_one_of_its_images_is_dropped(take, tiny, tmp_path: Path):
    root = flat(tiny, tmp_path / "gt")
    (root / "Annotations" / "aa11" / "00005.png").write_bytes(b"no image")
    assert [(each.field, each.rule) for each in take("ref-youtube-vos", root)[1]] == [("00005.png", "mask_image")]
    Image.new("L", (3, 3)).save(root / "Annotations" / "aa11" / "00005.png")
    assert take("ref-youtube-vos", root)[1][0].expected == "the size of the true mask, 12 x 20"
    (root / "Annotations" / "aa11" / "00005.png").unlink()
    assert take("ref-youtube-vos", root)[1][0].value == "nothing"


def test_ref_youtube_vos_without_a_split_that_is_there_is_refused(take, tmp_path: Path):
    with pytest.raises(UsageError, match=r"expected meta_expressions/train/meta_expressions.json, got 'no such file'"):
        take("ref-youtube-vos", tmp_path)


def test_ref_youtube_vos_withstands_broken_expressions(withstands, tiny, tmp_path: Path):
    root = flat(tiny, tmp_path / "gt")
    shutil.copytree(root / "Annotations" / "aa11", root / "Annotations" / "v")
    entry = {"frames": ["00000", "00005", "00010"], "expressions": {"0": {"exp": "a", "obj_id": "1"}, "1": {"exp": "b", "obj_id": "2"}}}

    def put(document: bytes) -> Path:
        good = json.dumps(entry).encode()
        (root / "meta_expressions.json").write_bytes(b'{"videos": {"aa11": ' + good + b', "v": ' + document + b"}}")
        return root

    withstands("ref-youtube-vos", put, entry, good=["ref-youtube-vos-aa11-0", "ref-youtube-vos-aa11-1"], rounds=ROUNDS)


def test_ref_youtube_vos_real_images(take, real, tmp_path: Path, same_from_file):
    """The demo's two videos of four images with one annotated: a list of that one frame, and expressions made here."""
    videos = {}
    for folder in sorted((real / "ytvos_demo" / "masks").iterdir()):
        shutil.copytree(folder, tmp_path / "Annotations" / folder.name)
        shutil.copytree(real / "ytvos_demo" / "images" / folder.name, tmp_path / "JPEGImages" / folder.name)
        (png,) = folder.glob("*.png")
        ids = [each for each in np.unique(read_labels(png)).tolist() if each]
        expressions = {str(place): {"exp": f"object {each}", "obj_id": str(each)} for place, each in enumerate(ids)}
        videos[folder.name] = {"frames": [png.stem], "expressions": expressions}
    (tmp_path / "meta_expressions.json").write_text(json.dumps({"videos": videos}))
    samples, dropped, _ = take("ref-youtube-vos", tmp_path)
    assert (len(samples), dropped) == (sum(len(each["expressions"]) for each in videos.values()), [])
    assert all(each.targets.mask.rle[0] is not None and each.targets.mask.times_sec == (0.0,) for each in samples)
    same_from_file(samples)
    format_named("ref-youtube-vos").write(samples, tmp_path / "out")
    assert score("ref-youtube-vos", Request(tmp_path / "out", tmp_path)).metrics["J&F"] == 100.0


# -- SA-V --------------------------------------------------------------------------------------------------------------------------------


def test_sav_rows_are_six_a_second_and_the_box_is_where_the_object_is_first_seen(take, tiny, same_from_file):
    samples, dropped, _ = take("sav", tiny / "sav", split="train")
    assert [each.id for each in samples] == ["sav-sav_900001-auto-000", "sav-sav_900001-manual-000", "sav-sav_900001-manual-007"]
    late = samples[2]
    assert (late.media.path, late.media.fps, late.media.end_sec, late.meta["duration_sec"]) == ("sav_900001.mp4", None, None, 0.5)
    assert late.targets.mask.times_sec == (0, 4 / 24, 8 / 24) and late.targets.mask.rle[0] is None
    assert (late.prompts[0].time_sec, late.prompts[0].xyxy) == (4 / 24, (9, 6, 15, 10))
    assert "<prompt:0>" in late.conversation[0].text and late.conversation[1].text == "<mask>"
    raw = late.meta["raw"]
    assert (raw["masklet_id"], raw["masklet_first_appeared_frame"], raw["object"]) == (7, 1.0, "007") and "masklet" not in raw
    assert late.meta["frames"] == ["00000", "00004", "00008"] and not dropped
    same_from_file(samples)


def test_sav_variants_take_one_kind(take, tiny):
    kinds = {variant: [each.id for each in take("sav", tiny / "sav", variant=variant)[0]] for variant in ("manual", "auto", "all", "")}
    assert kinds["auto"] == ["sav-sav_900001-auto-000"] and len(kinds["manual"]) == 2
    assert kinds["all"] == kinds[""] == kinds["auto"] + kinds["manual"]
    with pytest.raises(UsageError, match=r"files \*_auto.json, or a folder Annotations_6fps"):
        take("sav", tiny / "davis", variant="auto")


def test_sav_files_in_folders_have_their_video_beside_them(take, tiny, tmp_path: Path):
    shutil.copytree(tiny / "sav", tmp_path / "sav_000")
    samples = take("sav", tmp_path)[0]
    assert {each.media.path for each in samples} == {"sav_000/sav_900001.mp4"}


def test_sav_folders_of_objects(take, tiny, tmp_path: Path, same_from_file):
    samples, dropped, _ = take("sav", tiny / "sav-val", split="val")
    assert [each.id for each in samples] == ["sav-sav_900002-000", "sav-sav_900002-001"] and not dropped
    second = samples[1]
    assert (second.media.path, second.media.fps) == ("JPEGImages_24fps/sav_900002/*.jpg", 24.0)
    assert second.targets.mask.times_sec == (0, 4 / 24, 8 / 24, 12 / 24)
    assert (second.prompts[0].time_sec, second.prompts[0].xyxy) == (4 / 24, (4, 4, 12, 9))
    same_from_file(samples)
    assert format_named("sav").write(samples, tmp_path / "out") == 2
    for variant in ("official", "all-frames"):
        report = score("sav", Request(tmp_path / "out", tiny / "sav-val", variant=variant))
        assert report.metrics == {"J&F": 100.0, "J": 100.0, "F": 100.0}


def test_sav_times_of_folders_are_those_of_the_images_on_disk(take, tiny, tmp_path: Path):
    shutil.copytree(tiny / "sav-val", tmp_path / "val")
    images = tmp_path / "val" / "JPEGImages_24fps" / "sav_900002"
    images.mkdir(parents=True)
    for place in range(13):
        Image.new("L", (20, 12)).save(images / f"{place:05d}.jpg")
    samples, _, _ = take("sav", tmp_path / "val")
    times = open_source(samples[0].media_path, fps=samples[0].media.fps).times_sec
    assert samples[0].targets.mask.times_sec == tuple(times[::4])
    (images / "00012.jpg").unlink()
    assert {each.rule for each in take("sav", tmp_path / "val")[1]} == {"frame_on_disk"}


def test_sav_train_masks_are_written_as_the_evaluation_has_them(take, tiny, tmp_path: Path):
    samples = take("sav", tiny / "sav", variant="manual")[0]
    format_named("sav").write(samples, tmp_path / "out")
    assert sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.png")) == [
        f"sav_900001/{name}/{frame}.png" for name in ("000", "007") for frame in ("00000", "00004", "00008")
    ]
    assert not read_labels(tmp_path / "out" / "sav_900001" / "007" / "00000.png").any()
    assert (read_labels(tmp_path / "out" / "sav_900001" / "007" / "00004.png") == block(6, 9, 4, 6) * 255).all()


VIDEO = {
    "video_id": "sav_1",
    "video_duration": 0.3,
    "masklet": [[rle(1, 1, 3, 3), rle(2, 2, 4, 4)], [rle(1, 2, 3, 3), encode_rle(np.zeros(SIZE))]],
    "masklet_id": [0, 1],
    "masklet_type": ["manual", "manual"],
}


@pytest.mark.parametrize(
    ("changed", "field", "rule", "count"),
    [
        ({"video_id": "a/b"}, "video_id", "file_name", 0),
        ({"masklet": [VIDEO["masklet"][0], VIDEO["masklet"][1][:1]]}, "masklet[1]", "lengths_equal", 0),
        ({"masklet": []}, "masklet", "masklet_some", 0),
        ({"masklet_type": ["manual"]}, "masklet_type", "lengths_equal", 0),
        ({"masklet_id": ["x", 1]}, "", "masklet_id", 1),
        ({"masklet": [[encode_rle(np.zeros(SIZE)), rle(2, 2, 4, 4)]] * 2}, "masks", "object_seen", 1),
        ({"masklet": [[{"size": [12, 20], "counts": "11"}, rle(2, 2, 4, 4)]]}, "masks[0], counts", "rle", 1),
        ({"masklet": [[7, rle(2, 2, 4, 4)]]}, "masklet[0]", "rle", 1),
    ],
)
def test_sav_bad_record_is_named_and_the_others_go_on(take, tmp_path: Path, changed, field, rule, count: int):
    (tmp_path / "sav_1_manual.json").write_text(json.dumps({**VIDEO, **changed}))
    (tmp_path / "sav_2_manual.json").write_text(json.dumps({**VIDEO, "video_id": "sav_2"}))
    samples, dropped, _ = take("sav", tmp_path)
    assert [each.id for each in samples] == ["sav-sav_1-manual-001"][:count] + [f"sav-sav_2-manual-00{place}" for place in range(2)]
    assert [(each.field, each.rule) for each in dropped] == [(field, rule)]


def test_sav_listed_video_without_a_folder_is_one_drop(take, tiny, tmp_path: Path):
    shutil.copytree(tiny / "sav-val", tmp_path / "val")
    (tmp_path / "val" / "sav_val.txt").write_text("sav_0\nsav_900002\n")
    samples, dropped, _ = take("sav", tmp_path / "val")
    assert len(samples) == 2 and [each.rule for each in dropped] == ["video_folder"]


def test_sav_withstands_broken_files(withstands, tmp_path: Path):
    def put(document: bytes) -> Path:
        (tmp_path / "sav_1_manual.json").write_bytes(document)
        (tmp_path / "sav_2_manual.json").write_text(json.dumps({**VIDEO, "video_id": "sav_2"}))
        return tmp_path

    withstands("sav", put, VIDEO, good=["sav-sav_2-manual-000", "sav-sav_2-manual-001"], rounds=ROUNDS)


def test_sav_real(take, real, same_from_file):
    samples, dropped, _ = take("sav", real / "sav")
    assert (len(samples), dropped) == (14, [])
    same_from_file(samples)
    late = next(each for each in samples if each.id == "sav-sav_000001-manual-003")
    # its first row with a pixel is what the file says, and 113 of its 121 rows are empty
    assert late.prompts[0].time_sec == late.meta["raw"]["masklet_first_appeared_frame"] * 4 / 24
    assert sum(each is None for each in late.targets.mask.rle) == 113
    assert late.targets.mask.times_sec[-1] == 480 / 24 < late.meta["duration_sec"]
    assert all(each.prompts[0].time_sec == each.meta["raw"]["masklet_first_appeared_frame"] / 6 for each in samples)


# -- DAVIS -------------------------------------------------------------------------------------------------------------------------------


def test_davis_objects_of_the_first_frame(take, tiny, same_from_file):
    samples, dropped, _ = take("davis", tiny / "davis", split="val")
    assert [each.id for each in samples] == ["davis-kites-1", "davis-kites-2"] and not dropped
    first, second = samples
    assert (first.media.path, first.media.fps) == ("JPEGImages/480p/kites/*.jpg", 24.0)
    assert (first.prompts[0].time_sec, first.prompts[0].xyxy) == (0, (1, 1, 6, 5))
    source = open_source(first.media_path, fps=first.media.fps)
    assert first.targets.mask.times_sec == tuple(source.times_sec)
    assert second.targets.mask.rle[2] is None and (shown(second.targets.mask.rle[3]) == block(7, 9, 4, 7)).all()
    assert [each.id for each in take("davis", tiny / "davis", split="train")[0]] == ["davis-swan-1"]
    assert len(take("davis", tiny / "davis")[0]) == 3
    named = take("davis", tiny / "davis", side={"list": tiny / "davis" / "ImageSets" / "2017" / "train.txt"})[0]
    assert [each.id for each in named] == ["davis-swan-1"]
    with pytest.raises(UsageError, match=r"beside it ImageSets/2017/test-dev\.txt, got 'no such file'"):
        take("davis", tiny / "davis", split="test-dev")
    same_from_file(samples)


def test_davis_truth_as_submission_scores_100_in_any_order(take, tiny, tmp_path: Path):
    samples = take("davis", tiny / "davis")[0]
    assert format_named("davis").write([samples[1], samples[2], samples[0]], tmp_path / "out") == 3
    report = score("davis", Request(tmp_path / "out", tiny / "davis" / "Annotations" / "480p", allow_missing=True))
    assert [report.metrics[name] for name in ("J&F", "J", "F", "J-Recall", "J-Decay")] == [100, 100, 100, 100, 0]
    assert Image.open(tmp_path / "out" / "kites" / "00000.png").mode == "P"


def test_davis_smaller_number_stands_where_objects_meet(take, tiny, tmp_path: Path):
    samples = take("davis", tiny / "davis", split="val")[0]
    both = [answered(samples[place], [0.0], [rle(2, 2 + 2 * place, 4, 4)]) for place in range(2)]
    for name, order in (("a", both), ("b", both[::-1])):
        format_named("davis").write(order, tmp_path / name)
        labels = read_labels(tmp_path / name / "kites" / "00000.png")
        assert (labels == np.where(block(2, 2, 4, 4), 1, 2 * block(2, 4, 4, 4))).all()


def sequence(folder: Path, *frames: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for place, labels in enumerate(frames):
        Image.fromarray(labels.astype(np.uint8)).save(folder / f"{place:05d}.png")
    return folder


def test_davis_late_objects_are_a_variant(take, tmp_path: Path):
    sequence(tmp_path / "s", block(1, 1, 3, 3), block(1, 1, 3, 3) + 2 * block(6, 6, 3, 4))
    assert [each.id for each in take("davis", tmp_path)[0]] == ["davis-s-1"]
    samples = take("davis", tmp_path, variant="all-objects")[0]
    assert [each.id for each in samples] == ["davis-s-1", "davis-s-2"]
    assert (samples[1].prompts[0].time_sec, samples[1].prompts[0].xyxy) == (1 / 24, (6, 6, 10, 9))


def test_davis_unsupervised_has_annotations_of_its_own(take, tiny, tmp_path: Path, same_from_file):
    samples, dropped, _ = take("davis", tiny / "davis", split="val", variant="unsupervised")
    assert [each.id for each in samples] == ["davis-kites-1", "davis-kites-2", "davis-kites-3"] and not dropped
    third = samples[2].targets.mask.rle
    assert (shown(third[0]) == block(1, 15, 3, 4)).all() and list(third[1:]) == [None] * 3, "void is no object"
    same_from_file(samples)
    assert format_named("davis").write(samples, tmp_path / "out") == 3
    report = score("davis", Request(tmp_path / "out", tiny / "davis", variant="unsupervised"))
    assert [report.metrics[name] for name in ("J&F", "J", "F")] == [100, 100, 100] and len(report.detail["objects"]) == 3


def test_davis_unsupervised_tests_are_listed_under_2019(take, tiny, tmp_path: Path):
    shutil.copytree(tiny / "davis", tmp_path / "davis")
    with pytest.raises(UsageError, match=r"beside it ImageSets/2019/test-challenge\.txt, got 'no such file'"):
        take("davis", tmp_path / "davis", split="test-challenge", variant="unsupervised")
    (tmp_path / "davis" / "ImageSets" / "2019").mkdir()
    (tmp_path / "davis" / "ImageSets" / "2019" / "test-dev.txt").write_text("kites\n")
    assert len(take("davis", tmp_path / "davis", split="test-dev", variant="unsupervised")[0]) == 3
    (tmp_path / "davis" / "Annotations_unsupervised").rename(tmp_path / "elsewhere")
    # a folder of sequences alone is read as it is
    assert len(take("davis", tmp_path / "elsewhere" / "480p", variant="unsupervised")[0]) == 3


def test_davis_real_sequence_as_the_unsupervised_task_reads_it(real, take, tmp_path: Path):
    """The masks of a real result stand in for annotations: three objects, each as a proposal of another number."""
    folder = tmp_path / "root" / "Annotations_unsupervised" / "480p" / "pigs"
    folder.mkdir(parents=True)
    for file in sorted((real / "davis_osvos_pigs").glob("*.png"))[:6]:
        shutil.copy(file, folder / file.name)
    samples, dropped, _ = take("davis", tmp_path / "root", variant="unsupervised")
    assert [each.id for each in samples] == ["davis-pigs-1", "davis-pigs-2", "davis-pigs-3"] and not dropped
    turned = [
        each.model_copy(update={"meta": {**each.meta, "raw": {"sequence": "pigs", "object": 12 - place}}})
        for place, each in enumerate(samples)
    ]
    assert format_named("davis").write(turned, tmp_path / "out") == 3
    report = score("davis", Request(tmp_path / "out", tmp_path / "root", variant="unsupervised"))
    assert [report.metrics[name] for name in ("J&F", "J", "F")] == [100, 100, 100]


def test_davis_split_with_the_first_frame_alone_has_questions_only(take, tiny, tmp_path: Path):
    shutil.copytree(tiny / "davis", tmp_path / "davis")
    for place in (1, 2, 3):
        (tmp_path / "davis" / "Annotations" / "480p" / "kites" / f"0000{place}.png").unlink()
    samples = take("davis", tmp_path / "davis", split="val")[0]
    assert [(len(each.conversation), each.targets.names) for each in samples] == [(1, ()), (1, ())]
    predicted = answered(samples[0], [0.0, 3 / 24], [rle(0, 0, 1, 1), rle(0, 0, 2, 2)])
    format_named("davis").write([predicted], tmp_path / "out")
    assert [(read_labels(tmp_path / "out" / "kites" / f"0000{place}.png") > 0).sum() for place in range(4)] == [1, 0, 0, 4]


def test_davis_bad_sequence_is_one_drop(take, tmp_path: Path):
    sequence(tmp_path / "a", block(1, 1, 3, 3), block(1, 1, 3, 3))
    sequence(tmp_path / "nothing", block(0, 0, 0, 0))
    sequence(tmp_path / "skipped", 2 * block(1, 1, 3, 3))
    (tmp_path / "empty").mkdir()
    samples, dropped, _ = take("davis", tmp_path)
    assert [each.id for each in samples] == ["davis-a-1", "davis-skipped-2"]
    # of the first frame's objects 1 to 2 the first has no pixel anywhere
    assert [(Path(each.where).name.split(",")[0], each.rule) for each in dropped] == [
        ("empty", "frames"),
        ("nothing", "object_some"),
        ("skipped", "object_seen"),
    ]
    (tmp_path / "a" / "00001.png").write_bytes((tmp_path / "a" / "00001.png").read_bytes()[:60])
    assert ("00001.png", "mask_image") in [(each.field, each.rule) for each in take("davis", tmp_path)[1]]


@pytest.mark.parametrize("form", ["davis", "sav", "ref-youtube-vos"])
def test_images_withstand_broken_bytes(withstands, tiny, tmp_path: Path, form: str):
    """Each frame's PNG as a list of its bytes, of which some change, go or move."""
    if form == "davis":
        root, files = tmp_path, tmp_path / "v"
        shutil.copytree(tiny / "davis" / "Annotations" / "480p" / "swan", tmp_path / "swan")
        shutil.copytree(tmp_path / "swan", files)
        good = ["davis-swan-1"]
    elif form == "sav":
        shutil.copytree(tiny / "sav-val", tmp_path / "val")
        root, files = tmp_path / "val", tmp_path / "val" / "Annotations_6fps" / "sav_900002" / "000"
        good = ["sav-sav_900002-001"]
    else:
        root = flat(tiny, tmp_path / "gt")
        shutil.copytree(root / "Annotations" / "aa11", root / "Annotations" / "v")
        meta = json.loads((root / "meta_expressions.json").read_text())
        (root / "meta_expressions.json").write_text(json.dumps({"videos": {**meta["videos"], "v": meta["videos"]["aa11"]}}))
        files, good = root / "Annotations" / "v", ["ref-youtube-vos-aa11-0", "ref-youtube-vos-aa11-1"]
    document = {file.stem: [*file.read_bytes()] for file in sorted(files.glob("*.png"))[:2]}

    def put(raw: bytes) -> Path:
        try:
            frames = json.loads(raw)
        except ValueError:
            frames = {next(iter(document)): [*raw]}
        for name in document:
            values = frames.get(name) if isinstance(frames, dict) else None
            numbers = values if isinstance(values, list) else []
            (files / f"{name}.png").write_bytes(bytes(each % 256 if type(each) is int else 0 for each in numbers))
        return root

    withstands(form, put, document, good=good, rounds=ROUNDS // 2)


def test_davis_real(take, real, tmp_path: Path, same_from_file):
    shutil.copytree(real / "davis_osvos_pigs", tmp_path / "gt" / "pigs")
    samples, dropped, _ = take("davis", tmp_path / "gt")
    assert ([each.id for each in samples], dropped) == (["davis-pigs-1", "davis-pigs-2", "davis-pigs-3"], [])
    assert all(len(each.targets.mask.rle) == 79 for each in samples)
    same_from_file(samples)


def test_davis_real_truth_as_submission_scores_100(take, real, tmp_path: Path):
    truth = real / "evaluation" / "davis_jf" / "gt"
    samples, dropped, _ = take("davis", truth)
    assert (len(samples), dropped) == (6, [])
    format_named("davis").write([each for each in samples if "bike" in each.id], tmp_path / "out")
    metrics = score("davis", Request(tmp_path / "out", truth, allow_missing=True)).metrics
    assert (metrics["J"], metrics["F"]) == (100.0, 100.0)
