"""The nets that ship, made from scratch: ``python -m cytoloop.models.recipes.shipped --help``.

Two cores need about an hour for ``q32``. The same seed on the same machine gives the same weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..packages.normalise import Normalisation
from ..training.courses import full_course
from ..training.crops import Crops
from ..training.images import TrainingImage, training_image
from ..training.loop import fit
from ..training.memory import keep_memory
from ..training.net import ARCHITECTURES, CellNet
from .data import Pair, dsb2018, simulated, usiigaci

SHARES = {
    "fluorescence": 0.40,
    "phase": 0.17,
    "gray_brightfield": 0.02,
    "rods": 0.22,
    "nuclei": 0.13,
    "phase_cells": 0.06,
}
"""How often each kind of image is drawn."""


STEPS = {"q16": 12_000, "q32": 12_000, "h16": 10_000, "f16": 6_000}
"""Batches that each net learns from."""


def read_pairs(data: Path, simulations: Path) -> list[Pair]:
    """Return every image that may train weights that ship, held-out ones included."""
    pairs = [*dsb2018(data / "DSB2018"), *usiigaci(data / "Usiigaci-PhC")]
    return pairs + list(simulated(simulations))


def prepare(pairs: Sequence[Pair]) -> list[TrainingImage]:
    """Return the images to learn from."""
    rule = Normalisation()
    return [training_image(p.name, p.kind, rule(p.image), p.mask) for p in pairs if not p.held_out]


def main() -> None:
    """Train one net and write its weights; :mod:`.pack` makes the package of them."""
    parser = argparse.ArgumentParser(
        prog="python -m cytoloop.models.recipes.shipped",
        description=__doc__,
        epilog="Example: ... --data data --simulated simulated --net q32 --out runs/q32",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with DSB2018 and Usiigaci-PhC")
    parser.add_argument(
        "--simulated", type=Path, required=True, help="what models/recipes/simulated.py wrote"
    )
    parser.add_argument("--net", choices=sorted(ARCHITECTURES), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="fewer or more steps than the recipe has")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    given = parser.parse_args()
    keep_memory()
    course = full_course(ARCHITECTURES[given.net], steps=given.steps or STEPS[given.net])
    crops = Crops(
        prepare(read_pairs(given.data, given.simulated)),
        SHARES,
        ARCHITECTURES[given.net],
        size_px=course.size_px,
        count=course.count,
        seed=given.seed,
    )
    torch.manual_seed(given.seed)
    net = CellNet(ARCHITECTURES[given.net])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(given.net, total=course.schedule.steps)

        def report(step: int, loss: float, score: float | None) -> None:
            progress.update(task, completed=step, description=f"{given.net} loss {loss:.3f}")

        fit(net, crops, course.schedule, given.out, report=report, resume=given.resume)
    torch.save(net.state_dict(), given.out / "weights.pt")


if __name__ == "__main__":
    main()
