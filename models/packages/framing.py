"""How a frame is laid before a net, and its outputs over the frame, from what a description says of their axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .rdf import AxisFacts

LARGEST_PX = 1 << 28
"""Px of a net with a fixed size of input."""


@dataclass(frozen=True, slots=True)
class Framing:
    """What a net wants otherwise than (1, channels, y, x) in, and maps that cover the frame out.

    Attributes
    ----------
    layout
        Order of the axes of its input; without ``b`` or ``c`` where it has none.
    output_layouts
        The same for each output that is a map; ``""`` for others, which are taken as they come.
    least, remainder
        Input px: a side is at least so long, and so much longer than a multiple of the step.
    border
        Input px to mirror in around the frame, because the net's outputs do not reach, or are not good, there.
    crop
        Output px that are cut off at either end.
    """

    layout: str = "bcyx"
    output_layouts: tuple[str, ...] = ()
    least: int = 0
    remainder: int = 0
    border: int = 0
    crop: int = 0


@dataclass(frozen=True, slots=True)
class Geometry:
    """The part of a package that follows from the axes; see :class:`.ModelPackage`."""

    channels: int
    channel_names: tuple[str, ...]
    step: int
    fixed_shape: tuple[int, int] | None
    grid: int
    framing: Framing


def geometry(given: Sequence[AxisFacts], outputs: Sequence[Sequence[AxisFacts]]) -> Geometry:
    """Return how a net with these axes is used.

    Raises
    ------
    ValueError
        If it is no net for one image of two dimensions.
    """
    layout = _layout(given)
    if layout is None or layout.index("y") > layout.index("x"):
        names = ", ".join(
            axis.letter if axis.size is None else f"{axis.letter} of {axis.size}" for axis in given
        )
        raise ValueError(
            f"the input has the axes {names}; an image (batch, channel, y, x) is needed, in any order"
        )
    by_letter = {axis.letter: axis for axis in given}
    y, x = by_letter["y"], by_letter["x"]
    channel = by_letter.get("c", AxisFacts("c", 1))
    channels = channel.size or max(channel.least, 1)
    step, remainder = _steps(y, x)
    maps = [output for output in outputs if _layout(output)]
    grid, border, crop = _cover(maps, (y, x))
    return Geometry(
        channels,
        channel.names or tuple(f"channel{i}" for i in range(channels)),
        step,
        _fixed(y, x),
        grid,
        Framing(
            layout=layout,
            output_layouts=tuple(_layout(output) or "" for output in outputs),
            least=max(y.least, x.least),
            remainder=remainder,
            border=border,
            crop=crop,
        ),
    )


def _layout(axes: Sequence[AxisFacts]) -> str | None:
    """Return the letters of the axes of an image, None for anything else; axes of one px need no letter there."""
    letters = "".join(axis.letter for axis in axes)
    return letters if {"y", "x"} <= set(letters) <= set("bcyx") else None


def _fixed(y: AxisFacts, x: AxisFacts) -> tuple[int, int] | None:
    if (y.size is None) != (x.size is None):
        raise ValueError("one of y and x has a fixed size, the other has not")
    if y.size is None or x.size is None:
        return None
    if y.size * x.size > LARGEST_PX:
        raise ValueError(f"an input of {y.size} x {x.size} px; {LARGEST_PX} px are allowed")
    return y.size, x.size


def _steps(y: AxisFacts, x: AxisFacts) -> tuple[int, int]:
    """Return the step of both sides, and what they are longer than a multiple of it."""
    step = math.lcm(y.step, x.step)
    if y.least % y.step == 0 and x.least % x.step == 0:
        return step, 0
    if y.step != x.step or (y.least - x.least) % step:
        raise ValueError(f"y is {y.least} + n * {y.step}, x is {x.least} + n * {x.step}: no size fits both")
    return step, y.least % step


def _cover(maps: Sequence[Sequence[AxisFacts]], given: tuple[AxisFacts, AxisFacts]) -> tuple[int, int, int]:
    """Return input px per output px, the border, and what is cut off; the same for all maps."""
    found = {
        _cover_of(axis, of) for output in maps for axis in output for of in given if axis.letter == of.letter
    }
    if len({grid for grid, _, _ in found}) > 1:
        raise ValueError("outputs lie on grids of different pitch")
    if not found:
        return 1, 0, 0
    grid = max(grid for grid, _, _ in found)
    lost, halo = max(lost for _, lost, _ in found), max(halo for _, _, halo in found)
    if len({lost for _, lost, _ in found}) > 1:
        raise ValueError("outputs reach differently far")
    if any(of.size is not None and (of.size <= 2 * grid * (lost + halo) or of.size % grid) for of in given):
        raise ValueError(f"nothing is left of the outputs without a halo of {halo} px")
    return grid, grid * (lost + halo), halo


def _cover_of(axis: AxisFacts, given: AxisFacts) -> tuple[int, int, int]:
    """Return for one side: input px per output px, output px that are missing at either end, halo."""
    scale, offset = axis.scale, axis.offset
    if scale is None:
        if axis.size is None or given.size is None:
            return 1, 0, axis.halo
        scale = 1.0 if given.size % axis.size else axis.size / given.size
        offset = axis.size - given.size * scale
    grid = round(1 / scale)
    if grid < 1 or abs(grid * scale - 1) > 1e-6:
        raise ValueError(
            f"{scale:g} output px per input px along {axis.letter}; 1, 1/2, 1/3 ... are possible"
        )
    if offset > 0 or offset % 2:
        raise ValueError(f"the output is {offset:g} px longer than the input along {axis.letter}")
    return grid, int(-offset) // 2, axis.halo
