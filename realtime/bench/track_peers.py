"""Trackers of other projects, to be measured beside ours; extra ``trackers``, best in an environment of its own.

Those that are registered as trackers are used as they are; others are wrapped here, for the measurement only. All
are told how far cells walk, which ours must find out. None is told more: a confidence, or divisions, they say or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.plugins import build, find_class
from ...models.detections import Detections
from ...trackers.adapters.borrowed import borrowed
from ...trackers.adapters.links import first_cells
from ...trackers.adapters.links import tracks_of as tracks_of_links
from ...trackers.recipes.crowd import Crowd
from ...trackers.tracks import Tracks

Ints = NDArray[np.int64]

_LIKENESS_PX = 20.0
"""A change of log area or of log brightness by 1 counts as a step of so many px: errors of 5 to 10 % as one or two."""


def reach_px(habits: Crowd) -> float:
    """Return the farthest step that is worth looking at: 4.5 standard deviations of step and drift."""
    return 4.5 * float(np.hypot(habits.step_px, habits.drift_px))


class TrackpyPeer:
    """trackpy (Allan et al.): the method of Crocker and Grier 1996; one missed frame is bridged.

    Groups of cells that are too large for it are cut into smaller ones by a shorter reach (its adaptive search).
    """

    def __init__(self, habits: Crowd) -> None:
        borrowed("trackpy", "trackpy").quiet()
        reach = reach_px(habits)
        self._coming: Detections | None = None
        self._linked: Iterator[tuple[int, list[int]]] = borrowed("trackpy.linking", "trackpy").link_iter(
            self._frames(), reach, memory=1, adaptive_stop=reach / 8, adaptive_step=0.9
        )

    def update(self, detections: Detections) -> Tracks:
        """Take the next frame's detections and return their identities."""
        self._coming = detections
        _, names = next(self._linked)
        return tracks_of(detections, np.asarray(names, np.int64) + 1)

    def _frames(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Yield what ``update`` was given: the linker asks for a frame whenever it is asked for names."""
        for number in count():
            if self._coming is None:
                raise RuntimeError("the linker asked for a frame that has not come")
            coming, self._coming = self._coming, None
            yield number, coming.yx


class ByotrackPeer:
    """A frame-by-frame linker of ByoTrack (Reme et al.), on centroids; one missed frame is bridged.

    Parameters
    ----------
    habits
        How cells walk.
    kalman
        Expect them where Kalman filters of first order say, and link by distance from there, which is best here;
        else where they were last.
    """

    def __init__(self, habits: Crowd, *, kalman: bool) -> None:
        package, torch = borrowed("byotrack", "byotrack"), borrowed("torch", "byotrack")
        torch.set_num_threads(1)
        linkers = "byotrack.implementation.linker.frame_by_frame"
        common = {"n_valid": 1, "n_gap": 1}
        if kalman:
            there = borrowed(f"{linkers}.kalman_linker", "byotrack")
            options = there.KalmanLinkerParameters(
                reach_px(habits),
                detection_std=1.0,
                process_std=habits.step_px / 2,
                kalman_order=1,
                cost="euclidean",
                track_building="detection",
                **common,
            )
            self._linker = there.KalmanLinker(options)
        else:
            there = borrowed(f"{linkers}.nearest_neighbor", "byotrack")
            options = there.NearestNeighborParameters(reach_px(habits), **common)
            self._linker = there.NearestNeighborLinker(options)
        self._points: Callable[[Any], Any] = package.PointDetections
        self._tensor: Callable[[Any], Any] = torch.from_numpy
        self._linker.reset()

    def update(self, detections: Detections) -> Tracks:
        """Take the next frame's detections and return their identities."""
        self._linker.update(None, self._points(self._tensor(detections.yx.astype(np.float32))))
        track = np.zeros(len(detections), np.int64)
        for each in self._linker.active_tracks:
            if each.detection_ids[-1] >= 0:
                track[each.detection_ids[-1]] = each.identifier + 1
        return tracks_of(detections, track)


class LaptrackWithLikeness:
    """LapTrack on centroids with log area and log brightness as two more coordinates; without divisions.

    Divisions would need a distance of their own, as daughters are half as large as their mother.
    """

    def __init__(self, habits: Crowd) -> None:
        self._package = borrowed("laptrack", "laptrack")
        self._reach = reach_px(habits)

    def track(self, movie: Sequence[Detections]) -> list[Tracks]:
        """Return the identities in every frame."""
        places = [
            np.column_stack(
                [each.yx, _LIKENESS_PX * np.log(each.area), _LIKENESS_PX * np.log(each.mean[:, 0] + 1.0)]
            )
            for each in movie
        ]
        square = self._reach**2
        tracker = self._package.LapTrack(
            cutoff=square, gap_closing_cutoff=square, gap_closing_max_frame_count=2, splitting_cutoff=False
        )
        start = first_cells(movie)
        edges = tracker.predict(places).edges()
        return tracks_of_links(movie, [(int(start[f] + i), int(start[g] + j)) for (f, i), (g, j) in edges])


def _laptrack(habits: Crowd, *, full: bool) -> Any:
    options = {"max_distance_px": reach_px(habits), "max_gap": int(full), "divisions": full}
    return build(find_class("trackers", "laptrack"), options)


def _btrack(habits: Crowd) -> Any:
    return build(find_class("trackers", "btrack"), {"max_distance_px": reach_px(habits), "approximate": True})


PEERS: dict[str, Callable[[Crowd], Any]] = {
    "laptrack": lambda habits: _laptrack(habits, full=True),
    "laptrack-links": lambda habits: _laptrack(habits, full=False),
    "laptrack-likeness": LaptrackWithLikeness,
    "trackpy": TrackpyPeer,
    "btrack": _btrack,
    "byotrack-kalman": lambda habits: ByotrackPeer(habits, kalman=True),
    "byotrack-nearest": lambda habits: ByotrackPeer(habits, kalman=False),
}
"""How to build each for what it is measured on: a tracker that takes frame after frame, or a whole movie."""


def tracks_of(detections: Detections, track: Ints) -> Tracks:
    """Return tracks of which nothing is known but the (n,) identities."""
    n = len(detections)
    return Tracks(
        detections=detections,
        track=track,
        parent=np.zeros(n, np.int64),
        age=np.zeros(n, np.int32),
        velocity=np.zeros((n, 2)),
        covariance=np.zeros((n, 3)),
        confidence=np.ones(n),
    )
