"""RefCOCO, RefCOCO+ and RefCOCOg: what an expression refers to in a COCO image, as a box or as a mask. Every sentence is one sample.

Source: the refer toolbox (refer.py, data/), and the JSONL form that Shikra and others made of it.
Differs in: the image's name is that of the table of images; the one in the references has the annotation's number behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_lab.datasets.formats.boxes import PIXELS_XYWH, PIXELS_XYXY, Size, box_in, frame_size
from tpo_lab.datasets.formats.coco import joined, object_rle, table
from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.referring import Referring, write
from tpo_lab.errors import UsageError
from tpo_lab.files import BadRecord, Record, Streamed, record, stream_jsonl
from tpo_lab.files.pickles import read_pickle
from tpo_lab.sample import Sample

SPLITS = ("train", "val", "testA", "testB", "test")
BOX, MASK = VARIANTS = ("box", "mask")
REFS = ("refs(unc).p", "refs(umd).p", "refs(google).p")
"""The first of these is read where the source is a folder: the splits that results are reported on."""


@dataclass(frozen=True)
class _Shown:
    """What the expressions of one reference share."""

    image: str
    size: Size
    split: str
    dataset: str
    xyxy: tuple[float, float, float, float] | None
    rle: dict[str, Any] | None


def rows(source: Source) -> Iterator[Streamed]:
    """One reference, an object with its sentences, and beside them the rows of its annotation and its image; or a line of JSONL.

    Raises:
        UsageError: the files are no such files, there is no reference in the split, or masks are wanted of a file that has none.
    """
    if not _is_lines(source):
        return _references(source)
    if source.variant == MASK:
        raise UsageError(str(source.path), expected="a pickle of references, since there are no masks in JSONL", got="variant mask")
    return stream_jsonl(source.path)


def parts(record: Record, source: Source) -> Iterable[Record]:
    """One sentence each, all of them or, where what they refer to is broken, none."""
    if _is_lines(source):
        return [record]
    sentences = record.several("sentences")
    numbers = record.several("sent_ids") if "sent_ids" in record.fields else sentences
    if len(numbers) != len(sentences):
        raise record.bad("sent_ids", "lengths_equal", f"as many as sentences ({len(sentences)})", len(numbers))
    shown = _shown(record, source)
    ref = {name: value for name, value in record.fields.items() if name not in ("sentences", "sent_ids", "annotations", "images")}
    fields = {"ref": ref, "shown": shown}
    return [Record(f"{record.where}, sentences[{place}]", {**fields, "sentence": each}) for place, each in enumerate(sentences)]


def sample(record: Record, source: Source) -> Sample:
    """One expression with its box, or in the variant "mask" with its mask."""
    return (_of_line if _is_lines(source) else _of_sentence)(record, source).sample()


def _references(source: Source) -> Iterator[Streamed]:
    path, instances = _refs(source), source.beside("instances", "instances.json")
    document = read_pickle(path)
    if not isinstance(document, list):
        raise UsageError(str(path), expected="a list of references", got=type(document).__name__)
    chosen = list(_chosen(path, document, source.split))
    if not chosen:
        there = sorted({str(each.get("split")) for each in document if isinstance(each, dict)})
        raise UsageError("split", expected=f"one that {path} has: {', '.join(there)[:120]}", got=source.split)
    refs = [each for each in chosen if isinstance(each, Record)]
    shape = "segmentation" if source.variant == MASK else "bbox"
    annotations = table(instances, "annotations", ("image_id", shape), wanted=_numbers(refs, "ann_id"))
    images = table(instances, "images", ("file_name", "width", "height"), wanted=_numbers(refs, "image_id"))
    for each in chosen:
        yield each if isinstance(each, BadRecord) else Record(each.where, {**each.fields, "annotations": annotations, "images": images})


def _chosen(path: Path, document: list[Any], split: str) -> Iterator[Streamed]:
    """The references of a split, or all of them; broken ones in their place."""
    for place, value in enumerate(document):
        try:
            found = record(f"{path}, [{place}]", value)
            if found.text("split") not in SPLITS:
                raise found.bad("split", "split_known", f"one of {', '.join(SPLITS)}", found.fields["split"])
        except BadRecord as bad:
            yield bad
            continue
        if split in ("", found.fields["split"]):
            yield found


def _numbers(refs: Iterable[Record], field: str) -> set[int]:
    return {each.fields[field] for each in refs if type(each.fields.get(field)) is int}


def _shown(ref: Record, source: Source) -> _Shown:
    image = joined(ref, "image_id", ref.fields["images"], "images")
    annotation = joined(ref, "ann_id", ref.fields["annotations"], "annotations")
    if annotation.integer("image_id") != ref.integer("image_id"):
        raise annotation.bad(
            "image_id", "image_equal", f"the image of the reference, {ref.integer('image_id')}", annotation.integer("image_id")
        )
    size, path, split = frame_size(image), _refs(source), ref.text("split")
    given = re.search(r"\((\w+)\)", path.name)
    dataset = "_".join(each for each in (_dataset(path), given[1] if given else "", split) if each)
    xyxy = rle = None
    if source.variant == MASK:
        rle = object_rle(annotation, "segmentation", size)
    else:
        xyxy = box_in(annotation, "bbox", annotation.value("bbox"), PIXELS_XYWH, size, source)
    return _Shown(image.words("file_name"), size, split, dataset, xyxy, rle)


def _of_sentence(part: Record, source: Source) -> Referring:
    sentence, shown = record(part.where, part.fields["sentence"]), part.fields["shown"]
    return Referring(
        name=f"{_dataset(_refs(source))}-{sentence.integer('sent_id')}",
        source="refcoco",
        split=shown.split,
        image=shown.image,
        size=shown.size,
        expression=sentence.words("sent"),
        dataset=shown.dataset,
        raw={**sentence.fields, **part.fields["ref"]},
        xyxy=shown.xyxy,
        rle=shown.rle,
    )


def _of_line(line: Record, source: Source) -> Referring:
    size, dataset = frame_size(line), line.words("dataset_name") if "dataset_name" in line.fields else "refcoco"
    return Referring(
        # there is no id in this form, and expressions come twice
        name=f"{dataset}-line{line.where.rpartition(' ')[2]}",
        source="refcoco",
        split=source.split,
        image=line.words("img_path"),
        size=size,
        expression=line.words("expression"),
        dataset=dataset,
        raw=line.fields,
        xyxy=box_in(line, "bbox", line.value("bbox"), PIXELS_XYXY, size, source),
    )


def _is_lines(source: Source) -> bool:
    return source.path.suffix == ".jsonl"


def _refs(source: Source) -> Path:
    """The pickle of references."""
    if not source.path.is_dir():
        return source.path
    return source.beside("refs", *(name.replace("(", "[(]").replace(")", "[)]") for name in REFS))


def _dataset(path: Path) -> str:
    """Which of the three: the folder's name. Sentences are numbered in each anew."""
    return path.resolve().parent.name if path.resolve().parent.name in ("refcoco", "refcoco+", "refcocog") else "refcoco"


REFCOCO = Format(
    name="refcoco",
    title="RefCOCO, RefCOCO+, RefCOCOg",
    home="refer (lichengunc), data/; images of COCO train2014",
    licence="not stated (refer itself: Apache-2.0)",
    layout=(
        "refcoco/, refcoco+/ or refcocog/, or in it refs(unc).p, refs(umd).p, refs(google).p; beside it instances.json\n"
        "or REC_refcoco_unc_val.jsonl, the form of Shikra\n"
        "images {file_name} in the folder of the media"
    ),
    rows=rows,
    parts=parts,
    sample=sample,
    variants=VARIANTS,
    splits=SPLITS,
    sides=("refs", "instances"),
    write=write,
    tasks=("region", "mask"),
)
