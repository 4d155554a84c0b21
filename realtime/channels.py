"""Joining: the images of single channels -> one frame with all channels of a time point.

A set are the images of one time point of one field of view, one of each channel. It is complete when all channels
have come that belong to its time, in whatever order. One set of a field of view is open at a time: an image of
another time, or of a channel that is there already, begins the next, and what was not complete is left out and
said. Like the pipeline it reads no clock, so that the same images give the same frames again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..acquire.errors import nearest_name
from ..acquire.frame import Frame, Pixels
from .notices import Notices

Place: TypeAlias = tuple[tuple[str, int | str], ...]

MOST_SETS = 4096
MOST_BYTES = 2 << 30
"""Sets that may be open at once, and bytes of their images; beyond, the oldest is left out."""
_NOT_A_PLACE = ("time", "channel", "extra")  # extra images, one of each channel, are a set too
_FARTHEST_UM = 1.0
_FARTHEST_PX = 1.0


class Joined(NamedTuple):
    """What came of one image: a frame if it was the last of its set, and what a person should read."""

    frame: Frame | None
    messages: tuple[str, ...] = ()


@dataclass(slots=True)
class _Set:
    """The images of one time point of one field of view that have come, by channel, in the order of coming."""

    time: int | str | None
    expected: tuple[str, ...]
    images: dict[str, Frame] = field(default_factory=dict[str, Frame])

    @property
    def nbytes(self) -> int:
        return sum(image.pixels.nbytes for image in self.images.values())


class Joiner:
    """Joins the images of one stream, in the order in which they come, in one thread.

    A frame that holds several channels already is taken apart and joined likewise; one that is complete goes
    through as it is. Images of other channels are left alone. Frames whose channels have no names, as of some
    recordings, have all channels in their order.

    Parameters
    ----------
    channels
        Names of the channels, in the order that they shall have in the frame.
    every
        Channels that are taken at every n-th time point only: at those whose number n divides.
    main
        The channel that is segmented. Time, stage, focus, exposure and sequence number of the frame are those
        of its image. An image that was taken elsewhere, more than a pixel away, is left out of the frame.
    """

    def __init__(self, channels: Sequence[str], every: Mapping[str, int], main: str) -> None:
        self._channels, self._every, self._main = tuple(channels), dict(every), main
        self._open: dict[Place, _Set] = {}
        self._notices = Notices()
        self._left_out = 0
        self._pending: tuple[str, ...] = ()

    @property
    def held(self) -> frozenset[int]:
        """Sequence numbers of the images that wait for others of their set."""
        return frozenset(image.sequence for each in self._open.values() for image in each.images.values())

    def add(self, frame: Frame, *, pixels: bool = True) -> Joined:
        """Take the next image; return the frame that it completes, if it does.

        Parameters
        ----------
        frame
            The pixels of one that has to wait are copied.
        pixels
            False: they are not read, and those of the frame that comes back are zero. :meth:`fill` gives them
            to images that wait.
        """
        messages, self._pending = self._pending, ()
        if len(frame.channels) == len(self._channels) and not any(frame.channels):
            frame = replace(frame, channels=self._channels)
            names = ", ".join(map(repr, self._channels))
            messages += self._notices.once(
                f"the channels have no names; they are taken for {names}, in this order"
            )
        expected = self._expected(frame)
        messages += self._ignored(frame, expected)
        names = tuple(name for name in expected if name in frame.channels)
        place = _place(frame)
        if not names:
            return Joined(None, messages)
        if names == expected:
            return Joined(_part(frame, names, pixels), messages + self._drop(place))
        opened = self._open.get(place) or _Set(frame.axes.get("time"), expected)
        if opened.time != frame.axes.get("time") or opened.images.keys() & set(names):
            messages += self._drop(place)
            opened = _Set(frame.axes.get("time"), expected)
        if unlike := _unlike(opened, frame):
            return Joined(None, messages + self._drop(place, unlike))
        parts = {name: _part(frame, (name,), pixels) for name in names}
        if len(opened.images) + len(parts) == len(expected):
            self._open.pop(place, None)
            opened.images |= parts
            return self._complete(opened, messages, pixels)
        if pixels:
            parts = {name: replace(part, pixels=part.pixels.copy()) for name, part in parts.items()}
        opened.images |= parts
        self._open[place] = opened
        return Joined(None, messages + self._trim())

    def fill(self, frame: Frame) -> None:
        """Give an image that waits its pixels back."""
        for opened in self._open.values():
            for name, image in opened.images.items():
                if image.sequence == frame.sequence:
                    opened.images[name] = replace(image, pixels=frame.channel(frame.channel_index(name)))

    def forget(self, sequences: frozenset[int]) -> None:
        """Leave out the sets of images whose pixels are lost; the next answer says so."""
        for place, opened in list(self._open.items()):
            if any(image.sequence in sequences for image in opened.images.values()):
                self._pending += self._drop(place, "images that waited are not in the log")

    def unfinished(self) -> tuple[str, ...]:
        """Leave out what is open at the end of a run, and return what to say of it."""
        return tuple(message for place in list(self._open) for message in self._drop(place))

    def _expected(self, frame: Frame) -> tuple[str, ...]:
        """Return the channels that belong to the time of an image."""
        time = frame.axes.get("time")
        if not isinstance(time, int):
            return self._channels
        return tuple(name for name in self._channels if time % self._every.get(name, 1) == 0)

    def _ignored(self, frame: Frame, expected: tuple[str, ...]) -> tuple[str, ...]:
        messages: tuple[str, ...] = ()
        for name in frame.channels:
            if name not in self._channels:
                known = ", ".join(map(repr, self._channels))
                hint = nearest_name(name, self._channels)
                messages += self._notices.once(
                    f"channel {name!r} is left alone; channels that are joined: {known}"
                    + (f". Did you mean {hint!r}?" if hint else "")
                )
            elif name not in expected:
                messages += self._notices.once(
                    f"channel {name!r} is left alone at time {frame.axes.get('time')} and others that"
                    f" {self._every[name]} does not divide"
                )
        return messages

    def _complete(self, whole: _Set, messages: tuple[str, ...], pixels: bool) -> Joined:
        main = whole.images[self._main]
        kept: list[Frame] = []
        for name in whole.expected:
            apart = _apart(main, whole.images[name])
            if apart:
                messages += (f"{_words(main)}: channel {name!r} is left out, it was taken {apart}",)
            else:
                kept.append(whole.images[name])
        frame = replace(
            main,
            pixels=_stacked([image.channel() for image in kept], pixels),
            axes={axis: value for axis, value in main.axes.items() if axis != "channel"},
            channels=tuple(image.channels[0] for image in kept),
        )
        return Joined(frame, messages)

    def _drop(self, place: Place, why: str = "") -> tuple[str, ...]:
        """Close the open set of a field of view, if there is one, and say why it is left out."""
        opened = self._open.pop(place, None)
        if opened is None:
            return ()
        self._left_out += 1
        missing = ", ".join(repr(name) for name in opened.expected if name not in opened.images)
        where = _words(next(iter(opened.images.values())))
        return (f"{where}: left out, {why or f'channel {missing} did not come'} ({self._left_out} so far)",)

    def _trim(self) -> tuple[str, ...]:
        messages: tuple[str, ...] = ()
        while len(self._open) > MOST_SETS or sum(each.nbytes for each in self._open.values()) > MOST_BYTES:
            messages += self._drop(next(iter(self._open)), "too many images wait for others of their time")
        return messages


def _place(frame: Frame) -> Place:
    """Return the field of view: all axes that do not tell one image of it from another."""
    return tuple(sorted((axis, at) for axis, at in frame.axes.items() if axis not in _NOT_A_PLACE))


def _words(frame: Frame) -> str:
    named = [f"{axis} {at}" for axis, at in frame.axes.items() if axis != "channel"]
    return ", ".join(named) or f"frame {frame.sequence}"


def _part(frame: Frame, names: tuple[str, ...], pixels: bool) -> Frame:
    """Return the frame with these of its channels only, in this order."""
    if frame.channels == names:
        return frame
    planes = [frame.channel(frame.channel_index(name)) for name in names]
    return replace(frame, pixels=_stacked(planes, pixels), channels=names)


def _stacked(planes: list[Pixels], pixels: bool) -> Pixels:
    if len(planes) == 1:
        return planes[0]
    shape = (len(planes), *planes[0].shape)
    stacked: Any = np.stack(planes) if pixels else np.zeros(shape, planes[0].dtype)
    return stacked


def _unlike(opened: _Set, frame: Frame) -> str:
    """Return how an image differs in kind from those of its set, or ``""``."""
    for name, image in opened.images.items():
        if (image.shape, image.pixels.dtype) != (frame.shape, frame.pixels.dtype):
            return (
                f"channel {frame.channels[0]!r} is of {frame.shape} px {frame.pixels.dtype},"
                f" channel {name!r} of {image.shape} px {image.pixels.dtype}"
            )
    return ""


def _apart(main: Frame, image: Frame) -> str:
    """Return how far from the main image another one was taken, if that is more than a pixel, else ``""``."""
    if main.stage_um is None or image.stage_um is None:
        return ""
    distance = math.dist(main.stage_um, image.stage_um)
    allowed = _FARTHEST_PX * main.pixel_size_um if main.pixel_size_um else _FARTHEST_UM
    return f"{distance:.2f} um from {main.channels[0]!r}" if distance > allowed else ""
