"""Rows as a pandas table in which whole numbers stay whole where one is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def frame_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """The table of these rows; a column of int and None has pandas' type Int64, others the type that pandas finds."""
    import pandas as pd

    values = {name: [row.get(name) for row in rows] for name in columns}
    made = {name: pd.array(found, dtype="Int64") if _are_whole(found) else found for name, found in values.items()}
    return pd.DataFrame(made, columns=list(columns), index=range(len(rows)))


def _are_whole(values: Sequence[Any]) -> bool:
    kinds = {type(value) for value in values if value is not None}
    return kinds == {int}
