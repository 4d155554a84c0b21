"""Detections -> tracks: following cells, their divisions, and scores against ground truth."""

from .lap import LapTracker
from .nearest import NearestTracker
from .tracker import Tracker
from .tracks import Tracks

__all__ = ["LapTracker", "NearestTracker", "Tracker", "Tracks"]
