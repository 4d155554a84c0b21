"""A reporter that moves between nucleus and cytoplasm, seen in a fluorescence channel of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .optics import Fluorescence, soft_step
from .sample import Floats, Ints, Snapshot
from .shapes import Array, View, patches
from .texture import chromatin


@dataclass(frozen=True, slots=True, eq=False)
class TranslocationReporter:
    """Widefield fluorescence of a reporter such as a kinase translocation reporter.

    Each cell has an amount in its nucleus and one in its cytoplasm, for life. The cytoplasm is all that lies
    within a distance of the nucleus; where two meet, the brighter one shows.

    Attributes
    ----------
    seed
        The same seed gives a cell (by its identity) the same amounts.
    cytoplasm_um
        How far the cytoplasm reaches beyond the nucleus, in um.
    optics
        Signal, background, point spread, focus and illumination.
    """

    seed: int = 0
    cytoplasm_um: float = 5.0
    optics: Fluorescence = field(default_factory=lambda: Fluorescence(chromatin(0), bleach_per_ms=0.0))

    @property
    def bleach_per_ms(self) -> float:
        """Part of the fluorescence lost in 1 ms of full illumination."""
        return self.optics.bleach_per_ms

    def illumination(self, shape: tuple[int, int]) -> Array:
        """Return the field of the optics."""
        return self.optics.illumination(shape)

    def amounts(self, identity: Ints) -> tuple[Floats, Floats]:
        """Return the light per area, (n,) each, from nucleus and cytoplasm of cells; 1 is typical.

        Their ratio lies between 1/3 and 3.
        """
        drawn = np.array([np.random.default_rng((self.seed, int(one))).random(2) for one in identity])
        level, ratio = 0.6 + 0.8 * drawn.reshape(-1, 2)[:, 0], 3.0 ** (2 * drawn.reshape(-1, 2)[:, 1] - 1)
        return level * np.sqrt(ratio), level / np.sqrt(ratio)

    def photons_per_ms(self, snapshot: Snapshot, view: View, z_um: float, illumination: Array) -> Array:
        """Return cells with an even nucleus in an even cytoplasm, and the medium, as illuminated."""
        optics = self.optics
        spread = math.hypot(optics.psf_um, optics.spread_per_um * abs(z_um - optics.focus_um))
        nuclear, cytoplasmic = (amount.astype(np.float32) for amount in self.amounts(snapshot.identity))
        around, inside = np.zeros(view.shape, np.float32), np.zeros(view.shape, np.float32)
        margin = self.cytoplasm_um + 3 * spread
        for patch in patches(snapshot.shapes, snapshot.xy_um, view, margin):
            index = patch.index
            u, v = snapshot.shapes.local(index, patch.dx, patch.dy, view.affine)
            distance = snapshot.shapes.distance_um(index, u, v)
            cell = soft_step(distance - np.float32(self.cytoplasm_um), spread)
            cell *= cytoplasmic[index][:, None, None]
            nucleus = soft_step(distance, spread) * (nuclear - cytoplasmic)[index][:, None, None]
            for row, place, part in patch.windows(view.shape):
                np.maximum(around[place], cell[row][part], out=around[place])
                inside[place] += nucleus[row][part]
        return (optics.signal * (around + inside) + optics.background) * illumination
