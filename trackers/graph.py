"""A finished run of one field of view as a graph: cells are nodes, links and divisions are edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..acquire.reply import Cells, Correction, Division, Merge
from .lineage import Lineage, LineageBuilder

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_SAID = ("parent", "age")
"""Columns of a reply that corrections make wrong; the graph has them from the lineage."""


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """The f frames of a run in which cells were looked for.

    Attributes
    ----------
    number
        (f,) int64, place in time: the number of the time point if the frames say it, else 0, 1, ...
    sequence
        (f,) int64, sequence number in the stream.
    time_s
        (f,) float64.
    stage_um
        (f, 2) float64, (x, y) of the stage; NaN where nobody has said.
    """

    number: Ints
    sequence: Ints
    time_s: NDArray[np.float64]
    stage_um: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.number)

    @property
    def interval_s(self) -> float | None:
        """Seconds from one number to the next, the median over the run; None with fewer than two frames."""
        if len(self) < 2:
            return None
        interval = float(np.median(np.diff(self.time_s) / np.diff(self.number)))
        return interval if interval > 0 else None


@dataclass(frozen=True, slots=True, eq=False)
class TrackGraph:
    """The n cells of a run, in the order of frames and, within each, of the labels of its mask; node i is row i.

    Attributes
    ----------
    frames
        The frames, also those without cells.
    frame
        (n,) int64, row of ``frames``.
    track
        (n,) int64, identity > 0.
    y_px, x_px
        (n,) float32, centroid in the image.
    z_px
        (n,) float32, height in px of the image; None for cells of one plane.
    columns
        Measured columns by name, (n,) float32 each; NaN where a frame lacks one. ``age`` is that after corrections;
        ``hidden``, if cells ever merged, is how many others are seen as one with this cell.
    edges
        (e, 2) int64, rows of source and target, in the order of targets: from each cell of a track to its next one,
        across gaps too, and from a mother's last cell to the first cell of each daughter.
    parents
        The mother of each track that was born by division.
    divisions
        How many mothers had two daughters.
    pixel_size_um
        Edge of a pixel in um, or None.
    shape
        (height, width) of the image in px.
    refused
        Corrections that could not be applied, because two cells would have had one identity.
    """

    frames: Frames
    frame: Ints
    track: Ints
    y_px: Floats
    x_px: Floats
    z_px: Floats | None
    columns: Mapping[str, Floats]
    edges: Ints
    parents: Mapping[int, int]
    divisions: int
    pixel_size_um: float | None
    shape: tuple[int, int]
    refused: tuple[Correction, ...] = ()

    def __len__(self) -> int:
        return len(self.track)

    @property
    def number(self) -> Ints:
        """(n,) number of each cell's frame."""
        return self.frames.number[self.frame]

    @property
    def parent(self) -> Ints:
        """(n,) mother of each cell's track, 0 if there is none."""
        return np.array([self.parents.get(track, 0) for track in self.track.tolist()], np.int64)

    @property
    def missed(self) -> Ints:
        """(e,) frames between source and target of each edge in which cells were looked for; above 0: a gap."""
        return self.frame[self.edges[:, 1]] - self.frame[self.edges[:, 0]] - 1

    @property
    def is_birth(self) -> NDArray[np.bool_]:
        """(e,) whether an edge leads from a mother to a daughter."""
        return self.track[self.edges[:, 0]] != self.track[self.edges[:, 1]]

    @property
    def segment(self) -> Ints:
        """(n,) number of each cell's longest chain without a fork: its track, joined with an only daughter's."""
        forks = np.bincount(self.edges[:, 0], minlength=len(self)) > 1
        goes_on = ~forks[self.edges[:, 0]]
        return _numbered_along(self.edges[goes_on], len(self))

    @property
    def family(self) -> Ints:
        """(n,) number of all cells that descend from one first cell, 0, 1, ... in the order of these."""
        return _numbered_along(self.edges, len(self))


def _numbered_along(edges: Ints, count: int) -> Ints:
    """Number the trees of a forest; (e, 2) edges are in the order of targets, each later than its source."""
    before = np.full(count, -1, np.int64)
    before[edges[:, 1]] = edges[:, 0]
    numbers = np.zeros(count, np.int64)
    found = 0
    for node, source in enumerate(before.tolist()):
        if source < 0:
            numbers[node], found = found, found + 1
        else:
            numbers[node] = numbers[source]
    return numbers


