"""The cells of a table: as a person reads them, and as plain values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def cell(value: Any) -> str:
    """A value as a person reads it: four digits of a number, nothing where there is none."""
    if is_absent(value):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    # NumPy's float64 is a float, too
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def is_absent(value: Any) -> bool:
    """Whether a cell is empty: None, NaN, or pandas' own missing value."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value))


def rows_of(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows as plain values, for JSON: None where a cell is empty."""
    for row in frame.to_dict("records"):
        values = {str(name): None if is_absent(value) else value for name, value in row.items()}
        yield {name: value.item() if value is not None and hasattr(value, "item") else value for name, value in values.items()}


def numeric_columns(frame: pd.DataFrame) -> set[str]:
    """Columns that hold nothing but numbers."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return {name for name in frame.columns if is_numeric_dtype(frame[name]) and not is_bool_dtype(frame[name])}
