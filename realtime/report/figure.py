"""Draws a report as one dark picture in the manner of microscope software.

Colours are Paul Tol's "light" scheme, which people with any colour vision tell apart; identities are numbers too,
and every mark has a shape of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contourpy import contour_generator
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import find_objects, gaussian_filter
from scipy.spatial import cKDTree

from .contents import Curve, Mark, Picture, RunReport, percentiles

BACKGROUND, SURFACE, GRID, FAINT, INK = "#0d1117", "#161b22", "#272e38", "#8b96a5", "#e6edf3"
SERIES = ("#77AADD", "#EE8866", "#EEDD88", "#44BB99", "#FFAABB")
IDENTITIES = ("#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#DDAA55")
# Shape, colour, weight and meaning of each kind of mark; what is not listed gets the last one.
MARKS = {
    "stimulate": ("*", "#FFEE55", 2.6, "stimulated"),
    "move_stage": ("+", "#55E6FF", 2.6, "followed by the stage"),
    "division": ("D", "#FF8FD8", 1.8, "divided"),
    "": ("o", "#FFFFFF", 2.6, "decision"),
}
MOST_NUMBERS = 160
LONGEST_DRAWN_PX = 1600
WIDTH_IN, HEIGHT_IN = 16.0, 9.0


def draw(report: RunReport, target: Path) -> None:
    """Draw a report into a PNG file."""
    height = HEIGHT_IN if len(report.pictures) <= 1 else HEIGHT_IN + 1.5
    figure = Figure(figsize=(WIDTH_IN, height), dpi=120, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    figure.text(0.02, 1 - 0.35 / height, report.title, color=INK, fontsize=20, fontweight="bold", va="center")
    figure.text(0.02, 1 - 0.68 / height, report.subtitle, color=FAINT, fontsize=12, va="center")
    shapes = [(y1 - y0, x1 - x0) for x0, y0, x1, y1 in (picture.shown for picture in report.pictures)]
    pictures, plots = _layout(figure, shapes, _plot_count(report))
    for axes, picture in zip(pictures, report.pictures, strict=True):
        draw_picture(axes, picture)
    free = iter(plots)
    if report.latency_ms:
        draw_latency(next(free), report.latency_ms)
    for curve in report.curves:
        draw_curve(next(free), curve)
    if report.scores:
        draw_scores(next(free), report.scores)
    if report.figures:
        draw_figures(next(free), report.figures)
    figure.savefig(target)


def _plot_count(report: RunReport) -> int:
    return bool(report.latency_ms) + len(report.curves) + bool(report.scores) + bool(report.figures)


def _layout(figure: Figure, shapes: list[tuple[float, float]], plots: int) -> tuple[list[Any], list[Any]]:
    """Place one image at the left with the plots beside it, or several in a row with the plots below."""
    if len(shapes) <= 1:
        top, bottom = 0.87, 0.065
        height, width = shapes[0] if shapes else (1, 1)
        share = min((top - bottom) * HEIGHT_IN * width / height / WIDTH_IN, 0.58) if shapes else 0
        columns = 1 if plots <= 3 else 2
        rows = max(-(-plots // columns), 1)
        beside = {"left": share + 0.075, "right": 0.98, "top": top, "bottom": bottom + 0.01}
        inner = figure.add_gridspec(rows, columns, **beside, hspace=0.16 * rows, wspace=0.2)
        shown = [figure.add_axes((0.02, bottom, share, top - bottom))] if shapes else []
    else:
        row = figure.add_gridspec(1, len(shapes), left=0.02, right=0.98, top=0.885, bottom=0.4, wspace=0.04)
        inner = figure.add_gridspec(
            1, max(plots, 1), left=0.045, right=0.98, top=0.29, bottom=0.06, wspace=0.28
        )
        shown = [figure.add_subplot(row[i]) for i in range(len(shapes))]
    columns = inner.ncols
    return shown, [figure.add_subplot(inner[i // columns, i % columns]) for i in range(plots)]


def contrast(image: NDArray[Any]) -> NDArray[np.float32]:
    """Stretch an image to 0 to 1 between low and high percentiles; a dark background is made dark."""
    low, middle, high = np.percentile(image, (0.5, 50, 99.7))
    dark = middle - low < 0.3 * (high - low)
    low = np.percentile(image, 25) if dark else low
    scaled = np.clip((image.astype(np.float32) - low) / max(float(high - low), 1e-6), 0, 1)
    return scaled**0.75 if dark else scaled


def colour(track: int) -> str:
    """Return the colour of an identity, the same in every picture."""
    return IDENTITIES[int(track) % len(IDENTITIES)]


def outlines(labels: NDArray[np.int32]) -> list[list[NDArray[np.float64]]]:
    """Return smooth closed outlines, (m, 2) x, y in px, for each label from 1 on."""
    found: list[list[NDArray[np.float64]]] = []
    for number, (y, x) in enumerate(find_objects(labels), start=1):
        mask = np.pad((labels[y, x] == number).astype(np.float32), 3)
        lines = contour_generator(z=gaussian_filter(mask, 0.9)).lines(0.5)
        corner = np.array([x.start - 3, y.start - 3])
        found.append([np.asarray(line) + corner for line in lines])
    return found


def draw_picture(axes: Any, picture: Picture) -> None:
    """Draw an image with outlines, identities, tails, marks and a scale bar."""
    height, width = picture.image.shape
    step = -(-max(height, width) // LONGEST_DRAWN_PX)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    x0, y0, x1, y1 = picture.shown
    axes.imshow(contrast(picture.image[::step, ::step]), cmap="gray", vmin=0, vmax=1, extent=extent)
    axes.set_title(picture.title, color=INK, fontsize=11.5, loc="left", pad=6)
    axes.set(xticks=[], yticks=[], xlim=(x0, x1), ylim=(y1, y0))
    for spine in axes.spines.values():
        spine.set_color(GRID)
    _draw_tails(axes, picture)
    drawn = outlines(picture.labels) if picture.labels is not None else []
    for track, lines in zip(picture.cells.track, drawn, strict=False):
        axes.add_collection(LineCollection(lines, colors=colour(track), linewidths=1.3, alpha=0.95))
    for mark in picture.marks:
        _draw_mark(axes, mark, drawn[_label_at(picture, mark) - 1] if _label_at(picture, mark) else [])
    _draw_numbers(axes, picture)
    _name_marks(axes, picture.marks)
    if picture.pixel_size_um:
        draw_scale_bar(axes, picture.pixel_size_um)


def _draw_tails(axes: Any, picture: Picture) -> None:
    """Draw where each track has been, fading into the past."""
    for track, tail in picture.tails.items():
        if len(tail) < 2:
            continue
        segments = np.stack([tail[:-1], tail[1:]], axis=1)
        fading = np.linspace(0.08, 0.95, len(segments))
        axes.add_collection(
            LineCollection(list(segments), colors=colour(track), alpha=fading, linewidths=1.6)
        )


def _draw_numbers(axes: Any, picture: Picture) -> None:
    """Write identities, smaller where cells are crowded; of very many cells only the marked ones."""
    cells, marked = picture.cells, {_label_at(picture, mark) for mark in picture.marks}
    outline = [withStroke(linewidth=2.2, foreground="#000000c0")]
    style = {"fontsize": _number_size(axes, picture), "fontweight": "bold", "path_effects": outline}
    for row, (track, x, y) in enumerate(zip(cells.track, cells.x_px, cells.y_px, strict=True)):
        if len(cells) <= MOST_NUMBERS or row + 1 in marked:
            axes.text(x, y, str(track), color=colour(track), ha="center", va="center", clip_on=True, **style)


def _number_size(axes: Any, picture: Picture) -> float:
    """Return the font size in points that fits between a cell and its nearest neighbour."""
    cells = picture.cells
    if len(cells) < 2:
        return 8.0
    at = np.stack([cells.x_px, cells.y_px], axis=1)
    distances = np.asarray(cKDTree(at).query(at, k=2)[0])
    apart = float(np.median(distances[:, 1]))
    place, (x0, _, x1, _) = axes.get_position(), picture.shown
    points_per_px = place.width * axes.figure.get_figwidth() * 72 / (x1 - x0)
    return float(np.clip(0.45 * apart * points_per_px, 4.5, 8))


def _label_at(picture: Picture, mark: Mark) -> int:
    """Return the label under a mark, 0 where there is none."""
    y, x = round(mark.y_px), round(mark.x_px)
    if picture.labels is None or not (0 <= y < picture.labels.shape[0] and 0 <= x < picture.labels.shape[1]):
        return 0
    return int(picture.labels[y, x])


def _draw_mark(axes: Any, mark: Mark, outline: list[NDArray[np.float64]]) -> None:
    """Draw a thick outline (a ring where there is none), and symbol and words beside it."""
    symbol, paint, weight, _ = MARKS.get(mark.kind, MARKS[""])
    shadow = [withStroke(linewidth=4, foreground="#000000d0")]
    if outline:
        axes.add_collection(LineCollection(outline, colors=paint, linewidths=weight, path_effects=[
            withStroke(linewidth=weight + 1.6, foreground="#000000a0")]))  # fmt: skip
        reach = max(float(np.ptp(line[:, 0])) for line in outline) / 2
    else:
        axes.scatter(mark.x_px, mark.y_px, s=430, facecolors="none", edgecolors=paint, linewidths=2.2)
        reach = 0.02 * abs(axes.get_xlim()[1] - axes.get_xlim()[0])
    left, right = axes.get_xlim()
    side = -1 if mark.x_px > left + 0.8 * (right - left) else 1
    at = (mark.x_px + side * reach, mark.y_px - 0.7 * reach)
    axes.plot(
        *at, symbol, color=paint, markersize=3.5 * weight, markeredgewidth=0.8 * weight, path_effects=shadow
    )
    if mark.text:
        place = {"xytext": (9 * side, 0), "textcoords": "offset points", "va": "center"}
        style = {"color": paint, "fontsize": 9.5, "path_effects": shadow, "annotation_clip": True}
        axes.annotate(mark.text, at, ha="left" if side > 0 else "right", **place, **style)


def _name_marks(axes: Any, marks: Sequence[Mark]) -> None:
    """Say under the image what its symbols mean."""
    kinds = dict.fromkeys(mark.kind if mark.kind in MARKS else "" for mark in marks)
    handles = [
        Line2D([], [], marker=symbol, color=paint, linestyle="", markeredgewidth=0.8 * weight, label=words)
        for symbol, paint, weight, words in (MARKS[kind] for kind in kinds)
    ]
    if handles:
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.01, -0.003), ncols=4, frameon=False,
                    labelcolor=INK, fontsize=10, handletextpad=0.2, columnspacing=1.6)  # fmt: skip


def draw_scale_bar(axes: Any, pixel_size_um: float) -> None:
    """Draw a bar of a round length near a sixth of the width."""
    (x0, x1), (y1, y0) = axes.get_xlim(), axes.get_ylim()
    width, height = x1 - x0, y1 - y0
    wanted = width * pixel_size_um / 6
    decade = 10 ** np.floor(np.log10(wanted))
    length_um = max(step * decade for step in (1, 2, 5) if step * decade <= wanted * 1.0001)
    end, y = x0 + width * 0.975, y0 + height * 0.965
    begin = end - length_um / pixel_size_um
    shadow = [withStroke(linewidth=5.5, foreground="#000000a0")]
    axes.plot([begin, end], [y, y], color="white", linewidth=3, solid_capstyle="butt", path_effects=shadow)
    style = {
        "color": "white",
        "fontsize": 10,
        "path_effects": [withStroke(linewidth=2.5, foreground="#000000a0")],
    }
    axes.text((begin + end) / 2, y - 0.012 * height, f"{length_um:g} µm", ha="center", va="bottom", **style)


def prepare(axes: Any, title: str, x_label: str = "", y_label: str = "") -> None:
    """Give a plot its title, labels and dark ground."""
    axes.set_facecolor(SURFACE)
    axes.set_title(title, color=INK, fontsize=11.5, loc="left", pad=7)
    axes.set_xlabel(x_label, color=FAINT, fontsize=9.5)
    axes.set_ylabel(y_label, color=FAINT, fontsize=9.5)
    axes.tick_params(colors=FAINT, labelsize=9, length=3)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(GRID)


def _legend(axes: Any, place: str) -> None:
    style = {"fontsize": 8.5, "facecolor": SURFACE, "edgecolor": GRID, "labelcolor": INK, "framealpha": 0.9}
    axes.legend(loc=place, **style)


def draw_latency(axes: Any, latency_ms: Any) -> None:
    """Draw how long a decision took, with median and 99th percentile."""
    prepare(axes, "Frame to decision", "ms", "frames")
    every = np.concatenate([np.asarray(values, float) for values in latency_ms.values()])
    if not len(every):
        return
    low, high = max(float(every.min()), 1e-3), float(every.max())
    bins = np.geomspace(low * 0.9, high * 1.15, 42)
    axes.set_xscale("log")
    for place, (name, values) in enumerate(latency_ms.items()):
        paint, found = SERIES[place % len(SERIES)], percentiles(values)
        label = f"{name}  p50 {found['p50']:.4g}  p99 {found['p99']:.4g} ms"
        axes.hist(values, bins=bins, color=paint, alpha=0.3)
        axes.hist(values, bins=bins, color=paint, histtype="step", linewidth=1.6, label=label)
        for key, style in (("p50", "-"), ("p99", "--")):
            axes.axvline(found[key], color=paint, linestyle=style, linewidth=1.3)
    ticks = [t for decade in range(-3, 6) for t in (10.0**decade, 2 * 10.0**decade, 5 * 10.0**decade)]
    axes.set_xticks([t for t in ticks if bins[0] <= t <= bins[-1]])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_ylim(top=axes.get_ylim()[1] * (1.2 + 0.16 * len(latency_ms)))
    _legend(axes, "upper left")


def draw_curve(axes: Any, curve: Curve) -> None:
    """Draw something over time, or a path with its begin (ring) and end (dot)."""
    prepare(axes, curve.title, curve.x_label, curve.y_label)
    for place, (name, (x, y)) in enumerate(curve.series.items()):
        paint = SERIES[place % len(SERIES)]
        axes.plot(x, y, color=paint, linewidth=1.7, label=name)
        if curve.is_path and len(x):
            axes.plot(x[0], y[0], "o", markerfacecolor="none", color=paint, markersize=9)
            axes.plot(x[-1], y[-1], "o", color=paint, markersize=7)
    if curve.limit is not None:
        axes.axhline(curve.limit, color=FAINT, linestyle="--", linewidth=1.2)
    if curve.is_path:
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.1)
    elif curve.series:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    if len(curve.series) > 1:
        _legend(axes, "best")


def draw_scores(axes: Any, scores: Any) -> None:
    """Draw scores as bars from 0 to 1 with their values."""
    prepare(axes, "Against ground truth")
    names = list(scores)
    values = [scores[name] for name in names]
    places = np.arange(len(names))[::-1]
    axes.barh(places, [1] * len(names), color=GRID, height=0.62)
    axes.barh(places, np.nan_to_num(values), color="#2b7a68", height=0.62)
    for place, name, value in zip(places, names, values, strict=True):
        axes.text(0.015, place, name, color=INK, fontsize=9.5, va="center", fontweight="bold")
        axes.text(0.985, place, f"{value:.3f}", color=INK, fontsize=9.5, va="center", ha="right")
    axes.set(xlim=(0, 1), yticks=[], xticks=[])
    axes.grid(False)


def draw_figures(axes: Any, figures: Any) -> None:
    """Write the run's figures as a small table."""
    prepare(axes, "This run")
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
    axes.grid(False)
    shown = list(figures.items())[:10]
    for row, (name, value) in enumerate(shown):
        y = 1 - (row + 0.75) / (max(len(shown), 5) + 0.5)
        axes.text(0.03, y, name, color=FAINT, fontsize=10, va="center")
        axes.text(0.97, y, value, color=INK, fontsize=10, va="center", ha="right", fontweight="bold")
