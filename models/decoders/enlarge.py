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

SEVERAL = -(2**31)


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
    """Fill labels and order; return the number of cells."""
    height, width = cells.shape
    number = np.zeros(order.size + 1, np.int32)  # of each cell in the frame; first, how many there are
    stretch = np.empty((width, 3), np.int32)
    upper, lower = np.empty(width + 1, np.float32), np.empty(width + 1, np.float32)
    line, kind = np.empty(width + 1, np.float32), np.empty(width, np.int32)
    stretches, last = 0, -1
    for y in range(labels.shape[0]):
        i, row = rows[y], labels[y]
        above, below = cells[i], cells[min(i + 1, height - 1)]
        if i != last:
            _classify(above, below, kind)
            stretches = _stretches(kind, begin, stretch)
            _sign(above, margin[i], upper)
            _sign(below, margin[min(i + 1, height - 1)], lower)
            last = i
        for j in range(width + 1):
            line[j] = upper[j] + (lower[j] - upper[j]) * row_share[y]
        for k in range(stretches):
            left, right, cell = stretch[k, 0], stretch[k, 1], stretch[k, 2]
            if cell >= 0:
                value = _numbered(cell, number, order) if cell else 0
                for x in range(left, right):
                    row[x] = value
            elif cell == SEVERAL:
                for x in range(left, right):
                    j = columns[x]
                    row[x] = 0
                    if line[j] + (line[j + 1] - line[j]) * column_share[x] > 0:
                        winner = _vote(above, below, j, row_share[y], column_share[x])
                        row[x] = _numbered(winner, number, order)
            else:
                _outline(line, columns, column_share, left, right, -cell, number, order, row)
    return number[0]


@njit(cache=True, nogil=True)
def _classify(above: Ints, below: Ints, kind: Ints) -> None:
    """Say for each place between two rows and columns of the grid what cells are around it.

    A cell (0: background) if it is the only one; minus a cell if there is background too; else SEVERAL.
    """
    width = kind.size
    for j in range(width - 1):
        kind[j] = _kind(above[j], above[j + 1], below[j], below[j + 1])
    kind[width - 1] = _kind(above[width - 1], above[width - 1], below[width - 1], below[width - 1])


@njit(cache=True, nogil=True)
def _kind(a: np.int32, b: np.int32, c: np.int32, d: np.int32) -> np.int32:
    """Without branches, so that many places are looked at at a time."""
    cell, least = max(max(a, b), max(c, d)), min(min(a, b), min(c, d))
    other = (
        ((a != 0) & (a != cell))
        | ((b != 0) & (b != cell))
        | ((c != 0) & (c != cell))
        | ((d != 0) & (d != cell))
    )
    outline = np.int32(SEVERAL) if other else -cell
    return cell if cell == least else outline


@njit(cache=True, nogil=True)
def _stretches(kind: Ints, begin: Ints, stretch: Ints) -> int:
    """Join columns of the frame between which nothing changes: first, last + 1, kind; return how many there are."""
    n = 0
    for j in range(kind.size):
        if begin[j] == begin[j + 1]:
            continue
        if n and stretch[n - 1, 2] == kind[j]:
            stretch[n - 1, 1] = begin[j + 1]
        else:
            stretch[n, 0], stretch[n, 1], stretch[n, 2] = begin[j], begin[j + 1], kind[j]
            n += 1
    return n


@njit(cache=True, nogil=True)
def _sign(cells: Ints, margin: Floats, signed: Floats) -> None:
    """Write how far inside the px of a row are, those outside below 0; the last one twice."""
    for j in range(cells.size):
        signed[j] = abs(margin[j]) if cells[j] else -abs(margin[j])
    signed[cells.size] = signed[cells.size - 1]


@njit(cache=True, nogil=True)
def _outline(
    line: Floats,
    columns: Ints,
    column_share: Floats,
    left: int,
    right: int,
    cell: int,
    number: Ints,
    order: Ints,
    row: Ints,
) -> None:
    """Write a stretch that is partly in one cell."""
    known = number[cell]
    seen = np.float32(-1)
    for x in range(left, right):
        j = columns[x]
        inside = line[j] + (line[j + 1] - line[j]) * column_share[x]
        row[x] = known if inside > 0 else 0
        seen = max(seen, inside)
    if known == 0 and seen > 0:
        _numbered(cell, number, order)
        _outline(line, columns, column_share, left, right, cell, number, order, row)


@njit(cache=True, nogil=True)
def _numbered(cell: int, number: Ints, order: Ints) -> int:
    """Return the number of a cell in the frame; the first time, the next one."""
    if number[cell] == 0:
        order[number[0]] = cell
        number[0] += 1
        number[cell] = number[0]
    return number[cell]


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
