"""What an act leaves: its frames, the truth about them and the service's results, as CTC; and how they compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ...acquire.reply import Reply
from ...acquire.simulated.ground_truth import CtcWriter
from ...acquire.simulated.microscope import SimulatedMicroscope, Truth
from ..faults import count, images_on_disk
from ..report.replayed import tails_of
from ..results import Results, write_results
from ..service.journal import read_journal
from .stage import Scene, Show

IOU = 0.5
"""Overlap (intersection over union) from which a cell counts as found."""
VISIBLE = 0.5
"""A true cell of which a smaller part lies in the image is neither asked for nor held against the service."""

TAIL = 15
"""Frames that the tails of a picture reach back."""


@dataclass(frozen=True, slots=True)
class Match:
    """What was found in one frame, against the truth.

    Attributes
    ----------
    true, found, both
        True cells that are asked for, outlines that count, and pairs of the two.
    track_of
        The service's identity of each true cell that was found, also of those cut by the border.
    """

    true: int
    found: int
    both: int
    track_of: dict[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """One act as it was played.

    Attributes
    ----------
    name, title
        As in the cast.
    microscope
        Knows the truth.
    out
        The act's folder.
    expected, acquired
        Frames planned, and images that pycro-manager has on disk.
    replies
        All answers, in order of arrival.
    results
        What the service's journal says.
    matches
        Found cells against true ones, by frame.
    stage_um
        (frames, 2) true position of the stage in um.
    run
        The service's folder, as long as the demo runs.
    """

    name: str
    title: str
    microscope: SimulatedMicroscope
    out: Path
    expected: int
    acquired: int
    replies: list[Reply]
    results: Results
    matches: list[Match]
    stage_um: NDArray[np.float64]
    run: Path

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """(n,) time from handing a frame to the link to having its answer, in ms."""
        return np.array([reply.timings_ms["round_trip"] for reply in self.replies])

    @property
    def decided(self) -> int:
        """Frames that were answered, each counted once."""
        return len({reply.sequence for reply in self.replies})

    @property
    def is_whole(self) -> bool:
        """Whether every planned frame is on disk, and was decided exactly once and in order."""
        nothing = (0, 0, 0)
        answered = count([reply.sequence for reply in self.replies], self.expected)
        results = self.results
        written = (self.expected - results.processed, results.duplicated, results.out_of_order)
        taken = {self.expected, self.acquired, self.microscope.frames}
        return len(taken) == 1 and answered == nothing and written == nothing

    @property
    def f1(self) -> float:
        """Detection F1 over all frames."""
        return f1(self.matches)

    def image(self, frame: int) -> NDArray[Any]:
        """Return the (y, x) pixels of a frame."""
        return tifffile.imread(self.out / "ctc" / "01" / f"t{frame:03d}.tif")

    def labels(self, frame: int) -> NDArray[np.int32]:
        """Return the (y, x) mask of what was found in a frame; row i of the reply is label i + 1."""
        return _mask(self.run, frame, self.microscope.camera.shape)

    def tails(self, frame: int) -> dict[int, NDArray[np.float32]]:
        """Return where each cell of a frame has been lately, (m, 2) x, y in px of that frame."""
        entries = [e for e in read_journal(self.run / "journal") if frame - TAIL < e.header.sequence <= frame]
        return tails_of(entries, self.microscope.affine)

    @property
    def centre_px(self) -> tuple[float, float]:
        """(x, y) of the centre of the images in px."""
        height, width = self.microscope.camera.shape
        return (width - 1) / 2, (height - 1) / 2


def f1(matches: list[Match]) -> float:
    """Return the detection F1 over frames: twice the pairs over all cells, true and found."""
    cells = sum(match.true + match.found for match in matches)
    return 2 * sum(match.both for match in matches) / cells if cells else float("nan")


def record(scene: Scene, out: Path, show: Show) -> Take:
    """Write the frames, the truth and the results of a scene that is over to ``out/ctc``, and compare them."""
    cast = scene.cast
    replies = {reply.sequence: reply for reply in scene.replies}
    writer = CtcWriter(out / "ctc", cast.microscope)
    matches: list[Match] = []
    stage_um: list[tuple[float, float]] = []
    acquired = 0
    for axes, pixels in images_on_disk(scene.dataset):
        show.progress(f"{cast.name}: comparing with the truth", acquired, cast.frames)
        acquired += 1
        frame = int(axes["time"])
        if frame != len(matches):
            continue  # a frame before it is missing, which is_whole will say
        truth = writer.write(pixels)
        stage_um.append(truth.stage_um)
        tracks = replies[frame].cells.track if frame in replies else np.empty(0, np.int64)
        matches.append(match(truth, _mask(scene.run, frame, pixels.shape), tracks))
    writer.close()
    results = write_results(scene.run, out)
    return Take(
        cast.name,
        cast.title,
        cast.microscope,
        out,
        cast.frames,
        acquired,
        scene.replies,
        results,
        matches,
        np.array(stage_um),
        scene.run,
    )


def _mask(run: Path, frame: int, shape: tuple[int, ...]) -> NDArray[np.int32]:
    path = run / "masks" / f"{frame:06d}.tif"
    return tifffile.imread(path).astype(np.int32) if path.is_file() else np.zeros(shape, np.int32)


def match(truth: Truth, labels: NDArray[np.int32], tracks: NDArray[np.int64]) -> Match:
    """Compare one frame with its truth.

    Parameters
    ----------
    truth
        What the frame shows.
    labels
        (y, x) mask of what was found.
    tracks
        (n,) identity of label i + 1.
    """
    n, m = len(truth.identity), len(tracks)
    row = np.zeros(int(truth.identity.max(initial=0)) + 1, np.int64)
    row[truth.identity] = np.arange(1, n + 1)
    pairs = row[truth.mask] * (m + 1) + labels
    overlap = np.bincount(pairs.ravel(), minlength=(n + 1) * (m + 1)).reshape(n + 1, m + 1).astype(np.float64)
    true_area, found_area = overlap.sum(axis=1)[1:, None], overlap.sum(axis=0)[None, 1:]
    inner = overlap[1:, 1:]
    iou = inner / np.maximum(true_area + found_area - inner, 1)
    best = iou.argmax(axis=1) if m else np.zeros(n, np.int64)
    hit = iou[np.arange(n), best] >= IOU if m else np.zeros(n, bool)
    asked = truth.visible >= VISIBLE
    # What lies mostly on cells that are not asked for is no false find.
    excused = inner[~asked].sum(axis=0) > 0.5 * found_area[0] if m else np.zeros(0, bool)
    excused[best[hit & ~asked]] = True
    both = int((hit & asked).sum())
    track_of = {int(truth.identity[i]): int(tracks[best[i]]) for i in np.flatnonzero(hit)}
    return Match(int(asked.sum()), int((~excused).sum()), both, track_of)
