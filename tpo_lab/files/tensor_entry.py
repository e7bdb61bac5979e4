"""What a file says of a tensor: its name, shape and type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

TYPES: Mapping[str, int] = MappingProxyType(
    {
        "F64": 8,
        "F32": 4,
        "F16": 2,
        "BF16": 2,
        "F8_E4M3": 1,
        "F8_E5M2": 1,
        "F8_E8M0": 1,
        "I64": 8,
        "I32": 4,
        "I16": 2,
        "I8": 1,
        "U64": 8,
        "U32": 4,
        "U16": 2,
        "U8": 1,
        "BOOL": 1,
        "C64": 8,
        "C128": 16,
    }
)
"""Types of numbers as safetensors names them, and their bytes."""


@dataclass(frozen=True)
class TensorEntry:
    """A tensor in a file.

    Attributes:
        name: dotted.
        shape: of each axis.
        dtype: one of `TYPES`, or another that safetensors names.
        bytes: of its numbers.
        file: in which it is, by its path in the folder that is looked at; "" where there is one file only.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    file: str = ""

    @property
    def parameters(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)
