"""Visual Genome: regions and their images, phrases, cut boxes, broken records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpo_lab.datasets.formats.visual_genome import phrase
from tpo_lab.errors import UsageError

REGION = {"region_id": 50, "image_id": 5, "phrase": "a dog", "x": 1, "y": 2, "width": 3, "height": 4}
IMAGES = [{"image_id": number, "url": f"images/VG_100K/{number}.jpg", "width": 20, "height": 12} for number in (4, 5, 6)]


def put(folder: Path, row: object, images: object = IMAGES) -> Path:
    """Three images, the middle one as given."""

    def around(number: int) -> dict:
        return {"id": number, "regions": [{**REGION, "region_id": 10 * number, "image_id": number}]}

    (folder / "region_descriptions.json").write_text(json.dumps([around(4), row, around(6)]))
    (folder / "image_data.json").write_text(json.dumps(images))
    return folder


def test_regions_by_hand(take, tiny, same_from_file):
    samples, dropped, reading = take("visual-genome", tiny / "visual-genome", split="train")
    assert [(each.id, each.media.path, each.targets.region[0].xyxy) for each in samples] == [
        ("visual-genome-1382", "VG_100K_2/1.jpg", (4, 2, 14, 7)),
        ("visual-genome-1383", "VG_100K_2/1.jpg", (0, 8, 7, 12)),
        ("visual-genome-1390", "VG_100K/2.jpg", (0, 0, 12, 20)),
    ]
    first, sign, hat = samples
    assert "the clock is green" in first.conversation[0].text and first.conversation[1].text == "<region>"
    assert "a STOP sign" in sign.conversation[0].text and "man in a hat" in hat.conversation[0].text
    assert first.meta["size"] == [20, 12] and first.meta["raw"]["phrase"] == " The clock is  green. " and first.split == "train"
    assert [(each.where.rpartition("json, ")[2], each.rule) for each in dropped] == [("[0], regions[2]", "box_area")]
    assert reading.counts["adjusted"] == {"box cut at the edge of its frame": 1}
    same_from_file(samples)


def test_the_file_may_be_named_and_the_images_table_lie_elsewhere(take, tiny, tmp_path: Path):
    path = tmp_path / "regions_of_mine.json"
    path.write_text((tiny / "visual-genome" / "region_descriptions.json").read_text())
    with pytest.raises(UsageError, match=r"beside it image_data\.json"):
        take("visual-genome", path)
    assert len(take("visual-genome", path, side={"image_data": tiny / "visual-genome" / "image_data.json"})[0]) == 3


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The man\n is  tall . ", "the man is tall"),
        ("A man", "a man"),
        ("MAN IN HAT", "man in hat"),
        ("STOP", "STOP"),
        ("T-shirt on a man", "T-shirt on a man"),
        ("sign says Main St.", "sign says Main St"),
        ("...", "..."),
    ],
)
def test_phrases_read_like_the_middle_of_a_sentence(text, normal):
    assert phrase(text) == normal


@pytest.mark.parametrize(
    ("changed", "field", "rule"),
    [
        ({"phrase": "  "}, "phrase", "words"),
        ({"width": 0}, "x, y, width, height", "box_area"),
        ({"x": 20}, "x, y, width, height", "box_in_frame"),
        ({"y": None}, "y", "number"),
        ({"image_id": 4}, "image_id", "image_equal"),
        ({"region_id": 40}, "id", "id_unique"),
        ({"region_id": "x"}, "region_id", "number"),
    ],
)
def test_a_bad_region_is_named_and_the_others_go_on(take, tmp_path: Path, changed, field, rule):
    regions = [REGION, {**REGION, "region_id": 51, **changed}, {**REGION, "region_id": 52}]
    samples, dropped, _ = take("visual-genome", put(tmp_path, {"id": 5, "regions": regions}))
    assert [each.id for each in samples] == [f"visual-genome-{number}" for number in (40, 50, 52, 60)]
    where = f"{tmp_path / 'region_descriptions.json'}, [1], regions[1]"
    assert [(each.where, each.field, each.rule) for each in dropped] == [(where, field, rule)]


@pytest.mark.parametrize(
    ("row", "images", "where", "field", "rule"),
    [
        ([], IMAGES, "region_descriptions.json, [1]", "", "object"),
        ({"id": 5}, IMAGES, "region_descriptions.json, [1]", "", "missing"),
        ({"id": 5, "regions": {}}, IMAGES, "region_descriptions.json, [1]", "regions", "list"),
        ({"id": 5, "regions": [7]}, IMAGES, "region_descriptions.json, [1], regions[0]", "", "object"),
        ({"id": 7, "regions": [REGION]}, IMAGES, "region_descriptions.json, [1]", "id", "id_known"),
        ({"id": 5, "regions": [REGION]}, [*IMAGES[::2], {**IMAGES[1], "height": 0}], "image_data.json, [2]", "height", "frame_size"),
        ({"id": 5, "regions": [REGION]}, [*IMAGES[::2], {**IMAGES[1], "url": None}], "image_data.json, [2]", "url", "words"),
        ({"id": 5, "regions": [REGION]}, [*IMAGES, IMAGES[1]], "image_data.json, [3]", "image_id", "id_unique"),
    ],
)
def test_a_bad_image_is_named_and_the_others_go_on(take, tmp_path: Path, row, images, where, field, rule):
    samples, dropped, _ = take("visual-genome", put(tmp_path, row, images))
    assert [each.id for each in samples] == ["visual-genome-40", "visual-genome-60"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{tmp_path}/{where}", field, rule)]


def test_a_thousand_broken_images_are_dropped_or_read(withstands, tmp_path: Path):
    whole = {"row": {"id": 5, "regions": [REGION, {**REGION, "region_id": 51}]}, "image": IMAGES[1]}

    def written(raw: bytes) -> Path:
        try:
            document = json.loads(raw)
            return put(tmp_path, document.get("row"), [IMAGES[0], document.get("image"), IMAGES[2]])
        except (ValueError, UnicodeDecodeError, AttributeError):
            put(tmp_path, None)
            (tmp_path / "image_data.json").write_bytes(raw)
            return tmp_path

    withstands("visual-genome", written, whole, good=["visual-genome-40", "visual-genome-60"])


OBJECT = {"object_id": 70, "names": ["dog"], "x": 1, "y": 2, "w": 3, "h": 4}


def put_objects(folder: Path, row: object, images: object = IMAGES) -> Path:
    around = [{"image_id": number, "objects": [OBJECT]} for number in (4, 6)]
    (folder / "objects.json").write_text(json.dumps([around[0], row, around[1]]))
    (folder / "image_data.json").write_text(json.dumps(images))
    return folder


def test_objects_by_name_by_hand(take, tiny, same_from_file):
    samples, dropped, reading = take("visual-genome", tiny / "visual-genome", variant="objects", split="train")
    assert [(each.id, [box.xyxy for box in each.targets.region]) for each in samples] == [
        ("visual-genome-objects-1-clock", [(4, 2, 14, 7)]),
        ("visual-genome-objects-1-tree", [(0, 1, 3, 10), (14, 1, 20, 9)]),
    ]
    clock, trees = samples
    assert "the clock" in clock.conversation[0].text and clock.conversation[1].text == "<region>"
    assert "each tree" in trees.conversation[0].text and trees.conversation[1].text == "<region> <region>"
    assert [each["object_id"] for each in trees.meta["raw"]["objects"]] == [502, 503, 505]
    assert [(each.where.rpartition("json, ")[2], each.field, each.rule) for each in dropped] == [
        ("[0], objects[4]", "x, y, w, h", "box_area")
    ]
    cut, twice = "box cut at the edge of its frame", "box of one name given twice left out"
    assert reading.counts["adjusted"] == {cut: 1, twice: 1}
    same_from_file(samples)


@pytest.mark.parametrize(
    ("changed", "field", "rule"),
    [
        ({"names": []}, "names", "words"),
        ({"names": [" "]}, "names", "words"),
        ({"names": "dog"}, "names", "texts"),
        ({"names": None}, "names", "texts"),
        ({"names": ["cat"], "w": 0}, "x, y, w, h", "box_area"),
        ({"names": ["cat"], "h": "x"}, "h", "number"),
        ({"names": ["cat"], "x": 20}, "x, y, w, h", "box_in_frame"),
    ],
)
def test_a_bad_object_is_named_and_other_names_go_on(take, tmp_path: Path, changed, field, rule):
    objects = [OBJECT, {**OBJECT, **changed}, {**OBJECT, "names": ["cow"]}]
    samples, dropped, _ = take("visual-genome", put_objects(tmp_path, {"image_id": 5, "objects": objects}), variant="objects")
    assert [each.id for each in samples] == [f"visual-genome-objects-{name}" for name in ("4-dog", "5-dog", "5-cow", "6-dog")]
    where = f"{tmp_path / 'objects.json'}, [1], objects[1]"
    assert [(each.where, each.field, each.rule) for each in dropped] == [(where, field, rule)]


def test_an_object_of_a_name_that_is_no_box_takes_the_whole_name_with_it(take, tmp_path: Path):
    objects = [OBJECT, {**OBJECT, "names": ["cow"]}, {**OBJECT, "w": -1}]
    samples, dropped, _ = take("visual-genome", put_objects(tmp_path, {"image_id": 5, "objects": objects}), variant="objects")
    assert [each.id for each in samples] == [f"visual-genome-objects-{name}" for name in ("4-dog", "5-cow", "6-dog")]
    assert [(each.where.rpartition("json, ")[2], each.rule) for each in dropped] == [("[1], objects[0]", "box_area")]


@pytest.mark.parametrize(
    ("row", "field", "rule"),
    [([], "", "object"), ({"image_id": 5}, "", "missing"), ({"image_id": 7, "objects": []}, "image_id", "id_known")],
)
def test_a_bad_image_of_objects_is_named(take, tmp_path: Path, row, field, rule):
    samples, dropped, _ = take("visual-genome", put_objects(tmp_path, row), variant="objects")
    assert len(samples) == 2 and [(each.field, each.rule) for each in dropped] == [(field, rule)]


def test_a_thousand_broken_images_of_objects_are_dropped_or_read(withstands, tmp_path: Path):
    whole = {"image_id": 5, "objects": [OBJECT, {**OBJECT, "names": ["cow", "ox"], "x": 5}, {**OBJECT, "x": 9}]}

    def written(raw: bytes) -> Path:
        put_objects(tmp_path, None)
        around = [json.dumps({"image_id": number, "objects": [OBJECT]}).encode() for number in (4, 6)]
        (tmp_path / "objects.json").write_bytes(b"[" + around[0] + b", " + raw + b", " + around[1] + b"]")
        return tmp_path

    good = ["visual-genome-objects-4-dog", "visual-genome-objects-6-dog"]
    withstands("visual-genome", written, whole, good=good, variant="objects")
