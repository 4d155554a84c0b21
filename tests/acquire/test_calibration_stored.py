from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cytoloop.acquire.calibration.stored import Calibration, read_calibration, write_calibration
from cytoloop.acquire.coordinates import Affine
from cytoloop.acquire.errors import CalibrationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NOW = datetime(2026, 5, 4, 10, 15, tzinfo=UTC)
KEPT = Calibration(
    "stage",
    ((0.325, -0.01, 0.0), (0.01, -0.325, 0.0)),
    0.02,
    NOW,
    objective='20x "air" µ',
    device="XY",
    camera="Camera",
    shape=(512, 640),
    pixel_size_um=0.325,
)
GOOD = """kind = "stage"
affine = [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]
residual = 0.01
measured = 2026-05-04T10:15:00Z
shape = [512, 512]
"""


def test_a_calibration_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "calibration.toml"
    light = replace(KEPT, kind="light", affine=((1.0, 0.5, 20.0), (0.0, 2.0, -3.5)), pixel_size_um=None)
    for kept in (KEPT, light):
        write_calibration(path, kept)
        assert read_calibration(path) == kept
    assert [each.name for each in tmp_path.iterdir()] == ["calibration.toml"]
    assert KEPT.map == Affine(0.325, -0.01, 0.01, -0.325)
    with pytest.raises(CalibrationError, match="moves no stage"):
        _ = light.map


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "stage"\n', "", "kind: is missing"),
        ('"stage"', '"stge"', "kind: 'stge' is not allowed; allowed: stage, light"),
        ("affine", "afine", "afine: unknown key.*Did you mean 'affine'"),
        ("[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]", "[[0.5, 0.0, 0.0]]", "affine: .* must be a list of 2"),
        ("[[0.5, 0.0, 0.0]", "[[0.5, 0.0]", "affine: .* must be a list of 3"),
        ("[[0.5, 0.0, 0.0]", '[["a", 0.0, 0.0]', "affine: 'a' must be a number"),
        ("[[0.5, 0.0, 0.0]", "[[nan, 0.0, 0.0]", "affine: nan must be a finite number"),
        ("[[0.5, 0.0, 0.0]", f"[[{'9' * 400}, 0.0, 0.0]", "affine: 9+ must be a finite number"),
        ("[[0.5, 0.0, 0.0]", "[[0.0, 0.0, 0.0]", "affine: .* cannot be inverted"),
        ("[[0.5, 0.0, 0.0]", "[[0.5, 0.0, 7.0]", "affine: .* third number of each row must be 0"),
        ("0.01", "-0.01", "residual: -0.01 must be a finite number, at least 0"),
        ("0.01", "true", "residual: True must be a number"),
        ("2026-05-04T10:15:00Z", "2026-05-04T10:15:00", "measured: .* with its zone"),
        ("2026-05-04T10:15:00Z", '"yesterday"', "measured: yesterday must be a date"),
        ("[512, 512]", "[512]", "shape: .* list of 2"),
        ("[512, 512]", "[0, 512]", "shape: 0 must be"),
        ("[512, 512]", "[512, 512]\nobjective = 20", "objective: 20 must be text"),
        ("[512, 512]", "[512, 512", "no calibration can be read from it"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "calibration.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(CalibrationError, match=f"calibration.toml: {message}"):
        read_calibration(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no such file; make it with 'cytoloop calibrate --out'"):
        read_calibration(tmp_path / "none.toml")
    for path in (tmp_path, "a\0b"):
        with pytest.raises(CalibrationError, match="no calibration can be read"):
            read_calibration(path)
    (tmp_path / "large").write_bytes(b"#" * 100_000)
    with pytest.raises(CalibrationError, match="larger than any calibration"):
        read_calibration(tmp_path / "large")
    with pytest.raises(CalibrationError, match="cannot be written"):
        write_calibration(tmp_path / "no" / "folder.toml", KEPT)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(GOOD)), st.integers(0, 12), st.binary(max_size=6))
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, at: int, cut: int, put: bytes) -> None:
    path = tmp_path / "calibration.toml"
    path.write_bytes(GOOD.encode()[:at] + put + GOOD.encode()[at + cut :])
    try:
        read_calibration(path)
    except CalibrationError as error:
        assert "calibration.toml" in str(error)


@pytest.mark.parametrize(
    ("days", "options", "message"),
    [
        (0, {}, ""),
        (90, {}, ""),
        (91, {}, r"stale: measured 91 days ago \(2026-05-04\), at most 90 are allowed"),
        (-1, {}, "from the future"),
        (0, {"objective": KEPT.objective}, ""),
        (0, {"objective": "40x"}, "of objective '20x .*', in use is '40x'"),
        (0, {"residual": 0.03}, ""),
        (0, {"residual": 0.01}, "residual is 0.02, at most 0.01"),
    ],
)
def test_a_stale_calibration_or_one_of_another_objective_is_not_usable(
    days: int, options: dict[str, Any], message: str
) -> None:
    why = KEPT.usable(NOW + timedelta(days=days), 90, **options)
    assert (why == "") == (message == "")
    assert re.search(message, why)


def test_a_residual_of_more_than_a_pixel_is_not_usable() -> None:
    assert "residual is 0.4" in replace(KEPT, residual=0.4).usable(NOW, 90)
    assert replace(KEPT, kind="light", residual=0.4).usable(NOW, 90) == ""


@pytest.mark.parametrize(
    ("shape", "pixel_size_um", "fits"),
    [
        ((512, 640), 0.325, True),
        ((256, 320), 0.325, True),  # a region of interest
        ((256, 320), 0.65, False),  # binned
        ((512, 640), 0.16, False),  # another objective
        ((512, 640), None, True),
        ((256, 320), None, False),  # nobody says that it is not binned
        ((1024, 1280), None, False),
        ((300, 300), None, True),
    ],
)
def test_another_binning_or_objective_is_seen_in_the_frame(
    shape: tuple[int, int], pixel_size_um: float | None, fits: bool
) -> None:
    assert (KEPT.fits(shape, pixel_size_um) == "") == fits
