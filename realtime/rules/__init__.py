"""Rules: one file each."""

from .rule import Moment, Rule

__all__ = ["Moment", "Rule"]
