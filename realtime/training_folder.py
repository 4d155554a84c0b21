"""Where a training keeps what it has learned so far, until its package is written."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..acquire.errors import ModelError
from ..models.training.folder import Annotated

SETTINGS = "settings.json"


def work_path(out: Path) -> Path:
    """Return where a training is kept whose package will be ``out``."""
    return out.with_name(f"{out.name}.training")


class WorkFolder:
    """The folder ``NAME.training`` beside the package that will be ``NAME``.

    Parameters
    ----------
    out
        Where the package will be.
    settings
        All that the result depends on; a training goes on only with the same.
    resume
        Go on with what is there.

    Raises
    ------
    ModelError
        If the package is there already, there is nothing to go on with, something was asked for otherwise then,
        or what is there would be lost.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.path = work_path(out)
        if out.exists() and (out.is_file() or any(out.iterdir())):
            raise ModelError(f"{out}: is there already; name a new folder for the package")
        if resume:
            self._compare(settings)
            return
        if next(self.path.glob("*/checkpoint.pt"), None) is not None:
            raise ModelError(
                f"{self.path}: holds a training that is not finished; go on with --resume, or delete it"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _compare(self, settings: Mapping[str, Any]) -> None:
        file = self.path / SETTINGS
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ModelError(f"{self.path}: no training to go on with; leave out --resume") from None
        except (OSError, ValueError) as error:
            raise ModelError(f"{file}: cannot be read: {error}") from error
        now = json.loads(json.dumps(settings))
        other = [
            f"{key} was {before.get(key)!r}, is {now[key]!r}" for key in now if before.get(key) != now[key]
        ]
        if other:
            raise ModelError(f"{self.path}: another training was begun there: {'; '.join(other)}")

    def part(self, name: str) -> Path:
        """Return a folder of its own for one part of the training."""
        return self.path / name

    def remove(self) -> None:
        """Delete it all: the package is written."""
        shutil.rmtree(self.path, ignore_errors=True)


def fingerprint(images: Sequence[Annotated]) -> str:
    """Return a hash of images and masks."""
    found = hashlib.sha256()
    for one in images:
        for array in (one.image, one.mask):
            found.update(f"{one.name} {array.dtype} {array.shape}".encode())
            found.update(array.data)
    return found.hexdigest()
