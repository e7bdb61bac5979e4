"""The modules that gradients and weights are told apart by: a name per group of parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LAYER = re.compile(r"\.(?:layers|blocks|h)\.(\d+)\.")


def module_of(parameter: str) -> str:
    """The module of a parameter of `TPOModel.named_parts()`.

    The language model's base and its LoRA are told apart by layer ("llm.lora.3"; what is in no layer is "llm.lora.other"), tokens by row
    ("tokens.rows.output", "tokens.task.region"), heads by name. The vision encoder, the connector and the prompt encoder are one each.
    """
    pieces = parameter.split(".")
    if pieces[0] == "llm":
        layer = _LAYER.search(parameter)
        return f"llm.{pieces[1]}.{layer.group(1) if layer else 'other'}"
    return ".".join(pieces[: {"tokens": 3, "heads": 2}.get(pieces[0], 1)])


def grouped(parameters: Iterable[str]) -> dict[str, list[str]]:
    """Module -> its parameters, in their order."""
    groups: dict[str, list[str]] = {}
    for name in parameters:
        groups.setdefault(module_of(name), []).append(name)
    return groups
