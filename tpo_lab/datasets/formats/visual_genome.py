"""Visual Genome: phrases that describe a region of an image, some fifty an image, each with a box.

Source: the data set's region_descriptions.json and image_data.json, as visual_genome_python_driver reads them.
Differs in: boxes are cut at the edge of their image, and those without a size are left out; phrases begin like the middle of a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tpo_lab.datasets.formats.boxes import PIXELS_XYWH, Size, box_in, frame_size
from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.turns import region_turns
from tpo_lab.files import BadRecord, Record, Streamed, record, stream_items
from tpo_lab.sample import Sample

Image = tuple[str, Size]
"""Path and size."""


def rows(source: Source) -> Iterator[Streamed]:
    """One image with its regions, and beside it what is known of all images.

    Raises:
        UsageError: one of the files is missing or broken.
    """
    path = source.beside("regions", "region_descriptions.json") if source.path.is_dir() else source.path
    images = _images(source.beside("image_data", "image_data.json"))
    for row in stream_items(path):
        yield row if isinstance(row, BadRecord) else Record(row.where, {**row.fields, "images": images})


def parts(record: Record, source: Source) -> Iterable[Record]:
    """One region each, all of an image or, where the image is not known, none."""
    image = _image(record, record.fields["images"])
    fields = {"id": record.fields["id"], "image": image}
    return [
        Record(f"{record.where}, regions[{place}]", {**fields, "region": region}) for place, region in enumerate(record.several("regions"))
    ]


def sample(part: Record, source: Source) -> Sample:
    """One region: where is what the phrase says?"""
    region, number = record(part.where, part.fields["region"]), part.integer("id")
    if "image_id" in region.fields and region.integer("image_id") != number:
        raise region.bad("image_id", "image_equal", f"the image that the region stands at, {number}", region.fields["image_id"])
    path, size = part.fields["image"]
    name, given = region.integer("region_id"), [region.number(side) for side in ("x", "y", "width", "height")]
    box = box_in(region, "x, y, width, height", given, PIXELS_XYWH, size, source)
    return Sample.model_validate(
        {
            "id": f"visual-genome-{name}",
            "source": "visual-genome",
            "split": source.split,
            "media": {"path": path},
            "conversation": region_turns(str(name), phrase(region.words("phrase"))),
            "targets": {"region": [{"xyxy": box}]},
            "meta": {"task": "region", "size": list(size), "raw": dict(region.fields)},
        }
    )


def phrase(text: str) -> str:
    """A phrase as it stands in the middle of a sentence: one blank between words, no full stop, no capital letter at its start.

    Several words that are all in capitals become small. One among others is kept, since it mostly is what a sign says.
    """
    words = text.split()
    if words and text.isupper() and len(words) > 1:
        words = [word.lower() for word in words]
    if words and words[0].istitle():
        words[0] = words[0].lower()
    joined = " ".join(words)
    return joined.rstrip(" .") or joined


def _images(path: Path) -> Mapping[int, Image | BadRecord]:
    """Path and size of every image by its number, or what is wrong with its entry."""
    found: dict[int, Image | BadRecord] = {}
    for row in stream_items(path):
        number = None if isinstance(row, BadRecord) else row.fields.get("image_id", row.fields.get("id"))
        if isinstance(row, BadRecord) or type(number) is not int:
            continue
        try:
            if number in found:
                raise row.bad("image_id", "id_unique", "a number that no image before it has", number)
            # the images lie in two folders, and only their addresses say in which
            found[number] = ("/".join(row.words("url").split("/")[-2:]), frame_size(row))
        except BadRecord as bad:
            found[number] = bad
    return found


def _image(record: Record, images: Mapping[int, Image | BadRecord]) -> Image:
    number = record.integer("id")
    found = images.get(number)
    if found is None:
        raise record.bad("id", "id_known", "the number of an image in image_data.json", number)
    if isinstance(found, BadRecord):
        raise found
    return found


VISUAL_GENOME = Format(
    name="visual-genome",
    title="Visual Genome, region descriptions",
    home="visual_genome_python_driver (ranjaykrishna); data from the project's page",
    licence="not stated",
    layout=(
        "region_descriptions.json or its folder; beside it image_data.json\nimages VG_100K/{image_id}.jpg and VG_100K_2/{image_id}.jpg"
    ),
    rows=rows,
    parts=parts,
    sample=sample,
    sides=("regions", "image_data"),
    tasks=("region",),
)
