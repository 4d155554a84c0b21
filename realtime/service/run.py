"""One acquisition run on the service's side: every frame exactly once, also across the death of the engine."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import tifffile
from msgspec.structs import replace

from ...acquire.commands import Disarm
from ...acquire.errors import WireError
from ...acquire.frame import Frame
from ...acquire.link.messages import Because, FrameHeader, Outcomes, Question, Terms
from ...acquire.reply import Cells, Reply
from ...models.labels import Labels
from ...models.segmenter import Segmenter
from ..experiment.stream import StreamConfig
from ..pipeline import Pipeline, Step
from ..recording.feed import RecorderFeed
from .answers import because, with_image
from .attempts import Attempts
from .event_log import EventLog
from .held import HeldImages
from .journal import Entry, Journal
from .made_with import write_made_with
from .outcome_log import OutcomeLog
from .run_folder import write_stream

_KEPT_REPLIES = 256  # more than any client can have unanswered
_MOST_ATTEMPTS = 3
LEFT_OUT = "is left out: the engine died of it"


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
    segmenter
        The stream's segmenter, loaded, that knows no frames yet; None has it built here.
    feed
        Hands frames and masks on to the recorder; None: they are not recorded.

    Attributes
    ----------
    events
        Where all that happens is written down in its order.
    """

    def __init__(
        self,
        stream: StreamConfig,
        log: Path,
        run: str,
        alive: Callable[[], None],
        segmenter: Segmenter | None = None,
        feed: RecorderFeed | None = None,
    ) -> None:
        self.name = run
        self.folder = _run_folder(log / stream.name, run)
        self.next_sequence = 0
        self._pipeline = Pipeline(stream, segmenter)
        self._stream, self._feed = stream, feed
        self._policy = stream.policy
        configuration = write_stream(self.folder, stream)
        write_made_with(self.folder, stream)
        self._masks = self.folder / "masks" if stream.save_masks else None
        if self._masks is not None:
            self._masks.mkdir(exist_ok=True)
        self._replies: deque[Reply] = deque(maxlen=_KEPT_REPLIES)
        self._attempts = Attempts(self.folder / "attempts")
        self._held = HeldImages(self.folder / "held") if self._pipeline.joiner else None
        self._journal = Journal(self.folder / "journal")
        self._outcomes = OutcomeLog(self.folder, configuration)
        self.events = EventLog(self.folder)
        self.events.add("taken over" if self.events.next else "opened", engine=os.getpid())
        self._last: tuple[FrameHeader, Step] | None = None
        waiting: dict[int, FrameHeader] = {}
        for entry in self._journal.entries():
            self._pipeline.restore(entry.frame, entry.restore_detections(), entry.memory)
            self._keep(entry.reply)
            if entry.header.sequence > self.events.last_frame:  # the engine died between journal and line
                self.events.add_reply(entry.reply)
            waiting[entry.header.sequence] = entry.header
            waiting = {number: waiting[number] for number in self._waiting}
            alive()
        self._fill(waiting)

    def process(self, header: FrameHeader, frame: Frame) -> Reply:
        """Segment, track, decide and write down; the reply may be sent as soon as this returns."""
        if header.sequence - header.skipped != self.next_sequence:
            raise WireError(f"frame {header.sequence} is out of order; {self.next_sequence} is next")
        step = self._step(header, frame)
        reply, labels, detections, segmented, memory = step
        if self._feed is not None:
            said = self._feed.put(str(self.folder.resolve()), header, frame, labels, segmented)
            reply = replace(reply, messages=(*reply.messages, *said)) if said else reply
        if self._masks is not None and labels is not None:
            mask = self._masks / f"{header.sequence:06d}.tif"
            reply = _tried(reply, "its mask", lambda: write_mask(mask, labels))
        held = self._held
        if held is not None and header.sequence in self._waiting:
            reply = _tried(reply, "its pixels", lambda: held.write(frame))
        with_mask = self._pipeline.needs_masks
        entry = Entry.of(header, detections, reply, segmented, memory, with_mask=with_mask)
        logged = _tried(reply, "it", lambda: self._journal.append(entry))
        reply = reply if logged is reply else _unlogged(logged)
        if held is not None:  # only now: until it was written down, the frame may have to be made again
            held.keep(self._waiting)
        self.events.add_reply(reply)
        self._keep(reply)
        self._last = header, step
        return reply

    @property
    def terms(self) -> Terms:
        """What may reach the hardware."""
        maps, stream = self._pipeline.maps, self._stream
        known = maps.configured
        return Terms(
            armed=stream.armed,
            limits=stream.limits,
            safe=stream.safe,
            affine=None if known is None else (known.xx, known.xy, known.yx, known.yy),
            uncalibrated=maps.refused if stream.calibration else "",
        )

    def note(self, outcomes: Outcomes) -> int | None:
        """Write down what came of decisions; return the number of the next, None if a full disk does not let us."""
        try:
            number = self._outcomes.add(outcomes)
        except OSError:
            return None
        self.events.add("outcomes", first=outcomes.first, next=number)
        return number

    def explain(self, question: Question) -> Because | None:
        """Answer a question about the last frame that was judged; None if it is about one before."""
        judged = self._pipeline.judged
        latest = -1 if judged is None else judged.moment.frame.sequence
        if judged is None or question.sequence >= self.next_sequence:
            last = f"the last frame that was judged is frame {latest}"
            return Because(question.track, latest, refused=last if judged else "no frame has been judged yet")
        header, step = self._last or (None, None)
        if header is None or step is None or step.frame is None or step.frame.sequence != latest:
            return because(judged, question.track) if question.sequence in (-1, latest) else None
        if question.sequence not in (-1, latest, header.sequence):  # that of the image that completed it
            return None
        return with_image(because(judged, question.track), judged, header, step)

    def forget_image(self) -> None:
        """Let go of the last image: the memory that it lies in is given back."""
        self._last = None

    @property
    def _waiting(self) -> frozenset[int]:
        joiner = self._pipeline.joiner
        return frozenset() if joiner is None else joiner.held

    def _fill(self, waiting: dict[int, FrameHeader]) -> None:
        """Give the images that waited when the engine before died their pixels back."""
        joiner, held = self._pipeline.joiner, self._held
        if joiner is None or held is None:
            return
        held.keep(joiner.held)
        images = [held.read(header) for header in waiting.values()]
        found = [image for image in images if image is not None]
        for image in found:
            joiner.fill(image)
        joiner.forget(joiner.held - {image.sequence for image in found})

    def _step(self, header: FrameHeader, frame: Frame) -> Step:
        """Run the pipeline, unless it has died of this very frame time and again."""
        if self._begin(header.sequence) > _MOST_ATTEMPTS:
            message = f"frame {header.sequence} {LEFT_OUT} {_MOST_ATTEMPTS} times"
            self._pipeline.restore(frame, None)  # as the next engine will, so that both are in one state
            return Step(Reply(header.sequence, Cells.none(), messages=(message,)))
        step = self._pipeline.step(frame)
        if not header.skipped or self._policy == "latest":
            return step
        message = (
            f"{header.skipped} frames before frame {header.sequence} never came: the client left them out"
        )
        return step._replace(reply=_with_message(step.reply, message))

    def _begin(self, sequence: int) -> int:
        try:
            return self._attempts.begin(sequence)
        except OSError:  # a full disk; the journal will say so
            return 1

    def replies_from(self, sequence: int) -> list[Reply]:
        """Return the replies from ``sequence`` to the last one (at most 256), in order; none is left out."""
        known = {reply.sequence: reply for reply in self._replies}
        first = max(sequence, self.next_sequence - _KEPT_REPLIES)
        return [known.get(number) or _lost(number) for number in range(first, self.next_sequence)]

    def unfinished(self) -> tuple[str, ...]:
        """Return what to say, at the end of the run, of images whose other channels never came."""
        joiner = self._pipeline.joiner
        return () if joiner is None else joiner.unfinished()

    def close(self) -> None:
        """Close the files."""
        if self._feed is not None:
            self._feed.end(str(self.folder.resolve()))
        self._attempts.close()
        self._outcomes.close()
        self.events.add("closed", engine=os.getpid())
        self.events.close()
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


