"""The pipeline: frame -> labels -> detections -> tracks -> decisions -> reply, as one function of the frames.

It reads no clock to decide and opens nothing, so that the same frames give the same replies, live or replayed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import count
from time import perf_counter
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..acquire.coordinates import Affine
from ..acquire.errors import ConfigurationError, FrameError
from ..acquire.frame import Frame
from ..acquire.link.messages import can_travel
from ..acquire.reply import Cells, Decision, Reply
from ..models.detections import Detections
from ..models.labels import Labels
from ..models.measure import measure
from ..models.segmenter import Segmenter
from ..trackers.tracker import Tracker
from ..trackers.tracks import Tracks
from .experiment.config import StreamConfig
from .identities import Identities
from .limits import Limiter
from .rules.rule import Moment, Rule

FieldKey: TypeAlias = tuple[int | str, int | str]

# More fields of view than any plate scan revisits; beyond, the one that was not seen for longest is forgotten.
MOST_FIELDS = 4096
_MOST_NOTICES = 256


class Step(NamedTuple):
    """What came of one frame; labels and detections are None if it was not segmented."""

    reply: Reply
    labels: Labels | None
    detections: Detections | None


@dataclass(slots=True)
class _Field:
    """One field of view: its tracker, its rules, its cells' numbers, and where the stage first stood."""

    tracker: Tracker
    rules: tuple[Rule, ...]
    identities: Identities
    origin_um: tuple[float, float] | None = None


class Pipeline:
    """All that happens to the frames of one stream, in order, in one thread.

    Every field of view (position and z of ``frame.axes``) has a tracker and rules of its own; identities are
    unique in the stream. The limits are shared, because there is one microscope.

    A frame that the segmenter, the tracker or a rule fails on is answered with a message and counted, and the
    next one is taken: a bad frame does not end an experiment. Memory is bounded by the cells in view, not by
    the length of the run.

    Parameters
    ----------
    stream
        A checked configuration.

    Attributes
    ----------
    failed
        Frames that could not be segmented so far.

    Raises
    ------
    PluginError
        If the segmenter, the tracker or a rule cannot be constructed.
    """

    def __init__(self, stream: StreamConfig) -> None:
        self.failed = 0
        self._stream = stream
        self._segmenter: Segmenter = stream.segmenter.build("segmenters")
        self._fields: dict[FieldKey, _Field] = {}
        self._numbers = count(1)
        self._limiter = Limiter(stream.limits)
        self._channels: tuple[str, ...] | None = None
        self._latest_s = -math.inf
        self._notices: set[str] = set()
        self._make_field()  # what cannot be built must fail now, not at the first frame

    def step(self, frame: Frame) -> Step:
        """Segment, measure, track and judge one frame."""
        channel, messages = self._segmented_channel(frame)
        if channel is None:
            return Step(_empty_reply(frame, messages), None, None)
        timings: dict[str, float] = {}
        start = perf_counter()
        try:
            labels = self._segmenter.segment(self._view(frame, channel))
            start = _lap(timings, "segment", start)
            detections = measure(frame, labels)
            _lap(timings, "measure", start)
        except Exception as error:  # a segmenter is anyone's code, and the experiment must outlive it
            messages += (self._failure(f": {type(error).__name__}: {error}"),)
            return Step(_empty_reply(frame, messages), None, None)
        return Step(self._judge(frame, detections, channel, messages, timings), labels, detections)

    def restore(self, frame: Frame, detections: Detections | None) -> Reply:
        """Bring tracker, rules and limits to where :meth:`step` left them after this frame.

        Parameters
        ----------
        frame
            The frame; its pixels are not read.
        detections
            What ``step`` returned for it.

        Returns
        -------
        Reply
            The reply of ``step`` but for ``timings_ms`` (and, where segmentation failed, why it did).
        """
        channel, messages = self._segmented_channel(frame)
        if channel is None:
            return _empty_reply(frame, messages)
        if detections is None:
            return _empty_reply(frame, (*messages, self._failure("")))
        return self._judge(frame, detections, channel, messages, {})

    def _judge(
        self,
        frame: Frame,
        detections: Detections,
        channel: int,
        messages: tuple[str, ...],
        timings: dict[str, float],
    ) -> Reply:
        start = perf_counter()
        field, forgotten = self._field(frame)
        messages += forgotten + self._time_notice(frame)
        try:
            tracks = field.identities.renumber(_checked(field.tracker.update(detections), detections))
        except Exception as error:
            return _empty_reply(frame, (*messages, f"tracking failed: {type(error).__name__}: {error}"))
        start = _lap(timings, "track", start)
        affine, unusable = self._pixel_map(frame)
        moment = Moment(frame, tracks, affine, channel)
        decisions, said = _ask(field.rules, moment)
        verdict = self._limiter.check(moment, decisions, field.origin_um)
        _lap(timings, "decide", start)
        return Reply(
            sequence=frame.sequence,
            cells=_cells(tracks, channel),
            divisions=tracks.divisions,
            # One that is not finite was refused, which its message says; it would make the reply unreadable.
            decisions=tuple(decision for decision in verdict.decisions if can_travel(decision)),
            timings_ms=timings,
            messages=messages + unusable + said + verdict.messages,
        )

    def _segmented_channel(self, frame: Frame) -> tuple[int | None, tuple[str, ...]]:
        """Return the index of the channel to segment, or None and perhaps why this frame is left alone."""
        wanted = self._stream.channel
        if wanted:
            if wanted in frame.channels:
                return frame.channels.index(wanted), ()
            return None, self._once(
                f"channel {_names(frame.channels)} is left alone; {wanted!r} is segmented"
            )
        if self._channels is None:
            self._channels = frame.channels
        if frame.channels == self._channels:
            return (self._segmenter.channel if len(frame.channels) > 1 else 0), ()
        chosen = _names(self._channels)
        return None, self._once(
            f"channel {_names(frame.channels)} is left alone; {chosen}, which came first, is segmented"
        )

    def _view(self, frame: Frame, channel: int) -> Frame:
        """Return the frame as the segmenter shall see it."""
        if not 0 <= channel < len(frame.channels):
            raise FrameError(f"channel {channel} is to be segmented, the frame has {_names(frame.channels)}")
        if not self._stream.channel or len(frame.channels) == 1:
            return frame
        return replace(frame, pixels=frame.channel(channel), channels=(frame.channels[channel],))

    def _field(self, frame: Frame) -> tuple[_Field, tuple[str, ...]]:
        key = (frame.axes.get("position", 0), frame.axes.get("z", 0))
        field = self._fields.pop(key, None) or self._make_field()
        messages: tuple[str, ...] = ()
        if len(self._fields) >= MOST_FIELDS:
            oldest = next(iter(self._fields))
            del self._fields[oldest]
            messages = (f"more than {MOST_FIELDS} fields of view: the tracks of {oldest} are forgotten",)
        self._fields[key] = field  # last: the most recently seen
        if field.origin_um is None:
            field.origin_um = frame.stage_um
        return field, messages

    def _make_field(self) -> _Field:
        rules = tuple(rule.build("rules") for rule in self._stream.rules)
        return _Field(self._stream.tracker.build("trackers"), rules, Identities(self._numbers))

    def _pixel_map(self, frame: Frame) -> tuple[Affine | None, tuple[str, ...]]:
        try:
            return self._stream.pixel_map(frame.pixel_size_um), ()
        except ConfigurationError:
            return None, self._once(f"a pixel size of {frame.pixel_size_um} um cannot be used; it is ignored")

    def _time_notice(self, frame: Frame) -> tuple[str, ...]:
        before, now = self._latest_s, frame.time_s
        if now > before and math.isfinite(now):
            self._latest_s = now
            return ()
        return self._once(
            "frame times do not increase: the rate of commands is counted in the latest time seen"
        )

    def _failure(self, why: str) -> str:
        self.failed += 1
        return f"the frame could not be segmented ({self.failed} so far){why}"

    def _once(self, message: str) -> tuple[str, ...]:
        if message in self._notices or len(self._notices) >= _MOST_NOTICES:
            return ()
        self._notices.add(message)
        return (message,)


