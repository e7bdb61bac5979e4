"""Rows of tokens with a clip, read at once and word by word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tpo_lab.backbones import Backbone, Inputs

QUESTION = "Where is the red ball?"


def conversation(backbone: Any, times_sec: Sequence[float]) -> str:
    """The text of a question about a clip, up to where the answer begins."""
    return str(backbone.tokenizer.decode(row_of(backbone, times_sec)[0]))


def row_of(backbone: Any, times_sec: Sequence[float]) -> Tensor:
    """The same as ids [1, token]."""
    chat = backbone.chat
    words = [*backbone.words(chat.before_question + QUESTION), *backbone.words(chat.before_answer)]
    return torch.tensor([[*backbone.words(chat.open), *backbone.video_placeholder(times_sec), *words]])


def clip_of(backbone: Backbone, count: int, clips: int = 1) -> Tensor:
    """Random frames [clip, frame, 3, side, side]."""
    return torch.randint(0, 256, (clips, count, 3, backbone.image_size, backbone.image_size), dtype=torch.uint8)


@torch.no_grad()
def inputs_of(backbone: Backbone, times_sec: Sequence[float]) -> Inputs:
    """What the language model reads of a question about a random clip."""
    ids = row_of(backbone, times_sec)
    features = backbone.video_features(clip_of(backbone, len(times_sec)))
    return backbone.inputs(ids, torch.arange(ids.shape[1])[None], [features], [times_sec])


@torch.no_grad()
def read_in_steps(backbone: Backbone, inputs: Inputs, last: int) -> Tensor:
    """Hidden states where the last tokens are read one by one with a cache, each under a mask."""
    count = inputs.embeds.shape[1]
    parts, cache = [], None
    for start, end in ((0, count - last), *((place, place + 1) for place in range(count - last, count))):
        mask = torch.ones(1, 1, end - start, end, dtype=torch.bool).tril(start)
        hidden, cache = backbone.language_model(inputs.at(torch.arange(start, end)), mask=mask, cache=cache, use_cache=True)
        parts.append(hidden)
    return torch.cat(parts, 1)


@torch.no_grad()
def most_changed(backbone: Backbone, frame: int, count: int, patch: int, row: int, column: int) -> tuple[Tensor, Tensor]:
    """Where features change the most when one patch of one frame does: (frame, patch) of the tower's, visual token of the connector's.

    A patch of random bytes on grey, so that what changes lies at the patch itself more than anywhere that sees it.
    """
    plain = torch.full((1, count, 3, backbone.image_size, backbone.image_size), 128, dtype=torch.uint8)
    marked = plain.clone()
    place = (slice(row * patch, (row + 1) * patch), slice(column * patch, (column + 1) * patch))
    marked[0, frame, :, place[0], place[1]] = torch.randint(0, 256, (3, patch, patch), dtype=torch.uint8)
    before, after = backbone.video_features(plain), backbone.video_features(marked)
    patches = (after.frames - before.frames).abs().sum(-1)[0]
    tokens = (after.tokens - before.tokens).abs().sum(-1)[0]
    return torch.tensor([int(patches.argmax()) // patches.shape[1], int(patches.argmax()) % patches.shape[1]]), tokens.argmax()
