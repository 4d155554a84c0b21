"""Order and neighbourhood among the cells of a frame: what fast code gives is what slow and simple code gives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.frame import Frame
from cytoloop.models.detections import Detections
from cytoloop.realtime.rules.language import nearby
from cytoloop.realtime.rules.language.sight import quantity
from cytoloop.realtime.rules.quotas import best
from cytoloop.realtime.rules.rule import Moment
from cytoloop.trackers.tracks import Tracks
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.lists(
    st.integers(-3, 3).map(float) | st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=40
)
POINTS = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=60)


def moment_of(mean: np.ndarray[Any, Any]) -> Moment:
    """Return a moment of which only the means are measured."""
    n = len(mean)
    found = Detections(
        sequence=0,
        time_s=0.0,
        shape=(9, 9),
        yx=np.zeros((n, 2)),
        area=np.ones(n),
        bbox=np.zeros((n, 4), np.int32),
        mean=np.ones((n, 1)),
        maximum=np.ones((n, 1)),
        moments=np.ones((n, 3)),
    )
    tracks = Tracks(
        detections=found,
        track=np.arange(1, n + 1),
        parent=np.zeros(n, np.int64),
        age=np.zeros(n, np.int32),
        velocity=np.zeros((n, 2)),
        covariance=np.zeros((n, 3)),
        confidence=np.ones(n),
    )
    return Moment(Frame(np.zeros((1, 1), np.uint8)), tracks, None, measured={"mean": mean})


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@given(values=VALUES, q=st.integers(0, 800).map(lambda eighths: eighths / 8))
def test_medians_and_percentiles_are_exactly_numpys_over_the_values_that_are_known(
    values: list[float], q: float, dtype: Any
) -> None:
    mean = np.array(values, dtype)
    known = mean[~np.isnan(mean)]
    expected = [np.median(known), np.percentile(known, q)] if len(known) else [math.nan, math.nan]
    moment = moment_of(mean)
    got = [quantity(moment, text)[0] for text in ("median(mean)", f"percentile(mean, {q})")]
    np.testing.assert_array_equal(got, np.array(expected, np.float64))


@given(VALUES)
def test_the_rank_of_a_cell_is_how_many_have_more_or_as_much_and_come_first(values: list[float]) -> None:
    expected = [
        math.nan
        if math.isnan(value)
        else 1 + sum(other > value or (other == value and k < row) for k, other in enumerate(values))
        for row, value in enumerate(values)
    ]
    np.testing.assert_array_equal(quantity(moment_of(np.array(values)), "rank(mean)"), expected)


@given(VALUES)
def test_a_zscore_is_in_standard_deviations_of_the_values_that_are_known(values: list[float]) -> None:
    mean = np.array(values)
    known = mean[~np.isnan(mean)]
    with np.errstate(all="ignore"):
        expected = (mean - known.mean()) / known.std() if len(known) else mean
    np.testing.assert_array_equal(quantity(moment_of(mean), "zscore(mean)"), expected)


@given(VALUES, st.none() | st.integers(0, 40), st.randoms(use_true_random=False))
def test_those_with_the_highest_rank_are_served_first_whether_few_are_wanted_or_many(
    values: list[float], most: int | None, random: Any
) -> None:
    among = np.array([random.random() < 0.7 for _ in values])
    rows = [row for row, value in enumerate(values) if among[row] and not math.isnan(value)]
    expected = sorted(rows, key=lambda row: -values[row])[:most]  # stable
    assert best(np.array(values), among, most).tolist() == expected
    assert best(None, among, most).tolist() == np.flatnonzero(among).tolist()[:most]


@given(POINTS, st.sampled_from([0.0, 1e-9, 0.5, 7.0, 30.0, 1e4]), st.sampled_from([1.0, 0.01, 100.0]))
def test_neighbours_and_the_nearest_are_those_that_all_pairs_give(
    points: list[tuple[float, float]], radius: float, scale: float
) -> None:
    yx = np.round(np.array(points), 1) * scale
    moved = yx - yx.min(axis=0)
    squared = ((moved[:, np.newaxis] - moved) ** 2).sum(axis=-1)
    assert nearby.neighbours(yx, radius).tolist() == ((squared <= radius * radius).sum(axis=1) - 1).tolist()
    np.fill_diagonal(squared, np.inf)
    assert nearby.nearest(yx).tolist() == np.sqrt(squared.min(axis=1)).tolist()


def test_one_cell_far_from_a_crowd_has_its_nearest_in_it() -> None:
    crowd = np.random.default_rng(2).uniform(0, 10, (300, 2))
    yx = np.concatenate([crowd, [[5.0, 9000.0]]])
    expected = np.hypot(*(crowd - yx[-1]).T).min()
    assert nearby.nearest(yx)[-1] == pytest.approx(expected)
