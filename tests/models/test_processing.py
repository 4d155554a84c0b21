"""The steps of BioImage.IO say the same here as in bioimageio.core, in both formats, on real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import ModelError
from cytoloop.models.packages.processing import STEPS, read_step, run_steps

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
YX_05, YX_04 = {"axes": ["y", "x"]}, {"axes": "yx", "mode": "per_sample"}
STEPS_05 = [
    ("binarize", {"threshold": 0.4}),
    ("clip", {"min": 0.2, "max": 0.7}),
    ("clip", {"min": 0.3}),
    ("clip", {"min_percentile": 2.0, "max_percentile": 98.0, "axes": ["batch", "channel", "y", "x"]}),
    ("clip", {"max_percentile": 97.5, "axes": ["y", "x"]}),
    ("ensure_dtype", {"dtype": "uint8"}),
    ("fixed_zero_mean_unit_variance", {"mean": 0.4, "std": 0.2}),
    ("fixed_zero_mean_unit_variance", {"mean": [0.4, 0.2], "std": [0.2, 0.3], "axis": "channel"}),
    ("scale_linear", {"gain": 2.0, "offset": -3.0}),
    ("scale_linear", {"gain": [2.0, 3.0], "offset": 0.5, "axis": "channel"}),
    ("scale_mean_variance", {"reference_tensor": "raw", **YX_05}),
    ("scale_range", {"min_percentile": 1.0, "max_percentile": 99.8, **YX_05}),
    ("scale_range", {"min_percentile": 5.0, "max_percentile": 95.0, "axes": ["channel", "y", "x"]}),
    ("sigmoid", {}),
    ("softmax", {}),
    ("softmax", {"axis": "x"}),
    ("zero_mean_unit_variance", {}),
    ("zero_mean_unit_variance", YX_05),
    ("zero_mean_unit_variance", {"axes": ["channel", "y", "x"]}),
]
STEPS_04 = [
    ("binarize", {"threshold": 0.4}),
    ("clip", {"min": 0.2, "max": 0.7}),
    ("scale_mean_variance", {"reference_tensor": "raw", **YX_04}),
    ("scale_range", {"min_percentile": 1, "max_percentile": 99.8, **YX_04}),
    ("scale_range", {"axes": "cyx", "mode": "per_dataset", "min_percentile": 2.0}),
    ("sigmoid", {}),
    ("zero_mean_unit_variance", YX_04),
    ("zero_mean_unit_variance", {"axes": "cyx", "mode": "per_sample"}),
    ("zero_mean_unit_variance", {"axes": "yx", "mode": "per_dataset"}),
    ("zero_mean_unit_variance", {"mode": "fixed", "axes": "cyx", "mean": 0.3, "std": 0.1}),
    ("zero_mean_unit_variance", {"mode": "fixed", "axes": "yx", "mean": [0.3, 0.5], "std": [0.1, 0.3]}),
]


@pytest.fixture(scope="module")
def planes() -> np.ndarray:
    """Two fields of view as two channels, (1, 2, y, x), 0 to 1."""
    paths = sorted((DATA / "Usiigaci-PhC" / "images").glob("*.tif"))[:2]
    if len(paths) < 2:
        pytest.skip("../shared/data/Usiigaci-PhC is not here")
    return np.stack([tifffile.imread(path)[:300, :400] / 65535 for path in paths])[np.newaxis].astype(
        np.float32
    )


def raw_of(planes: np.ndarray) -> np.ndarray:
    """Return an image of another brightness and contrast, to refer to."""
    return 3 + 7 * planes[:, ::-1] ** 2


def by_core(name: str, arguments: dict[str, Any], planes: np.ndarray, version: str) -> np.ndarray:
    """Return what bioimageio.core makes of the planes."""
    pytest.importorskip("bioimageio.core", reason="bioimageio.core is not installed")
    from bioimageio.core import Sample, Tensor
    from bioimageio.core.proc_ops import get_proc
    from bioimageio.core.stat_calculators import compute_measures
    from bioimageio.spec.model import v0_4, v0_5

    if version == "0.5":
        sides = [{"type": "space", "id": axis, "size": 8} for axis in "yx"]
        axes = [{"type": "batch"}, {"type": "channel", "channel_names": ["a", "b"]}, *sides]
        kind, key, described = v0_5.OutputTensorDescr, "id", {"id": "input", "axes": axes}
    else:
        kind, key = v0_4.OutputTensorDescr, "name"
        described = {"name": "input", "axes": "bcyx", "data_type": "float32", "shape": [1, 2, 8, 8]}
    step = {key: name, "kwargs": arguments} if arguments else {key: name}
    tensor = kind.model_validate({**described, "postprocessing": [step]})
    operator = get_proc(tensor.postprocessing[0], tensor)
    dims = ("batch", "channel", "y", "x")
    members = {
        "input": Tensor.from_numpy(planes, dims=dims),
        "raw": Tensor.from_numpy(raw_of(planes), dims=dims),
    }
    sample = Sample(members=members, stat={}, id=None)
    sample.stat = dict(compute_measures(operator.required_measures, [sample]))
    operator(sample)
    return np.asarray(sample.members["input"].data.data)


@pytest.mark.filterwarnings("ignore:Computed dataset percentiles")
@pytest.mark.parametrize(
    ("version", "name", "arguments"),
    [("0.5", *step) for step in STEPS_05] + [("0.4", *step) for step in STEPS_04],
)
def test_a_step_says_the_same_as_in_bioimageio_core(version, name, arguments, planes):
    image = planes * 40 if name == "ensure_dtype" else planes
    expected = by_core(name, arguments, image, version)
    found = run_steps([read_step(name, arguments)], image, "bcyx", {"raw": raw_of(image)})
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 2e-5 * max(1, np.abs(expected).max())
    assert np.ptp(found) > 0


def test_every_step_is_compared():
    assert {name for name, _ in STEPS_05} == set(STEPS)


def test_thresholds_along_an_axis_are_each_for_its_own_channel():
    tensor = np.full((1, 2, 3, 4), 0.5, np.float32)
    step = read_step("binarize", {"threshold": [0.4, 0.6], "axis": "channel"})
    assert run_steps([step], tensor, "bcyx", {})[0, :, 0, 0].tolist() == [1, 0]


def test_gains_of_format_04_belong_to_the_axis_that_is_not_scaled_jointly():
    tensor = np.ones((1, 3, 4, 2), np.float32)  # byxc
    step = read_step("scale_linear", {"gain": [2.0, 3.0], "offset": 1.0, "axes": "yx"})
    assert run_steps([step], tensor, "byxc", {})[0, 2, 3].tolist() == [3, 4]


def test_large_logits_do_not_overflow():
    tensor = np.array([[[[-1e4, 1e4]]]], np.float32)
    assert run_steps([read_step("sigmoid", {})], tensor, "bcyx", {}).ravel().tolist() == [0, 1]
    assert run_steps([read_step("softmax", {"axis": "x"})], tensor, "bcyx", {}).ravel().tolist() == [0, 1]


def test_values_that_a_type_does_not_have_are_refused_not_wrapped_around():
    step = read_step("ensure_dtype", {"dtype": "uint8"})
    assert run_steps([step], np.array([0.0, 3.7, 255.9], np.float32), "x", {}).tolist() == [0, 3, 255]
    for value in (256, -1, np.nan):
        with pytest.raises(ModelError, match="are not uint8: convert the frames"):
            run_steps([step], np.array([0, value], np.float32), "x", {})


def test_axes_may_stand_in_any_order():
    tensor = np.random.default_rng(0).normal(size=(1, 5, 6, 2)).astype(np.float32)
    step = read_step("zero_mean_unit_variance", {"axes": "yx", "mode": "per_sample"})
    result = run_steps([step], tensor, "byxc", {})
    turned = run_steps([step], np.moveaxis(tensor, 3, 1), "bcyx", {})
    assert np.allclose(np.moveaxis(result, 3, 1), turned, atol=1e-6)
    assert np.allclose(result.mean(axis=(1, 2)), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("scale_rang", {}, "unknown step 'scale_rang'; known: binarize, .*Did you mean 'scale_range'"),
        ("", {}, "unknown step ''; known: "),
        ("custom", {"source": "post.py"}, "unknown step 'custom'"),
        ("sigmoid", {"axis": "x"}, "step 'sigmoid': .*unknown field `axis`"),
        ("clip", {"min": "low"}, r"step 'clip': Expected `float \| null`, got `str` - at `\$.min`"),
        ("binarize", {}, "step 'binarize': .*missing required field `threshold`"),
        ("fixed_zero_mean_unit_variance", {"mean": 1.0, "std": 0.0}, "Expected `float` >= 1e-12"),
        ("scale_range", {"eps": -1.0}, "Expected `float` >= 1e-12"),
        ("ensure_dtype", {"dtype": "complex64"}, "step 'ensure_dtype': Invalid enum value 'complex64'"),
    ],
)
def test_a_step_that_is_not_known_or_takes_something_else_is_refused(name, arguments, reason):
    with pytest.raises(ModelError, match=reason):
        read_step(name, arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("softmax", {"axis": "z"}, "no axis 'z'; the tensor has b, c, y, x"),
        ("scale_linear", {"gain": [1.0, 2.0], "axis": "q"}, "no axis 'q'"),
        ("scale_linear", {"gain": [1.0, 2.0]}, "2 values, and no one axis that they belong to"),
        ("scale_linear", {"gain": [1.0, 2.0, 3.0], "axis": "channel"}, "could not be broadcast"),
        ("scale_mean_variance", {"reference_tensor": "other"}, "no input 'other' to refer to; there are raw"),
        ("zero_mean_unit_variance", {"mode": "fixed", "axes": "yx"}, "mode 'fixed' needs mean and std"),
        ("scale_range", {"min_percentile": -3.0}, "Percentiles must be in the range"),
    ],
)
def test_a_step_that_does_not_fit_its_tensor_is_refused(name, arguments, reason):
    tensor = np.ones((1, 2, 4, 4), np.float32)
    with pytest.raises(ModelError, match=reason):
        run_steps([read_step(name, arguments)], tensor, "bcyx", {"raw": tensor})
