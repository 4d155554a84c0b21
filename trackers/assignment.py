"""Exact sparse linear assignment in which a row may end and a column may begin, and how sure each link is.

The problem: given edges (row, column, cost), a cost for every row left unmatched (death) and for every column
left unmatched (birth), choose the set of edges, at most one per row and per column, of least total cost.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching


def assign(
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    costs: NDArray[np.float64],
    shape: tuple[int, int],
    *,
    death: ArrayLike,
    birth: ArrayLike,
) -> NDArray[np.int64]:
    """Return the column of each row in an assignment of least total cost, -1 for rows left unmatched.

    Exact: a sparse solver [2]_ on the matrix of Jaqaman et al. [1]_, in which every row has a column of its
    own that stands for its end, and every column a row that stands for its beginning. With ``gain = death +
    birth - cost`` an edge without gain is never needed for the best total, so those are left out first. Ties
    are broken deterministically; memory grows with the number of edges.

    Parameters
    ----------
    rows, columns
        (e,) ends of the edges; of parallel edges the cheapest counts.
    costs
        (e,) cost of each edge; an infinite one is no edge.
    shape
        Number of rows and columns.
    death, birth
        Finite cost of leaving a row or a column unmatched: scalars, or (rows,) and (columns,).

    Raises
    ------
    ValueError
        If a cost is not a number, a death or birth cost is not finite, or an edge lies outside the shape.

    References
    ----------
    .. [1] Jaqaman et al. 2008, doi 10.1038/nmeth.1237.
    .. [2] LAPJVsp, in :func:`scipy.sparse.csgraph.min_weight_full_bipartite_matching`.
    """
    weight = edge_gains(rows, columns, costs, shape, death=death, birth=birth)
    column_of = np.full(shape[0], -1, np.int64)
    useful = np.flatnonzero(weight > 0)
    if len(useful) == 0:
        return column_of
    # The edges sorted by row, then column, then falling gain; the first of parallel ones stays.
    order = useful[np.lexsort((-weight[useful], columns[useful], rows[useful]))]
    r, c, w = rows[order], columns[order], weight[order]
    first = np.ones(len(r), bool)
    first[1:] = (r[1:] != r[:-1]) | (c[1:] != c[:-1])
    r, c, w = r[first], c[first], w[first]
    # Jaqaman's square matrix of the rows and columns that have edges. The solver takes explicit zeros for
    # missing edges, so all costs are shifted above zero; a full matching has a fixed number of them.
    present_row, r = np.unique(r, return_inverse=True)
    present_column, c = np.unique(c, return_inverse=True)
    n, m = len(present_row), len(present_column)
    ends, begins = np.arange(n), np.arange(m)
    # To end and begin costs ``most``, half each: a form from which the solver starts near the solution.
    most = w.max()
    values = 1.0 + np.concatenate([most - w, np.full(n + m, most / 2), np.zeros(len(w))])
    from_ = np.concatenate([r, ends, n + begins, n + c])
    to = np.concatenate([c, m + ends, begins, m + r])
    matrix = csr_array((values, (from_, to)), shape=(n + m, n + m))
    matched_row, matched_column = min_weight_full_bipartite_matching(matrix)
    linked = (matched_row < n) & (matched_column < m)
    column_of[present_row[matched_row[linked]]] = present_column[matched_column[linked]]
    return column_of


def edge_gains(
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    costs: NDArray[np.float64],
    shape: tuple[int, int],
    *,
    death: ArrayLike,
    birth: ArrayLike,
) -> NDArray[np.float64]:
    """Return what each edge saves compared with ending its row and beginning its column; checks the input."""
    ends = np.broadcast_to(np.asarray(death, np.float64), (shape[0],))
    begins = np.broadcast_to(np.asarray(birth, np.float64), (shape[1],))
    if not (np.isfinite(ends).all() and np.isfinite(begins).all()):
        raise ValueError("death and birth costs must be finite")
    if np.isnan(costs).any() or np.isneginf(costs).any():
        raise ValueError("costs must be numbers, or +inf for no edge")
    if len(rows) == 0:
        return np.empty(0)
    if min(rows.min(), columns.min()) < 0 or rows.max() >= shape[0] or columns.max() >= shape[1]:
        raise ValueError(f"an edge lies outside the shape {shape}")
    return ends[rows] + begins[columns] - costs


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
    from_column = np.ones(len(weight))
    message = weight
    for _ in range(rounds):
        message = weight * from_column
        others = np.bincount(rows, message, shape[0])[rows] - message
        to_column = weight / (1.0 + np.maximum(others, 0.0))
        others = np.bincount(columns, to_column, shape[1])[columns] - to_column
        from_column = 1.0 / (1.0 + np.maximum(others, 0.0))
    message = weight * from_column
    return message / (1.0 + np.bincount(rows, message, shape[0])[rows])
