"""Frame -> labels -> detections: finding and measuring cells."""

from .classical import ClassicalSegmenter
from .detections import Detections
from .labels import Labels
from .segmenter import Segmenter

__all__ = ["ClassicalSegmenter", "Detections", "Labels", "Segmenter"]
