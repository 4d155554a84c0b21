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

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, get_args

from .actuators import Actuator
from .addresses import DEFAULT_ADDRESS
from .client import Client, ClientStats
from .engine import apply_exposure, check_camera, running_core
from .errors import AcquisitionError, FrameError
from .guard import Guard
from .hardware import Hardware
from .micromanager import edited, elapsed_s, frame_of, received, step_of
from .outgoing import Outgoing, Planned
from .steering import Steering
from .step import Key, Step, axes_key

Mode: TypeAlias = Literal["free", "barrier", "lockstep"]

_LOG = logging.getLogger("cytoloop.loop")
_CONNECT_S = 2.0


@dataclass(frozen=True, slots=True)
class LoopStats:
    """What the loop has done so far.

    Attributes
    ----------
    images, refused_images
        Images that came, and those of them that are not gray, 8 or 16 bit.
    applied, expired, failed
        Commands carried out; refused as stale; refused because nothing accepts them or the hardware did not.
    skipped
        Planned events that a command left out.
    late
        Replies that had not come at the deadline (``barrier`` and ``lockstep``).
    errors
        Exceptions inside the loop itself; each was logged, none reached the acquisition.
    link
        The state of the link.
    """

    images: int
    refused_images: int
    applied: int
    expired: int
    failed: int
    skipped: int
    late: int
    errors: int
    link: ClientStats


class Loop:
    """One microscope's side of the loop; serves one acquisition after another.

    :meth:`on_image` and :meth:`before_event` run in pycro-manager's threads. They never raise, and only what
    the user asked for makes them wait: ``mode``, a ``Pause``, an actuator.

    Parameters
    ----------
    client
        The link; closed with the loop.
    mode
        ``free``, ``barrier`` or ``lockstep``.
    deadline_s
        Longest wait for a reply in s.
    actuators
        For commands that an acquisition event cannot carry; closed with the loop.
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
        image_timeout_s: float = 10.0,
    ) -> None:
        if mode not in get_args(Mode):
            raise AcquisitionError(f"mode {mode!r}: allowed are {', '.join(get_args(Mode))}")
        if not deadline_s >= 0:
            raise AcquisitionError(f"deadline_s {deadline_s!r}: must be 0 or more")
        self.mode: Mode = mode
        self.client = client
        self._deadline_s, self._image_timeout_s = deadline_s, image_timeout_s
        self._actuators = tuple(actuators)
        self._outgoing = Outgoing(client)
        self.steering = Steering(client, self._outgoing, actuators=actuators, extras=mode == "lockstep")
        self._guard: Guard | None = None
        self._counts: Counter[str] = Counter()
        self._complaints = threading.Lock()
        self._last: Key | None = None
        self._here = Step()

    def on_image(self, image: Any, metadata: Any) -> tuple[Any, Any]:
        """Hand an image to the link and return it as it came; give it to ``image_process_fn``.

        The image is not copied, so do not change its pixels in place afterwards.
        """
        self._counts["images"] += 1
        try:
            key = axes_key(metadata.get("Axes") or {})
            planned = self._outgoing.planned(key)
            try:
                frame = frame_of(image, metadata, planned.actual if planned else None)
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
        self._guard, self._last, self._here = guard, None, Step()
        return guard

    @property
    def stats(self) -> LoopStats:
        """What has happened so far."""
        own, steering = self._counts, self.steering.counts
        return LoopStats(
            images=own["images"],
            refused_images=own["refused_images"],
            applied=steering["applied"],
            expired=steering["expired"],
            failed=steering["failed"],
            skipped=steering["skipped"],
            late=own["late"],
            errors=own["errors"],
            link=self.client.stats(),
        )

    def close(self) -> None:
        """Wait shortly for the last replies, end the link and bring the actuators to their safe state."""
        self.steering.interrupt()
        self.client.close()
        for actuator in self._actuators:
            try:
                actuator.close()
            except Exception as error:
                self._complain("errors", f"{type(actuator).__name__} did not close: {error!r}", trace=True)

    def __enter__(self) -> Loop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- for the guard ----------------------------------------------------------------------------------------

    def steer(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Carry out what is due and return the events that remain, edited."""
        core = running_core()
        self.steering.hardware = None if core is None else Hardware(core)
        self.steering.take()
        plans = [step_of(event) for event in events]
        remaining: list[dict[str, Any]] = []
        for event, plan, step in zip(events, plans, self.steering.edit(plans), strict=True):
            if step is not None:
                new = edited(event, step)
                self._plan(new, plan, step)
                remaining.append(new)
        return remaining

    def note(self, event: dict[str, Any], again: dict[str, Any]) -> None:
        """Note that an event repeats another one, so that commands after its image concern the same plan."""
        planned = self._outgoing.planned(axes_key(event["axes"]))
        self._plan(again, planned.plan if planned else step_of(event), step_of(again))

    def await_reply(self, key: Key) -> None:
        """Wait for the reply to an image, up to the deadline."""
        if self._outgoing.wait_reply(key, self._deadline_s) is None:
            self._counts["late"] += 1

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

    def _plan(self, event: dict[str, Any], plan: Step, step: Step) -> None:
        """Note what an event's image comes from, with the position that holds where the event has none."""
        hardware = self.steering.hardware
        here = self._here
        if hardware is not None and step.xy_um is None and here.xy_um is None:
            here = replace(here, xy_um=hardware.stage_um())
        if hardware is not None and step.z_um is None and here.z_um is None:
            here = replace(here, z_um=hardware.focus_um())
        self._here = Step(xy_um=step.xy_um or here.xy_um, z_um=here.z_um if step.z_um is None else step.z_um)
        actual = replace(step, xy_um=self._here.xy_um, z_um=self._here.z_um)
        self._outgoing.plan(axes_key(event.get("axes") or {}), Planned(plan, actual))

    def _complain(self, count: str, message: str, *, trace: bool = False) -> None:
        """Count, and say it the first time."""
        with self._complaints:
            self._counts[count] += 1
            first = self._counts[count] == 1
        if first:
            _LOG.error("%s (further ones are only counted)", message, exc_info=trace)


def connect(
    address: str = DEFAULT_ADDRESS,
    *,
    stream: str = "default",
    mode: Mode = "free",
    deadline_s: float = 0.2,
    actuators: Sequence[Actuator] = (),
    keys: str | Path | None = None,
    buffer_mb: int = 1024,
    image_timeout_s: float = 10.0,
) -> Loop:
    """Connect a pycro-manager script to the service.

    A service that is not there yet is no error: frames are kept until it comes.

    Parameters
    ----------
    address, stream, keys, buffer_mb
        As for :class:`~cytoloop.acquire.client.Client`.
    mode, deadline_s, actuators, image_timeout_s
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
    client = Client(address, stream=stream, keys=keys, buffer_mb=buffer_mb)
    try:
        if not client.wait_connected(_CONNECT_S):
            _LOG.warning("no service at %s yet; frames are kept until it comes", address)
        return Loop(
            client, mode=mode, deadline_s=deadline_s, actuators=actuators, image_timeout_s=image_timeout_s
        )
    except BaseException:
        client.close(0)
        raise
