"""Sight: what an expression looks at: the cells of a moment, or their last observations."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import TYPE_CHECKING, Any

import numpy as np

from ....trackers.history import Descent
from ..rule import Moment

if TYPE_CHECKING:
    from .terms import Term


_MISSING = "missing"
_GATHERED = 16  # observations that are gathered at once: most windows are no longer


class Sight:
    """The cells of a moment; what was worked out of it is kept in its memo.

    Attributes
    ----------
    moment, tracks
        What is looked at.
    shape
        (height, width) of the image in px.
    time_s
        Of the frame.
    px_per_um
        NaN where nobody knows the pixel size, so that nothing compares with a length in um.
    """

    def __init__(self, moment: Moment) -> None:
        self.moment, self.tracks = moment, moment.tracks
        self.shape, self.time_s = moment.tracks.detections.shape, moment.frame.time_s
        self.px_per_um = math.nan if moment.affine is None else 1.0 / moment.affine.pixel_size_um
        self._memo = moment.memo

    @property
    def descent(self) -> Descent:
        """Where the cells come from.

        Raises
        ------
        ValueError
            If the moment does not say.
        """
        if self.moment.descent is None:
            raise ValueError("this moment does not say where cells come from")
        return self.moment.descent

    def measured(self, column: str) -> Any:
        """Return (n,) of what is measured under this name; NaN if it is not."""
        name = self.column(column, self.moment.measured)
        return np.full(len(self.tracks), np.nan) if name is None else self.moment.measured[name]

    def column(self, wanted: str, there: Container[str]) -> str | None:
        """Return what a column is called here, None if it is not there; of one channel alone its name is left out.

        What is not there is noted among the moment's :func:`missing`.
        """
        channels = self.moment.frame.channels
        alone = wanted.removesuffix(f"_{channels[0]}") if len(channels) == 1 else wanted
        for name in (wanted, alone):
            if name in there:
                return name
        self.moment.memo.setdefault(_MISSING, set()).add(wanted)
        return None

    def value(self, term: Term) -> Any:
        """Return what a term is here: (n,) of the cells, or one of the frame; worked out once per moment."""
        found = self._memo.get(term.text)
        if found is None:
            found = self._memo[term.text] = term.compute(self)
        return found

    def past(self, frames: int) -> Past:
        """Return the last observations of the same cells, at most as many as are kept."""
        key = f"past {frames}"
        if key not in self._memo:
            self._memo[key] = Past(self, frames)
        return self._memo[key]

    def kept(self, column: str | None, frames: int) -> Any:
        """Return (n, frames) of what is kept under this name, or of its times in s; gathered once for all windows."""
        history = self.moment.history
        name = None if history is None or column is None else self.column(column, history.names)
        if history is None or (column is not None and name is None):
            return np.full((len(self.tracks), frames), np.nan)
        deep = min(history.depth, max(_GATHERED, 1 << (frames - 1).bit_length()))
        key = f"kept {name} {deep}"
        if key not in self._memo:
            kept = history.past_s(deep) if name is None else history.past(name, deep)
            self._memo[key] = kept
        return self._memo[key][:, -frames:]


class Past(Sight):
    """The last observations of the cells of a moment, (n, frames) each, the newest last; NaN where there is none."""

    def __init__(self, now: Sight, frames: int) -> None:
        super().__init__(now.moment)
        self._now, self._frames, self._memo = now, frames, {}

    def measured(self, column: str) -> Any:
        """Return (n, frames) of what was measured under this name; NaN if it was not."""
        return self._now.kept(column, self._frames)

    def times_s(self) -> Any:
        """Return (n, frames) of the observations in s."""
        return self._now.kept(None, self._frames)


def missing(moment: Moment) -> frozenset[str]:
    """Return what was asked for in this moment and is not measured."""
    return frozenset(moment.memo.get(_MISSING, ()))


def sight_of(moment: Moment) -> Sight:
    """Return how expressions look at a moment; one for all rules."""
    if "sight" not in moment.memo:
        moment.memo["sight"] = Sight(moment)
    return moment.memo["sight"]


def quantity(moment: Moment, text: str) -> Any:
    """Return what an expression gives: (n,) float64 of the cells, in px, s and frames; for rules written in Python.

    Raises
    ------
    ExpressionError
        If it is no expression of numbers (a ValueError).
    """
    from .terms import number_term

    term = number_term(text)
    with np.errstate(all="ignore"):
        found = sight_of(moment).value(term)
    return np.broadcast_to(np.asarray(found, np.float64), (len(moment.tracks),))
