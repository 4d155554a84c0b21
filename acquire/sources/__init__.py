"""Where frames come from: the protocol, and one file per kind of recording."""

from .source import Source, open_source

__all__ = ["Source", "open_source"]
