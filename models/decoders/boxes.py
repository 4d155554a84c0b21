"""The decoder of nets that answer with boxes: Mask R-CNN with a mask in each, RetinaNet and its like without.

Of boxes that overlap much, the one with the highest score is kept. Masks are stretched over their boxes, linearly
between the middles of their px; a px in several goes to the one that is surest of it. Without masks
a cell is the ellipse, or all, of its box.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ...acquire.errors import ModelError
from ..labels import Labels
from . import bins, maps, raster
from .decoder import Grid, Tensor

Name = Literal["boxes", "scores", "classes", "masks", "ignored"]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

USUAL: dict[int, list[Name]] = {
    2: ["boxes", "scores"],
    3: ["boxes", "scores", "classes"],
    4: ["boxes", "classes", "scores", "masks"],
}
"""What so many outputs are if nothing else is said: those of torchvision's RetinaNet, and of its Mask R-CNN."""


class BoxesDecoder:
    """Makes cells of boxes, scores, classes and masks.

    Boxes are (n, 4), scores and classes (n,), masks (n, 1, y, x) over each box or over the frame; a first axis of
    length 1 may come before. Whole numbers of box corners lie at the edges of px of the net's input.

    Parameters
    ----------
    order
        What each output is: ``"boxes"``, ``"scores"``, ``"classes"``, ``"masks"`` or ``"ignored"``. By default two
        are boxes and scores, three boxes, scores and classes, four boxes, classes, scores and masks.
    corners
        What the four numbers of a box are: two corners (``"xyxy"``, ``"yxyx"``), the first corner and the size
        (``"xywh"``), or the middle and the size (``"cxcywh"``).
    normalised
        Whether they are shares of the frame instead of px.
    score_threshold
        Score from which on a box is a cell.
    nms_threshold
        Intersection over union of two boxes above which the one with the lower score is dropped.
    classes
        The classes that are cells; None takes all.
    mask_threshold
        Probability from which on a px of a mask is part of the cell.
    shape
        Of a cell without a mask: ``"ellipse"`` or ``"rectangle"``.
    smallest_px
        What is smaller, in px of the frame, is dropped.

    Raises
    ------
    ValueError
        Names the option and what it may be.
    """

    def __init__(
        self,
        *,
        order: list[Name] | None = None,
        corners: Literal["xyxy", "yxyx", "xywh", "cxcywh"] = "xyxy",
        normalised: bool = False,
        score_threshold: float = 0.5,
        nms_threshold: float = 0.5,
        classes: list[int] | None = None,
        mask_threshold: float = 0.5,
        shape: Literal["ellipse", "rectangle"] = "ellipse",
        smallest_px: float = 12.0,
    ) -> None:
        if order is not None:
            named = [name for name in order if name != "ignored"]
            if len(set(named)) != len(named) or not {"boxes", "scores"} <= set(named):
                raise ValueError(
                    f"order must hold boxes and scores, and no name twice; got {', '.join(order)}"
                )
            if classes is not None and "classes" not in named:
                raise ValueError("classes are chosen, but order says that there are none")
        for name, value in (
            ("score_threshold", score_threshold),
            ("nms_threshold", nms_threshold),
            ("mask_threshold", mask_threshold),
        ):
            if not 0 < value < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        if not smallest_px >= 0:
            raise ValueError(f"smallest_px must be 0 or more, got {smallest_px}")
        self._order, self._corners, self._normalised = order, corners, normalised
        self._score, self._overlap, self._classes = score_threshold, nms_threshold, classes
        self._mask, self._round, self._smallest = mask_threshold, shape == "ellipse", smallest_px
        self._warm_up()

    def decode(self, outputs: tuple[Tensor, ...], grid: Grid) -> Labels:
        """Return the cells; the confidence of one is its score."""
        boxes, scores, masks = self._likely(self._named(outputs), grid)
        height, width = grid.shape
        kept = _suppress(np.clip(boxes, 0, [height, width] * 2), height, width, self._overlap)
        boxes, scores = boxes[kept], scores[kept]
        image = np.zeros(grid.shape, np.int32)
        if masks is None:
            _draw_shapes(image, boxes, self._round)
        else:
            over = np.array([0.0, 0.0])
            wanted = [n / pitch for n, pitch in zip(grid.shape, grid.pitch, strict=True)]
            if all(abs(n - want) < 1 for n, want in zip(masks.shape[1:], wanted, strict=True)):
                over = np.array([n * pitch for n, pitch in zip(masks.shape[1:], grid.pitch, strict=True)])
            _draw_masks(image, boxes, masks[kept], np.float32(self._mask), over)
        area = np.bincount(image.reshape(-1), minlength=len(boxes) + 1)
        raster.drop(image, area, self._smallest)
        shown = raster.renumber(image, len(boxes)) - 1
        return Labels(image, len(shown), np.clip(scores[shown], 0, 1).astype(np.float32))

    def _named(self, outputs: tuple[Tensor, ...]) -> dict[Name, Tensor]:
        """Return the outputs by what they are, without a first axis of length 1."""
        order = self._order or USUAL.get(len(outputs))
        listed = ", ".join(order) if order else "2 to 4 outputs"
        needs = f"{listed} for the boxes decoder: boxes (n, 4), scores and classes (n,), masks (n, 1, y, x)"
        if order is None or len(order) != len(outputs):
            raise maps.misfit(outputs, needs)
        named: dict[Name, Tensor] = {}
        for name, output in zip(order, outputs, strict=True):
            axes = {"boxes": 2, "scores": 1, "classes": 1, "masks": 4, "ignored": output.ndim}[name]
            named[name] = output[0] if output.ndim == axes + 1 and len(output) == 1 else output
            if name == "masks" and named[name].ndim == 3:
                named[name] = named[name][:, np.newaxis]
            if named[name].ndim != axes:
                raise maps.misfit(outputs, needs)
        named.pop("ignored", None)
        n = len(named["boxes"])
        if named["boxes"].shape[1] != 4 or any(len(array) != n for array in named.values()):
            raise maps.misfit(outputs, needs)
        if "masks" in named and (named["masks"].shape[1] != 1 or min(named["masks"].shape[2:]) < 1):
            raise maps.misfit(outputs, needs)
        return named

    def _likely(self, named: dict[Name, Tensor], grid: Grid) -> tuple[Doubles, Floats, Floats | None]:
        """Return boxes (top, left, bottom, right) in px of the frame, scores and masks, from the likeliest down."""
        scores = named["scores"]
        maps.check_finite(scores)
        if scores.size and scores.max() > 1.001:
            raise ModelError(
                f"the net's scores reach {scores.max():g}; they must be probabilities, at most 1. Is the order"
                " of the outputs right? Set order"
            )
        chosen = scores >= self._score
        if self._classes is not None:
            if "classes" not in named:
                raise ModelError("classes are chosen, but the net answers without classes")
            chosen &= np.isin(named["classes"], self._classes)
        place = np.flatnonzero(chosen)
        place = place[np.argsort(-scores[place], kind="stable")]
        boxes = self._on_frame(named["boxes"][place], grid)
        masks = named.get("masks")
        if masks is not None:
            masks = masks[place, 0]
            maps.check_finite(masks)
        proper = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        if masks is not None:
            masks = masks[proper]
        return boxes[proper], scores[place][proper], masks

    def _on_frame(self, boxes: Tensor, grid: Grid) -> Doubles:
        """Return top, left, bottom and right of boxes in px of the frame, (n, 4)."""
        maps.check_finite(boxes)
        a, b, c, d = boxes.astype(np.float64).T
        top, left, bottom, right = {
            "xyxy": (b, a, d, c),
            "yxyx": (a, b, c, d),
            "xywh": (b, a, b + d, a + c),
            "cxcywh": (b - d / 2, a - c / 2, b + d / 2, a + c / 2),
        }[self._corners]
        scale = np.array(grid.shape if self._normalised else grid.pitch, np.float64)
        return np.stack([top, left, bottom, right], axis=1) * np.tile(scale, 2)

    def _warm_up(self) -> None:
        """Compile the kernels, or load them if they were compiled before."""
        boxes = np.array([[0, 0, 4, 4]], np.float64)
        _suppress(boxes, 4, 4, self._overlap)
        image = np.zeros((4, 4), np.int32)
        _draw_shapes(image, boxes, self._round)
        _draw_masks(image, boxes, np.ones((1, 2, 2), np.float32), np.float32(self._mask), np.zeros(2))
        raster.drop(image, np.bincount(image.reshape(-1)), 20.0)
        raster.renumber(image, 1)


