"""A step record made by hand, whose attention and maps stand in known cells. No two of its axes are alike, and no map is symmetric."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tpo_lab.probes.trace import Activations, Attention, RouteDue, Routes, SampleTrace, Slot, Token, Trace, WordMap
from tpo_lab.records import Record
from tpo_lab.sample import Sample

SIZE_WH, RATE, CLIP_FRAMES = (96, 60), 4.0, 10
TIMES_SEC = (0.0, 0.5, 1.25, 2.0)
"""Of the frames that the model saw: frames 0, 2, 5 and 8 of the clip."""
SIDE, LAYERS, DEPTHS = 3, (1, 4), 7
HOT = (1, 0, 2)
"""Frame, row and column of the hot cell."""
HEADS = ("region", "temporal")


def write_planted_clip(path: Path) -> Path:
    """A clip whose frames are grey, each lighter than the one before."""
    from tpo_lab.video.writer import write_clip

    levels = np.linspace(30, 220, CLIP_FRAMES).astype(np.uint8)
    return write_clip(path, np.broadcast_to(levels[:, None, None, None], (CLIP_FRAMES, SIZE_WH[1], SIZE_WH[0], 3)).copy(), RATE)


def planted_tokens(side: int = SIDE, frames: int = len(TIMES_SEC), words: str = "where is it ?") -> tuple[Token, ...]:
    """Frames with a word before each, a video token of no frame, a question, and an answer that asks both heads."""
    rows: list[dict[str, Any]] = [{"text": "<bos>", "kind": "CONTEXT"}]
    for frame in range(frames):
        rows.append({"text": str(frame + 1), "kind": "CONTEXT"})
        rows += [{"text": "<video>", "kind": "VIDEO", "frame": frame, "cell": cell} for cell in range(side * side)]
    rows.append({"text": "<video>", "kind": "VIDEO"})
    rows += [{"text": f" {word}", "kind": "CONTEXT"} for word in words.split()]
    rows.append({"text": "<prompt>", "kind": "PROMPT"})
    for head in HEADS:
        rows += [{"text": f"<{head}:route>", "kind": "ROUTE", "head": head}, {"text": f"<{head}:slot>", "kind": "SLOT", "head": head}]
        rows.append({"text": " there" if head == HEADS[0] else "<eos>", "kind": "TEXT"})
    return tuple(Token(index=index, learned=row["kind"] in ("TEXT", "ROUTE"), **row) for index, row in enumerate(rows))


def planted_sample(clip: Path, name: str = "planted", **tokens: Any) -> SampleTrace:
    """A sample of the record."""
    row = planted_tokens(**tokens)
    at = {(token.kind, token.head): token.index for token in row}
    frames = tokens.get("frames", len(TIMES_SEC))
    turns = [{"role": "user", "text": "Where is it?"}, {"role": "assistant", "text": "<region> there <temporal>"}]
    targets = {"region": [{"time_sec": 1.0, "xyxy": [4, 8, 20, 40]}], "temporal": {"windows_sec": [[0.5, 1.5]]}}
    sample = Sample.model_validate({"id": name, "media": {"path": str(clip)}, "conversation": turns, "targets": targets})
    first = {"region": 0.64, "temporal": 0.06, "none": 0.3}
    due = tuple(
        RouteDue(head, at["ROUTE", head], at["ROUTE", head] - 1, {"region": share, "temporal": 0.75 - share, "none": 0.25})
        for head, share in zip(HEADS, (0.7, 0.1), strict=True)
    )
    record = Record(
        name,
        "where",
        "Where is it?",
        "<region> there <temporal>",
        "<region> here",
        HEADS,
        ("region",),
        {},
        {},
        {},
        str(clip),
        route_probability=first,
    )
    slots = (
        Slot("region", at["SLOT", "region"], at["SLOT", "region"], 1.0),
        Slot("temporal", at["SLOT", "temporal"], at["SLOT", "temporal"] - 1, 0.25),
    )
    return SampleTrace(
        sample=sample,
        record=record,
        size_wh=SIZE_WH,
        duration_sec=CLIP_FRAMES / RATE,
        times_sec=TIMES_SEC if frames == len(TIMES_SEC) else tuple(np.linspace(0, 2, frames).tolist()),
        tokens=row,
        routes=Routes(HEADS, ("region",), "<region> here", first, due),
        slots=slots,
        heads={},
        losses={},
        words=planted_words(row, frames, tokens.get("side", SIDE)),
    )


def planted_words(row: tuple[Token, ...], frames: int, side: int) -> tuple[WordMap, ...]:
    """A route and a word that the model wrote, and a word of the true answer; the second's map is hot in another cell."""
    maps = torch.rand(3, frames, side * side, generator=torch.Generator().manual_seed(1))
    maps[1] = 0.0
    maps[1, 2, side] = 5.5
    there = next(token.index for token in row if token.text == " there")
    return (
        WordMap("<region:route>", "emitted", 0, None, "region", maps[0]),
        WordMap(" here", "emitted", 1, None, None, maps[1]),
        WordMap(" there", "expected", 1, there, None, maps[2]),
    )


def planted_attention(place: int, sample: SampleTrace, side: int = SIDE) -> tuple[Attention, ...]:
    """Of routes, then of slots. In the last layer the first slot looks at one cell with half of its attention."""
    made = torch.Generator().manual_seed(2 + place)
    readers = [(due.head, "ROUTE", due.predicted_from) for due in sample.routes.due] + [
        (slot.head, "SLOT", slot.token) for slot in sample.slots
    ]
    found = []
    for head, kind, token in readers:
        weights = torch.rand(len(LAYERS), len(sample.tokens), generator=made)
        weights[:, token + 1 :] = 0
        if (head, kind) == ("region", "SLOT"):
            frame, row, column = HOT
            hot = next(each.index for each in sample.tokens if (each.frame, each.cell) == (frame, row * side + column))
            weights[1] = 0.001
            weights[1, hot] = float(weights[1].sum())
        found.append(Attention(place, head, kind, token, weights / weights.sum(1, keepdim=True), 0.0 if kind == "SLOT" else 0.125))
    return tuple(found)


def planted_trace(clip: Path, *, samples: int = 1, **tokens: Any) -> Trace:
    """The record, of one sample or of several alike."""
    found = tuple(planted_sample(clip, f"planted-{place}", **tokens) for place in range(samples))
    slots = tuple((place, slot.head, slot.token) for place, sample in enumerate(found) for slot in sample.slots)
    states = torch.randn(len(slots), DEPTHS, 5, generator=torch.Generator().manual_seed(3))
    attention = tuple(each for place, sample in enumerate(found) for each in planted_attention(place, sample, tokens.get("side", SIDE)))
    return Trace(found, {}, None, Activations(slots, states, LAYERS, attention), (), (), HEADS)


def with_attention(trace: Trace, attention: tuple[Attention, ...], layers: tuple[int, ...] = LAYERS) -> Trace:
    """The same record with other attention."""
    return replace(trace, activations=replace(trace.activations, attention=attention, layers=layers))
