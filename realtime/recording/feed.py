"""The engine's end of the ring to the recorder."""

from __future__ import annotations

from ...acquire.errors import LinkError
from ...acquire.frame import Frame
from ...acquire.link.messages import FrameHeader
from ...acquire.link.pixels import header_of
from ...acquire.reply import Reply
from ...models.labels import Labels
from .records import put_close, put_frame, put_mask
from .ring import RecordRing
from .settings import Record

_SPARE_BYTES = 1 << 16
_MASK_BYTES = 4
_NOT_RECORDED = "frame {} is not recorded: "


def left_out(reply: Reply) -> bool:
    """Return whether a reply says that its frame (not only its mask) is not recorded."""
    return any(message.startswith(_NOT_RECORDED.format(reply.sequence)) for message in reply.messages)


class RecorderFeed:
    """Hands frames and masks on to the recorder, without ever waiting for it.

    Parameters
    ----------
    record
        What is recorded, and what to do when the recorder does not keep up.
    ring
        Between both; closed with the feed.

    Attributes
    ----------
    waits
        Whether frames wait for room at this moment.
    """

    def __init__(self, record: Record, ring: RecordRing) -> None:
        self.waits = False
        self._record, self._ring = record, ring

    def has_room(self, frame_bytes: int) -> bool:
        """Return whether a frame may be analysed now; always, if it may be left out."""
        record = self._record
        if not record.frames or record.when_full == "leave_out":
            return True
        needed = frame_bytes * (1 + _MASK_BYTES * record.masks) + _SPARE_BYTES
        self.waits = self._ring.capacity - self._ring.used < min(2 * needed, self._ring.capacity)
        return not self.waits

    def put(
        self, folder: str, header: FrameHeader, frame: Frame, labels: Labels | None, segmented: Frame | None
    ) -> tuple[str, ...]:
        """Hand a frame on, and its mask; return what a person should know.

        Parameters
        ----------
        folder
            Of the run.
        header, frame
            As they came.
        labels, segmented
            The mask, and the frame that it is of; None if it was not segmented.
        """
        if not self._record.frames:
            return ()
        number = header.sequence
        try:
            if not put_frame(self._ring, folder, header, frame):
                return (f"{_NOT_RECORDED.format(number)}the disk is slower than the frames",)
            if self._record.masks and labels is not None and segmented is not None:
                of_mask = header_of(segmented, skipped=0, slot=-1, check=0)
                if not put_mask(self._ring, folder, of_mask, labels.image):
                    return (
                        f"the mask of frame {number} is not recorded: the disk is slower than the frames",
                    )
        except LinkError as error:
            return (f"{_NOT_RECORDED.format(number)}{error} (record.buffer_mb)",)
        return ()

    def end(self, folder: str) -> None:
        """Say that a run has ended; if there is no room for that, its recording is closed later."""
        put_close(self._ring, folder)

    def close(self) -> None:
        """Let go of the ring."""
        self._ring.close()
