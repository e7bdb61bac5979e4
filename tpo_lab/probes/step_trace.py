"""What a step did inside the model: the gradients of each loss, and the states and the attention of the task tokens. Plain data.

Not here: how it is measured (`gradients`, `layers`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import unknown_name
from tpo_lab.probes.plain import plain

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Gradients:
    """What each owner of loss terms ("mlm", "assign", each head) does to each module; its terms are weighted as in the objective.

    Attributes:
        owners: in the order of the objective.
        products: inner products of the owners' gradients in each module, float64 [owner, owner].
        parameters: how many numbers of each module can learn.
    """

    owners: tuple[str, ...]
    products: Mapping[str, Tensor]
    parameters: Mapping[str, int]

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that can learn, in the model's order."""
        return tuple(self.products)

    def norm(self, owner: str, module: str) -> float:
        """The norm of an owner's gradient in a module; 0 where it does not reach it.

        Raises:
            UsageError: an unknown owner or module.
        """
        place = self._place(owner)
        return math.sqrt(float(self._products(module)[place, place]))

    def cosine(self, one: str, other: str, module: str) -> float | None:
        """Between two owners' gradients in a module: below 0 they pull against each other.

        None where one does not reach it, or is not finite.
        """
        length = self.norm(one, module) * self.norm(other, module)
        if not length or not math.isfinite(length):
            return None
        found = float(self._products(module)[self._place(one), self._place(other)]) / length
        return max(-1.0, min(1.0, found))

    def share(self, owner: str, module: str) -> float | None:
        """How much of the step in a module is an owner's; the shares of all owners are 1 in sum.

        It is the owner's gradient along the sum of all, as a part of that sum's length. Below 0 it works against the others; None where the
        sum is zero.
        """
        products = self._products(module)
        total = float(products.sum())
        return float(products[self._place(owner)].sum()) / total if total > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: by module, norms and shares by owner, and cosines by "one|other"."""
        pairs = [(one, other) for place, one in enumerate(self.owners) for other in self.owners[place + 1 :]]
        return {
            "owners": list(self.owners),
            "modules": {
                module: {
                    "parameters": self.parameters[module],
                    "norms": {owner: self.norm(owner, module) for owner in self.owners},
                    "shares": {owner: self.share(owner, module) for owner in self.owners},
                    "cosines": {f"{one}|{other}": self.cosine(one, other, module) for one, other in pairs},
                }
                for module in self.modules
            },
        }

    def _place(self, owner: str) -> int:
        if owner not in self.owners:
            raise unknown_name("owner of a loss", owner, self.owners)
        return self.owners.index(owner)

    def _products(self, module: str) -> Tensor:
        if module not in self.products:
            raise unknown_name("module that learns", module, self.products)
        return self.products[module]


@dataclass(frozen=True)
class Attention:
    """Where one token looks, in a sample measured in a batch of its own.

    Attributes:
        sample: its place in the trace.
        head: whose slot looks, or whose route is about to be written.
        kind: "SLOT", or "ROUTE" for the token that the route is predicted from.
        token: who looks.
        weights: mean over the attention heads [layer, token], in sum 1 for each layer.
        hidden: the largest share, over the layers, on tokens that it must not see: later ones, and other slots.
    """

    sample: int
    head: str
    kind: str
    token: int
    weights: Tensor
    hidden: float


@dataclass(frozen=True)
class Activations:
    """The task tokens inside the language model.

    Attributes:
        slots: (place of the sample in the trace, head, token) of each.
        states: of each slot, before the first layer, after each, and after the final norm [slot, layer + 2, d].
        layers: which layers `attention` holds.
        attention: of every slot and of every token that a route is predicted from; empty where it was not asked for.
    """

    slots: tuple[tuple[int, str, int], ...]
    states: Tensor
    layers: tuple[int, ...] = ()
    attention: tuple[Attention, ...] = ()

    def cosines(self) -> Tensor:
        """Between all slots at each depth [layer + 2, slot, slot]."""
        unit = self.states / self.states.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        found: Tensor = unit.transpose(0, 1) @ unit.permute(1, 2, 0)
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: cosines in place of the states."""
        return {
            "slots": [{"sample": sample, "head": head, "token": token} for sample, head, token in self.slots],
            "cosines": self.cosines().tolist(),
            "layers": list(self.layers),
            "attention": [plain(each) for each in self.attention],
        }
