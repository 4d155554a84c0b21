"""A link whose answers a test writes itself; the real one is tested with the service."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from cytoloop.acquire.commands import Command
from cytoloop.acquire.frame import Frame, check_pixels
from cytoloop.acquire.link.client import ClientStats
from cytoloop.acquire.link.safeguard import Safeguard
from cytoloop.acquire.reply import Cells, Decision, Reply


class ScriptedLink:
    """Has the methods of ``Client`` that a loop calls; ``script`` turns each frame into commands."""

    def __init__(self, script: Callable[[Frame], Iterable[Command]], lifetime_s: float = 60.0) -> None:
        self.script, self.lifetime_s = script, lifetime_s
        self.frames: list[Frame] = []
        self.safeguard = Safeguard()
        self.safeguard.safety.begin(armed=True)
        self.silent = False
        self._replies: list[Reply] = []
        self._fresh: list[Decision] = []
        self._lock = threading.Lock()

    def send(self, frame: Frame) -> int:
        check_pixels(frame.pixels)
        with self._lock:
            sequence = len(self.frames)
            frame = replace(frame, sequence=sequence)
            self.frames.append(frame)
            if not self.silent:
                decisions = tuple(
                    Decision("script", command, sequence, frame.time_s, frame.time_s + self.lifetime_s)
                    for command in self.script(frame)
                )
                self._fresh += decisions
                self._replies.append(Reply(sequence, Cells.none(), decisions=decisions))
        return sequence

    def decisions(self) -> list[Decision]:
        with self._lock:
            fresh, self._fresh = self._fresh, []
        return fresh

    def add(self, decision: Decision) -> None:
        with self._lock:
            self._fresh.append(decision)

    def wait(self, sequence: int, timeout_s: float) -> Reply | None:
        with self._lock:
            found = next((reply for reply in self._replies if reply.sequence == sequence), None)
        if found is None:
            threading.Event().wait(timeout_s)
        return found

    def stats(self) -> ClientStats:
        return ClientStats(len(self.frames), len(self._replies), 0, 0, 0, "connected", "", "")

    def close(self, drain_s: float = 0.0) -> None:
        pass


@pytest.fixture
def scripted() -> Any:
    """Return the class, so that a test can make a link with a script of its own."""
    return ScriptedLink


@pytest.fixture
def core(engine: Any) -> Iterator[Any]:
    """The core of the running pycro-manager engine with a small 16-bit camera; put back afterwards."""
    engine.setProperty("Camera", "PixelType", "16bit")
    engine.setProperty("Camera", "OnCameraCCDXSize", "64")
    engine.setProperty("Camera", "OnCameraCCDYSize", "64")
    _rest(engine, exposure_ms=1)
    yield engine
    for name in ("snap_image", "set_xy_position"):
        engine.__dict__.pop(name, None)
    engine.setProperty("Camera", "PixelType", "8bit")
    engine.setProperty("Camera", "OnCameraCCDXSize", "512")
    engine.setProperty("Camera", "OnCameraCCDYSize", "512")
    _rest(engine, exposure_ms=10)


def _rest(engine: Any, exposure_ms: float) -> None:
    engine.setProperty("Camera", "Gain", "0")
    engine.setExposure(exposure_ms)
    engine.setXYPosition(0, 0)
    engine.setPosition(0)
    engine.waitForSystem()
