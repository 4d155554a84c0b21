"""Fills a report from the results of a replayed run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tifffile
from numpy.typing import NDArray

from ...acquire.coordinates import Affine
from ...acquire.frame import Frame, Pixels
from ...acquire.reply import Cells, Decision
from ..experiment.stream import StreamConfig
from ..pixel_maps import PixelMaps
from ..replay import Replayed
from ..results import Results
from ..service.journal import Entry
from ..trial.examples import Example
from .contents import Curve, Decided, Mark, Picture, RunReport, percentiles

MARKED_FRAMES = 5
SMALLEST_COLONY = 8


def is_whole(replayed: Replayed, results: Results) -> bool:
    """Return whether every frame was answered and processed exactly once, in order."""
    counts = (replayed.answered, results.processed)
    return set(counts) == {replayed.frames} and not results.duplicated and not results.out_of_order


def figures_of(replayed: Replayed, results: Results) -> dict[str, Any]:
    """Return the figures of a replay under the names that scripts read; times in ms."""
    return {
        "frames": replayed.frames,
        "processed": results.processed,
        "duplicated": results.duplicated,
        "out_of_order": results.out_of_order,
        "segmented": results.segmented,
        "tracks": results.tracks,
        "divisions": results.divisions,
        "decisions": results.decisions,
        "refused": results.refused,
        "outcomes": results.outcomes and results.outcomes.values(),
        "frames_per_s": round(replayed.frames_per_s, 3),
        "latency_ms": percentiles(replayed.latency_ms),
        "fields": results.fields,
        "messages": replayed.messages,
    }


def settings_of(stream: StreamConfig) -> dict[str, Any]:
    """Return what a stream was set to, as far as it bears on the results."""
    values: dict[str, Any] = msgspec.to_builtins(stream)
    keys = (
        "channels",
        "every",
        "channel",
        "pixel_size_um",
        "affine",
        "segmenter",
        "tracker",
        "rules",
        "shadow",
        "limits",
    )
    return {key: values[key] for key in keys}


def drop_masks(run: Path) -> None:
    """Remove the masks of a finished run's log; the results hold them as tracks."""
    for mask in (run / "masks").glob("*.tif"):
        mask.unlink()


def report_of(
    replayed: Replayed,
    results: Results,
    stream: StreamConfig,
    scores: Mapping[str, float] | None = None,
    examples: Mapping[str, Sequence[Example]] | None = None,
) -> RunReport:
    """Return the report of a replay.

    Parameters
    ----------
    replayed, results
        How it went and what came of it; the masks of the run must still be there.
    stream
        What the service did.
    scores
        Against ground truth, if there is one.
    examples
        Cells that were and were not chosen, by rule.
    """
    picture = picture_of(replayed.last_frame, results, stream, replayed.folder / "masks")
    latency = percentiles(replayed.latency_ms)
    figures = {
        "frames sent": f"{replayed.frames}",
        "processed once, in order": f"{results.processed}",
        "frames per second": f"{replayed.frames_per_s:.1f}",
        "frame to decision, p50": f"{latency['p50']:.1f} ms",
        "frame to decision, p99": f"{latency['p99']:.1f} ms",
        "tracks": f"{results.tracks}",
        "divisions": f"{results.divisions}",
        "decisions": f"{results.decisions}" + (f" and {results.refused} refused" if results.refused else ""),
        "decisions carried out in time": str(results.outcomes.on_time)
        if results.outcomes
        else "no microscope",
    }
    rules = ", ".join(rule.use for rule in stream.rules) or "no rules"
    size = " x ".join(map(str, reversed(replayed.last_frame.shape))) + " px, " if replayed.last_frame else ""
    return RunReport(
        title=f"Replay of {replayed.name}",
        subtitle=f"{replayed.frames} frames, {size}{stream.segmenter.use}, {stream.tracker.use}, {rules}",
        pictures=[picture] if picture else [],
        latency_ms={"replay": replayed.latency_ms},
        curves=_curves(results),
        figures=figures,
        scores=scores or {},
        decisions=results.first_decisions,
        decided={replayed.name: decided_of(results)},
        examples=examples or {},
    )


def decided_of(results: Results) -> Decided:
    """Return how many decisions there were in a run, and what came of them."""
    return Decided(results.decisions, results.refused, results.outcomes)


