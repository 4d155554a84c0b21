"""A ring of shared-memory slots: how pixels cross between processes of one host without passing a socket.

The microscope's side owns the segment and writes; the service only reads, in place. A slot belongs to one
frame until that frame is answered. Every connection gets a new ring, so that a service that was cut off and
still reads cannot meet pixels of a later frame; the checksum in the header would tell if it did.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from ..errors import WireError
from ..frame import Pixels
from ..memory import attach_memory
from .messages import Offer

_TOKEN_BYTES = 16
_ALIGNMENT = 64


class RingWriter:
    """The owner's side: ``slots`` slots of at least ``slot_bytes`` bytes each.

    Raises
    ------
    OSError
        If the system gives no shared memory of that size.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.slot_bytes = -(-slot_bytes // _ALIGNMENT) * _ALIGNMENT
        self._slots = slots
        self._token = secrets.token_bytes(_TOKEN_BYTES)
        # The name says whose it is; macOS allows 31 characters.
        name = f"cyto_{os.getpid()}_{secrets.token_hex(4)}"
        self._memory = SharedMemory(name, create=True, size=_ALIGNMENT + slots * self.slot_bytes)
        _bytes_of(self._memory)[:_TOKEN_BYTES] = self._token
        self._free = list(range(slots))
        self._slot_of: dict[int, int] = {}

    @property
    def offer(self) -> Offer:
        """What the service must know to find the ring, and to be sure that it is this one."""
        return Offer(self._memory.name, self._slots, self.slot_bytes, self._token)

    def put(self, sequence: int, pixels: Pixels) -> int:
        """Copy the pixels of a frame into a slot; return its number, or -1 if none is free or large enough."""
        if not self._free or pixels.nbytes > self.slot_bytes:
            return -1
        slot = self._free.pop()
        self._slot_of[sequence] = slot
        start = _ALIGNMENT + slot * self.slot_bytes
        target = np.frombuffer(_bytes_of(self._memory), pixels.dtype, pixels.size, start).reshape(
            pixels.shape
        )
        np.copyto(target, pixels)
        return slot

    def release(self, sequence: int) -> None:
        """Free the slot of a frame that was answered; a frame without one is fine."""
        slot = self._slot_of.pop(sequence, None)
        if slot is not None:
            self._free.append(slot)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        with contextlib.suppress(FileNotFoundError):
            self._memory.unlink()


class RingReader:
    """The service's side of an offered ring.

    Raises
    ------
    WireError
        If there is no such ring on this host, or it is smaller than was said.
    """

    def __init__(self, offer: Offer) -> None:
        try:
            self._memory = attach_memory(offer.name)
        except (OSError, ValueError) as error:
            raise WireError(f"ring {offer.name!r} cannot be seen from here: {error}") from None
        self._slots, self._slot_bytes = offer.slots, offer.slot_bytes
        needed = _ALIGNMENT + offer.slots * offer.slot_bytes
        if self._memory.size < needed or bytes(_bytes_of(self._memory)[:_TOKEN_BYTES]) != offer.token:
            self.close()
            raise WireError(f"ring {offer.name!r} is not the one that was offered")

    def view(self, slot: int, nbytes: int) -> memoryview:
        """Return the first bytes of a slot, in place.

        Raises
        ------
        WireError
            If the ring has no such slot or it is too small.
        """
        if slot >= self._slots or nbytes > self._slot_bytes:
            raise WireError(
                f"slot {slot} with {nbytes} bytes; the ring has {self._slots} of {self._slot_bytes}"
            )
        start = _ALIGNMENT + slot * self._slot_bytes
        return _bytes_of(self._memory)[start : start + nbytes].toreadonly()

    def close(self) -> None:
        """Let go of the memory; the owner gives it back."""
        self._memory.close()


def _bytes_of(memory: SharedMemory) -> memoryview:
    if memory.buf is None:  # only after close()
        raise WireError(f"ring {memory.name!r} is closed")
    return memory.buf
