"""The division model that ships, made from scratch: ``python -m cytoloop.trackers.recipes.division_model --help``.

The tracker follows simulated movies; of every two detections that it could take for daughters it is noted what it
measures, and whether they are. A small perceptron learns to tell. Two cores need some minutes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich import print_json
from rich.progress import track

from ..division_model import FARTHEST, FILE, DivisionModel
from ..events import division_candidates
from ..lap import LapTracker
from .movies import Movie, movie_count, movies

Floats = NDArray[np.float64]

LEFT_OUT = ("alike",)
"""How bright daughters are depends on the stain more than on anything that a simulation knows."""
SHARES = {"crowd": 1.5, "rods": 1.0, "dividing": 0.35, "nuclei": 0.35}
"""How much each kind of movie counts."""
HIDDEN, EPOCHS, BATCH, RATE, SHRINK, DECAY = 24, 25, 512, 3e-3, 0.88, 0.03
_WORST = -8.0
"""Triples of which the gain less what is lost is below this are never near a division."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Names of what is measured, (t, k) values, (t,) whether each is a division, and the kind of its movie."""

    names: tuple[str, ...]
    values: Floats
    right: NDArray[np.bool_]
    kinds: NDArray[np.str_]

    @staticmethod
    def joined(parts: Sequence[Examples]) -> Examples:
        """Return all of them together."""
        every = ([getattr(each, name) for each in parts] for name in ("values", "right", "kinds"))
        return Examples(parts[0].names, *map(np.concatenate, every))


def examples(movie: Movie) -> Examples:
    """Return what the tracker measures of the triples of a movie that are near a division."""
    tracker, name_of = LapTracker(), dict[int, int]()
    first: dict[int, int] = {}
    measured: list[dict[str, Floats]] = []
    right: list[bool] = []
    for number, (found, identity) in enumerate(movie.frames):
        names = identity.tolist()
        for name in names:
            first.setdefault(name, number)
        before = dict(name_of)
        tracks = tracker.update(found)
        scene = tracker.scene
        if scene is not None and len(scene.near):
            triples, values = division_candidates(scene)
            measured.append(values)
            mothers = scene.alive.track[triples.mother].tolist()
            for mother, one, other in zip(mothers, triples.one.tolist(), triples.other.tolist(), strict=True):
                pair = names[one], names[other]
                born = movie.mothers.get(pair[0]) == movie.mothers.get(pair[1]) == before.get(mother, 0) != 0
                right.append(born and pair[0] != pair[1] and first[pair[0]] == first[pair[1]] == number)
        name_of |= zip(tracks.track.tolist(), names, strict=True)
        name_of |= {each.new: name_of[each.old] for each in tracks.corrections if each.old in name_of}
    columns = {name: np.concatenate([each[name] for each in measured]) for name in measured[0]}
    near = columns["gain"] - columns["lost"] > _WORST
    kept = tuple(name for name in sorted(columns) if name not in LEFT_OUT)
    values = np.stack([columns[name][near] for name in kept], axis=1)
    return Examples(kept, values, np.array(right, bool)[near], np.full(near.sum(), movie.kind))


def fit(given: Examples, seed: int) -> DivisionModel:
    """Return a model that has learned; the same seed gives the same."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    mean, spread = given.values.mean(axis=0), given.values.std(axis=0) + 1e-6
    inputs = torch.tensor(np.clip((given.values - mean) / spread, -FARTHEST, FARTHEST), dtype=torch.float32)
    wanted = torch.tensor(given.right, dtype=torch.float32)
    weight = np.zeros(len(wanted))
    for kind, share in SHARES.items():
        weight[given.kinds == kind] = share / max((given.kinds == kind).sum(), 1)
    weights = torch.tensor(weight / weight.mean(), dtype=torch.float32)
    net = torch.nn.Sequential(torch.nn.Linear(len(mean), HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 1))
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    order = torch.Generator().manual_seed(seed)
    for _ in track(range(EPOCHS), "learning"):
        for batch in torch.randperm(len(wanted), generator=order).split(BATCH):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                net(inputs[batch])[:, 0], wanted[batch], weights[batch]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        for group in optimiser.param_groups:
            group["lr"] *= SHRINK
    hidden, hidden_bias, output, bias = (p.detach().numpy().astype(np.float64) for p in net.parameters())
    return DivisionModel(given.names, mean, spread, hidden, hidden_bias, output[0], float(bias[0]))


def scores(model: DivisionModel, given: Examples) -> dict[str, Any]:
    """Return precision, recall and F1 at even odds, by kind of movie."""
    measured = {name: given.values[:, place] for place, name in enumerate(given.names)}
    said = model.log_odds(measured) > 0
    result: dict[str, Any] = {}
    for kind in sorted(set(given.kinds.tolist())):
        of = given.kinds == kind
        both, claimed, true = (int((which & of).sum()) for which in (said & given.right, said, given.right))
        result[kind] = {
            "divisions": true,
            "precision": round(both / max(claimed, 1), 3),
            "recall": round(both / max(true, 1), 3),
            "f1": round(2 * both / max(claimed + true, 1), 3),
        }
    return result


def write(model: DivisionModel, path: Path, about: dict[str, Any]) -> None:
    """Write the model as JSON."""
    arrays = ("mean", "spread", "hidden", "hidden_bias", "output")
    data = {name: np.round(getattr(model, name), 5).tolist() for name in arrays}
    whole = {"about": about, "names": list(model.names), **data, "output_bias": round(model.output_bias, 5)}
    path.write_text(json.dumps(whole, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the model."""
    parser = argparse.ArgumentParser(
        prog="python -m cytoloop.trackers.recipes.division_model", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=Path(FILE), help="file to write (default %(default)s)")
    parser.add_argument("--movies", type=int, default=96, help="crowds to learn from (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default %(default)s)")
    given = parser.parse_args(arguments)
    learned, held_out = (
        Examples.joined(
            [examples(movie) for movie in track(movies(seeds), f"following {use}", movie_count(seeds))]
        )
        for use, seeds in (
            ("to learn", range(1000, 1000 + given.movies)),
            ("to judge", range(9000, 9000 + max(given.movies // 6, 4))),
        )
    )
    model = fit(learned, given.seed)
    about = {
        "made_by": "python -m cytoloop.trackers.recipes.division_model",
        "data": "simulations only: crowds of random habits; nuclei and rods of the simulated microscope",
        "triples": len(learned.right),
        "held_out": scores(model, held_out),
    }
    write(model, given.out, about)
    print_json(data=about)


if __name__ == "__main__":
    main()
