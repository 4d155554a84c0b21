from __future__ import annotations

import numpy as np
import pytest
from cytoloop.acquire.simulated.nuclei import NucleiHabits, NucleiSample
from cytoloop.acquire.simulated.rods import RodHabits, RodSample, closest
from cytoloop.acquire.simulated.sample import Sample


def quick(**habits: float) -> NucleiSample:
    """A few nuclei that divide every two hours or so."""
    values = {
        "count": 20,
        "width_um": 300.0,
        "cycle_s": 7200.0,
        "mitosis_s": 1200.0,
        "death_per_s": 0.0,
    } | habits
    return NucleiSample(NucleiHabits(**values), seed=4)  # type: ignore[arg-type]


def make(kind: str, seed: int) -> Sample:
    return NucleiSample(NucleiHabits(count=40), seed) if kind == "nuclei" else RodSample(RodHabits(), seed)


@pytest.mark.parametrize("kind", ["nuclei", "rods"])
def test_the_same_seed_gives_the_same_life_and_another_seed_another(kind: str) -> None:
    samples = [make(kind, seed) for seed in (7, 7, 8)]
    for sample in samples:
        for _ in range(30):
            sample.advance(120.0)
    first, again, other = (sample.snapshot() for sample in samples)
    assert np.array_equal(first.identity, again.identity)
    assert np.array_equal(first.xy_um, again.xy_um)
    assert np.array_equal(first.brightness, again.brightness)
    assert samples[0].divisions == samples[1].divisions
    assert first.xy_um.shape != other.xy_um.shape or not np.allclose(first.xy_um, other.xy_um)


@pytest.mark.parametrize("kind", ["nuclei", "rods"])
def test_time_goes_on_by_what_was_asked_for_and_never_backwards(kind: str) -> None:
    sample = make(kind, 1)
    sample.advance(95.5)
    sample.advance(0.0)
    assert sample.time_s == pytest.approx(95.5)
    with pytest.raises(ValueError, match="dt_s must be"):
        sample.advance(-1.0)
    with pytest.raises(ValueError, match="dt_s must be"):
        sample.advance(float("nan"))


@pytest.mark.parametrize("kind", ["nuclei", "rods"])
def test_a_snapshot_does_not_change_when_the_sample_lives_on(kind: str) -> None:
    sample = make(kind, 1)
    before = sample.snapshot()
    xy, brightness, reach = before.xy_um.copy(), before.brightness.copy(), before.shapes.reach_um.copy()
    sample.stimulate(before.identity[:3], np.ones(3))
    sample.expose(before.identity, np.full(len(before), 0.5))
    for _ in range(20):
        sample.advance(300.0)
    assert np.array_equal(before.xy_um, xy)
    assert np.array_equal(before.brightness, brightness)
    assert np.array_equal(before.shapes.reach_um, reach)


@pytest.mark.parametrize("kind", ["nuclei", "rods"])
def test_every_division_replaces_one_mother_by_two_daughters_that_name_her(kind: str) -> None:
    sample: Sample = quick() if kind == "nuclei" else make("rods", 3)
    parents: dict[int, int] = {}
    seen: list[set[int]] = []
    for _ in range(60):
        sample.advance(120.0)
        now = sample.snapshot()
        parents |= dict(zip(now.identity.tolist(), now.parent.tolist(), strict=True))
        seen.append(set(now.identity.tolist()))
        assert np.all(np.diff(now.identity) > 0)
    assert len(sample.divisions) >= 10
    mothers = {division.mother for division in sample.divisions}
    assert len(mothers) == len(sample.divisions)
    assert not mothers & seen[-1]
    for division in sample.divisions:
        assert [parents[daughter] for daughter in division.daughters] == [division.mother] * 2
        frame = next(i for i, cells in enumerate(seen) if division.daughters[0] in cells)
        assert division.daughters[1] in seen[frame]
        assert division.mother in seen[frame - 1]
        assert division.mother not in seen[frame]
        assert (frame + 1) * 120.0 == pytest.approx(division.time_s, abs=120.0)


