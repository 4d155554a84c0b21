"""The folders of a recording and their metadata: made before the first frame, changed in single steps."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ...acquire.errors import ConfigurationError, SourceError
from .files import replace_file, write_json
from .layout import ImageLayout
from .metadata import (
    FRAME_AXES,
    LABEL_AXES,
    Recorded,
    array,
    cells_group,
    image_group,
    labels_group,
    root_group,
    series_group,
)

FRAME_ARRAY, LABEL_ARRAY = "0", "labels/cells/0"
_NAME = "zarr.json"
_LARGEST_BYTES = 1 << 24


def read_recorded(folder: Path) -> Recorded | None:
    """Return what the root of a recording says, or None if the folder has no root yet.

    Raises
    ------
    SourceError
        If it is damaged, or another program's.
    """
    path = folder / _NAME
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise SourceError(path, f"of {path.stat().st_size} bytes; at most {_LARGEST_BYTES} are read")
        document = msgspec.json.decode(path.read_bytes())
        return msgspec.convert(document["attributes"]["cytoloop"], Recorded)
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, RecursionError, msgspec.MsgspecError, ConfigurationError) as error:
        raise SourceError(path, f"not a recording of cytoloop: {type(error).__name__}: {error}") from error


class Tree:
    """Writes the metadata of a recording; each document is replaced in one step, and only if it changes.

    Parameters
    ----------
    folder
        The recording.
    layout
        What its images look like.
    """

    def __init__(self, folder: Path, layout: ImageLayout) -> None:
        self._folder, self._layout = folder, layout

    def write_image(self, number: int, name: str, time_points: int) -> None:
        """Make the image of a position.

        Raises
        ------
        OSError
            If a file cannot be written.
        """
        image = self._folder / str(number)
        write_json(image / _NAME, image_group(self._layout, name))
        if self._layout.labels is not None:
            write_json(image / "labels" / _NAME, labels_group())
            write_json(image / "labels" / "cells" / _NAME, cells_group(self._layout, name))
        self.write_length(number, time_points)

    def write_length(self, number: int, time_points: int) -> None:
        """Declare how many time points the arrays of an image have.

        Raises
        ------
        OSError
            If a file cannot be written.
        """
        image, layout = self._folder / str(number), self._layout
        write_json(image / FRAME_ARRAY / _NAME, array(layout, layout.dtype, FRAME_AXES, time_points))
        if layout.labels is not None:
            write_json(image / LABEL_ARRAY / _NAME, array(layout, layout.labels, LABEL_AXES, time_points))

    def write_root(self, positions: tuple[str, ...], *, finished: bool = False) -> None:
        """Say which images there are; comes after they were made.

        Raises
        ------
        OSError
            If a file cannot be written.
        """
        write_json(self._folder / "OME" / _NAME, series_group(len(positions)))
        write_json(self._folder / _NAME, root_group(Recorded(self._layout, positions, finished)))

    def write_xml(self, content: bytes) -> None:
        """Write the OME-XML.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        folder = self._folder / "OME"
        folder.mkdir(exist_ok=True)
        replace_file(folder / "METADATA.ome.xml", content)
