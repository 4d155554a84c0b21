"""Worker for StarDist in 2D: nuclei and other round cells as star-convex polygons."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


def load(
    model: str = "2D_versatile_fluo", low: float = 1.0, high: float = 99.8, **settings: Any
) -> Callable[..., Any]:
    """Return a function that segments one image.

    Parameters
    ----------
    model
        Name of a pretrained model, downloaded by StarDist at its first use; or the folder of one that you trained.
    low, high
        Percentiles of the gray levels that become 0 and 1.
    settings
        Handed to ``predict_instances``, such as ``prob_thresh``, ``nms_thresh`` or ``scale``.
    """
    kind = import_module("stardist.models").StarDist2D
    folder = Path(model)
    net = kind(None, folder.name, str(folder.parent)) if folder.is_dir() else kind.from_pretrained(model)
    if net is None:
        raise ValueError(f"StarDist has no model {model!r}, neither by name nor as a folder")

    def segment(image: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        planes = image.astype(np.float32)
        bottom, top = np.percentile(planes, (low, high), axis=(-2, -1), keepdims=True)
        planes = (planes - bottom) / np.maximum(top - bottom, 1e-6)
        axes = "YX" if planes.ndim == 2 else "YXC"
        mask, details = net.predict_instances(
            planes if planes.ndim == 2 else np.moveaxis(planes, 0, -1), axes=axes, **settings
        )
        return mask, np.asarray(details["prob"])

    return segment
