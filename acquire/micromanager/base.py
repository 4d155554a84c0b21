"""What the loops of both acquisition engines share: the link, the three ways back, the counts."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias, get_args

from ..actuators import Actuator
from ..errors import AcquisitionError
from ..governor.limits import Limits
from ..governor.standing import Standing
from ..link.client import Client, ClientStats
from .outgoing import Outgoing, Planned
from .steering import Steering
from .step import Key, Step

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
    applied, expired, refused, failed
        Commands carried out; refused as stale; outside the limits; refused because nothing accepts them or the
        hardware did not.
    disarmed, dry
        Refused because the microscope was disarmed; not done because it was a dry run.
    standing
        ``armed``, ``dry`` or ``disarmed``.
    falls
        How often the microscope fell to its safe state because the service was silent.
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
    refused: int
    failed: int
    disarmed: int
    dry: int
    standing: Standing
    falls: int
    skipped: int
    late: int
    errors: int
    link: ClientStats


class LoopBase:
    """One microscope's side of the loop; its children bind it to an acquisition engine.

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
    limits
        Of this microscope: held besides those of the service, whatever that says.

    Raises
    ------
    AcquisitionError
        For a mode that does not exist or a negative deadline.
    """

    def __init__(
        self,
        client: Client,
        *,
        mode: Mode = "free",
        deadline_s: float = 0.2,
        actuators: Sequence[Actuator] = (),
        limits: Limits | None = None,
    ) -> None:
        if mode not in get_args(Mode):
            raise AcquisitionError(f"mode {mode!r}: allowed are {', '.join(get_args(Mode))}")
        if not deadline_s >= 0:
            raise AcquisitionError(f"deadline_s {deadline_s!r}: must be 0 or more")
        self.mode: Mode = mode
        self.client = client
        self._deadline_s = deadline_s
        self._actuators = tuple(actuators)
        self._outgoing = Outgoing(client)
        self.steering = Steering(
            client, self._outgoing, actuators=actuators, extras=mode == "lockstep", limits=limits
        )
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._here = Step()

    @property
    def stats(self) -> LoopStats:
        """What has happened so far."""
        own, steering = self._counts, self.steering.ledger.counts
        return LoopStats(
            images=own["images"],
            refused_images=own["refused_images"],
            applied=steering["applied"],
            expired=steering["expired"],
            refused=steering["refused"],
            failed=steering["failed"],
            disarmed=steering["disarmed"],
            dry=steering["dry"],
            standing=self.steering.safety.standing,
            falls=self.steering.watchdog.falls,
            skipped=steering["skipped"],
            late=own["late"],
            errors=own["errors"],
            link=self.client.stats(),
        )

    def arm(self, why: str = "the script") -> None:
        """Let decisions reach the hardware, from the next event on."""
        self.steering.safety.set("armed", why)

    def disarm(self, why: str = "the script") -> None:
        """Refuse every decision from now on; positions, focus and exposures that are in force stay so."""
        self.steering.safety.set("disarmed", why)

    def dry_run(self, why: str = "the script") -> None:
        """Do all but what reaches the hardware; each decision is counted and said in the log."""
        self.steering.safety.set("dry", why)

    def close(self) -> None:
        """Wait shortly for the last replies, end the link and bring the actuators to their safe state."""
        self.steering.interrupt()
        self.steering.watchdog.close()
        self.steering.drop_waiting("the loop is closed")
        self.client.close()
        for actuator in self._actuators:
            try:
                actuator.close()
            except Exception as error:
                self._complain("errors", f"{type(actuator).__name__} did not close: {error!r}", trace=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def await_reply(self, key: Key) -> None:
        """Wait for the reply to an image, up to the deadline."""
        if self._outgoing.wait_reply(key, self._deadline_s) is None:
            self._counts["late"] += 1

    def _note(self, key: Key, plan: Step, step: Step) -> None:
        """Note what an image comes from, with the position that holds where its step has none."""
        hardware, here = self.steering.hardware, self._here
        if hardware is not None and step.xy_um is None and here.xy_um is None:
            here = replace(here, xy_um=hardware.stage_um())
        if hardware is not None and step.z_um is None and here.z_um is None:
            here = replace(here, z_um=hardware.focus_um())
        self._here = Step(xy_um=step.xy_um or here.xy_um, z_um=here.z_um if step.z_um is None else step.z_um)
        actual = replace(step, xy_um=self._here.xy_um, z_um=self._here.z_um)
        self._outgoing.plan(key, Planned(plan, actual))

    def _complain(self, count: str, message: str, *, trace: bool = False) -> None:
        """Count, and say it the first time."""
        with self._counting:
            self._counts[count] += 1
            first = self._counts[count] == 1
        if first:
            _LOG.error("%s (further ones are only counted)", message, exc_info=trace)


def open_link(address: str, stream: str, keys: str | Path | None, buffer_mb: int) -> Client:
    """Return a link that is connected, or will be as soon as the service comes.

    Raises
    ------
    AddressError
        If the address is malformed or not allowed without keys.
    RefusedError
        If the service turns this client away.
    """
    client = Client(address, stream=stream, keys=keys, buffer_mb=buffer_mb)
    try:
        if not client.wait_connected(_CONNECT_S):
            _LOG.warning("no service at %s yet; frames are kept until it comes", address)
    except BaseException:
        client.close(0)
        raise
    return client
