"""Quantities: every name that an expression may hold, what it is, and where it is read.

The table is the documentation too: ``docs/rules.md`` is checked against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ....acquire.errors import nearest_name
from ..known import Known
from . import nearby
from .syntax import ExpressionError, Name
from .units import AREA, FRAMES, LENGTH, PLAIN, TIME, UNITS, Dimension

if TYPE_CHECKING:
    from .sight import Sight


@dataclass(frozen=True, slots=True)
class Quantity:
    """One thing that is known of each cell, or of the frame.

    Attributes
    ----------
    name
        As it is written.
    dimension
        What it is.
    says
        In words, for the page of all quantities.
    read
        Returns (n,) of the cells, or a number of the frame.
    per_cell, truth, kept
        Whether it is one for each cell; something that holds or does not; and measured, so that its past is kept.
    """

    name: str
    dimension: Dimension
    says: str
    read: Callable[[Sight], Any]
    per_cell: bool = True
    truth: bool = False
    kept: bool = False


def _kept(name: str, dimension: Dimension, column: str, says: str) -> Quantity:
    return Quantity(name, dimension, says, lambda sight: sight.measured(column), kept=True)


def _elongation(sight: Sight) -> Any:
    return sight.measured("major_px") / sight.measured("minor_px")


def _border(sight: Sight) -> Any:
    height, width = sight.shape
    y, x = sight.tracks.detections.yx.T
    return np.minimum(np.minimum(y, height - 1 - y), np.minimum(x, width - 1 - x))


def _nearest(sight: Sight) -> Any:
    return nearby.nearest(sight.tracks.detections.yx)


def _stage(axis: int) -> Callable[[Sight], Any]:
    def read(sight: Sight) -> Any:
        """Return where cells are in the sample along one axis of the stage, in px."""
        affine, stage = sight.moment.affine, sight.moment.frame.stage_um
        yx = sight.tracks.detections.yx
        if affine is None or stage is None:
            return np.full(len(yx), np.nan)
        height, width = sight.shape
        dx, dy = yx[:, 1] - (width - 1) / 2, yx[:, 0] - (height - 1) / 2
        a, b = ((affine.xx, affine.xy), (affine.yx, affine.yy))[axis]
        return (stage[axis] + a * dx + b * dy) * sight.px_per_um

    return read


def _density(sight: Sight) -> Any:
    return len(sight.tracks) / (sight.shape[0] * sight.shape[1])


def _drift(sight: Sight) -> Any:
    drift = sight.tracks.drift_px
    return np.nan if drift is None else float(np.hypot(*drift))


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else float(value)


QUANTITIES = {
    quantity.name: quantity
    for quantity in (
        _kept("area", AREA, "area_px", "area of the cell"),
        _kept("mean", PLAIN, "mean", "mean intensity in the segmented channel, in camera counts"),
        _kept("max", PLAIN, "max", "highest intensity in the segmented channel"),
        _kept("major", LENGTH, "major_px", "longest axis of the ellipse with the cell's moments"),
        _kept("minor", LENGTH, "minor_px", "shortest axis of it"),
        _kept("nuclei", PLAIN, "nuclei", "number of nuclei, where cells are paired with them"),
        _kept(
            "nuclear_area", AREA, "nuclear_area_px", "area of the nuclei, where cells are paired with them"
        ),
        _kept("cytoplasm_area", AREA, "cytoplasm_area_px", "area of the cell without them"),
        _kept("cell_confidence", PLAIN, "cell_confidence", "0 to 1: how sure the segmenter is of the cell"),
        Quantity("elongation", PLAIN, "longest over shortest axis", _elongation),
        Quantity("x", LENGTH, "column of the centroid in the image", lambda s: s.tracks.detections.yx[:, 1]),
        Quantity("y", LENGTH, "row of the centroid in the image", lambda s: s.tracks.detections.yx[:, 0]),
        Quantity("stage_x", LENGTH, "x of the cell in coordinates of the stage", _stage(0)),
        Quantity("stage_y", LENGTH, "y of the cell in coordinates of the stage", _stage(1)),
        Quantity("border", LENGTH, "distance of the centroid to the edge of the image", _border),
        Quantity("nearest", LENGTH, "distance to the nearest other cell", _nearest),
        Quantity(
            "speed",
            Dimension(length=1, frames=-1),
            "speed of the cell in the image",
            lambda s: np.hypot(s.tracks.velocity[:, 0], s.tracks.velocity[:, 1]),
        ),
        Quantity("age", FRAMES, "frames since the track began", lambda s: s.tracks.age),
        Quantity("lifetime", TIME, "time since the track began", lambda s: s.time_s - s.descent.born_s),
        Quantity(
            "since_division",
            TIME,
            "time since the cell was born; unknown for cells that were not seen to be",
            lambda s: s.descent.since_division_s,
        ),
        Quantity(
            "generation",
            PLAIN,
            "0 for a cell not seen to be born, else one more than its mother's",
            lambda s: s.descent.generation,
        ),
        Quantity("track", PLAIN, "identity of the cell", lambda s: s.tracks.track),
        Quantity(
            "confidence", PLAIN, "0 to 1, of the link to the frame before", lambda s: s.tracks.confidence
        ),
        Quantity(
            "provisional",
            PLAIN,
            "holds while the identity may yet be corrected",
            lambda s: (
                np.zeros(len(s.tracks), np.bool_) if s.tracks.provisional is None else s.tracks.provisional
            ),
            truth=True,
        ),
        Quantity("frame.count", PLAIN, "cells in the frame", lambda s: float(len(s.tracks)), per_cell=False),
        Quantity(
            "frame.density", Dimension(length=-2), "cells per area of the image", _density, per_cell=False
        ),
        Quantity("frame.time", TIME, "time of the frame", lambda s: s.time_s, per_cell=False),
        Quantity(
            "frame.focus",
            PLAIN,
            "focus figure of the image, larger is sharper",
            lambda s: _or_nan(getattr(s.tracks.detections, "focus", None)),
            per_cell=False,
        ),
        Quantity(
            "frame.novelty",
            PLAIN,
            "how unlike the segmenter's images it is; above 1 is unlike",
            lambda s: _or_nan(s.tracks.detections.novelty),
            per_cell=False,
        ),
        Quantity(
            "frame.drift",
            LENGTH,
            "how far the field has moved unasked since the frame before",
            _drift,
            per_cell=False,
        ),
        Quantity(
            "frame.exposure",
            TIME,
            "exposure",
            lambda s: _or_nan(s.moment.frame.exposure_ms) / 1e3,
            per_cell=False,
        ),
        Quantity(
            "frame.z",
            LENGTH,
            "position of the focus drive",
            lambda s: _or_nan(s.moment.frame.z_um) * s.px_per_um,
            per_cell=False,
        ),
    )
}

# What may stand behind the name of a channel.
OF_CHANNEL = {
    "mean": "mean intensity of the cell in this channel",
    "max": "highest intensity of the cell in it",
    "nuclear_mean": "mean intensity of its nuclei in it",
    "cytoplasm_mean": "mean intensity of its cytoplasm in it",
}
CLASS = "p"
"""``p.mitotic`` is how likely the cell is of the class ``mitotic``."""


def find(name: Name, known: Known | None) -> Quantity:
    """Return what a name means.

    Raises
    ------
    ExpressionError
        If nothing is called so; with the nearest name that is known.
    """
    text = ".".join(name.parts)
    if text in QUANTITIES:
        return QUANTITIES[text]
    if len(name.parts) == 2 and name.parts[0] == CLASS:
        return _class(name, known)
    if len(name.parts) == 2 and name.parts[0] != "frame":
        return _of_channel(name, known)
    if text in UNITS:
        raise ExpressionError(name.at, f"{text!r} is a unit; a number must stand before it")
    near = nearest_name(text, QUANTITIES)
    known_text = ", ".join(q for q in QUANTITIES if q.startswith("frame.") == (name.parts[0] == "frame"))
    raise ExpressionError(name.at, f"nothing is called {text!r}; known: {known_text}", near)


def _class(name: Name, known: Known | None) -> Quantity:
    wanted = name.parts[1]
    if known is not None and known.classes is not None and wanted not in known.classes:
        listed = ", ".join(known.classes) or "none"
        hint = nearest_name(wanted, known.classes)
        raise ExpressionError(
            name.at,
            f"the segmenter knows no class {wanted!r}; known: {listed}",
            f"{CLASS}.{hint}" if hint else "",
        )
    return _kept(
        f"{CLASS}.{wanted}", PLAIN, f"p_{wanted}", f"0 to 1: how likely the cell is of class {wanted}"
    )


def _of_channel(name: Name, known: Known | None) -> Quantity:
    channel, measure = name.parts
    if measure not in OF_CHANNEL:
        near = nearest_name(measure, OF_CHANNEL)
        raise ExpressionError(
            name.at,
            f"nothing is called {measure!r} of a channel; known: {', '.join(OF_CHANNEL)}",
            f"{channel}.{near}" if near else "",
        )
    if known is not None and known.channels and channel not in known.channels:
        hint = nearest_name(channel, known.channels) or nearest_name(
            channel.casefold(), [each.casefold() for each in known.channels]
        )
        hint = next((each for each in known.channels if each.casefold() == hint.casefold()), hint)
        raise ExpressionError(
            name.at,
            f"there is no channel {channel!r}; the stream has {', '.join(known.channels)}",
            f"{hint}.{measure}" if hint else "",
        )
    # Of one channel alone the columns have no name behind them.
    alone = known is not None and len(known.channels) == 1 and measure in ("mean", "max")
    says = OF_CHANNEL[measure]
    return _kept(f"{channel}.{measure}", PLAIN, measure if alone else f"{measure}_{channel}", says)
