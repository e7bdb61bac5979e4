"""The conversation around an annotation: the paper's question templates, chosen by the sample's id, and the head's marker as the answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from tpo_lab.datasets import templates

_MARKED = re.compile(r"<([a-z][a-z0-9_-]*|prompt:[0-9]*)>")


def temporal_turns(key: str, query: str) -> list[dict[str, Any]]:
    """When does it happen? The query stands in the question in quotation marks."""
    return _turns(_chosen(templates.TEMPORAL, key).format(query=f'"{plain(query)}"'), "<temporal>")


def region_turns(key: str, expression: str, boxes: int = 1) -> list[dict[str, Any]]:
    """Where is it? One marker a box."""
    return _turns(_chosen(templates.REGION, key).format(query=plain(expression)), " ".join(["<region>"] * boxes))


def mask_turns(key: str, expression: str) -> list[dict[str, Any]]:
    """Outline it through the video. The expression stands in the question in quotation marks."""
    return _turns(_chosen(templates.SEGMENTATION, key).format(query=f'"{plain(expression)}"'), "<mask>")


def track_turns(key: str) -> list[dict[str, Any]]:
    """Follow what the box, prompt 0, is around."""
    return _turns(_chosen(templates.TRACKING, key).format(box="<prompt:0>"), "<track>")


def pointed_turns(key: str) -> list[dict[str, Any]]:
    """Outline what the box, prompt 0, is around, through the video."""
    return _turns(_chosen(templates.SEGMENTATION, key).format(query="<prompt:0>"), "<mask>")


def followed_turns(key: str, sentence: str) -> list[dict[str, Any]]:
    """Follow what a sentence is about; it stands in the question in quotation marks."""
    return _turns(_chosen(templates.FOLLOWING, key).format(thing=f'"{plain(sentence)}"'), "<track>")


def plain(text: str) -> str:
    """The text on one line, see `unmarked`."""
    return " ".join(unmarked(text).split())


def unmarked(text: str) -> str:
    """The text with other brackets where it would be read as a marker or a mention: an annotation's "<region>" is none of ours."""
    return _MARKED.sub(lambda found: f"[{found[1]}]", text).replace("<prompt:", "[prompt:")


def _turns(question: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "text": question}, {"role": "assistant", "text": answer}]


def _chosen(options: Sequence[str], key: str) -> str:
    """One of the options, always the same for a key and any machine."""
    return options[int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:4], "big") % len(options)]
