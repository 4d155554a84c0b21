"""The command line: one file per command, light to import; what is heavy is imported when a command runs."""

from .app import main

__all__ = ["main"]
