"""The shipped model of divisions: it is whole, and tells daughters from neighbours."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from cytoloop.trackers.alive import beginnings
from cytoloop.trackers.division_model import shipped
from cytoloop.trackers.divisions import Triples, features
from cytoloop.trackers.events import division_candidates
from cytoloop.trackers.lap import LapTracker
from cytoloop.trackers.scales import Scales

GRID = np.stack(np.meshgrid(np.arange(6), np.arange(6)), -1).reshape(-1, 2) * 60.0 + 90
DISC, ROD, HALF = [24.0, 24.0, 0.0], [9.0, 260.0, 0.0], [9.0, 65.0, 0.0]


def test_the_shipped_file_holds_numbers_of_the_shapes_that_belong_together():
    model = shipped()
    arrays = {
        each.name: np.asarray(getattr(model, each.name)) for each in fields(model) if each.name != "names"
    }
    assert all(np.isfinite(array).all() for array in arrays.values())
    k, h = len(model.names), len(model.output)
    assert (len(model.mean), len(model.spread), model.hidden.shape) == (k, k, (h, k))
    assert len(model.hidden_bias) == h
    assert (model.spread > 0).all()
    assert len(set(model.names)) == k


def test_the_model_looks_only_at_what_is_measured(detections):
    found = beginnings(detections([[100, 100], [100, 91], [100, 109]], area=[300.0, 150.0, 150.0]))
    one = np.array([0])
    measured = features(Triples(one, one + 1, one + 2), found, found, Scales(1.0))
    assert set(shipped().names) <= {*measured, "gain", "lost", "linked"}
    assert all(np.isfinite(column).all() for column in measured.values())


def odds(detections, before, after):
    """Return the log of the odds of (mother, detection, detection) for all that come into question."""
    tracker = LapTracker()
    random = np.random.default_rng(0)
    yx, area, moments = (np.array(each, float) for each in zip(*before, strict=True))
    for sequence in range(5):
        tracker.update(detections(yx + random.normal(0, 0.5, yx.shape), sequence, area=area, moments=moments))
    yx, area, moments = (np.array(each, float) for each in zip(*after, strict=True))
    tracker.update(detections(yx, 5, area=area, moments=moments))
    assert tracker.scene is not None
    triples, measured = division_candidates(tracker.scene)
    names = zip(triples.mother.tolist(), triples.one.tolist(), triples.other.tolist(), strict=True)
    return dict(zip(names, shipped().log_odds(measured).tolist(), strict=True))


def others(looks):
    return [(place, *looks) for place in GRID[1:]]


@pytest.mark.parametrize("apart", [8.0, 9.5])
def test_a_nucleus_that_becomes_two_of_half_its_size_has_divided(detections, apart):
    nucleus, half = (300.0, DISC), (150.0, [12.0, 12.0, 0.0])
    after = [(GRID[0] - (0, apart), *half), (GRID[0] + (0, apart), *half), *others(nucleus)]
    said = odds(detections, [(place, *nucleus) for place in GRID], after)
    assert said[0, 0, 1] > 0
    assert all(value < 0 for triple, value in said.items() if triple != (0, 0, 1))


def test_a_rod_that_becomes_two_of_half_its_length_has_divided(detections):
    rod, half = (560.0, ROD), (270.0, HALF)
    after = [(GRID[0] - (0, 18), *half), (GRID[0] + (0, 18), *half), *others(rod)]
    said = odds(detections, [(place, *rod) for place in GRID], after)
    assert said[0, 0, 1] > 0


@pytest.mark.parametrize("looks", [(300.0, DISC), (560.0, ROD)], ids=["nuclei", "rods"])
@pytest.mark.parametrize("way", [(13.0, 0.0), (16.0, 6.0)])
def test_a_cell_and_one_that_comes_beside_it_are_no_daughters(detections, looks, way):
    after = [(GRID[0] + (0.5, 0), *looks), (GRID[0] + way, *looks), *others(looks)]
    said = odds(detections, [(place, *looks) for place in GRID], after)
    assert all(value < 0 for value in said.values())


def test_neighbours_of_which_one_is_lost_are_no_daughters_of_it(detections):
    nucleus = (300.0, DISC)
    beside = np.array([0.0, 22.0])
    places = np.concatenate([GRID[:1] - beside, GRID[:1], GRID[:1] + beside, GRID[2:]])
    before = [(place, *nucleus) for place in places]
    said = odds(detections, before, [before[0], *before[2:]])
    assert all(value < 0 for value in said.values())


def test_measures_far_beyond_those_of_the_training_do_not_carry_the_odds_away():
    model = shipped()
    wild = {name: np.array([-1e9, 1e9, 0.0]) for name in model.names}
    assert (np.abs(model.log_odds(wild)) < 1e3).all()
