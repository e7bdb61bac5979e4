"""Which parts of a model each stage of a recipe trains: a row for each part, a column for each stage.

What matches is decided by `tpo_lab.freeze`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from tpo_lab import freeze
from tpo_lab.errors import UsageError
from tpo_lab.recipes import Recipe
from tpo_lab.recipes import recipe as named_recipe
from tpo_lab.stages import Lora, Stage

if TYPE_CHECKING:
    from tpo_lab.model import TPOModel

SHARED = {
    "vision": "vision encoder",
    "connector": "connector",
    "llm.base": "language model",
    "llm.lora": "LoRA",
    "tokens.rows": "token rows",
    "tokens.task": "task tokens",
    "prompts": "prompt encoder",
}
"""Prefix of the names of `named_parts()` -> what people call that part; every model has them."""

Named = Mapping[str, nn.Parameter]


class Cell(NamedTuple):
    """One part of the model in one stage.

    Attributes:
        state: "trained", "partly", "frozen", or "absent" where the model has no such part.
        rates: peak learning rates, the highest first.
        trained: numbers that learn; None where no model was given.
        total: numbers in all; None where no model was given.
        names: what of the part learns, where that is not all of it.
    """

    state: str
    rates: tuple[float, ...] = ()
    trained: int | None = None
    total: int | None = None
    names: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without what is empty."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._asdict().items() if value or value == 0}


@dataclass(frozen=True)
class StagePlan:
    """A recipe as a table.

    Attributes:
        recipe: as it would train: cut to the heads of the model, where one is given.
        rows: prefix of a part's names -> its label, from the pixels to the heads.
        cells: for each row, its cell in each stage.
        totals: for each stage, how many numbers learn and how many there are; empty without a model.
        notes: sentences worth a person's attention.
    """

    recipe: Recipe
    rows: Mapping[str, str]
    cells: tuple[tuple[Cell, ...], ...]
    totals: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, recipe: Recipe | str | Path, model: TPOModel | None = None) -> StagePlan:
        """The table of a recipe, with numbers of parameters where a model is given. Changes neither.

        Raises:
            UsageError: no recipe, no model, or a pattern of the recipe that fits no part.
        """
        chosen = _recipe_of(recipe)
        notes: list[str] = []
        if model is not None:
            chosen, notes = _cut(chosen, model)
        heads = dict.fromkeys((*chosen.heads, *(model.heads if model is not None else ())))
        rows = {**SHARED, **{f"heads.{head}": f"{head} head" for head in heads}}
        named = canonical_parts(chosen) if model is None else planned_parts(model, chosen.lora)
        shapes = [freeze.shape(freeze.FreezePlan.of(stage), named) for stage in chosen.stages]
        cells = tuple(tuple(_cell(row, shape["parts"], counted=model is not None) for shape in shapes) for row in rows)
        totals = tuple((shape["trained"], shape["total"]) for shape in shapes) if model is not None else ()
        return cls(chosen, rows, cells, totals, tuple(notes))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The columns."""
        return self.recipe.stages

    @property
    def heads(self) -> tuple[str, ...]:
        """Of the rows."""
        return tuple(row.removeprefix("heads.") for row in self.rows if row.startswith("heads."))


def canonical_parts(recipe: Recipe) -> dict[str, nn.Parameter]:
    """Parameters without values under the names that every model has, and under one for each pattern that means a part of those."""
    names = [*(f"{part}.weight" for part in ("vision", "connector", "llm.base", "llm.lora")), "tokens.rows.input", "tokens.rows.output"]
    names += [f"tokens.task.{head}" for head in recipe.heads] + ["prompts.weight"] + [f"heads.{head}.weight" for head in recipe.heads]
    for pattern in dict.fromkeys(pattern for stage in recipe.stages for pattern in stage.learning_rates):
        if not any(fnmatchcase(name, pattern) for name in names):
            names.append(re.sub(r"\[!?(.)[^\]]*\]", r"\1", pattern.replace("*", "weight").replace("?", "0")))
    return {name: _empty(1) for name in names}


def planned_parts(model: TPOModel, lora: Lora) -> Named:
    """The model's parameters; where it has no LoRA yet, with those that training would add, without values.

    Raises:
        UsageError: no model.
    """
    found = _named_parts(model)
    if model.lora is not None:
        return found
    targets = re.compile(model.backbone.lora_targets((*lora.targets, "lm_head") if lora.lm_head else lora.targets))
    added: dict[str, nn.Parameter] = {}
    for name, layer in model.backbone.model.named_modules():
        if isinstance(layer, nn.Linear) and targets.fullmatch(name):
            added[f"llm.lora.{name}.lora_A"] = _empty(lora.rank, layer.in_features)
            added[f"llm.lora.{name}.lora_B"] = _empty(layer.out_features, lora.rank)
    return {**found, **added}


def _recipe_of(recipe: Any) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, (str, Path)):
        return named_recipe(recipe)
    raise UsageError("recipe", expected="a recipe, the name of a preset, or a .json or .toml file", got=type(recipe).__name__)


def _named_parts(model: Any) -> dict[str, nn.Parameter]:
    if not hasattr(model, "named_parts") or not hasattr(model, "heads"):
        raise UsageError("model", expected="a model of tpo_lab, as tpo.load and tpo.build give it", got=type(model).__name__)
    found: dict[str, nn.Parameter] = model.named_parts()
    return found


def _cut(recipe: Recipe, model: TPOModel) -> tuple[Recipe, list[str]]:
    """The recipe for the heads of a model, as `tpo_lab.fit` takes it, and what that leaves out."""
    _named_parts(model)
    shared = tuple(head for head in model.heads if head in recipe.heads)
    if not shared:
        raise UsageError("model", expected=f"one with a head that the recipe trains ({', '.join(recipe.heads)})", got=list(model.heads))
    cut = recipe.for_heads(shared)
    left = [head for head in recipe.heads if head not in shared]
    gone = [stage.name for stage in recipe.stages if stage.name not in {kept.name for kept in cut.stages}]
    notes = [f"The model has no {_listed(left)} head: the recipe's parts for it are left out" + _so(gone) + "."] if left else []
    if model.lora not in (None, recipe.lora):
        notes.append("The model carries LoRA with other settings than the recipe's: training would refuse it until that is merged.")
    return cut, notes + [f"No stage trains the {head} head of this model." for head in model.heads if head not in recipe.heads]


def _so(stages: Iterable[str]) -> str:
    names = ", ".join(stages)
    return f", and so are the stages {names}" if ", " in names else f", and so is stage {names}" if names else ""


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else str(last)


def _cell(row: str, parts: Mapping[str, Mapping[str, Any]], *, counted: bool) -> Cell:
    inside = {name: part for name, part in parts.items() if name == row or name.startswith(row + ".")}
    learning = {name: part for name, part in inside.items() if part["trained"]}
    state = "absent" if not inside else "frozen" if not learning else "trained" if len(learning) == len(inside) else "partly"
    rates = tuple(sorted({float(part["learning_rate"]) for part in learning.values()}, reverse=True))
    names = tuple(name.removeprefix(row).removeprefix(".").removesuffix(".weight") for name in learning) if state == "partly" else ()
    if not counted:
        return Cell(state, rates, names=names)
    count = {which: sum(part["parameters"] for part in group.values()) for which, group in (("trained", learning), ("total", inside))}
    return Cell(state, rates, count["trained"], count["total"], names)


def _empty(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape, device="meta"), requires_grad=False)
