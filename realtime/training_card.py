"""What is told of a training: figures for scripts, a card for the package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from ..models.scores import pool
from ..models.training.validate import Judged
from .train import Order, Trained

SHOWN = (0.5, 0.75, 0.9)
_DIGITS = 6


def figures_of_training(order: Order, trained: Trained) -> dict[str, Any]:
    """Return what ``cytoloop train --json`` prints, but for the paths of what was written."""
    history = trained.history
    held_out = [one.image.name for one in trained.after]
    return {
        "images": len(trained.images),
        "cells": sum(image.cells for image in trained.images),
        "learned_from": len(trained.images) - (0 if trained.in_turn else len(held_out)),
        "held_out": held_out,
        "held_out_in_turn": trained.in_turn,
        "steps": trained.course.schedule.steps,
        "best_step": history.best[0],
        "decoder_options": trained.package.decoder_options,
        "before": scores_of(trained.before),
        "after": scores_of(trained.after),
        "improved": trained.improved,
        "tests": {"before": scores_of(trained.tests_before), "after": scores_of(trained.tests_after)}
        if trained.tests_after
        else None,
        "curve": {"loss": history.loss, "AP": history.score},
        "settings": {
            "folder": order.folder,
            "from": order.start,
            "net": None if order.start else order.net,
            "seed": order.seed,
            "hold_out": order.share,
            "keep": order.keep if order.start else None,
            "partial": order.partial,
            "threads": order.threads,
            "crops_px": trained.course.size_px,
            "crops_per_step": trained.course.count,
            "rate": trained.course.schedule.rate,
        },
    }


def scores_of(judged: Sequence[Judged]) -> dict[str, Any] | None:
    """Return the scores of all images pooled, under the names of ``cytoloop evaluate --images``."""
    if not judged:
        return None
    whole = pool(one.scores for one in judged)
    return {
        "AP": {str(at): round(value, _DIGITS) for at, value in whole.ap.items()},
        "F1": {str(at): round(value, _DIGITS) for at, value in whole.f1.items()},
        "PQ": round(whole.pq[0.5], _DIGITS),
        "images": len(judged),
        "cells_true": whole.cells_true,
        "cells_found": whole.cells_found,
    }


def rows_of(before: dict[str, Any] | None, after: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Return (score, before, after) as people read them."""

    def told(scores: dict[str, Any] | None, *keys: str) -> str:
        value: Any = scores
        for key in keys:
            value = value[key] if value is not None else None
        return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"

    keys = [(name, str(at)) for name in ("AP", "F1") for at in SHOWN]
    rows = [(f"{name} at IoU {at}", (name, at)) for name, at in keys]
    single = [(key.replace("_", " "), (key,)) for key in ("PQ", "cells_found", "cells_true")]
    return [(name, told(before, *path), told(after, *path)) for name, path in [*rows, *single]]


def card(name: str, order: Order, trained: Trained, terms: str) -> str:
    """Return the card of the package: data, scores, limits, terms. Markdown."""
    figures = figures_of_training(order, trained)
    made = (
        f"the net `{order.start}`, fitted to images"
        if order.start
        else f"a `{order.net}`, trained from scratch"
    )
    if trained.in_turn:
        held = (
            "Each image was held out once, from nets trained on the others only; this net learned from all. Those"
            " held out chose how deep a valley parts two cells."
        )
    else:
        held = (
            f"{len(figures['held_out'])} images were held out: {', '.join(figures['held_out'])}. They taught nothing,"
            f" but chose the step ({figures['best_step']} of {figures['steps']}) and how deep a valley parts two"
            " cells, so that other images may score a little lower."
        )
    breadths = [2 * np.sqrt(np.bincount(i.mask.reshape(-1))[1:].mean() / np.pi) for i in trained.images]
    parts = [
        f"# {name}",
        f"Finds cells with {made} of one's own by `cytoloop train` (cytoloop {version('cytoloop')}).",
        "## Data",
        f"`{order.folder.resolve().name}`: {figures['images']} images with {figures['cells']} cells, on average"
        f" {min(breadths):.0f} to {max(breadths):.0f} px across (diameter of a circle of their area)."
        + (
            " Not every cell is in the masks; what is far from all that are did not count."
            if order.partial
            else ""
        ),
        held,
        "## Scores on images held out",
        _table(figures["before"], figures["after"]),
    ]
    if trained.tests_after:
        parts += [
            f"## Scores on {len(trained.tests_after)} images that had no part in it",
            _table(figures["tests"]["before"], figures["tests"]["after"]),
        ]
    parts += [
        "## Settings",
        f"{figures['steps']} steps of {trained.course.count} crops of {trained.course.size_px} px, largest rate"
        f" {trained.course.schedule.rate:g}, seed {order.seed}.",
        "## Limits",
        "It was fitted to few images of one kind: judge it on images of another day, microscope or treatment before"
        " you trust it there. Frames that look unlike those that were held out get a novelty above 1.",
        "## Terms",
        terms or "None stated.",
    ]
    return "\n\n".join(parts) + "\n"


def _table(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    lines = [f"| {name} | {one} | {other} |" for name, one, other in rows_of(before, after)]
    return "\n".join(["| | before | after |", "|---|---|---|", *lines])
