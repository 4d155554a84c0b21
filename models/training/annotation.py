"""What a folder of frames to correct says of itself, between ``cytoloop annotate`` and ``cytoloop train``."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from ...acquire.errors import SourceError

FILE = "annotation.json"
VERSION = 1


class AnnotatedFrame(msgspec.Struct, frozen=True):
    """One frame: its name, its place in the recording, its axes, and why it was chosen."""

    name: str
    sequence: int
    axes: dict[str, int | str]
    reason: str


class Annotation(msgspec.Struct, frozen=True):
    """What ``annotation.json`` holds.

    Attributes
    ----------
    recording, model
        Where the frames are from, and what found the cells in them.
    frames
        In the order of the recording.
    taken_back
        SHA-256 of each corrected mask by the name of its frame, when they were last checked.
    """

    recording: str
    model: str
    frames: list[AnnotatedFrame]
    taken_back: dict[str, str] = {}
    version: int = VERSION


def read_annotation(folder: Path) -> Annotation | None:
    """Return what a folder says of itself; None if it is not one of frames to correct.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Annotation)
    except (OSError, msgspec.DecodeError) as error:
        raise SourceError(file, f"cannot be read: {error}") from error
    if found.version > VERSION:
        raise SourceError(file, f"is of version {found.version}; up to {VERSION} is read: update cytoloop")
    return found


def write_annotation(folder: Path, annotation: Annotation) -> None:
    """Write it, whole or not at all."""
    part = folder / f"{FILE}.part"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(annotation)) + b"\n")
    part.replace(folder / FILE)


def mask_file(folder: Path, name: str) -> Path:
    """Return where the mask of a frame lies."""
    return folder / "masks" / f"{name}.tif"


def hash_of_mask(folder: Path, name: str) -> str:
    """Return the SHA-256 of a mask's file; ``""`` if it is not there."""
    file = mask_file(folder, name)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def check_taken_back(folder: Path) -> None:
    """Refuse a folder of frames to correct whose masks are not those that were last checked.

    Raises
    ------
    SourceError
        Names the masks, and what to do.
    """
    annotation = read_annotation(folder)
    if annotation is None:
        return
    names = {frame.name for frame in annotation.frames}
    names &= {file.stem for file in (folder / "images").glob("*.tif")}
    other = sorted(name for name in names if annotation.taken_back.get(name) != hash_of_mask(folder, name))
    if other:
        raise SourceError(
            folder,
            f"the masks of {', '.join(other)} have not been checked since: cytoloop annotate --back {folder}",
        )
