"""A run as people look at it: one picture (``report.png``) and one page (``report.html``) that holds it.

A report is a value; whoever ran something fills it, :func:`write_report` draws it. Needs matplotlib (the
``report`` extra).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import MissingExtraError
from ...acquire.frame import Pixels
from ...acquire.reply import Cells, Decision

if TYPE_CHECKING:
    from ..outcomes import OutcomeFigures
    from ..trial.examples import Example


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that was decided or seen at a place of the image.

    Attributes
    ----------
    kind
        A command's tag (``stimulate``, ``move_stage``, ...) or ``division``: chooses symbol and colour.
    x_px, y_px
        Where, in px of the image.
    text
        A few words beside it; may be ``""``.
    """

    kind: str
    x_px: float
    y_px: float
    text: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One frame with what was found in it.

    Attributes
    ----------
    title
        Above the image.
    image
        (y, x) pixels as the camera gave them.
    labels
        (y, x) int mask for the outlines, row i of ``cells`` being label i + 1; None draws none.
    cells
        Identities and centroids.
    tails
        (m, 2) x, y in px of where each track has been, oldest first.
    marks
        Decisions and divisions.
    pixel_size_um
        For the scale bar; None draws none.
    view
        (x0, y0, x1, y1) in px of the part to show; None shows the whole image.
    """

    title: str
    image: Pixels
    labels: NDArray[np.int32] | None = None
    cells: Cells = field(default_factory=Cells.none)
    tails: Mapping[int, NDArray[np.float32]] = field(default_factory=dict[int, "NDArray[np.float32]"])
    marks: Sequence[Mark] = ()
    pixel_size_um: float | None = None
    view: tuple[float, float, float, float] | None = None

    @property
    def shown(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) in px of what is shown."""
        return self.view or (-0.5, -0.5, self.image.shape[1] - 0.5, self.image.shape[0] - 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Something over time, or a path.

    Attributes
    ----------
    title, x_label, y_label
        In words, with units.
    series
        (x, y) arrays of equal length by name.
    limit
        A horizontal line that the values should stay under, or None.
    is_path
        True for positions in the plane: equal scales, and begin and end are marked.
    """

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    limit: float | None = None
    is_path: bool = False


@dataclass(frozen=True, slots=True)
class Decided:
    """How many decisions there were, and what came of them.

    Attributes
    ----------
    passed, refused
        Those that the limits let pass in the service, and those that they refused there.
    outcomes
        What came of those that passed at the microscope; None if no microscope told.
    """

    passed: int
    refused: int
    outcomes: OutcomeFigures | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RunReport:
    """All that a report shows.

    Attributes
    ----------
    title, subtitle
        Of the page and of the picture.
    pictures
        One large image, or several beside each other (the acts of a demo).
    latency_ms
        Frame-to-decision times in ms by name.
    curves
        Plots below or beside the pictures.
    figures
        Name and value of each figure, as they shall be read.
    scores
        Scores against ground truth, 0 to 1; empty without one.
    decisions
        Those to list with their reasons; the page shows the first 500.
    decided
        How many there were and what came of them, by name (the acts of a demo).
    examples
        Cells that were and were not chosen, clause by clause, under a heading for each rule.
    """

    title: str
    subtitle: str = ""
    pictures: Sequence[Picture] = ()
    latency_ms: Mapping[str, NDArray[np.float64]] = field(default_factory=dict[str, "NDArray[np.float64]"])
    curves: Sequence[Curve] = ()
    figures: Mapping[str, str] = field(default_factory=dict[str, str])
    scores: Mapping[str, float] = field(default_factory=dict[str, float])
    decisions: Sequence[Decision] = ()
    decided: Mapping[str, Decided] = field(default_factory=dict[str, Decided])
    examples: Mapping[str, Sequence[Example]] = field(default_factory=dict[str, "Sequence[Example]"])


def percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    """Return p50, p99 and the maximum of times in ms; NaN where there are none."""
    if not len(values):
        return {"p50": float("nan"), "p99": float("nan"), "max": float("nan")}
    p50, p99, largest = np.percentile(values, (50, 99, 100))
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(float(largest), 3)}


def write_report(report: RunReport, folder: Path) -> Path:
    """Write ``report.png`` and ``report.html`` into a folder and return the page's path.

    Raises
    ------
    MissingExtraError
        Without matplotlib.
    """
    try:
        from .figure import draw
    except ImportError as error:
        raise MissingExtraError("matplotlib, which draws reports,", "report") from error
    from .page import page

    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "report.png"
    draw(report, picture)
    target = folder / "report.html"
    target.write_text(page(report, picture.read_bytes()), encoding="utf-8")
    return target
