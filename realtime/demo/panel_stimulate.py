"""The second act as one sees it: daughters under the light, one family, and the answer of all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.commands import Stimulate
from ..report.contents import Mark, Picture
from ..report.figure import FAINT, INK, draw_picture, prepare
from .panels import LIGHT, Crop, draw_strip, part_of
from .stimulate import CURVE_FRAMES, Daughter, Stimulated

_RECENT = 4
_MOMENTS = (-1, 0, 3, 6, 12)
_MARGIN_PX = 30


def draw(act: Stimulated, image: Any, strip: list[Any], plot: Any) -> None:
    """Draw the act into its axes."""
    draw_picture(image, _picture(act))
    family = _family(act)
    if family is not None:
        _draw_family(act, strip, family)
    for place in strip:
        place.set_visible(family is not None)
    _draw_answer(act, plot)


def _picture(act: Stimulated) -> Picture:
    """Return the frame with most stimulations shortly before it."""
    take = act.take
    pulses = np.array([pulse.frame for pulse in take.microscope.stimulations], np.int64)
    per_frame = np.bincount(pulses, minlength=take.expected)
    recent = np.convolve(per_frame, np.ones(_RECENT))[: take.expected]
    recent[: take.expected // 2] = 0
    frame = int(recent.argmax())
    replies = {reply.sequence: reply for reply in take.replies}
    cells = replies[frame].cells
    place = {
        int(t): (float(x), float(y)) for t, x, y in zip(cells.track, cells.x_px, cells.y_px, strict=True)
    }
    marks = [
        Mark("stimulate", *place[decision.track])
        for past in range(max(frame - _RECENT + 1, 0), frame + 1)
        for decision in replies[past].decisions
        if type(decision.command) is Stimulate and decision.track in place
    ]
    lit = np.array([(mark.x_px, mark.y_px) for mark in marks]) if marks else np.array([take.centre_px])
    return Picture(
        f"frame {frame}, light in the last {_RECENT} frames",
        take.image(frame),
        take.labels(frame),
        cells,
        take.tails(frame),
        marks,
        take.microscope.affine.pixel_size_um,
        part_of(take, tuple(np.median(lit, axis=0))),
    )


def _family(act: Stimulated) -> tuple[Daughter, Daughter] | None:
    """Return two sisters that were stimulated at once, well inside the image, and can be seen for long after."""
    found: list[tuple[float, tuple[Daughter, Daughter]]] = []
    for one, other in zip(act.daughters[::2], act.daughters[1::2], strict=True):
        moments = [one.born + moment for moment in _MOMENTS]
        if one.mother != other.mother or one.lit is None or other.lit is None:
            continue
        if moments[0] < 0 or moments[-1] >= act.take.expected or max(one.lit, other.lit) > one.born + 1:
            continue
        inner = min(_room(act, _centre(act, (one, other), moment)) for moment in moments)
        found.append((inner, (one, other)))
    return max(found, key=lambda item: item[0], default=(0.0, None))[1]


def _room(act: Stimulated, at_px: tuple[float, float]) -> float:
    """Return how far a point lies from the edge of the image, in px."""
    height, width = act.take.microscope.camera.shape
    return min(at_px[0], at_px[1], width - at_px[0], height - at_px[1])


def _centre(act: Stimulated, family: tuple[Daughter, Daughter], frame: int) -> tuple[float, float]:
    """Return the (x, y) in px of the middle of a family: of the mother before she divided."""
    take = act.take
    cells = take.microscope.sample_at(frame)
    wanted = [family[0].mother, *(daughter.identity for daughter in family)]
    x, y = cells.xy_um[np.isin(cells.identity, wanted)].mean(axis=0)
    shape = take.microscope.camera.shape
    sx, sy = take.stage_um[frame]
    return take.microscope.affine.image_position((float(x), float(y)), shape, (float(sx), float(sy)))


def _draw_family(act: Stimulated, strip: list[Any], family: tuple[Daughter, Daughter]) -> None:
    born = family[0].born
    texts = {-1: "mother", 0: "light on"}
    crops = [
        Crop(
            born + moment,
            _centre(act, family, born + moment),
            texts.get(moment, f"+{moment}"),
            LIGHT if moment == 0 else INK,
            LIGHT if moment == 0 else "#272e38",
        )
        for moment in _MOMENTS
    ]
    draw_strip(strip, act.take, crops, half_px=40)


def _draw_answer(act: Stimulated, axes: Any) -> None:
    prepare(axes, "Answer of the cells born in the movie", "frames since division", "reporter")
    for lit, paint, name in ((True, LIGHT, "stimulated"), (False, FAINT, "not stimulated")):
        curves = act.curve(lit=lit)
        _draw_band(axes, curves, paint, f"{name}, {len(curves)} cells")
    axes.set(xlim=(0, CURVE_FRAMES - 1))
    axes.set_ylim(bottom=-0.05)
    if axes.lines:
        axes.legend(loc="center right", fontsize=9.5, frameon=False, labelcolor=INK)


def _draw_band(axes: Any, curves: NDArray[np.float64], paint: str, name: str) -> None:
    """Draw mean and standard deviation over cells; ages that nobody reached are left out."""
    ages = np.flatnonzero(np.isfinite(curves).any(axis=0)) if len(curves) else np.empty(0, np.int64)
    if not len(ages):
        return
    mean, spread = np.nanmean(curves[:, ages], axis=0), np.nanstd(curves[:, ages], axis=0)
    axes.fill_between(ages, mean - spread, mean + spread, color=paint, alpha=0.2, linewidth=0)
    axes.plot(ages, mean, color=paint, linewidth=2.2, label=name)
