"""Images of single channels become frames of all channels, whatever the order in which they come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.frame import Frame
from cytoloop.realtime import channels as channels_module
from cytoloop.realtime.channels import Joined, Joiner
from hypothesis import given
from hypothesis import strategies as st

NAMES = ("DAPI", "GFP", "Cy5")
SHAPE = (3, 4)


def image(sequence: int, channel: str, time: int | None = 0, value: int | None = None, **more: Any) -> Frame:
    axes = {"channel": channel} | ({} if time is None else {"time": time}) | more.pop("axes", {})
    given: dict[str, Any] = {"stage_um": (5.0, 6.0), "time_s": sequence / 10, "exposure_ms": 5.0} | more
    pixels = np.full(SHAPE, sequence if value is None else value, np.uint16)
    return Frame(pixels, sequence=sequence, axes=axes, channels=(channel,), **given)


def added(joiner: Joiner, frames: Iterable[Frame]) -> list[Joined]:
    return [joiner.add(frame) for frame in frames]


def values(frame: Frame | None) -> list[int]:
    assert frame is not None
    return [int(plane[0, 0]) for plane in (frame.pixels if frame.pixels.ndim == 3 else frame.pixels[None])]


def joiner(names: Sequence[str] = NAMES, main: str = "DAPI", **every: int) -> Joiner:
    return Joiner(names, every, main)


@given(order=st.permutations(NAMES), main=st.sampled_from(NAMES))
def test_the_last_image_of_a_set_brings_the_frame_with_channels_in_the_listed_order(order, main):
    joins = joiner(main=main)
    images = [image(7 + index, name, exposure_ms=1.0 + index) for index, name in enumerate(order)]
    *first, last = added(joins, images)
    assert all(one == (None, ()) for one in first)
    frame = last.frame
    assert frame is not None
    assert (frame.channels, last.messages) == (NAMES, ())
    assert values(frame) == [7 + order.index(name) for name in NAMES]
    its = images[order.index(main)]
    assert (frame.sequence, frame.time_s, frame.exposure_ms) == (its.sequence, its.time_s, its.exposure_ms)
    assert frame.axes == {"time": 0}
    assert joins.held == frozenset()


def test_pixels_that_wait_are_kept_although_the_memory_they_came_in_is_used_again():
    joins, ring = joiner(NAMES[:2]), np.full(SHAPE, 3, np.uint16)
    joins.add(Frame(ring, channels=("DAPI",)))
    assert joins.held == {0}
    ring[:] = 9
    assert values(joins.add(image(1, "GFP", None)).frame) == [3, 1]


@given(data=st.data())
def test_sets_of_many_fields_of_view_are_told_apart_in_any_order_of_the_loops(data):
    """Stacks and positions inside or outside the loop over channels: every image finds its own set."""
    fields = [{"position": p, "z": z} for p in ("A", "B") for z in range(2)]
    todo = {index: data.draw(st.permutations(NAMES)) for index in range(len(fields))}
    joins, sequence, frames = joiner(), 0, []
    waiting = {index: list(order) for index, order in todo.items()}
    while any(waiting.values()):
        index = data.draw(st.sampled_from([index for index, left in waiting.items() if left]))
        name = waiting[index].pop()
        joined = joins.add(image(sequence, name, 4, 10 * index + NAMES.index(name), axes=fields[index]))
        assert joined.messages == ()
        assert (joined.frame is not None) == (not waiting[index])
        if joined.frame is not None:
            frames.append(joined.frame)
            assert values(joined.frame) == [10 * index, 10 * index + 1, 10 * index + 2]
            assert joined.frame.axes == {"time": 4, **fields[index]}
        sequence += 1
    assert len(frames) == 4


def test_a_channel_that_is_taken_less_often_is_waited_for_at_its_times_only():
    joins = joiner(("DAPI", "GFP"), GFP=3)
    plan = [(time, name) for time in range(7) for name in ("GFP", "DAPI") if name == "DAPI" or time % 3 == 0]
    came = added(joins, [image(index, name, time) for index, (time, name) in enumerate(plan)])
    frames = [joined.frame for joined in came if joined.frame is not None]
    assert [(frame.axes["time"], frame.channels) for frame in frames] == [
        (time, ("DAPI", "GFP") if time % 3 == 0 else ("DAPI",)) for time in range(7)
    ]
    assert not any(joined.messages for joined in came)
    again = added(joins, [image(20, "GFP", 7), image(21, "DAPI", 7), image(22, "GFP", 7)])
    assert again[0].messages == ("channel 'GFP' is left alone at time 7 and others that 3 does not divide",)
    assert again[1].frame is not None
    assert again[2] == (None, ())


def test_a_set_that_is_not_complete_when_the_next_begins_is_left_out_and_said():
    joins = joiner()
    came = added(joins, [image(0, "DAPI"), image(1, "Cy5"), image(2, "DAPI", 1)])
    assert [joined.frame for joined in came] == [None] * 3
    assert came[2].messages == ("time 0: left out, channel 'GFP' did not come (1 so far)",)
    assert joins.held == {2}
    rest = added(joins, [image(3, "GFP", 1), image(4, "Cy5", 1)])
    assert values(rest[1].frame) == [2, 3, 4]


def test_without_a_time_axis_a_channel_that_comes_again_begins_the_next_set():
    joins = joiner(("DAPI", "GFP"))
    names = ("DAPI", "GFP", "DAPI", "DAPI", "GFP")
    came = added(joins, [image(index, name, None) for index, name in enumerate(names)])
    assert [values(joined.frame) for joined in came if joined.frame is not None] == [[0, 1], [3, 4]]
    assert came[3].messages == ("frame 2: left out, channel 'GFP' did not come (1 so far)",)


def test_extra_images_of_a_time_point_are_a_set_of_their_own():
    joins = joiner(("DAPI", "GFP"))
    extras = [image(2 + n, name, axes={"extra": 1 + n}) for n, name in enumerate(("DAPI", "GFP", "DAPI"))]
    came = added(joins, [image(0, "DAPI"), image(1, "GFP"), *extras, image(5, "DAPI", 1), image(6, "GFP", 1)])
    assert [values(joined.frame) for joined in came if joined.frame is not None] == [[0, 1], [2, 3], [5, 6]]
    assert came[5].messages == ("time 0, extra 3: left out, channel 'GFP' did not come (1 so far)",)
    assert joins.held == frozenset()


def test_an_image_of_another_channel_is_left_alone_and_said_once_with_the_nearest_name():
    joins = joiner(("DAPI", "GFP"))
    came = added(joins, [image(0, "DAPI"), image(1, "GPF"), image(2, "GPF"), image(3, "GFP")])
    assert [joined.messages for joined in came] == [
        (),
        ("channel 'GPF' is left alone; channels that are joined: 'DAPI', 'GFP'. Did you mean 'GFP'?",),
        (),
        (),
    ]
    assert values(came[3].frame) == [0, 3]


def test_images_that_cannot_lie_on_each_other_are_not_joined():
    joins = joiner(("DAPI", "GFP"))
    small = Frame(np.ones((2, 2), np.uint16), sequence=1, axes={"time": 0}, channels=("GFP",))
    came = added(joins, [image(0, "DAPI"), small])
    assert came[1].frame is None
    assert came[1].messages == (
        "time 0: left out, channel 'GFP' is of (2, 2) px uint16, channel 'DAPI' of (3, 4) px uint16"
        " (1 so far)",
    )
    assert joins.held == frozenset()


@pytest.mark.parametrize(
    ("pixel_size_um", "moved_um", "kept"),
    [(0.5, 0.4, True), (0.5, 0.6, False), (None, 0.9, True), (None, 2.0, False)],
)
def test_a_channel_that_was_taken_after_the_stage_had_moved_is_left_out_of_the_frame(
    pixel_size_um, moved_um, kept
):
    joins = joiner(main="GFP")
    images = [image(index, name, pixel_size_um=pixel_size_um) for index, name in enumerate(NAMES)]
    images[2] = replace(images[2], stage_um=(5.0 + moved_um, 6.0))
    frame, messages = added(joins, images)[-1]
    assert frame is not None
    assert frame.channels == (NAMES if kept else NAMES[:2])
    assert values(frame) == ([0, 1, 2] if kept else [0, 1])
    assert frame.stage_um == (5.0, 6.0)
    left_out = f"time 0: channel 'Cy5' is left out, it was taken {moved_um:.2f} um from 'GFP'"
    assert messages == (() if kept else (left_out,))


def test_frames_of_several_channels_are_put_in_order_and_completed_too():
    joins = joiner()
    both = Frame(np.stack([np.full(SHAPE, v, np.uint8) for v in (5, 6, 7)]), channels=("Cy5", "x", "DAPI"))
    assert joins.add(both).frame is None
    last = Frame(np.full(SHAPE, 8, np.uint8), sequence=1, channels=("GFP",))
    assert values(joins.add(last).frame) == [7, 8, 5]
    whole = Frame(np.stack([np.full(SHAPE, v, np.uint8) for v in (1, 2, 3)]), channels=NAMES)
    assert joins.add(whole).frame is whole
    unnamed = replace(whole, channels=("", "", ""))
    named, messages = joins.add(unnamed)
    assert messages == ("the channels have no names; they are taken for 'DAPI', 'GFP', 'Cy5', in this order",)
    assert joins.add(unnamed).messages == ()
    assert named is not None
    assert (named.channels, named.pixels is whole.pixels) == (NAMES, True)
    backwards = joins.add(replace(whole, channels=NAMES[::-1])).frame
    assert values(backwards) == [3, 2, 1]


def test_images_that_wait_are_bounded_in_number_and_in_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(channels_module, "MOST_SETS", 5)
    joins = joiner()
    came = added(joins, [image(index, "DAPI", axes={"tile": index}) for index in range(8)])
    assert joins.held == {3, 4, 5, 6, 7}
    assert "tile 2: left out, too many images wait" in came[7].messages[0]
    monkeypatch.setattr(channels_module, "MOST_BYTES", 3 * image(0, "DAPI").pixels.nbytes)
    joins.add(image(8, "GFP", axes={"tile": 7}))
    assert joins.held == {6, 7, 8}


def test_what_is_open_at_the_end_is_said():
    joins = joiner(("DAPI", "GFP"))
    added(joins, [image(0, "DAPI", axes={"z": 0}), image(1, "GFP", axes={"z": 1})])
    assert joins.unfinished() == (
        "time 0, z 0: left out, channel 'GFP' did not come (1 so far)",
        "time 0, z 1: left out, channel 'DAPI' did not come (2 so far)",
    )
    assert joins.unfinished() == ()


def test_without_their_pixels_the_same_images_bring_the_same_frames_and_messages():
    frames = [
        image(0, "DAPI"), image(1, "GFP"), image(2, "Cy5"), image(3, "DAPI", 1), image(4, "x", 1),
        image(5, "DAPI", 2), image(6, "GFP", 2, axes={"z": 1}), image(7, "GFP", 2),
    ]  # fmt: skip
    live, again = joiner(), joiner()
    for frame in frames:
        one, other = (
            live.add(frame),
            again.add(replace(frame, pixels=np.zeros_like(frame.pixels)), pixels=False),
        )
        assert one.messages == other.messages
        assert (one.frame is None) == (other.frame is None)
        assert live.held == again.held
        if one.frame is not None and other.frame is not None:
            assert replace(one.frame, pixels=other.frame.pixels).axes == other.frame.axes
            assert one.frame.pixels.shape == other.frame.pixels.shape
            assert other.frame.sequence == one.frame.sequence
    for number in again.held:
        again.fill(frames[number])
    last = image(8, "Cy5", 2)
    assert values(live.add(last).frame) == values(again.add(last).frame) == [5, 7, 8]


def test_images_whose_pixels_are_lost_are_left_out_and_said():
    joins = joiner(("DAPI", "GFP"))
    added(joins, [image(0, "DAPI", axes={"z": 0}), image(1, "DAPI", axes={"z": 1})])
    joins.forget(frozenset({0}))
    assert joins.held == {1}
    came = joins.add(image(2, "GFP", axes={"z": 1}))
    assert came.frame is not None
    assert came.messages == ("time 0, z 0: left out, images that waited are not in the log (1 so far)",)
