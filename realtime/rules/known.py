"""What is known of the frames that a rule will see, before any has come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Known:
    """What a file says of the frames to come; a rule is checked against it.

    Attributes
    ----------
    channels
        Names of the channels of a frame; empty: not known, any name may be right.
    classes
        Names of the classes of cells that the segmenter tells apart; None: not known.
    pixel_size
        False only where lengths in um cannot be told; a file that does not say leaves it True, because frames
        usually carry the size of their pixels.
    """

    channels: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    pixel_size: bool = True
