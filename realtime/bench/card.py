"""How fast an NVIDIA card computes and copies: the roofline that a net's time on it is compared with.

Nothing takes less time than its operations at the card's largest rate, or its bytes at the rate of a copy.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ...acquire.errors import ModelError
from ...models.runtimes import cuda
from ...models.runtimes.runtime import Precision

_SIDE = 8192
_COPIED_BYTES = 2**28
"""Far more than the cache of any card holds."""
_FEWEST, _LONG_ENOUGH_S = 3, 1.0
"""A rate is the best of so many tries, and of so long: a card that was idle takes a while to speed up."""


@dataclass(frozen=True, slots=True)
class Card:
    """A card's largest rates, as measured.

    Attributes
    ----------
    name
        As its runtimes say it.
    fp32_tflops, fp16_tflops
        Operations (10^12/s) in a product of large matrices; fp32 without TF32, fp16 summed in fp32.
    copy_gbps
        Bytes (10^9/s) read and written by a copy from the card's memory to itself.
    """

    name: str
    fp32_tflops: float
    fp16_tflops: float
    copy_gbps: float

    def is_called(self, device: str) -> bool:
        """Tell whether a runtime's device is this card; ONNX Runtime names none."""
        return device in (self.name, "cuda")

    def floor_ms(self, gflop: float, mbyte: float, precision: Precision) -> float:
        """Return the least time in ms for so many 10^9 operations and 10^6 bytes; NaN: no rate is known."""
        tflops = {"fp32": self.fp32_tflops, "fp16": self.fp16_tflops}.get(precision, math.nan)
        floors = gflop / tflops, mbyte / self.copy_gbps
        return math.nan if any(map(math.isnan, floors)) else max(floors)


def measured_card() -> Card | None:
    """Measure the card, in some seconds; None without a card, or without a torch that sees it.

    It runs in a process of its own, which leaves no memory of the card taken and no threads of torch behind.

    Raises
    ------
    ModelError
        If the card fails, or has too little memory left (1 GiB); says how.
    """
    if not cuda.cards() or find_spec("torch") is None:
        return None
    done = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ModelError(f"the card's peak cannot be measured: {said[-1]}")
    rates = json.loads(done.stdout)
    return Card(**rates) if rates else None


def _measure() -> dict[str, Any] | None:
    torch = import_module("torch")
    if not torch.cuda.is_available():
        return None
    torch.set_float32_matmul_precision("highest")
    rates = {
        precision: _tflops(torch, kind) for precision, kind in (("fp32", "float32"), ("fp16", "float16"))
    }
    source = torch.zeros(_COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copied_s = _least_s(torch, lambda: target.copy_(source))
    return {
        "name": torch.cuda.get_device_name(),
        **{f"{precision}_tflops": round(rate, 3) for precision, rate in rates.items()},
        "copy_gbps": round(2 * _COPIED_BYTES / copied_s / 1e9, 3),
    }


def _tflops(torch: Any, kind: str) -> float:
    # Random: products of zeros take less power, and so reach a rate that no net does.
    a, b = (torch.rand(_SIDE, _SIDE, device="cuda").to(getattr(torch, kind)) for _ in range(2))
    product = torch.empty_like(a)
    return 2 * _SIDE**3 / _least_s(torch, lambda: torch.matmul(a, b, out=product)) / 1e12


def _least_s(torch: Any, work: Callable[[], object]) -> float:
    """Return the shortest time of what the card is given to do, by its own clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    best, tries, until = math.inf, 0, time.perf_counter() + _LONG_ENOUGH_S
    while tries < _FEWEST or time.perf_counter() < until:
        begin.record()
        work()
        end.record()
        end.synchronize()
        best, tries = min(best, begin.elapsed_time(end) / 1000), tries + 1
    return best


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure()) + "\n")
