"""The parts of a model: how large, whether they learn, whether they ever did, and how they differ from another model's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tpo_lab.model import TPOModel
from tpo_lab.probes.modules import grouped
from tpo_lab.probes.trace import AddedToken, Part
from tpo_lab.tokens import PROMPT_TOKEN, route_token, slot_token

MOVED = 0.01
"""Share of its norm by which a row has to differ from the vocabulary's mean to count as trained; half precision moves it by 0.0002."""


@dataclass(frozen=True)
class Difference:
    """One part of two models.

    Attributes:
        name: of the part.
        equal: bit for bit.
        largest: absolute difference; None where only one of the two models has the part, or its shapes differ.
        relative: norm of the difference, as a share of the other one's norm; None likewise, or where that norm is 0.
    """

    name: str
    equal: bool
    largest: float | None
    relative: float | None


def parts_of(model: TPOModel, open_before: Mapping[str, bool], *, staged: bool) -> tuple[Part, ...]:
    """Every part, in the model's order.

    Args:
        open_before: canonical name -> `requires_grad` as the model was found.
        staged: whether `requires_grad` now is that of a stage's plan.
    """
    named = model.named_parts()
    found = []
    for name, members in grouped(named).items():
        parameters = {member: named[member] for member in members}
        counts = {member: parameter.numel() for member, parameter in parameters.items()}
        trained = sum(count for member, count in counts.items() if named[member].requires_grad) if staged else None
        opened = sum(count for member, count in counts.items() if open_before[member])
        found.append(Part(name, sum(counts.values()), opened, trained, _norm(parameters), _at_start(model, name, parameters)))
    return tuple(found)


def _norm(parameters: Mapping[str, nn.Parameter]) -> float:
    squares = sum(float(parameter.detach().double().pow(2).sum()) for parameter in parameters.values())
    return math.sqrt(squares)


def _at_start(model: TPOModel, name: str, parameters: Mapping[str, nn.Parameter]) -> bool | None:
    if name.startswith("llm.lora."):
        # LoRA starts as nothing: one of its two factors is zero
        return all(not bool(parameter.detach().any()) for member, parameter in parameters.items() if ".lora_B." in member)
    if name.startswith("tokens.rows."):
        return bool((_moved(model, name.rpartition(".")[2]) < MOVED).all())
    return None


def added_tokens(model: TPOModel) -> tuple[AddedToken, ...]:
    """The library's tokens and how far their rows have moved."""
    names: list[tuple[str, str | None, str]] = [(PROMPT_TOKEN, None, "PROMPT")]
    for head in model.tokens.ids.route:
        names += [(route_token(head), head, "ROUTE"), (slot_token(head), head, "SLOT")]
    moved = zip(_moved(model, "input").tolist(), _moved(model, "output").tolist(), strict=True)
    return tuple(AddedToken(*name, *how_far) for name, how_far in zip(names, moved, strict=True))


def start_row(model: TPOModel, side: str) -> Tensor:
    """Where every added row of a side, "input" or "output", starts: the mean over the vocabulary [d]."""
    table = model.backbone.embedding.weight if side == "input" else model.backbone.output_rows
    mean: Tensor = table.detach().float().mean(0)  # type: ignore[operator]
    return mean


def _moved(model: TPOModel, side: str) -> Tensor:
    start = start_row(model, side)
    moved: Tensor = (model.tokens.rows[side].detach() - start).norm(dim=-1) / start.norm().clamp_min(1e-12)
    return moved


def compare(model: TPOModel, other: TPOModel | str | Path) -> list[Difference]:
    """How a model's parts differ from those of another model, or of a checkpoint: a folder, or "nano-tpo".

    Raises:
        UsageError: where there is no such checkpoint.
    """
    from tpo_lab.api import load

    here = model.named_parts()
    there = (other if isinstance(other, TPOModel) else load(other)).named_parts()
    return [_difference(name, members, here, there) for name, members in grouped({**here, **there}).items()]


def _difference(name: str, members: list[str], here: Mapping[str, nn.Parameter], there: Mapping[str, nn.Parameter]) -> Difference:
    if any(member not in here or member not in there or here[member].shape != there[member].shape for member in members):
        return Difference(name, False, None, None)
    mine, theirs = (torch.cat([side[member].detach().cpu().double().flatten() for member in members]) for side in (here, there))
    apart, length = mine - theirs, float(theirs.norm())
    return Difference(name, bool((mine == theirs).all()), float(apart.abs().max()), float(apart.norm()) / length if length else None)
