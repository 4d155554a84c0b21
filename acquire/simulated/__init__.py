"""Simulated microscopes: samples that live, optics, camera, the twin behind a real core, and the truth."""
