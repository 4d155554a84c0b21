"""The protocol of a decoder: the outputs of a net -> labels of the frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..labels import Labels

Tensor = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Grid:
    """How the pixels of a net's output lie on the frame.

    Centre of output px i is at ``(i + 0.5) * pitch - 0.5`` px of the frame, along each axis; nets see frames
    scaled and may answer on a coarser grid than they see.

    Attributes
    ----------
    shape
        (height, width) of the frame in px.
    pitch
        (y, x) frame px per output px.
    """

    shape: tuple[int, int]
    pitch: tuple[float, float]


@runtime_checkable
class Decoder(Protocol):
    """Turns what a net says into cells.

    Built once per stream; ``decode`` is called for every frame by the thread that ran the net. It is
    deterministic, and its time grows with the pixels, not with pairs of cells.
    """

    def decode(self, outputs: tuple[Tensor, ...], grid: Grid) -> Labels:
        """Return the cells, numbered 1..count from top to bottom by their first pixel, with a confidence each.

        Parameters
        ----------
        outputs
            What the runtime returned, float32, (1, channels, y, x) for maps (already cropped to the part of
            the grid that covers the frame) or as the family has it.
        grid
            Where the output lies on the frame.

        Raises
        ------
        ModelError
            If the outputs are not what this family has (number, shape, channels): a model file of another
            kind, or one that is broken.
        """
        ...