def _ask(rules: tuple[Rule, ...], moment: Moment) -> tuple[tuple[Decision, ...], tuple[str, ...]]:
    decisions: list[Decision] = []
    messages: list[str] = []
    for rule in rules:
        try:
            verdict = rule.decide(moment)
            decisions.extend(verdict.decisions)
            messages.extend(f"{rule.name}: {message}" for message in verdict.messages)
        except Exception as error:  # the other rules go on
            messages.append(f"rule {rule.name!r} failed: {type(error).__name__}: {error}")
    return tuple(decisions), tuple(messages)


def _checked(tracks: Tracks, detections: Detections) -> Tracks:
    if len(tracks) != len(detections):
        raise ValueError(f"{len(tracks)} rows for {len(detections)} detections")
    return tracks


def _cells(tracks: Tracks, channel: int) -> Cells:
    found = tracks.detections
    columns = {
        "area_px": found.area,
        "mean": found.mean[:, channel],
        "max": found.maximum[:, channel],
        "major_px": found.axes_px[:, 0],
        "minor_px": found.axes_px[:, 1],
        "parent": tracks.parent,
        "age": tracks.age,
        "confidence": tracks.confidence,
    }
    return Cells(
        track=np.asarray(tracks.track, np.int64),
        x_px=_column(found.yx[:, 1]),
        y_px=_column(found.yx[:, 0]),
        columns={name: _column(values) for name, values in columns.items()},
    )


def _column(values: NDArray[np.float64] | NDArray[np.int64] | NDArray[np.int32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32)


def _empty_reply(frame: Frame, messages: tuple[str, ...]) -> Reply:
    return Reply(frame.sequence, Cells.none(), messages=messages)


def _names(channels: tuple[str, ...]) -> str:
    return ", ".join(map(repr, channels))


def _lap(timings: dict[str, float], stage: str, start: float) -> float:
    """Note how long a stage took, in ms, and return the start of the next."""
    now = perf_counter()
    timings[stage] = (now - start) * 1e3
    return now
