"""A net that wants something else than (1, channels, y, x), or says something else, behind the same protocol."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import ModelError
from ..runtimes.runtime import Precision, Runtime, Tensor
from .contents import ModelPackage
from .framing import Framing
from .processing import run_steps


def prepare(package: ModelPackage, planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the planes of a whole frame after the package's steps; before it is cut into tiles.

    Parameters
    ----------
    package
        What the planes are for.
    planes
        (channels, y, x) float32, after the package's normalisation.

    Raises
    ------
    ModelError
        If a step cannot be applied.
    """
    if not package.preprocess:
        return planes
    tensor = planes[np.newaxis]
    return run_steps(package.preprocess, tensor, "bcyx", {package.input_name: tensor})[0]


def adapt(runtime: Runtime, package: ModelPackage) -> Runtime:
    """Return a runtime that takes (1, channels, y, x) with any sides that are multiples of the package's grid.

    Its outputs are maps (1, outputs, y / grid, x / grid) that cover what was given, after the package's steps;
    outputs that are no maps come as they are. A net that needs none of this is returned itself.

    Parameters
    ----------
    runtime
        Runs the package's weights.
    package
        What they are.
    """
    if package.framing == Framing() and package.fixed_shape is None and not any(package.postprocess):
        return runtime
    return _Adapted(runtime, package)


class _Adapted:
    """See :func:`adapt`."""

    def __init__(self, runtime: Runtime, package: ModelPackage) -> None:
        self.name, self.device = runtime.name, runtime.device
        self.precision: Precision = runtime.precision
        self._runtime, self._package, self._framing = runtime, package, package.framing

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs; see :class:`.Runtime`."""
        package = self._package
        if tensor.ndim != 4 or tensor.shape[:2] != (1, package.channels) or tensor.size == 0:
            raise ModelError(f"{package.name}: takes (1, {package.channels}, y, x), got shape {tensor.shape}")
        outputs = (
            self._whole(tensor) if package.fixed_shape is None else self._tiles(tensor, package.fixed_shape)
        )
        steps = package.postprocess or ((),) * len(outputs)
        if len(steps) != len(outputs):
            raise ModelError(
                f"{package.name}: the net has {len(outputs)} outputs, its description {len(steps)}"
            )
        return tuple(
            run_steps(todo, output, "bcyx" if output.ndim == 4 else [str(i) for i in range(output.ndim)], {})
            for todo, output in zip(steps, outputs, strict=True)
        )

    def _whole(self, tensor: Tensor) -> list[Tensor]:
        """Run a frame in one piece, mirrored to a size that the net takes."""
        framing, step = self._framing, self._package.step
        sides = [max(side + 2 * framing.border, framing.least) for side in tensor.shape[2:]]
        height, width = (side + (framing.remainder - side) % step for side in sides)
        outputs = self._call(_mirrored(tensor, framing.border, (height, width)))
        return [self._cropped(output, (tensor.shape[2], tensor.shape[3])) for output in outputs]

    def _tiles(self, tensor: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Run a frame in pieces of the one size that the net takes."""
        border, grid = self._framing.border, self._package.grid
        inner = [side - 2 * border for side in size]
        height, width = tensor.shape[2:]
        rows, columns = -(-height // inner[0]), -(-width // inner[1])
        padded = _mirrored(tensor, border, (rows * inner[0] + 2 * border, columns * inner[1] + 2 * border))
        whole: list[Tensor] = []
        for row in range(rows):
            for column in range(columns):
                top, left = row * inner[0], column * inner[1]
                parts = self._call(padded[:, :, top : top + size[0], left : left + size[1]])
                for index, part in enumerate(parts):
                    if part.ndim != 4 and rows * columns > 1:
                        raise ModelError(
                            f"{self._package.name}: takes {size[0]} x {size[1]} px only, and output {index} is no map:"
                            f" a frame of {height} x {width} px cannot be put together"
                        )
                    part = self._cropped(part, (inner[0], inner[1]))
                    if len(whole) <= index:
                        shape = (rows * inner[0] // grid, columns * inner[1] // grid)
                        whole.append(
                            part if part.ndim != 4 else np.empty((1, part.shape[1], *shape), np.float32)
                        )
                    if part.ndim == 4:
                        y, x = top // grid, left // grid
                        whole[index][:, :, y : y + part.shape[2], x : x + part.shape[3]] = part
        covered = (slice(None), slice(None), slice(-(-height // grid)), slice(-(-width // grid)))
        return [output[covered] if output.ndim == 4 else output for output in whole]

    def _call(self, tensor: Tensor) -> list[Tensor]:
        """Run a tensor that has a size that the net takes, in the net's order of axes, and order its maps."""
        layout = self._framing.layout
        order = [letter for letter in "bcyx" if letter not in layout] + list(layout)
        given = tensor.transpose(["bcyx".index(letter) for letter in order])
        outputs = self._runtime.run(np.ascontiguousarray(given))
        layouts = self._framing.output_layouts or tuple("bcyx" if o.ndim == 4 else "" for o in outputs)
        if len(layouts) != len(outputs):
            raise ModelError(
                f"{self._package.name}: the net has {len(outputs)} outputs, its description {len(layouts)}"
            )
        border, grid = self._framing.border, self._package.grid
        size = tuple(side // grid - 2 * (border // grid - self._framing.crop) for side in tensor.shape[2:])
        return [
            self._ordered(index, output, axes, size) if axes else output
            for index, (output, axes) in enumerate(zip(outputs, layouts, strict=True))
        ]

    def _ordered(self, index: int, output: Tensor, layout: str, size: tuple[int, ...]) -> Tensor:
        """Return a map as (1, outputs, y, x)."""
        if output.ndim == len(layout):
            missing = [letter for letter in "bcyx" if letter not in layout]
            named = output.reshape((1,) * len(missing) + output.shape)
            ordered = named.transpose([(missing + list(layout)).index(letter) for letter in "bcyx"])
            if ordered.shape[2:] == size:
                return ordered
        raise ModelError(
            f"{self._package.name}: output {index} has shape {output.shape}; described is {layout!r}, with"
            f" {' x '.join(map(str, size))} px in y and x"
        )

    def _cropped(self, output: Tensor, shape: tuple[int, int]) -> Tensor:
        """Return the part of a map that covers so many px of the input."""
        if output.ndim != 4:
            return output
        crop, grid = self._framing.crop, self._package.grid
        height, width = (-(-side // grid) for side in shape)
        return output[:, :, crop : crop + height, crop : crop + width]


def _mirrored(tensor: Tensor, border: int, size: tuple[int, int]) -> Tensor:
    """Return the tensor at another size: mirrored in at the top and left by the border, else by what is missing."""
    after = [side - border - n for side, n in zip(size, tensor.shape[2:], strict=True)]
    return np.pad(tensor, ((0, 0), (0, 0), (border, after[0]), (border, after[1])), mode="symmetric")