class GraphBuilder:
    """Builds the graph of one field of view from what was said frame by frame; memory grows with its cells."""

    def __init__(self) -> None:
        self._lineage = LineageBuilder()
        self._numbers: list[int] = []
        self._times: list[float] = []
        self._stage: list[tuple[float, float]] = []
        self._sequences: list[int] = []
        self._cells: list[Cells] = []
        self._z: list[NDArray[Any] | None] = []
        self._hidden: list[dict[int, int]] = []
        self._pixel_size_um: float | None = None
        self._shape = (0, 0)

    def add(
        self,
        sequence: int,
        cells: Cells,
        *,
        time_s: float,
        number: int | str | None = None,
        divisions: Iterable[Division] = (),
        merges: Iterable[Merge] = (),
        corrections: Iterable[Correction] = (),
        z_px: NDArray[Any] | None = None,
        stage_um: tuple[float, float] | None = None,
        pixel_size_um: float | None = None,
        shape: tuple[int, int] = (0, 0),
    ) -> None:
        """Take the next frame.

        Parameters
        ----------
        sequence
            Its sequence number, above that of the frame before.
        cells, divisions, merges, corrections
            As in its reply; corrections are of the frames before it.
        time_s
            Frame time.
        number
            Its time point; the next one if it is no number above that of the frame before.
        z_px
            (n,) height of each cell, if known.
        stage_um, pixel_size_um, shape
            Where it was taken; edge of a pixel and (height, width) in px, of which the first that are known count.
        """
        self._lineage.add(sequence, cells.track, divisions, corrections)
        self._sequences.append(sequence)
        self._numbers.append(next_number(self._numbers[-1] if self._numbers else -1, number))
        self._times.append(time_s)
        self._stage.append(stage_um or (np.nan, np.nan))
        self._cells.append(cells)
        self._z.append(z_px)
        self._hidden.append({int(merge.track): len(merge.hidden) for merge in merges})
        self._pixel_size_um = self._pixel_size_um or pixel_size_um
        self._shape = self._shape if any(self._shape) else shape

    def build(self) -> TrackGraph:
        """Return the graph after the last frame.

        Raises
        ------
        ValueError
            If a tracker gave two cells of one frame one identity.
        """
        lineage = self._lineage.build()
        frames = Frames(
            np.array(self._numbers, np.int64),
            np.array(self._sequences, np.int64),
            np.array(self._times, np.float64),
            np.array(self._stage, np.float64).reshape(-1, 2),
        )
        counts = [len(cells) for cells in self._cells]
        frame = np.repeat(np.arange(len(frames)), counts)
        corrected = [lineage.corrected(index, cells.track) for index, cells in enumerate(self._cells)]
        track = _whole(corrected, np.int64)
        z_px = None
        if any(z is not None for z in self._z):
            unknown = [np.full(count, np.nan) for count in counts]
            z_px = _whole([u if z is None else z for z, u in zip(self._z, unknown, strict=True)], np.float32)
        return TrackGraph(
            frames=frames,
            frame=frame,
            track=track,
            y_px=_whole([cells.y_px for cells in self._cells], np.float32),
            x_px=_whole([cells.x_px for cells in self._cells], np.float32),
            z_px=z_px,
            columns=self._columns(counts, lineage, corrected),
            edges=_edges(frame, track, lineage, frames),
            parents=dict(lineage.parents),
            divisions=sum(map(len, lineage.divisions.values())),
            pixel_size_um=self._pixel_size_um,
            shape=self._shape,
            refused=lineage.refused,
        )

    def _columns(self, counts: list[int], lineage: Lineage, corrected: list[Ints]) -> dict[str, Floats]:
        names = dict.fromkeys(name for cells in self._cells for name in cells.columns)
        unknown = [np.full(count, np.nan, np.float32) for count in counts]
        columns = {
            name: _whole(
                [cells.columns.get(name, u) for cells, u in zip(self._cells, unknown, strict=True)],
                np.float32,
            )
            for name in names
            if name not in _SAID
        }
        if "age" in names:
            ages = [lineage.ages(index, track) for index, track in enumerate(corrected)]
            columns["age"] = _whole(ages, np.float32)
        if any(self._hidden):
            said = zip(self._cells, self._hidden, strict=True)
            hidden = [np.array([names.get(t, 0) for t in cells.track.tolist()]) for cells, names in said]
            columns["hidden"] = _whole(hidden, np.float32)
        return columns


def next_number(before: int, number: int | str | None) -> int:
    """Return the number of a frame: what it says of itself, or the next one if that is none above the last."""
    return number if isinstance(number, int) and number > before else before + 1


def _whole(parts: list[Any], dtype: Any) -> NDArray[Any]:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.empty(0, dtype)


def _edges(frame: Ints, track: Ints, lineage: Lineage, frames: Frames) -> Ints:
    order = np.lexsort((frame, track))
    before, after = order[:-1], order[1:]
    same = track[before] == track[after]
    if np.any(twice := same & (frame[before] == frame[after])):
        node = before[twice][0]
        raise ValueError(f"frame {frames.sequence[frame[node]]}: two cells are track {track[node]}")
    if not len(order):
        return np.empty((0, 2), np.int64)
    starts = np.flatnonzero(np.r_[True, ~same])  # where each track begins in the order
    ends = np.r_[starts[1:] - 1, len(order) - 1]
    place = {int(track[order[start]]): index for index, start in enumerate(starts.tolist())}
    births = [
        (order[ends[place[mother]]], order[starts[place[daughter]]])
        for daughter, mother in lineage.parents.items()
    ]
    links = np.stack([before[same], after[same]], axis=1)
    edges = np.concatenate([links, np.array(births, np.int64).reshape(-1, 2)])
    return edges[np.lexsort((edges[:, 0], edges[:, 1]))]
