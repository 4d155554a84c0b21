"""The real pycro-manager engine on Micro-Manager's own demo devices, for the demo and the measurements."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator
from typing import Any

from ..acquire.errors import MissingExtraError
from ..acquire.micromanager.engine import running_core, stop_headless


@contextlib.contextmanager
def demo_engine(buffer_size_mb: int = 512) -> Generator[Any]:
    """Start the engine, give its core, and stop it; an engine that runs already is used and left running.

    Parameters
    ----------
    buffer_size_mb
        Size of the core's circular buffer in MB.

    Raises
    ------
    MissingExtraError
        If pycro-manager or the demo devices are not installed.
    """
    if running_core() is not None:
        yield running_core()
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycro-manager's own, which a user can do nothing about
            import mm_test_adapters
            from pycromanager import start_headless
    except ImportError as error:
        raise MissingExtraError("pycro-manager with Micro-Manager's demo devices", "demo") from error
    folder = str(mm_test_adapters.device_adapter_path())
    with contextlib.redirect_stdout(None):
        start_headless(
            folder, f"{folder}/MMConfig_demo.cfg", python_backend=True, buffer_size_mb=buffer_size_mb
        )
    try:
        yield running_core()
    finally:
        stop_headless()


def acquisition(**arguments: Any) -> Any:
    """Return a ``pycromanager.Acquisition``; its type is chosen by the backend that runs."""
    import pycromanager

    make: Any = pycromanager.Acquisition
    return make(**arguments)
