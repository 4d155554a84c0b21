"""What came of decisions at the microscope, as it told us, in the folder of the run: one line of JSON each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ...acquire.errors import WireError
from ...acquire.link.messages import Outcomes
from ...acquire.outcome import Outcome

OUTCOMES = "outcomes.jsonl"
_LARGEST_GAP = 1 << 20
_GAP = b"\n"  # an empty line: an outcome that the microscope had to let go of


class AuditLine(Outcome, frozen=True):
    """One line: what came of a decision, and who asked for it.

    Attributes
    ----------
    noted
        When it was written down: date and time, UTC.
    configuration
        SHA-256 of the ``stream.json`` whose rules decided, in hexadecimal digits; ``""`` if that could not be written.
    """

    noted: str = ""
    configuration: str = ""


class OutcomeLog:
    """The outcomes of one run, each once, across restarts of the engine.

    Parameters
    ----------
    run
        The run's folder; a torn last line of an engine that died is cut off.
    configuration
        Hash of what decides, for each line.
    """

    def __init__(self, run: Path, configuration: str = "") -> None:
        self._configuration = configuration
        self._path = path = run / OUTCOMES
        path.touch()
        self._next = self._end = 0
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    self._next, self._end = self._next + 1, self._end + len(line)
        self._file = path.open("r+b", buffering=0)
        self._cut()

    @property
    def next(self) -> int:
        """Number of the first outcome that is not written down."""
        return self._next

    def add(self, message: Outcomes) -> int:
        """Write down what is new; return the number of the first that is not written down.

        Raises
        ------
        OSError
            If that fails; what was written before stays.
        WireError
            If the numbers are not those that a microscope would go on with.
        """
        new = [
            (number, outcome)
            for number, outcome in enumerate(message.outcomes, start=message.first)
            if number >= self._next
        ]
        if not new:
            return self._next
        if (gap := new[0][0] - self._next) > _LARGEST_GAP:
            raise WireError(f"outcomes: number {new[0][0]} where {self._next} is next")
        lines = _GAP * gap + b"".join(self._line(outcome) for _, outcome in new)
        try:
            if self._file.write(lines) != len(lines):
                raise OSError(f"{self._path}: the disk is full")
        except OSError:
            self._cut()
            raise
        self._next, self._end = new[-1][0] + 1, self._end + len(lines)
        return self._next

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _line(self, outcome: Outcome) -> bytes:
        noted = datetime.now(UTC).isoformat(timespec="milliseconds")
        fields = msgspec.structs.asdict(outcome)
        line = AuditLine(**fields, noted=noted, configuration=self._configuration)
        return msgspec.json.encode(line) + b"\n"

    def _cut(self) -> None:
        """Let the file end with what is written whole."""
        self._file.truncate(self._end)
        self._file.seek(self._end)


def read_outcomes(run: Path) -> Iterator[Outcome]:
    """Yield the outcomes in the folder of a run, in their order; of an unfinished line nothing."""
    path = run / OUTCOMES
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                with contextlib.suppress(ValueError):
                    yield msgspec.json.decode(line, type=Outcome)
