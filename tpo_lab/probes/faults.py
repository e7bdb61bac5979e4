"""Known faults, planted into a model from outside, each with its way back: to learn, and to test, what shows them.

Each is a fault that published code of this field has had. A planted model computes wrongly; no weight file changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from tpo_lab.backbones.base import Inputs
from tpo_lab.batch import Batch, Collator, Row
from tpo_lab.boxes import xyxy_to_cxcywh
from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.model import TPOModel
from tpo_lab.probes.parts import start_row

LOST_ROW = "lost token row"
WRONG_SLOT = "wrong slot"
SWAPPED_BOX = "swapped box convention"
FROZEN_PART = "frozen part"
LEAKING_LABEL = "leaking label"

Undo = Callable[[], None]


class Planted(AbstractContextManager["Planted"]):
    """A fault in a model.

    Use it as a context manager, or call `repair`; a second call changes nothing.

    Attributes:
        fault: its name.
        head: which head it hits.
    """

    def __init__(self, fault: str, head: str, undo: Undo) -> None:
        self.fault, self.head, self._undo = fault, head, undo

    def repair(self) -> None:
        """Take the fault out: the model computes as before."""
        undo, self._undo = self._undo, _nothing
        undo()

    def __exit__(self, *error: object) -> None:
        self.repair()


def plant(model: TPOModel, fault: str, *, head: str | None = None) -> Planted:
    """Put a fault into a model.

    Args:
        fault: one of `FAULTS`.
        head: which head it hits; the region head, or the model's first one, where None.

    Raises:
        UsageError: an unknown fault or head, or boxes swapped of a head that gives none.
    """
    if fault not in FAULTS:
        raise unknown_name("fault", fault, FAULTS)
    chosen = head or ("region" if "region" in model.heads else next(iter(model.heads)))
    model.head(chosen)
    return Planted(fault, chosen, FAULTS[fault](model, chosen))


def lose_token_row(model: TPOModel, head: str) -> Undo:
    """The learned rows of a head's route token are as before training, as after a checkpoint that forgot them."""
    row = model.tokens.ids.all.index(model.tokens.ids.route[head])
    kept = {side: table.detach()[row].clone() for side, table in model.tokens.rows.items()}

    def put(values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for side, value in values.items():
                model.tokens.rows[side][row] = value

    put({side: start_row(model, side) for side in kept})
    return lambda: put(kept)


def read_wrong_slot(model: TPOModel, head: str) -> Undo:
    """A head reads the state at the token before its slot, which is the route; in training and in answers alike."""
    sound, backbone = model.collate, model.backbone
    behind = _StepBehind(backbone.embed, backbone.language_model, model.tokens.ids.slot[head])
    model.collate = _OneTokenEarly(sound, head)
    undo = _overridden(backbone, embed=behind.embed, language_model=behind.language_model)

    def back() -> None:
        model.collate = sound
        undo()

    return back


def swap_box_convention(model: TPOModel, head: str) -> Undo:
    """A head's boxes are centre and size, and are read as two corners."""

    def swap(module: Any, args: Any, prediction: Any) -> Any:
        if not hasattr(prediction, "boxes_xyxy"):
            raise UsageError("head", expected="a head whose predictions are boxes", got=head)
        return replace(prediction, boxes_xyxy=xyxy_to_cxcywh(prediction.boxes_xyxy))

    return model.head(head).register_forward_hook(swap).remove


def freeze_part(model: TPOModel, head: str) -> Undo:
    """A head is given its task embedding detached from the graph, so that its loss trains nothing but the head itself."""

    def detach(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].detach(), *args[1:])

    return model.head(head).register_forward_pre_hook(detach).remove


def leak_label(model: TPOModel, head: str) -> Undo:
    """The causal mask is off by one: every token of a text sees the next one, which it has to predict."""
    sound = model.backbone.language_model

    def leaky(inputs: Inputs, *, mask: Tensor | None, **options: Any) -> Any:
        if mask is not None and mask.shape[-2] > 1:
            mask = mask | sees_next(mask)
        return sound(inputs, mask=mask, **options)

    return _overridden(model.backbone, language_model=leaky)


def sees_next(mask: Tensor) -> Tensor:
    """Of a mask [..., token, key], what lets each token look at its successor, where that one may look at it."""
    next_sees = torch.diagonal(mask, -1, dim1=-2, dim2=-1)
    return torch.diag_embed(next_sees, 1)


FAULTS: Mapping[str, Callable[[TPOModel, str], Undo]] = MappingProxyType(
    {
        LOST_ROW: lose_token_row,
        WRONG_SLOT: read_wrong_slot,
        SWAPPED_BOX: swap_box_convention,
        FROZEN_PART: freeze_part,
        LEAKING_LABEL: leak_label,
    }
)
"""Name -> what plants it into a model for a head, and returns the way back."""


class _OneTokenEarly(Collator):
    """Collates as before, but the slots of one head are a token early."""

    def __init__(self, sound: Collator, head: str) -> None:
        super().__init__(sound.encoder, sound.placeholder, sound.pad)
        self.head = head

    def __call__(self, rows: Sequence[Row]) -> Batch:
        batch = super().__call__(rows)
        early = {head: replace(slots, token=slots.token - 1) for head, slots in batch.slots.items() if head == self.head}
        return replace(batch, slots={**batch.slots, **early})


class _StepBehind:
    """In token-by-token generation, gives the state of the step before wherever a head's slot is read."""

    def __init__(self, embed: Callable[..., Tensor], language_model: Callable[..., Any], slot: int) -> None:
        self._embed, self._language_model, self._slot = embed, language_model, slot
        self._at_slot: Tensor | None = None
        self._before: Tensor | None = None

    def embed(self, ids: Tensor, video_tokens: Tensor | None) -> Tensor:
        self._at_slot = (ids == self._slot) if ids.shape[1] == 1 else None
        return self._embed(ids, video_tokens)

    def language_model(self, inputs: Inputs, **options: Any) -> tuple[Tensor, Any]:
        hidden, cache = self._language_model(inputs, **options)
        if self._at_slot is not None and self._before is not None and bool(self._at_slot.any()):
            return torch.where(self._at_slot[..., None], self._before, hidden), cache
        self._before = hidden[:, -1:]
        return hidden, cache


def _overridden(owner: Any, **methods: Any) -> Undo:
    """Put methods in front of an object's own, and return what takes them away; those that were in front before come back."""
    before = {name: vars(owner)[name] for name in methods if name in vars(owner)}
    for name, method in methods.items():
        setattr(owner, name, method)

    def back() -> None:
        for name in methods:
            delattr(owner, name)
            if name in before:
                setattr(owner, name, before[name])

    return back


def _nothing() -> None:
    """There is no way back left to go."""
