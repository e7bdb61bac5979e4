"""What each part of the objective does to each module: inner products of gradients, one backward pass per part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tpo_lab.probes.modules import grouped
from tpo_lab.probes.trace import Gradients


def gradients_of(owners: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> Gradients:
    """Gradients of each owner's loss; `.grad` of the parameters stays as it is.

    Held at once are as many copies of all that learns as there are owners.

    Args:
        owners: scalars that share one graph, which may be used again.
        parameters: canonical name -> parameter; those without `requires_grad` are left out.
    """
    learning = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    found = {owner: _gradient(loss, list(learning.values())) for owner, loss in owners.items()}
    places = {name: place for place, name in enumerate(learning)}
    products, counts = {}, {}
    for module, names in grouped(learning).items():
        own = [[gradients[places[name]] for name in names] for gradients in found.values()]
        products[module] = inner_products(own)
        counts[module] = sum(learning[name].numel() for name in names)
    return Gradients(tuple(owners), products, counts)


def _gradient(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
    if not loss.requires_grad or not parameters:
        return [None] * len(parameters)
    return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)


def inner_products(gradients: Sequence[Sequence[Tensor | None]]) -> Tensor:
    """Of gradients over the same parameters, None for zero: float64 [owner, owner]."""
    products = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for one, mine in enumerate(gradients):
        for other, theirs in enumerate(gradients[: one + 1]):
            pairs = [(a, b) for a, b in zip(mine, theirs, strict=True) if a is not None and b is not None]
            products[one, other] = products[other, one] = sum(float((a.double() * b.double()).sum()) for a, b in pairs)
    return products
