"""Looks into the language model from outside: hidden states of chosen tokens after each layer, and where they look.

Not here: any knowledge of one model family. A backbone's language model has a list of layers, and each layer one attention module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tpo_lab.backbones.base import Backbone
from tpo_lab.errors import TPOError, UsageError

MOST_LAYERS = 8
"""Whose attention is kept where the caller names none."""


def decoder_layers(backbone: Backbone) -> list[nn.Module]:
    """The layers of a backbone's language model, in order.

    Raises:
        TPOError: the language model keeps its layers in no list.
    """
    prefixes = backbone.parts()["llm"]
    for name, module in backbone.model.named_modules():
        if isinstance(module, nn.ModuleList) and name.startswith(prefixes):
            return list(module)
    raise TPOError(f"backbone {backbone.name}: expected the language model's layers in a ModuleList below {prefixes[0]}.")


def chosen_layers(count: int, asked: bool | Sequence[int]) -> tuple[int, ...]:
    """Layers whose attention is kept: those asked for, or evenly spread ones with the first and the last, at most `MOST_LAYERS`.

    Raises:
        UsageError: a layer that the model has not.
    """
    if asked is False:
        return ()
    if asked is True:
        kept = min(count, MOST_LAYERS)
        return tuple(sorted({round(place * (count - 1) / max(kept - 1, 1)) for place in range(kept)}))
    for layer in asked:
        if not 0 <= layer < count:
            raise UsageError("attention", expected=f"layers from 0 to {count - 1}", got=layer)
    return tuple(asked)


@contextmanager
def states_kept(layers: Sequence[nn.Module], tokens: Sequence[int]) -> Iterator[list[Tensor]]:
    """Collects states of the first row's tokens [token, d]: what enters the first layer, then what leaves each.

    The list fills while a forward pass runs inside.
    """
    kept: list[Tensor] = []
    places = torch.tensor(list(tokens), dtype=torch.long)

    def take(states: Tensor) -> None:
        kept.append(states[0, places.to(states.device)].detach().float().cpu())

    def before(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        take(args[0] if args else options["hidden_states"])

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        take(output[0] if isinstance(output, tuple) else output)

    handles = [layers[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def attention_read(layers: Sequence[nn.Module], read: Callable[[Tensor], None]) -> Iterator[None]:
    """Calls `read` with the attention of the first row [token, key], mean over heads, of each layer that runs inside.

    For so long attention is computed in the way that gives its weights ("eager").

    Raises:
        TPOError: a layer without attention, or attention that gives no weights.
    """
    modules = [_attention_of(layer) for layer in layers]
    configs = {id(module.config): module.config for module in modules}
    before = {key: config._attn_implementation for key, config in configs.items()}

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if weights is None:
            raise TPOError(f"{type(module).__name__}: expected attention weights, got none. Call probe with attention=False.")
        read(weights[0].detach().float().mean(0))

    handles = [module.register_forward_hook(after) for module in modules]
    try:
        for config in configs.values():
            config._attn_implementation = "eager"
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        for handle in handles:
            handle.remove()


def _attention_of(layer: nn.Module) -> Any:
    for name, module in layer.named_children():
        if "attn" in name or name == "attention":
            return module
    raise TPOError(f"{type(layer).__name__}: expected an attention module, got none. Call probe with attention=False.")