@njit(cache=True, nogil=True)
def _suppress(boxes: Doubles, height: int, width: int, limit: float) -> Longs:
    """Return the positions of the (n, 4) boxes that are kept; they come from the likeliest down."""
    shapes, head = bins.build(float(height), float(width))
    used = np.zeros(len(shapes), np.bool_)
    following = np.empty(len(boxes), np.int64)
    kept, count = np.empty(len(boxes), np.int64), 0
    for k in range(len(boxes)):
        top, left, bottom, right = boxes[k]
        y, x, radius = (top + bottom) / 2, (left + right) / 2, max(bottom - top, right - left) / 2
        over = False
        for layer in range(len(shapes)):
            if over or not used[layer]:
                continue
            first, last, start, end = bins.window(shapes, layer, y, x, radius)
            for i in range(first, last + 1):
                for j in range(start, end + 1):
                    other = head[shapes[layer, 2] + i * shapes[layer, 1] + j]
                    while other >= 0 and not over:
                        over = _iou(boxes[k], boxes[other]) > limit
                        other = following[other]
        if not over:
            layer, place = bins.bin_of(shapes, y, x, radius)
            following[k], head[place], used[layer] = head[place], k, True
            kept[count] = k
            count += 1
    return kept[:count]


@njit(cache=True, nogil=True)
def _iou(one: Doubles, other: Doubles) -> float:
    down = min(one[2], other[2]) - max(one[0], other[0])
    over = min(one[3], other[3]) - max(one[1], other[1])
    if down <= 0 or over <= 0:
        return 0.0
    both = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return down * over / (both - down * over)


