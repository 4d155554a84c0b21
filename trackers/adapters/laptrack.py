"""LapTrack (Fukai and Kawaguchi 2023, doi 10.1093/bioinformatics/btac799): the method of Jaqaman et al. 2008."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...models.detections import Detections
from ..tracks import Tracks
from .borrowed import borrowed, quietly
from .links import can_link, first_cells, tracks_of


class LaptrackTracker:
    """Links centroids of successive frames, then closes gaps and adds splits, all by squared distance.

    The settings are those of the package's example with dividing cells: gaps may be as wide as steps, splits twice
    as wide. There a step is up to 15 px; here, if nothing is said, up to the median diameter of the movie's cells.

    Parameters
    ----------
    max_distance_px
        The farthest step and gap that may be linked, in px; None takes the cells' median diameter.
    splitting_distance_px
        The farthest daughter, in px; None takes twice ``max_distance_px``.
    max_gap
        How many frames in a row a cell may be missed.
    divisions
        Whether cells may divide.

    Raises
    ------
    MissingExtraError
        Without the package laptrack.
    """

    def __init__(
        self,
        *,
        max_distance_px: float | None = None,
        splitting_distance_px: float | None = None,
        max_gap: int = 1,
        divisions: bool = True,
    ) -> None:
        for name, value in (
            ("max_distance_px", max_distance_px),
            ("splitting_distance_px", splitting_distance_px),
        ):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        if max_gap < 0:
            raise ValueError(f"max_gap must be 0 or more, got {max_gap}")
        self._reach, self._splitting_reach = max_distance_px, splitting_distance_px
        self._max_gap, self._divide = max_gap, divisions
        self._package = borrowed("laptrack", "laptrack")

    def track(self, movie: Sequence[Detections]) -> list[Tracks]:
        """Return the identities in every frame; confidence is 1, as the package gives none."""
        if not can_link(movie):
            return tracks_of(movie, [])
        area = np.concatenate([each.area for each in movie])
        reach = self._reach or 2 * float(np.sqrt(np.median(area) / np.pi))
        splitting = self._splitting_reach or 2 * reach
        with quietly():
            tracker = self._package.LapTrack(
                cutoff=reach**2,
                gap_closing_cutoff=reach**2 if self._max_gap else False,
                gap_closing_max_frame_count=self._max_gap + 1,  # it counts the steps, not the frames between
                splitting_cutoff=splitting**2 if self._divide else False,
            )
            found = tracker.predict([each.yx for each in movie])
        start = first_cells(movie)
        links = [(int(start[f] + i), int(start[g] + j)) for (f, i), (g, j) in found.edges()]
        return tracks_of(movie, links)
