"""The segmenter that runs a net: contrast, scale, net, decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.frame import Frame, Pixels
from ...acquire.plugins import build, find_class
from .. import resize as resizing
from ..decoders.decoder import Decoder, Grid, Tensor
from ..labels import Labels
from ..packages import normalise
from ..packages.adapt import adapt, prepare
from ..packages.normalise import Bounds, Contrast
from ..packages.package import load_package
from ..resize import HIGHEST, LOWEST, resize
from ..runtimes.choose import build_runtime
from . import novelty, scale, tiles

FRAMES_OF_SCALE = 3
"""The breadth of cells is the median over the first so many frames that show cells."""

MOST_FIELDS = 4096
"""Fields of view whose contrast is kept; beyond, the one that was not seen for longest is forgotten."""

FieldKey = tuple[int | str, int | str]


class NetSegmenter:
    """Finds cells with a trained net.

    Contrast is taken from the frames as they come and smoothed; the breadth of cells is estimated on the first
    frames that show cells, unless it is set, and kept. Frames are scaled so that cells have the size that the
    net was made for.

    Parameters
    ----------
    model
        Name of a shipped net, or the path of a model package or of a plain ONNX file.
    channel
        Index or name of the channel to look at.
    second_channel
        Index or name of the channel for the second input of nets that have two (nuclei beside cells).
    diameter_px
        Breadth of the cells in px (of rods, the narrow one); None estimates it.
    runtime, precision
        What computes the net: registered names, or ``"auto"`` for the fastest that agrees with the reference.
    threads
        Of the CPU.
    decoder, decoder_options
        What makes cells of the net's outputs; by default what the package says.

    Attributes
    ----------
    choice
        What computes the net, and why.
    runtime
        What computes it: (1, channels, y, x) in, maps that cover it out.
    channels
        All channels that the net looks at.

    Raises
    ------
    ModelError
        If the package cannot be used; names file and reason.
    ValueError
        Names the option and what it may be.
    """

    def __init__(
        self,
        *,
        model: str = "q32",
        channel: int | str = 0,
        second_channel: int | str | None = None,
        diameter_px: float | None = None,
        runtime: str = "onnxruntime",
        precision: str = "fp32",
        threads: int = 2,
        decoder: str | None = None,
        decoder_options: dict[str, Any] | None = None,
    ) -> None:
        if diameter_px is not None and not 2 <= diameter_px <= 4000:
            raise ValueError(f"diameter_px must be 2 to 4000, got {diameter_px}")
        if threads < 1:
            raise ValueError(f"threads must be 1 or more, got {threads}")
        package = load_package(model, decoder=decoder, decoder_options=decoder_options)
        self.channel = channel
        self.channels = (channel,) if second_channel is None else (channel, second_channel)
        if len(self.channels) != package.channels:
            raise ValueError(
                f"second_channel: {package.name!r} looks at {package.channels} channel(s), {len(self.channels)} given"
            )
        if any(isinstance(each, int) and each < 0 for each in self.channels):
            raise ValueError(f"channel must be a name, or 0 or more, got {self.channels}")
        computed, self.choice = build_runtime(package, runtime=runtime, precision=precision, threads=threads)
        self._package, self.runtime = package, adapt(computed, package)
        # What adapts a net takes any sides that its grid divides.
        self._step = package.step if self.runtime is computed else package.grid
        kind = find_class("decoders", package.decoder)
        self._decoder: Decoder = build(kind, package.decoder_options)
        self._fixed = diameter_px
        normalise.warm_up()
        resizing.warm_up()
        self.reset()

    def reset(self) -> None:
        """Forget contrast and breadth: the next frame is the first of another stream."""
        self._contrasts: dict[FieldKey, list[Contrast]] = {}
        self._breadths: list[float] = []
        self._searches = 0

    def memory(self, frame: Frame) -> dict[str, Any]:
        """Return what is known of the stream, and of the contrast of this frame's field of view."""
        return {
            "breadths": list(self._breadths),
            "searches": self._searches,
            "contrasts": [contrast.state() for contrast in self._contrast(frame)],
        }

    def recall(self, frame: Frame, memory: Mapping[str, Any]) -> None:
        """Take over what :meth:`memory` returned."""
        self._breadths = [float(breadth) for breadth in memory["breadths"]]
        self._searches = int(memory["searches"])
        for contrast, state in zip(self._contrast(frame), memory["contrasts"], strict=True):
            contrast.restore(state)

    @property
    def breadth_px(self) -> float | None:
        """Breadth of the cells in px of the frame, set or estimated; None while unknown."""
        return self._fixed or (float(np.median(self._breadths)) if self._breadths else None)

    def segment(self, frame: Frame) -> Labels:
        """Return the cells, their confidences and the novelty of the frame."""
        planes = [frame.channel(channel) for channel in self.channels]
        contrasts = self._contrast(frame)
        bounds = [contrast.update(plane) for contrast, plane in zip(contrasts, planes, strict=True)]
        self._look_for_scale(planes, bounds, frame.shape)
        outputs, grid = self._run(planes, bounds, self._scale())
        labels = self._decoder.decode(outputs, grid)
        return replace(labels, novelty=novelty.of(outputs[0], self._package.novelty))

    def _contrast(self, frame: Frame) -> list[Contrast]:
        """Return the contrast of each channel in this field of view: fields differ in what they show."""
        key = (frame.axes.get("position", 0), frame.axes.get("z", 0))
        found = self._contrasts.pop(key, None) or [Contrast(self._package.normalise) for _ in self.channels]
        if len(self._contrasts) >= MOST_FIELDS:
            del self._contrasts[next(iter(self._contrasts))]
        self._contrasts[key] = found  # last: the most recently seen
        return found

    def _scale(self) -> float:
        breadth, reference = self.breadth_px, self._package.diameter_px
        if breadth is None or reference is None:
            return 1.0
        return scale.scale_for(breadth, self._package.shown_px or reference)

    def _look_for_scale(self, planes: list[Pixels], bounds: list[Bounds], shape: tuple[int, int]) -> None:
        """Ask the net for the breadth on the first frames with cells; on empty ones ever more rarely."""
        reference = self._package.diameter_px
        if reference is None or self._fixed is not None or len(self._breadths) >= FRAMES_OF_SCALE:
            return
        self._searches += 1
        if not self._breadths and self._searches & (self._searches - 1):
            return  # no cells so far: look at frames 1, 2, 4, 8, ... only
        found = scale.estimate(lambda s: self._run(planes, bounds, s)[0][0][0], shape, reference)
        if found is not None:
            self._breadths.append(found)

    def _run(
        self, planes: list[Pixels], bounds: list[Bounds], factor: float
    ) -> tuple[tuple[Tensor, ...], Grid]:
        """Return what the net says of the frame scaled by a factor, and where that lies on the frame."""
        height, width = planes[0].shape
        size = max(1, round(height * factor)), max(1, round(width * factor))
        normalised = [self._normalised(p, size, b) for p, b in zip(planes, bounds, strict=True)]
        tensor = prepare(self._package, np.stack(normalised))
        step = self._package.grid
        outputs = tiles.run(self.runtime, tensor, self._step, step)
        return outputs, Grid((height, width), (height / size[0] * step, width / size[1] * step))

    def _normalised(self, plane: Pixels, size: tuple[int, int], bounds: Bounds) -> NDArray[np.float32]:
        rule = self._package.normalise
        if rule.clip == (LOWEST, HIGHEST):
            return resize(plane, size, *bounds)
        return rule.apply(plane if plane.shape == size else resize(plane, size), bounds)
