"""The shipped model that says how likely two detections are the daughters of one cell.

A perceptron with one hidden layer over what :func:`~cytoloop.trackers.divisions.features` measures, trained on
simulations only (:mod:`cytoloop.trackers.recipes.division_model`): nuclei and rods that divide in many ways, cells
that are missed, false ones, and cells that fall into two pieces for a frame, from which divisions must be told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FILE = "division_model.json"
FARTHEST = 4.0
"""What is measured counts up to so many standard deviations from the mean of the training."""


@dataclass(frozen=True, slots=True, eq=False)
class DivisionModel:
    """The model.

    Attributes
    ----------
    names
        What it looks at, in order.
    mean, spread
        (k,) of each in the training.
    hidden, hidden_bias
        (h, k), (h,) weights of the hidden units, which are hyperbolic tangents.
    output, output_bias
        (h,) weights of the output, the log of an odds ratio, and its bias.
    """

    names: tuple[str, ...]
    mean: Floats
    spread: Floats
    hidden: Floats
    hidden_bias: Floats
    output: Floats
    output_bias: float

    def log_odds(self, measured: Mapping[str, Floats]) -> Floats:
        """Return the (t,) log of the odds that each of t triples is a division."""
        given = np.stack([measured[name] for name in self.names], axis=1)
        given = np.clip((given - self.mean) / self.spread, -FARTHEST, FARTHEST)
        # Not as a product of matrices: numpy would wake threads for it, which then spin for a while.
        hidden = np.tanh(np.einsum("tk,hk->th", given, self.hidden) + self.hidden_bias)
        return np.einsum("th,h->t", hidden, self.output) + self.output_bias


@cache
def shipped() -> DivisionModel:
    """Return the model that ships with the package."""
    text = files("cytoloop.trackers").joinpath(FILE).read_text(encoding="utf-8")
    data = json.loads(text)
    arrays = {
        name: np.array(data[name], np.float64)
        for name in ("mean", "spread", "hidden", "hidden_bias", "output")
    }
    return DivisionModel(names=tuple(data["names"]), output_bias=float(data["output_bias"]), **arrays)
