"""Parameters that begin a stage with the values of others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


@torch.no_grad()
def start_from(parameters: Mapping[str, nn.Parameter], pairs: Mapping[str, str]) -> list[str]:
    """Copy values from one parameter or part to another.

    Args:
        parameters: canonical name -> parameter.
        pairs: target -> source; a part ends in ".*", and its parameters are paired by the rest of their names.

    Returns:
        The targets that were left alone: nothing to pair, or shapes that differ.
    """
    left = []
    for target, source in pairs.items():
        stem, origin = target.removesuffix("*"), source.removesuffix("*")
        rests = [name.removeprefix(stem) for name in parameters if (name.startswith(stem) if target.endswith("*") else name == target)]
        found = [(parameters[stem + rest], parameters.get(origin + rest)) for rest in rests]
        if not found or any(there is None or there.shape != here.shape for here, there in found):
            left.append(target)
            continue
        for here, there in found:
            assert there is not None
            here.copy_(there)
    return left
