"""The tokens of one sample's row: what each is, which are learned, and which patch of which frame."""

from __future__ import annotations

from tpo_lab.batch import Row
from tpo_lab.conversation import Encoded, Kind
from tpo_lab.model import TPOModel
from tpo_lab.probes.trace import Token

VIDEO, CONTEXT, PROMPT, TEXT, ROUTE, SLOT = "VIDEO", "CONTEXT", "PROMPT", "TEXT", "ROUTE", "SLOT"


def tokens_of(model: TPOModel, row: Row) -> tuple[Token, ...]:
    """The row of one conversation, in order: the opening, the video, and the words."""
    prefix = _prefix(model, row)
    encoded = model.encoder.encode([(turn.role, turn.text) for turn in row.samples[0].conversation])
    return (*prefix, *_words(model, encoded, len(prefix)))


def _prefix(model: TPOModel, row: Row) -> list[Token]:
    ids, cells = model.collate.prefix(row.clip.times_sec), model.backbone.cells_per_frame
    shown = model.backbone.grids(len(row.frames)) * cells
    found, patch = [], 0
    for index, token in enumerate(ids):
        if token != model.backbone.video_token:
            found.append(Token(index, _text(model, token), CONTEXT, False))
            continue
        # what comes after the last frame's patches belongs to the clip
        grid, cell = divmod(patch, cells) if patch < shown else (None, None)
        # of frames that share a grid, the first
        frame = None if grid is None else grid * model.backbone.frames_per_grid
        found.append(Token(index, _text(model, token), VIDEO, False, frame=frame, cell=cell))
        patch += 1
    return found


def _words(model: TPOModel, encoded: Encoded, offset: int) -> list[Token]:
    heads = {slot.token: slot.head for slot in encoded.slots}
    found = []
    for place, (token, kind) in enumerate(zip(encoded.ids, encoded.kinds, strict=True)):
        name = PROMPT if token == model.tokens.ids.prompt else kind.name
        # a route stands right before its slot
        head = heads.get(place) if kind is Kind.SLOT else heads.get(place + 1) if kind is Kind.ROUTE else None
        found.append(Token(offset + place, _text(model, token), name, kind in (Kind.TEXT, Kind.ROUTE), head))
    return found


def _text(model: TPOModel, token: int) -> str:
    text: str = model.backbone.tokenizer.decode([token], clean_up_tokenization_spaces=False)
    return text
