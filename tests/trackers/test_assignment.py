"""The sparse assignment against the dense one, which is known to be exact."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from cytoloop.trackers.assignment import Edges, link_probabilities, match
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import KDTree


def assign(rows, columns, costs, shape, *, death, birth):
    """Return the column of each row at least cost, where rows may end and columns begin at a cost."""
    gains = np.broadcast_to(death, shape[:1])[rows] + np.broadcast_to(birth, shape[1:])[columns] - costs
    order = np.lexsort((columns, rows))
    return match(Edges.of(rows[order], columns[order], shape), gains[order]).column_of


def total_cost(column_of, dense, death, birth):
    linked = np.flatnonzero(column_of >= 0)
    free = np.setdiff1d(np.arange(dense.shape[1]), column_of[linked])
    assert len(set(column_of[linked])) == len(linked)
    return dense[linked, column_of[linked]].sum() + death[column_of < 0].sum() + birth[free].sum()


def least_cost(dense, death, birth):
    """Solve the square problem of Jaqaman et al. (2008) with scipy's dense solver."""
    n, m = dense.shape
    big = 1e6
    square = np.full((n + m, n + m), big)
    square[:n, :m] = np.where(np.isfinite(dense), dense, big)
    square[np.arange(n), m + np.arange(n)] = death
    square[n + np.arange(m), np.arange(m)] = birth
    square[n:, m:] = 0
    chosen = linear_sum_assignment(square)
    return square[chosen].sum()


def edges_of(dense):
    rows, columns = np.nonzero(np.isfinite(dense))
    return rows, columns, dense[rows, columns]


@st.composite
def problems(draw):
    n, m = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    # Small whole numbers make ties and zero weights the rule.
    cost = st.one_of(st.just(np.inf), st.integers(-4, 4).map(float), st.floats(-10, 10, allow_nan=False))
    dense = np.array(draw(st.lists(cost, min_size=n * m, max_size=n * m)), float).reshape(n, m)
    level = st.integers(-2, 3).map(float)
    death = np.array(draw(st.lists(level, min_size=n, max_size=n)), float)
    birth = np.array(draw(st.lists(level, min_size=m, max_size=m)), float)
    return dense, death, birth


@settings(max_examples=300, deadline=None)
@given(problems())
def test_no_assignment_is_cheaper_than_the_sparse_one(problem):
    dense, death, birth = problem
    rows, columns, costs = edges_of(dense)
    column_of = assign(rows, columns, costs, dense.shape, death=death, birth=birth)
    assert total_cost(column_of, dense, death, birth) == pytest.approx(
        least_cost(dense, death, birth), abs=1e-9
    )


@pytest.mark.parametrize(
    ("n", "m", "density"), [(60, 60, 1.0), (120, 90, 0.05), (40, 160, 0.3), (1, 80, 1.0)]
)
def test_it_stays_exact_when_the_graph_is_one_component_or_falls_apart(n, m, density):
    random = np.random.default_rng(n + m)
    dense = random.exponential(2, (n, m)).round(1)
    dense[random.random((n, m)) > density] = np.inf
    death, birth = np.full(n, 1.5), random.uniform(0, 2, m)
    rows, columns, costs = edges_of(dense)
    shuffled = random.permutation(len(rows))
    column_of = assign(rows[shuffled], columns[shuffled], costs[shuffled], (n, m), death=death, birth=birth)
    assert total_cost(column_of, dense, death, birth) == pytest.approx(least_cost(dense, death, birth))


def test_all_costs_equal_still_gives_a_full_matching():
    rows, columns = map(np.ravel, np.indices((30, 30)))
    column_of = assign(rows, columns, np.zeros(900), (30, 30), death=1.0, birth=1.0)
    assert sorted(column_of) == list(range(30))


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0)])
def test_an_empty_side_leaves_everything_unmatched(shape):
    none = np.empty(0, np.int64)
    assert (assign(none, none, np.empty(0), shape, death=1.0, birth=1.0) == -1).all()


def jaqaman(edges, gains):
    """Return the greatest total gain by scipy's sparse solver, on the square matrix of Jaqaman et al. (2008)."""
    useful = gains > 0
    rows, columns, gains = edges.row[useful], edges.column[useful], gains[useful]
    n, m = edges.shape
    most = float(gains.max())
    values = 1.0 + np.concatenate([most - gains, np.full(n + m, most / 2), np.zeros(len(gains))])
    from_ = np.concatenate([rows, np.arange(n), n + np.arange(m), n + columns])
    to = np.concatenate([columns, m + np.arange(n), np.arange(m), m + rows])
    matched = min_weight_full_bipartite_matching(csr_array((values, (from_, to)), shape=(n + m, n + m)))
    links = (matched[0] < n) & (matched[1] < m)
    of_pair = dict(zip(zip(rows.tolist(), columns.tolist(), strict=True), gains.tolist(), strict=True))
    return sum(of_pair[pair] for pair in zip(matched[0][links], matched[1][links], strict=True))


