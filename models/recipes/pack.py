"""From trained weights to a package that ships: ``python -m cytoloop.models.recipes.pack --help``.

The net is scored on held-out images by the segmenter that users run; a second, int8 net is calibrated; the card
says what came of it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from ..labels import numbered
from ..packages.contents import ModelPackage
from ..packages.normalise import Normalisation
from ..packages.saving import save_package, weights_file
from ..resize import resize
from ..runtimes.precision import to_int8
from ..scores import pool
from ..training.export import export_onnx
from ..training.folder import Annotated
from ..training.net import ARCHITECTURES, CellNet, parameters
from ..training.targets import depths
from ..training.validate import Judge, Judged, template
from .data import Pair, dsb2018, usiigaci

TERMS = "BSD-3-Clause"
DECODER = {
    "q16": {"foreground": 0.45, "persistence": 2.2},
    "q32": {"foreground": 0.45, "persistence": 2.5},
    "f16": {"foreground": 0.45, "persistence": 2.4, "doubtful": 0.45},
}
"""Options of the decoder, by net: between what is best for nuclei, for phase contrast and for rods held out."""
USUAL = {"foreground": 0.45}
CALIBRATION = 24
"""Images whose activations set the ranges of the int8 net."""


def _template(name: str, net: CellNet) -> ModelPackage:
    return replace(template(net.architecture), decoder_options=dict(DECODER.get(name, USUAL)))


def judge_by_kind(name: str, net: CellNet, pairs: Sequence[Pair]) -> dict[str, list[Judged]]:
    """Return what the net makes of the held-out images, by kind."""
    kinds = sorted({pair.kind for pair in pairs if pair.held_out})
    judged: dict[str, list[Judged]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            images = [
                Annotated(
                    pair.name,
                    pair.image,
                    numbered(pair.mask)[0],
                )
                for pair in pairs
                if pair.held_out and pair.kind == kind
            ]
            judged[kind] = Judge(images, _template(name, net), Path(folder) / kind, partial=False, threads=2)(
                net
            )
    return judged


def calibration(pairs: Sequence[Pair], step: int, diameter_px: float) -> list[NDArray[np.float32]]:
    """Return tensors of training images as the net sees them: normalised, scaled, cut to whole steps."""
    rule, tensors = Normalisation(), []
    learned = [pair for pair in pairs if not pair.held_out]
    for pair in learned[:: max(1, len(learned) // CALIBRATION)]:
        breadth = depths(pair.mask).breadth_px or diameter_px
        size = [max(step, round(side * min(diameter_px / breadth, 2.0))) for side in pair.image.shape]
        plane = resize(pair.image, (size[0], size[1]), *rule.bounds(pair.image))
        height, width = (min(side - side % step, 512) for side in plane.shape)
        tensors.append(np.ascontiguousarray(plane[np.newaxis, np.newaxis, :height, :width]))
    return tensors


def card(
    name: str, net: CellNet, judged: dict[str, list[Judged]], trained_on: dict[str, int], history: str
) -> str:
    """Return what people should know of the net, in Markdown."""
    lines = [
        f"# {name}",
        "",
        "Finds nuclei in fluorescence, cells in phase contrast and rod bacteria; one net for all, gray images.",
        "",
        f"- {parameters(net):,} weights; foreground, core and breadth on a grid of {net.architecture.grid} px.",
        f"- Cells of {net.architecture.diameter_range[0]:g} to {net.architecture.diameter_range[1]:g} px breadth;"
        " frames are scaled towards that by the segmenter.",
        f"- Terms: {TERMS}. Made by `models/recipes/shipped.py` and `pack.py`.",
        "",
        "## Learned from",
        "",
        "| images | of | terms |",
        "|---|---|---|",
        *(f"| {count} | {kind} | {_terms(kind)} |" for kind, count in sorted(trained_on.items())),
        "",
        history,
        "",
        "## Scores on held-out images of these kinds, through the whole segmenter, one setting for all",
        "",
        "| kind | images | cells | AP@0.5 | AP@0.7 | F1@0.5 | F1@0.7 | PQ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, found in judged.items():
        scores = pool(one.scores for one in found)
        ap, f1, pq = scores.ap, scores.f1, scores.pq
        lines.append(
            f"| {kind} | {len(found)} | {scores.cells_true} | {ap[0.5]:.3f} | {ap[0.7]:.3f} | {f1[0.5]:.3f} |"
            f" {f1[0.7]:.3f} | {pq[0.5]:.3f} |"
        )
    return "\n".join([*lines, "", "## Limits", "", LIMITS, ""])


LIMITS = """Not trained on stained tissue, on bright-field or DIC images of whole cells, on yeast or on 3D data. One
diameter per stream: where small and large cells share a field, the rarer kind is found less well. A frame whose
`novelty` is above 1 looks unlike what the net knows: look at its masks before an experiment rests on them."""


def _terms(kind: str) -> str:
    return {"fluorescence": "DSB2018, CC0", "gray_brightfield": "DSB2018, CC0", "phase": "Usiigaci, MIT"}.get(
        kind, "our own simulation"
    )


def make_package(
    name: str, net: CellNet, pairs: Sequence[Pair], trained_on: dict[str, int], history: str, folder: Path
) -> ModelPackage:
    """Score a net, calibrate its int8 twin and write both to ``folder / name``."""
    architecture = net.architecture
    judged = judge_by_kind(name, net, pairs)
    doubts = [one.doubt for found in judged.values() for one in found]
    with tempfile.TemporaryDirectory() as part:
        reference, small = Path(part) / "fp32.onnx", Path(part) / "int8.onnx"
        export_onnx(net, reference)
        to_int8(reference, small, calibration(pairs, architecture.step, architecture.diameter_px))
        described = replace(
            _template(name, net),
            name=name,
            weights=(weights_file(reference), weights_file(small)),
            novelty={"doubt_p95": float(np.percentile(doubts, 95))},
            card=card(name, net, judged, trained_on, history),
            terms=TERMS,
        )
        return save_package(described, folder / name, authors=["the cytoloop founders"])


def main() -> None:
    """Read the weights, score them, and write the package."""
    parser = argparse.ArgumentParser(
        prog="python -m cytoloop.models.recipes.pack",
        description=__doc__,
        epilog="Example: ... --data data --simulated simulated --net q32 --weights runs/q32/weights.pt --out packages",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with DSB2018 and Usiigaci-PhC")
    parser.add_argument("--simulated", type=Path, required=True, help="what the net was trained on besides")
    parser.add_argument("--net", choices=sorted(ARCHITECTURES), required=True)
    parser.add_argument("--weights", type=Path, required=True, help="weights.pt of the training")
    parser.add_argument("--history", default="", help="how it was trained, for the card")
    parser.add_argument("--out", type=Path, required=True, help="folder for the package")
    given = parser.parse_args()
    net = CellNet(ARCHITECTURES[given.net])
    net.load_state_dict(torch.load(given.weights, weights_only=True))
    net.eval()
    pairs = [*dsb2018(given.data / "DSB2018"), *usiigaci(given.data / "Usiigaci-PhC")]
    trained_on: dict[str, int] = {}
    for pair in pairs:
        trained_on[pair.kind] = trained_on.get(pair.kind, 0) + (not pair.held_out)
    for kind in sorted(path for path in given.simulated.iterdir() if path.is_dir()):
        trained_on[kind.name] = len(list((kind / "images").glob("*.tif")))
    package = make_package(given.net, net, pairs, trained_on, given.history, given.out)
    Console().print(package.card, markup=False)


if __name__ == "__main__":
    main()
