"""How the parts of the objective pull at what they share: gradients of several losses in the same weights, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tpo_lab.errors import UsageError
from tpo_lab.probes.gradients import gradients_of
from tpo_lab.probes.trace import Gradients


def pulls(losses: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], parts: Sequence[str]) -> Gradients:
    """Gradients of each loss in each part, which is all parameters whose names begin so.

    Args:
        losses: scalars that share one graph, which may be used again.
        parameters: canonical name -> parameter, as `TPOModel.named_parts()` gives them.
        parts: prefixes, such as "llm.lora" or "heads.region".

    Raises:
        UsageError: no parameter has a name of a part.
    """
    products, counts = {}, {}
    wanted = {name: parameter for name, parameter in parameters.items() if name.startswith(tuple(parts))}
    for part in parts:
        if not any(name.startswith(part) for name in wanted):
            raise UsageError("parts", expected="beginnings of names of parameters", got=part)
    found = gradients_of(losses, wanted)
    for part in parts:
        modules = [module for module in found.modules if module.startswith(part)]
        empty = torch.zeros(len(losses), len(losses), dtype=torch.float64)
        products[part] = sum((found.products[module] for module in modules), empty)
        counts[part] = sum(found.parameters[module] for module in modules)
    return Gradients(tuple(losses), products, counts)


def joined(found: Sequence[Gradients]) -> Gradients:
    """The products of several batches, added: long gradients count for more than short ones."""
    first = found[0]
    products = {module: sum((each.products[module] for each in found[1:]), first.products[module]) for module in first.modules}
    return Gradients(first.owners, products, first.parameters)


def cosines(gradients: Gradients, module: str) -> list[list[float]]:
    """Of every two owners' gradients in a module [owner, owner]; NaN where one of them does not reach it."""
    found = [[gradients.cosine(one, other, module) for other in gradients.owners] for one in gradients.owners]
    return [[math.nan if value is None else value for value in row] for row in found]


def along(gradients: Gradients, module: str, weights: Mapping[str, float]) -> dict[str, float]:
    """Cosine of each owner's gradient with the weighted sum of all: how much of its own way the common step goes.

    Args:
        gradients: as they are.
        module: in which.
        weights: by owner; 1 where not named.
    """
    products = gradients.products[module]
    weight = torch.tensor([float(weights.get(owner, 1.0)) for owner in gradients.owners], dtype=products.dtype)
    length = float(weight @ products @ weight) ** 0.5
    towards = (products @ weight).tolist()
    norms = [gradients.norm(owner, module) for owner in gradients.owners]
    lengths = zip(gradients.owners, towards, norms, strict=True)
    return {owner: toward / (length * norm) if length * norm else math.nan for owner, toward, norm in lengths}
