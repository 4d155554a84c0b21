"""Worker for Cellpose 3 and 4: cells, or cells and nuclei, as Cellpose finds them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


def load(
    model: str = "", diameter: float | None = None, gpu: bool = True, **settings: Any
) -> Callable[..., Any]:
    """Return a function that segments one image.

    Parameters
    ----------
    model
        Name of a Cellpose model, or path of one that you trained; by default ``cyto3`` in Cellpose 3, the newest
        of Cellpose-SAM in Cellpose 4. A name is downloaded by Cellpose at its first use.
    diameter
        Of the cells in px; None leaves images at the size that the model was trained for.
    gpu
        Use the card where there is one.
    settings
        Handed to ``CellposeModel.eval``, such as ``flow_threshold`` or ``cellprob_threshold``.
    """
    old = int(version("cellpose").split(".")[0]) < 4
    models = import_module("cellpose.models")
    known = [*models.MODEL_NAMES, *models.get_user_models()]
    if model and model not in known and not Path(model).exists():  # Cellpose would take its default
        raise ValueError(f"no Cellpose model and no file {model!r}; known: {', '.join(known)}")
    name = model or ("cyto3" if old else "")
    net = models.CellposeModel(gpu=gpu, **({"pretrained_model": name} if name else {}))

    def segment(image: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        several: dict[str, Any] = {"channel_axis": 0} if image.ndim == 3 else {}
        if old:  # in Cellpose 3 the first channel is the cells, the second the nuclei
            several["channels"] = [1, 2] if several else [0, 0]
        mask, flows, _ = net.eval(image, diameter=diameter, **several, **settings)
        return mask, _confidences(np.asarray(mask), np.asarray(flows[2]))

    return segment


def _confidences(mask: np.ndarray[Any, Any], logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Return for each cell the mean probability with which its px are said to be inside a cell."""
    if mask.shape != logits.shape:
        return None
    inside = 1 / (1 + np.exp(-logits.astype(np.float64)))
    area = np.bincount(mask.ravel())
    return np.bincount(mask.ravel(), inside.ravel())[1:] / np.maximum(area[1:], 1)
