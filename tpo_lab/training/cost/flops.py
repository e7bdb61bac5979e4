"""The arithmetic that a training step of the language model asks for, counted from its configuration, to hold a device's speed against."""

from __future__ import annotations

from typing import Any

from tpo_lab.backbones.counting import head_widths, linear_shapes
from tpo_lab.errors import UsageError
from tpo_lab.stages import Lora

PEAK_BF16 = {"H200": 989e12, "H100 80GB HBM3": 989e12, "H100 PCIe": 756e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12}
"""Dense bfloat16 operations a second by a part of a device's name. Source: the vendor's data sheets, without sparsity."""


def peak_of(device_name: str) -> float | None:
    """Bfloat16 operations a second of a device; None for one that is not in the table."""
    return next((peak for part, peak in PEAK_BF16.items() if part in device_name), None)


def language_flops(text_config: Any, *, rows: int, tokens: int, learned: int, lora: Lora, trained: bool = False) -> int:
    """Floating-point operations of a forward and a backward pass of the language model with LoRA.

    A product of matrices counts two operations for each multiplication and addition. Frozen weights need no gradient: the backward pass
    costs as much as the forward pass, where a full fine-tuning pays twice that. What a causal mask hides is not counted, nor what gradient
    checkpointing computes again: this is the work that the model asks for, not what a program does.

    Args:
        text_config: of the language model.
        rows: of the batch.
        tokens: of each row.
        learned: places of the whole batch whose logits are computed.
        lora: its adapters.
        trained: the weights themselves train too.

    Source: the counting of Chowdhery et al., "PaLM" (2022), appendix B, for model FLOPs utilisation.
    Differs in: LoRA on frozen weights; attention counted with its causal half.

    Raises:
        UsageError: no rows or no tokens.
    """
    if rows < 1 or tokens < 1:
        raise UsageError("language_flops", expected="at least one row of at least one token", got={"rows": rows, "tokens": tokens})
    layers, shapes = int(text_config.num_hidden_layers), linear_shapes(text_config)
    weights = layers * sum(outputs * inputs for outputs, inputs in shapes.values())
    adapters = lora.rank * layers * sum(sum(shapes[target]) for target in lora.targets)
    output = int(text_config.hidden_size) * int(text_config.vocab_size)
    passes = 3 if trained else 2
    linear = 2 * rows * tokens * (passes * weights + 3 * adapters) + 2 * learned * passes * output
    return linear + 3 * layers * attention_flops(text_config, rows=rows, tokens=tokens)


def attention_flops(text_config: Any, *, rows: int, tokens: int) -> int:
    """Of scores and weighted values of one layer in one pass forward, for the causal half; the backward pass costs twice that."""
    queries, _ = head_widths(text_config)
    return 2 * rows * tokens * (tokens + 1) * queries
