"""Trackers of other packages behind our protocol, to compare on the same cells: whole movies, never a live stream."""
