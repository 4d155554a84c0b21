"""Cells that have become two of late: divisions that may yet be taken back, and pieces that may yet be daughters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .alive import Alive
from .columns import Columns

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Splits(Columns):
    """The k of them, as columns.

    Attributes
    ----------
    cell
        (k,) each cell as it was last seen whole.
    parts
        (k, 2) int64, the tracks of both. Of pieces, the first is the cell's own.
    since
        (k,) int64, sequence of the frame in which they were seen first.
    divided
        (k,) bool, whether it was said to have divided; if not, it is seen in pieces.
    odds
        (k,) float64, log of the odds that it has divided.
    frames
        (k,) int64, in how many frames since both have been seen.
    """

    cell: Alive
    parts: Ints
    since: Ints
    divided: NDArray[np.bool_]
    odds: NDArray[np.float64]
    frames: Ints

    @staticmethod
    def new(
        cell: Alive, parts: Ints, since: Ints, divided: NDArray[np.bool_], odds: NDArray[np.float64]
    ) -> Splits:
        """Return cells that have become two in this frame."""
        return Splits(cell, parts.reshape(-1, 2), since, divided, odds, np.zeros(len(since), np.int64))

    @staticmethod
    def none(like: Alive) -> Splits:
        """Return none, of cells like these."""
        nothing = np.empty(0, np.int64)
        return Splits.new(like.take(slice(0)), nothing, nothing, np.empty(0, np.bool_), np.empty(0))

    def state(self) -> dict[str, Any]:
        """Return the columns by name."""
        columns = {each.name: getattr(self, each.name) for each in fields(self)}
        return columns | {"cell": self.cell.state()}

    @staticmethod
    def of_state(state: Mapping[str, Any]) -> Splits:
        """Return what :meth:`state` was taken of.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is something else.
        """
        cell = Alive.of_state(state["cell"])
        columns = {each.name: np.array(state[each.name]) for each in fields(Splits) if each.name != "cell"}
        kinds = {"divided": "b", "odds": "f"}
        for name, column in columns.items():
            shape = (len(cell), 2) if name == "parts" else (len(cell),)
            if column.shape != shape or column.dtype.kind != kinds.get(name, "i"):
                raise ValueError(f"{name} is {column.dtype} of shape {column.shape} for {len(cell)} cells")
        return Splits(cell=cell, **columns)
