"""The family of nets: an additive-skip U-Net that works on a coarse grid, so that it fits the deadline on a CPU.

The frame is folded into channels (space to depth), the net runs on what is left, and its 1x1 head is unfolded
again (pixel shuffle): no layer touches the full resolution (Shi et al., CVPR 2016, for the shuffle; Ronneberger
et al., MICCAI 2015, for the U-Net; sums in place of concatenations as in LinkNet, Chaurasia and Culurciello 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

OUTPUTS = 3
"""Logits of foreground and core, and log2 of breadth over the net's reference breadth."""


WORKING_RANGE = (0.6, 1.8)
"""Breadths, over that which a net is made for, at which the segmenter shows it most cells."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One member of the family.

    Attributes
    ----------
    fold
        Edge in px of the block that becomes one position of the net's first layer.
    widths
        Channels on each level; every level halves the resolution.
    grid
        Input px per output px.
    diameter_px
        Breadth of cells in input px that the net is made for; frames are scaled towards it.
    diameter_range
        Breadths in input px that it is trained on.
    shown_px
        Breadth at which the segmenter shows it cells; None is ``diameter_px``. Below it outlines are coarser and thin
        parts are lost, above it more single cells are split, and every frame takes longer.
    """

    fold: int
    widths: tuple[int, ...]
    grid: int
    diameter_px: float
    diameter_range: tuple[float, float]
    shown_px: float | None = None

    @property
    def step(self) -> int:
        """Input px: both sides of an input must be multiples of it."""
        return self.fold * 2 ** (len(self.widths) - 1)


ARCHITECTURES = {
    "q16": Architecture(4, (16, 32, 64, 128), 2, 24.0, (12.0, 56.0), 32.0),
    "q32": Architecture(4, (32, 64, 128, 128), 2, 24.0, (12.0, 56.0), 32.0),
    "h16": Architecture(2, (16, 32, 64, 128), 2, 14.0, (6.0, 40.0), 15.5),
    "f16": Architecture(1, (16, 32, 64, 128, 128), 1, 20.0, (6.0, 56.0), 22.0),
}


class Convolution(nn.Sequential):
    """3x3 convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )


class CellNet(nn.Module):
    """(n, channels, y, x) normalised planes -> (n, 3, y / grid, x / grid) float32; sides multiples of the step."""

    def __init__(self, architecture: Architecture, channels: int = 1) -> None:
        super().__init__()
        self.architecture, self.channels = architecture, channels
        fold, widths = architecture.fold, architecture.widths
        self.fold = nn.PixelUnshuffle(fold)
        self.stem = Convolution(channels * fold * fold, widths[0])
        self.down = nn.ModuleList(Convolution(w, w) for w in widths)
        self.wider = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.bottom = Convolution(widths[-1], widths[-1])
        self.narrower = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(Convolution(w, w) for w in widths[:-1])
        unfold = fold // architecture.grid
        self.last = Convolution(widths[0], widths[0])
        self.head = nn.Conv2d(widths[0], OUTPUTS * unfold * unfold, 1)
        self.unfold = nn.PixelShuffle(unfold)

    def forward(self, planes: Tensor) -> Tensor:
        """Return the logits and the breadth map."""
        x = self.stem(self.fold(planes))
        levels: list[Tensor] = []
        for level, convolve in enumerate(self.down):
            x = convolve(x)
            if level < len(self.wider):
                levels.append(x)
                x = self.wider[level](x)
        x = self.bottom(x)
        for level in reversed(range(len(levels))):
            x = nn.functional.interpolate(self.narrower[level](x), scale_factor=2.0, mode="nearest")
            x = self.up[level](x + levels[level])
        return self.unfold(self.head(self.last(x)))


def parameters(net: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(p.numel() for p in net.parameters())
