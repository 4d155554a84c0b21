"""Calibration: from image px to stage um, or to a light device, measured, kept, and refused where it is wrong."""
