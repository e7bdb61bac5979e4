"""RefCOCO, RefCOCO+ and RefCOCOg as MDETR fine-tunes on them: COCO files in which every expression is an image with one annotation.

Source: MDETR's finetune_refcoco_*.json.
"""

from __future__ import annotations

from collections.abc import Iterator

from tpo_lab.datasets.formats.boxes import PIXELS_XYWH, box_in, frame_size
from tpo_lab.datasets.formats.coco import joined, table
from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.referring import Referring, write
from tpo_lab.files import BadRecord, Record, Streamed, stream_items
from tpo_lab.sample import Sample


def rows(source: Source) -> Iterator[Streamed]:
    """One entry of the images, which is one expression, and beside it the annotations by the image's number."""
    annotations = table(source.path, "annotations", ("bbox",), key="image_id")
    for row in stream_items(source.path, ("images",)):
        yield row if isinstance(row, BadRecord) else Record(row.where, {**row.fields, "annotations": annotations})


def sample(record: Record, source: Source) -> Sample:
    """One expression with its box."""
    number, size = record.integer("id"), frame_size(record)
    annotation = joined(record, "id", record.fields["annotations"], "annotations")
    box = box_in(annotation, "bbox", annotation.value("bbox"), PIXELS_XYWH, size, source)
    dataset = record.words("dataset_name") if "dataset_name" in record.fields else "refcoco"
    return Referring(
        name=f"{dataset}-mdetr-{number}",
        source="refcoco-mdetr",
        split=source.split,
        image=record.words("file_name"),
        size=size,
        expression=record.words("caption"),
        dataset=dataset,
        raw={name: value for name, value in record.fields.items() if name != "annotations"},
        xyxy=box,
    ).sample()


REFCOCO_MDETR = Format(
    name="refcoco-mdetr",
    title="RefCOCO, RefCOCO+, RefCOCOg in the form of MDETR",
    home="mdetr (ashkamath), annotations; images of COCO train2014",
    licence="not stated",
    layout="finetune_refcoco_train.json; images {file_name} in the folder of the media",
    rows=rows,
    sample=sample,
    write=write,
    tasks=("region",),
)
