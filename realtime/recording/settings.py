"""What of a stream is recorded, and how."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from .layout import CodecName


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the recorder of a stream writes into the folder of each run, beside the journal.

    Attributes
    ----------
    frames
        Write every frame, as OME-Zarr. Default false: the acquisition engine saves them.
    masks
        Write the mask of every frame as a label image beside them; needs ``frames``. Default false.
    codec
        ``"raw"``, or ``"blosc-lz4"``: smaller and slower. Default ``"raw"``.
    buffer_mb
        Memory in MB between engine and recorder: seconds of frames for which the disk may be slow. Default 512.
    when_full
        ``"wait"``: the next frame is analysed when there is room, and the microscope's side keeps those that come
        meanwhile. ``"leave_out"``: it is analysed at once and not recorded, which its reply says. Default ``"wait"``.
    """

    frames: bool = False
    masks: bool = False
    codec: CodecName = "raw"
    buffer_mb: Annotated[int, msgspec.Meta(ge=16, le=1 << 20)] = 512
    when_full: Literal["wait", "leave_out"] = "wait"
