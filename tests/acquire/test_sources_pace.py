"""The pace of a replay."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.sources.pace import paced

HOUR_S = 3600.0


def frames(*times_s: float) -> Iterator[Frame]:
    for sequence, time_s in enumerate(times_s):
        yield Frame(np.ones((2, 2), np.uint8), sequence, time_s)


@pytest.mark.parametrize(("speed", "span_s"), [(1.0, 0.12), (10.0, 1.2)])
def test_no_frame_comes_before_its_time(speed: float, span_s: float) -> None:
    start, ages = time.monotonic(), []
    for frame in paced(frames(5.0, 5.0 + span_s / 2, 5.0 + span_s), speed):
        ages.append(time.monotonic() - start - (frame.time_s - 5.0) / speed)
    assert len(ages) == 3 and min(ages) >= 0


@pytest.mark.parametrize("speed", [None, float("inf")])
def test_as_fast_as_it_is_read_waits_for_nothing(speed: float | None) -> None:
    assert [frame.sequence for frame in paced(frames(0, HOUR_S, 2 * HOUR_S), speed)] == [0, 1, 2]


def test_a_frame_that_is_late_does_not_delay_the_next() -> None:
    start, replayed = time.monotonic(), paced(frames(0, 0.05, 0.2), 1.0)
    next(replayed)
    time.sleep(0.2)
    assert [frame.sequence for frame in replayed] == [1, 2]
    assert time.monotonic() - start >= 0.2


def test_a_wait_is_ended_by_the_stop_event_and_nothing_more_comes() -> None:
    stop = threading.Event()
    replayed = paced(frames(0, HOUR_S), 1.0, stop=stop)
    assert next(replayed).sequence == 0
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    assert list(replayed) == []
    timer.join()


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_a_speed_that_is_none_is_refused_at_once(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        paced(frames(0), speed)
