"""A calibration as a file: what was measured, when, with which objective and camera, and whether it may be used."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from ..coordinates import Affine
from ..errors import CalibrationError, ConfigurationError, nearest_name

Kind: TypeAlias = Literal["stage", "light"]
Rows: TypeAlias = "tuple[tuple[float, float, float], tuple[float, float, float]]"

_LARGEST_FILE = 1 << 16
_CLOCKS_DIFFER = timedelta(hours=1)
_SAME_PIXEL = 0.02  # of the size that Micro-Manager says
_BINNINGS = (2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A measured calibration of a stage or a light device.

    Attributes
    ----------
    kind
        ``stage``: px to stage um. ``light``: px to the device's own units (px of an SLM, units of a galvo).
    affine
        ((xx, xy, x0), (yx, yy, y0)). For a stage it takes an offset from the image's centre, and x0 and y0 are 0.
    residual
        Root of the mean squared residual in um (stage) or the device's units (light).
    measured
        When, with its time zone.
    objective
        Name of Micro-Manager's pixel size configuration then, or ``""``.
    device, camera
        Labels of the stage or light device, and of the camera, or ``""``.
    shape
        (height, width) of the images in px.
    pixel_size_um
        What Micro-Manager said of the size of a pixel then, or None.
    """

    kind: Kind
    affine: Rows
    residual: float
    measured: datetime
    objective: str = ""
    device: str = ""
    camera: str = ""
    shape: tuple[int, int] = (0, 0)
    pixel_size_um: float | None = None

    @property
    def map(self) -> Affine:
        """The linear part, from px to um.

        Raises
        ------
        CalibrationError
            If it is one of a light device.
        """
        if self.kind != "stage":
            raise CalibrationError("a calibration of a light device moves no stage")
        (xx, xy, _), (yx, yy, _) = self.affine
        return Affine(xx, xy, yx, yy)

    def usable(
        self,
        now: datetime,
        max_age_days: float,
        objective: str = "",
        residual: float | None = None,
    ) -> str:
        """Return why the calibration must not be used, or ``""``.

        Parameters
        ----------
        now
            With its time zone.
        max_age_days
            Age in days beyond which it is stale.
        objective
            Name of the pixel size configuration in use; ``""`` is not compared.
        residual
            Largest residual that is taken, in its unit; None for a stage: one px.
        """
        age = now - self.measured
        if age > timedelta(days=max_age_days):
            return (
                f"the calibration is stale: measured {age / timedelta(days=1):.0f} days ago"
                f" ({self.measured:%Y-%m-%d}), at most {max_age_days:g} are allowed"
            )
        if -age > _CLOCKS_DIFFER:
            return f"the calibration is from the future ({self.measured:%Y-%m-%d %H:%M}): check the clock"
        if objective and self.objective != objective:
            return f"the calibration is of objective {self.objective!r}, in use is {objective!r}"
        limit = residual if residual is not None or self.kind != "stage" else self.map.pixel_size_um
        if limit is not None and self.residual > limit:
            return f"the calibration's residual is {self.residual:g}, at most {limit:g} is allowed"
        return ""

    def fits(self, shape: tuple[int, int], pixel_size_um: float | None) -> str:
        """Return why the calibration is none of an image like this, or ``""``.

        A region of interest does no harm; another objective or binning does. Both are seen in the size of a pixel
        that Micro-Manager says, or else a binning in the number of px.

        Parameters
        ----------
        shape
            (height, width) of the image in px.
        pixel_size_um
            What the frame says of the size of a pixel, or None.
        """
        if self.pixel_size_um and pixel_size_um:
            if abs(pixel_size_um / self.pixel_size_um - 1) > _SAME_PIXEL:
                return (
                    f"the calibration was measured where Micro-Manager said {self.pixel_size_um:g} um per px, the"
                    f" frame says {pixel_size_um:g}: another objective or binning"
                )
            return ""
        for n in _BINNINGS:
            if shape == (self.shape[0] // n, self.shape[1] // n) or self.shape == (
                shape[0] // n,
                shape[1] // n,
            ):
                return (
                    f"the calibration is of images of {self.shape} px, the frame has {shape}: another binning"
                )
        return ""


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a TOML file; one that is there is replaced as a whole.

    Raises
    ------
    CalibrationError
        If it cannot be written.
    """
    rows = ", ".join(f"[{', '.join(f'{value!r}' for value in row)}]" for row in calibration.affine)
    unit = "um" if calibration.kind == "stage" else "units of the device"
    lines = [
        "# Written by cytoloop calibrate.",
        f"kind = {_quoted(calibration.kind)}",
        f"# {'Stage um' if calibration.kind == 'stage' else 'Units of the device'} per px, the row of x first.",
        f"affine = [{rows}]",
        f"# Root mean square, in {unit}.",
        f"residual = {calibration.residual!r}",
        f"measured = {calibration.measured.astimezone(UTC).isoformat(timespec='seconds')}",
        f"objective = {_quoted(calibration.objective)}",
        f"device = {_quoted(calibration.device)}",
        f"camera = {_quoted(calibration.camera)}",
        "# Height and width of the images in px.",
        f"shape = [{calibration.shape[0]}, {calibration.shape[1]}]",
    ]
    if calibration.pixel_size_um:
        lines += [
            "# What Micro-Manager said, in um.",
            f"pixel_size_um = {float(calibration.pixel_size_um)!r}",
        ]
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be written: {error}") from error


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def read_calibration(path: str | Path) -> Calibration:
    """Read and check a file that :func:`write_calibration` wrote.

    Raises
    ------
    CalibrationError
        Names the file and the key that is wrong, what is allowed, and the nearest known key.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise CalibrationError(f"{path}: larger than any calibration ({_LARGEST_FILE} bytes)")
        values = tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise CalibrationError(
            f"{path}: there is no such file; make it with 'cytoloop calibrate --out'"
        ) from None
    except (OSError, ValueError, RecursionError) as error:  # not TOML, not text, not a path
        raise CalibrationError(f"{path}: no calibration can be read from it: {error}") from None
    return _checked(_Table(path, values))


