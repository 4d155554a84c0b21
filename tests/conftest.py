"""Fixtures that several test folders share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """The core of the real pycro-manager engine with Micro-Manager's demo devices, started once per session.

    pycro-manager cannot stop and start again in one process, so every test shares this one and puts back
    what it changed (camera size, exposure, stage, configuration).
    """
    pytest.importorskip("pycromanager", reason="the engine extra is not installed")
    adapters = pytest.importorskip("mm_test_adapters", reason="the engine extra is not installed")
    from pycromanager import start_headless, stop_headless
    from pycromanager.acquisition.acq_eng_py.internal.engine import Engine

    folder = str(adapters.device_adapter_path())
    start_headless(folder, f"{folder}/MMConfig_demo.cfg", python_backend=True, buffer_size_mb=512)
    yield Engine.get_core()
    stop_headless()  # unloads the devices and ends the engine's two executors
    del Engine.singleton
