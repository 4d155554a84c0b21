"""The protocol of a runtime: planes in, the outputs of a net out."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[np.float32]
Precision = Literal["fp32", "bf16", "fp16", "int8"]


@runtime_checkable
class Runtime(Protocol):
    """Computes a net.

    Built once per stream in the engine process: reading weights, building and warming up belong there and may
    take minutes (progress is shown). ``run`` is called by one thread for every frame, or for every tile of it;
    it may use as many threads as it was given, keeps none of them spinning afterwards, and returns the same
    bits for the same input from run to run.

    Attributes
    ----------
    name
        What runs it, as in the configuration: ``"onnxruntime"``, ``"openvino"``, ``"tensorrt"``, ``"torch"``.
    device
        What it runs on, in words: ``"cpu"``, ``"NVIDIA RTX A4000"``.
    precision
        Of the arithmetic: ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"int8"``.
    """

    name: str
    device: str
    precision: Precision

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the net in the order of its model file.

        Parameters
        ----------
        tensor
            (n, channels, y, x) float32, C-contiguous; y and x multiples of what the net needs.

        Returns
        -------
        tuple of arrays
            float32; they may be views of memory that the next call overwrites.

        Raises
        ------
        ModelError
            If the shape does not fit the net, or the device fails.
        """
        ...
