"""The tables of the runs that a recorder writes: a little at a time, and never at the cost of frames."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...acquire.errors import CytoloopError, MissingExtraError

if TYPE_CHECKING:
    from .tables import RunTables

_TURN_S = 1.0
_LAST_S = 20.0
_PATIENCE_S = 10.0  # after which a recorder that is never idle takes the time


class TableKeeper:
    """Keeps the tables of runs up to date; nothing that goes wrong here stops the recorder.

    Attributes
    ----------
    messages
        What a person should read; to be emptied by the caller.
    """

    def __init__(self) -> None:
        self.messages: list[str] = []
        self._new: list[str] = []
        self._open: dict[str, RunTables] = {}
        self._ending: list[tuple[str, RunTables, Iterator[None]]] = []
        self._turned_s = self._asked_s = time.monotonic()
        self._loaded = self._missing = self._told = False

    def begin(self, folder: str) -> None:
        """Begin with a run, unless it is known, when there is time; what a recorder before has left is made anew."""
        if folder not in self._open and folder not in self._new:
            self._asked_s = time.monotonic()
            self._new.append(folder)

    def _load(self) -> None:
        """Import what is needed, which takes a second: in an idle moment, if there is one before the first frame."""
        self._loaded = True
        try:
            for name in ("pyarrow", "pyarrow.parquet", f"{__package__}.tables"):
                importlib.import_module(name)
        except ImportError:
            self._missing = True

    def _begin_new(self) -> None:
        if not self._loaded:
            self._load()
        while self._new:
            folder = self._new.pop()
            if self._missing:
                missing = MissingExtraError("pyarrow", "formats")
                self.messages += [f"no tables are written: {missing}"] * (not self._told)
                self._told = True
                continue
            from .tables import RunTables

            try:
                self._open[folder] = RunTables(Path(folder))
            except OSError as error:
                self.messages.append(f"the tables of {folder} are not written: {error}")

    def end(self, folder: str) -> None:
        """A run has ended: the rest and the Parquet files are written by the next turns."""
        if folder in self._new:
            self._begin_new()
        tables = self._open.pop(folder, None)
        if tables is not None:
            self._ending.append((folder, tables, tables.finish()))

    def turn(self, *, idle: bool = False) -> None:
        """Write a little: about once a second of each run; of runs that have ended only when nothing else is to do."""
        now = time.monotonic()
        if idle and not self._loaded:
            self._load()
        if self._new and (idle or now - self._asked_s > _PATIENCE_S):
            self._begin_new()
        if now - self._turned_s > _TURN_S:
            self._turned_s = now
            for folder, tables in list(self._open.items()):
                try:
                    tables.turn()
                except (OSError, CytoloopError, ValueError) as error:
                    del self._open[folder]
                    self._give_up(folder, tables, error)
        if idle and self._ending:
            self._step()

    def close(self) -> None:
        """Finish all, for some seconds at most, and close them."""
        for folder in (*self._new, *self._open):
            self.end(folder)
        until = time.monotonic() + _LAST_S
        while self._ending and time.monotonic() < until:
            self._step()
        for _, tables, _ in self._ending:
            try:
                tables.close()
            except (OSError, ValueError):
                continue
        self._ending.clear()

    def _step(self) -> None:
        folder, tables, steps = self._ending[0]
        try:
            next(steps)
        except StopIteration:
            del self._ending[0]
        except (OSError, CytoloopError, ValueError) as error:
            del self._ending[0]
            self._give_up(folder, tables, error)

    def _give_up(self, folder: str, tables: RunTables, error: Exception) -> None:
        self.messages.append(
            f"the tables of {folder} end here ('cytoloop recover' writes them anew): {error}"
        )
        try:
            tables.close()
        except (OSError, ValueError):
            return
