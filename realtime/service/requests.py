"""What others than the microscope may ask of an engine: another standing of the microscope, and why."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from ...acquire.explanation import Explanation
from ...acquire.link.messages import Because, Control, FromService, Order, Question, Refusal, Stands
from .run import Run

_CONFIRM_S = 5.0
_EXPLAIN_S = 600.0
_MOST_WAITING = 16
_WHY = "from cytoloop.realtime.cli import main; main()"

Send = Callable[[bytes, FromService], None]


class _Asked(NamedTuple):
    """Someone who waits for the microscope to confirm."""

    sender: bytes
    order: Order
    since_s: float


class _Search(NamedTuple):
    """A process that works out an answer from the journal of a run."""

    sender: bytes
    question: Question
    process: subprocess.Popen[bytes]
    answer: IO[bytes]
    complaint: IO[bytes]
    since_s: float


class Requests:
    """Answers them, from the loop of the engine and without ever keeping it from its frames.

    The last frame is explained at once; one before is worked out again from the journal, by a process of its own, one
    at a time.

    Parameters
    ----------
    stream
        Name of the stream.
    send
        Sends a message to a peer.
    """

    def __init__(self, stream: str, send: Send) -> None:
        self._stream, self._send = stream, send
        self._asked: list[_Asked] = []
        self._waiting: deque[tuple[bytes, Question, Path]] = deque()
        self._search: _Search | None = None

    def control(self, sender: bytes, control: Control, microscope: bytes) -> str:
        """Hand an order on to the microscope; return what a person should read."""
        if refusal := self._elsewhere(control.stream) or (
            "" if microscope else f"no microscope is connected to stream {self._stream!r}"
        ):
            self._send(sender, Refusal("rejected", refusal))
            return ""
        order = Order(control.standing, f"{control.who}: {control.why}"[:4096])
        self._send(microscope, order)
        self._asked = [*self._asked[-_MOST_WAITING:], _Asked(sender, order, time.monotonic())]
        return f"{control.who} asks for standing {control.standing!r}: {control.why}"

    def confirmed(self, stands: Stands) -> None:
        """Tell those who asked for it that the microscope stands so."""
        for asked in [each for each in self._asked if each.order.standing == stands.standing]:
            self._asked.remove(asked)
            self._send(asked.sender, stands)

    def explain(self, sender: bytes, question: Question, run: Run | None) -> None:
        """Answer a question, now or later."""
        if refusal := self._elsewhere(question.stream) or ("" if run else "no run is going on"):
            self._send(sender, Refusal("rejected", refusal))
            return
        assert run is not None
        answer = run.explain(question)
        if answer is not None:
            self._send(sender, answer)
        elif len(self._waiting) >= _MOST_WAITING:
            self._send(
                sender, Refusal("rejected", f"{_MOST_WAITING} questions wait already; ask again later")
            )
        else:
            self._waiting.append((sender, question, run.folder))

    def turn(self) -> None:
        """Go on with what takes longer."""
        now = time.monotonic()
        for asked in [each for each in self._asked if now - each.since_s > _CONFIRM_S]:
            self._asked.remove(asked)
            refusal = f"the microscope did not confirm within {_CONFIRM_S:g} s; it may do so yet"
            self._send(asked.sender, Refusal("rejected", refusal))
        if self._search is not None:
            if self._search.process.poll() is None and now - self._search.since_s < _EXPLAIN_S:
                return
            self._send(self._search.sender, _found(self._search))
            self._end_search()
        if self._waiting:
            self._search = _begin(*self._waiting.popleft())

    def close(self) -> None:
        """End the process that searches, if there is one."""
        if self._search is not None:
            self._end_search()

    def _elsewhere(self, stream: str) -> str:
        if stream == self._stream:
            return ""
        return f"no stream {stream!r} here; this address serves {self._stream!r}"

    def _end_search(self) -> None:
        assert self._search is not None
        search, self._search = self._search, None
        search.process.kill()
        search.process.wait()
        search.answer.close()
        search.complaint.close()


def _begin(sender: bytes, question: Question, run: Path) -> _Search:
    """Have a process work an answer out."""
    answer, complaint = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
    asked = ("--cell", str(question.track), "--frame", str(question.sequence))
    command = (sys.executable, "-c", _WHY, "rules", "why", str(run), *asked, "--json")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=answer, stderr=complaint)
    return _Search(sender, question, process, answer, complaint, time.monotonic())


def _found(search: _Search) -> Because:
    """Return what a process has worked out, or why it has not."""
    question = search.question
    if search.process.returncode != 0:
        search.complaint.seek(0)
        said = search.complaint.read().decode(errors="replace").strip() or "it took too long"
        return Because(question.track, question.sequence, refused=said[-4096:])
    search.answer.seek(0)
    values = json.load(search.answer)
    rules: dict[str, list[Explanation]] = {}
    for each in values["rules"]:
        rules.setdefault(each.pop("file"), []).append(msgspec.convert(each, Explanation))
    told = {file: tuple(listed) for file, listed in rules.items()}
    return Because(question.track, values["frame"], values["time_s"], values["seen"], told)
