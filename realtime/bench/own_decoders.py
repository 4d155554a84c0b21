"""The decoder that each family of nets comes with, to be measured beside ours; extra ``peers``.

Each is called as its own package calls it, with that package's usual settings. Families that are a recipe and no
package are done as their recipe says, with the functions of scikit-image: their name then says so.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import MissingExtraError
from ...models.decoders.decoder import Tensor
from .encoders import instanseg_classifier

Found = NDArray[np.integer]
Shape = tuple[int, int]

LEAST = 0.5
"""Probability of foreground, of cores, of StarDist's middles and of the px of masks in boxes."""


class OwnDecoder(Protocol):
    """Makes cells of what a net of one family says, in the family's own way.

    Built once. ``prepare`` is called for each answer of a net, ``decode`` for each time that is taken; both may
    write to standard output.
    """

    name: str

    def prepare(self, outputs: tuple[Tensor, ...], shape: Shape) -> Any:
        """Return the outputs as the family's own nets give them; its time is not counted.

        Parameters
        ----------
        outputs
            As for our decoder of the family.
        shape
            (height, width) of the frame in px.
        """
        ...

    def decode(self, given: Any) -> Found:
        """Return (y, x) cells: 0 is background, each cell has a number of its own."""
        ...


class BoundaryRecipe:
    """Foreground without boundary is cut into cells, which a watershed of the boundary lets grow over the rest.

    Raises
    ------
    MissingExtraError
        If scikit-image is not installed; of every decoder here: if its package is not.
    """

    name = "scikit-image, the usual recipe"

    def __init__(self) -> None:
        self._measure, self._segmentation = _module("skimage.measure"), _module("skimage.segmentation")

    def prepare(self, outputs: tuple[Tensor, ...], shape: Shape) -> Any:
        """Return the two maps."""
        return outputs[0][0]

    def decode(self, given: Any) -> Found:
        """Return the cells."""
        foreground, boundary = given
        markers = self._measure.label(foreground - boundary > LEAST, connectivity=1)
        return self._segmentation.watershed(boundary, markers, mask=foreground > LEAST)


class DistanceRecipe:
    """What ``deep_watershed`` of the package deepcell-toolbox does, with its usual values [1]_.

    Peaks of the inner distance are seeds of a watershed of the outer one. The package itself builds with old
    releases of numpy and imports with old ones of scikit-image only.

    .. [1] Documentation of deepcell-toolbox, ``deep_watershed``.
    """

    name = "scikit-image, as deepcell-toolbox does"
    apart_px, least_peak, inside = 10, 0.1, 0.01

    def __init__(self) -> None:
        self._feature, self._segmentation = _module("skimage.feature"), _module("skimage.segmentation")

    def prepare(self, outputs: tuple[Tensor, ...], shape: Shape) -> Any:
        """Return the two maps."""
        return outputs[0][0]

    def decode(self, given: Any) -> Found:
        """Return the cells."""
        inner, outer = given
        peaks = self._feature.peak_local_max(
            inner, min_distance=self.apart_px, threshold_abs=self.least_peak, exclude_border=False
        )
        seeds = np.zeros(inner.shape, np.int32)
        seeds[peaks[:, 0], peaks[:, 1]] = np.arange(1, len(peaks) + 1)
        return self._segmentation.watershed(-outer, seeds, mask=outer > self.inside)


class StardistOwn:
    """Non-maximum suppression and drawing of the package stardist, which do without its nets and TensorFlow."""

    name = "stardist"

    def __init__(self) -> None:
        self._suppress = _module("stardist.nms").non_maximum_suppression
        self._draw = _module("stardist.geometry").polygons_to_label

    def prepare(self, outputs: tuple[Tensor, ...], shape: Shape) -> Any:
        """Return distances with the rays last, probabilities and the shape."""
        return np.ascontiguousarray(np.moveaxis(outputs[1][0], 0, -1)), outputs[0][0, 0], shape

    def decode(self, given: Any) -> Found:
        """Return the cells."""
        distance, probability, shape = given
        points, likely, chosen = self._suppress(
            distance, probability, b=0, nms_thresh=0.4, prob_thresh=LEAST, verbose=False
        )
        return self._draw(chosen, points, shape=shape, prob=likely)


class CellposeOwn:
    """The dynamics of the package cellpose, 3.1, with the check of flows and the cleaning that follow."""

    name = "cellpose"

    def __init__(self) -> None:
        self._compute = _module("cellpose.dynamics").resize_and_compute_masks

    def prepare(self, outputs: tuple[Tensor, ...], shape: Shape) -> Any:
        """Return flows and logits."""
        return outputs[0][0, :2], outputs[0][0, 2]

    def decode(self, given: Any) -> Found:
        """Return the cells."""
        flow, logit = given
        return self._compute(flow, logit)


