"""Training on images of one's own: hold some out, judge, learn, judge again, write the package.

Needs the extra ``train``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..acquire.errors import ModelError
from ..models.packages.contents import ModelPackage
from ..models.packages.package import load_package
from ..models.training.between import between
from ..models.training.courses import PERSISTENCES, Course, fine_course, full_course
from ..models.training.crops import Crops
from ..models.training.folder import Annotated, read_annotated
from ..models.training.images import TrainingImage, training_image
from ..models.training.loop import History, fit
from ..models.training.memory import keep_memory
from ..models.training.net import ARCHITECTURES, CellNet
from ..models.training.partial import known_regions
from ..models.training.restore import net_from_onnx
from ..models.training.split import folds, hold_out
from ..models.training.validate import Judge, Judged, mean_ap, package_net, template
from .progress import Progress, silent
from .training_folder import WorkFolder, fingerprint

FEW = 8
"""Below so many images each is held out once in turn, and the net that is written learns from all."""
PARTS = 3
FEWEST_FINE, FEWEST_FROM_SCRATCH = 3, FEW
FEWEST_TO_CHOOSE = 50
"""Cells held out below which the decoder's options stay as they were: a choice by fewer is a choice by chance."""
KIND = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked for.

    Attributes
    ----------
    folder
        Images and masks; see :func:`~cytoloop.models.training.folder.read_annotated`.
    out
        Where the package will be.
    start
        Name or path of the package to start from; None starts from scratch.
    net
        Which net to make from scratch.
    steps
        None takes what the course says.
    seed
        The same seed gives the same package on the same computer.
    share
        Of the images to hold out.
    keep
        Share of the weights of the net to start from that the net is in the end, 0 to 1.
    channel, foreground, partial
        How images and masks are read.
    tests
        Folder of images that neither teach nor choose, judged before and after.
    threads
        Of the CPU.
    device
        Where the net learns: ``"cpu"``, ``"cuda"``, or ``"auto"`` for an NVIDIA card where torch sees one.
    resume
        Go on with an interrupted training.
    """

    folder: Path
    out: Path
    start: str | None = "q32"
    net: str = "q32"
    steps: int | None = None
    seed: int = 0
    share: float = 0.25
    keep: float = 0.5
    channel: int | None = None
    foreground: bool = False
    partial: bool = False
    tests: Path | None = None
    threads: int = 2
    device: str = "auto"
    resume: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What came of a training.

    Attributes
    ----------
    net, package
        The net, and what its package will say but for name, card and terms.
    images
        All that were read, those held out included.
    before, after
        Of the images held out; before is empty for a net from scratch.
    tests_before, tests_after
        Of the images that had no part in it.
    history
        Of the part that gave the net.
    course
        How it was trained.
    in_turn
        Whether every image was held out once, from nets that were trained for it alone.
    work
        What is kept of the training; to be removed when the package is written.
    """

    net: CellNet
    package: ModelPackage
    images: Sequence[Annotated]
    before: Sequence[Judged]
    after: Sequence[Judged]
    tests_before: Sequence[Judged]
    tests_after: Sequence[Judged]
    history: History
    course: Course
    in_turn: bool
    work: WorkFolder

    @property
    def improved(self) -> bool:
        """Whether the net finds cells in images held out better than the one that it started from."""
        return not self.before or mean_ap(self.after) > mean_ap(self.before)

    def write(self, out: Path, *, name: str, card: str, terms: str) -> ModelPackage:
        """Write the package, and return it as it is read again."""
        doubts = [one.doubt for one in self.after]
        novelty = {"doubt_p95": max(float(np.percentile(doubts, 95)), 1e-3)}
        said = replace(self.package, name=name, card=card, terms=terms, novelty=novelty)
        return package_net(self.net, said, out)


