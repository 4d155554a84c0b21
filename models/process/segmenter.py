"""The segmenter whose model lives in another environment: Cellpose, StarDist, or five lines of a user's own."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import ModelError
from ...acquire.frame import Frame, Pixels
from ..labels import Labels, numbered
from .environment import find_python, find_worker
from .program import Program


class ProcessSegmenter:
    """Finds cells with a Python model that runs in a process of another environment.

    The process is started, and the model loaded, when the segmenter is built; it ends with the segmenter, or with
    this process. If it dies, or takes too long over a frame and is ended, that frame fails, and for the next
    frame it is started again.

    The model must look at each image alone: one image gives the same labels whatever came before it. So there is
    nothing to remember, and a model that was started again, or serves another run, is as good as a new one.

    Parameters
    ----------
    worker
        Name of a shipped worker (``cellpose``, ``stardist``), or path of a Python file that defines
        ``load(**options)``, which returns a function ``segment(image)``. That is given (y, x), or (channels, y, x)
        if there are several, uint8 or uint16; it returns whole numbers (y, x), 0 is background, and may return a
        tuple of them and the confidence of each cell, 0 to 1, in the order of their numbers.
    python
        Interpreter of the other environment, or the environment's folder; ``""`` is the Python that runs cytoloop.
    options
        Keywords of ``load``.
    channel
        Index or name of the channel that the model is given.
    channels
        Two or more channels that the model is given instead, in this order; the first is the one of the cells.
    start_s, timeout_s
        Time in s to start it and load the model, and for one frame.
    restarts
        How often in a row it is started again, without a frame that succeeds in between.

    Raises
    ------
    ModelError
        If the interpreter, the file or what it needs is missing, or loading fails; from ``segment``, if the model
        fails on a frame. The text names the file, its line, and what the process said last.
    ValueError
        Names the option and what it may be.
    """

    def __init__(
        self,
        *,
        worker: str,
        python: str = "",
        options: dict[str, Any] | None = None,
        channel: int | str = 0,
        channels: tuple[int | str, ...] = (),
        start_s: float = 120.0,
        timeout_s: float = 30.0,
        restarts: int = 3,
    ) -> None:
        for name, value in (("start_s", start_s), ("timeout_s", timeout_s)):
            if not 0 < value <= 86_400:
                raise ValueError(f"{name} must be above 0, up to 86400, got {value}")
        if restarts < 0:
            raise ValueError(f"restarts must be 0 or more, got {restarts}")
        if channels and (len(set(channels)) != len(channels) or len(channels) < 2):
            raise ValueError(
                f"channels must be two or more different ones, got {channels}; else give channel"
            )
        if any(isinstance(each, int) and each < 0 for each in (channel, *channels)):
            raise ValueError("channel must be a name, or 0 or more")
        try:
            msgspec.json.encode(options)
        except (TypeError, msgspec.MsgspecError) as error:
            raise ValueError(
                f"options must be numbers, strings, lists and tables of them: {error}"
            ) from error
        self.channels: tuple[int | str, ...] = channels or (channel,)
        self.channel: int | str = self.channels[0]
        self.start_s, self.timeout_s = start_s, timeout_s
        self._model = _Restarting(find_python(python), find_worker(worker), options or {}, start_s, restarts)
        self._end = weakref.finalize(self, self._model.close)

    def segment(self, frame: Frame) -> Labels:
        """Return the labels that the model gives, renumbered, and confidences if it says them."""
        planes = [frame.channel(channel) for channel in self.channels]
        image = planes[0] if len(planes) == 1 else cast(Pixels, np.stack(planes))
        return _labels_of(*self._model.segment(image, self.timeout_s))

    def reset(self) -> None:
        """Take the next frame as the first of another stream: what failed before does not count any more."""
        self._model.forgive()

    def memory(self, frame: Frame) -> dict[str, Any]:
        """Return nothing: the model looks at each frame alone."""
        return {}

    def recall(self, frame: Frame, memory: Mapping[str, Any]) -> None:
        """Do nothing, since there is nothing to take over."""

    def close(self) -> None:
        """End the process; a segmenter that is no longer used does so by itself."""
        self._end()


class _Restarting:
    """Keeps a program, and starts it again for the next image if it has ended."""

    def __init__(
        self, python: Path, worker: Path, options: dict[str, Any], start_s: float, restarts: int
    ) -> None:
        self._how = (python, worker, options, start_s)
        self._restarts, self._lost = restarts, 0
        self._last = "its process ended"
        self._closed = False
        self._program = Program(*self._how)

    def segment(
        self, image: Pixels, timeout_s: float
    ) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
        program = self._running()
        try:
            found = program.segment(image, timeout_s)
        except ModelError as error:
            self._last = str(error)
            raise
        self._lost = 0
        return found

    def _running(self) -> Program:
        name = self._how[1].name
        if self._closed:
            raise ModelError(f"{name}: the segmenter is closed")
        if not self._program.ended:
            return self._program
        self._program.close()
        if self._lost >= self._restarts:
            raise ModelError(
                f"{name}: started again {self._lost} times in a row, and no frame succeeded (restarts); it is left"
                f" alone now. The last time: {self._last.removeprefix(name + ': ')}"
            )
        self._lost += 1
        try:
            self._program = Program(*self._how)
        except ModelError as error:
            self._last = str(error)
            raise
        return self._program

    def forgive(self) -> None:
        """Count anew how often it is started again."""
        self._lost = 0

    def close(self) -> None:
        self._closed = True
        self._program.close()


def _labels_of(image: NDArray[np.int32], confidences: NDArray[np.float32] | None) -> Labels:
    """Return labels numbered 1..count in the order of the numbers that the model gave."""
    lowest, largest = int(image.min()), int(image.max())
    if lowest < 0:
        raise ModelError(f"labels hold {lowest}; 0 is background, cells are 1 and more")
    image, numbers = numbered(image)
    return Labels(image, len(numbers), _confidences_of(numbers, largest, confidences))


def _confidences_of(
    numbers: NDArray[Any], largest: int, confidences: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    """Return the confidence of each cell: one was given for each number up to the largest, or for each cell."""
    if confidences is None:
        return None
    if len(confidences) != len(numbers):
        if len(confidences) < largest:
            raise ModelError(f"{len(confidences)} confidences for {len(numbers)} cells")
        confidences = confidences[numbers - 1]
    if not ((confidences >= 0) & (confidences <= 1)).all():
        raise ModelError("confidences must be numbers from 0 to 1")
    return confidences
