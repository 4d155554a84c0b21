"""Room on the disk: told before there is none left."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

_LOOK_S = 5.0
_LEVELS_S = (3600.0, 600.0, 60.0)
_LEAST_BYTES = 1 << 30
_SETTLING_S = 10.0


class Room:
    """Watches how fast the room on a disk becomes less, and says for how long it will last: once below an hour, once
    below ten minutes, once below one.

    Parameters
    ----------
    folder
        On the disk that is written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began_s = self._looked_s = time.monotonic()
        self._written = 0
        self._level = len(_LEVELS_S) + 1
        self._told_little = False

    def look(self, written_bytes: int) -> str:
        """Count bytes that were written; return what a person should know, ``""`` most of the time."""
        self._written += written_bytes
        now = time.monotonic()
        if now - self._looked_s < _LOOK_S:
            return ""
        self._looked_s = now
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError:
            return ""
        return self.judge(
            free, self._written / (now - self._began_s) if now - self._began_s > _SETTLING_S else 0.0
        )

    def judge(self, free_bytes: int, bytes_per_s: float) -> str:
        """Return what is to be said of so much room at such a rate; each level is told once."""
        if bytes_per_s > 0:
            left_s = free_bytes / bytes_per_s
            level = sum(
                left_s >= each for each in _LEVELS_S
            )  # 3: more than an hour ... 0: less than a minute
            if level < min(self._level, len(_LEVELS_S)):
                self._level = level
                return (
                    f"the disk has room for {_duration(left_s)} more at {bytes_per_s / 1e6:.0f} MB/s"
                    f" ({free_bytes / 1e9:.1f} GB are free)"
                )
        if free_bytes < _LEAST_BYTES and not self._told_little:
            self._told_little = True
            return f"the disk has {free_bytes / 1e9:.2f} GB left"
        return ""


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