def train(order: Order, progress: Progress = silent) -> Trained:
    """Train a net as ordered.

    What was learned is kept in the folder ``OUT.training`` at every check; it stays there until the caller has
    written the package and removes it.

    Raises
    ------
    SourceError
        If images or masks cannot be learned from; names them.
    ModelError
        If the package to start from cannot be trained on, the package is there already, or what is kept does not
        fit the order.
    """
    keep_memory()
    progress("reading images")
    fewest = FEWEST_FINE if order.start else FEWEST_FROM_SCRATCH
    images = _read(order, order.folder, fewest)
    tests = _read(order, order.tests, 1) if order.tests else []
    return _Training(order, images, tests, progress).run()


def _read(order: Order, folder: Path, fewest: int) -> list[Annotated]:
    return read_annotated(
        folder, channel=order.channel, foreground=order.foreground, partial=order.partial, fewest=fewest
    )


class _Training:
    """One training, prepared but not begun."""

    def __init__(
        self, order: Order, images: list[Annotated], tests: list[Annotated], progress: Progress
    ) -> None:
        self._order, self._images, self._tests, self._progress = order, images, tests, progress
        if order.start is not None:
            self._package = _to_start_from(order.start)
            self._first = net_from_onnx(self._package)
            course = fine_course
        else:
            if order.partial:
                raise ModelError("partial masks do not teach what background is; start from a trained net")
            torch.manual_seed(order.seed)
            self._first = CellNet(ARCHITECTURES[order.net])
            self._package = template(self._first.architecture)
            course = full_course
        given = {} if order.steps is None else {"steps": order.steps}
        device = _device(order.device)
        self._course = course(self._first.architecture, threads=order.threads, device=device, **given)
        self._work = WorkFolder(order.out, self._settings(), resume=order.resume)

    def _settings(self) -> dict[str, Any]:
        """Return all that the result depends on."""
        order = self._order
        return {
            "start": self._package.weights[0].sha256 if order.start else order.net,
            "steps": self._course.schedule.steps,
            "seed": order.seed,
            "device": self._course.schedule.device,
            "share": order.share,
            "keep": order.keep,
            "partial": order.partial,
            "images": fingerprint(self._images),
        }

    def run(self) -> Trained:
        in_turn = self._order.start is not None and len(self._images) < FEW
        everything = list(range(len(self._images)))
        held_out = (
            everything
            if in_turn
            else hold_out([i.name for i in self._images], self._order.share, self._order.seed)
        )
        before = self._judge(held_out)(self._first) if self._order.start else []
        tests_before = self._judge_tests(self._first, {}) if self._order.start else []
        learn = self._prepared()
        if in_turn:
            tried: dict[float | None, list[Judged]] = {value: [] for value in PERSISTENCES}
            for number, part in enumerate(parts := folds(len(learn), PARTS), start=1):
                others = [image for position, image in enumerate(learn) if position not in part]
                net, _ = self._teach(others, f"part{number}", f"held out in turn, {number} of {len(parts)}")
                for value, judged in _try_decoders(self._judge(part), net).items():
                    tried[value] += judged
            net, history = self._teach(learn, "all", "all images")
        else:
            judge = self._judge(held_out)
            rest = [image for position, image in enumerate(learn) if position not in held_out]

            def score(averaged: CellNet) -> float:
                return mean_ap(judge(averaged))

            cells = sum(int(self._images[position].mask.max()) for position in held_out)
            net, history = self._teach(rest, "all", "learning", score if cells >= FEWEST_TO_CHOOSE else None)
            tried = _try_decoders(judge, net)
        persistence = _choose(tried)
        after = tried[persistence]
        if before and not in_turn and mean_ap(after) <= mean_ap(before):
            net, persistence, after, history.best = self._first, None, before, (0, mean_ap(before))
        options = {**self._package.decoder_options, **_option(persistence)}
        return Trained(
            net,
            replace(self._package, decoder_options=options),
            self._images,
            before,
            after,
            tests_before,
            self._judge_tests(net, options),
            history,
            self._course,
            in_turn,
            self._work,
        )

    def _prepared(self) -> list[TrainingImage]:
        order, rule = self._order, self._package.normalise
        self._progress("preparing images")
        known = (
            known_regions(self._images, str(self._package.folder), order.threads) if order.partial else None
        )
        return [
            training_image(one.name, KIND, rule(one.image), one.mask, known[position] if known else None)
            for position, one in enumerate(self._images)
        ]

    def _judge(self, positions: Sequence[int]) -> Judge:
        return self._judge_of([self._images[position] for position in positions])

    def _judge_tests(self, net: CellNet, options: dict[str, Any]) -> list[Judged]:
        return self._judge_of(self._tests)(net, options) if self._tests else []

    def _judge_of(self, images: Sequence[Annotated]) -> Judge:
        folder, order = self._work.part("judged"), self._order
        return Judge(images, self._package, folder, partial=order.partial, threads=order.threads)

    def _teach(
        self,
        learn: Sequence[TrainingImage],
        part: str,
        label: str,
        score: Callable[[CellNet], float] | None = None,
    ) -> tuple[CellNet, History]:
        """Train a copy of the first net, or go on with it where it was interrupted."""
        net, course, folder = self._copy(), self._course, self._work.part(part)
        crops = Crops(
            learn,
            {KIND: 1.0},
            replace(net.architecture, diameter_range=course.diameter_range),
            size_px=course.size_px,
            count=course.count,
            seed=self._order.seed,
            device=course.schedule.device,
        )

        def mixed(learned: CellNet) -> CellNet:
            return between(self._first, learned, self._order.keep) if self._order.start else learned

        history = fit(
            net,
            crops,
            course.schedule,
            folder,
            score=score and (lambda averaged: score(mixed(averaged))),
            report=_reporter(self._progress, label, course.schedule.steps),
            resume=self._order.resume and (folder / "checkpoint.pt").is_file(),
        )
        return mixed(net), history

    def _copy(self) -> CellNet:
        if self._order.start is not None:
            return net_from_onnx(self._package)
        net = CellNet(self._first.architecture)
        net.load_state_dict(self._first.state_dict())
        return net


