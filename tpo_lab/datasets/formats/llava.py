"""Conversations in LLaVA's form: an image or a video, and turns {from, value}, in JSON or JSONL. And preferences: prompt, chosen, rejected.

Records of text alone are dropped by the rule "media": a sample is about an image or a video.

Source: ShareGPT4V (docs/Data.md); InternVL's description of chat data; LLaVA-Hound-DPO (dpo_scripts/run_dpo.py).
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from tpo_lab.datasets.formats.format import Format, Maker, Source
from tpo_lab.datasets.formats.image_lists import image_pattern
from tpo_lab.datasets.formats.keyed import keyed, unkeyed
from tpo_lab.datasets.formats.turns import unmarked
from tpo_lab.files import Record, Streamed, record, stream_items, stream_jsonl
from tpo_lab.sample import Sample

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_PLACEHOLDER = re.compile(r"\s*<(?:image|video)>\s*")
_MEDIA = ("video", "image", "frame", "image_path")


def rows(source: Source) -> Iterator[Streamed]:
    """The records of a JSONL file, or of a JSON list."""
    stream = stream_jsonl if source.path.suffix == ".jsonl" else stream_items
    return keyed(stream(source.path))


def maker(form: str, *, frame_folders: bool = False) -> Maker:
    """The step from a record to its sample.

    Args:
        form: the format's name.
        frame_folders: a video whose name has no ending is a folder of frames.
    """

    def sample(record: Record, source: Source) -> Sample:
        row, beside = unkeyed(record)
        # an id may come often, once for each conversation about an image
        name = "-".join(filter(None, (row.text("id") if "id" in row.fields else "", beside["place"])))
        path = _media(row, source)
        if frame_folders and not PurePath(path).suffix:
            path = f"{glob.escape(path)}/*"
        return Sample.model_validate(
            {
                "id": f"{form}-{name}",
                "source": form,
                "split": source.split,
                "media": {"path": path},
                "conversation": _turns(row),
                "meta": {"task": "conversation", **_size(row), "raw": dict(row.fields)},
            }
        )

    return sample


def _media(row: Record, source: Source) -> str:
    field = row.named(*_MEDIA)
    if row.fields.get(field) is None:
        raise row.bad("", "media", f"one of {', '.join(_MEDIA)}: a sample of text alone is none", sorted(row.fields)[:20])
    return image_pattern(row, field, row.fields[field], source)


def _size(row: Record) -> dict[str, Any]:
    """[width, height] of the image in pixels, where the record tells it as two whole numbers above 0."""
    size = [row.fields.get(name) for name in ("width", "height")]
    return {"size": size} if all(type(side) is int and side > 0 for side in size) else {}


def _turns(row: Record) -> list[dict[str, str]]:
    """The conversation, from the user's turn on in turns; of a preference, the prompt and the answer that was chosen."""
    if "conversations" not in row.fields and "prompt" in row.fields:
        row.words("rejected")  # stays in the raw record; checked here, so that no half of a pair goes on
        return [_turn(row, "prompt", "user", row.words("prompt")), _turn(row, "chosen", "assistant", row.words("chosen"))]
    found: list[dict[str, str]] = []
    for place, fields in enumerate(row.several("conversations")):
        each, field = record(f"{row.where}, conversations[{place}]", fields), f"conversations[{place}]"
        role = ROLES.get(each.text("from"))
        if role is None:
            raise row.bad(f"{field}.from", "role_known", f"one of {', '.join(ROLES)}", each.fields["from"])
        if role != ("user", "assistant")[place % 2]:
            raise row.bad(f"{field}.from", "roles_alternate", "turns that alternate from the user", each.fields["from"])
        found.append(_turn(row, f"{field}.value", role, each.text("value")))
    if not found:
        raise row.bad("conversations", "turns_some", "one or more turns", [])
    return found


def _turn(row: Record, field: str, role: str, text: str) -> dict[str, str]:
    """A turn without the placeholders that show where the media stands."""
    said = _PLACEHOLDER.sub(" ", text).strip()
    if not said:
        raise row.bad(field, "words", "a turn that is not empty", text)
    return {"role": role, "text": unmarked(said)}


SHAREGPT4V = Format(
    name="sharegpt4v",
    title="ShareGPT4V; other data in LLaVA's form",
    home="ShareGPT4V (ShareGPT4Omni); docs/Data.md",
    licence="not stated",
    layout="sharegpt4v_instruct_gpt4-vision_cap100k.json or another JSON list or JSONL;\n"
    "--media names the folder that holds coco/, sam/, ...; records without an image are dropped (rule media)",
    rows=rows,
    sample=maker("sharegpt4v"),
    tasks=("conversation",),
)

SHAREGPT_4O = Format(
    name="sharegpt-4o",
    title="ShareGPT-4o, images and videos",
    home="OpenGVLab, ShareGPT-4o",
    licence="not stated",
    layout="image_conversations/gpt-4o.jsonl or video_conversations/gpt4o.jsonl;\n"
    "--media names the folder that image and video start from; several images are one medium where their names count up in one\n"
    "folder (else rule several_images), text alone is dropped (rule media)",
    rows=rows,
    sample=maker("sharegpt-4o"),
    tasks=("conversation",),
)

LLAVA_HOUND = Format(
    name="llava-hound",
    title="LLaVA-Hound: captions, instructions, and 17k preferences (DPO), of which the chosen answer is the conversation",
    home="ShareGPTVideo; LLaVA-Hound-DPO (RifleZhang)",
    licence="not stated",
    layout="the JSONL of preferences or of conversations; --media names the folder of the videos, which are folders of frames;\n"
    "their rate is not stated, so they are read as one a second",
    rows=rows,
    sample=maker("llava-hound", frame_folders=True),
    tasks=("conversation",),
)
