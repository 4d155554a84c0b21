"""Tables of equally long columns, as frozen or plain dataclasses with slots."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class Columns:
    """What all of them can do; a column is an array, or a table again."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(getattr(self, next(iter(self.__slots__))))

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Self:
        """Return some of the rows."""
        return type(self)(*(_rows_of(getattr(self, name), rows) for name in self.__slots__))

    def joined(self, *others: Self) -> Self:
        """Return the rows of all of them."""
        every = (self, *others)
        return type(self)(*(_end_to_end([getattr(each, name) for each in every]) for name in self.__slots__))


def _rows_of(column: Any, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Any:
    return column.take(rows) if isinstance(column, Columns) else column[rows]


def _end_to_end(columns: list[Any]) -> Any:
    if isinstance(columns[0], Columns):
        return columns[0].joined(*columns[1:])
    return np.concatenate(columns)
