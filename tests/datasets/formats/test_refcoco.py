"""RefCOCO/+/g in three forms, as boxes and as masks: values by hand, broken records, and the truth through the scorers."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tpo_lab.datasets.formats import format_named
from tpo_lab.datasets.formats.coco import object_rle
from tpo_lab.errors import MissingExtraError, UsageError
from tpo_lab.files import BadRecord, Record
from tpo_lab.rle import decode_rle, encode_rle
from tpo_lab.scoring import Request, score


def test_every_sentence_is_a_sample_with_the_box_of_its_annotation(take, tiny, same_from_file):
    samples, dropped, reading = take("refcoco", tiny / "refcoco")
    assert [(each.id, each.split) for each in samples] == [
        ("refcoco-5", "train"),
        ("refcoco-6", "train"),
        ("refcoco-7", "testA"),
        ("refcoco-8", "val"),
    ]
    first, second, cut, accented = samples
    assert first.media.path == "COCO_train2014_000000000011.jpg", "the name in the table of images, not that of the reference"
    assert first.targets.region[0].xyxy == second.targets.region[0].xyxy == (2, 3, 6, 5)
    assert "left cup" in first.conversation[0].text and "the red cup" in second.conversation[0].text
    assert first.conversation[1].text == "<region>"
    assert first.meta["task"] == "region" and first.meta["size"] == [20, 12] and first.meta["dataset_name"] == "refcoco_unc_train"
    assert first.meta["raw"] == {
        "ref_id": 1,
        "ann_id": 101,
        "category_id": 1,
        "image_id": 11,
        "file_name": "COCO_train2014_000000000011_101.jpg",
        "split": "train",
        "sent_id": 5,
        "sent": "left cup",
        "raw": "left cup",
        "tokens": ["left", "cup"],
    }
    assert cut.targets.region[0].xyxy == (10.5, 1, 20, 9.25)
    assert "café sign" in accented.conversation[0].text
    assert not dropped and reading.counts["adjusted"] == {"box cut at the edge of its frame": 1}
    same_from_file(samples)


@pytest.mark.parametrize(("split", "numbers"), [("train", ["5", "6"]), ("val", ["8"]), ("testA", ["7"])])
def test_a_split_is_read_alone(take, tiny, split, numbers):
    samples, dropped, _ = take("refcoco", tiny / "refcoco" / "refs(unc).p", split=split)
    assert ([each.id for each in samples], dropped) == ([f"refcoco-{number}" for number in numbers], [])
    assert {each.split for each in samples} == {split}


def test_a_split_that_is_not_there_is_an_error(take, tiny):
    with pytest.raises(UsageError, match=r"split: expected one that .* has: testA, train, val, got 'testB'"):
        take("refcoco", tiny / "refcoco", split="testB")


def test_sentences_of_the_three_sets_have_different_names(take, tiny, tmp_path: Path):
    shutil.copytree(tiny / "refcoco", tmp_path / "refcoco+")
    (tmp_path / "refcoco+" / "refs(unc).p").rename(tmp_path / "refcoco+" / "refs(google).p")
    sample = take("refcoco", tmp_path / "refcoco+")[0][0]
    assert (sample.id, sample.meta["dataset_name"]) == ("refcoco+-5", "refcoco+_google_train")


def test_the_tables_may_lie_elsewhere(take, tiny, tmp_path: Path):
    refs = shutil.copy(tiny / "refcoco" / "refs(unc).p", tmp_path)
    with pytest.raises(UsageError, match=r"expected beside it instances\.json.*--with instances=PATH"):
        take("refcoco", Path(refs))
    assert len(take("refcoco", Path(refs), side={"instances": tiny / "refcoco" / "instances.json"})[0]) == 4


def test_masks_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("refcoco", tiny / "refcoco", variant="mask")
    masks = [decode_rle(each.id, each.targets.mask.rle[0].model_dump(mode="json")) for each in samples]
    rectangle, run = np.zeros((12, 20), dtype=bool), np.zeros((20, 12), dtype=bool)
    rectangle[3:5, 2:6] = True
    run[2:4, 1] = True
    assert (masks[0] == rectangle).all() and (masks[3] == run).all()
    assert masks[2][:2, :2].all() and masks[2][2, 16] and not masks[2][8, 12], "both of its polygons"
    assert samples[0].conversation[1].text == "<mask>" and samples[0].targets.mask.times_sec == (0.0,)
    assert samples[0].targets.names == ("mask",) and samples[0].meta["task"] == "mask"
    assert not dropped and len(samples) == 4
    same_from_file(samples)


def test_polygons_without_pycocotools_name_the_extra(take, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(MissingExtraError, match=r"Filling polygons needs the module 'pycocotools'.*tpo-lab\[coco\]"):
        take("refcoco", tiny / "refcoco", variant="mask")
    assert len(take("refcoco", tiny / "refcoco", variant="mask", split="val")[0]) == 1, "run lengths need none"


def test_lines_are_named_by_their_place_and_equal_ones_stay(take, tiny, same_from_file):
    samples, dropped, _ = take("refcoco", tiny / "refcoco" / "REC_refcoco_unc_val.jsonl", split="val")
    assert [each.id for each in samples] == [f"refcoco_unc_val-line{number}" for number in (1, 2, 3)]
    assert [each.targets.region[0].xyxy for each in samples] == [(2, 3, 6, 5), (2, 3, 6, 5), (1, 2, 2, 4)]
    assert "sign with [region]" in samples[2].conversation[0].text and samples[2].meta["size"] == [12, 20]
    assert not dropped
    same_from_file(samples)


def test_lines_have_no_masks(take, tiny):
    with pytest.raises(UsageError, match="no masks in JSONL, got 'variant mask'"):
        take("refcoco", tiny / "refcoco" / "REC_refcoco_unc_val.jsonl", variant="mask")


def test_the_form_of_mdetr(take, tiny, same_from_file):
    samples, dropped, _ = take("refcoco-mdetr", tiny / "refcoco-mdetr" / "finetune_refcoco_val.json", split="val")
    assert [(each.id, each.targets.region[0].xyxy) for each in samples] == [
        ("refcoco-mdetr-0", (2, 3, 6, 5)),
        ("refcoco-mdetr-1", (10.5, 1, 19.5, 9.25)),
    ]
    assert "man at the door" in samples[1].conversation[0].text and samples[1].meta["raw"]["original_id"] == 11
    assert not dropped
    same_from_file(samples)


REF = {
    "ref_id": 9,
    "ann_id": 900,
    "category_id": 1,
    "image_id": 90,
    "file_name": "x_900.jpg",
    "split": "train",
    "sent_ids": [70, 71],
    "sentences": [{"sent_id": 70, "sent": "a dog", "raw": "a dog", "tokens": ["a", "dog"]}, {"sent_id": 71, "sent": "the dog"}],
}
ANNOTATION = {"id": 900, "image_id": 90, "bbox": [2.0, 3.0, 4.0, 2.0], "segmentation": [[2, 3, 6, 3, 6, 5]]}
IMAGE = {"id": 90, "file_name": "x.jpg", "width": 20, "height": 12}


def put(folder: Path, ref: object = REF, annotation: object = ANNOTATION, image: object = IMAGE) -> Path:
    """A data set of three references, the middle one as given."""

    def renumbered(number: int) -> list[dict]:
        sentences = [{"sent_id": number, "sent": f"dog {number}"}]
        return [
            {**REF, "ann_id": number, "image_id": number, "sent_ids": [number], "sentences": sentences},
            {**ANNOTATION, "id": number, "image_id": number},
            {**IMAGE, "id": number},
        ]

    refs, annotations, images = zip(renumbered(1), (ref, annotation, image), renumbered(2), strict=True)
    (folder / "refs(unc).p").write_bytes(pickle.dumps(list(refs), protocol=2))
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder


SENTENCE = {"sent_id": 70, "sent": "a dog"}


@pytest.mark.parametrize(
    ("changed", "where", "field", "rule"),
    [
        ({"ref": 5}, "{refs}, [1]", "", "object"),
        ({"ref": {**REF, "split": "dev"}}, "{refs}, [1]", "split", "split_known"),
        ({"ref": {**REF, "sent_ids": [70]}}, "{refs}, [1]", "sent_ids", "lengths_equal"),
        ({"ref": {**REF, "sentences": "a dog"}}, "{refs}, [1]", "sentences", "list"),
        ({"ref": {**REF, "ann_id": 7}}, "{refs}, [1]", "ann_id", "id_known"),
        ({"ref": {**REF, "image_id": 7}}, "{refs}, [1]", "image_id", "id_known"),
        ({"ref": {**REF, "image_id": "90"}}, "{refs}, [1]", "image_id", "number"),
        ({"ref": {**REF, "ann_id": 1}}, "{refs}, [1], ann_id 1 of the annotations", "image_id", "image_equal"),
        ({"annotation": {**ANNOTATION, "id": 1}}, "{refs}, [1]", "ann_id", "id_known"),
        ({"annotation": {**ANNOTATION, "bbox": [2, 3, 0, 2]}}, "{refs}, [1], ann_id 900 of the annotations", "bbox", "box_area"),
        ({"annotation": {**ANNOTATION, "bbox": [20, 3, 1, 2]}}, "{refs}, [1], ann_id 900 of the annotations", "bbox", "box_in_frame"),
        ({"annotation": {**ANNOTATION, "bbox": [2, 3, 1]}}, "{refs}, [1], ann_id 900 of the annotations", "bbox", "numbers"),
        ({"annotation": {"id": 900, "image_id": 90}}, "{refs}, [1], ann_id 900 of the annotations", "", "missing"),
        ({"image": {**IMAGE, "width": 0}}, "{refs}, [1], image_id 90 of the images", "width", "frame_size"),
        ({"image": {**IMAGE, "file_name": ""}}, "{refs}, [1], image_id 90 of the images", "file_name", "words"),
        ({"ref": {**REF, "sent_ids": [1], "sentences": [{"sent_id": 1, "sent": "a"}]}}, "{refs}, [1], sentences[0]", "id", "id_unique"),
        ({"ref": {**REF, "sent_ids": [70], "sentences": ["a"]}}, "{refs}, [1], sentences[0]", "", "object"),
        ({"ref": {**REF, "sent_ids": [70], "sentences": [{**SENTENCE, "sent": " "}]}}, "{refs}, [1], sentences[0]", "sent", "words"),
        ({"ref": {**REF, "sent_ids": [70], "sentences": [{"sent": "a"}]}}, "{refs}, [1], sentences[0]", "", "missing"),
    ],
)
def test_a_bad_reference_is_named_and_the_others_go_on(take, tmp_path: Path, changed, where, field, rule):
    samples, dropped, _ = take("refcoco", put(tmp_path, **changed), split="train")
    good = [each for each in samples if each.id in ("refcoco-1", "refcoco-2")]
    if changed.get("annotation", {}).get("id") == 1:  # its number is now another's
        assert [each.id for each in good] == ["refcoco-2"] and dropped[0].rule == "id_unique"
        dropped = dropped[1:]
    else:
        assert len(good) == len(samples) == 2
    assert [(each.where, each.field, each.rule) for each in dropped] == [(where.format(refs=tmp_path / "refs(unc).p"), field, rule)]


def test_a_bad_sentence_leaves_the_others_of_its_reference(take, tmp_path: Path):
    sentences = [SENTENCE, {"sent_id": 71, "sent": None}, {"sent_id": 72, "sent": "the dog"}]
    samples, dropped, _ = take("refcoco", put(tmp_path, ref={**REF, "sent_ids": [70, 71, 72], "sentences": sentences}))
    assert [each.id for each in samples] == ["refcoco-1", "refcoco-70", "refcoco-72", "refcoco-2"]
    assert [(each.where.rpartition(", ")[2], each.rule) for each in dropped] == [("sentences[1]", "words")]


@pytest.mark.parametrize(
    ("segmentation", "field", "rule"),
    [
        ([], "segmentation", "mask_empty"),
        ([[2, 3, 6, 3]], "segmentation[0]", "polygon"),
        ([[2, 3, 6, 3, 6]], "segmentation[0]", "polygon"),
        ([[2, 3, 6, 3, 6, "5"]], "segmentation[0][2]", "numbers"),
        ([[2, 3, 6, 3, 6, 5], [2, 3, 6, 3, 6, 10**12]], "segmentation[1]", "polygon_in_frame"),
        ([[2, 3, 2, 3, 2, 3]], "segmentation", "mask_empty"),
        ({"size": [20, 12], "counts": [1, 239]}, "segmentation", "mask_size"),
        ({"size": 20, "counts": [1, 239]}, "segmentation", "mask_size"),
        ({"size": [12, 20], "counts": [1, 2]}, "segmentation", "mask_rle"),
        ({"size": [12, 20]}, "segmentation", "mask_rle"),
        ({"size": [12, 20], "counts": [240]}, "segmentation", "mask_empty"),
        ("0", "segmentation", "mask_size"),
    ],
)
def test_a_bad_mask_is_named_and_the_others_go_on(take, tmp_path: Path, segmentation, field, rule):
    source = put(tmp_path, annotation={**ANNOTATION, "segmentation": segmentation})
    samples, dropped, _ = take("refcoco", source, variant="mask")
    assert [each.id for each in samples] == ["refcoco-1", "refcoco-2"]
    where = f"{tmp_path / 'refs(unc).p'}, [1], ann_id 900 of the annotations"
    assert [(each.where, each.field, each.rule) for each in dropped] == [(where, field, rule)]


@pytest.mark.parametrize(
    ("changed", "field", "rule"),
    [
        ({"bbox": [6, 3, 2, 5]}, "bbox", "box_area"),
        ({"bbox": None}, "bbox", "numbers"),
        ({"img_path": ""}, "img_path", "words"),
        ({"expression": 5}, "expression", "words"),
        ({"height": -12}, "height", "frame_size"),
        ({"dataset_name": None}, "dataset_name", "words"),
    ],
)
def test_a_bad_line_is_named_and_the_others_go_on(take, tiny, tmp_path: Path, changed, field, rule):
    lines = (tiny / "refcoco" / "REC_refcoco_unc_val.jsonl").read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), **changed})
    path = tmp_path / "lines.jsonl"
    path.write_text("\n".join(lines))
    samples, dropped, _ = take("refcoco", path)
    assert [each.id for each in samples] == ["refcoco_unc_val-line1", "refcoco_unc_val-line3"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{path}, line 2", field, rule)]


@pytest.mark.parametrize(
    ("table", "changed", "where", "field", "rule"),
    [
        ("images", {"caption": ""}, "images, [0]", "caption", "words"),
        ("images", {"id": 17}, "images, [0]", "id", "id_known"),
        ("images", {"width": None}, "images, [0]", "width", "number"),
        ("annotations", {"image_id": 17}, "images, [0]", "id", "id_known"),
        ("annotations", {"bbox": [0, 0, 0, 0]}, "images, [0], id 0 of the annotations", "bbox", "box_area"),
    ],
)
def test_a_bad_entry_of_mdetr_is_named_and_the_others_go_on(take, tiny, tmp_path: Path, table, changed, where, field, rule):
    document = json.loads((tiny / "refcoco-mdetr" / "finetune_refcoco_val.json").read_text())
    place = next(place for place, each in enumerate(document[table]) if each.get("image_id", each["id"]) == 0)
    document[table][place].update(changed)
    (tmp_path / "f.json").write_text(json.dumps(document))
    samples, dropped, _ = take("refcoco-mdetr", tmp_path / "f.json")
    assert [each.id for each in samples] == ["refcoco-mdetr-1"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{tmp_path / 'f.json'}, {where}", field, rule)]


def test_an_image_of_mdetr_with_two_annotations_is_named(take, tiny, tmp_path: Path):
    document = json.loads((tiny / "refcoco-mdetr" / "finetune_refcoco_val.json").read_text())
    document["annotations"].append(document["annotations"][1])
    (tmp_path / "f.json").write_text(json.dumps(document))
    samples, dropped, _ = take("refcoco-mdetr", tmp_path / "f.json")
    assert [each.id for each in samples] == ["refcoco-mdetr-1"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [
        (f"{tmp_path / 'f.json'}, annotations, [2]", "image_id", "id_unique")
    ]


@pytest.mark.parametrize("variant", ["box", "mask"])
def test_the_truth_as_a_submission_scores_100(take, tiny, tmp_path: Path, variant):
    samples, path = take("refcoco", tiny / "refcoco", variant=variant)[0], tmp_path / "truth.jsonl"
    assert format_named("refcoco").write(samples, path) == 4
    report = score("refcoco" if variant == "box" else "refseg", Request(path, path))
    if variant == "mask":
        assert report.metrics["gIoU"] == pytest.approx(100, abs=1e-3) and report.metrics["cIoU"] == pytest.approx(100)
        return
    assert report.metrics["Acc@0.5"] == report.metrics["mIoU"] == 100
    assert report.detail["Acc@0.5"] == dict.fromkeys(("refcoco_unc_testA", "refcoco_unc_train", "refcoco_unc_val"), 100)


def test_the_form_of_shikra_is_its_own_ground_truth(take, tiny, tmp_path: Path):
    path = tiny / "refcoco" / "REC_refcoco_unc_val.jsonl"
    samples, out = take("refcoco", path)[0], tmp_path / "answers.jsonl"
    assert format_named("refcoco").write(samples, out) == 3
    assert score("refcoco", Request(out, path)).metrics["Acc@0.5"] == 100
    # the model gives no box for one of three
    silent = samples[1].model_copy(update={"targets": samples[1].targets.model_copy(update={"region": None})})
    format_named("refcoco").write([samples[0], silent, samples[2]], out)
    report = score("refcoco", Request(out, path))
    assert report.metrics["Acc@0.5"] == pytest.approx(200 / 3) and report.counts.unparsable == 1


def test_an_absent_mask_is_written_as_null(take, tiny, tmp_path: Path):
    sample = take("refcoco", tiny / "refcoco", variant="mask")[0][0]
    silent = sample.model_copy(update={"targets": sample.targets.model_copy(update={"mask": None})})
    format_named("refcoco").write([silent], tmp_path / "out.jsonl")
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert row == {"id": "refcoco-5", "sent_id": 5, "ref_id": 1, "dataset_name": "refcoco_unc_train", "mask": None}


def test_masks_of_coco_results_pass_through_and_have_their_boxes(real):
    from pycocotools import mask as coco

    rows = json.loads((real / "coco_results" / "instances_val2014_fakesegm100_results.json").read_text())
    for place, row in enumerate(rows):
        size = tuple(row["segmentation"]["size"][::-1])
        found = object_rle(Record(f"[{place}]", row), "segmentation", size)
        assert found == row["segmentation"]
        if place % 20 == 0:
            mask = decode_rle("mask", found)
            assert int(mask.sum()) == int(coco.area(found))
            runs = np.diff(np.flatnonzero(np.diff(mask.T.reshape(-1).astype(int), prepend=2, append=2))).tolist()
            listed = {"size": found["size"], "counts": [0, *runs] if mask[0, 0] else runs}
            assert object_rle(Record("r", {"m": listed}), "m", size) == encode_rle(mask) == found
    assert len(rows) == 734


def test_a_thousand_broken_references_are_dropped_or_read(withstands, tmp_path: Path):
    whole = {"ref": REF, "annotation": ANNOTATION, "image": IMAGE}

    def written(raw: bytes) -> Path:
        try:
            document = json.loads(raw)
            return put(tmp_path, **{name: document.get(name) for name in whole})
        except (ValueError, UnicodeDecodeError, AttributeError):
            put(tmp_path)
            (tmp_path / "refs(unc).p").write_bytes(raw)
            return tmp_path

    for variant in ("box", "mask"):
        withstands("refcoco", written, whole, good=["refcoco-1", "refcoco-2"], rounds=500, variant=variant)


def test_a_thousand_broken_lines_are_dropped_or_read(withstands, tiny, tmp_path: Path):
    lines = (tiny / "refcoco" / "REC_refcoco_unc_val.jsonl").read_bytes().splitlines()

    def written(raw: bytes) -> Path:
        (tmp_path / "lines.jsonl").write_bytes(b"\n".join([lines[0], raw, lines[2]]))
        return tmp_path / "lines.jsonl"

    withstands("refcoco", written, json.loads(lines[1]), good=["refcoco_unc_val-line1", "refcoco_unc_val-line3"])


def test_a_thousand_broken_files_of_mdetr_are_dropped_or_refused(withstands, tiny, tmp_path: Path):
    def written(raw: bytes) -> Path:
        (tmp_path / "f.json").write_bytes(raw)
        return tmp_path / "f.json"

    withstands("refcoco-mdetr", written, json.loads((tiny / "refcoco-mdetr" / "finetune_refcoco_val.json").read_text()))


def test_a_pickle_that_would_run_something_is_refused(take, tiny, tmp_path: Path):
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([BadRecord("a", rule="b", expected="c", got=1)]))
    shutil.copy(tiny / "refcoco" / "instances.json", tmp_path)
    with pytest.raises(UsageError, match="expected a pickle of lists, dictionaries, texts and numbers alone"):
        take("refcoco", tmp_path)
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UsageError, match="expected a list of references, got 'dict'"):
        take("refcoco", tmp_path)


def test_the_tiny_pickle_is_what_its_script_writes(tiny):
    spec = importlib.util.spec_from_file_location("make_refcoco", Path(__file__).with_name("make_refcoco.py"))
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert (tiny / "refcoco" / "refs(unc).p").read_bytes() == made.python2_pickle(made.references())


def test_a_sample_without_its_raw_record_cannot_be_submitted(say, tmp_path: Path):
    with pytest.raises(UsageError, match=r"sample s0, meta\.raw: expected the raw record"):
        format_named("refcoco").write([say(0, "Where?")], tmp_path / "s.jsonl")
