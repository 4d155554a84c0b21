"""The training loop: batches in, better weights out; it can stop at any step and go on from there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...acquire.errors import ModelError
from .crops import Batch
from .net import CellNet

AVERAGE = 0.999
"""How much of the running mean of the weights stays at each step, once enough steps have been made."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to learn.

    Attributes
    ----------
    steps
        Batches to learn from.
    rate
        Largest learning rate (AdamW), reached after ``warm`` steps and let down along a cosine to 1 %.
    warm
        Steps until the largest rate.
    decay
        Of the weights (AdamW).
    check_every
        Steps between validations and checkpoints.
    patience
        Validations without a better score after which it stops.
    threads
        Of the CPU.
    device
        Where the net learns: ``"cpu"`` or ``"cuda"``.
    """

    steps: int = 6000
    rate: float = 3e-3
    warm: int = 200
    decay: float = 1e-4
    check_every: int = 500
    patience: int = 1000
    threads: int = 2
    device: str = "cpu"


class Batches(Protocol):
    """Where batches come from; all of it is called in one thread, not the one that learns."""

    def batch(self) -> Batch:
        """Return the next batch, on the device of the training."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs to go on with the very next batch."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        ...


@dataclass(slots=True)
class History:
    """What happened: (step, mean loss) and (step, score) of each check; the best score and its step."""

    loss: list[tuple[int, float]] = field(default_factory=list)
    score: list[tuple[int, float]] = field(default_factory=list)
    best: tuple[int, float] = (0, -1.0)


def losses(answer: Tensor, batch: Batch) -> Tensor:
    """Return the loss: cross entropies of foreground and core, and the error of the breadth inside cells.

    The core counts double inside cells, where it alone tells touching cells apart. What is not known counts
    nowhere.
    """
    share = batch.known / batch.known.mean().clamp(min=1e-3)
    foreground = functional.binary_cross_entropy_with_logits(answer[:, 0], batch.inside, share)
    weight = share * (0.5 + 1.5 * batch.inside)
    core = functional.binary_cross_entropy_with_logits(answer[:, 1], batch.core, weight)
    error = functional.smooth_l1_loss(answer[:, 2], batch.breadth, reduction="none", beta=0.2)
    breadth = (error * batch.inside).sum() / batch.inside.sum().clamp(min=1)
    return foreground + core + 0.1 * breadth


def fit(
    net: CellNet,
    crops: Batches,
    schedule: Schedule,
    folder: Path,
    *,
    score: Callable[[CellNet], float] | None = None,
    report: Callable[[int, float, float | None], None] = lambda step, loss, score: None,
    resume: bool = False,
) -> History:
    """Train a net in place; at the end it holds the best weights (by score, else the last running mean).

    Parameters
    ----------
    net
        The net, fresh or trained before, on the CPU; it is there again at the end.
    crops
        Where batches come from.
    schedule
        How long and how fast.
    folder
        Where ``checkpoint.pt`` is written at each check, and read from to resume.
    score
        Given the net with averaged weights in evaluation mode, on the CPU, returns what shall become large.
    report
        Called after every step with step, loss and, at checks, the score.
    resume
        Go on from the checkpoint in ``folder``.

    Raises
    ------
    ModelError
        If there is no usable checkpoint to resume from, or the loss is no longer finite.
    """
    torch.set_num_threads(schedule.threads)
    net.to(schedule.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    averaged = deepcopy(net)
    best = {k: v.clone() for k, v in net.state_dict().items()}
    optimiser = torch.optim.AdamW(net.parameters(), lr=schedule.rate, weight_decay=schedule.decay)
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, schedule))
    history, first = History(), 0
    if resume:
        saved = _read(folder / "checkpoint.pt", schedule.device)
        net.load_state_dict(saved["net"])
        averaged.load_state_dict(saved["averaged"])
        optimiser.load_state_dict(saved["optimiser"])
        rates.load_state_dict(saved["rates"])
        best, first = saved["best"], saved["step"]
        history = History(**saved["history"])
        crops.restore(saved["crops"])
    recent: list[float] = []
    with ThreadPoolExecutor(1, "crops") as artist:
        # The next batch is drawn while the net learns from the last.
        drawn = artist.submit(_draw, crops)
        for step in range(first + 1, schedule.steps + 1):
            if len(history.score) - _place(history) > schedule.patience:
                break
            batch, place = drawn.result()
            drawn = artist.submit(_draw, crops)
            loss = _learn(net, batch, optimiser)
            if not np.isfinite(loss):
                raise ModelError(
                    f"training: the loss is {loss} at step {step}; a lower rate than {schedule.rate} may help"
                )
            rates.step()
            average(averaged, net, min(AVERAGE, (1 + step) / (10 + step)))
            recent.append(loss)
            value = None
            if step % schedule.check_every == 0 or step == schedule.steps:
                averaged.eval()
                value = score(_on_cpu(averaged)) if score else None
                history.loss.append((step, float(np.mean(recent))))
                recent.clear()
                if value is not None:
                    history.score.append((step, value))
                if value is None or value > history.best[1]:
                    history.best = (step, -1.0 if value is None else value)
                    best = {k: v.clone() for k, v in averaged.state_dict().items()}
                _write(
                    folder / "checkpoint.pt",
                    {
                        "net": net.state_dict(),
                        "averaged": averaged.state_dict(),
                        "best": best,
                        "optimiser": optimiser.state_dict(),
                        "rates": rates.state_dict(),
                        "step": step,
                        "history": asdict(history),
                        "crops": place,
                    },
                )
            report(step, loss, value)
    net.load_state_dict(best)
    net.to("cpu").eval()
    return history


def _on_cpu(net: CellNet) -> CellNet:
    return net if next(net.parameters()).device.type == "cpu" else deepcopy(net).to("cpu")


def _draw(crops: Batches) -> tuple[Batch, dict[str, Any]]:
    """Return a batch, and the state of the crops from which the one after it is drawn."""
    return crops.batch(), crops.state()


def _place(history: History) -> int:
    """Return how many checks had been made when the best came."""
    return sum(step <= history.best[0] for step, _ in history.score)


def _learn(net: CellNet, batch: Batch, optimiser: torch.optim.Optimizer) -> float:
    net.train()
    planes = batch.planes.to(memory_format=torch.channels_last)
    with torch.autocast(planes.device.type, dtype=torch.bfloat16):
        answer = net(planes)
    loss = losses(answer.float(), batch)
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    optimiser.step()
    return float(loss.detach())


def _rate(step: int, schedule: Schedule) -> float:
    if step < schedule.warm:
        return (step + 1) / schedule.warm
    done = (step - schedule.warm) / max(1, schedule.steps - schedule.warm)
    return 0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * min(done, 1.0))))


@torch.no_grad()
def average(averaged: CellNet, net: CellNet, keep: float) -> None:
    """Move the weights of a net towards those of another: this share of its own stays."""
    for mean, value in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)


def _write(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def _read(path: Path, device: str) -> dict[str, Any]:
    try:
        return torch.load(path, weights_only=True, map_location=device)
    except FileNotFoundError:
        raise ModelError(f"{path}: no checkpoint to resume from") from None
    except Exception as error:
        raise ModelError(f"{path}: not a checkpoint of this training: {error}") from error
