"""Sight: what an expression looks at: the cells of a moment, or their last observations."""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ....trackers.history import Descent, History
from ....trackers.recent import FRAMES
from ..rule import Moment

if TYPE_CHECKING:
    from .terms import Term


_MISSING = "missing"


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

    def once(self, key: str, work: Callable[[], Any]) -> Any:
        """Return what ``work`` gives; done once per moment for each key, which no term may have as its text."""
        if key not in self._memo:
            self._memo[key] = work()
        return self._memo[key]

    def recent(self) -> RecentSight:
        """Return the last frames, as tables by place.

        Raises
        ------
        ValueError
            If the moment has no history.
        """
        return self.once("recent frames", lambda: RecentSight(self.moment))

    def past(self, frames: int, rows: NDArray[np.int64] | None = None) -> PastSight:
        """Return the last observations of the same cells, or of some of them; at most as many as are kept.

        Raises
        ------
        ValueError
            If the moment has no history.
        """
        if rows is not None:
            return PastSight(self.moment, frames, rows)
        return self.once(f"past {frames}", lambda: PastSight(self.moment, frames))

    def past_with_gaps(self) -> PastSight:
        """Return the last observations of the cells that were not seen in all of the last frames, one for all windows.

        Raises
        ------
        ValueError
            If the moment has no history.
        """

        def work() -> PastSight:
            history = _history_of(self.moment)
            rows = np.flatnonzero(history.recent.in_a_row[history.places] < FRAMES)
            return PastSight(self.moment, min(FRAMES, history.depth), rows)

        return self.once("past with gaps", work)


class RecentSight(Sight):
    """The last frames, (16, capacity) each: :attr:`~cytoloop.trackers.history.History.recent` says which is which."""

    def __init__(self, moment: Moment) -> None:
        super().__init__(moment)
        self._recent, self._memo = _history_of(moment).recent, {}

    def measured(self, column: str) -> Any:
        """Return what was measured under this name; NaN if it was not."""
        name = self.column(column, self._recent.names)
        shape = (len(self._recent.order), len(self._recent.in_a_row))
        return np.full(shape, np.nan, np.float32) if name is None else self._recent.table(name)


class PastSight(Sight):
    """The last observations of cells of a moment, (k, frames) each, the newest last; NaN where there is none.

    Attributes
    ----------
    rows
        (k,) int64, rows of the cells in the moment.
    """

    def __init__(self, moment: Moment, frames: int, rows: NDArray[np.int64] | None = None) -> None:
        super().__init__(moment)
        self._history, self._frames, self._memo = _history_of(moment), frames, {}
        self.rows = np.arange(len(self.tracks)) if rows is None else rows

    def measured(self, column: str) -> Any:
        """Return what was measured under this name; NaN if it was not."""
        name = self.column(column, self._history.names)
        if name is not None:
            return self._history.past(name, self._frames, self.rows)
        return np.full((len(self.rows), self._frames), np.nan)

    def times_s(self) -> NDArray[np.float64]:
        """Return the times of the observations in s."""
        return self.once("past times", lambda: self._history.past_s(self._frames, self.rows))


def _history_of(moment: Moment) -> History:
    if moment.history is None:
        raise ValueError("this moment has no history of its cells")
    return moment.history


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
