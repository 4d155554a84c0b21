"""How sure a link is: margins against what really is lost without it, and against the confidence beside them."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.trackers.assignment import Edges, link_probabilities, margins, match
from cytoloop.trackers.lap import LapTracker
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr


def greatest_gain(gains):
    """Return the gain of the best assignment of a dense problem, in which anything may stay alone."""
    useful = np.where(np.isfinite(gains), np.maximum(gains, 0.0), 0.0)
    return float(useful[linear_sum_assignment(-useful)].sum())


def solved(gains):
    """Return the edges of a dense problem, their matching and its margins."""
    rows, columns = np.nonzero(np.isfinite(gains))
    edges = Edges.of(rows, columns, gains.shape)
    matching = match(edges, gains[rows, columns])
    return edges, matching, margins(edges, gains[rows, columns], matching)


@st.composite
def problems(draw):
    n, m = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    gain = st.one_of(st.just(-np.inf), st.integers(-3, 6).map(float), st.floats(-5, 9, allow_nan=False))
    return np.array(draw(st.lists(gain, min_size=n * m, max_size=n * m)), float).reshape(n, m)


@settings(max_examples=300)
@given(problems())
def test_without_a_link_at_least_its_margin_is_lost(gains):
    _, matching, margin = solved(gains)
    best = greatest_gain(gains)
    for row, column in enumerate(matching.column_of.tolist()):
        if column < 0:
            assert margin[row] == 0
            continue
        without = gains.copy()
        without[row, column] = -np.inf
        assert 0 <= margin[row] <= best - greatest_gain(without) + 1e-9
        assert margin[row] <= gains[row, column] + 1e-9  # both may always stay alone


def test_a_pair_that_is_alone_loses_all_that_its_link_explains():
    gains = np.full((3, 3), -np.inf)
    gains[0, 2], gains[1, 0], gains[2, 1] = 5.0, 0.25, 3.0
    assert solved(gains)[2].tolist() == [5.0, 0.25, 3.0]


def test_a_pair_loses_what_it_has_over_its_only_rival():
    # The rival would leave the other column alone, or the other row: of both ways out, the better counts.
    gains = np.array([[6.0, 4.0], [-np.inf, -np.inf]])
    assert solved(gains)[2][0] == pytest.approx(2.0)
    assert solved(gains.T)[2][0] == pytest.approx(2.0)


def test_two_ways_that_explain_as_much_have_no_margin():
    margin = solved(np.full((2, 2), 3.0))[2]
    assert margin.tolist() == [0.0, 0.0]


def test_of_pairs_that_compete_ever_less_margin_and_probability_rise_together():
    random = np.random.default_rng(0)
    for _ in range(30):
        # Pairs that compete ever less: by place along a line, both cells of each pair look alike.
        rivals = np.sort(random.uniform(0.1, 6, 12))
        gains = np.full((24, 24), -np.inf)
        for k, lead in enumerate(rivals):
            gains[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = [[8.0, 8.0 - lead / 2], [8.0 - lead / 2, 8.0]]
        edges, matching, margin = solved(gains)
        chosen = matching.edge_of
        share = link_probabilities(edges.row, edges.column, gains[edges.row, edges.column], edges.shape)
        assert np.array_equal(np.argsort(margin[::2]), np.arange(12))
        assert np.array_equal(np.argsort(share[chosen][::2]), np.arange(12))


GRID = np.stack(np.meshgrid(np.arange(6), np.arange(6)), -1).reshape(-1, 2) * 60.0 + 90


def between(detections, offsets):
    """Return what is said of 36 cells of which each finds two detections, one nearer than the other by its offset."""
    random, tracker = np.random.default_rng(3), LapTracker(divisions=False, merges=False)
    for sequence in range(6):
        tracker.update(detections(GRID + random.normal(0, 1.5, GRID.shape) * (sequence < 5), sequence))
    angle = random.permutation(36) * np.pi / 18  # every way, so that the field has no shift in common
    way = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    near, far = GRID + 5 * way, GRID - (5 + offsets)[:, np.newaxis] * way
    return tracker.update(detections(np.concatenate([near, far]), 6))


def test_the_surer_of_two_links_is_so_by_its_margin_and_by_its_confidence(detections):
    tracks = between(detections, np.linspace(0.2, 6, 36))
    linked = tracks.age > 0
    assert linked.sum() == 36
    assert tracks.margin is not None
    margin, confidence = tracks.margin[linked], tracks.confidence[linked]
    assert spearmanr(margin, confidence).statistic > 0.9
    assert confidence[margin < 1].max() < 0.85 < 0.95 < confidence[margin > 4].min()
    assert np.isfinite(margin).all()


def test_only_a_cell_that_begins_has_no_other_explanation(detections):
    random, tracker = np.random.default_rng(1), LapTracker()
    for sequence in range(5):
        yx = np.concatenate([GRID + random.normal(0, 1, GRID.shape), [[20.0 + 40 * sequence, 480.0]]])
        tracks = tracker.update(detections(yx if sequence > 2 else yx[:-1], sequence))
        assert tracks.margin is not None
        assert np.array_equal(np.isinf(tracks.margin), tracks.age == 0)
