"""``OME/METADATA.ome.xml``: the same metadata for programs that read OME-XML, with the time and place of each plane.

Source of the format: OME schema 2016-06. Attributes with a default unit are given in it: DeltaT and ExposureTime in s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from xml.sax.saxutils import quoteattr

from .layout import ImageLayout
from .side_index import Plane

_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_OPEN = (
    f'<?xml version="1.0" encoding="UTF-8"?>\n<OME xmlns="{_NAMESPACE}"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    f' xsi:schemaLocation="{_NAMESPACE} {_NAMESPACE}/ome.xsd" Creator="cytoloop">'
)


def ome_xml(
    layout: ImageLayout, positions: Sequence[str], time_points: int, planes: Iterable[Plane] = ()
) -> bytes:
    """Return the document.

    Parameters
    ----------
    layout
        What the images look like.
    positions
        Names of the positions, one image each.
    time_points
        Length of the time axis.
    planes
        The planes that are there, in any order.
    """
    described: list[list[str]] = [[] for _ in positions]
    for plane in planes:
        described[plane.position].append(_plane(plane))
    images = (
        _image(layout, number, name, time_points, described[number]) for number, name in enumerate(positions)
    )
    return "\n".join([_OPEN, *images, "</OME>", ""]).encode()


def _image(layout: ImageLayout, number: int, name: str, time_points: int, planes: Sequence[str]) -> str:
    height, width = layout.shape
    size = {"X": width, "Y": height, "Z": layout.z_planes, "C": len(layout.channels), "T": time_points}
    px = layout.pixel_size_um
    attributes: dict[str, object] = {
        "ID": f"Pixels:{number}",
        "DimensionOrder": "XYZCT",
        "Type": layout.dtype,
        **{f"Size{axis}": length for axis, length in size.items()},
        **_with_unit("PhysicalSizeX", px, "µm"),
        **_with_unit("PhysicalSizeY", px, "µm"),
        **_with_unit("PhysicalSizeZ", layout.z_step_um, "µm"),
        **_with_unit("TimeIncrement", layout.interval_s, "s"),
    }
    channels = [
        _tag("Channel", {"ID": f"Channel:{number}:{index}", "SamplesPerPixel": 1} | _named(channel))
        for index, channel in enumerate(layout.channels)
    ]
    opened = _tag("Image", {"ID": f"Image:{number}"} | _named(name), "")
    pixels = _tag("Pixels", attributes, "")
    return "\n".join([opened, pixels, *channels, "<MetadataOnly/>", *planes, "</Pixels>", "</Image>"])


def _plane(plane: Plane) -> str:
    x, y = plane.stage_um or (None, None)
    exposure_s = None if plane.exposure_ms is None else plane.exposure_ms / 1000
    return _tag(
        "Plane",
        {
            "TheZ": plane.z,
            "TheT": plane.t,
            "TheC": plane.c,
            "DeltaT": plane.time_s,
            **({} if exposure_s is None else {"ExposureTime": exposure_s}),
            **_with_unit("PositionX", x, "µm"),
            **_with_unit("PositionY", y, "µm"),
            **_with_unit("PositionZ", plane.z_um, "µm"),
        },
    )


def _named(name: str) -> dict[str, object]:
    return {"Name": name} if name else {}


def _with_unit(key: str, value: float | None, unit: str) -> dict[str, object]:
    return {} if value is None else {key: value, f"{key}Unit": unit}


def _tag(name: str, attributes: Mapping[str, object], end: str = "/") -> str:
    # What XML cannot hold at all (control characters in a name) is left out.
    values = {
        key: "".join(char for char in str(value) if char.isprintable()) for key, value in attributes.items()
    }
    return f"<{name} {' '.join(f'{key}={quoteattr(value)}' for key, value in values.items())}{end}>"
