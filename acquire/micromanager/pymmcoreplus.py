"""The loop for pymmcore-plus: frames out through ``frameReady``, decisions back through an iterator of events.

::

    with connect("tcp://127.0.0.1:5790", core, mode="lockstep") as loop:
        core.run_mda(loop.events(useq.MDASequence(...))).join()

The iterator is asked for the next event when the last one is done, so every decision that has come by then is
applied to it. Modes are those of :mod:`cytoloop.acquire.micromanager.loop`; in ``barrier`` and ``lockstep``
the iterator waits for the reply to the last image, up to ``deadline_s``. Extra images and visits need ``lockstep``.

A process that ends right after an acquisition may crash in the core: call ``core.unloadAllDevices()`` and
wait 0.3 s before it ends.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..actuators import Actuator
from ..commands import SnapExtra
from ..coordinates import Affine
from ..errors import ActuatorError, FrameError
from ..frame import Frame
from ..governor.limits import Limits
from ..link.addresses import DEFAULT_ADDRESS
from ..link.client import Client
from .base import LoopBase, Mode, open_link
from .hardware import Hardware, pixel_affine
from .step import Key, Step
from .useq_events import changes_of
from .visits import Visit, away

if TYPE_CHECKING:
    from useq import MDAEvent

_AXES = {"t": "time", "p": "position", "c": "channel", "z": "z"}
_REMEMBERED = 4096
_SLOT = "cytoloop_channel"  # in an event's metadata: the planned channel, where a decision has put another in its place


class MdaLoop(LoopBase):
    """The loop of a pymmcore-plus script; serves one ``run_mda`` after another.

    Parameters
    ----------
    core
        The ``CMMCorePlus`` whose acquisition engine is steered. The loop listens to it until closed.
    client, mode, deadline_s, actuators, limits
        As for :class:`~.base.LoopBase`.
    """

    def __init__(
        self,
        core: Any,
        client: Client,
        *,
        mode: Mode = "free",
        deadline_s: float = 0.2,
        actuators: Sequence[Actuator] = (),
        limits: Limits | None = None,
    ) -> None:
        super().__init__(client, mode=mode, deadline_s=deadline_s, actuators=actuators, limits=limits)
        self._core = core
        self._yielded = self._extras = 0
        self._key: Key = frozenset()
        self._issued: OrderedDict[Key, MDAEvent] = OrderedDict()
        self._began_s = time.perf_counter()
        core.mda.events.frameReady.connect(self.on_frame)

    def events(self, events: Iterable[MDAEvent]) -> Iterator[MDAEvent]:
        """Yield the planned events as the decisions leave them; pass the iterator itself to ``run_mda``.

        Parameters
        ----------
        events
            A ``useq.MDASequence`` or any iterable of ``useq.MDAEvent``; read one at a time.
        """
        self.steering.begin_run()
        self.steering.hardware = Hardware(self._core)
        self.steering.pace.clock = self._elapsed_s
        self._here = Step()
        self._began_s = time.perf_counter()
        for event in events:
            if self.mode == "free":
                self.steering.take()
            plan = _step_of(event)
            yield from self._visit_before(plan)
            (step,) = self.steering.edit([plan])
            if step is not None:
                edited = _edited(event, step)
                if edited.reset_event_timer:
                    self._began_s = time.perf_counter()
                    self.steering.pace.restart(step)
                yield self._issue(edited, plan, step)
                if self.mode != "free":
                    yield from self._settle(edited, plan)
                yield from self._visit_before(None)
            if self.steering.stopped:
                return

    def on_frame(self, image: Any, event: MDAEvent, metadata: Mapping[str, Any]) -> None:
        """Hand an image to the link; connected to ``frameReady``, and never raises."""
        self._counts["images"] += 1
        try:
            planned = self._outgoing.planned(self._key)
            try:
                step = planned.actual if planned else Step()
                frame = _frame_of(image, event, metadata, step, pixel_affine(self._core))
                self._outgoing.send(frame, self._key, _elapsed_s(metadata))
            except FrameError as error:
                self._outgoing.refused(self._key)
                self._complain("refused_images", f"images are not sent: {error}")
        except Exception as error:
            self._complain("errors", f"an image could not be sent: {error!r}", trace=True)

    def close(self) -> None:
        """Stop listening to the core, then as :meth:`LoopBase.close`."""
        self._core.mda.events.frameReady.disconnect(self.on_frame)
        super().close()

    def _settle(self, event: MDAEvent, plan: Step) -> Iterator[MDAEvent]:
        """Wait for the reply to the last image, carry out what it says, and yield the extra images it wants."""
        self.await_reply(self._key)
        self.steering.take()
        extras = self.steering.due_extras()
        for decision in extras:
            extra = decision.command
            assert isinstance(extra, SnapExtra)
            group = event.channel.group if event.channel else self._core.getChannelGroup()
            if extra.channel and not self._core.isConfigDefined(group, extra.channel):
                reason = f"group {group!r} has no preset {extra.channel!r}"
                self.steering.ledger.refused(decision, reason, "failed")
                continue
            again = self._again(event, extra, group)
            with away(Hardware(self._core), group=group if extra.channel else ""):
                yield self._issue(again, plan, _step_of(again))
            self.steering.ledger.applied(decision)
            self.await_reply(self._key)
        if extras:
            self.steering.take_after_extras()

    def _elapsed_s(self) -> float:
        """Return the present in s on the clock in which ``min_start_time`` counts."""
        return time.perf_counter() - self._began_s

    def _visit_before(self, step: Step | None) -> Iterator[MDAEvent]:
        """Yield the visits that come before a planned step, and go back after each."""
        for visit, start_s in self.steering.visits_before(step):
            try:
                yield from self._visit(visit, start_s)
            except ActuatorError as error:
                self.steering.ledger.refused(visit.decision, str(error), "failed")

    def _visit(self, visit: Visit, start_s: float) -> Iterator[MDAEvent]:
        like = self._issued.get(visit.key)
        if like is None or self.steering.hardware is None:
            raise ActuatorError("the image that it rests on is too long ago")
        self._extras += 1
        changes = changes_of(visit.command, like) or {}
        channel = changes.get("channel")
        if channel and not self._core.isConfigDefined(channel["group"], channel["config"]):
            raise ActuatorError(f"group {channel['group']!r} has no preset {channel['config']!r}")
        self.steering.wait_open(start_s, lambda: self._core.mda.status.cancel_requested)
        changes |= {"min_start_time": start_s, "metadata": {**like.metadata, "extra": self._extras}}
        here = self._here
        with away(self.steering.hardware, visit.step, channel["group"] if channel else ""):
            yield self._issue(like.replace(**changes), visit.plan, visit.step)
            self.await_reply(self._key)
        self._here = here
        self.steering.ledger.applied(visit.decision)
        self.steering.take_after_extras()

    def _issue(self, event: MDAEvent, plan: Step, step: Step) -> MDAEvent:
        """Note the event as the one that the next images come from."""
        self._yielded += 1
        self._key = frozenset({("event", self._yielded)})
        self._note(self._key, plan, step)
        self._issued[self._key] = event
        if len(self._issued) > _REMEMBERED:
            self._issued.popitem(last=False)
        return event

    def _again(self, event: MDAEvent, extra: SnapExtra, group: str) -> MDAEvent:
        self._extras += 1
        metadata = {key: value for key, value in event.metadata.items() if key != _SLOT or not extra.channel}
        changes = changes_of(extra, event) or {}
        if extra.channel:
            changes["channel"] = {"config": extra.channel, "group": group}
        return event.replace(**changes, metadata={**metadata, "extra": self._extras})


def connect(
    address: str,
    core: Any,
    *,
    stream: str = "default",
    mode: Mode = "free",
    deadline_s: float = 0.2,
    actuators: Sequence[Actuator] = (),
    keys: str | Path | None = None,
    buffer_mb: int = 1024,
    limits: Limits | None = None,
) -> MdaLoop:
    """Connect a ``CMMCorePlus`` to the service; a service that is not there yet is no error.

    Raises
    ------
    AddressError
        If the address is malformed or not allowed without keys.
    RefusedError
        If the service turns this client away.
    """
    client = open_link(address or DEFAULT_ADDRESS, stream, keys, buffer_mb)
    try:
        return MdaLoop(core, client, mode=mode, deadline_s=deadline_s, actuators=actuators, limits=limits)
    except BaseException:
        client.close(0)
        raise


def _step_of(event: MDAEvent) -> Step:
    channel = event.channel
    return Step(
        xy_um=None if event.x_pos is None or event.y_pos is None else (event.x_pos, event.y_pos),
        z_um=event.z_pos,
        exposure_ms=event.exposure,
        channel=None if channel is None else (channel.group, channel.config),
        start_s=event.min_start_time,
        time=event.index.get("t"),
    )


def _edited(event: MDAEvent, step: Step) -> MDAEvent:
    changes: dict[str, Any] = {}
    if step.xy_um is not None:
        changes["x_pos"], changes["y_pos"] = step.xy_um
    if step.z_um is not None:
        changes["z_pos"] = step.z_um
    if step.exposure_ms is not None:
        changes["exposure"] = step.exposure_ms
    planned = _step_of(event)
    if step.channel is not None and step.channel != planned.channel:
        group, preset = step.channel
        changes["channel"] = {"config": preset, "group": group}
        if event.channel is not None:
            changes["metadata"] = {**event.metadata, _SLOT: event.channel.config}
    if step.start_s != planned.start_s:
        changes |= {"min_start_time": step.start_s, "reset_event_timer": False}
    return event.replace(**changes) if changes else event


def _frame_of(
    image: Any, event: MDAEvent, metadata: Mapping[str, Any], step: Step, affine: Sequence[float] = ()
) -> Frame:
    position = metadata.get("position") or {}
    x, y, z = position.get("x"), position.get("y"), position.get("z")
    axes: dict[str, int | str] = {
        _AXES.get(str(name), str(name)): int(at) for name, at in event.index.items()
    }
    if "extra" in event.metadata:
        axes["extra"] = int(event.metadata["extra"])
    pixel_size = metadata.get("pixel_size_um") or None
    channel = event.metadata.get(_SLOT) or (event.channel.config if event.channel else "")
    return Frame(
        np.ascontiguousarray(image) if isinstance(image, np.ndarray) else image,
        axes=axes,
        channels=(str(channel),),
        stage_um=step.xy_um if x is None or y is None else (float(x), float(y)),
        z_um=step.z_um if z is None else float(z),
        exposure_ms=metadata.get("exposure_ms", step.exposure_ms),
        pixel_size_um=pixel_size,
        affine=Affine.given(affine, pixel_size),
    )


def _elapsed_s(metadata: Mapping[str, Any]) -> float | None:
    elapsed_ms = metadata.get("runner_time_ms")
    return None if elapsed_ms is None else float(elapsed_ms) / 1000
