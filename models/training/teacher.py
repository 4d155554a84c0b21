"""A teacher: a larger net whose answers a small one learns from, beside what people drew.

What people drew is hard and not always right; a large net that saw all of it says how sure one can be (Hinton et
al. 2015, distillation). As cross entropy is linear in its target, the two targets are simply mixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from .crops import Batch
from .loop import Batches
from .net import CellNet


class Taught:
    """Batches whose targets are mixed with the answers of a teacher.

    Parameters
    ----------
    crops
        Where batches come from.
    teacher
        A trained net with the same grid and reference breadth as the one that learns, on the device of the batches.
    share
        Of the teacher's answers in the targets, 0 to 1.
    """

    def __init__(self, crops: Batches, teacher: CellNet, share: float) -> None:
        self._crops, self._teacher, self._share = crops, teacher.eval(), share

    def batch(self) -> Batch:
        """Return the next batch."""
        batch = self._crops.batch()
        planes = batch.planes.to(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(planes.device.type, dtype=torch.bfloat16):
            answer = self._teacher(planes).float()
        foreground, core = torch.sigmoid(answer[:, 0]), torch.sigmoid(answer[:, 1])
        return replace(
            batch,
            inside=torch.lerp(batch.inside, foreground, self._share),
            core=torch.lerp(batch.core, core, self._share),
            breadth=torch.where(batch.inside > 0, batch.breadth, answer[:, 2]),
        )

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs to go on with the very next batch."""
        return self._crops.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        self._crops.restore(state)
