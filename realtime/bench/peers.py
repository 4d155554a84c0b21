"""Nets of other projects, to be measured beside ours; extra ``peers``, best in an environment of its own.

They get random weights, which take as long as trained ones, and run as their own package runs them. What comes
after the net is given what a perfect net would have said, so that it finds as many cells as there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import MissingExtraError
from ...acquire.frame import Frame
from ...models.labels import Labels
from .operations import Effort

Mask = NDArray[np.int32]
_TILE_PX = 224  # of Cellpose
_STEEPNESS = 5.0  # by which Cellpose's net scales flows


class CellposePeer:
    """The net of Cellpose 3 on its tiles, and its dynamics.

    Images are not resized to the diameter that it was trained on, which would take longer still.

    Parameters
    ----------
    threads
        For torch.
    truth
        The true mask of each frame, 0 is background, else 1..count.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """

    device = "cpu"

    def __init__(self, threads: int, truth: list[Mask]) -> None:
        torch = _torch(threads, "cellpose")
        self._core, self._dynamics, self._transforms = (
            import_module(f"cellpose.{name}") for name in ("core", "dynamics", "transforms")
        )
        kind = import_module("cellpose.resnet_torch").CPnet
        # Its flag for MKL-DNN is left out: with it this net takes longer.
        self._net = kind([2, 32, 64, 128, 256], 3, sz=3, mkldnn=False).eval()
        self._flows = [
            (_STEEPNESS * self._dynamics.masks_to_flows(mask)).astype(np.float32) for mask in truth
        ]
        self._inside = [np.where(mask > 0, 6.0, -6.0).astype(np.float32) for mask in truth]
        self._per_tile = _operations(torch, kind([2, 32, 64, 128, 256], 3, sz=3), (1, 2, _TILE_PX, _TILE_PX))
        self._tiles = 0
        self._net.register_forward_pre_hook(self._count)

    def segment(self, frame: Frame, index: int) -> tuple[Labels, Effort]:
        """Return the cells of a frame, and what the net took."""
        self._tiles = 0
        image = np.zeros((*frame.shape, 2), np.float32)
        image[..., 0] = self._transforms.normalize99(frame.channel().astype(np.float32))
        began = time.perf_counter()
        self._core.run_net(self._net, image[np.newaxis])
        net_ms = 1000 * (time.perf_counter() - began)
        mask = self._dynamics.compute_masks(self._flows[index], self._inside[index])
        labels = Labels(np.ascontiguousarray(mask, np.int32), int(mask.max()))
        return labels, Effort(self._tiles * self._per_tile, net_ms=net_ms)

    def _count(self, net: Any, inputs: tuple[Any, ...]) -> None:
        self._tiles += len(inputs[0])


class InstansegPeer:
    """The net of InstanSeg for nuclei and cells, without what makes cells of its embeddings.

    Parameters and errors are those of :class:`CellposePeer`.
    """

    device = "cpu"

    def __init__(self, threads: int, truth: list[Mask]) -> None:
        self._torch = _torch(threads, "instanseg")
        kind = import_module("instanseg.utils.models.InstanSeg_UNet").InstanSeg_UNet
        self._build: Callable[[], Any] = lambda: kind(
            in_channels=3, out_channels=[[2, 2, 1], [2, 2, 1]], layers=[256, 128, 64, 32]
        )
        self._net = self._build().eval()
        self._labels = [Labels(mask, int(mask.max())) for mask in truth]
        self._per_frame = _operations(self._torch, self._build(), (1, 3, *truth[0].shape))

    def segment(self, frame: Frame, index: int) -> tuple[Labels, Effort]:
        """Return the true cells, and what the net took."""
        plane = frame.channel().astype(np.float32)
        low, high = np.percentile(plane, (0.1, 99.9))
        planes = np.repeat(((plane - low) / max(high - low, 1e-6))[np.newaxis, np.newaxis], 3, axis=1)
        tensor = self._torch.from_numpy(planes.astype(np.float32))
        began = time.perf_counter()
        with self._torch.inference_mode():
            self._net(tensor)
        net_ms = 1000 * (time.perf_counter() - began)
        return self._labels[index], Effort(self._per_frame, net_ms=net_ms)


PEERS = {"cellpose3": CellposePeer, "instanseg-net": InstansegPeer}


def _torch(threads: int, needed: str) -> Any:
    """Return torch, set to so many threads, if a package is here."""
    if find_spec(needed) is None or find_spec("torch") is None:
        raise MissingExtraError(needed, "peers")
    torch = import_module("torch")
    torch.set_num_threads(threads)
    return torch


def _operations(torch: Any, net: Any, shape: tuple[int, ...]) -> float:
    """Return the operations of a net, from shapes alone."""
    counter = import_module("torch.utils.flop_counter").FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        net.eval().to("meta")(torch.empty(shape, device="meta"))
    return float(counter.get_total_flops())
