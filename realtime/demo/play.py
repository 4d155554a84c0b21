"""The demo as a whole: three acts, one report, and whether every promise was kept."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..demo_engine import demo_engine
from ..report.contents import percentiles
from . import follow, stimulate, survive
from .follow import Followed
from .promise import Promise
from .record import IOU, VISIBLE, Take, f1
from .report import drawing, write
from .stage import Show
from .stimulate import Stimulated
from .survive import Survived


class Act(Protocol):
    """What all acts have."""

    @property
    def take(self) -> Take:
        """How it was played."""
        ...

    @property
    def promises(self) -> list[Promise]:
        """What came of what was promised."""
        ...


@dataclass(frozen=True, slots=True)
class Length:
    """Frames of each act, and the edge of the camera's image in px."""

    follow: int = 100
    stimulate: int = 120
    survive: int = 100
    size_px: int = 512


FULL = Length()


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """The three acts."""

    followed: Followed
    stimulated: Stimulated
    survived: Survived

    @property
    def acts(self) -> Sequence[Act]:
        """In order."""
        return (self.followed, self.stimulated, self.survived)


def run_demo(out: Path, show: Show, seed: int = 0, length: Length = FULL) -> dict[str, Any]:
    """Play the demo and return its figures; ``ok`` says whether every promise was kept.

    Parameters
    ----------
    out
        Folder for report and recordings; where there is something already, a new one is made beside it.
    show
        Told about everything that happens.
    seed
        Another seed is another sample.
    length
        How many frames, and how large.

    Raises
    ------
    MissingExtraError
        Without the engine or matplotlib.
    """
    draw = drawing()
    began = time.monotonic()
    folder = fresh_folder(out)
    with tempfile.TemporaryDirectory(prefix="cytoloop-demo-") as work:
        show.progress("starting Micro-Manager's devices and the acquisition engine", 0, None)
        with demo_engine() as core:
            played = _play(core, Path(work), folder, show, seed, length)
        show.progress("drawing the report", 0, None)
        values = _figures(played)
        values["report"] = str(write(played, folder, seed, time.monotonic() - began, draw))
    (folder / "summary.json").write_text(json.dumps(values, indent=1, default=str), encoding="utf-8")
    return values


def _play(core: Any, work: Path, folder: Path, show: Show, seed: int, length: Length) -> Played:
    def act(number: int, text: str, play: Callable[..., Any], frames: int) -> Any:
        name = play.__module__.rpartition(".")[2]
        show.tell(f"Act {number} of 3: {text}")
        place = {"work": work / name, "out": folder / name}
        (work / name).mkdir()
        return play(core, show=show, seed=3 * seed + number, frames=frames, size_px=length.size_px, **place)

    return Played(
        act(1, "the stage follows a cell that would leave the field", follow.play, length.follow),
        act(2, "cells that have just divided are stimulated, and answer", stimulate.play, length.stimulate),
        act(3, "the service is killed; the acquisition keeps every frame", survive.play, length.survive),
    )


def fresh_folder(wanted: Path) -> Path:
    """Make a folder of this name, or with a number behind it where there is something already."""
    number, folder = 1, wanted
    while folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def broken_promises(acts: Sequence[Act]) -> list[str]:
    """Name every promise that was not kept, with its act and what was found."""
    return [
        f"{act.take.name}: {promise.text} ({promise.found})"
        for act in acts
        for promise in act.promises
        if not promise.kept
    ]


def _figures(played: Played) -> dict[str, Any]:
    """Return the figures under the names that scripts read."""
    followed, stimulated, survived = played.followed, played.stimulated, played.survived
    broken = broken_promises(played.acts)
    return {
        "acts": [_act(act) for act in played.acts],
        "follow": {"distance_um_p95_last_half": round(follow.p95_last_half(followed.distance_um), 3)},
        "detection": {
            "f1": round(f1([match for act in played.acts for match in act.take.matches]), 4),
            "iou_at_least": IOU,
            "part_in_image_at_least": VISIBLE,
        },
        "stimulation": {
            "fired": stimulated.fired,
            "on_true_division": stimulated.on_true_division,
            "divisions": stimulated.divisions,
        },
        "survival": {
            "restarts": survived.restarts,
            "faults": [
                {
                    "kind": fault.kind,
                    "frame": fault.frame,
                    "recovery_ms": round(fault.recovery_ms, 1) if math.isfinite(fault.recovery_ms) else None,
                    "cells": fault.both,
                    "same_identity": fault.same,
                }
                for fault in survived.faults
            ],
            "frames_unlike_undisturbed": survived.differing,
        },
        "promises_broken": broken,
        "ok": not broken,
    }


def _act(act: Act) -> dict[str, Any]:
    take = act.take
    return {
        "name": take.name,
        "frames_expected": take.expected,
        "frames_acquired": take.acquired,
        "frames_decided": take.decided,
        "latency_ms": percentiles(take.latency_ms),
        "f1": round(take.f1, 4),
        "outcomes": take.results.outcomes and take.results.outcomes.values(),
        "promises": [{"text": p.text, "found": p.found, "kept": p.kept} for p in act.promises],
    }
