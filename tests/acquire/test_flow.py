"""The simulated flow channel: its images show the truth, and its gate takes what passes while it is open."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.acquire.commands import Stop, Trigger
from cytoloop.acquire.errors import ActuatorError
from cytoloop.acquire.reply import Decision
from cytoloop.acquire.simulated.flow import FlowCells, FlowChannel, FlowGate
from scipy import ndimage


def decision(command):
    return Decision("sort", command, 0, 0.0, 1.0)


def test_the_same_seed_gives_the_same_images_and_another_one_others():
    one, same, other = (FlowChannel(seconds=0.05, seed=seed) for seed in (3, 3, 4))
    images = [[channel.snap(index) for index in range(channel.count)] for channel in (one, same, other)]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_cells_are_where_the_truth_says(dtype):
    channel = FlowChannel(events_per_s=60, seconds=0.5, dtype=dtype, seed=1)
    found = 0
    for frame in channel.frames():
        assert frame.pixels.shape == (64, 256)
        assert frame.pixels.dtype == dtype
        x = channel.cells.x_px(frame.time_s)
        inside = np.flatnonzero((x > 12) & (x < 243))
        if len(inside) != 1 or ((x > -10) & (x < 266)).sum() != 1:
            continue
        light = np.where(frame.pixels > 40, frame.pixels.astype(float) - 20, 0)
        y_seen, x_seen = ndimage.center_of_mass(light)
        assert abs(x_seen - x[inside[0]]) < 0.5
        assert abs(y_seen - channel.cells.y_px[inside[0]]) < 0.5
        found += 1
    assert found > 50


def test_cells_come_at_the_rate_and_in_the_share_that_were_asked_for():
    cells = FlowChannel(events_per_s=1000, seconds=20, target_share=0.3, frames_per_s=10).cells
    assert len(cells) == pytest.approx(20_000, rel=0.03)
    assert cells.target.mean() == pytest.approx(0.3, abs=0.02)
    assert cells.light[cells.target].min() > cells.light[~cells.target].max()
    gaps = np.diff(cells.enters_s)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # as of a Poisson process


def test_the_gate_takes_every_cell_that_passes_while_it_is_open_and_no_other():
    count = np.arange(5)
    cells = FlowCells(count * 0.01, count * 0.0, count + 3.0, np.full(5, 1000.0), count + 1.0, count % 2 == 0)
    gate = FlowGate(300.0)  # they pass at 0.30, 0.31, ... 0.34 s
    gate.actuate(decision(Trigger("gate", 0.2995, 1.0)))
    gate.actuate(decision(Trigger("gate", 0.3195, 11.0)))
    gate.actuate(decision(Trigger("gate", 0.3200, 2.0)))
    assert gate.takes(cells).tolist() == [True, False, True, True, False]


def test_the_score_counts_what_passed_within_the_run():
    channel = FlowChannel(events_per_s=300, seconds=1.0, seed=2)
    gate = FlowGate(320.0)
    passes = channel.cells.passes_s(gate.x_px)
    for at_s in passes[channel.cells.target]:
        gate.open(at_s - 1e-6, 2e-3)
    score = gate.score(channel)
    assert score.events == int((passes < 1.0).sum())
    assert score.taken_targets == score.targets > 20
    assert score.purity == score.yielded == 1.0
    assert np.isnan(FlowGate(320.0).score(channel).purity)


def test_a_gate_does_nothing_but_open():
    with pytest.raises(ActuatorError, match="Stop is not for a gate"):
        FlowGate(300.0).actuate(decision(Stop("x")))


@pytest.mark.parametrize(
    ("option", "value"),
    [("events_per_s", 0), ("seconds", -1), ("speed_spread", 0.5), ("target_share", 2), ("dtype", "float32")],
)
def test_an_option_out_of_range_is_refused_by_name(option, value):
    with pytest.raises(ValueError, match=option):
        FlowChannel(**{option: value})
