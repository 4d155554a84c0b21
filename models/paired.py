"""Paired segmenter: nuclei and cells found apart, and paired, so that nucleus and cytoplasm can be measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..acquire.errors import FrameError, nearest_name
from ..acquire.frame import Frame
from ..acquire.plugins import OptionError, build, convert_option, find_class
from . import pairing
from .labels import Labels
from .pairing import pair, paired, ring
from .segmenter import Remembering, Segmenter, as_new, needed_channels

_RINGS = {"ring_px": float, "ring_um": float}
_WIDEST_PX = 200.0


class PairedSegmenter:
    """Finds nuclei with one segmenter and cells with another, and gives each nucleus to its cell.

    The result are the cells, with their nuclei. A cell without a nucleus is kept, so is one with several; how
    many it has is measured. A nucleus that lies in no cell is left out. Where nothing stains the cytoplasm, a
    ring around each nucleus takes the place of the cell.

    Parameters
    ----------
    nuclei
        Segmenter of the nuclei: its name, or ``use`` and its options, as in an experiment file.
    cells
        Segmenter of the cells, likewise; or ``ring_px`` or ``ring_um``, the width of a ring around each
        nucleus, 1 to 200 px. ``ring_um`` needs frames that say their pixel size.
    share
        Least part of a nucleus that must lie in its cell, above 0 to 1.

    Raises
    ------
    OptionError
        Names the option, in ``nuclei`` and ``cells`` as ``nuclei.threshold``.
    PluginError
        For a segmenter that does not exist.
    ValueError
        If ``share`` is out of its range.
    """

    def __init__(
        self, *, nuclei: str | dict[str, Any], cells: str | dict[str, Any], share: float = 0.5
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0, up to 1, got {share}")
        self._share = share
        self._tables = {"nuclei": _table(nuclei), "cells": _table(cells)}
        self._nuclei = _build_part("nuclei", self._tables["nuclei"])
        self._ring = _read_ring(self._tables["cells"])
        self._cells = None if self._ring else _build_part("cells", self._tables["cells"])
        parts = [self._nuclei] if self._cells is None else [self._cells, self._nuclei]
        self.start_s, self.timeout_s = (
            sum(float(getattr(part, name, None) or 0.0) for part in parts)
            for name in ("start_s", "timeout_s")
        )
        pairing.warm_up()
        self.channel: int | str = parts[0].channel
        self.channels: tuple[int | str, ...] = tuple(
            dict.fromkeys(channel for part in parts for channel in needed_channels(part))
        )

    def segment(self, frame: Frame) -> Labels:
        """Return the cells of the frame with their nuclei."""
        nuclei = self._nuclei.segment(frame)
        if self._cells is None:
            grown = ring(nuclei.image, _ring_px(self._ring, frame))
            cells = Labels(grown, nuclei.count, nuclei.confidence, nuclei.novelty)
        else:
            cells = self._cells.segment(frame)
        known = [novelty for novelty in (nuclei.novelty, cells.novelty) if novelty is not None]
        return Labels(
            cells.image,
            cells.count,
            cells.confidence,
            max(known, default=None),
            paired(nuclei, cells, pair(nuclei, cells, self._share)),
        )

    def reset(self) -> None:
        """Make both segmenters forget what they learned of the stream; one that cannot is built anew."""
        self._nuclei = as_new(self._nuclei, lambda: _build_part("nuclei", self._tables["nuclei"]))
        if self._cells is not None:
            self._cells = as_new(self._cells, lambda: _build_part("cells", self._tables["cells"]))

    def memory(self, frame: Frame) -> dict[str, Any]:
        """Return what both segmenters know."""
        return {name: part.memory(frame) for name, part in self._remembering().items()}

    def recall(self, frame: Frame, memory: Mapping[str, Any]) -> None:
        """Take over what :meth:`memory` returned."""
        for name, part in self._remembering().items():
            part.recall(frame, memory[name])

    def _remembering(self) -> dict[str, Remembering]:
        parts = {"nuclei": self._nuclei, "cells": self._cells}
        return {name: part for name, part in parts.items() if isinstance(part, Remembering)}


def _table(part: str | dict[str, Any]) -> dict[str, Any]:
    return {"use": part} if isinstance(part, str) else part


def _build_part(name: str, table: Mapping[str, Any]) -> Segmenter:
    """Build a segmenter from its table; what is wrong with an option is told by the option's full name."""
    use, options = table.get("use"), {key: value for key, value in table.items() if key != "use"}
    if not isinstance(use, str):
        known = ("use",) if name == "nuclei" else ("use", *_RINGS)
        hint = next((near for key in table if (near := nearest_name(key, known))), "")
        raise OptionError(name, f"expected a table with {' or '.join(known)}.", hint)
    try:
        part = build(find_class("segmenters", use), options)
    except OptionError as error:
        raise error.within(name) from error
    if not isinstance(part, Segmenter):
        raise OptionError(f"{name}.use", f"{use!r} is no segmenter: it lacks segment(frame) and channel.")
    return part


def _read_ring(cells: Mapping[str, Any]) -> dict[str, float]:
    """Return the width of the ring under its unit; empty if cells are segmented."""
    given = {key: value for key, value in cells.items() if key in _RINGS}
    if not given:
        return {}
    if len(cells) > 1:
        raise OptionError("cells", f"a ring takes one of {', '.join(_RINGS)} and nothing else.")
    try:
        values = {key: float(convert_option(key, value, _RINGS[key])) for key, value in given.items()}
    except OptionError as error:
        raise error.within("cells") from error
    for key, value in values.items():
        if not value > 0 or (key == "ring_px" and not 1 <= value <= _WIDEST_PX):
            raise OptionError(f"cells.{key}", f"{value:g}: a ring is 1 to {_WIDEST_PX:g} px wide.")
    return values


def _ring_px(width: Mapping[str, float], frame: Frame) -> float:
    if "ring_px" in width:
        return width["ring_px"]
    if not frame.pixel_size_um:
        raise FrameError("ring_um needs a pixel size: give pixel_size_um for the stream, or ring_px instead")
    px = width["ring_um"] / frame.pixel_size_um
    if not 1 <= px <= _WIDEST_PX:
        raise FrameError(f"ring_um {width['ring_um']:g} is {px:g} px; a ring is 1 to {_WIDEST_PX:g} px wide")
    return px
