"""Fixtures that several test folders share."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from hypothesis import settings

# Tests measure behaviour, never seconds.
settings.register_profile("cytoloop", deadline=None)
settings.load_profile("cytoloop")

# Threads that live as long as the process does, by design of the library that starts them.
_LASTING_THREADS = (
    "Acquisition Engine Thread",
    "Acq Eng event generator",
    "zarr_io",  # zarr runs one event loop for the process, and asyncio keeps its workers
    "asyncio_",
    "tqdm_monitor",  # of the libraries that score
)
_PYZMQ_THREAD = "GarbageCollectorThread"  # frees what was sent without a copy
_PATIENCE_S = 3.0


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


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread, a process, a socket or a shared-memory segment behind."""
    before = _open_things()
    yield
    deadline = time.monotonic() + _PATIENCE_S
    while (left := _open_things() - before) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    assert not left, f"left behind: {sorted(left)}"


def _open_things() -> set[str]:
    threads = {
        f"thread {thread.name} {thread.ident}"
        for thread in threading.enumerate()
        if not thread.name.startswith(_LASTING_THREADS) and type(thread).__name__ != _PYZMQ_THREAD
    }
    process = psutil.Process()
    children = {
        f"process {child.pid} {child.name()}"
        for child in process.children(recursive=True)
        if child.is_running() and not _is_resource_tracker(child)
    }
    sockets = {
        f"socket {connection.laddr} {connection.status}"
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    zmq_sockets = {
        f"ZeroMQ socket {id(socket)}" for socket in list(zmq.Context.instance()._sockets) if not socket.closed
    }
    folder = Path("/dev/shm")
    memory = (
        {f"shared memory {path}" for path in folder.glob(f"cyto_{process.pid}_*")}
        if folder.is_dir()
        else set[str]()
    )
    return threads | children | sockets | zmq_sockets | memory


def _is_resource_tracker(child: psutil.Process) -> bool:
    """Tell the one helper process that multiprocessing keeps for the life of the interpreter."""
    try:
        return any("resource_tracker" in part for part in child.cmdline())
    except psutil.NoSuchProcess:
        return True
