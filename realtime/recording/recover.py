"""Finishing what a killed service left: torn ends are cut, the time axis ends with the last frame, tables are made."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from ...acquire.errors import ExportError, MissingExtraError
from ..service.journal import Journal
from ..service.outcome_log import OutcomeLog
from ..service.run_folder import check_run
from .run_writer import RunWriter, part_folders
from .tables import write_tables

QUIET_S = 10.0
"""A run whose journal was written a shorter time ago may still go on."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was done; ``cut_bytes`` of the journal were torn, ``entries`` are whole, ``recordings`` are finished."""

    entries: int
    cut_bytes: int
    recordings: int


def recover(run: Path, *, anyway: bool = False) -> Recovered:
    """Finish a run's folder; what is whole stays as it is, and doing it again changes nothing.

    Parameters
    ----------
    run
        The folder.
    anyway
        Also where the run may still go on.

    Raises
    ------
    SourceError
        If it is not the folder of a run, or a recording in it cannot be read.
    ExportError
        If the run may still go on, or the disk is full.
    """
    check_run(run)
    path = run / "journal"
    age_s = time.time() - path.stat().st_mtime
    if age_s < QUIET_S and not anyway:
        ago = f"its journal was written {max(age_s, 0.0):.0f} s ago"
        raise ExportError(run, f"{ago}: the run may still go on (--anyway)")
    try:
        before = path.stat().st_size
        journal = Journal(path)
        entries = sum(1 for _ in journal.entries())
        journal.close()
        OutcomeLog(run).close()
        writer = RunWriter(run)
        writer.close()
        with contextlib.suppress(MissingExtraError):  # tables are an extra
            write_tables(run)
    except OSError as error:
        raise ExportError(run, f"cannot be finished: {error}", begun=True) from error
    return Recovered(entries, before - path.stat().st_size, len(part_folders(run)))
