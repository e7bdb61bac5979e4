"""AS-V2: conversations about images whose words carry boxes, as <ref>a dog</ref><box>[[x1, y1, x2, y2]]</box>.

A turn that carries boxes is one sample: where the answer has a box it asks the region head, where the question has one it points at it.
A conversation without any box is one sample as a whole. Turns without boxes beside turns that have some are left out, and counted.

Source: All-Seeing v2 (all-seeing-v2, README and scripts).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tpo_lab.datasets.formats.boxes import AS_V2_SQUARE_XYXY, AS_V2_XYXY, boxes_in, frame_size
from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.turns import unmarked
from tpo_lab.files import Record, Streamed, record, stream_items, stream_jsonl
from tpo_lab.sample import Sample

CONVENTIONS = {"plain": AS_V2_XYXY, "square": AS_V2_SQUARE_XYXY}
BEYOND = 1000
"""The numbers of boxes are below."""
_ROLES = {"human": "user", "gpt": "assistant"}
_BOX = re.compile(r"<box>(.*?)</box>", re.DOTALL)
_TAG = re.compile(r"</?(?:ref|pred)>|<image>")
_NAME, _TURN = _OWN = ("numbered id", "number of the turn")
"""Fields that `rows` and `parts` add."""

Boxes = list[tuple[float, float, float, float]]


def rows(source: Source) -> Iterator[Streamed]:
    """One conversation, with a name: its id, and where ids come again a number behind it."""
    seen: Counter[str] = Counter()
    for row in stream_jsonl(source.path) if source.path.suffix == ".jsonl" else stream_items(source.path):
        if not isinstance(row, Record):
            yield row
            continue
        key = str(row.fields.get("id"))
        seen[key] += 1
        yield Record(row.where, {**row.fields, _NAME: key if seen[key] == 1 else f"{key} #{seen[key]}"})


def parts(record: Record, source: Source) -> Iterable[Record]:
    """Question and answer of every turn with boxes; or the conversation, where it has none."""
    turns = _turns(record)
    pairs = list(zip(turns[::2], turns[1::2], strict=True))
    boxed = [place for place, pair in enumerate(pairs) if any("<box>" in text or "</box>" in text for text in pair)]
    if not boxed:
        return [record]
    if len(boxed) < len(pairs):
        source.adjusted["turn without boxes left out beside one with boxes"] += len(pairs) - len(boxed)
    return [Record(f"{record.where}, conversations[{2 * place}]", {**record.fields, _TURN: place}) for place in boxed]


def sample(record: Record, source: Source) -> Sample:
    """A turn with boxes, or a whole conversation."""
    record.text("id")
    turn, turns = record.fields.get(_TURN), _turns(record)
    if turn is None:
        said = [(f"conversations[{place}].value", _words(text).strip()) for place, text in enumerate(turns)]
        return _made(record, source, str(record.fields[_NAME]), [_filled(record, *each) for each in said], [], [])
    made, found = [], []
    for place, marker in ((2 * turn, "<prompt:{}>"), (2 * turn + 1, "<region>")):
        text, boxes = _boxed(record, f"conversations[{place}].value", turns[place], marker, source)
        made.append(_filled(record, f"conversations[{place}].value", text))
        found.append(boxes)
    return _made(record, source, f"{record.fields[_NAME]}-turn{turn}", made, *found)


def _made(record: Record, source: Source, name: str, texts: list[str], prompts: Boxes, regions: Boxes) -> Sample:
    meta: dict[str, Any] = {"task": "region" if regions else "conversation"}
    if {"width", "height"} <= record.fields.keys():
        meta["size"] = list(frame_size(record))
    return Sample.model_validate(
        {
            "id": f"as-v2-{name}",
            "source": "as-v2",
            "split": source.split,
            "media": {"path": record.words("image")},
            "conversation": [{"role": ("user", "assistant")[place % 2], "text": text} for place, text in enumerate(texts)],
            "prompts": [{"type": "box", "xyxy": box} for box in prompts],
            "targets": {"region": [{"xyxy": box} for box in regions]} if regions else {},
            "meta": {**meta, "raw": _raw(record)},
        }
    )


def _turns(conversation: Record) -> list[str]:
    """The texts, from human and gpt in turn, human first and gpt last.

    Raises:
        BadRecord: there are none, or others.
    """
    texts = []
    for place, value in enumerate(conversation.several("conversations")):
        turn = record(f"{conversation.where}, conversations[{place}]", value)
        due = tuple(_ROLES)[place % 2]
        if turn.text("from") != due:
            raise turn.bad("from", "roles_alternate", f"{due!r}, since turns alternate from the human", turn.fields["from"])
        texts.append(turn.words("value"))
    if not texts or len(texts) % 2:
        raise conversation.bad("conversations", "turns_paired", "one answer for every question, at least one", len(texts))
    return texts


def _boxed(record: Record, field: str, text: str, marker: str, source: Source) -> tuple[str, Boxes]:
    """The text with a marker for each of its boxes, and the boxes xyxy in pixels, in order."""
    pieces, boxes = _BOX.split(text), Boxes()
    if any("<box>" in piece or "</box>" in piece for piece in pieces):
        raise record.bad(field, "box_tags", "<box> and </box> around every list of boxes", text)
    said = _words(pieces[0])
    for written, following in zip(pieces[1::2], map(_words, pieces[2::2]), strict=True):
        for box in _pixels(record, field, written, source):
            said += ("" if said.endswith((" ", "\n")) else " ") + marker.format(len(boxes))
            boxes.append(box)
        said += (" " if following[:1].isalnum() else "") + following
    return said.strip(), boxes


def _pixels(record: Record, field: str, written: str, source: Source) -> Boxes:
    """The boxes in one tag."""
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        value = None
    rows = value if isinstance(value, list) and value else [None]
    whole = all(isinstance(row, list) and len(row) == 4 and all(type(side) is int and 0 <= side < BEYOND for side in row) for row in rows)
    if not whole:
        raise record.bad(field, "box_numbers", f"boxes [[x1, y1, x2, y2], ...] of whole numbers from 0 to {BEYOND - 1}", written)
    return boxes_in(record, field, rows, CONVENTIONS[source.variant or "plain"], frame_size(record), source)


def _words(text: str) -> str:
    """What is said: without tags, and with nothing that would be read as one of our markers; line breaks stay."""
    return unmarked(_TAG.sub("", text))


def _filled(record: Record, field: str, text: str) -> str:
    if not text:
        raise record.bad(field, "words", "a text beside the image", text)
    return text


def _raw(record: Record) -> dict[str, Any]:
    """The record as it was; of a turn, with its question and answer alone."""
    raw = {name: value for name, value in record.fields.items() if name not in _OWN}
    turn = record.fields.get(_TURN)
    return raw if turn is None else {**raw, "conversations": raw["conversations"][2 * turn : 2 * turn + 2]}


AS_V2 = Format(
    name="as-v2",
    title="AS-V2",
    home="all-seeing (OpenGVLab), all-seeing-v2",
    licence="not stated",
    layout="a list of conversations in the form of LLaVA, as JSON or JSONL; images {image} in the folder of the media",
    rows=rows,
    parts=parts,
    sample=sample,
    variants=tuple(CONVENTIONS),
    tasks=("region", "conversation"),
)
