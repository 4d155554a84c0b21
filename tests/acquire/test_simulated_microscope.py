from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.actuators import Actuator
from cytoloop.acquire.commands import SnapExtra, Stimulate, Trigger, encode_mask
from cytoloop.acquire.errors import ActuatorError
from cytoloop.acquire.plugins import OptionError, build, find_class
from cytoloop.acquire.reply import Decision
from cytoloop.acquire.simulated import presets
from cytoloop.acquire.simulated.actuator import SimulatedActuator
from cytoloop.acquire.simulated.ground_truth import to_ctc
from cytoloop.acquire.simulated.source import SimulatedSource
from cytoloop.acquire.sources.source import Source


def decision(
    command: Stimulate | Trigger | SnapExtra, stage_um: tuple[float, float] | None = None
) -> Decision:
    return Decision("test", command, sequence=0, time_s=0.0, expires_s=1.0, stage_um=stage_um)


def test_frames_are_the_same_for_the_same_seed_and_calls() -> None:
    first, again = presets.nuclei(4, size_px=128), presets.nuclei(4, size_px=128)
    for stage in ((0.0, 0.0), (10.0, 0.0), (10.0, -5.0)):
        first.stage_um = again.stage_um = stage
        assert np.array_equal(first.snap(), again.snap())
    assert not np.array_equal(first.snap(), presets.nuclei(5, size_px=128).snap())


def test_the_sample_lives_one_interval_per_frame_from_the_second_on() -> None:
    scope = presets.nuclei(0, size_px=128, interval_s=90.0)
    times = [scope.snap() is None or scope.sample.time_s for _ in range(3)]
    assert times == [0.0, 90.0, 180.0]
    assert [scope.truth(i).time_s for i in range(3)] == times
    with pytest.raises(IndexError, match="frame 3: 3 have been taken"):
        scope.truth(3)


def test_light_bleaches_what_is_in_the_field_by_dose_and_nothing_else() -> None:
    scope = presets.nuclei(2, size_px=256, interval_s=0.0)
    object.__setattr__(scope.optics, "bleach_per_ms", 1e-3)
    before = scope.sample.snapshot()
    scope.exposure_ms = 100.0
    for _ in range(3):
        scope.snap()
    left = scope.sample.snapshot().brightness / before.brightness
    at = before.xy_um / 0.6 + 127.5
    inside = np.all((at > 1) & (at < 254), axis=1)
    outside = np.any((at < -1) | (at > 256), axis=1)
    assert np.all(left[outside] == 1)
    assert np.all((left[inside] > 0.73) & (left[inside] < 0.82))  # exp(-0.3) where the light is full


def test_a_spot_hits_the_cell_under_it_and_no_other() -> None:
    scope = presets.nuclei(1, size_px=256)
    scope.snap()
    truth = scope.truth(0)
    row = int(np.argmin(np.hypot(*(truth.xy_px - 127.5).T)))
    at = float(truth.xy_px[row, 0]), float(truth.xy_px[row, 1])
    assert scope.stimulate(points_px=(at,), radius_px=4.0, power=0.5) == (truth.identity[row],)
    (log,) = scope.stimulations
    assert (log.frame, log.time_s, log.power, log.identities) == (0, 0.0, 0.5, (truth.identity[row],))
    assert 0.05 < log.fractions[0] < 0.5
    for _ in range(4):
        scope.snap()
    after = scope.truth(4)
    answered = after.identity[after.reporter > 0]
    assert answered.tolist() == [truth.identity[row]]


def test_a_spot_beside_all_cells_hits_none_and_is_logged() -> None:
    scope = presets.nuclei(1, size_px=256)
    scope.snap()
    y, x = np.argwhere(scope.truth(0).mask == 0)[5000]
    scope.stimulate(points_px=((float(x), float(y)),), radius_px=0.5)
    assert scope.stimulations[0].identities == ()


def test_a_mask_hits_every_cell_that_it_covers() -> None:
    scope = presets.nuclei(1, size_px=256)
    scope.snap()
    truth = scope.truth(0)
    mask = np.isin(truth.mask, truth.identity[2:5])
    assert scope.stimulate(mask=mask) == tuple(truth.identity[2:5])
    assert scope.stimulations[0].fractions == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("how", ["points", "mask"])
def test_light_meant_for_an_earlier_image_finds_the_cell_after_the_stage_has_moved(how: str) -> None:
    scope = presets.nuclei(1, size_px=256, interval_s=0.0)
    scope.snap()
    truth = scope.truth(0)
    row = int(np.argmin(np.hypot(*(truth.xy_px - 127.5).T)))
    scope.stage_um = (18.0, -12.0)
    where = (
        Stimulate(points_px=((float(truth.xy_px[row, 0]), float(truth.xy_px[row, 1])),))
        if how == "points"
        else Stimulate(mask=encode_mask(truth.mask == truth.identity[row]))
    )
    SimulatedActuator(scope).actuate(decision(where, stage_um=(0.0, 0.0)))
    assert scope.stimulations[0].identities == (truth.identity[row],)


def test_light_that_cannot_reach_the_field_or_is_malformed_is_an_error_of_the_actuator() -> None:
    scope = presets.nuclei(1, size_px=128)
    actuator = SimulatedActuator(scope)
    assert isinstance(actuator, Actuator)
    scope.stage_um = (500.0, 0.0)
    with pytest.raises(ActuatorError, match="field of view"):
        actuator.actuate(decision(Stimulate(points_px=((64.0, 64.0),)), stage_um=(0.0, 0.0)))
    with pytest.raises(ActuatorError, match="mask runs add up"):
        actuator.actuate(decision(Stimulate(mask=(5, 5))))
    with pytest.raises(ActuatorError, match="power must be"):
        actuator.actuate(decision(Stimulate(points_px=((64.0, 64.0),), power=2.0)))
    with pytest.raises(ActuatorError, match="SnapExtra"):
        actuator.actuate(decision(SnapExtra()))
    assert scope.stimulations == ()


