"""What rules see of the past of cells that were missed in some frames, and of which some values are not known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.frame import Frame
from cytoloop.models.detections import Detections
from cytoloop.realtime.cell_table import measured_of
from cytoloop.realtime.rules.language.sight import quantity
from cytoloop.realtime.rules.rule import Moment
from cytoloop.trackers.history import History
from cytoloop.trackers.tracks import Tracks

N, FRAMES = 30, 40


@pytest.fixture(scope="module", params=[0.0, 0.1, 0.5], ids=["all seen", "some missed", "half missed"])
def movie(request: Any) -> tuple[Moment, list[np.ndarray[Any, Any]]]:
    """Return the last moment, and of each of its rows all observations: (k, 3) of time, area and class."""
    random = np.random.default_rng(8)
    history, seen = History(), {track: list[tuple[float, float, float]]() for track in range(N)}
    time_s = 0.0
    moment: Moment | None = None
    for number in range(FRAMES):
        time_s += random.uniform(9, 11)
        there = random.permutation(np.flatnonzero(random.uniform(size=N) >= request.param))
        area, likely = random.uniform(50, 100, (2, len(there))).astype(np.float32)
        likely[random.uniform(size=len(there)) < 0.05] = np.nan
        for track, *values in zip(there.tolist(), area.tolist(), likely.tolist(), strict=True):
            seen[track].append((time_s, *values))
        found = Detections(
            sequence=number,
            time_s=time_s,
            shape=(50, 50),
            yx=random.uniform(0, 49, (len(there), 2)),
            area=area.astype(np.float64),
            bbox=np.zeros((len(there), 4), np.int32),
            mean=np.ones((len(there), 1)),
            maximum=np.ones((len(there), 1)),
            moments=np.ones((len(there), 3)),
            classes={"alive": likely},
        )
        tracks = Tracks(
            detections=found,
            track=there + 1,
            parent=np.zeros(len(there), np.int64),
            age=np.zeros(len(there), np.int32),
            velocity=np.zeros((len(there), 2)),
            covariance=np.zeros((len(there), 3)),
            confidence=np.ones(len(there)),
        )
        measured = measured_of(tracks, ("",))
        descent = history.update(tracks, measured)
        frame = Frame(np.zeros((1, 1), np.uint8), number, time_s)
        moment = Moment(frame, tracks, None, 0, history, descent, measured)
    assert moment is not None
    return moment, [np.array(seen[track - 1]) for track in moment.tracks.track.tolist()]


OF_WINDOW = {
    "rate": lambda times, values: np.polyfit(times - times[0], values, 1)[0],
    "before": lambda times, values: values[0],
    "past_mean": lambda times, values: values.mean(),
    "past_min": lambda times, values: values.min(),
    "past_max": lambda times, values: values.max(),
    "past_std": lambda times, values: values.std(),
}


@pytest.mark.parametrize("frames", [1, 4, 15, 16, 25])
@pytest.mark.parametrize("name", OF_WINDOW)
def test_a_window_in_frames_is_over_those_in_which_the_cell_was_seen(
    movie: Any, name: str, frames: int
) -> None:
    moment, seen = movie
    count = frames + (name in ("rate", "before"))
    for text, column in (("area", 1), ("p.alive", 2), ("area / p.alive", 0)):
        expected = np.full(len(seen), np.nan)
        for row, rows in enumerate(seen):
            values = (rows[:, 1] / rows[:, 2] if column == 0 else rows[:, column])[-count:]
            if len(values) == count and not np.isnan(values).any():
                expected[row] = OF_WINDOW[name](rows[-count:, 0], values)
        got = quantity(moment, f"{name}({text}, {frames} frames)")
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6, err_msg=text)


@pytest.mark.parametrize("seconds", [20, 60, 300])
@pytest.mark.parametrize("name", ["past_mean", "past_min", "past_max", "past_std"])
def test_a_window_in_time_is_over_the_values_that_are_known_in_it(
    movie: Any, name: str, seconds: int
) -> None:
    moment, seen = movie
    assert moment.history is not None
    since = moment.frame.time_s - seconds - moment.history.interval_s() / 2
    expected = np.full(len(seen), np.nan)
    for row, rows in enumerate(seen):
        known = rows[(rows[:, 0] >= since) & ~np.isnan(rows[:, 2])]
        if len(known):
            expected[row] = OF_WINDOW[name](known[:, 0], known[:, 2])
    got = quantity(moment, f"{name}(p.alive, {seconds} s)")
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
