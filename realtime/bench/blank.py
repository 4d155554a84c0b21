"""A segmenter that finds nothing: to measure the link alone."""

from __future__ import annotations

import numpy as np

from ...acquire.frame import Frame
from ...models.labels import Labels


class Blank:
    """Finds no cell in any frame, in no time."""

    channel = 0

    def segment(self, frame: Frame) -> Labels:
        """Return an empty mask."""
        return Labels(np.zeros(frame.shape, np.int32), 0)


BLANK = f"{__name__}:{Blank.__name__}"
