"""The tracks that may go on, as columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..models.detections import Detections, axes_of
from .columns import Columns

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_WHOLE = ("track", "parent", "since", "age", "missed")


@dataclass(frozen=True, slots=True, eq=False)
class Alive(Columns):
    """The n tracks that may go on; also the detections of a frame, as tracks without a past.

    Attributes
    ----------
    track, parent
        (n,) int64, identity and the mother's; 0 for none.
    since
        (n,) int64, sequence of the frame in which the track began.
    age, missed
        (n,) int32, frames since it began, and frames in a row in which it was not seen.
    place, velocity
        (n, d) float64, (y, x) or (z, y, x): where it was seen or is expected, in px, and px per frame.
    steadiness
        (n,) float64, log of the odds that its velocity foretells its next place better than its last place does.
    unrest
        (n,) float64, its surprises of late, squared, as multiples of what is usual in the movie.
    area, brightness
        (n,) float64, log of the area in px and of the mean intensity.
    usual_area, usual_brightness
        (n,) float64, running means of these.
    gain
        (n,) float64, how much the last link explained; 0 for a track that began in this frame.
    shape
        (n, 2) float64: the difference of the second moments and twice their mixed one over their sum. Its length is
        0 for a disc and nearly 1 for a rod, its direction twice the angle of the long axis.
    moments
        (n, 3) float64, second central moments yy, xx, yx in px^2.
    mitotic, dead
        (n,) float64, how likely each is of these classes, 0 where nobody says.
    embedding
        (n, q) float64, appearance vectors of length 1, or of zeros where there is none.
    earlier
        (n, d + 5) float64: place, area, brightness and moments one observation before; NaN where there is none.
    """

    track: Ints
    parent: Ints
    since: Ints
    age: NDArray[np.int32]
    missed: NDArray[np.int32]
    place: Floats
    velocity: Floats
    steadiness: Floats
    unrest: Floats
    area: Floats
    brightness: Floats
    usual_area: Floats
    usual_brightness: Floats
    gain: Floats
    shape: Floats
    moments: Floats
    mitotic: Floats
    dead: Floats
    embedding: Floats
    earlier: Floats

    @property
    def radius(self) -> Floats:
        """(n,) radius in px of a disc of the same area."""
        return np.exp(self.area / 2) / np.sqrt(np.pi)

    @property
    def half_length(self) -> Floats:
        """(n,) half of the long axis of an ellipse with the same moments, in px."""
        return axes_of(self.moments)[:, 0] / 2

    def joined(self, *others: Self) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the rows of all of them; appearance vectors are those of the widest, the others are none."""
        if not others:
            return self
        width = max(each.embedding.shape[1] for each in (self, *others))
        first, *rest = (each._with_vectors(width) for each in (self, *others))
        return super(Alive, first).joined(*rest)

    def _with_vectors(self, width: int) -> Self:
        if self.embedding.shape[1] == width:
            return self
        return replace(self, embedding=np.zeros((len(self), width)))

    def state(self) -> dict[str, Any]:
        """Return the columns by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @staticmethod
    def of_state(state: Mapping[str, Any]) -> Alive:
        """Return what :meth:`state` was taken of.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is something else.
        """
        columns = {each.name: np.array(state[each.name]) for each in fields(Alive)}
        n, d = len(columns["track"]), columns["place"].shape[-1]
        widths = {"place": d, "velocity": d, "shape": 2, "moments": 3, "earlier": d + 5}
        widths["embedding"] = columns["embedding"].shape[-1]
        for name, column in columns.items():
            shape = (n, widths[name]) if name in widths else (n,)
            if column.shape != shape or column.dtype.kind != ("i" if name in _WHOLE else "f"):
                raise ValueError(f"{name} is {column.dtype} of shape {column.shape} for {n} cells")
            if name != "earlier" and not np.isfinite(column).all():
                raise ValueError(f"{name} is not finite")
        return Alive(**columns)


def beginnings(found: Detections) -> Alive:
    """Return the detections of a frame as tracks without a past."""
    n = len(found)
    place = found.yx if found.z is None else np.column_stack([found.z, found.yx])
    area, nothing = np.log(found.area), np.zeros(n)
    brightness = np.log(np.maximum(found.mean[:, found.channel], 0.0) + 1.0)
    return Alive(
        track=np.zeros(n, np.int64),
        parent=np.zeros(n, np.int64),
        since=np.full(n, found.sequence, np.int64),
        age=np.zeros(n, np.int32),
        missed=np.zeros(n, np.int32),
        place=place,
        velocity=np.zeros_like(place),
        steadiness=np.zeros(n),
        unrest=np.ones(n),
        area=area,
        brightness=brightness,
        usual_area=area,
        usual_brightness=brightness,
        gain=np.zeros(n),
        shape=shape_of(found.moments),
        moments=found.moments,
        mitotic=np.asarray(found.classes.get("mitotic", nothing), np.float64),
        dead=np.asarray(found.classes.get("dead", nothing), np.float64),
        embedding=_unit(found.embedding, n),
        earlier=np.full((n, place.shape[1] + 5), np.nan),
    )


def _unit(vectors: NDArray[np.float32] | None, n: int) -> Floats:
    if vectors is None:
        return np.zeros((n, 0))
    wide = np.asarray(vectors, np.float64)
    length = np.sqrt(squared(wide))[:, np.newaxis]
    return np.divide(wide, length, out=np.zeros_like(wide), where=length > 0)


def together(cells: Alive, one: Ints, other: Ints) -> Alive:
    """Return pairs of cells as if each were one cell, with the past of the first.

    Parameters
    ----------
    cells
        Tracks, or detections as tracks.
    one, other
        (t,) rows.
    """
    first, second = cells.take(one), cells.take(other)
    area = np.logaddexp(first.area, second.area)
    share = np.exp(first.area - area)
    part = share[:, np.newaxis]
    apart = (first.place - second.place)[:, -2:]
    y, x = apart.T
    moments = part * first.moments + (1 - part) * second.moments
    moments = moments + part * (1 - part) * np.stack([y * y, x * x, y * x], axis=1)
    brightness = np.log(share * np.exp(first.brightness) + (1 - share) * np.exp(second.brightness))
    return replace(
        first,
        place=part * first.place + (1 - part) * second.place,
        area=area,
        brightness=brightness,
        moments=moments,
        shape=shape_of(moments),
    )


def squared(vectors: Floats) -> Floats:
    """Return (n,) squared lengths of (n, d) vectors; a sum along so short an axis takes many times as long."""
    return np.einsum("ij,ij->i", vectors, vectors)


def shape_of(moments: Floats) -> Floats:
    """Return (n, 2) the shape that second moments say, as in :class:`Alive`."""
    yy, xx, yx = moments.T
    return np.stack([yy - xx, 2 * yx], axis=1) / np.maximum(yy + xx, 1e-9)[:, np.newaxis]
