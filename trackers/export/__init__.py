"""Tracks for other programs: one file per format, each written whole or not at all."""

from .ctc import CtcWriter, write_ctc
from .geff import write_geff
from .napari import write_napari
from .table import write_csv, write_parquet
from .trackmate import write_trackmate

__all__ = [
    "CtcWriter",
    "write_csv",
    "write_ctc",
    "write_geff",
    "write_napari",
    "write_parquet",
    "write_trackmate",
]
