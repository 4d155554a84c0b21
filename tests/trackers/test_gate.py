"""The gate against a brute-force search."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.trackers.gate import near_pairs
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

points = st.integers(0, 30).flatmap(
    lambda n: arrays(float, (n, 2), elements=st.floats(-1000, 1000, width=32))
)


def brute(one, other, reach):
    away = np.hypot(*(one[:, None] - other[None]).transpose(2, 0, 1))
    rows, columns = np.nonzero(away <= reach)
    return rows, columns, away[rows, columns]


@given(points, points, st.sampled_from([0.5, 30.0, 3000.0]))
def test_every_pair_within_reach_is_found_once_and_in_order(one, other, reach):
    found, expected = near_pairs(one, other, reach), brute(one, other, reach)
    sure = np.abs(expected[2] - reach) > 1e-9 * reach
    on_edge = np.abs(found[2] - reach) <= 1e-9 * reach
    assert np.array_equal(found[0][~on_edge], expected[0][sure])
    assert np.array_equal(found[1][~on_edge], expected[1][sure])
    assert found[2][~on_edge] == pytest.approx(expected[2][sure])


@pytest.mark.parametrize("spread", [1.0, 100.0, 1e6])
def test_dense_and_far_flung_points_are_found_alike(spread):
    random = np.random.default_rng(1)
    one, other = random.normal(0, spread, (200, 2)), random.normal(0, spread, (300, 2))
    found, expected = near_pairs(one, other, 50.0), brute(one, other, 50.0)
    assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])
    assert found[2] == pytest.approx(expected[2])


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 5), (5, 0)])
def test_no_points_have_no_pairs(n, m):
    assert [len(each) for each in near_pairs(np.zeros((n, 2)), np.zeros((m, 2)), 3.0)] == [0, 0, 0]