class _Table:
    """The keys of a file, each checked as it is taken."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self._path, self._values = path, values
        for key in values:
            if key not in Calibration.__slots__:
                near = nearest_name(key, Calibration.__slots__)
                hint = f" Did you mean {near!r}?" if near else ""
                raise self.wrong(key, f"unknown key; allowed: {', '.join(Calibration.__slots__)}.{hint}")

    def wrong(self, key: str, reason: str) -> CalibrationError:
        return CalibrationError(f"{self._path}: {key}: {reason}")

    def take(self, key: str) -> Any:
        if key not in self._values:
            raise self.wrong(key, "is missing")
        return self._values[key]

    def text(self, key: str) -> str:
        value = self._values.get(key, "")
        if not isinstance(value, str) or len(value) > 256:
            raise self.wrong(key, f"{value!r} must be text of at most 256 characters")
        return value

    def number(self, key: str, value: Any, low: float = -math.inf) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, f"{value!r} must be a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number) or number < low:
            raise self.wrong(
                key, f"{value} must be a finite number" + (f", at least {low:g}" if low > -math.inf else "")
            )
        return number

    def items(self, key: str, count: int, value: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) != count:
            raise self.wrong(key, f"{value!r} must be a list of {count}")
        return value

    def optional(self, key: str) -> float | None:
        return None if key not in self._values else self.number(key, self._values[key], 0.0) or None


def _checked(table: _Table) -> Calibration:
    kind = table.take("kind")
    if kind not in get_args(Kind):
        raise table.wrong("kind", f"{kind!r} is not allowed; allowed: {', '.join(get_args(Kind))}")
    affine = _rows(table, kind)
    measured = table.take("measured")
    if not isinstance(measured, datetime) or measured.tzinfo is None:
        raise table.wrong(
            "measured", f"{measured!s} must be a date and time with its zone: 2026-05-04T10:15:00Z"
        )
    height, width = (
        int(table.number("shape", side, 1)) for side in table.items("shape", 2, table.take("shape"))
    )
    return Calibration(
        kind=kind,
        affine=affine,
        residual=table.number("residual", table.take("residual"), 0.0),
        measured=measured,
        objective=table.text("objective"),
        device=table.text("device"),
        camera=table.text("camera"),
        shape=(height, width),
        pixel_size_um=table.optional("pixel_size_um"),
    )


def _rows(table: _Table, kind: str) -> Rows:
    first, second = (
        [table.number("affine", value) for value in table.items("affine", 3, row)]
        for row in table.items("affine", 2, table.take("affine"))
    )
    try:
        Affine(first[0], first[1], second[0], second[1])
    except ConfigurationError:
        raise table.wrong("affine", f"{[first, second]} cannot be inverted") from None
    if kind == "stage" and (first[2] or second[2]):
        raise table.wrong("affine", f"{[first, second]}: the third number of each row must be 0 for a stage")
    return (first[0], first[1], first[2]), (second[0], second[1], second[2])
