from __future__ import annotations

import math

import numpy as np
import pytest
from cytoloop.acquire.coordinates import Affine
from cytoloop.acquire.errors import FrameError
from cytoloop.acquire.simulated import presets
from cytoloop.acquire.simulated.camera import Camera
from cytoloop.acquire.simulated.microscope import SimulatedMicroscope
from cytoloop.acquire.simulated.nuclei import NucleiHabits, NucleiSample
from cytoloop.acquire.simulated.optics import Fluorescence, PhaseContrast
from cytoloop.acquire.simulated.rods import RodHabits, RodSample
from cytoloop.acquire.simulated.shapes import View, label_image
from cytoloop.acquire.simulated.texture import chromatin
from scipy.ndimage import center_of_mass, distance_transform_edt, shift

TURNED = 0.6 * math.cos(0.4), 0.6 * math.sin(0.4)
AFFINES = {
    "straight": Affine(0.6, 0.0, 0.0, 0.6),
    "flipped": Affine(-0.6, 0.0, 0.0, 0.6),
    "swapped": Affine(0.0, 0.6, 0.6, 0.0),
    "turned": Affine(TURNED[0], -TURNED[1], TURNED[1], TURNED[0]),
}


def bright(
    count: int, shape: tuple[int, int] = (256, 256), affine: Affine = AFFINES["straight"]
) -> SimulatedMicroscope:
    """A microscope with even light and little noise, over nuclei that neither move nor change."""
    habits = NucleiHabits(count=count, width_um=130.0, cycle_s=1e9, speed_um_s=0.0, death_per_s=0.0)
    optics = Fluorescence(chromatin(0), signal=400.0, haze=0.0, falloff=0.0, bleach_per_ms=0.0)
    return SimulatedMicroscope(
        NucleiSample(habits, 3), optics, Camera(shape, gain=1.0), affine, interval_s=0.0
    )


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_the_light_of_every_nucleus_is_centred_where_the_truth_says(affine: Affine) -> None:
    scope = bright(12, affine=affine)
    pixels = scope.snap().astype(float)
    truth = scope.truth(0)
    checked = 0
    for identity, at, visible in zip(truth.identity, truth.xy_px, truth.visible, strict=True):
        if visible == 1:
            mask = truth.mask == identity
            y, x = center_of_mass(mask)
            assert math.hypot(x - at[0], y - at[1]) < 0.3  # of the mask
            y, x = center_of_mass(np.where(mask, pixels - 100, 0))
            assert math.hypot(x - at[0], y - at[1]) < 1.5  # texture pulls the light a little to one side
            checked += 1
    assert checked >= 5


def test_the_outline_that_is_true_is_the_half_maximum_of_what_is_seen() -> None:
    scope = bright(8)
    scope.optics = Fluorescence(chromatin(0) * 0 + 1, signal=400.0, haze=0.0, falloff=0.0)
    scope.snap()
    shot, truth = scope.snap().astype(float), scope.truth(1)
    for identity, brightness, visible in zip(truth.identity, truth.brightness, truth.visible, strict=True):
        if visible == 1:
            y, x = np.nonzero(truth.mask == identity)
            box = slice(y.min() - 3, y.max() + 4), slice(x.min() - 3, x.max() + 4)
            half = 100 + 20 * (400 * brightness / 2 + 0.8)
            seen, true = shot[box] > half, truth.mask[box] == identity
            assert np.count_nonzero(seen & true) / np.count_nonzero(seen | true) > 0.97


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_moving_the_stage_shifts_the_image_as_the_affine_says(affine: Affine) -> None:
    scope = bright(12, affine=affine)
    still = scope.snap().astype(float)
    scope.stage_um = affine.stage_target((127.5 + 20, 127.5 - 10), (256, 256), (0.0, 0.0))
    moved = scope.snap().astype(float)
    # the px at (20, -10) from the centre is now the centre
    expected = shift(still, (10, -20), order=0)
    inner = slice(30, -30), slice(30, -30)
    assert np.corrcoef(expected[inner].ravel(), moved[inner].ravel())[0, 1] > 0.99
    assert np.corrcoef(still[inner].ravel(), moved[inner].ravel())[0, 1] < 0.5


def test_centring_a_cell_by_the_affine_centres_it_in_the_image() -> None:
    scope = bright(12, affine=AFFINES["turned"])
    scope.snap()
    truth = scope.truth(0)
    x, y = truth.xy_px[3].tolist()
    scope.stage_um = scope.affine.stage_target((x, y), (256, 256), scope.stage_um)
    scope.snap()
    after = scope.truth(1)
    row = after.identity.tolist().index(truth.identity[3])
    assert after.xy_px[row] == pytest.approx([127.5, 127.5])
    assert after.mask[127, 127] == truth.identity[3]


