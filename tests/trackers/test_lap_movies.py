"""The default tracker on real movies with true masks, perfect ones and worse ones, as all corrections leave it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.frame import Frame
from cytoloop.models.damage import damaged
from cytoloop.models.labels import Labels
from cytoloop.models.measure import measure
from cytoloop.trackers.lap import LapTracker
from cytoloop.trackers.lineage import LineageBuilder

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def movie(name, seed, missed, broken):
    """Yield detections, and of each its true cell, of a movie with masks that are made worse."""
    random = np.random.default_rng(seed)
    for number, file in enumerate(sorted((DATA / name / "01_GT" / "TRA").glob("man_track*.tif"))):
        mask, owner = damaged(tifffile.imread(file).astype(np.int32), missed, broken, random)
        image = tifffile.imread(DATA / name / "01" / f"t{file.stem[-3:]}.tif")
        present = np.unique(mask[mask > 0])
        rows = np.where(mask > 0, np.searchsorted(present, mask) + 1, 0).astype(np.int32)
        found = measure(Frame(image, sequence=number), Labels(rows, len(present)))
        yield found, [owner.get(label, label) for label in present.tolist()]


def truth_of(name):
    """Return the mother of each true cell, and every pair of true daughters."""
    table = np.loadtxt(DATA / name / "01_GT" / "TRA" / "man_track.txt", dtype=int, ndmin=2)
    parents = {label: parent for label, _, _, parent in table.tolist()}
    children: dict[int, set[int]] = {}
    for label, parent in parents.items():
        children.setdefault(parent, set()).add(label)
    return parents, {frozenset(pair) for mother, pair in children.items() if mother and len(pair) == 2}


def followed(name, seed=0, missed=0.0, broken=0.0):
    """Return F1 of the links to the cell before (or her mother), and divisions: true ones, said ones, said rightly."""
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not here")
    tracker, builder, frames = LapTracker(), LineageBuilder(), []
    for found, cells in movie(name, seed, missed, broken):
        tracks = tracker.update(found)
        builder.add(found.sequence, tracks.track, tracks.divisions, tracks.corrections)
        frames.append((tracks, cells))
    lineage, (parents, pairs) = builder.build(), truth_of(name)
    assert lineage.refused == ()
    seen, last, cells_of = set(), {}, {}
    true = said = right = 0
    for frame, (tracks, cells) in enumerate(frames):
        names = lineage.corrected(frame, tracks.track).tolist()
        rows = {cells[row]: row for row in np.argsort(tracks.detections.area)}  # the larger of two pieces
        for cell, row in rows.items():
            before = cell if cell in seen else parents.get(cell, 0)
            track = names[row]
            said_before = track if track in last else lineage.parents.get(track)
            true += before in seen
            said += said_before in last
            right += said_before in last and last[said_before] == before
        last |= {names[row]: cell for cell, row in rows.items()}
        seen |= rows.keys()
        for track, cell in zip(names, cells, strict=True):
            cells_of.setdefault(track, Counter())[cell] += 1
    divisions = [each for those in lineage.divisions.values() for each in those]
    found = [frozenset(cells_of[one].most_common(1)[0][0] for one in each.daughters) for each in divisions]
    return 2 * right / (true + said), len(pairs), len(found), len(pairs & set(found))


# A little below what was measured, so that chance may do little and a loss is seen.
@pytest.mark.parametrize(
    ("name", "links", "least"),
    [("Fluo-N2DH-SIM+", 0.999, 25), ("Fluo-N2DH-GOWT1", 0.997, None), ("Bact-trpL-early", 0.999, 30)],
)
def test_real_cells_with_perfect_masks_are_followed_with_the_default_options(name, links, least):
    f1, true, said, right = followed(name)
    assert f1 >= links
    if least is not None:
        assert true >= right >= least
        assert said == right  # none was false


@pytest.mark.parametrize(
    ("name", "links", "found", "false"),
    [
        ("Fluo-N2DH-SIM+", 0.991, 21, 2),
        ("Fluo-N2DH-GOWT1", 0.988, None, 1),
        ("Bact-trpL-early", 0.955, 21, 6),
    ],
)
def test_real_cells_are_followed_where_some_are_missed_and_some_in_pieces(name, links, found, false):
    several = [followed(name, seed, missed=0.05, broken=0.05) for seed in range(3)]
    assert np.mean([f1 for f1, *_ in several]) >= links
    assert np.mean([said - right for _, _, said, right in several]) <= false
    if found is not None:
        assert np.mean([right for *_, right in several]) >= found
