"""OME-TIFF: planes, times and places from the OME-XML, over several images and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.sources.tiff import TiffSource

SIZE = 'SizeX="9" SizeY="8" Type="uint16"'


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(1, 65_536, (count, 8, 9), dtype=np.uint16)


def write(path: Path, stack: np.ndarray, xml: str) -> Path:
    """Write pages whose first carries an OME-XML made by hand."""
    with tifffile.TiffWriter(path) as writer:
        for number, image in enumerate(stack):
            writer.write(image, metadata=None, description=xml.encode() if number == 0 else None)
    return path


def ome(*pixels: str, root: str = "") -> str:
    body = "".join(f'<Image ID="Image:{number}">{text}</Image>' for number, text in enumerate(pixels))
    return (
        '<?xml version="1.0" encoding="UTF-8"?><!-- made by hand -->'
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" {root}>{body}</OME>'
    )


def frames_of(path: Path, **options: Any) -> list[Frame]:
    source = TiffSource(path, **options)
    try:
        return list(source.frames())
    finally:
        source.close()


def refusal(path: Path) -> SourceError:
    with pytest.raises(SourceError) as refused:
        frames_of(path)
    return refused.value


def test_times_places_exposure_and_pixel_size_come_from_the_planes(tmp_path: Path) -> None:
    planes = "".join(
        f'<Plane TheT="{t}" TheZ="0" TheC="0" DeltaT="{t * 250}" DeltaTUnit="ms" ExposureTime="20"'
        f' ExposureTimeUnit="ms" PositionX="{t}" PositionXUnit="mm" PositionY="7" PositionYUnit="µm"'
        ' PositionZ="3" PositionZUnit="µm"/>'
        for t in range(3)
    )
    xml = ome(
        f'<Pixels DimensionOrder="XYZCT" SizeC="1" SizeZ="1" SizeT="3" {SIZE} PhysicalSizeX="650"'
        ' PhysicalSizeXUnit="nm" PhysicalSizeY="650" PhysicalSizeYUnit="nm">'
        f'<Channel Name="Phase"/><TiffData/>{planes}</Pixels>'
    )
    frames = frames_of(write(tmp_path / "a.tif", images(3), xml))
    assert [frame.time_s for frame in frames] == [0, 0.25, 0.5]
    assert [frame.stage_um for frame in frames] == [(0, 7), (1000, 7), (2000, 7)]
    assert {(frame.z_um, frame.exposure_ms, frame.channels) for frame in frames} == {(3, 20, ("Phase",))}
    assert frames[0].pixel_size_um == pytest.approx(0.65)


@pytest.mark.parametrize("order", ["XYZCT", "XYCZT", "XYTZC", "XYCTZ", "XYTCZ", "XYZTC"])
def test_every_order_of_the_dimensions_finds_the_right_page(tmp_path: Path, order: str) -> None:
    sizes = {"Z": 2, "C": 3, "T": 2}
    stack = images(12)
    xml = ome(
        f'<Pixels DimensionOrder="{order}" SizeC="3" SizeZ="2" SizeT="2" {SIZE} TimeIncrement="4"><TiffData/></Pixels>'
    )
    frames = frames_of(write(tmp_path / "a.tif", stack, xml))
    # As the specification draws it: the first axis after XY runs fastest.
    cube = stack.reshape([sizes[axis] for axis in reversed(order[2:])] + [8, 9])
    cube = cube.transpose([list(reversed(order[2:])).index(axis) for axis in "TZC"] + [3, 4])
    assert [(frame.axes["time"], frame.axes["z"], frame.time_s) for frame in frames] == [
        (0, 0, 0), (0, 1, 0), (1, 0, 4), (1, 1, 4)
    ]  # fmt: skip
    for frame in frames:
        np.testing.assert_array_equal(frame.pixels, cube[frame.axes["time"], frame.axes["z"]])


def test_images_are_positions_and_recorded_times_give_the_order(tmp_path: Path) -> None:
    """Both positions in one file, the second one acquired after the first was done."""
    stack = images(4)

    def pixels(position: int) -> str:
        planes = "".join(
            f'<Plane TheT="{t}" TheZ="0" TheC="0" DeltaT="{10 * position + t}"/>' for t in range(2)
        )
        return (
            f'<Pixels DimensionOrder="XYZCT" SizeC="1" SizeZ="1" SizeT="2" {SIZE}>'
            f'<TiffData IFD="{2 * position}" PlaneCount="2"/>{planes}</Pixels>'
        )

    frames = frames_of(write(tmp_path / "a.tif", stack, ome(pixels(0), pixels(1))))
    assert [(frame.axes["position"], frame.axes["time"]) for frame in frames] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    assert [frame.time_s for frame in frames] == [0, 1, 10, 11]
    for frame, image in zip(frames, stack, strict=True):
        np.testing.assert_array_equal(frame.pixels, image)


def test_times_that_run_against_the_time_axis_are_refused(tmp_path: Path) -> None:
    planes = "".join(f'<Plane TheT="{t}" TheZ="0" TheC="0" DeltaT="{(0, 2, 1)[t]}"/>' for t in range(3))
    xml = ome(
        f'<Pixels DimensionOrder="XYZCT" SizeC="1" SizeZ="1" SizeT="3" {SIZE}><TiffData/>{planes}</Pixels>'
    )
    assert refusal(write(tmp_path / "a.tif", images(3), xml)).frame == 2


def test_times_that_are_all_the_same_are_not_taken_for_recorded(tmp_path: Path) -> None:
    planes = "".join(f'<Plane TheT="{t}" TheZ="0" TheC="0" DeltaT="0.0"/>' for t in range(3))
    xml = ome(
        f'<Pixels DimensionOrder="XYZCT" SizeC="1" SizeZ="1" SizeT="3" {SIZE}><TiffData/>{planes}</Pixels>'
    )
    frames = frames_of(write(tmp_path / "a.tif", images(3), xml), interval_s=30)
    assert [frame.time_s for frame in frames] == [0, 30, 60]


def write_set(folder: Path, *, names: tuple[str, str] = ("first.ome.tif", "second.ome.tif")) -> np.ndarray:
    """Write a set as Micro-Manager does: one file per position, all described in each."""
    stack = images(6)
    blocks = [
        "".join(
            f'<TiffData IFD="{t}" FirstT="{t}" PlaneCount="1">'
            f'<UUID FileName="{names[position]}">urn:uuid:{position}</UUID></TiffData>'
            for t in range(3)
        )
        for position in range(2)
    ]
    pixels = [
        f'<Pixels DimensionOrder="XYZCT" SizeC="1" SizeZ="1" SizeT="3" {SIZE}>{block}</Pixels>'
        for block in blocks
    ]
    for position, name in enumerate(("first.ome.tif", "second.ome.tif")):
        xml = ome(*pixels, root=f'UUID="urn:uuid:{position}"')
        write(folder / name, stack[3 * position : 3 * position + 3], xml)
    return stack


def test_a_set_of_files_is_one_recording_from_either_of_them(tmp_path: Path) -> None:
    stack = write_set(tmp_path)
    for name in ("first.ome.tif", "second.ome.tif"):
        frames = frames_of(tmp_path / name)
        assert [(frame.axes["time"], frame.axes["position"]) for frame in frames] == [
            (t, p) for t in range(3) for p in range(2)
        ]
        for frame in frames:
            image = stack[3 * int(frame.axes["position"]) + int(frame.axes["time"])]
            np.testing.assert_array_equal(frame.pixels, image)


def test_a_renamed_file_still_finds_itself_by_its_uuid(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "first.ome.tif").rename(tmp_path / "renamed.ome.tif")
    assert len(frames_of(tmp_path / "renamed.ome.tif")) == 6


def test_a_missing_file_of_a_set_is_refused_at_its_first_frame(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "second.ome.tif").unlink()
    error = refusal(tmp_path / "first.ome.tif")
    assert error.frame == 1 and "second.ome.tif" in error.reason


def test_a_name_outside_the_folder_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, names=("first.ome.tif", "../../second.ome.tif"))
    assert "not in the same folder" in refusal(tmp_path / "first.ome.tif").reason


@pytest.mark.parametrize(
    ("xml", "reason", "frame"),
    [
        (
            ome(f'<Pixels DimensionOrder="XYZCT" SizeC="1" SizeZ="1" SizeT="5" {SIZE}><TiffData/></Pixels>'),
            "time 3",
            3,
        ),
        (
            ome('<Pixels DimensionOrder="XYZCT" SizeC="1" SizeZ="1" SizeT="3" SizeX="8" SizeY="8"/>'),
            "stated",
            0,
        ),
        (
            ome(f'<Pixels DimensionOrder="XYZCT" SizeC="1" SizeZ="1" SizeT="999999999999" {SIZE}/>'),
            "time 3",
            3,
        ),
        (
            ome(f'<Pixels DimensionOrder="XYZCT" SizeC="999999999" SizeZ="1" SizeT="3" {SIZE}/>'),
            "SizeC",
            None,
        ),
        (ome(f'<Pixels DimensionOrder="XYZCT" SizeC="1" SizeZ="1" SizeT="0" {SIZE}/>'), "damaged", None),
        (ome(f'<Pixels DimensionOrder="XYZC" SizeC="1" SizeZ="1" SizeT="3" {SIZE}/>'), "damaged", None),
        (ome(f'<Pixels DimensionOrder="XYZCT" SizeC="1" SizeZ="1" SizeT="three" {SIZE}/>'), "damaged", None),
        (ome("<Pixels/>"), "damaged", None),
        (ome(), "no image", None),
        (ome()[:-20], "damaged or cut off", None),
        (
            ome().replace("</OME>", '<BinaryOnly MetadataFile="all.companion.ome"/></OME>'),
            "all.companion.ome",
            None,
        ),
        (
            ome(
                f'<Pixels DimensionOrder="XYZCT" SizeC="3" SizeZ="1" SizeT="3" {SIZE}>'
                '<Channel SamplesPerPixel="3"/></Pixels>'
            ),
            "RGB",
            None,
        ),
    ],
)
def test_xml_that_contradicts_the_file_is_refused(
    tmp_path: Path, xml: str, reason: str, frame: int | None
) -> None:
    error = refusal(write(tmp_path / "a.tif", images(3), xml))
    assert reason in error.reason and error.frame == frame
