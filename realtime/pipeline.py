"""The pipeline: frame -> labels -> detections -> tracks -> decisions -> reply, as one function of the frames.

It reads no clock to decide and opens nothing, so that the same frames give the same replies, live or replayed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple

from ..acquire.errors import ConfigurationError, FrameError, Problem
from ..acquire.frame import Frame
from ..acquire.link.messages import can_travel
from ..acquire.reply import Cells, Reply
from ..models import compartments, focus
from ..models.compartments import measure_cells
from ..models.detections import Detections
from ..models.focus import focus_of
from ..models.labels import Labels
from ..models.segmenter import Remembering, Segmenter, needed_channels
from ..trackers.tracks import Tracks
from .asking import Judged, ask, settle
from .cell_table import cells_of, measured_of
from .channels import Joined, Joiner
from .experiment.channel_checks import check_segmenter
from .experiment.document import dotted
from .experiment.stream import StreamConfig
from .experiment.tracker_checks import batch_refusal
from .fields_of_view import FieldsOfView
from .limiter import Limiter
from .notices import Notices
from .pixel_maps import PixelMaps
from .reference import Reference
from .rules.rule import Moment
from .shadows import Shadows


class Step(NamedTuple):
    """What came of one frame; labels, detections and frame are None if it was not segmented.

    ``frame`` is what was segmented: of channels that are joined, all of them. ``memory`` is what the segmenter
    knows after it, None if it looks at each frame alone.
    """

    reply: Reply
    labels: Labels | None = None
    detections: Detections | None = None
    frame: Frame | None = None
    memory: dict[str, Any] | None = None


class Pipeline:
    """All that happens to the frames of one stream, in order, in one thread.

    Images of single channels that the configuration lists are joined first; each is answered, the last of them
    with the cells.

    Every field of view (position and z of ``frame.axes``) has a tracker and rules of its own; identities are
    unique in the stream. The limits are shared, because there is one microscope.

    A frame that the segmenter, the tracker or a rule fails on is answered with a message and counted, and the
    next one is taken: a bad frame does not end an experiment. Memory is bounded by the cells in view, not by
    the length of the run.

    Parameters
    ----------
    stream
        A checked configuration.
    segmenter
        The stream's segmenter, loaded, that knows no frames yet; None has it built here.

    Attributes
    ----------
    failed
        Frames that could not be segmented so far.
    judged
        The frame that was judged last, for explanations; None before.
    joiner
        What joins the channels, or None if frames are taken as they come.
    maps
        The maps from px to stage um.
    needs_masks
        Whether :meth:`restore` needs detections with their mask, because the tracker or a rule looks at it.

    Raises
    ------
    PluginError
        If the segmenter, the tracker or a rule cannot be constructed.
    ConfigurationError
        If the segmenter looks at other channels than those that are joined, or the tracker needs the whole movie.
    """

    def __init__(self, stream: StreamConfig, segmenter: Segmenter | None = None) -> None:
        self.failed = 0
        self._stream = stream
        self._segmenter: Segmenter = stream.segmenter.build("segmenters") if segmenter is None else segmenter
        wrong = list(check_segmenter(stream.channels, stream.every, stream.channel, self._segmenter))
        if wrong:
            raise ConfigurationError(
                Problem("", 0, dotted(each.key), each.reason, each.did_you_mean) for each in wrong
            )
        self._wanted = _wanted_channel(stream, self._segmenter)
        self._needed = needed_channels(self._segmenter)
        self.joiner = Joiner(stream.channels, stream.every, self._wanted) if stream.channels else None
        self.maps = PixelMaps(stream)
        configured = self.maps.configured
        self._pixel_size_um = None if configured is None else configured.pixel_size_um
        self._limiter = Limiter(stream.limits)
        self._reference = Reference(stream.trust)
        self._shadows = Shadows(stream.shadow, stream.limits)
        self._fields = FieldsOfView(stream, self._shadows)
        self.judged: Judged | None = None
        self._channels: tuple[str, ...] | None = stream.channels or None
        self._latest_s = -math.inf
        self._notices = Notices()
        if refusal := batch_refusal(stream.tracker.use):
            raise ConfigurationError([Problem("", 0, "tracker", refusal)])
        first = self._fields.make()  # what cannot be built must fail now, not at the first frame
        asked = (first.tracker, *first.rules, *(rule for rules in first.shadows.values() for rule in rules))
        self.needs_masks = any(getattr(each, "needs_masks", False) for each in asked)
        focus.warm_up()
        compartments.warm_up()  # nor may the first frame wait for a compiler

    def step(self, frame: Frame) -> Step:
        """Segment, measure, track and judge one frame, or the one that an image of a single channel completes."""
        timings: dict[str, float] = {}
        start = perf_counter()
        whole, messages = self._join(frame, pixels=True)
        if self.joiner is not None:
            start = _lap(timings, "join", start)
        if whole is None:
            return Step(_empty_reply(frame, messages, timings))
        channel, said = self._segmented_channel(whole)
        messages += said
        if channel is None:
            return Step(_empty_reply(frame, messages))
        try:
            view = self._view(whole, channel)
            labels = self._segmenter.segment(view)
            start = _lap(timings, "segment", start)
            detections = replace(measure_cells(whole, labels), focus=focus_of(whole.channel(channel)))
            start = _lap(timings, "measure", start)
        except Exception as error:  # a segmenter is anyone's code, and the experiment must outlive it
            messages += (self._failure(f": {type(error).__name__}: {error}"),)
            return Step(_empty_reply(frame, messages))
        detections, said = self._reference.compare(view, labels, detections)
        if detections.agreement is not None:
            _lap(timings, "reference", start)
        reply = self._judge(frame.sequence, whole, detections, channel, messages + said, timings)
        return Step(reply, labels, detections, whole, self._memory(whole))

    def _memory(self, frame: Frame) -> dict[str, Any] | None:
        return self._segmenter.memory(frame) if isinstance(self._segmenter, Remembering) else None

    def restore(
        self, frame: Frame, detections: Detections | None, memory: Mapping[str, Any] | None = None
    ) -> Reply:
        """Bring segmenter, tracker, rules and limits to where :meth:`step` left them after this frame.

        Parameters
        ----------
        frame
            The frame; its pixels are not read.
        detections, memory
            What ``step`` returned for it.

        Returns
        -------
        Reply
            The reply of ``step`` but for ``timings_ms`` (and, where a segmenter failed, why it did).
        """
        whole, messages = self._join(frame, pixels=False)
        if whole is None:
            return _empty_reply(frame, messages)
        channel, said = self._segmented_channel(whole)
        messages += said
        if channel is None:
            return _empty_reply(frame, messages)
        if detections is None:
            return _empty_reply(frame, (*messages, self._failure("")))
        if memory is not None and isinstance(self._segmenter, Remembering):
            self._segmenter.recall(whole, memory)
        self._reference.pass_over()
        return self._judge(frame.sequence, whole, detections, channel, messages, {})

    def _join(self, frame: Frame, *, pixels: bool) -> Joined:
        return Joined(frame) if self.joiner is None else self.joiner.add(frame, pixels=pixels)

    def _judge(
        self,
        sequence: int,
        frame: Frame,
        detections: Detections,
        channel: int,
        messages: tuple[str, ...],
        timings: dict[str, float],
    ) -> Reply:
        start = perf_counter()
        detections = replace(detections, channel=channel)
        field, forgotten = self._fields.of(frame)
        messages += forgotten + self._time_notice(frame) + self._column_notice(frame)
        try:
            tracks = field.identities.renumber(_checked(field.tracker.update(detections), detections))
            measured = measured_of(tracks, self._channels or frame.channels)
            descent = field.history.update(tracks, measured)
        except Exception as error:
            why = f"tracking failed: {type(error).__name__}: {error}"
            return Reply(sequence, Cells.none(), messages=(*messages, why))
        start = _lap(timings, "track", start)
        affine, why_none = self.maps.of(frame)
        unusable = self._notices.once(why_none) if why_none else ()
        barred = why_none if self._stream.calibration else ""
        moment = Moment(  # rules read no pixels, and what they keep must not hold those of the link
            frame.without_pixels(),
            tracks,
            affine,
            channel,
            field.history,
            descent,
            measured,
            uncalibrated=barred,
        )
        decisions, said = ask(field.rules, moment)
        distrust = field.gate.look(moment.frame, tracks)
        disarmed = frame.standing == "disarmed"
        wanted = distrust.decisions + decisions
        verdict = self._limiter.check(moment, wanted, field.origin_um, disarmed=disarmed)
        said += settle(field.rules, verdict.decisions)
        shadow, heard = self._shadows.judge(field.shadows, moment, field.origin_um)
        self.judged = Judged(moment, {"": field.rules, **field.shadows}, {"": verdict.decisions, **shadow})
        _lap(timings, "decide", start)
        return Reply(
            sequence=sequence,
            cells=cells_of(tracks, measured, descent),
            divisions=tracks.divisions,
            merges=tracks.merges,
            corrections=tracks.corrections,
            drift_px=None if tracks.drift_px is None else (tracks.drift_px[1], tracks.drift_px[0]),
            # One that is not finite was refused, which its message says; it would make the reply unreadable.
            decisions=tuple(decision for decision in verdict.decisions if can_travel(decision)),
            timings_ms=timings,
            messages=(
                *messages,
                *self._novelty_notice(detections),
                *unusable,
                *distrust.messages,
                *said,
                *verdict.messages,
                *heard,
            ),
            novelty=detections.novelty,
            shadow=shadow,
            focus=detections.focus,
        )

    def _segmented_channel(self, frame: Frame) -> tuple[int | None, tuple[str, ...]]:
        """Return the index of the channel to segment, or None and perhaps why this frame is left alone."""
        if self._wanted:
            if self._wanted in frame.channels:
                self._channels = self._channels or frame.channels
                return frame.channels.index(self._wanted), ()
            return None, self._notices.once(
                f"channel {_names(frame.channels)} is left alone; {self._wanted!r} is segmented"
            )
        if self._channels is None:
            self._channels = frame.channels
        if frame.channels == self._channels:
            own = self._segmenter.channel
            return (own if len(frame.channels) > 1 and isinstance(own, int) else 0), ()
        chosen = _names(self._channels)
        return None, self._notices.once(
            f"channel {_names(frame.channels)} is left alone; {chosen}, which came first, is segmented"
        )

    def _view(self, frame: Frame, channel: int) -> Frame:
        """Return the frame as the segmenter shall see it."""
        if not 0 <= channel < len(frame.channels):
            raise FrameError(f"channel {channel} is to be segmented, the frame has {_names(frame.channels)}")
        if self._pixel_size_um is not None:
            frame = replace(frame, pixel_size_um=self._pixel_size_um)
        if len(self._needed) > 1:
            self._check_needed(frame)
            return frame
        if not (self._stream.channel or self._stream.channels) or len(frame.channels) == 1:
            return frame
        return replace(frame, pixels=frame.channel(channel), channels=(frame.channels[channel],))

    def _check_needed(self, frame: Frame) -> None:
        """Refuse a frame in which a channel of the segmenter is missing, or not where its index says."""
        for each in self._needed:
            if isinstance(each, str):
                present = each in frame.channels
            else:
                listed = self._stream.channels or frame.channels
                present = frame.channels[each : each + 1] == listed[each : each + 1]
            if not present:
                hint = "" if self.joiner else "; list channels that come as separate images in 'channels'"
                raise FrameError(
                    f"the segmenter needs channel {each!r}, the frame has {_names(frame.channels)}{hint}"
                )

    def _time_notice(self, frame: Frame) -> tuple[str, ...]:
        before, now = self._latest_s, frame.time_s
        if now > before and math.isfinite(now):
            self._latest_s = now
            return ()
        return self._notices.once(
            "frame times do not increase: the rate of commands is counted in the latest time seen"
        )

    def _novelty_notice(self, detections: Detections) -> tuple[str, ...]:
        if detections.novelty is None or detections.novelty <= 1:
            return ()
        return self._notices.once(
            "frames look unlike what the segmenter's net knows (novelty above 1): look at the masks"
        )

    def _failure(self, why: str) -> str:
        self.failed += 1
        return f"the frame could not be segmented ({self.failed} so far){why}"

    def _column_notice(self, frame: Frame) -> tuple[str, ...]:
        """Say which channels the table has no columns for, because the first frame lacked them."""
        known = self._channels or frame.channels
        new = tuple(name for name in frame.channels if name not in known)
        return self._notices.once(f"channel {_names(new)} is not in the table of cells") if new else ()


def _wanted_channel(stream: StreamConfig, segmenter: Segmenter) -> str:
    """Return the name of the channel to segment, or ``""`` if nobody has given one."""
    own = segmenter.channel
    if stream.channel or isinstance(own, str):
        return stream.channel or str(own)
    return stream.channels[own] if stream.channels else ""


def _checked(tracks: Tracks, detections: Detections) -> Tracks:
    if len(tracks) != len(detections):
        raise ValueError(f"{len(tracks)} rows for {len(detections)} detections")
    return tracks


def _empty_reply(frame: Frame, messages: tuple[str, ...], timings: dict[str, float] | None = None) -> Reply:
    return Reply(frame.sequence, Cells.none(), timings_ms=timings or {}, messages=messages)


def _names(channels: tuple[str, ...]) -> str:
    return ", ".join(map(repr, channels))


def _lap(timings: dict[str, float], stage: str, start: float) -> float:
    """Note how long a stage took, in ms, and return the start of the next."""
    now = perf_counter()
    timings[stage] = (now - start) * 1e3
    return now
