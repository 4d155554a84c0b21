"""Columns as the best table that is installed: of pandas, else of pyarrow, else a list of dictionaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def as_table(columns: Mapping[str, Sequence[Any] | np.ndarray[Any, Any]]) -> Any:
    """Return columns of equal length as a table.

    Returns
    -------
    pandas.DataFrame, pyarrow.Table or list
        What is installed, in this order; the list has a dictionary for each row.
    """
    try:
        import pandas
    except ImportError:
        pass
    else:
        return pandas.DataFrame(dict(columns))
    plain = {
        name: column.tolist() if isinstance(column, np.ndarray) else list(column)
        for name, column in columns.items()
    }
    try:
        import pyarrow
    except ImportError:
        return [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]
    return pyarrow.table(dict(columns))


def columns_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    """Return rows as columns of the given names; also without rows all columns are there."""
    return {name: [row[name] for row in rows] for name in names}