@njit(cache=True, nogil=True)
def _rows(low: float, high: float, size: int) -> tuple[int, int]:
    """Return the first px whose middle is beyond one edge of a box, and the first beyond the other."""
    first = np.ceil(min(max(low, 0.0), float(size)) - 0.5)
    last = np.ceil(min(max(high, 0.0), float(size)) - 0.5)
    return max(int(first), 0), min(int(last), size)


@njit(cache=True, nogil=True)
def _draw_shapes(image: Ints, boxes: Doubles, ellipse: bool) -> None:
    """Draw boxes, or the ellipses in them; a px in several goes to the one that it is deepest in."""
    best = np.zeros(image.shape, np.float32)
    for k in range(len(boxes)):
        top, left, bottom, right = boxes[k]
        first, last = _rows(top, bottom, image.shape[0])
        start, end = _rows(left, right, image.shape[1])
        for y in range(first, last):
            v = abs(2 * (y + 0.5 - top) / (bottom - top) - 1)  # 0 in the middle, 1 at the edge
            for x in range(start, end):
                u = abs(2 * (x + 0.5 - left) / (right - left) - 1)
                depth = np.float32(1 - v * v - u * u if ellipse else 1 - max(v, u))
                if depth > best[y, x]:
                    best[y, x], image[y, x] = depth, k + 1


@njit(cache=True, nogil=True)
def _draw_masks(image: Ints, boxes: Doubles, masks: Floats, least: np.float32, over: Doubles) -> None:
    """Draw (n, y, x) masks; a px in several goes to the one that is surest of it.

    ``over`` is the size in px of the frame of what every mask covers, from the top left; 0 if each covers its box.
    """
    best = np.zeros(image.shape, np.float32)
    height, width = masks.shape[1:]
    for k in range(len(boxes)):
        top, left, bottom, right = boxes[k]
        first, last = _rows(top, bottom, image.shape[0])
        start, end = _rows(left, right, image.shape[1])
        if over[0] > 0:
            top, left, bottom, right = 0.0, 0.0, over[0], over[1]
        mask = masks[k]
        for y in range(first, last):
            v = (y + 0.5 - top) / (bottom - top) * height - 0.5
            for x in range(start, end):
                u = (x + 0.5 - left) / (right - left) * width - 0.5
                sure = _between(mask, v, u)
                if sure >= least and sure > best[y, x]:
                    best[y, x], image[y, x] = sure, k + 1


@njit(cache=True, nogil=True)
def _between(mask: Floats, v: float, u: float) -> np.float32:
    """Return the value between four px of a mask; beyond its last px, that px counts."""
    i, j = int(np.floor(v)), int(np.floor(u))
    down, right = np.float32(v - i), np.float32(u - j)
    above, below = max(i, 0), min(i + 1, mask.shape[0] - 1)
    before, after = max(j, 0), min(j + 1, mask.shape[1] - 1)
    upper = mask[above, before] + (mask[above, after] - mask[above, before]) * right
    lower = mask[below, before] + (mask[below, after] - mask[below, before]) * right
    return upper + (lower - upper) * down