def test_a_nucleus_rounds_up_and_brightens_before_it_becomes_two_small_ones_side_by_side() -> None:
    sample = quick(count=1, cycle_s=14400.0)
    history: list[tuple[float, float, float]] = []  # area, brightness, axis ratio
    while not sample.divisions:
        sample.advance(60.0)
        now = sample.snapshot()
        semi = now.shapes.semi_um[0]  # type: ignore[attr-defined]
        history.append((np.pi * semi[0] * semi[1], float(now.brightness[0]), semi[0] / semi[1]))
        grown = max(area for area, _, _ in history)
    daughters = sample.snapshot()
    before, mitotic = history[-21], history[-4]
    assert mitotic[0] < 0.5 * grown
    assert mitotic[1] > 2 * before[1]
    assert min(ratio for _, _, ratio in history[-20:-2]) < 1.1
    assert len(daughters) == 2
    areas = np.pi * np.prod(daughters.shapes.semi_um, axis=1)  # type: ignore[attr-defined]
    assert np.all(areas < 0.8 * mitotic[0])
    apart = np.hypot(*np.subtract(*daughters.xy_um))
    assert 4.0 < apart < 15.0
    for _ in range(60):
        sample.advance(60.0)
    later = sample.snapshot()
    assert np.all(np.pi * np.prod(later.shapes.semi_um, axis=1) > 1.8 * areas)  # type: ignore[attr-defined]
    assert np.all(later.brightness < 0.65 * daughters.brightness)


def test_nuclei_do_not_run_into_each_other() -> None:
    sample = NucleiSample(NucleiHabits(count=120, width_um=380.0, death_per_s=0.0), seed=2)
    for _ in range(60):
        sample.advance(300.0)
    now = sample.snapshot()
    radius = np.sqrt(np.prod(now.shapes.semi_um, axis=1))  # type: ignore[attr-defined]
    apart = (
        np.hypot(*(now.xy_um[:, None] - now.xy_um[None]).transpose(2, 0, 1)) - radius[:, None] - radius[None]
    )
    np.fill_diagonal(apart, np.inf)
    assert apart.min() > 0.5


def test_a_mover_leaves_while_others_stay_about() -> None:
    sample = quick(movers=1, width_um=900.0, count=100)
    start = sample.snapshot().xy_um
    for _ in range(60):
        sample.advance(60.0)
    now = sample.snapshot()
    moved = {int(i): xy for i, xy in zip(now.identity, now.xy_um, strict=True)}
    distance = np.array([np.hypot(*(moved[i + 1] - start[i])) for i in range(100) if i + 1 in moved])
    assert 1 in moved
    assert distance[0] > 140.0
    assert np.median(distance[1:]) < 40.0


def test_a_stimulated_nucleus_brightens_and_stands_still_while_the_others_do_not() -> None:
    sample = NucleiSample(NucleiHabits(count=50, death_per_s=0.0, cycle_s=1e9, gap_um=-20.0), seed=5)
    before = sample.snapshot()
    sample.stimulate(before.identity[:5], np.ones(5))
    for _ in range(10):
        sample.advance(120.0)
    after = sample.snapshot()
    gain = after.brightness / before.brightness
    moved = np.hypot(*(after.xy_um - before.xy_um).T)
    assert np.all(gain[:5] > 1.5)
    assert np.all(np.abs(gain[5:] - 1) < 0.05)
    assert np.all(moved[:5] == 0)
    assert np.median(moved[5:]) > 1.0
    assert np.array_equal(np.flatnonzero(after.reporter), np.arange(5))


def test_bleached_nuclei_lose_light_and_make_it_anew() -> None:
    sample = NucleiSample(NucleiHabits(count=10, death_per_s=0.0, cycle_s=1e9), seed=5)
    before = sample.snapshot().brightness
    sample.expose(sample.snapshot().identity, np.full(10, np.log(2.0)))
    assert sample.snapshot().brightness == pytest.approx(before / 2)
    sample.advance(36_000.0)
    assert np.all(sample.snapshot().brightness > 0.7 * before)


