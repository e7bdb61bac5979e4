"""Visual Genome: phrases that describe a region of an image, some fifty an image, each with a box; or its objects by name.

A name may stand for several objects of an image. The question is about all of them then, since no one could tell which is meant.
Source: the data set's region_descriptions.json, objects.json and image_data.json, as visual_genome_python_driver reads them.
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

VARIANTS = ("regions", "objects")
TWICE = "box of one name given twice left out"


def rows(source: Source) -> Iterator[Streamed]:
    """One image with its regions or objects, and beside it what is known of all images.

    Raises:
        UsageError: one of the files is missing or broken.
    """
    file = "objects.json" if source.variant == VARIANTS[1] else "region_descriptions.json"
    path = source.beside(source.variant or VARIANTS[0], file) if source.path.is_dir() else source.path
    images = _images(source.beside("image_data", "image_data.json"))
    for row in stream_items(path):
        yield row if isinstance(row, BadRecord) else Record(row.where, {**row.fields, "images": images})


def parts(record: Record, source: Source) -> Iterable[Record]:
    """One region or one name each, all of an image or, where the image is not known, none."""
    image = _image(record, record.fields["images"])
    if source.variant == VARIANTS[1]:
        return _by_name(record, image)
    fields = {"id": record.fields["id"], "image": image}
    return [
        Record(f"{record.where}, regions[{place}]", {**fields, "region": region}) for place, region in enumerate(record.several("regions"))
    ]


def _by_name(record: Record, image: Image) -> list[Record]:
    """The objects of an image by the first of their names, in the order in which names come first; what has no name stands alone."""
    groups: dict[object, list[int]] = {}
    objects = record.several("objects")
    for place, entry in enumerate(objects):
        names = entry.get("names") if isinstance(entry, dict) else None
        first = names[0] if isinstance(names, list) and names else None
        groups.setdefault(phrase(first) if isinstance(first, str) and first.strip() else place, []).append(place)
    fields = {"image_id": record.fields[record.named("id", "image_id")], "image": image}
    return [
        Record(f"{record.where}, objects[{places[0]}]", {**fields, "objects": [objects[place] for place in places]})
        for places in groups.values()
    ]


def sample(part: Record, source: Source) -> Sample:
    """One region, where is what the phrase says? Or one name: where is it, or each that has it?"""
    if source.variant == VARIANTS[1]:
        return _named(part, source)
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


def _named(part: Record, source: Source) -> Sample:
    """All objects of one name; if one of them is no box, all are dropped, since the answer would not be whole."""
    number, (path, size) = part.integer("image_id"), part.fields["image"]
    boxes: list[tuple[float, float, float, float]] = []
    for entry in part.fields["objects"]:
        each = record(part.where, entry)
        given = [each.number(side) for side in ("x", "y", "w", "h")]
        box = box_in(each, "x, y, w, h", given, PIXELS_XYWH, size, source)
        if box in boxes:
            source.adjusted[TWICE] += 1
        else:
            boxes.append(box)
    first = record(part.where, part.fields["objects"][0])
    names = first.texts("names")
    if not names or not names[0].strip():
        raise first.bad("names", "words", "a name that is not empty", names)
    name = phrase(names[0])
    key = f"{number}-{name}"
    return Sample.model_validate(
        {
            "id": f"visual-genome-objects-{key}",
            "source": "visual-genome",
            "split": source.split,
            "media": {"path": path},
            "conversation": region_turns(key, f"the {name}" if len(boxes) == 1 else f"each {name}", len(boxes)),
            "targets": {"region": [{"xyxy": box} for box in boxes]},
            "meta": {"task": "region", "size": list(size), "raw": {"image_id": number, "objects": part.fields["objects"]}},
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
    number = record.integer("id", "image_id")
    found = images.get(number)
    if found is None:
        raise record.bad(record.named("id", "image_id"), "id_known", "the number of an image in image_data.json", number)
    if isinstance(found, BadRecord):
        raise found
    return found


VISUAL_GENOME = Format(
    name="visual-genome",
    title="Visual Genome, region descriptions and objects",
    home="visual_genome_python_driver (ranjaykrishna); data from the project's page",
    licence="not stated",
    layout=(
        "region_descriptions.json, with --variant objects objects.json, or their folder; beside it image_data.json\n"
        "images VG_100K/{image_id}.jpg and VG_100K_2/{image_id}.jpg"
    ),
    rows=rows,
    parts=parts,
    sample=sample,
    variants=VARIANTS,
    sides=("regions", "objects", "image_data"),
    tasks=("region",),
)
