"""Trackastra (Gallusser and Weigert 2024, doi 10.1007/978-3-031-73116-7_27): links by a trained transformer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...acquire.errors import PluginError
from ...models.detections import Detections
from ..tracks import Tracks
from .borrowed import borrowed, quietly
from .links import can_link, first_cells, tracks_of

_FILES = ("model.pt", "config.yaml", "train_config.yaml")


class TrackastraTracker:
    """Links cells by what a trained net says of their places, shapes and brightness within a window of frames.

    The package looks at masks and images. Detections hold each cell's mean and no pixels, so that the image given
    to it has in every px the mean of its cell, as the package itself does to save memory, and 0 outside.

    Nothing is downloaded: the model must be on this computer.

    Parameters
    ----------
    model
        Folder with model.pt, config.yaml and train_config.yaml; or the name of a model that the package has
        downloaded before, such as ``general_2d``.
    mode
        ``greedy``, as the package recommends; ``greedy_nodiv``: without divisions; ``ilp``: slower, by integer
        programming.
    max_distance_px
        The farthest step that may be linked, in px; 256 as in the package.

    Raises
    ------
    MissingExtraError
        Without the package trackastra.
    PluginError
        If the model is not on this computer; says what is missing and how to get it.
    """

    needs_masks = True
    """It compares outlines."""

    def __init__(
        self,
        *,
        model: str = "general_2d",
        mode: Literal["greedy", "greedy_nodiv", "ilp"] = "greedy",
        max_distance_px: float = 256.0,
    ) -> None:
        if not max_distance_px > 0:
            raise ValueError(f"max_distance_px must be above 0, got {max_distance_px}")
        self._mode, self._reach = mode, max_distance_px
        package = borrowed("trackastra.model", "trackastra")
        folder = _folder_of(model)
        with quietly():
            self._model: Any = package.Trackastra.from_folder(folder, device="automatic")

    def track(self, movie: Sequence[Detections]) -> list[Tracks]:
        """Return the identities in every frame; confidence is 1.

        Raises
        ------
        ValueError
            If detections hold no mask.
        """
        if not can_link(movie):
            return tracks_of(movie, [])
        masks, images = zip(*map(_drawn, movie), strict=True)
        with quietly():
            graph, _ = self._model.track(
                np.stack(images), np.stack(masks), mode=self._mode, max_distance=self._reach
            )
        start = first_cells(movie)
        cell = {node: int(start[data["time"]] + data["label"] - 1) for node, data in graph.nodes(data=True)}
        return tracks_of(movie, [(cell[one], cell[other]) for one, other in graph.edges()])


def _drawn(detections: Detections) -> tuple[Any, Any]:
    """Return mask and image of a frame."""
    if detections.mask is None:
        raise ValueError("the tracker 'trackastra' compares masks, but Detections.mask is None")
    mean = np.concatenate([[0.0], detections.mean[:, detections.channel]]).astype(np.float32)
    return detections.mask, mean[detections.mask]


def _folder_of(model: str) -> Path:
    """Return where a model lies, checked."""
    if Path(model).is_dir():
        missing = [name for name in _FILES if not (Path(model) / name).is_file()]
        if missing:
            raise PluginError(f"model: the folder {model} lacks {', '.join(missing)}")
        return Path(model)
    platformdirs = borrowed("platformdirs", "trackastra")
    folder = Path(platformdirs.user_data_dir("trackastra")) / "models" / model
    if all((folder / name).is_file() for name in _FILES):
        return folder
    get = f"from trackastra.model import Trackastra; Trackastra.from_pretrained('{model}')"
    raise PluginError(
        f"model: there is no folder {model!r}, and no model of this name in {folder.parent}. Nothing is downloaded"
        f' here; get it once with: python -c "{get}"'
    )
