"""The computer that a figure was measured on."""

from __future__ import annotations

import platform
from typing import TypedDict

from ..acquire.machine import answer_of, cpu_name, usable_cores

__all__ = ["Machine", "cpu_name", "describe_machine", "nvidia_cards", "usable_cores"]


class Machine(TypedDict):
    """Processor, usable cores, graphics card (None without an NVIDIA one) and operating system."""

    cpu: str
    cores: int
    gpu: str | None
    os: str


def describe_machine() -> Machine:
    """Return what this computer is, in words."""
    cards = nvidia_cards()
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "gpu": cards[0] if cards else None,
        "os": platform.platform(),
    }


def nvidia_cards() -> list[str]:
    """Return one line per NVIDIA card: name, driver version, memory; empty if there is none or no driver."""
    answer = answer_of("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    return [line.strip() for line in answer.splitlines() if line.strip()]
