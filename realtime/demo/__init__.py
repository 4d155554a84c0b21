"""``cytoloop demo``: the real acquisition engine on a simulated sample, steered by its cells, in three acts."""

from .play import FULL, Length, run_demo
from .stage import Show

__all__ = ["FULL", "Length", "Show", "run_demo"]