def test_dying_cells_shrink_vanish_and_are_counted() -> None:
    sample = NucleiSample(NucleiHabits(count=40, death_per_s=1e-4, cycle_s=1e9), seed=5)
    smallest = np.inf
    for _ in range(60):
        sample.advance(300.0)
        smallest = min(smallest, float(sample.snapshot().shapes.reach_um.min()))
    assert len(sample.deaths) > 10
    assert len(sample) == 40 - len(sample.deaths)
    assert smallest < 4.5
    gone = {identity for identity, _ in sample.deaths}
    assert not gone & set(sample.snapshot().identity.tolist())
    sample.stimulate(np.array(sorted(gone)), np.ones(len(gone)))  # too late: no harm done
    assert not sample.snapshot().reporter.any()


def test_rods_double_in_their_doubling_time_and_keep_their_length() -> None:
    sample = RodSample(RodHabits(count=8, width_um=60.0, doubling_s=1800.0, death_per_s=0.0), seed=1)
    for _ in range(90):
        sample.advance(60.0)
    now = sample.snapshot()
    assert 45 <= len(now) <= 90  # three doublings of 8
    assert 2.0 < np.mean(2 * now.shapes.reach_um) < 4.0


def test_a_colony_spreads_without_rods_lying_on_each_other() -> None:
    sample = RodSample(RodHabits(death_per_s=0.0), seed=3)
    while len(sample) < 150:
        sample.advance(60.0)
    now = sample.snapshot()
    half, width = now.shapes.half_um[:, 0], 2 * now.shapes.half_um[0, 1]  # type: ignore[attr-defined]
    i, j = np.triu_indices(len(now), 1)
    _, distance, _, _ = closest(now.xy_um, now.shapes.angle, half - width / 2, i, j)  # type: ignore[attr-defined]
    assert distance.min() > 0.85 * width


def test_the_closest_points_of_two_rods_are_those_found_by_search() -> None:
    rng = np.random.default_rng(0)
    n = 200
    xy, angle, half = (
        rng.uniform(-3, 3, (2 * n, 2)),
        rng.uniform(0, 2 * np.pi, 2 * n),
        rng.uniform(0, 2, 2 * n),
    )
    i, j = np.arange(n), np.arange(n, 2 * n)
    normal, distance, _, _ = closest(xy, angle, half, i, j)
    along = np.linspace(-1, 1, 101)
    ends = (
        xy[:, None]
        + (along[:, None] * half[:, None, None]) * np.stack([np.cos(angle), np.sin(angle)], 1)[:, None]
    )
    found = np.hypot(*(ends[i][:, :, None] - ends[j][:, None]).transpose(3, 0, 1, 2)).min(axis=(1, 2))
    assert np.all(distance <= found + 0.03)  # rods within 2 degrees count as parallel
    assert np.median(found - distance) < 1e-3
    assert np.all(found - distance < 0.06)  # the grid of the search
    assert np.hypot(*normal.T) == pytest.approx(np.ones(n))


def test_a_stimulated_rod_stops_growing_and_darkens() -> None:
    sample = RodSample(RodHabits(death_per_s=0.0), seed=3)
    before = sample.snapshot()
    sample.stimulate(before.identity[:1], np.ones(1))
    for _ in range(5):
        sample.advance(60.0)
    after = sample.snapshot()
    rows = {int(identity): row for row, identity in enumerate(after.identity)}
    assert after.shapes.reach_um[rows[1]] == before.shapes.reach_um[0]
    assert after.brightness[rows[1]] > 1.2 * before.brightness[0]
    grown = [
        after.shapes.reach_um[rows[i + 1]] > before.shapes.reach_um[i] for i in range(1, 6) if i + 1 in rows
    ]
    assert len(grown) >= 3
    assert all(grown)
