"""What ``bench record`` compares: writers of images, each with the same three calls, into a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...acquire.frame import Frame
from ..recording.layout import CodecName
from ..recording.run_writer import RunWriter

Image: TypeAlias = "NDArray[np.uint16]"
_SHARD = 64


class Open(NamedTuple):
    """A writer at work.

    Attributes
    ----------
    append
        Called with number and pixels (y, x), uint16, of each frame in turn.
    hand_over
        Returns when the system has all bytes; they would survive the death of this process. Called once, after the
        last frame.
    """

    append: Callable[[int, Image], Any]
    hand_over: Callable[[], Any]


class Writer(NamedTuple):
    """A way to write images.

    Attributes
    ----------
    name
        As rows call it.
    needs
        Modules that must be installed.
    open
        Called with an empty folder, the number of frames and their size in px; leaving the context closes.
    """

    name: str
    needs: tuple[str, ...]
    open: Callable[[Path, int, int], AbstractContextManager[Open]]

    def missing(self) -> str:
        """Return why it cannot be measured here, or ``""``."""
        for module in self.needs:
            try:
                import_module(module)
            except ImportError as error:
                return f"{module} is not installed: {error}"
        return ""


def _nothing() -> None:
    """Hand over what was handed over with each frame."""


@contextmanager
def _disk(folder: Path, frames: int, size: int) -> Generator[Open]:
    """Write pixels one after the other into one plain file."""
    with FileIO(folder / "frames", "wb") as file:

        def append(number: int, image: Image) -> None:
            left = image.reshape(-1).view(np.uint8).data
            while left.nbytes:
                left = left[file.write(left) :]

        yield Open(append, _nothing)


def _ours(codec: CodecName) -> Callable[[Path, int, int], AbstractContextManager[Open]]:
    @contextmanager
    def opened(folder: Path, frames: int, size: int) -> Generator[Open]:
        """Write as the recorder does, with index, side index and checksums after each frame."""
        writer = RunWriter(folder, codec=codec)

        def append(number: int, image: Image) -> None:
            writer.add_frame(Frame(image, sequence=number, time_s=float(number), axes={"time": number}))

        try:
            yield Open(append, _nothing)
        finally:
            writer.close()

    return opened


@contextmanager
def _tifffile(folder: Path, frames: int, size: int) -> Generator[Open]:
    """Write one page for each frame."""
    import tifffile

    with tifffile.TiffWriter(folder / "frames.tif", bigtiff=True) as file:

        def append(number: int, image: Image) -> None:
            file.write(image, contiguous=False, metadata=None)

        yield Open(append, file.close)


@contextmanager
def _ndstorage(folder: Path, frames: int, size: int) -> Generator[Open]:
    """Write NDTiff."""
    dataset: Any = import_module("ndstorage").NDTiffDataset(
        str(folder), summary_metadata={}, name="bench", writable=True
    )

    def append(number: int, image: Image) -> None:
        dataset.put_image({"time": number}, image, {})

    yield Open(append, dataset.finish)
    dataset.close()


@contextmanager
def _zarr(folder: Path, frames: int, size: int) -> Generator[Open]:
    """Write one chunk, which is one file, for each frame."""
    array: Any = import_module("zarr").create_array(
        store=folder / "frames.zarr",
        shape=(frames, size, size),
        chunks=(1, size, size),
        dtype="uint16",
        compressors=None,
    )
    yield Open(array.__setitem__, _nothing)


@contextmanager
def _tensorstore(folder: Path, frames: int, size: int) -> Generator[Open]:
    """Write Zarr 3 with one chunk for each frame, waiting for each as the recorder must."""
    store: Any = (
        import_module("tensorstore")
        .open(
            {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": str(folder / "frames.zarr")},
                "metadata": {
                    "shape": [frames, size, size],
                    "data_type": "uint16",
                    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, size, size]}},
                    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
                },
            },
            create=True,
        )
        .result()
    )

    def append(number: int, image: Image) -> None:
        store[number].write(image).result()

    yield Open(append, _nothing)


@contextmanager
def _acquire_zarr(folder: Path, frames: int, size: int) -> Generator[Open]:
    """Write Zarr 3 with one chunk for each frame, 64 of them in a file."""
    library: Any = import_module("acquire_zarr")
    kinds = library.DimensionType
    axes = [
        ("t", kinds.TIME, 0, 1, _SHARD),
        ("y", kinds.SPACE, size, size, 1),
        ("x", kinds.SPACE, size, size, 1),
    ]
    dimensions = [
        library.Dimension(
            name=name, kind=kind, array_size_px=length, chunk_size_px=chunk, shard_size_chunks=shard
        )
        for name, kind, length, chunk, shard in axes
    ]
    array = library.ArraySettings(dimensions=dimensions, data_type=library.DataType.UINT16)
    settings = library.StreamSettings(store_path=str(folder / "frames.zarr"), arrays=[array])
    stream = library.ZarrStream(settings)

    def append(number: int, image: Image) -> None:
        stream.append(image)

    yield Open(append, stream.close)


WRITERS = (
    Writer("raw disk", (), _disk),
    Writer("ours raw", (), _ours("raw")),
    Writer("ours blosc-lz4", ("numcodecs",), _ours("blosc-lz4")),
    Writer("tifffile", ("tifffile",), _tifffile),
    Writer("ndstorage", ("ndstorage",), _ndstorage),
    Writer("zarr 3", ("zarr",), _zarr),
    Writer("tensorstore", ("tensorstore",), _tensorstore),
    Writer("acquire-zarr", ("acquire_zarr",), _acquire_zarr),
)
