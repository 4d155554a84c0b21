"""The families of nets that users have: what a perfect one says of a mask, and our decoder for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...models.decoders.boundary import BoundaryDecoder
from ...models.decoders.boxes import BoxesDecoder
from ...models.decoders.decoder import Decoder, Tensor
from ...models.decoders.distance import DistanceDecoder
from ...models.decoders.flows import FlowDecoder
from ...models.decoders.instanseg import InstansegDecoder
from ...models.decoders.stardist import StarDistDecoder
from . import encoders
from .encoders import Maps, Mask


@dataclass(frozen=True, slots=True)
class Family:
    """One family.

    Attributes
    ----------
    build
        Makes our decoder, with its usual settings.
    targets
        What a perfect net says of a mask: one output, or several.
    """

    build: Callable[[], Decoder]
    targets: Callable[[Mask], Maps | tuple[Maps, ...]]

    def encode(self, mask: NDArray[np.int32]) -> tuple[Tensor, ...]:
        """Return what a runtime would return of a perfect net, float32 and C-contiguous."""
        targets = self.targets(mask)
        listed = targets if isinstance(targets, tuple) else (targets,)
        return tuple(np.ascontiguousarray(target, np.float32) for target in listed)


FAMILIES = {
    "boundary": Family(BoundaryDecoder, encoders.boundary),
    "distance": Family(DistanceDecoder, encoders.distances),
    "stardist": Family(StarDistDecoder, encoders.stardist),
    "cellpose": Family(FlowDecoder, encoders.cellpose),
    "omnipose": Family(lambda: FlowDecoder(family="omnipose"), encoders.omnipose),
    "instanseg": Family(
        lambda: InstansegDecoder(classifier=encoders.instanseg_classifier()), encoders.instanseg
    ),
    "boxes": Family(BoxesDecoder, encoders.boxes),
}
