"""Nets: frame -> labels by a trained net, and what it needs to know of the frame: contrast and scale."""
