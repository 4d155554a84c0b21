"""Grey levels: the same picture at any gain, offset and type; noise is not stretched, debris does not blind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cytoloop.models.packages.levels import levels
from cytoloop.models.packages.normalise import Contrast, Normalisation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
RULE = Normalisation()


def camera(shape=(512, 512), *, photons=200.0, seed=0):
    return np.random.default_rng(seed).poisson(photons, shape).astype(np.uint16)


@pytest.fixture
def nuclei(draw_nuclei):
    """(image, mask) of 60 nuclei on 512 x 512 px."""
    return draw_nuclei((512, 512), 60)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(512, 640), (130, 90), (40, 37)])
def test_levels_are_percentiles_of_the_image(dtype, shape):
    image = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=shape), 3)
    image = (image - image.min()) / np.ptp(image) * 250
    image = image.astype(dtype)
    found = levels(image, 1, 99.8)
    low, high = np.percentile(image, (1, 99.8))
    assert found.low == pytest.approx(low, abs=0.03 * (high - low))
    assert found.high == pytest.approx(high, abs=0.03 * (high - low))


@pytest.mark.parametrize("deviation", [0.0, 0.7, 1.0, 5.0, 40.0])
def test_noise_is_found_under_whatever_the_image_shows(deviation):
    random, (y, x) = np.random.default_rng(2), np.indices((512, 512))
    shown = 1000 + 3 * x + y + 500 * (np.hypot(y - 250, x - 250) < 100)
    image = np.rint(shown + random.normal(0, deviation, shown.shape)).astype(np.uint16)
    # Rounding to whole counts is noise, too.
    expected = np.sqrt(deviation**2 + 1 / 12) if deviation else 0
    assert levels(image, 1, 99.8).noise == pytest.approx(expected, rel=0.2, abs=0.15)


def test_noise_of_a_camera_is_not_stretched_to_full_contrast():
    for photons in (1, 20, 200, 5000, 40_000):
        result = RULE(camera(photons=photons))
        assert 0 < result.std() < 0.15
        assert np.percentile(result, 99.8) < 0.8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_image_without_any_contrast_becomes_zeros(dtype):
    for value in (0, 7, 255):
        assert not RULE(np.full((64, 64), value, dtype)).any()


def test_an_image_of_a_few_px_has_levels_too():
    for shape in ((1, 1), (1, 40), (3, 3), (5, 2)):
        image = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape) * 100
        assert np.isfinite(RULE(image)).all()
        assert RULE.bounds(image)[0] == 0


def test_floats_that_are_not_finite_do_not_decide():
    image = np.random.default_rng(3).normal(100, 10, (256, 256)).astype(np.float32)
    low, high = RULE.bounds(image)
    image[::50, ::50] = np.inf
    image[5, 5], image[7, 7] = np.nan, -np.inf
    assert RULE.bounds(image) == pytest.approx((low, high), rel=0.02)
    assert RULE.bounds(np.full((9, 9), np.nan, np.float32))[1] > 0


def test_all_types_of_the_same_image_look_the_same(nuclei):
    image = np.minimum(nuclei[0], 255)
    expected = RULE(image.astype(np.uint16))
    assert expected.max() > 0.9
    for other in (image.astype(np.uint8), image.astype(np.float32), image / 65535.0):
        assert np.abs(RULE(other) - expected).max() < 0.03


@settings(max_examples=25, deadline=None)
@given(gain=st.integers(1, 40), offset=st.integers(0, 5000), seed=st.integers(0, 5))
def test_gain_and_offset_of_the_camera_do_not_matter(gain, offset, seed):
    image = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(128, 128)), 2)
    image = ((image - image.min()) / np.ptp(image) * 1000).astype(np.uint16)
    assert np.allclose(RULE(image * gain + offset), RULE(image), atol=0.02)


def test_debris_does_not_blind_a_frame(nuclei):
    image, mask = nuclei
    before = RULE(image)[mask > 0].mean()
    y, x = np.indices(image.shape)
    for radius, brightness in ((15, 3000), (20, 30_000), (8, 60_000)):
        dirty = np.where(np.hypot(y - 300, x - 200) < radius, brightness, image).astype(np.uint16)
        seen = (mask > 0) & (dirty == image)
        assert RULE(dirty)[seen].mean() > before / 3.2
        if radius > 13:  # it is more than 0.2 % of the px, and would be the upper percentile
            low, high = np.percentile(dirty, (1, 99.8))
            assert ((dirty - low) / (high - low))[seen].mean() < before / 7


@pytest.mark.parametrize("folder", ["Usiigaci-PhC/images", "Bact-trpL-early/01", "Fluo-N2DH-GOWT1/01"])
def test_what_is_against_debris_and_noise_leaves_real_images_alone(folder):
    paths = sorted((DATA / folder).glob("*.tif"))[::8]
    if not paths:
        pytest.skip(f"../shared/data/{folder} is not here")
    for path in paths:
        image = tifffile.imread(path)
        low, high = np.percentile(image, (1, 99.8))
        assert RULE.bounds(image) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_the_result_is_linear_and_cut():
    image = np.array([[0, 10, 20, 60, 1000]], np.uint16)
    rule = Normalisation("fixed", 10, 20)
    assert rule(image).tolist() == [[-1, 0, 1, 4, 4]]
    assert Normalisation("fixed", 10, 20, clip=None)(image).tolist() == [[-1, 0, 1, 5, 99]]
    assert Normalisation("none", clip=None)(image).tolist() == image.tolist()
    out = np.empty(image.shape, np.float32)
    assert rule.apply(image, (10, 20), out) is out
    image.flags.writeable = False
    assert rule(image).tolist() == out.tolist()


def test_mean_and_deviation_become_0_and_1(nuclei):
    result = Normalisation("mean_std", clip=None)(nuclei[0])
    assert (result.mean(), result.std()) == (pytest.approx(0, abs=1e-4), pytest.approx(1, abs=1e-4))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"kind": "otsu"}, "kind must be one of percentile, mean_std, fixed, none, got 'otsu'"),
        ({"low": 99.0, "high": 1.0}, "low and high must be percentiles"),
        ({"high": 101.0}, "low and high must be percentiles"),
        ({"kind": "fixed", "low": 5.0, "high": 5.0}, "low and high must be grey levels"),
        ({"kind": "fixed", "low": 0.0, "high": float("nan")}, "low and high must be grey levels"),
        ({"clip": (1.0, -1.0)}, "clip must be"),
    ],
)
def test_rules_that_make_no_sense_are_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        Normalisation(**arguments)


def stream(images):
    contrast = Contrast(RULE)
    return [contrast.update(image) for image in images]


def frames(nuclei, count):
    """Frames with their own noise."""
    random = np.random.default_rng(5)
    return [random.poisson(nuclei[0]).astype(np.uint16) for _ in range(count)]


def test_the_first_frame_is_taken_as_it_is_and_flicker_is_smoothed(nuclei):
    random = np.random.default_rng(6)
    images = [(image * random.uniform(0.93, 1.07)).astype(np.uint16) for image in frames(nuclei, 30)]
    alone = [RULE.bounds(image)[1] for image in images]
    smoothed = [high for _, high in stream(images)]
    assert smoothed[0] == alone[0]
    assert np.std(smoothed[5:]) < 0.5 * np.std(alone[5:])
    assert np.mean(smoothed) == pytest.approx(np.mean(alone), rel=0.03)


@pytest.mark.parametrize("bad", [1, 3, 8])
def test_a_flash_or_a_dark_frame_changes_nothing(nuclei, bad):
    images = frames(nuclei, 12)
    expected = stream(images)
    for light in (8, 0.05):
        disturbed = [*images[:bad], (images[bad] * light).astype(np.uint16), *images[bad + 1 :]]
        for found, usual in zip(stream(disturbed)[2:], expected[2:], strict=True):
            assert found == pytest.approx(usual, rel=0.15)


def test_a_lasting_change_of_the_light_is_followed(nuclei):
    images = frames(nuclei, 12)
    images[6:] = [image * np.uint16(4) for image in images[6:]]
    found = stream(images)
    assert found[6] == pytest.approx(found[5], rel=0.05)
    for index in (9, 10, 11):
        assert found[index] == pytest.approx(RULE.bounds(images[index]), rel=0.1)


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(0, 11), seed=st.integers(0, 3))
def test_a_stream_goes_on_from_its_state_bit_for_bit(cut, seed):
    random = np.random.default_rng(seed)
    images = [random.poisson(random.uniform(20, 400), (64, 64)).astype(np.uint16) for _ in range(12)]
    first = Contrast(RULE)
    for image in images[:cut]:
        first.update(image)
    second = Contrast(RULE)
    second.restore(json.loads(json.dumps(first.state())))
    for image in images[cut:]:
        assert second.update(image) == first.update(image)
    assert second.state() == first.state()


def test_a_state_that_is_none_is_refused():
    with pytest.raises(ValueError, match="last_0_high is missing"):
        Contrast(RULE).restore({"last_0_low": 1.0})
