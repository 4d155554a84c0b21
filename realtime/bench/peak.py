"""How many arithmetic operations this processor can do: the peak that a net's time is compared with."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np

_SIDE = 2048
_TIMES = 8
_THREADS_OF = ("OMP", "OPENBLAS", "MKL", "BLIS")
_HELD_BACK_BY = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that make a library take the kernels of an older processor: with them a net passes the peak."""


def peak_gflops(threads: int) -> float:
    """Return the largest rate of fp32 operations in GFLOP/s that a product of large matrices reaches.

    It runs in a process of its own, since the libraries read how many threads to use when they are loaded.
    """
    limits = {f"{library}_NUM_THREADS": str(threads) for library in _THREADS_OF}
    given = {**os.environ, **limits, "VECLIB_MAXIMUM_THREADS": str(threads)}
    free = {name: value for name, value in given.items() if name not in _HELD_BACK_BY}
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, env=free, capture_output=True, text=True, check=False)
    if done.returncode:  # they may be set for a reason
        done = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _measure() -> float:
    random = np.random.default_rng(0)
    a, b = (random.random((_SIDE, _SIDE), dtype=np.float32) for _ in range(2))
    product = a @ b
    best = np.inf
    for _ in range(_TIMES):
        began = time.perf_counter()
        np.matmul(a, b, out=product)
        best = min(best, time.perf_counter() - began)
    return 2 * _SIDE**3 / best / 1e9


if __name__ == "__main__":
    sys.stdout.write(f"{_measure():.3f}\n")
