"""The nets that ship, made from scratch: ``python -m cytoloop.models.recipes.shipped --help``.

A teacher first, which is too large for the deadline; then each net learns from what people drew and from what its
teacher says. An NVIDIA card needs some minutes for each; two cores need hours, and take the same code.
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
from ..training.loop import Batches, fit
from ..training.memory import keep_memory
from ..training.net import ARCHITECTURES, Architecture, CellNet
from ..training.teacher import Taught
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


TEACHERS = {
    f"teacher-{family}": replace(ARCHITECTURES[net], fold=2, widths=(48, 96, 192, 384, 384))
    for family, net in (("q", "q32"), ("h", "h16"))
}
"""Nets to learn from: the same task at half the resolution, fifty times the operations."""
NETS = {**ARCHITECTURES, **TEACHERS}
HEAPED = ("fluorescence", "nuclei")
"""Kinds whose cells lie on each other."""
TAUGHT = 0.5
"""Share of the teacher's answers in what a net learns from."""
STEPS = 12_000
CROPS = 64


def read_pairs(data: Path, simulations: Path) -> list[Pair]:
    """Return every image that may train weights that ship, held-out ones included."""
    pairs = [*dsb2018(data / "DSB2018"), *usiigaci(data / "Usiigaci-PhC")]
    return pairs + list(simulated(simulations))


def prepare(pairs: Sequence[Pair]) -> list[TrainingImage]:
    """Return the images to learn from."""
    rule = Normalisation()
    return [training_image(p.name, p.kind, rule(p.image), p.mask) for p in pairs if not p.held_out]


def _teacher_of(architecture: Architecture) -> Architecture:
    """Return the teacher that answers on the same grid about cells of the same size."""
    same = (architecture.grid, architecture.diameter_px)
    return next(one for one in TEACHERS.values() if (one.grid, one.diameter_px) == same)


def _with_weights(architecture: Architecture, weights: Path, device: str) -> CellNet:
    net = CellNet(architecture)
    net.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    return net.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def main() -> None:
    """Train one net and write its weights; :mod:`.pack` makes the package of them."""
    parser = argparse.ArgumentParser(
        prog="python -m cytoloop.models.recipes.shipped",
        description=__doc__,
        epilog="Example: ... --data data --simulated simulated --device cuda --net q32 --out runs/q32"
        " --teacher runs/teacher-q/weights.pt, after the same with --net teacher-q --out runs/teacher-q",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with DSB2018 and Usiigaci-PhC")
    parser.add_argument(
        "--simulated", type=Path, required=True, help="what models/recipes/simulated.py wrote"
    )
    parser.add_argument("--net", choices=sorted(NETS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--count", type=int, default=CROPS, help="crops in each step")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--teacher", type=Path, help="weights.pt of the teacher of this kind of net")
    parser.add_argument("--start", type=Path, help="weights.pt to go on from, at a third of the rate")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    given = parser.parse_args()
    keep_memory()
    architecture = NETS[given.net]
    course = full_course(architecture, steps=given.steps, device=given.device)
    schedule = course.schedule
    crops: Batches = Crops(
        prepare(read_pairs(given.data, given.simulated)),
        SHARES,
        architecture,
        size_px=course.size_px,
        count=given.count,
        seed=given.seed,
        device=given.device,
        heaped=HEAPED,
    )
    if given.teacher:
        crops = Taught(crops, _with_weights(_teacher_of(architecture), given.teacher, given.device), TAUGHT)
    torch.manual_seed(given.seed)
    net = CellNet(architecture)
    if given.start:
        net = _with_weights(architecture, given.start, "cpu")
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
