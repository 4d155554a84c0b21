"""One acquisition run on the service's side: every frame exactly once, also across the death of the engine."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import tifffile
from msgspec.structs import replace

from ..acquire.errors import WireError
from ..acquire.frame import Frame
from ..acquire.messages import FrameHeader
from ..acquire.reply import Cells, Reply
from ..models.labels import Labels
from .config import StreamConfig
from .journal import Entry, Journal
from .pipeline import Pipeline

_KEPT_REPLIES = 256  # more than any client can have unanswered


class Run:
    """The pipeline of one run and its journal.

    Opening a run that is on disk already feeds its journal to a new pipeline, which brings tracker, rules and
    limits into the state in which the engine before left them.

    Parameters
    ----------
    stream
        Configuration of the stream.
    log
        Folder of all runs; this one gets ``log/stream/DATE_RUN``.
    run
        The client's identification of the run.
    alive
        Called for every frame that is restored, so that a long journal is not taken for a hang.
    """

    def __init__(self, stream: StreamConfig, log: Path, run: str, alive: Callable[[], None]) -> None:
        self.name = run
        self.folder = _run_folder(log / stream.name, run)
        self.next_sequence = 0
        self._pipeline = Pipeline(stream)
        self._policy = stream.policy
        self._masks = self.folder / "masks" if stream.save_masks else None
        if self._masks is not None:
            self._masks.mkdir(exist_ok=True)
        self._replies: deque[Reply] = deque(maxlen=_KEPT_REPLIES)
        self._journal = Journal(self.folder / "journal")
        for entry in self._journal.entries():
            self._pipeline.restore(entry.frame, entry.restore_detections())
            self._keep(entry.reply)
            alive()

    def process(self, header: FrameHeader, frame: Frame) -> Reply:
        """Segment, track, decide and write down; the reply may be sent as soon as this returns."""
        if header.sequence - header.skipped != self.next_sequence:
            raise WireError(f"frame {header.sequence} is out of order; {self.next_sequence} is next")
        reply, labels, detections = self._pipeline.step(frame)
        messages = list(reply.messages)
        if header.skipped and self._policy == "lossless":
            messages.append(
                f"{header.skipped} frames before frame {header.sequence} never arrived: the client left them out"
            )
        try:
            if self._masks is not None and labels is not None:
                _write_mask(self._masks, header.sequence, labels)
            reply = replace(reply, messages=tuple(messages))
            self._journal.append(Entry.of(header, detections, reply))
        except OSError as error:
            # Going on matters more than the log: a running experiment must not die of a full disk. But say so.
            messages.append(f"frame {header.sequence} is not in the log: {error}")
            reply = replace(reply, messages=tuple(messages))
        self._keep(reply)
        return reply

    def replies_from(self, sequence: int) -> list[Reply]:
        """Return the replies from ``sequence`` to the last one, in order; none is left out."""
        known = {reply.sequence: reply for reply in self._replies}
        return [known.get(number) or _lost(number) for number in range(sequence, self.next_sequence)]

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _keep(self, reply: Reply) -> None:
        self._replies.append(reply)
        self.next_sequence = reply.sequence + 1


def _lost(sequence: int) -> Reply:
    return Reply(sequence, Cells.none(), messages=(f"the reply to frame {sequence} is not in the log",))


def _run_folder(parent: Path, run: str) -> Path:
    known = sorted(parent.glob(f"*_{run}"))
    if known:
        return known[0]
    folder = parent / f"{time.strftime('%Y-%m-%d_%H%M%S')}_{run}"
    folder.mkdir(parents=True)
    return folder


def _write_mask(folder: Path, sequence: int, labels: Labels) -> None:
    image = labels.image.astype("uint16" if labels.count < 65_536 else "uint32")
    tifffile.imwrite(folder / f"{sequence:06d}.tif", image, compression="zlib")