def _device(wanted: str) -> str:
    if wanted != "cpu" and torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise ModelError("device 'cuda': this torch sees no NVIDIA card; 'cpu' and 'auto' work here")
    return "cpu"


def _to_start_from(name: str) -> ModelPackage:
    package = load_package(name)
    if package.channels != 1:
        raise ModelError(f"{name}: looks at {package.channels} channels; nets for one can be trained on")
    return package


def _try_decoders(judge: Judge, net: CellNet) -> dict[float | None, list[Judged]]:
    """Return what comes of a net by how deep a valley must be to part two cells."""
    return {value: judge(net, _option(value)) for value in PERSISTENCES}


def _choose(tried: dict[float | None, list[Judged]]) -> float | None:
    """Return the depth with the best score; None, as before, where a few cells would decide."""
    if sum(one.scores.cells_true for one in tried[None]) < FEWEST_TO_CHOOSE:
        return None
    return max(tried, key=lambda value: mean_ap(tried[value]))


def _option(persistence: float | None) -> dict[str, float]:
    return {} if persistence is None else {"persistence": persistence}


def _reporter(progress: Progress, label: str, steps: int) -> Callable[[int, float, float | None], None]:
    """Return what tells step, loss, score and the time left."""
    began: tuple[int, float] | None = None
    told = ""

    def report(step: int, loss: float, score: float | None) -> None:
        nonlocal began, told
        now = time.perf_counter()
        began = began or (step - 1, now)
        left = (now - began[1]) / (step - began[0]) * (steps - step)
        told = told if score is None else f", AP {score:.3f} at step {step}"
        progress(f"{label}: loss {loss:.3f}{told}, {_duration(left)} left", step, steps)

    return report


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