def test_a_trigger_is_logged_with_its_time() -> None:
    scope = presets.nuclei(1, size_px=128, interval_s=60.0)
    scope.snap()
    scope.snap()
    actuator = SimulatedActuator(scope)
    actuator.actuate(decision(Trigger("gate", at_s=61.0, width_ms=2.0)))
    actuator.close()
    (pulse,) = actuator.pulses
    assert (pulse.output, pulse.at_s, pulse.width_ms, pulse.frame, pulse.time_s) == (
        "gate",
        61.0,
        2.0,
        1,
        60.0,
    )


def test_the_truth_names_first_frames_and_what_the_edge_cuts_off() -> None:
    scope = presets.dividing(2, size_px=256)
    for _ in range(80):
        scope.snap()
    born: dict[int, int] = {}
    for frame in range(80):
        truth = scope.truth(frame)
        assert np.array_equal(np.unique(truth.mask)[1:], truth.identity)
        assert np.array_equal(np.bincount(truth.mask.ravel())[truth.identity], truth.area_px)
        cut = np.unique(np.concatenate([truth.mask[0], truth.mask[-1], truth.mask[:, 0], truth.mask[:, -1]]))
        assert np.all(truth.visible[~np.isin(truth.identity, cut)] == 1)
        born |= dict(zip(truth.identity.tolist(), truth.born_frame.tolist(), strict=True))
    for division in scope.sample.divisions:
        for daughter in set(division.daughters) & born.keys():
            assert scope.truth(born[daughter]).time_s >= division.time_s
            assert scope.truth(born[daughter] - 1).time_s < division.time_s
    daughters = {daughter for division in scope.sample.divisions for daughter in division.daughters}
    assert len(daughters & born.keys()) > 10
    assert all(frame == 0 for identity, frame in born.items() if identity not in daughters)


def test_the_runaway_leaves_the_field_unless_the_stage_follows_it() -> None:
    scope, followed = presets.runaway(3, size_px=256), presets.runaway(3, size_px=256)
    for frame in range(60):
        scope.snap()
        followed.snap()
        truth = followed.truth(frame)
        x, y = truth.xy_um[truth.identity.tolist().index(1)].tolist()
        if frame >= 2:
            assert np.hypot(x - followed.stage_um[0], y - followed.stage_um[1]) < 5.0
        followed.stage_um = x, y
    assert 1 in scope.truth(0).identity
    assert 1 not in scope.truth(59).identity


def test_the_source_is_built_by_name_and_yields_frames_in_order() -> None:
    source = build(
        find_class("sources", "simulated"), {"kind": "rods", "frames": 4, "size_px": 128, "seed": 3}
    )
    assert isinstance(source, Source)
    assert isinstance(source, SimulatedSource)
    frames = list(source.frames())
    source.close()
    assert source.count == len(frames) == 4
    assert [frame.sequence for frame in frames] == [0, 1, 2, 3]
    assert [frame.time_s for frame in frames] == [0.0, 60.0, 120.0, 180.0]
    assert frames[0].shape == (128, 128)
    assert frames[0].pixel_size_um == pytest.approx(0.1)
    assert frames[0].stage_um == (0.0, 0.0)
    assert source.microscope.truth(3).identity.size >= 1


def test_the_interval_of_the_source_may_be_chosen() -> None:
    source = SimulatedSource(frames=3, size_px=64, interval_s=7.5)
    assert [frame.time_s for frame in source.frames()] == [0.0, 7.5, 15.0]


@pytest.mark.parametrize(
    "options", [{"kind": "yeast"}, {"frames": -1}, {"size_px": 2}, {"interval_s": -1.0}, {"colour": "red"}]
)
def test_the_source_refuses_options_by_name(options: dict[str, object]) -> None:
    with pytest.raises(OptionError) as refused:
        build(SimulatedSource, options)
    assert refused.value.option == next(iter(options))


def test_a_run_is_written_in_the_layout_of_the_cell_tracking_challenge(tmp_path: Path) -> None:
    scope = presets.dividing(2, size_px=256)
    to_ctc(tmp_path, scope, 60)
    table = np.loadtxt(tmp_path / "01_GT" / "TRA" / "man_track.txt", dtype=int)
    masks = [tifffile.imread(tmp_path / "01_GT" / "TRA" / f"man_track{i:03d}.tif") for i in range(60)]
    assert masks[0].dtype == np.uint16
    assert tifffile.imread(tmp_path / "01" / "t059.tif").shape == (256, 256)
    assert np.array_equal(tifffile.imread(tmp_path / "01_GT" / "SEG" / "man_seg007.tif"), masks[7])
    present = [set(np.unique(mask)[1:].tolist()) for mask in masks]
    last = {label: end for label, _, end, _ in table.tolist()}
    children: dict[int, int] = {}
    for label, first, end, parent in table.tolist():
        assert [label in cells for cells in present] == [first <= frame <= end for frame in range(60)]
        if parent:
            assert last[parent] == first - 1
            children[parent] = children.get(parent, 0) + 1
    assert set().union(*present) == set(last)
    assert sum(count == 2 for count in children.values()) >= 3
    with pytest.raises(ValueError, match="fresh"):
        to_ctc(tmp_path, scope, 1)
