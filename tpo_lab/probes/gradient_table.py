"""Gradients of one measurement as arrays: norms, cosines and shares of all modules at once, and of groups of modules.

Not here: how gradients are measured (`gradients`), and their record (`step_trace`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError
from tpo_lab.probes.step_trace import Gradients

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class GradientTable:
    """What each owner of loss terms does to each module, as `Gradients` has it.

    Attributes:
        owners: in the order of the objective.
        modules: a name each.
        parameters: how many numbers of each module can learn.
        products: inner products of the owners' gradients [module, owner, owner]; not finite where a gradient is not.
    """

    owners: tuple[str, ...]
    modules: tuple[str, ...]
    parameters: tuple[int, ...]
    products: Numbers

    @classmethod
    def of(cls, gradients: Gradients) -> GradientTable:
        """The same numbers, of all modules."""
        count = len(gradients.owners)
        products = np.array([gradients.products[module].double().numpy() for module in gradients.modules], dtype=np.float64)
        parameters = tuple(gradients.parameters[module] for module in gradients.modules)
        return cls(gradients.owners, gradients.modules, parameters, products.reshape(len(parameters), count, count))

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> GradientTable:
        """From what `Gradients.to_dict` gives; norms that are None were not finite.

        Raises:
            UsageError: it is something else.
        """
        try:
            owners = tuple(str(owner) for owner in document["owners"])
            modules = dict(document["modules"])
            products = [_products(owners, each["norms"], each["cosines"]) for each in modules.values()]
            parameters = tuple(int(each["parameters"]) for each in modules.values())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            wanted = "owners, and by module parameters, norms and cosines"
            raise UsageError("gradients", expected=wanted, got=f"{type(error).__name__}: {error}") from error
        return cls(owners, tuple(modules), parameters, np.array(products, dtype=np.float64).reshape(len(modules), len(owners), len(owners)))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Every two owners."""
        return tuple((one, other) for place, one in enumerate(self.owners) for other in self.owners[place + 1 :])

    @cached_property
    def norms(self) -> Numbers:
        """[module, owner]; 0 where an owner does not reach a module."""
        found: Numbers = np.sqrt(np.einsum("moo->mo", self.products))
        return found

    @cached_property
    def cosines(self) -> Numbers:
        """[module, pair]; NaN where one of the two does not reach the module, or is not finite."""
        one, other = np.triu_indices(len(self.owners), 1)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            length = self.norms[:, one] * self.norms[:, other]
            found = np.clip(self.products[:, one, other] / length, -1.0, 1.0)
        return np.where(np.isfinite(length) & (length > 0), found, np.nan)

    @cached_property
    def shares(self) -> Numbers:
        """Of each owner in the step of each module [module, owner], in sum 1; NaN where the step is zero or not finite."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            total = self.products.sum((1, 2))
            found = self.products.sum(2) / total[:, None]
        return np.where((total > 0)[:, None], found, np.nan)

    def with_groups(self, groups: Mapping[str, Sequence[str]]) -> GradientTable:
        """With more modules, each made of others: its gradient is theirs, one behind the other.

        Args:
            groups: name -> names of modules, which have no parameter in common.
        """
        if not groups:
            return self
        place = {module: number for number, module in enumerate(self.modules)}
        members = [[place[module] for module in names] for names in groups.values()]
        sums = np.array([self.products[chosen].sum(0) for chosen in members])
        counts = [sum(self.parameters[number] for number in chosen) for chosen in members]
        return GradientTable(self.owners, (*self.modules, *groups), (*self.parameters, *counts), np.concatenate([self.products, sums]))


def _products(owners: Sequence[str], norms: Mapping[str, float | None], cosines: Mapping[str, float | None]) -> Numbers:
    """Inner products of one module's gradients [owner, owner]."""
    lengths = np.array([math.nan if norms[owner] is None else norms[owner] for owner in owners], dtype=np.float64)
    found = np.diag(lengths**2)
    for place, one in enumerate(owners):
        for later, other in enumerate(owners[place + 1 :], place + 1):
            cosine = cosines[f"{one}|{other}"]
            length = lengths[place] * lengths[later]
            found[place, later] = found[later, place] = (length and math.nan) if cosine is None else cosine * length
    return found
