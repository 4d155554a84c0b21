"""A frame to try nets on when there is no other: bright cells on a dark ground, drawn."""

from __future__ import annotations

import numpy as np

from .onnx_file import read_onnx_file
from .runtime import Tensor
from .ways import Net

_SIDE_PX, _DIAMETER_PX = 512, 24.0
_NOISE = 0.03


def drawn_frame(net: Net) -> Tensor:
    """Return a frame (1, channels, y, x) of soft-edged cells as a net would see it, the same every time."""
    channels, height, width, diameter = _wanted(net)
    random = np.random.default_rng(0)
    frame = np.full((height, width), 0.02)
    pitch = 1.7 * diameter
    y, x = np.indices((height, width))
    for centre_y in np.arange(pitch / 2, height, pitch):
        for centre_x in np.arange(pitch / 2, width, pitch):
            cy, cx = (centre_y, centre_x) + random.uniform(-0.25, 0.25, 2) * diameter
            long, wide = random.uniform(0.4, 0.55, 2) * diameter
            part = np.s_[
                max(int(cy - diameter), 0) : int(cy + diameter),
                max(int(cx - diameter), 0) : int(cx + diameter),
            ]
            distance = np.hypot((y[part] - cy) / long, (x[part] - cx) / wide)
            cell = random.uniform(0.4, 1.0) / (1 + np.exp((distance - 1) * diameter / 2))
            frame[part] = np.maximum(frame[part], cell)
    noise = random.normal(0, _NOISE, (channels, height, width))
    return (frame + noise).astype(np.float32)[np.newaxis]


def _wanted(net: Net) -> tuple[int, int, int, float]:
    """Return channels, height, width, and the breadth of cells in px that suit a net."""
    package = net.package
    if package is not None:
        side = -(-_SIDE_PX // package.step) * package.step
        height, width = package.fixed_shape or (side, side)
        return package.channels, height, width, package.diameter_px or _DIAMETER_PX
    if net.onnx is None:
        return 1, _SIDE_PX, _SIDE_PX, _DIAMETER_PX
    shape = (None, None, *read_onnx_file(net.onnx).input_shape)[-3:]
    return shape[0] or 1, shape[1] or _SIDE_PX, shape[2] or _SIDE_PX, _DIAMETER_PX