def _tried(reply: Reply, what: str, write: Callable[[], None]) -> Reply:
    """Write something of a frame; if that fails, go on and say so.

    Going on matters more than the log: a running experiment must not die of a full disk.
    """
    try:
        write()
    except OSError as error:
        return _with_message(
            reply, f"frame {reply.sequence}: {what} could not be written to the log: {error}"
        )
    return reply


def _unlogged(reply: Reply) -> Reply:
    """Refuse the decisions of a reply that is not in the journal.

    The next engine would not know of them: quotas and doses would be given again, and nobody could tell why.
    """
    decisions = tuple(
        each
        if each.refused or isinstance(each.command, Disarm)
        else replace(each, refused="it could not be written to the log")
        for each in reply.decisions
    )
    return replace(reply, decisions=decisions)


def _with_message(reply: Reply, message: str) -> Reply:
    return replace(reply, messages=(*reply.messages, message))


def write_mask(path: Path, labels: Labels) -> None:
    """Write the mask of a frame, and that of its nuclei beside it if there are any.

    Raises
    ------
    OSError
        If it could not be written.
    """
    image = labels.image.astype("uint16" if labels.count < 65_536 else "uint32")
    tifffile.imwrite(path, image, compression="zlib")
    if labels.nuclei is not None:
        nuclei = labels.nuclei.image.astype(image.dtype)
        tifffile.imwrite(path.with_name(f"{path.stem}_nuclei.tif"), nuclei, compression="zlib")
