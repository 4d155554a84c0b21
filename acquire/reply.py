"""Reply: all that comes back for one frame, in one message."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .commands import Command


class Cells(msgspec.Struct, frozen=True):
    """The cells of one frame as columns of equal length n.

    Attributes
    ----------
    track
        (n,) int64, the identity of each cell; parents and daughters have identities of their own.
    x_px, y_px
        (n,) float32, centroid in image coordinates.
    columns
        Further measured columns by name, (n,) float32 each: ``area_px``, ``mean``, ``max``, ...
    """

    track: NDArray[np.int64]
    x_px: NDArray[np.float32]
    y_px: NDArray[np.float32]
    columns: dict[str, NDArray[np.float32]] = {}

    def __post_init__(self) -> None:
        arrays = (self.track, self.x_px, self.y_px, *self.columns.values())
        if any(array.shape != self.track.shape or array.ndim != 1 for array in arrays):
            raise ValueError("cells: all columns must be one-dimensional and of the same length")

    def __len__(self) -> int:
        return len(self.track)

    @staticmethod
    def none() -> Cells:
        """Return an empty table."""
        return Cells(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32))


class Decision(msgspec.Struct, frozen=True):
    """One decision of one rule, with all that is needed to trust it, carry it out late, or refuse it.

    Attributes
    ----------
    rule
        Name of the rule.
    command
        What shall be done.
    sequence, time_s
        The frame it rests on, and that frame's time in s.
    expires_s
        Frame time in s after which the microscope side refuses it as stale.
    track
        The cell it is about, or 0.
    at_px, covariance_px2
        (x, y) of the cell extrapolated to the time of actuation, in px of the frame, and the
        (xx, xy, yy) of its uncertainty in px^2; None when no cell is meant.
    at_s
        The time of actuation for which ``at_px`` was extrapolated, in s of frame time; None where that is not said.
    velocity_px_s
        (x, y) of the cell in px of the frame per s, with which the microscope side may extrapolate further.
    stage_um
        Stage position of the frame it rests on, so that image coordinates stay meaningful after a move.
    reasons
        The clauses that held, in words and numbers.
    refused
        Why the limits refused it; ``""`` if they let it pass.
    """

    rule: str
    command: Command
    sequence: int
    time_s: float
    expires_s: float
    track: int = 0
    at_px: tuple[float, float] | None = None
    covariance_px2: tuple[float, float, float] | None = None
    stage_um: tuple[float, float] | None = None
    reasons: tuple[str, ...] = ()
    refused: str = ""
    at_s: float | None = None
    velocity_px_s: tuple[float, float] | None = None


class Division(msgspec.Struct, frozen=True):
    """A mother cell that has become two."""

    mother: int
    daughters: tuple[int, int]


class Merge(msgspec.Struct, frozen=True):
    """Cells that touch and are seen as one: the one whose identity it has, and those that are hidden in it."""

    track: int
    hidden: tuple[int, ...]


class Correction(msgspec.Struct, frozen=True):
    """What was said of a cell in an earlier frame and does not hold, and what does.

    Attributes
    ----------
    since
        Sequence of the first frame in which it was said.
    old, new
        The identity that was given, and the one that the cell has in all frames since; they may be the same.
    parent
        The mother of ``new``, 0 if it was not born by division. A division that its mother outlives is revoked.
    reason
        Why, in words.
    """

    since: int
    old: int
    new: int
    parent: int
    reason: str


class Reply(msgspec.Struct, frozen=True):
    """The service's answer to one frame; it is also the acknowledgement of that frame.

    Attributes
    ----------
    sequence
        The frame that is answered.
    cells, divisions, merges
        What was found in it.
    corrections
        What was said of earlier frames and does not hold.
    drift_px
        (x, y) in px that the whole field has moved since the frame before, beyond what the stage is known to have
        moved; None if the tracker does not say.
    decisions
        All decisions, the refused ones too.
    timings_ms
        How long each stage took, in ms, by name: ``segment``, ``measure``, ``track``, ``decide``.
    messages
        What a person should read: limits hit, channels ignored, things shed.
    novelty
        How unlike the images that the segmenter knows the frame looks: above 1 is unlike; None if it does not say.
    focus
        How sharp the segmented channel is, to be compared with other frames of the same field of view; None if it was
        not segmented.
    shadow
        What candidate rules would have decided, by the name of their file, the refused ones too; it has no effect.
    """

    sequence: int
    cells: Cells
    divisions: tuple[Division, ...] = ()
    decisions: tuple[Decision, ...] = ()
    timings_ms: dict[str, float] = {}
    messages: tuple[str, ...] = ()
    novelty: float | None = None
    merges: tuple[Merge, ...] = ()
    corrections: tuple[Correction, ...] = ()
    drift_px: tuple[float, float] | None = None
    shadow: dict[str, tuple[Decision, ...]] = {}
    focus: float | None = None

    @property
    def commands(self) -> tuple[Command, ...]:
        """The commands of the decisions that the limits let pass."""
        return tuple(decision.command for decision in self.decisions if not decision.refused)


_COLUMN_TYPES = {"<i8": np.dtype("<i8"), "<f4": np.dtype("<f4")}


def encode_array(value: Any) -> Any:
    """Encode a column for msgspec as ``[dtype, bytes]``."""
    if isinstance(value, np.ndarray):
        return (value.dtype.newbyteorder("<").str, np.ascontiguousarray(value).tobytes())
    raise NotImplementedError(f"{type(value).__name__} cannot be sent")


def decode_array(expected: Any, value: Any) -> Any:
    """Decode what :func:`encode_array` made; refuses any type but int64 and float32 columns.

    Raises
    ------
    ValueError
        If the type is not one of those, or the bytes do not fit it.
    """
    if not (isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[1], bytes)):
        raise ValueError("a column must be [dtype, bytes]")
    name, data = value
    wanted = "<i8" if "int64" in str(expected) else "<f4"
    if name != wanted:
        raise ValueError(f"a column of type {name!r} where {wanted!r} is needed")
    return np.frombuffer(data, _COLUMN_TYPES[name])
