"""``cytoloop bench sort``: a simulated flow channel sorted in real time, at rising rates of cells until that breaks.

Frames come at the camera's pace on the computer's clock; decisions come back over the link, wait in a thread for
their time, and open a simulated gate when that thread really fires. So what is late takes the wrong cell.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated, Any, Literal

import numpy as np

from ...acquire.commands import Trigger
from ...acquire.errors import ActuatorError
from ...acquire.frame import Frame
from ...acquire.governor.limits import Limits
from ...acquire.link.client import Client
from ...acquire.reply import Decision, Reply
from ...acquire.scheduled import ScheduledTrigger
from ...acquire.simulated.flow import FlowChannel, FlowGate
from ..experiment.config import single_stream
from ..experiment.stream import PluginChoice, StreamConfig
from ..pipeline import Pipeline
from ..progress import Progress
from ..service.server import Service
from ..trust import Trust

PUBLISHED = {
    "events_per_s": 2000.0,
    "latency_ms": 3.0,
    "source": "image-activated cell sorting: Isozaki et al., Lab on a Chip 20 (2020) 2263, about 2 000 events/s;"
    " Tang et al., Biosensors and Bioelectronics 220 (2023) 114865, less than 3 ms",
}
RATES = (100.0, 250.0, 500.0, 1000.0, 2000.0, 3000.0, 4000.0)
_WARM_S = 0.5
_SWITCH_S = 5e-5  # else a thread that is due waits up to 5 ms for one that computes
_SWITCH_IN_PROCESS_S = 2e-5
_LATE_SHARE = 0.01
_BROKEN_SHARE = 0.2
_BROKEN_ROWS = 2  # one stall of a busy computer breaks one
_ABOVE = 90.0
_URGENT = -15

Exchange = Callable[[Frame | None, float], list[Reply]]
"""Sends a frame, or waits for answers for some time in s; returns those that have come."""


def run(
    progress: Progress,
    *,
    seconds: Annotated[float, "Length of each row in s."] = 4.0,
    frames_per_s: Annotated[float, "Rate of the camera."] = 500.0,
    speed_px_s: Annotated[float, "Speed of the flow in px per s."] = 25_000.0,
    width_ms: Annotated[float, "How long the gate is open."] = 0.3,
    gate_ms: Annotated[float, "From the field's end to the gate, in ms of flow."] = 6.0,
    policy: Annotated[Literal["purity", "yield", "enrich"], "Of coincidences."] = "purity",
    rate: Annotated[tuple[float, ...], "Events per s; by default rising ones until it breaks."] = (),
    seed: Annotated[int, "Of the cells."] = 0,
    urgent: Annotated[
        bool, "Run before other programs of this computer, where the user may (Linux: root)."
    ] = False,
) -> dict[str, Any]:
    """Return ``rows`` of what was held, once over the link and once in process, beside the ``published`` figures.

    A row is held if at most one trigger, or one in a hundred, was late and no frame waited at the end;
    rates rise until a fifth of the decisions are late in two rows on end.

    Parameters
    ----------
    progress
        Told about each row.
    seconds, frames_per_s, speed_px_s, width_ms, gate_ms, policy, rate, seed, urgent
        See their options.
    """
    if urgent:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, 0, _URGENT)  # the service's processes inherit it
    rows: list[dict[str, Any]] = []
    for path in ("link", "in process"):
        broken = 0
        for events_per_s in rate or RATES:
            progress(f"{path}: {events_per_s:g} events/s", len(rows))
            channel = FlowChannel(
                events_per_s=events_per_s,
                seconds=_WARM_S + seconds,
                frames_per_s=frames_per_s,
                speed_px_s=speed_px_s,
                seed=seed,
            )
            gate = FlowGate(channel.shape[1] + speed_px_s * gate_ms / 1000)
            stream = stream_of(gate.x_px, speed_px_s, width_ms, policy)
            row = (_linked if path == "link" else _in_process)(channel, gate, stream)
            rows.append({"path": path, "events_per_s": events_per_s, **row})
            broken = broken + 1 if row["late"] > _BROKEN_SHARE * row["decided"] else 0
            if broken == _BROKEN_ROWS and not rate:
                break
    held = {
        path: max((row["events_per_s"] for row in rows if row["path"] == path and row["held"]), default=0.0)
        for path in ("link", "in process")
    }
    return {
        "frames_per_s": frames_per_s,
        "width_ms": width_ms,
        "policy": policy,
        "events_per_s_held": held,
        "published": PUBLISHED,
        "rows": rows,
    }


def stream_of(gate_px: float, speed_px_s: float, width_ms: float, policy: str) -> StreamConfig:
    """Return a stream that sorts what is bright in a simulated channel.

    Parameters
    ----------
    gate_px
        Place of the gate along x.
    speed_px_s
        Speed of the flow.
    width_ms, policy
        Options of the rule ``sort``.
    """
    options = {"gate_px": gate_px, "above": _ABOVE, "width_ms": width_ms, "policy": policy}
    return StreamConfig(
        address="tcp://127.0.0.1:0",
        credit=8,
        armed=True,
        segmenter=PluginChoice("flow"),
        tracker=PluginChoice("flow", {"speed_px_s": speed_px_s}),
        rules=(PluginChoice("sort", options),),
        limits=Limits(commands_per_s=10_000.0),
        trust=Trust(focus=False, confidence=False),  # both rest on fields that are never empty
    )


def _linked(channel: FlowChannel, gate: FlowGate, stream: StreamConfig) -> dict[str, Any]:
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryDirectory())
        service = stack.enter_context(Service(single_stream(stream, log=log)))
        client = stack.enter_context(Client(service.addresses["default"], shared_memory=True))
        client.wait_connected(60.0)

        sent = answered = 0

        def exchange(frame: Frame | None, wait_s: float) -> list[Reply]:
            nonlocal sent, answered
            if frame is not None:
                sent = client.send(frame) + 1
            elif answered < sent:
                client.wait(answered, wait_s)
            else:
                time.sleep(wait_s)
            replies = client.replies()
            answered += len(replies)
            return replies

        return _sort(channel, gate, exchange, _width_ms(stream), _SWITCH_S)


def _in_process(channel: FlowChannel, gate: FlowGate, stream: StreamConfig) -> dict[str, Any]:
    pipeline = Pipeline(stream)

    def exchange(frame: Frame | None, wait_s: float) -> list[Reply]:
        if frame is not None:
            return [pipeline.step(frame).reply]
        time.sleep(wait_s)
        return []

    return _sort(channel, gate, exchange, _width_ms(stream), _SWITCH_IN_PROCESS_S)


def _width_ms(stream: StreamConfig) -> float:
    return float(stream.rules[0].options["width_ms"])


def _sort(
    channel: FlowChannel, gate: FlowGate, exchange: Exchange, width_ms: float, switch_s: float
) -> dict[str, Any]:
    """Send all frames at their time, schedule what comes back, and score the gate."""
    images = [channel.snap(index) for index in range(channel.count)]
    sorting, interval_s = _Sorting(gate, width_ms), sys.getswitchinterval()
    sys.setswitchinterval(switch_s)
    try:
        sorting.begin()
        for index, image in enumerate(images):
            due_s = index / channel.frames_per_s
            while (wait_s := due_s - sorting.now_s()) > 0:
                sorting.take(exchange(None, wait_s))
            sorting.take(exchange(Frame(image, index, due_s, {"time": index}), 0.0))
        until_s = channel.seconds + 0.05
        while sorting.now_s() < until_s:
            sorting.take(exchange(None, 1e-3))
    finally:
        sys.setswitchinterval(interval_s)
        sorting.trigger.close()
    return sorting.row(channel)


class _Sorting:
    """What is counted while one row runs; frame time 0 is :meth:`begin` on the computer's clock."""

    def __init__(self, gate: FlowGate, width_ms: float) -> None:
        self._gate, self._start_s = gate, time.monotonic()
        self.trigger = ScheduledTrigger(
            self._fire, late_ms=width_ms / 2, spin_ms=0.2, urgent=True, most_waiting=10_000
        )
        self._latency_ms: list[float] = []
        self._step_ms: list[float] = []
        self._answered = self._decided = self._withheld = 0

    def begin(self) -> None:
        """Let frame time begin."""
        self._start_s = time.monotonic()

    def now_s(self) -> float:
        """Return the present in frame time."""
        return time.monotonic() - self._start_s

    def take(self, replies: list[Reply]) -> None:
        """Schedule what the replies decide, and note how long after its frame each came."""
        for reply in replies:
            self._answered += 1
            timings = reply.timings_ms
            self._step_ms.append(sum(value for name, value in timings.items() if name != "round_trip"))
            for decision in reply.decisions:
                if isinstance(decision.command, Trigger):
                    self._decide(decision)

    def _decide(self, decision: Decision) -> None:
        now_s = self.now_s()
        if decision.time_s < _WARM_S:
            return
        self._decided += 1
        self._latency_ms.append(1000 * (now_s - decision.time_s))
        if decision.refused:
            self._withheld += 1
            return
        try:
            self.trigger.schedule(decision, now_s)
        except ActuatorError:
            return  # late: it is counted there

    def _fire(self, decision: Decision) -> None:
        if isinstance(decision.command, Trigger):
            self._gate.open(self.now_s(), decision.command.width_ms)

    def row(self, channel: FlowChannel) -> dict[str, Any]:
        """Return the row of the table, of what passed the gate after the beginning."""
        from_s = _WARM_S + self._gate.x_px / channel.cells.speed_px_s.min(initial=1e9)
        score = self._gate.score(channel, from_s=from_s)
        late = self.trigger.counts["late"]  # on arrival, and when they were to be fired
        unanswered = channel.count - self._answered
        allowed = max(1, _LATE_SHARE * (self._decided - self._withheld))
        return {
            "events": score.events,
            "targets": score.targets,
            "decided": self._decided,
            "withheld": self._withheld,
            "latency_ms": _percentiles(self._latency_ms),
            "step_ms": _percentiles(self._step_ms),
            "purity": round(score.purity, 4),
            "yield": round(score.yielded, 4),
            "late": late,
            "worst_fire_late_ms": round(self.trigger.worst_late_ms, 3),
            "unanswered": unanswered,
            "held": late <= allowed and unanswered == 0,
        }


def _percentiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {"p50": float("nan"), "p99": float("nan"), "p99.9": float("nan")}
    p50, p99, p999 = np.percentile(values, (50, 99, 99.9))
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "p99.9": round(float(p999), 3)}
