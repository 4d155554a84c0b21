"""Shared memory that outlives those who only read it."""

from __future__ import annotations

import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from unittest.mock import patch


def attach_memory(name: str) -> SharedMemory:
    """Return shared memory that another process owns and will give back.

    Raises
    ------
    OSError
        If there is none of this name.
    ValueError
        If it is empty.
    """
    if sys.version_info >= (3, 13):
        return SharedMemory(name=name, track=False)
    # Before 3.13 a reader's resource tracker would unlink the owner's memory when the reader exits.
    with patch.object(resource_tracker, "register", _forget):
        return SharedMemory(name=name)


def _forget(name: str, kind: str) -> None:
    """Stand in for the resource tracker's register."""