class OmniposeOwn:
    """The masks of the package omnipose, without its check of flows: as its documentation runs its nets."""

    name = "omnipose"

    def __init__(self) -> None:
        self._compute = _module("omnipose.core").compute_masks
        self._device = _module("torch").device("cpu")

    def prepare(self, outputs: tuple[Tensor, ...], shape: Shape) -> Any:
        """Return flows, distances and the logit of the outline."""
        maps = outputs[0][0]
        return maps[:2], maps[2], maps[3]

    def decode(self, given: Any) -> Found:
        """Return the cells."""
        flow, distance, outline = given
        found = self._compute(
            flow, distance, bd=outline, flow_threshold=0, min_size=15, nclasses=3, device=self._device
        )
        return found[0]


class InstansegOwn:
    """What the package instanseg-torch puts behind its backbone, compiled as it is in the published nets."""

    name = "instanseg-torch"

    def __init__(self) -> None:
        self._torch = _module("torch")
        self._loss = _module("instanseg.utils.loss.instanseg_loss")
        # A backbone for the package to trace, of which only the pixel classifier is used.
        backbone = self._torch.nn.Conv2d(3, 5, 1)
        backbone.pixel_classifier = self._classifier()
        self._net = self._loss.InstanSeg_Torchscript(backbone, backbone_dim_in=3).eval()

    def _classifier(self) -> Any:
        made = self._loss.ProbabilityNet(embedding_dim=4, width=5)
        with self._torch.no_grad():
            for target, values in zip(made.parameters(), instanseg_classifier(), strict=True):
                target.copy_(self._torch.tensor(values).reshape(target.shape))
        return made

    def prepare(self, outputs: tuple[Tensor, ...], shape: Shape) -> Any:
        """Return an image, and the net with a backbone that answers with the maps whatever the image."""
        image = self._torch.zeros((1, 3, *shape))
        # Frames are padded to a multiple of 16 px; what comes back is cut to the frame again.
        beyond = [-size % 16 for size in shape]
        maps = self._torch.from_numpy(np.pad(outputs[0], [(0, 0), (0, 0), (0, beyond[0]), (0, beyond[1])]))
        self._net.fcn = _answering(self._torch, maps)
        return self._torch.jit.script(self._net), image

    def decode(self, given: Any) -> Found:
        """Return the cells."""
        net, image = given
        with self._torch.inference_mode():
            return net(image)[0, 0].numpy().astype(np.int32)


class TorchvisionOwn:
    """Suppression and pasting of torchvision's Mask R-CNN; a px in several masks goes to the surest."""

    name = "torchvision"
    together = 32
    """Masks that are pasted at a time, each on a frame of its own: so the memory stays small."""

    def __init__(self) -> None:
        self._torch = _module("torch")
        self._suppress = _module("torchvision.ops").nms
        self._paste = _module("torchvision.models.detection.roi_heads").paste_masks_in_image

    def prepare(self, outputs: tuple[Tensor, ...], shape: Shape) -> Any:
        """Return tensors."""
        return tuple(self._torch.from_numpy(output) for output in outputs), shape

    def decode(self, given: Any) -> Found:
        """Return the cells."""
        (boxes, _, scores, masks), shape = given
        kept = self._suppress(boxes, scores, LEAST)
        best, owner = self._torch.zeros(shape), self._torch.zeros(shape, dtype=self._torch.int32)
        for start in range(0, len(kept), self.together):
            some = kept[start : start + self.together]
            sure, which = self._paste(masks[some], boxes[some], shape)[:, 0].max(dim=0)
            better = (sure >= LEAST) & (sure > best)
            best[better], owner[better] = sure[better], (which[better] + start + 1).int()
        return owner.numpy()


OWN: dict[str, type[OwnDecoder]] = {
    "boundary": BoundaryRecipe,
    "distance": DistanceRecipe,
    "stardist": StardistOwn,
    "cellpose": CellposeOwn,
    "omnipose": OmniposeOwn,
    "instanseg": InstansegOwn,
    "boxes": TorchvisionOwn,
}
"""The one of each family."""


def _answering(torch: Any, maps: Any) -> Any:
    """Return a net that answers with the same maps to every image of their size."""

    class Answering(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = maps

        def forward(self, image: Any) -> Any:
            # The cut changes nothing; a net that does not look at its image at all cannot be traced.
            return self.maps[:, :, : image.shape[2], : image.shape[3]]

    return torch.jit.trace(Answering(), torch.zeros(1, 3, *maps.shape[2:]))


def _module(name: str) -> Any:
    """Import a module of a package that may be missing, or lack something itself."""
    package = name.partition(".")[0]
    if find_spec(package) is None:
        raise MissingExtraError({"skimage": "scikit-image"}.get(package, package), "peers")
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise MissingExtraError(
            f"{package} is here, but something that it needs ({reason})", "peers"
        ) from error
