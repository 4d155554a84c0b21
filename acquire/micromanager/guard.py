"""Guard: submits events so that pycro-manager 1.0.2 neither loses an error nor hangs on one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..commands import SnapExtra
from ..errors import ActuatorError, EventError
from ..reply import Decision
from .engine import Watch, check_camera, running_core
from .events import EventCheck
from .metadata import step_of
from .step import Step, axes_key
from .visits import Visit, away

if TYPE_CHECKING:
    from .loop import Loop


class Guard:
    """Submits the events of one acquisition; made by :meth:`~cytoloop.acquire.micromanager.loop.Loop.guard`."""

    def __init__(self, loop: Loop, acquisition: Any, image_timeout_s: float) -> None:
        self._loop = loop
        self._watch = Watch(acquisition, image_timeout_s, loop.complete)
        self._check = EventCheck(running_core())
        self._taken_extras = 0

    @property
    def stopped(self) -> str:
        """Which rule stopped the acquisition and why, or ``""``."""
        return self._loop.steering.stopped

    def acquire(self, events: dict[str, Any] | Iterable[Any]) -> int:
        """Acquire events and return when their images have been taken and handed to the link.

        A list is checked as a whole before any of it is submitted. In free mode the engine may merge
        neighbours in a list into hardware-timed bursts, within which nothing can be decided; events that set
        properties, and all events in the other modes, go one by one. Any other iterable is read one item
        ahead of the microscope, an item being an event or a list of events.

        Parameters
        ----------
        events
            One event, a list of events, or an iterable of either, such as a generator.

        Returns
        -------
        images
            The number of images taken. It is less than that of the events when some were skipped, or when a
            rule stopped the acquisition; further calls then take none.

        Raises
        ------
        EventError
            For an event that the engine would mishandle; nothing of it is submitted.
        AcquisitionError
            If the hardware, a hook or the camera fails, or an image is overdue. The acquisition has ended;
            what was taken is kept.
        """
        check_camera()
        before = self._watch.imaged
        try:
            try:
                for unit in self._units(events):
                    if self._watch.ending or self.stopped:
                        break
                    self._run(unit)
            except EventError:
                self._watch.wait()
                raise
            self._watch.wait()
        except EventError:
            raise
        except BaseException:
            self._watch.shut_down()
            raise
        return self._watch.imaged - before

    @property
    def ending(self) -> bool:
        """Whether the acquisition has been stopped, aborted or has failed."""
        return self._watch.ending

    def elapsed_s(self) -> float:
        """Return the present in s on the clock in which ``min_start_time`` counts, 0 before the first image."""
        return self._watch.elapsed_s()

    def end(self) -> None:
        """End the acquisition now, as planned ends do; what has been taken is kept."""
        self._watch.end()

    def allow_exposure(self, exposure_ms: float) -> None:
        """Tell the watchdog of an exposure that was not planned."""
        self._watch.longest_exposure_ms = max(self._watch.longest_exposure_ms, exposure_ms)

    def _units(self, events: dict[str, Any] | Iterable[Any]) -> Iterator[Any]:
        """Yield checked events, or lists of them that are submitted together."""
        if isinstance(events, dict):
            yield from self._check.check([events])
        elif isinstance(events, list | tuple):
            yield from self._together(list(events))
        else:
            for item in events:
                yield from self._together(list(item) if isinstance(item, list | tuple) else [item])

    def _together(self, events: list[Any]) -> Iterator[Any]:
        for key, run in groupby(self._check.check(events), _burst_key):
            members = list(run)
            if self._loop.mode != "free" or key is None or len(members) == 1:
                yield from members
            else:
                yield members

    def _run(self, unit: Any) -> None:
        if self._loop.mode == "lockstep":
            return self._run_in_step(unit)
        self._watch.submit(unit)
        self._watch.wait(outstanding=1)
        return None

    def _run_in_step(self, event: dict[str, Any]) -> None:
        """Acquire one event, wait for the answer to its image, and take the extra images that it asks for."""
        self._visit_before(step_of(event))
        for edited in self._loop.steer([event]):
            self._take_image(edited)
            self._loop.steering.take()
            extras = self._loop.steering.due_extras()
            for decision in extras:
                self._take_extra(edited, decision)
            if extras:
                self._loop.steering.take_after_extras()
            self._visit_before(None)

    def _take_image(self, event: dict[str, Any]) -> None:
        before = self._watch.imaged
        self._watch.submit(event)
        self._watch.wait()
        if self._watch.imaged > before:
            self._loop.await_reply(axes_key(event["axes"]))

    def _take_extra(self, event: dict[str, Any], decision: Decision) -> None:
        """Take one more image of the field, with an axis of its own."""
        extra = decision.command
        assert isinstance(extra, SnapExtra)
        self._taken_extras += 1
        again: dict[str, Any] = {
            key: value for key, value in event.items() if key not in ("properties", "min_start_time")
        }
        again["axes"] = {**event["axes"], "extra": self._taken_extras}
        if extra.exposure_ms is not None:
            again["exposure"] = extra.exposure_ms
        if extra.channel:
            group = event["config_group"][0] if "config_group" in event else ""
            again["config_group"] = [group or running_core().getChannelGroup(), extra.channel]
        try:
            self._check.check([again])
        except EventError as error:
            self._loop.steering.ledger.refused(decision, str(error), "failed")
            return
        self._loop.note(event, again)
        with self._as_before(again if extra.channel else event):
            self._take_image(again)
        self._loop.steering.ledger.applied(decision)

    def _as_before(self, event: dict[str, Any], step: Step = Step()) -> AbstractContextManager[None]:  # noqa: B008
        """Return what puts the hardware back after an event, for those that come later and leave it as it is."""
        hardware = self._loop.steering.hardware
        group = event["config_group"][0] if "config_group" in event else ""
        return nullcontext() if hardware is None else away(hardware, step, group)

    def _visit_before(self, step: Step | None) -> None:
        for visit, start_s in self._loop.steering.visits_before(step):
            if self._watch.ending:
                return
            try:
                self._visit(visit, start_s)
            except (ActuatorError, EventError) as error:
                self._loop.steering.ledger.refused(visit.decision, str(error), "failed")

    def _visit(self, visit: Visit, start_s: float) -> None:
        """Take one image at another place when its time has come, and go back."""
        steering, step = self._loop.steering, visit.step
        self._taken_extras += 1
        event: dict[str, Any] = {
            "axes": {**dict(visit.key), "extra": self._taken_extras},
            "min_start_time": start_s,
        }
        if step.exposure_ms is not None:
            event["exposure"] = step.exposure_ms
        if step.channel is not None:
            event["config_group"] = [step.channel[0] or running_core().getChannelGroup(), step.channel[1]]
        self._check.check([event])
        if steering.hardware is None:
            raise ActuatorError("Revisit needs a core in this process")
        steering.wait_open(start_s, lambda: self._watch.ending)
        with self._as_before(event, step):
            self._loop.note_visit(event, visit)
            self._take_image(event)
        steering.ledger.applied(visit.decision)
        steering.take_after_extras()


def _burst_key(event: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return what events must have in common to be submitted in one list; None: this one goes alone.

    pycro-manager 1.0.2 merges more than it can carry out: in a burst it drops properties and positions of
    other stages (trap 3), and takes position, exposure and channel from the first event even where that has
    none and a later one has.
    """
    if "properties" in event or "stage_positions" in event:
        return None
    x, y, group = event.get("x"), event.get("y"), event.get("config_group")
    return frozenset(event), x, y, None if group is None else tuple(group)
