"""Runtimes: what computes a net. One file each; the library is imported in that file only."""
