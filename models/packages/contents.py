"""What a model package says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..runtimes.runtime import Precision
from .framing import Framing
from .normalise import Normalisation
from .processing import Step


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file that a runtime can run.

    Attributes
    ----------
    path
        Where it lies.
    kind
        Its format.
    precision
        Of the weights and the arithmetic.
    sha256
        Of its content, 64 hex digits.
    """

    path: Path
    kind: Literal["onnx", "torchscript"]
    precision: Precision
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A net, and what is needed to use it.

    Attributes
    ----------
    name
        What people call it.
    folder
        Where its files lie.
    weights
        The same net in several formats and precisions; the first is the reference.
    channels, channel_names
        Of the input.
    step
        Input px: y and x of what the net is given must be multiples of it.
    fixed_shape
        (y, x) in input px if the net takes one size only, else None.
    normalise
        How grey levels are mapped on the way in.
    diameter_px
        Breadth in input px of the cells that the net was made for; None: frames are taken as they are.
    diameter_range
        (smallest, largest) breadth in input px that it handles.
    shown_px
        Breadth in input px at which cells are shown to it; None: its ``diameter_px``.
    grid
        Input px per output px.
    novelty
        What is known of familiar images, by name; None if nothing is.
    decoder, decoder_options
        What makes cells of the outputs: a registered decoder or ``module:Class``, and its options.
    card
        For people: data, scores, limits. Markdown.
    terms
        On which the net may be used: an SPDX identifier, or words.
    preprocess
        Steps between the mapped grey levels and the net.
    postprocess
        Steps between the net and the decoder, for each output.
    input_name
        Of the input, as the steps call it.
    framing
        How a frame is laid before the net, and its outputs over the frame.
    """

    name: str
    folder: Path
    weights: tuple[WeightsFile, ...]
    channels: int = 1
    channel_names: tuple[str, ...] = ()
    step: int = 1
    fixed_shape: tuple[int, int] | None = None
    normalise: Normalisation = field(default_factory=Normalisation)
    diameter_px: float | None = None
    diameter_range: tuple[float, float] | None = None
    shown_px: float | None = None
    grid: int = 1
    novelty: Mapping[str, float] | None = None
    decoder: str = ""
    decoder_options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    card: str = ""
    terms: str = ""
    preprocess: tuple[Step, ...] = ()
    postprocess: tuple[tuple[Step, ...], ...] = ()
    input_name: str = "input"
    framing: Framing = field(default_factory=Framing)
