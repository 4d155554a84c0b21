"""Quotas: how often a rule may act, over all fields of view, and who comes first when not all can be served."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ...models.kernels import frozen

Family: TypeAlias = Literal["cell", "mother", "lineage"]
MOST_PER_FRAME = 64
"""Decisions of one rule in one frame, where the file does not say."""
_FEW = 8


class RunQuota:
    """What a rule may do in a whole run; shared by the rules of all fields of view.

    Parameters
    ----------
    per_run
        Actions in the run; None: any number.
    """

    def __init__(self, per_run: int | None = None) -> None:
        self.per_run, self.used = per_run, 0

    @property
    def left(self) -> int:
        """How many actions are left; a large number where there is no limit."""
        return 1 << 60 if self.per_run is None else max(0, self.per_run - self.used)


def best(
    rank: NDArray[np.float64] | None, among: NDArray[np.bool_], most: int | None = None
) -> NDArray[np.int64]:
    """Return rows in the order in which they are served: highest rank first, unknown ranks left out.

    Parameters
    ----------
    rank
        (n,) of all cells; None: in the order of the rows.
    among
        (n,) bool, writable, the rows to order. Of equal ranks the first row comes first.
    most
        Return so many at most; None: all.
    """
    if rank is None or not among.any():
        return np.flatnonzero(among)[:most]
    if most is not None and most <= _FEW:
        return _highest(frozen(rank, np.float64), among, most)
    rows = np.flatnonzero(among)
    keys = -rank[rows]
    known = ~np.isnan(keys)
    rows, keys = rows[known], keys[known]
    if most is not None and most < len(keys):  # sorting all of them would take longer than all the rest
        limit = np.partition(keys, most - 1)[most - 1]
        nearly = keys <= limit
        rows, keys = rows[nearly], keys[nearly]
    return rows[np.argsort(keys, kind="stable")][:most]


def first_of_each(families: NDArray[np.int64], rows: NDArray[np.int64], done: set[int]) -> NDArray[np.int64]:
    """Return the first row of each family that was not served yet, in their order.

    Parameters
    ----------
    families
        (n,) of all cells: equal for those of which only one is served; 0 for a cell that is of none.
    rows
        (k,) rows in the order in which they are served.
    done
        Families that were served.
    """
    seen = set(done)
    kept: list[int] = []
    for row in rows.tolist():
        family = int(families[row])
        if family not in seen or not family:
            kept.append(row)
        if family:
            seen.add(family)
    return np.array(kept, np.int64)


def warm_up() -> None:
    """Compile the kernel, so that no frame waits for it."""
    best(np.zeros(1), np.ones(1, np.bool_), 1)


@njit(cache=True, nogil=True)
def _highest(rank: NDArray[Any], among: NDArray[Any], most: int) -> NDArray[np.int64]:
    """Return what :func:`best` does, for few: a list of the best so far is kept in order."""
    rows, count = np.empty(most, np.int64), 0
    for row in range(len(rank) if most else 0):
        if count == most and rank[row] <= rank[rows[most - 1]]:
            continue
        if not among[row] or np.isnan(rank[row]):
            continue
        count = min(count + 1, most)
        at = count - 1
        while at > 0 and rank[rows[at - 1]] < rank[row]:
            rows[at] = rows[at - 1]
            at -= 1
        rows[at] = row
    return rows[:count]
