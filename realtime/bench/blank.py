"""A segmenter that finds nothing: to measure the link alone."""

from __future__ import annotations

import numpy as np

from ...acquire.frame import Frame
from ...models.labels import Labels


class Blank:
    """Finds no cell in any frame, in no time."""

    channel = 0

    def __init__(self) -> None:
        self._empty = Labels(np.zeros((0, 0), np.int32), 0)

    def segment(self, frame: Frame) -> Labels:
        """Return an empty mask, the same one for all frames of a size."""
        if self._empty.image.shape != frame.shape:
            self._empty = Labels(np.zeros(frame.shape, np.int32), 0)
        return self._empty


BLANK = f"{__name__}:{Blank.__name__}"