def test_a_defocused_image_is_blurred_and_no_light_is_lost() -> None:
    scope = bright(8)
    sharp = scope.snap().astype(float) - 100
    for scope.z_um in (3.0, -3.0):
        blurred = scope.snap().astype(float) - 100
        assert np.abs(np.diff(blurred)).max() < 0.6 * np.abs(np.diff(sharp)).max()
        assert blurred.sum() == pytest.approx(sharp.sum(), rel=0.05)


def test_phase_contrast_shows_dark_rods_with_a_bright_halo_on_gray() -> None:
    scope = presets.rods(seed=2, size_px=256)
    pixels = scope.snap().astype(float)
    truth = scope.truth(0)
    inside = truth.mask > 0
    gray = np.median(pixels[~inside])
    assert pixels[inside].mean() < 0.7 * gray
    distance = distance_transform_edt(truth.mask == 0)
    assert pixels[(distance >= 3) & (distance <= 6)].mean() > 1.05 * gray


def test_signal_grows_in_proportion_to_exposure_above_the_dark_offset() -> None:
    scope = bright(8)
    levels = []
    for scope.exposure_ms in (5.0, 10.0, 20.0):
        levels.append(scope.snap().astype(float).mean() - 100)
    assert levels == pytest.approx([levels[0], 2 * levels[0], 4 * levels[0]], rel=0.02)


def test_the_camera_has_the_mean_variance_and_skewness_of_shot_and_read_noise() -> None:
    camera = Camera((600, 600), gain=1.0, offset=1000.0, read_noise=2.0)
    for photons in (8.0, 100.0):
        counts = camera.read(np.full((600, 600), photons, np.float32), np.random.default_rng(0)).astype(float)
        deviation = counts - 1000 - photons
        assert abs(deviation.mean()) < 0.05
        assert counts.var() == pytest.approx(photons + 4 + 1 / 12, rel=0.03)
        assert (deviation**3).mean() == pytest.approx(photons, rel=0.3)


def test_the_camera_saturates_and_refuses_what_no_camera_gives() -> None:
    rng = np.random.default_rng(0)
    pixels = Camera((4, 4), "uint8").read(np.full((4, 4), 1e6, np.float32), rng)
    assert pixels.dtype == np.uint8
    assert np.all(pixels == 255)
    with pytest.raises(FrameError, match="float32"):
        Camera(pixel_type="float32")
    with pytest.raises(FrameError, match="at least 1 px"):
        Camera((0, 5))


@pytest.mark.parametrize("pixel_type", ["uint8", "uint16"])
@pytest.mark.parametrize("kind", ["nuclei", "rods"])
def test_both_kinds_fill_the_range_of_both_pixel_types_without_clipping(kind: str, pixel_type: str) -> None:
    maker = presets.nuclei if kind == "nuclei" else presets.rods
    pixels = maker(1, size_px=256, pixel_type=pixel_type).snap()
    assert pixels.dtype == pixel_type
    assert np.mean(pixels == np.iinfo(pixel_type).max) < 0.002
    assert np.mean(pixels == 0) < 0.002
    assert pixels.std() > (5 if pixel_type == "uint8" else 50)


def test_the_field_is_lit_unevenly() -> None:
    light = PhaseContrast().illumination((100, 120))
    assert light.shape == (100, 120)
    assert light.max() == pytest.approx(1.0, abs=0.01)
    assert light.min() == pytest.approx(0.88, abs=0.01)


def test_a_label_image_knows_every_cell_and_the_whole_of_a_touching_pair() -> None:
    sample = RodSample(RodHabits(count=2, width_um=0.0), seed=1)  # two rods on one spot, pushed apart
    snapshot = sample.snapshot()
    view = View((200, 200), Affine.from_pixel_size(0.05), (0.0, 0.0))
    labels = label_image(snapshot.shapes, snapshot.xy_um, view)
    area = np.bincount(labels.ravel())[1:] * 0.05**2
    half = snapshot.shapes.half_um  # type: ignore[attr-defined]
    whole = np.pi * half[:, 1] ** 2 + 4 * half[:, 1] * (half[:, 0] - half[:, 1])
    assert len(area) == 2
    assert np.all(area <= 1.01 * whole)
    assert np.all(area > 0.85 * whole)  # the waist takes some
