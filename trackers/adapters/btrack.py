"""btrack (Ulicna et al. 2021, doi 10.3389/fcomp.2021.734559): Bayesian linking, then a global choice of hypotheses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ...acquire.errors import PluginError
from ...models.detections import Detections
from ..tracks import Tracks
from .borrowed import borrowed, quietly
from .links import can_link, tracks_of

# What the package's documentation gives as the configuration for cells, cell_config, in its own names. Its file is
# not in the package, which would download it.
_STATES = 6
_CELLS: dict[str, dict[str, Any]] = {
    "motion_model": {
        "name": "cell_motion",
        "measurements": 3,
        "states": _STATES,
        "dt": 1.0,
        "accuracy": 7.5,
        "prob_not_assign": 0.001,
        "max_lost": 5,
        "A": [[float(i == j or j == i + 3) for j in range(_STATES)] for i in range(_STATES)],
        "H": [[float(i == j) for j in range(_STATES)] for i in range(3)],
        "P": [[(15.0 if i < 3 else 150.0) * (i == j) for j in range(_STATES)] for i in range(_STATES)],
        "G": [7.5, 7.5, 7.5, 15.0, 15.0, 15.0],
        "R": [[5.0 * (i == j) for j in range(3)] for i in range(3)],
    },
    "hypothesis_model": {
        "name": "cell_hypothesis",
        "hypotheses": ["P_FP", "P_init", "P_term", "P_link", "P_branch", "P_dead"],
        "lambda_time": 5.0,
        "lambda_dist": 3.0,
        "lambda_link": 10.0,
        "lambda_branch": 50.0,
        "eta": 1e-10,
        "theta_dist": 20.0,
        "theta_time": 5.0,
        "dist_thresh": 40.0,
        "time_thresh": 2.0,
        "apop_thresh": 5,
        "segmentation_miss_rate": 0.1,
        "apoptosis_rate": 0.001,
        "relax": True,
    },
}


class BtrackTracker:
    """Links centroids by a motion model, then chooses links, divisions, beginnings and ends of the whole movie.

    Parameters
    ----------
    max_distance_px
        The search radius, in px; 100 as in the package.
    config
        A configuration file of the package, JSON; ``""`` takes what its documentation gives for cells.
    approximate
        Compare near cells only, as the package recommends for thousands of cells in a frame.

    Raises
    ------
    MissingExtraError
        Without the package btrack.
    PluginError
        If its compiled part does not run on this computer, or ``config`` is not there.
    """

    def __init__(
        self, *, max_distance_px: float = 100.0, config: str = "", approximate: bool = False
    ) -> None:
        if not max_distance_px > 0:
            raise ValueError(f"max_distance_px must be above 0, got {max_distance_px}")
        if config and not Path(config).is_file():
            raise PluginError(f"config: there is no file {config}")
        self._reach, self._config, self._approximate = max_distance_px, config, approximate
        self._package = borrowed("btrack", "btrack")
        library = borrowed("btrack.libwrapper", "btrack")
        try:
            with quietly():
                library.get_library()
        except Exception as error:  # it raises no narrower one
            reason = error.__cause__ or error
            raise PluginError(
                f"btrack is installed, but its compiled part does not load: {reason}"
            ) from error

    def track(self, movie: Sequence[Detections]) -> list[Tracks]:
        """Return the identities in every frame; confidence is 1, as the package gives none."""
        if not can_link(movie):
            return tracks_of(movie, [])
        with quietly(), self._package.BayesianTracker(verbose=False) as tracker:
            tracker.configure(self._config or self._cells())
            tracker.max_search_radius = self._reach
            if self._approximate:
                tracker.update_method = self._package.constants.BayesianUpdates.APPROXIMATE
            height, width = movie[0].shape
            tracker.volume = ((0, width), (0, height))
            tracker.append(self._objects(movie))
            tracker.track(step_size=100)
            tracker.optimize(tm_lim=60_000, msg_lev="GLP_MSG_OFF")
            return tracks_of(movie, _links(tracker.tracks))

    def _cells(self) -> Any:
        models = borrowed("btrack.models", "btrack")
        return self._package.config.TrackerConfig(
            motion_model=models.MotionModel(**_CELLS["motion_model"]),
            hypothesis_model=models.HypothesisModel(**_CELLS["hypothesis_model"]),
        )

    def _objects(self, movie: Sequence[Detections]) -> list[Any]:
        """Return all cells in order, so that the package numbers them as we do."""
        made: list[Any] = []
        for index, detections in enumerate(movie):
            for y, x in detections.yx.tolist():
                cell = self._package.btypes.PyTrackObject()
                cell.t, cell.x, cell.y, cell.z = index, x, y, 0.0
                made.append(cell)
        return made


def _links(tracklets: Sequence[Any]) -> list[tuple[int, int]]:
    """Return the links within tracklets, across the places where it made a cell up, and from mothers to daughters."""
    seen = {
        each.ID: [ref for ref, made_up in zip(each.refs, each.dummy, strict=True) if not made_up]
        for each in tracklets
    }
    links = [link for refs in seen.values() for link in pairwise(refs)]
    for each in tracklets:
        refs = seen[each.ID]
        links += [(refs[-1], seen[child][0]) for child in each.children if refs and seen.get(child)]
    return links
