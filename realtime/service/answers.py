"""What is answered over the wire when someone asks why a cell was or was not chosen in the last frame."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from ...acquire.link.messages import Because, FrameHeader
from ...acquire.link.pixels import checksum
from ..asking import Judged
from ..pipeline import Step
from ..trial.firings import cut_crop
from ..trial.why import ARMED


def because(judged: Judged, track: int) -> Because:
    """Return what each rule says of a cell, without a picture."""
    moment = judged.moment
    rules = {file or ARMED: judged.explain(track, file) for file in judged.rules}
    return Because(
        track=track,
        sequence=moment.frame.sequence,
        time_s=moment.frame.time_s,
        seen=moment.tracks.row(track) is not None,
        rules=rules,
    )


def with_image(answer: Because, judged: Judged, header: FrameHeader, step: Step) -> Because:
    """Add the image around the cell, unless its pixels are no longer what they were: their memory is lent."""
    moment = judged.moment
    row = moment.tracks.row(answer.track) if answer.track else None
    frame = step.frame
    if row is None or frame is None:
        return answer
    image = frame.channel(moment.channel)
    alone = frame.pixels.shape == header.shape  # of joined channels we hold a copy
    if alone and checksum(frame.pixels) != header.checksum:
        return answer
    crop = cut_crop(image, None, moment.tracks.detections.bbox[row].tolist(), row + 1, "")
    low, high = np.percentile(crop.image, (0.5, 99.5)).tolist()
    gray = np.clip((crop.image - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)
    return replace(answer, image=gray.tobytes(), shape=gray.shape, box=crop.box)
