"""Exact sparse linear assignment in which a row may end and a column may begin, and how sure each link is.

The problem: given edges (row, column, gain), choose the set of edges, at most one per row and per column, of
greatest total gain; what is left unmatched gains nothing. With ``gain = death + birth - cost`` that is the
assignment of least cost in which every row may end and every column begin (Jaqaman et al. 2008,
doi 10.1038/nmeth.1237).

The method: shortest augmenting paths over the sparse rows (Jonker and Volgenant 1987, doi 10.1007/BF02278710),
with prices of rows and columns as dual variables; a path may also end at a row that is given up, as ending costs
no more than the row's price. Rows whose best column is free, nearly all in tracking, take no search. Memory grows
with the edges; time with the edges that the searches see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Possible links between n rows and m columns, sorted by row, then by column; none twice.

    Attributes
    ----------
    start
        (n + 1,) int64, where each row's edges begin, and the number of edges.
    row, column
        (e,) int64.
    columns
        m.
    """

    start: Ints
    row: Ints
    column: Ints
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        return len(self.start) - 1, self.columns

    def __len__(self) -> int:
        return len(self.row)

    @staticmethod
    def of(rows: NDArray[np.integer], columns: NDArray[np.integer], shape: tuple[int, int]) -> Edges:
        """Return sorted edges as such."""
        start = np.zeros(shape[0] + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=shape[0]), out=start[1:])
        row, column = (np.ascontiguousarray(each, np.int64) for each in (rows, columns))
        return Edges(start, row, column, shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """The best assignment and what proves it.

    Attributes
    ----------
    column_of
        (n,) int64, the column of each row, -1 for a row left unmatched.
    edge_of
        (n,) int64, the edge by which it is matched, -1 for none.
    row_price, column_price
        (n,), (m,) float64, at least 0 and 0 for the unmatched. Row and column price of every edge add up to its
        gain or more, and to just its gain for the edges chosen: so no other assignment gains more.
    """

    column_of: Ints
    edge_of: Ints
    row_price: Floats
    column_price: Floats


def match(edges: Edges, gains: Floats) -> Matching:
    """Return the assignment of greatest gain; of several, always the same.

    Parameters
    ----------
    edges
        e of them.
    gains
        (e,) float64, finite, or -inf for no edge; edges that gain nothing are never chosen.

    Raises
    ------
    ValueError
        If a gain is NaN or +inf.
    """
    if not (gains < np.inf).all():
        raise ValueError("gains must be numbers, or -inf for no edge")
    return Matching(
        *_match(edges.start, edges.row, edges.column, np.ascontiguousarray(gains, np.float64), edges.columns)
    )


def margins(edges: Edges, gains: Floats, matching: Matching) -> Floats:
    """Return (n,) by how much the assignment explains more than any without the row's edge; 0 for unmatched rows.

    A bound from below, from the prices: without the edge the row takes another or ends, and the column is taken by
    another or begins; of both, the least that is lost. What the rest of the graph then loses is left out.

    Parameters
    ----------
    edges, gains, matching
        What was matched, and how.
    """
    return _margins(
        edges.row,
        edges.column,
        np.ascontiguousarray(gains, np.float64),
        matching.column_of,
        matching.edge_of,
        matching.row_price,
        matching.column_price,
    )


def link_probabilities(
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    gains: NDArray[np.float64],
    shape: tuple[int, int],
    *,
    rounds: int = 12,
) -> NDArray[np.float64]:
    """Return the (e,) probability of each edge over all assignments, each weighted by exp(total gain).

    Loopy belief propagation for data association (Williams and Lau 2014, doi 10.1109/TAES.2014.120568), which
    converges; exact on trees, and close on the sparse graphs that gating leaves.

    Parameters
    ----------
    rows, columns, gains
        (e,) the edges, none parallel to another; a gain is the log-likelihood ratio of the link against
        an end and a beginning.
    shape
        Number of rows and columns.
    rounds
        How often the messages are passed.
    """
    weight = np.exp(np.clip(gains, -25.0, 25.0))  # beyond that, sums less one term would cancel
    row, column = (np.ascontiguousarray(each, np.int64) for each in (rows, columns))
    return _propagate(row, column, weight, shape, rounds)


def warm_up() -> None:
    """Compile the kernels, or load them if they were compiled before."""
    edges = Edges.of(np.array([0]), np.array([0]), (1, 1))
    margins(edges, np.ones(1), match(edges, np.ones(1)))
    link_probabilities(edges.row, edges.column, np.ones(1), edges.shape)


@njit(cache=True, nogil=True)
def _match(
    start: Ints, row: Ints, column: Ints, gain: Floats, columns: int
) -> tuple[Ints, Ints, Floats, Floats]:
    rows = start.size - 1
    column_of, edge_of = np.full(rows, -1, np.int64), np.full(rows, -1, np.int64)
    row_of = np.full(columns, -1, np.int64)
    row_price, price = np.zeros(rows), np.zeros(columns)
    # Of a search: the shortest way to each column and the edge by which it comes; what was reached, in order.
    way = np.full(columns, np.inf)
    by = np.full(columns, -1, np.int64)
    settled = np.zeros(columns, np.bool_)
    seen = np.empty(columns, np.int64)
    heap_way, heap_column = np.empty(64), np.empty(64, np.int64)
    passed, passed_way = np.empty(rows, np.int64), np.empty(rows)
    for first in range(rows):
        best, best_edge, best_free = 0.0, -1, False
        for e in range(start[first], start[first + 1]):
            j = column[e]
            value = gain[e] - price[j]
            if value > best or (value == best and best_edge >= 0 and not best_free and row_of[j] < 0):
                best, best_edge, best_free = value, e, row_of[j] < 0
        row_price[first] = best
        if best_edge < 0:
            continue
        if best_free:
            j = column[best_edge]
            column_of[first], edge_of[first], row_of[j] = j, best_edge, first
            continue
        # Dijkstra over rows and the columns that they hold; reduced costs are never negative.
        found, heap, n_passed = 0, 0, 1
        passed[0], passed_way[0] = first, 0.0
        i, here = first, 0.0
        end_row, end_cost = first, row_price[first]
        target = -1
        while True:
            for e in range(start[i], start[i + 1]):
                j = column[e]
                if settled[j] or gain[e] == -np.inf:
                    continue
                there = here + max(row_price[i] + price[j] - gain[e], 0.0)
                if there < way[j] and there < end_cost:
                    if by[j] < 0:
                        seen[found] = j
                        found += 1
                    way[j], by[j] = there, e
                    if heap == heap_way.size:
                        heap_way = np.concatenate((heap_way, np.empty_like(heap_way)))
                        heap_column = np.concatenate((heap_column, np.empty_like(heap_column)))
                    _push(heap_way, heap_column, heap, there, j)
                    heap += 1
            j = -1
            while heap:
                there, j = heap_way[0], heap_column[0]
                heap -= 1
                _pop(heap_way, heap_column, heap)
                if not settled[j] and there == way[j]:
                    break
                j = -1
            if j < 0 or way[j] >= end_cost:
                break  # giving up `end_row` is the shortest way
            settled[j] = True
            if row_of[j] < 0:
                target = j
                break
            i, here = row_of[j], way[j]
            passed[n_passed], passed_way[n_passed] = i, here
            n_passed += 1
            if here + row_price[i] < end_cost:
                end_row, end_cost = i, here + row_price[i]
        total = way[target] if target >= 0 else end_cost
        for k in range(n_passed):
            row_price[passed[k]] -= total - passed_way[k]
        for k in range(found):
            if settled[seen[k]]:
                price[seen[k]] += total - way[seen[k]]
        if target < 0:
            row_price[end_row] = 0.0
        # Give the columns along the way to the rows from which they were reached.
        j = target
        if target < 0:
            j = column_of[end_row]
            if end_row != first:
                column_of[end_row] = edge_of[end_row] = -1
        if target >= 0 or end_row != first:
            while True:
                e = by[j]
                i = row[e]
                before = column_of[i]
                column_of[i], edge_of[i], row_of[j] = j, e, i
                if i == first:
                    break
                j = before
        for k in range(found):
            j = seen[k]
            way[j], by[j], settled[j] = np.inf, -1, False
    return column_of, edge_of, row_price, price


@njit(cache=True, nogil=True)
def _push(ways: Floats, columns: Ints, size: int, way: float, column: int) -> None:
    k = size
    while k > 0:
        above = (k - 1) >> 1
        if ways[above] < way or (ways[above] == way and columns[above] <= column):
            break
        ways[k], columns[k] = ways[above], columns[above]
        k = above
    ways[k], columns[k] = way, column


@njit(cache=True, nogil=True)
def _pop(ways: Floats, columns: Ints, size: int) -> None:
    """Take the first out of a heap that has ``size`` left: the last takes its place and sinks."""
    way, column = ways[size], columns[size]
    k = 0
    while True:
        below = 2 * k + 1
        if below >= size:
            break
        right = below + 1
        if right < size and (
            ways[right] < ways[below] or (ways[right] == ways[below] and columns[right] < columns[below])
        ):
            below = right
        if way < ways[below] or (way == ways[below] and column <= columns[below]):
            break
        ways[k], columns[k] = ways[below], columns[below]
        k = below
    ways[k], columns[k] = way, column


@njit(cache=True, nogil=True)
def _propagate(row: Ints, column: Ints, weight: Floats, shape: tuple[int, int], rounds: int) -> Floats:
    from_column, to_column = np.ones(weight.size), np.empty(weight.size)
    of_row, of_column = np.empty(shape[0]), np.empty(shape[1])
    for _ in range(rounds):
        of_row[:] = 0.0
        for e in range(weight.size):
            of_row[row[e]] += weight[e] * from_column[e]
        of_column[:] = 0.0
        for e in range(weight.size):
            others = max(of_row[row[e]] - weight[e] * from_column[e], 0.0)
            to_column[e] = weight[e] / (1.0 + others)
            of_column[column[e]] += to_column[e]
        for e in range(weight.size):
            from_column[e] = 1.0 / (1.0 + max(of_column[column[e]] - to_column[e], 0.0))
    of_row[:] = 0.0
    for e in range(weight.size):
        of_row[row[e]] += weight[e] * from_column[e]
    share = np.empty(weight.size)
    for e in range(weight.size):
        share[e] = weight[e] * from_column[e] / (1.0 + of_row[row[e]])
    return share


@njit(cache=True, nogil=True)
def _margins(
    row: Ints,
    column: Ints,
    gain: Floats,
    column_of: Ints,
    edge_of: Ints,
    row_price: Floats,
    column_price: Floats,
) -> Floats:
    of_row = row_price.copy()  # the row ends
    of_column = column_price.copy()  # the column begins
    for e in range(row.size):
        i, j = row[e], column[e]
        if edge_of[i] != e:
            lost = row_price[i] + column_price[j] - gain[e]
            of_row[i] = min(of_row[i], lost)
            of_column[j] = min(of_column[j], lost)
    margin = np.zeros(row_price.size)
    for i in range(row_price.size):
        j = column_of[i]
        if j >= 0:
            margin[i] = max(of_row[i], 0.0) + max(of_column[j], 0.0)
    return margin
