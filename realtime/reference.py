"""A second segmenter that segments a sample of the frames again, and how far the stream's own agrees with it."""

from __future__ import annotations

from dataclasses import replace

from ..acquire.frame import Frame
from ..models.detections import Detections
from ..models.labels import Labels
from ..models.scores import score
from ..models.segmenter import Remembering, Segmenter
from .notices import Notices
from .trust import Trust

IOU = 0.5
ENOUGH_CELLS = 5
"""With fewer cells in both masks, one more or less would decide."""


class Reference:
    """Compares every n-th segmented frame of a stream, beginning with the first.

    A reference that remembers frames forgets them before each, so that what it says does not depend on when an engine
    was started.

    Parameters
    ----------
    trust
        Names the reference, if there is one.

    Raises
    ------
    PluginError
        If it cannot be constructed.
    """

    def __init__(self, trust: Trust) -> None:
        wanted = trust.reference is not None and bool(trust.reference_f1)
        self._segmenter: Segmenter | None = None
        if wanted and trust.reference is not None:
            self._segmenter = trust.reference.build("segmenters")
        self._notices = Notices()
        self._every, self._next = trust.reference_every, 0

    def compare(self, view: Frame, labels: Labels, found: Detections) -> tuple[Detections, tuple[str, ...]]:
        """Return the detections, with ``agreement`` if this frame is compared, and what a person should read.

        Parameters
        ----------
        view
            The frame as the stream's segmenter saw it.
        labels
            What that found.
        found
            What was measured of it.
        """
        wanted = self.pass_over()
        if self._segmenter is None or not wanted:
            return found, ()
        try:
            agreement = _agreement(self._segmenter, view, labels)
        except Exception as error:  # a segmenter is anyone's code, and the experiment must outlive it
            failed = f"trust: the reference segmenter failed: {type(error).__name__}: {error}"
            return found, self._notices.once(failed)
        return replace(found, agreement=agreement), ()

    def pass_over(self) -> bool:
        """Count a segmented frame; return whether it is one to compare."""
        wanted = self._next % self._every == 0
        self._next += 1
        return wanted


def _agreement(reference: Segmenter, view: Frame, labels: Labels) -> float | None:
    """Return the F1 of a mask against that of the reference, None if there is too little to compare."""
    if isinstance(reference, Remembering):
        reference.reset()
    truth = reference.segment(view)
    if max(truth.count, labels.count) < ENOUGH_CELLS:
        return None
    return score(truth.image, labels.image, (IOU,)).f1[IOU]
