"""Importing the packages that are compared, and keeping what they print, warn and log from the caller's streams."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Generator
from importlib import import_module
from typing import Any

from ...acquire.errors import MissingExtraError

EXTRA = "trackers"


def borrowed(name: str, package: str) -> Any:
    """Import a module of a package that is installed only for comparison.

    Raises
    ------
    MissingExtraError
        If the package is not installed, or lacks something itself.
    """
    with quietly():
        try:
            return import_module(name)
        except ImportError as error:
            raise MissingExtraError(package, EXTRA) from error


@contextlib.contextmanager
def quietly() -> Generator[None]:
    """Run code of another package without its voice; an error of it still comes through."""
    root, silent = logging.getLogger(), logging.NullHandler()
    disabled = logging.root.manager.disable
    root.addHandler(silent)  # else a package may set up logging for the whole program while it is imported
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.removeHandler(silent)