def prove(edges, gains, found):
    """Prices that no edge beats, and that the chosen edges reach, prove that nothing gains more."""
    linked = np.flatnonzero(found.column_of >= 0)
    assert len(set(found.column_of[linked])) == len(linked)
    assert np.array_equal(edges.row[found.edge_of[linked]], linked)
    assert np.array_equal(edges.column[found.edge_of[linked]], found.column_of[linked])
    assert (found.row_price >= 0).all() and (found.column_price >= 0).all()
    assert (found.row_price[edges.row] + found.column_price[edges.column] >= gains - 1e-9).all()
    total = gains[found.edge_of[linked]].sum()
    assert found.row_price.sum() + found.column_price.sum() == pytest.approx(total, rel=1e-9, abs=1e-9)


@settings(max_examples=300, deadline=None)
@given(problems())
def test_the_prices_prove_that_no_assignment_gains_more(problem):
    dense, death, birth = problem
    rows, columns, costs = edges_of(dense)
    edges, gains = Edges.of(rows, columns, dense.shape), death[rows] + birth[columns] - costs
    prove(edges, gains, match(edges, gains))


@pytest.mark.parametrize("spacing", [30.0, 12.0])
def test_ten_thousand_cells_are_matched_as_by_another_exact_solver(spacing):
    random = np.random.default_rng(3)
    before = random.uniform(0, 100 * spacing, (10_000, 2))
    after = random.permutation(before + random.normal(0, 4, before.shape))[:9_700]
    after = np.concatenate([after, random.uniform(0, 100 * spacing, (300, 2))])
    pairs = KDTree(before).sparse_distance_matrix(KDTree(after), 24, output_type="ndarray")
    pairs = pairs[np.lexsort((pairs["j"], pairs["i"]))]
    edges = Edges.of(pairs["i"], pairs["j"], (len(before), len(after)))
    gains = 8 - pairs["v"] ** 2 / 32
    found = match(edges, gains)
    prove(edges, gains, found)
    total = gains[found.edge_of[found.edge_of >= 0]].sum()
    assert total == pytest.approx(jaqaman(edges, gains), rel=1e-9)


def test_one_row_more_moves_a_whole_chain():
    # Row i gains most from column i; the last row can only have column 0, and all must step aside for it.
    n = 2000
    rows = np.concatenate([np.repeat(np.arange(n), 2), [n]])
    columns = np.concatenate([np.stack([np.arange(n), np.arange(n) + 1], axis=1).ravel(), [0]])
    gains = np.concatenate([np.tile([2.0, 1.999], n), [50.0]])
    edges = Edges.of(rows, columns, (n + 1, n + 1))
    found = match(edges, gains)
    assert found.column_of.tolist() == [*range(1, n + 1), 0]
    prove(edges, gains, found)
    dear = np.concatenate(
        [np.tile([2.0, 1.9], n), [50.0]]
    )  # stepping aside costs more than one link is worth
    dear[-1] = 1.5
    assert match(edges, dear).column_of.tolist() == [*range(n), -1]


@pytest.mark.parametrize("gain", [np.nan, np.inf])
def test_gains_that_are_no_numbers_are_refused(gain):
    with pytest.raises(ValueError, match="gains must be numbers"):
        match(Edges.of(np.array([0]), np.array([0]), (1, 1)), np.array([gain]))


def exact_probabilities(rows, columns, gains, shape):
    """Sum over every assignment."""
    weight, share = 0.0, np.zeros(len(rows))
    for chosen in product([False, True], repeat=len(rows)):
        kept = np.array(chosen)
        if len(set(rows[kept])) == kept.sum() == len(set(columns[kept])):
            value = np.exp(gains[kept].sum())
            weight += value
            share[kept] += value
    return share / weight


def test_link_probabilities_are_exact_on_a_tree_and_near_on_a_cycle():
    rows, columns = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 1, 2])
    gains = np.array([2.0, 1.0, 0.5, -1.0, 3.0])
    found = link_probabilities(rows, columns, gains, (3, 3), rounds=50)
    assert found == pytest.approx(exact_probabilities(rows, columns, gains, (3, 3)), abs=1e-6)
    rows, columns, gains = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([4.0, 1.0, 2.0, 3.0])
    found = link_probabilities(rows, columns, gains, (2, 2))
    assert found == pytest.approx(exact_probabilities(rows, columns, gains, (2, 2)), abs=0.05)
