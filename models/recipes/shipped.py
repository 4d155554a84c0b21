"""The nets that ship, made from scratch: ``python -m cytoloop.models.recipes.shipped --help``.

Two cores need about 70 minutes for ``q32``; a second course of 11 000 steps, ``--start`` with the weights of the
first and newly drawn simulations, takes half an hour more. The same seed on the same machine gives the same weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
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
    "fluorescence": 0.42,
    "phase": 0.13,
    "gray_brightfield": 0.02,
    "rods": 0.22,
    "nuclei": 0.11,
    "phase_cells": 0.10,
}
"""How often each kind of image is drawn."""


STEPS = {"q16": 12_000, "q32": 32_000, "h16": 14_000, "f16": 6_000}
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
    parser.add_argument("--start", type=Path, help="weights.pt to go on from, at a third of the rate")
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
    net, schedule = CellNet(ARCHITECTURES[given.net]), course.schedule
    if given.start:
        net.load_state_dict(torch.load(given.start, weights_only=True))
        schedule = replace(schedule, rate=schedule.rate / 3)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(given.net, total=schedule.steps)

        def report(step: int, loss: float, score: float | None) -> None:
            progress.update(task, completed=step, description=f"{given.net} loss {loss:.3f}")

        fit(net, crops, schedule, given.out, report=report, resume=given.resume)
    torch.save(net.state_dict(), given.out / "weights.pt")


if __name__ == "__main__":
    main()
