"""The ring between engine and recorder: every record once, whole and in order, whoever dies."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator

import numpy as np
import pytest
from cytoloop.acquire.errors import LinkError
from cytoloop.realtime.recording.ring import RecordRing
from hypothesis import given, settings
from hypothesis import strategies as st

PRODUCER = """
import hashlib, sys
import numpy as np
from cytoloop.realtime.recording.ring import RecordRing
ring = RecordRing.attach(sys.argv[1])
random = np.random.default_rng(int(sys.argv[2]))
number = 0
while True:
    payload = random.integers(0, 256, int(random.integers(0, 200_000)), np.uint8).tobytes()
    while not ring.put(7, number, (hashlib.sha1(payload).digest(), payload)):
        pass
    number += 1
"""


@pytest.fixture
def ring() -> Iterator[RecordRing]:
    made = RecordRing.create(1 << 20)
    yield made
    made.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 700), st.none()), max_size=80), st.integers(0, 2**32))
def test_records_come_out_once_whole_and_in_order(steps: list[int | None], seed: int) -> None:
    ring, other = RecordRing.create(2000), None
    try:
        other = RecordRing.attach(ring.name)
        rng, waiting, number = random.Random(seed), deque[tuple[int, bytes]](), 0
        for step in steps:
            if step is None:
                record = other.next()
                assert (record is None) == (not waiting)
                if record is not None:
                    expected = waiting.popleft()
                    assert (record.number, bytes(record.payload)) == expected
                    record.payload.release()
                    other.taken()
                continue
            payload = rng.randbytes(step)
            if ring.put(1, number, (payload[: step // 2], payload[step // 2 :])):
                waiting.append((number, payload))
                number += 1
            else:
                assert waiting, "an empty ring takes what fits into half of it"
        assert ring.used == other.used
        assert (ring.used == 0) == (not waiting)
    finally:
        if other is not None:
            other.close()
        ring.close()


def test_a_record_is_taken_again_until_it_is_said_to_be_taken(ring: RecordRing) -> None:
    ring.put(3, 5, (b"abc",))
    for _ in range(2):
        record = ring.next()
        assert record is not None
        assert (record.kind, record.number, bytes(record.payload)) == (3, 5, b"abc")
        record.payload.release()
    ring.taken()
    assert ring.next() is None
    assert ring.used == 0


def test_pixels_go_in_without_being_turned_into_bytes_first(ring: RecordRing) -> None:
    pixels = np.arange(300, dtype=np.uint16).reshape(15, 20)
    assert ring.put(1, 0, (b"head", pixels.data))
    record = ring.next()
    assert record is not None
    assert np.array_equal(np.frombuffer(bytes(record.payload[4:]), np.uint16).reshape(15, 20), pixels)
    record.payload.release()


def test_what_never_fits_and_what_is_no_ring_is_refused_by_name(ring: RecordRing) -> None:
    with pytest.raises(LinkError, match="make it larger"):
        ring.put(1, 0, (bytes(ring.capacity // 2 + 1),))
    with pytest.raises(LinkError, match="'cyto_nothing' is not there"):
        RecordRing.attach("cyto_nothing")


def test_damaged_memory_is_said_and_can_be_cleared(ring: RecordRing) -> None:
    ring.put(1, 0, (b"abc",))
    ring._bytes[64:68] = b"oops"
    with pytest.raises(LinkError, match="damaged"):
        ring.next()
    ring.clear()
    assert ring.next() is None
    assert ring.put(1, 1, (b"abc",))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(3))
def test_an_engine_killed_at_any_moment_leaves_whole_records_only_and_the_next_goes_on(
    ring: RecordRing, seed: int
) -> None:
    rng, seen = random.Random(seed), 0
    for life in range(2):
        producer = subprocess.Popen([sys.executable, "-c", PRODUCER, ring.name, str(seed)])
        try:
            until = time.monotonic() + 1.5 + rng.random() / 5
            expected, got = 0, 0
            while time.monotonic() < until or not got:
                got += _take(ring, expected)
                expected = got
        finally:
            os.kill(producer.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            producer.wait()
        while _take(ring, expected):
            expected += 1
            got += 1
        seen += got
        assert got > 10, f"life {life}"
    assert ring.used == 0


def _take(ring: RecordRing, expected: int) -> int:
    record = ring.next()
    if record is None:
        return 0
    assert record.number == expected
    assert hashlib.sha1(record.payload[20:]).digest() == bytes(record.payload[:20])
    record.payload.release()
    ring.taken()
    return 1
