"""From cells on a net's grid to cells on the frame, with outlines at the resolution of the frame.

The grid says for each of its px by how much it is inside or outside. Between the centres of four grid px that is
interpolated linearly, and its sign decides whether a px of the frame is inside; which cell it belongs to is voted
by the four with the same weights.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .decoder import Grid

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


def enlarge(cells: Ints, count: int, margin: Floats, grid: Grid) -> tuple[Ints, Ints]:
    """Return the cells at the resolution of the frame.

    Parameters
    ----------
    cells
        (h, w) int32: 0 is background, 1..count are cells; numbers may be missing.
    count
        Largest number.
    margin
        (h, w) float32: how sure it is that a px is inside a cell, or outside (only the size counts: what has
        a number is inside). Logits above the threshold are a good choice.
    grid
        Where the px lie on the frame.

    Returns
    -------
    (labels, order)
        (y, x) int32 of the frame's shape, 1..n in the order of the first px from the top left; (n,) int32 the
        number in ``cells`` of each. Cells that cover no px of the frame are not among them.
    """
    rows, row_share = _places(cells.shape[0], grid.shape[0], grid.pitch[0])
    columns, column_share = _places(cells.shape[1], grid.shape[1], grid.pitch[1])
    # Where the px of the frame begin that lie between two columns of the grid.
    begin = np.searchsorted(columns, np.arange(cells.shape[1] + 1)).astype(np.int32)
    labels = np.empty(grid.shape, np.int32)
    order = np.empty(count, np.int32)
    n = _enlarge(cells, margin, rows, row_share, columns, column_share, begin, labels, order)
    return labels, order[:n]


def warm_up() -> None:
    """Compile the kernels, or load them if they were compiled before."""
    enlarge(np.ones((2, 2), np.int32), 1, np.ones((2, 2), np.float32), Grid((2, 2), (1.0, 1.0)))


def _places(size: int, wanted: int, pitch: float) -> tuple[Ints, Floats]:
    """Return the px of the grid before each px of the frame, and the weight of the one after it."""
    at = np.clip((np.arange(wanted) + 0.5) / pitch - 0.5, 0, size - 1)
    before = np.minimum(at.astype(np.int32), max(size - 2, 0))
    return before, (at - before).astype(np.float32)


@njit(cache=True, nogil=True)
def _enlarge(
    cells: Ints,
    margin: Floats,
    rows: Ints,
    row_share: Floats,
    columns: Ints,
    column_share: Floats,
    begin: Ints,
    labels: Ints,
    order: Ints,
) -> int:
    """Fill labels and order; return the number of cells.

    The grid is taken row by row. Between a row and the next, the places between four px are of one kind each:
    see ``_classify``. Rows of the frame are filled as if there were no outlines; then these are drawn.
    """
    height, width = cells.shape
    several = -order.size - 1
    number = np.zeros(order.size + 2, np.int32)  # of each cell in the frame
    known = np.zeros(order.size + 2, np.bool_)  # cells that have one; what is in several may always be new
    known[0] = True
    count, y = 0, 0
    kind, value = np.empty(width, np.int32), np.empty(width, np.int32)
    mixed, new = np.empty(width, np.int32), np.empty(width, np.int32)
    upper, lower = np.empty(width + 1, np.float32), np.empty(width + 1, np.float32)
    while y < len(labels):
        i, first = rows[y], y
        while y < len(labels) and rows[y] == i:
            y += 1
        above, below = cells[i], cells[min(i + 1, height - 1)]
        _sign(above, margin[i], upper)
        _sign(below, margin[min(i + 1, height - 1)], lower)
        _classify(above, below, several, kind)
        drawn, fresh = _sort_out(kind, known, mixed, new)
        for row in range(first, y):
            for k in range(fresh):
                j = int(new[k])
                for x in range(begin[j], begin[j + 1]):
                    cell = _cell_at(above, below, upper, lower, j, row_share[row], column_share[x])
                    if not known[cell]:
                        order[count] = cell
                        count += 1
                        number[cell], known[cell] = count, True
        _fill(kind, number, columns, value, labels[first])
        for row in range(first + 1, y):
            labels[row] = labels[first]
        for k in range(drawn):
            j = int(mixed[k])
            if kind[j] != several:
                corners = upper[j], upper[j + 1], lower[j], lower[j + 1]
                _outline(
                    labels,
                    first,
                    y,
                    row_share,
                    begin[j],
                    begin[j + 1],
                    column_share,
                    corners,
                    number[-int(kind[j])],
                )
                continue
            for row in range(first, y):
                for x in range(begin[j], begin[j + 1]):
                    cell = _cell_at(above, below, upper, lower, j, row_share[row], column_share[x])
                    labels[row, x] = number[cell]
    return count


@njit(cache=True, nogil=True)
def _sign(cells: Ints, margin: Floats, signed: Floats) -> None:
    """Write how far inside the px of a row are, those outside below 0; the last one twice."""
    for j in range(cells.size):
        signed[j] = abs(margin[j]) if cells[j] else -abs(margin[j])
    signed[cells.size] = signed[cells.size - 1]


@njit(cache=True, nogil=True)
def _classify(above: Ints, below: Ints, several: int, kind: Ints) -> None:
    """Say for each place between two rows and columns of the grid what cells are around it.

    A cell (0: background) if it is the only one; minus a cell if there is background too; else ``several``.
    """
    last = kind.size - 1
    for j in range(last):
        kind[j] = _kind(above[j], above[j + 1], below[j], below[j + 1], several)
    kind[last] = _kind(above[last], above[last], below[last], below[last], several)


@njit(cache=True, nogil=True)
def _kind(a: int, b: int, c: int, d: int, several: int) -> int:
    """Without branches, so that many places are looked at at a time."""
    cell, least = max(max(a, b), max(c, d)), min(min(a, b), min(c, d))
    other = (
        ((a != 0) & (a != cell))
        | ((b != 0) & (b != cell))
        | ((c != 0) & (c != cell))
        | ((d != 0) & (d != cell))
    )
    outline = several if other else -cell
    return cell if cell == least else outline


@njit(cache=True, nogil=True)
def _sort_out(kind: Ints, known: NDArray[np.bool_], mixed: Ints, new: Ints) -> tuple[int, int]:
    """Write the places of more than one kind to ``mixed``, those of cells that are not known yet to ``new``.

    Return how many there are of both.
    """
    drawn, fresh = 0, 0
    for j in range(kind.size):
        mixed[drawn], new[fresh] = j, j  # without branches: it counts only if the next line says so
        drawn += kind[j] < 0
        fresh += not known[abs(kind[j])]
    return drawn, fresh


@njit(cache=True, nogil=True)
def _fill(kind: Ints, number: Ints, columns: Ints, value: Ints, row: Ints) -> None:
    """Fill a row of the frame with the numbers of the cells that fill their places."""
    for j in range(kind.size):
        value[j] = number[max(kind[j], 0)]
    for x in range(row.size):
        row[x] = value[columns[x]]


@njit(cache=True, nogil=True)
def _outline(
    labels: Ints,
    first: int,
    stop: int,
    row_share: Floats,
    left: int,
    right: int,
    column_share: Floats,
    corners: tuple[float, float, float, float],
    number: int,
) -> None:
    """Fill a place that is partly in one cell."""
    for y in range(first, stop):
        row, down = labels[y], row_share[y]
        for x in range(left, right):
            row[x] = number if _inside(corners, down, column_share[x]) > 0 else 0


@njit(cache=True, nogil=True)
def _inside(corners: tuple[float, float, float, float], down: float, over: float) -> float:
    a, b, c, d = corners
    left, right = a + (c - a) * down, b + (d - b) * down
    return left + (right - left) * over


@njit(cache=True, nogil=True)
def _cell_at(above: Ints, below: Ints, upper: Floats, lower: Floats, j: int, down: float, over: float) -> int:
    """Return the cell at a place between four px of the grid, 0 outside."""
    corners = upper[j], upper[j + 1], lower[j], lower[j + 1]
    return _vote(above, below, j, down, over) if _inside(corners, down, over) > 0 else 0


@njit(cache=True, nogil=True)
def _vote(above: Ints, below: Ints, j: int, down: float, over: float) -> int:
    """Return the cell that has most weight at a place between four px of the grid; of equals, the first."""
    after = min(j + 1, above.size - 1)
    a, b, c, d = above[j], above[after], below[j], below[after]
    of_a, of_b = (1 - down) * (1 - over), (1 - down) * over
    of_c, of_d = down * (1 - over), down * over
    # Each px gathers the weight of those after it that are of its cell.
    of_a += (of_b if b == a else 0.0) + (of_c if c == a else 0.0) + (of_d if d == a else 0.0)
    of_b += (of_c if c == b else 0.0) + (of_d if d == b else 0.0)
    of_c += of_d if d == c else 0.0
    best, most = a, of_a if a else -1.0
    if b and of_b > most:
        best, most = b, of_b
    if c and of_c > most:
        best, most = c, of_c
    if d and of_d > most:
        best = d
    return best
