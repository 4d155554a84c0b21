"""Measurements, one file each: speed and safety, beside what they are compared with, in one run."""