def picture_of(frame: Frame | None, results: Results, stream: StreamConfig, masks: Path) -> Picture | None:
    """Return the last segmented frame with outlines, tails and what was decided shortly before; None without one."""
    if frame is None or not results.recent:
        return None
    *_, last = results.recent
    field = [entry for entry in results.recent if _field(entry) == _field(last)]
    affine, _ = PixelMaps(stream).of(frame)
    mask = masks / f"{last.header.sequence:06d}.tif"
    cells = last.reply.cells
    view = _view(cells, frame.shape)
    return Picture(
        title=f"frame {last.header.sequence}: {len(cells)} cells{', part of the field of view' if view else ''}",
        image=_segmented_image(frame, stream),
        labels=tifffile.imread(mask).astype(np.int32) if mask.is_file() else None,
        cells=cells,
        tails=tails_of(field, affine),
        marks=list(_marks(field[-MARKED_FRAMES:], affine)),
        pixel_size_um=affine.pixel_size_um if affine else None,
        view=view,
    )


def _segmented_image(frame: Frame, stream: StreamConfig) -> Pixels:
    """Return the channel that was segmented; of an image of one channel, that one."""
    wanted = stream.channel or stream.segmenter.options.get("channel", 0)
    if isinstance(wanted, int) and stream.channels:
        wanted = stream.channels[wanted]
    if isinstance(wanted, int) or wanted in frame.channels:
        return frame.channel(wanted)
    unnamed = len(frame.channels) == len(stream.channels) and not any(frame.channels)
    return frame.channel(stream.channels.index(wanted) if unnamed else 0)


def _view(cells: Cells, shape: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """Return the part of the image around cells that lie close together, such as a colony; None otherwise."""
    if len(cells) < SMALLEST_COLONY:
        return None
    at = np.stack([cells.x_px, cells.y_px], axis=1).astype(float)
    low, high = at.min(axis=0), at.max(axis=0)
    size = np.array([shape[1], shape[0]], float)
    share = float(((high - low) / size).max()) * 1.35
    if share > 0.6:
        return None
    corner = np.clip((low + high - size * share) / 2, 0, size * (1 - share))
    (x0, y0), (x1, y1) = corner, corner + size * share
    return x0, y0, x1, y1


def _field(entry: Entry) -> tuple[Any, Any]:
    return entry.segmented.axes.get("position"), entry.segmented.axes.get("z")


def _shift(entry: Entry, last: Entry, affine: Affine | None) -> tuple[float, float]:
    """Return by how many px (x, y) the sample moved in the image from one frame to the last, with the stage."""
    then, now = entry.segmented.stage_um, last.segmented.stage_um
    if affine is None or then is None or now is None or then == now:
        return 0.0, 0.0
    height, width = last.header.shape[-2:]
    x, y = affine.image_position(then, (height, width), now)
    return x - (width - 1) / 2, y - (height - 1) / 2


def tails_of(entries: list[Entry], affine: Affine | None) -> dict[int, NDArray[np.float32]]:
    """Return where each cell of the last frame has been, in px of the last frame."""
    last = entries[-1]
    tails: dict[int, list[tuple[float, float]]] = {int(track): [] for track in last.reply.cells.track}
    for entry in entries:
        dx, dy = _shift(entry, last, affine)
        cells = entry.reply.cells
        for track, x, y in zip(cells.track.tolist(), cells.x_px.tolist(), cells.y_px.tolist(), strict=True):
            if track in tails:
                tails[track].append((x + dx, y + dy))
    return {track: np.array(points, np.float32) for track, points in tails.items()}


def _marks(entries: list[Entry], affine: Affine | None) -> Iterable[Mark]:
    """Yield what was decided and which cells divided; a cell that is still there is marked where it is now."""
    last = entries[-1]
    cells = last.reply.cells
    now = {int(t): (float(x), float(y)) for t, x, y in zip(cells.track, cells.x_px, cells.y_px, strict=True)}
    for entry in entries:
        dx, dy = _shift(entry, last, affine)
        for division in entry.reply.divisions:
            for daughter in division.daughters:
                if daughter in now:
                    yield Mark("division", *now[daughter])
        for decision in entry.reply.decisions:
            if not decision.refused and (decision.track in now or decision.at_px is not None):
                x, y = decision.at_px or (0.0, 0.0)
                yield Mark(_kind(decision), *now.get(decision.track, (x + dx, y + dy)))


def _kind(decision: Decision) -> str:
    return str(type(decision.command).__struct_config__.tag)


def _curves(results: Results) -> list[Curve]:
    order = np.arange(len(results.cells), dtype=float)
    times = np.array(results.times_s)
    x, label = (times, "time, s") if len(times) and times[-1] > times[0] else (order, "frame")
    curves = [
        Curve(
            "Cells",
            label,
            "",
            {
                "in view": (x, np.array(results.cells, float)),
                "divisions so far": (x, np.cumsum(results.divided, dtype=float)),
            },
        )
    ]
    path = np.array(results.stage_um)
    if len(path) and np.ptp(path, axis=0).any():
        curves.append(Curve("Stage", "x, µm", "y, µm", {"": (path[:, 0], path[:, 1])}, is_path=True))
    return curves
