"""Nuclei and cells found in two channels, and paired."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.acquire.errors import FrameError, PluginError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.plugins import OptionError, build
from cytoloop.models.compartments import measure_cells
from cytoloop.models.labels import Labels
from cytoloop.models.paired import PairedSegmenter
from cytoloop.models.segmenter import needed_channels
from scipy import ndimage

SHAPE = (220, 260)
CLASSICAL = {"use": "classical"}
BOTH = {"nuclei": {"use": "classical", "channel": "DAPI"}, "cells": {"use": "classical", "channel": "GFP"}}


def stained(seed=3):
    """Return a frame of two channels, the mask of its cells, and the nuclear and cytoplasmic light of each.

    DAPI shows the nuclei; GFP whole cells, with other light in the nucleus than in the cytoplasm.
    """
    rng = np.random.default_rng(seed)
    centres = [(y, x) for y in range(35, SHAPE[0] - 20, 50) for x in range(35, SHAPE[1] - 20, 50)]
    y, x = np.indices(SHAPE)
    cells, nuclei = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.int32)
    for number, (cy, cx) in enumerate(centres, 1):
        cells[np.hypot(y - cy, x - cx) <= 17] = number
        nuclei[np.hypot(y - cy - 3, x - cx + 2) <= 8] = number
    nuclear, cytoplasmic = (rng.uniform(250, 600, len(centres) + 1) for _ in range(2))
    gfp = 40 + np.where(nuclei > 0, nuclear[cells], cytoplasmic[cells]) * (cells > 0)
    light = np.stack([40 + 400.0 * (nuclei > 0), gfp])
    pixels = rng.poisson(ndimage.gaussian_filter(light, (0, 1, 1))).astype(np.uint16)
    frame = Frame(pixels, channels=("DAPI", "GFP"), pixel_size_um=0.5)
    return frame, cells, nuclear[1:] + 40, cytoplasmic[1:] + 40


def rows_of(found, truth):
    """Return for each true cell the row of the one found at its centre."""
    centres = ndimage.center_of_mass(truth > 0, truth, range(1, truth.max() + 1))
    nearest = [int(np.argmin(np.hypot(*(found.yx - centre).T))) for centre in centres]
    assert sorted(nearest) == list(range(len(found)))
    return nearest


def test_nucleus_and_cytoplasm_of_each_cell_are_measured_in_both_channels():
    frame, truth, nuclear, cytoplasmic = stained()
    labels = PairedSegmenter(**BOTH).segment(frame)
    found = measure_cells(frame, labels)
    rows = rows_of(found, truth)
    assert len(rows) == 20
    parts = found.compartments
    assert parts.nuclei.tolist() == [1] * 20
    gfp = found.channels.index("GFP")
    # Light blurs over the edges: dim parts beside bright ones are off most.
    assert parts.nuclear_mean[rows, gfp] == pytest.approx(nuclear, rel=0.15)
    assert parts.cytoplasm_mean[rows, gfp] == pytest.approx(cytoplasmic, rel=0.2)
    ratio, true_ratio = parts.nuclear_mean[rows, gfp] / parts.cytoplasm_mean[rows, gfp], nuclear / cytoplasmic
    assert np.corrcoef(ratio, true_ratio)[0, 1] > 0.99
    assert (parts.nuclear_mean[:, 0] > 4 * parts.cytoplasm_mean[:, 0]).all()


@pytest.mark.parametrize("width", [{"ring_um": 3}, {"ring_px": 6.0}])
def test_a_ring_takes_the_place_of_a_cell_where_nothing_stains_it(width):
    frame, truth, nuclear, cytoplasmic = stained()
    segmenter = PairedSegmenter(nuclei={"use": "classical", "channel": "DAPI"}, cells=width)
    labels = segmenter.segment(frame)
    assert labels.count == 20
    assert (labels.image[labels.nuclei.image > 0] == labels.nuclei.image[labels.nuclei.image > 0]).all()
    outside = ndimage.distance_transform_edt(labels.nuclei.image == 0)
    assert np.array_equal(labels.image > 0, outside <= 6)
    found = measure_cells(frame, labels)
    rows = rows_of(found, truth)
    # The ring reaches over the cell's edge on the side where the nucleus lies near it.
    ratio = found.compartments.nuclear_mean[rows, 1] / found.compartments.cytoplasm_mean[rows, 1]
    assert np.corrcoef(ratio, nuclear / cytoplasmic)[0, 1] > 0.95


def test_it_says_which_channels_it_needs_and_which_is_the_main_one():
    both, ringed = PairedSegmenter(**BOTH), PairedSegmenter(nuclei="classical", cells={"ring_px": 3})
    assert (both.channel, needed_channels(both)) == ("GFP", ("GFP", "DAPI"))
    assert (ringed.channel, needed_channels(ringed)) == (0, (0,))


def test_a_frame_that_lacks_what_is_needed_is_refused_with_what_it_has():
    frame, *_ = stained()
    with pytest.raises(FrameError, match="no channel 'GFP'; the frame has 'DAPI'"):
        PairedSegmenter(**BOTH).segment(Frame(frame.channel("DAPI").copy(), channels=("DAPI",)))
    segmenter = PairedSegmenter(nuclei=CLASSICAL, cells={"ring_um": 3.0})
    with pytest.raises(FrameError, match="ring_um needs a pixel size"):
        segmenter.segment(Frame(frame.pixels, channels=frame.channels))
    with pytest.raises(FrameError, match="1 to 200 px"):
        segmenter.segment(Frame(frame.pixels, channels=frame.channels, pixel_size_um=10.0))


@pytest.mark.parametrize(
    ("options", "option", "reason", "hint"),
    [
        ({"nuclei": {}, "cells": CLASSICAL}, "nuclei", "a table with use", ""),
        ({"nuclei": CLASSICAL, "cells": {"rng_um": 3}}, "cells", "use or ring_px or ring_um", "ring_um"),
        ({"nuclei": CLASSICAL, "cells": {"ring_um": 3, "ring_px": 3}}, "cells", "one of", ""),
        ({"nuclei": CLASSICAL, "cells": {"ring_px": 3, "use": "classical"}}, "cells", "nothing else", ""),
        ({"nuclei": CLASSICAL, "cells": {"ring_px": 0.5}}, "cells.ring_px", "1 to 200 px", ""),
        ({"nuclei": CLASSICAL, "cells": {"ring_um": -1}}, "cells.ring_um", "1 to 200 px", ""),
        ({"nuclei": CLASSICAL, "cells": {"ring_um": "wide"}}, "cells.ring_um", "float", ""),
        (
            {"nuclei": {"use": "classical", "treshold": 1}, "cells": CLASSICAL},
            "nuclei.treshold",
            "",
            "threshold",
        ),
        (
            {"nuclei": CLASSICAL, "cells": {"use": "classical", "threshold": 3}},
            "cells.threshold",
            "between",
            "",
        ),
        ({"nuclei": CLASSICAL, "cells": {"use": "pathlib:Path"}}, "cells.use", "no segmenter", ""),
        ({"nuclei": CLASSICAL, "cells": CLASSICAL, "share": 0}, "share", "above 0", ""),
        ({"nuclei": CLASSICAL}, "cells", "needed", ""),
    ],
)
def test_a_wrong_option_is_told_by_its_full_name(options, option, reason, hint):
    with pytest.raises(OptionError) as caught:
        build(PairedSegmenter, options)
    assert (caught.value.option, caught.value.did_you_mean) == (option, hint)
    assert reason in caught.value.reason


def test_an_unknown_segmenter_is_told_with_the_known_ones():
    with pytest.raises(PluginError, match="Did you mean 'classical'"):
        PairedSegmenter(nuclei={"use": "clasical"}, cells={"ring_px": 3})


class Counting:
    """Remembers how many frames it saw, and cannot forget them."""

    channel = 0

    def __init__(self):
        self.start_s, self.timeout_s = 20.0, 3.0
        self.frames = 0

    def segment(self, frame):
        self.frames += 1
        return Labels(np.zeros(SHAPE, np.int32), 0)


def test_a_part_that_cannot_forget_is_built_anew():
    frame, *_ = stained()
    counting = {"use": f"{__name__}:Counting"}
    segmenter = PairedSegmenter(nuclei=counting, cells=CLASSICAL)
    segmenter.segment(frame)
    before = segmenter._nuclei, segmenter._cells
    segmenter.reset()
    assert (before[0].frames, segmenter._nuclei.frames) == (1, 0)
    assert segmenter._cells is before[1]


def test_its_parts_take_their_time_one_after_the_other():
    counting = {"use": f"{__name__}:Counting"}
    both = PairedSegmenter(nuclei=counting, cells=counting)
    assert (both.start_s, both.timeout_s) == (40.0, 6.0)
    assert PairedSegmenter(nuclei=CLASSICAL, cells=CLASSICAL).timeout_s == 0
