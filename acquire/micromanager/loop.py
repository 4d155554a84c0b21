"""The loop for a pycro-manager script: frames out through one hook, decisions back through another.

::

    loop = connect("tcp://127.0.0.1:5790")
    with Acquisition(directory, name, image_process_fn=loop.on_image,
                     pre_hardware_hook_fn=loop.before_event) as acquisition:
        loop.guard(acquisition).acquire(events)

Three ways back, chosen by ``mode``:

``free``
    Before each event (or burst) the mailbox is read; what has not come yet comes in time for a later one.
``barrier``
    As ``free``, but the hook waits for the reply to the last image, up to ``deadline_s``, then goes on.
``lockstep``
    The guard submits one event, waits for the reply to its image, up to ``deadline_s``, and decides the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..actuators import Actuator
from ..errors import FrameError
from ..governor.limits import Limits
from ..link.addresses import DEFAULT_ADDRESS
from ..link.client import Client
from .base import LoopBase, LoopStats, Mode, open_link
from .engine import apply_exposure, check_camera, running_core
from .guard import Guard
from .hardware import Hardware, pixel_affine
from .metadata import add_position, edited, elapsed_s, frame_of, received, step_of
from .step import Key, Step, axes_key
from .visits import Visit

__all__ = ["Loop", "LoopStats", "Mode", "connect"]


class Loop(LoopBase):
    """The loop of a pycro-manager script; serves one acquisition after another.

    :meth:`on_image` and :meth:`before_event` run in pycro-manager's threads. They never raise, and only what
    the user asked for makes them wait: ``mode``, a ``Pause``, an actuator.

    Parameters
    ----------
    client, mode, deadline_s, actuators, limits
        As for :class:`~.base.LoopBase`.
    image_timeout_s
        Time in s, beyond exposure and planned start, after which the guard gives an image up.
    """

    def __init__(
        self,
        client: Client,
        *,
        mode: Mode = "free",
        deadline_s: float = 0.2,
        actuators: Sequence[Actuator] = (),
        limits: Limits | None = None,
        image_timeout_s: float = 10.0,
    ) -> None:
        super().__init__(client, mode=mode, deadline_s=deadline_s, actuators=actuators, limits=limits)
        self._image_timeout_s = image_timeout_s
        self._guard: Guard | None = None
        self._last: Key | None = None

    def on_image(self, image: Any, metadata: Any) -> tuple[Any, Any]:
        """Hand an image to the link and return it as it came; give it to ``image_process_fn``.

        The image is not copied, so do not change its pixels in place afterwards.
        """
        self._counts["images"] += 1
        try:
            key = axes_key(metadata.get("Axes") or {})
            planned = self._outgoing.planned(key)
            try:
                frame = frame_of(
                    image, metadata, planned.actual if planned else None, pixel_affine(running_core())
                )
                self._outgoing.send(frame, key, elapsed_s(metadata), received(metadata))
            except FrameError as error:
                self._outgoing.refused(key)
                self._complain("refused_images", f"images are not sent: {error}")
        except Exception as error:
            self._complain("errors", f"an image could not be sent: {error!r}", trace=True)
        return image, metadata

    def before_event(self, event: Any) -> Any:
        """Return the event as the decisions leave it, or None to skip it; give it to ``pre_hardware_hook_fn``.

        Parameters
        ----------
        event
            One event, or the list of events of a burst.
        """
        try:
            events = self._before(event if isinstance(event, list) else [event])
        except Exception as error:
            self._complain("errors", f"an event goes as planned: {error!r}", trace=True)
            return event
        if not events:
            return None
        return events if isinstance(event, list) else events[0]

    def guard(self, acquisition: Any) -> Guard:
        """Return what submits the events of this acquisition safely.

        Raises
        ------
        AcquisitionError
            If its hooks are such that pycro-manager would fail in silence, or they are not the loop's.
        """
        guard = Guard(self, acquisition, self._image_timeout_s)
        self.steering.begin_run()
        self.steering.pace.clock = guard.elapsed_s if self.mode == "lockstep" else None
        self._guard, self._last, self._here = guard, None, Step()
        return guard

    # --- for the guard ----------------------------------------------------------------------------------------

    def steer(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Carry out what is due and return the events that remain, edited."""
        core = running_core()
        self.steering.hardware = None if core is None else Hardware(core)
        self.steering.take()
        plans = [step_of(event) for event in events]
        steps = self.steering.edit(plans)
        # Only the guard can write the position into the image instead.
        placed = Step() if self._guard is None else self.steering.placed
        remaining: list[dict[str, Any]] = []
        for event, plan, step in zip(events, plans, steps, strict=True):
            if step is not None:
                new = edited(event, step, placed)
                self._note(axes_key(new.get("axes") or {}), plan, step)
                remaining.append(new)
        return remaining

    def complete(self, metadata: dict[str, Any]) -> None:
        """Write down the known position of an image that has just been taken."""
        planned = self._outgoing.planned(axes_key(metadata.get("Axes") or {}))
        if planned is not None:
            add_position(metadata, planned.actual)

    def note(self, event: dict[str, Any], again: dict[str, Any]) -> None:
        """Note that an event repeats another one, so that commands after its image concern the same plan."""
        planned = self._outgoing.planned(axes_key(event["axes"]))
        plan = planned.plan if planned else step_of(event)
        self._note(axes_key(again["axes"]), plan, step_of(again))

    def note_visit(self, event: dict[str, Any], visit: Visit) -> None:
        """Note that an event is taken at a place of its own, which the hardware leaves again afterwards."""
        here = self._here
        self._note(axes_key(event["axes"]), visit.plan, visit.step)
        self._here = here

    # --- inside -----------------------------------------------------------------------------------------------

    def _before(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self._guard is not None and self._guard.ending:
            return []
        if self._guard is not None and self.mode == "lockstep":
            remaining = [] if self.steering.stopped else events
        else:
            if self.mode != "free" and self._last is not None:
                self.await_reply(self._last)
            remaining = self.steer(events)
            if self.steering.stopped and self._guard is not None:
                self._guard.end()
        for event in remaining:
            exposure = step_of(event).exposure_ms
            apply_exposure(exposure)
            if exposure is not None and self._guard is not None:
                self._guard.allow_exposure(exposure)
        if remaining:
            self._last = axes_key(remaining[-1].get("axes") or {})
        return remaining


def connect(
    address: str = DEFAULT_ADDRESS,
    *,
    stream: str = "default",
    mode: Mode = "free",
    deadline_s: float = 0.2,
    actuators: Sequence[Actuator] = (),
    keys: str | Path | None = None,
    buffer_mb: int = 1024,
    limits: Limits | None = None,
    image_timeout_s: float = 10.0,
) -> Loop:
    """Connect a pycro-manager script to the service.

    A service that is not there yet is no error: frames are kept until it comes.

    Parameters
    ----------
    address, stream, keys, buffer_mb
        As for :class:`~cytoloop.acquire.link.client.Client`.
    mode, deadline_s, actuators, limits, image_timeout_s
        As for :class:`Loop`.

    Raises
    ------
    AddressError
        If the address is malformed or not allowed without keys.
    RefusedError
        If the service turns this client away.
    AcquisitionError
        If the camera of the running core gives images on which pycro-manager fails (RGB, more than 16 bit).
    """
    check_camera()
    client = open_link(address, stream, keys, buffer_mb)
    try:
        return Loop(
            client,
            mode=mode,
            deadline_s=deadline_s,
            actuators=actuators,
            limits=limits,
            image_timeout_s=image_timeout_s,
        )
    except BaseException:
        client.close(0)
        raise
