"""Detections: the cells of one frame as a table of measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Compartments:
    """Nucleus and cytoplasm of the n cells of one frame; the cytoplasm is the cell without its nucleus.

    Attributes
    ----------
    nuclei
        (n,) int32, how many nuclei each cell has.
    nuclear_area, cytoplasm_area
        (n,) float64, in px; 0 where a cell has no such part.
    nuclear_mean, cytoplasm_mean
        (n, channels) float64, intensity in camera counts in each channel of the frame; NaN where a cell has
        no such part.
    """

    nuclei: NDArray[np.int32]
    nuclear_area: NDArray[np.float64]
    cytoplasm_area: NDArray[np.float64]
    nuclear_mean: NDArray[np.float64]
    cytoplasm_mean: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The n cells of one frame; row i is label i + 1 of the mask it was measured on.

    Attributes
    ----------
    sequence, time_s
        The frame, and its time in s.
    shape
        (height, width) of the frame in px.
    yx
        (n, 2) float64, centroid in px.
    area
        (n,) float64, in px.
    bbox
        (n, 4) int32: y0, x0, y1, x1 in px, the upper ends exclusive.
    mean, maximum
        (n, channels) float64, intensity in camera counts in each channel of the frame.
    moments
        (n, 3) float64: second central moments yy, xx, yx in px^2 of the mask.
    stage_um
        Stage position (x, y) of the frame in um, or None.
    pixel_size_um
        Edge of a pixel in um, or None.
    channels
        Name of each channel, in the order of the columns of ``mean``; empty if nobody has said.
    channel
        Column of the channel that was segmented.
    compartments
        Nucleus and cytoplasm of each cell, or None if the segmenter does not tell them apart.
    confidence
        (n,) float32, 0 to 1: how sure the segmenter is of each cell; None if it does not say.
    novelty
        How unlike the images that the segmenter knows the frame looks (about 0 to 1 on familiar ones); None if
        it does not say.
    classes
        (n,) float32 each, 0 to 1: how likely each cell is of the class with this name; empty if the segmenter does
        not say.
    embedding
        (n, d) float32: what each cell looks like, as a vector; None if the segmenter does not say.
    z
        (n,) float64, height of each centroid in px of the image (planes times their distance over the pixel size),
        for cells found in a stack; None for those of one plane.
    focus
        How sharp the segmented channel is (:func:`~cytoloop.models.focus.focus_of`), to be compared with other frames
        of the same field of view; None if nobody has looked.
    agreement
        F1 at IoU 0.5 of the mask against that of a reference segmenter, 0 to 1; None if this frame was not compared.
    mask
        (y, x) int32, the mask that was measured, for trackers that compare outlines; None if it was not kept.
    """

    sequence: int
    time_s: float
    shape: tuple[int, int]
    yx: NDArray[np.float64]
    area: NDArray[np.float64]
    bbox: NDArray[np.int32]
    mean: NDArray[np.float64]
    maximum: NDArray[np.float64]
    moments: NDArray[np.float64]
    stage_um: tuple[float, float] | None = None
    pixel_size_um: float | None = None
    channels: tuple[str, ...] = ()
    channel: int = 0
    compartments: Compartments | None = None
    confidence: NDArray[np.float32] | None = None
    novelty: float | None = None
    classes: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, "NDArray[np.float32]"])
    embedding: NDArray[np.float32] | None = None
    z: NDArray[np.float64] | None = None
    mask: NDArray[np.int32] | None = None
    focus: float | None = None
    agreement: float | None = None

    def __len__(self) -> int:
        return len(self.area)

    @property
    def axes_px(self) -> NDArray[np.float64]:
        """(n, 2) full lengths in px of the major and minor axis of the ellipse with the same moments."""
        return axes_of(self.moments)


def axes_of(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, 2) full lengths of the axes of ellipses with these (n, 3) second moments, the major one first."""
    yy, xx, yx = moments.T
    middle, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
    return 4 * np.sqrt(np.maximum(np.stack([middle + half, middle - half], axis=1), 0))
