"""The choice of a plugin, as an experiment file makes it."""

from __future__ import annotations

from typing import Any

import msgspec

from ...acquire.plugins import build, find_class


class PluginChoice(msgspec.Struct, frozen=True):
    """A segmenter, tracker or rule: its registered name or ``module:Class``, and its options."""

    use: str
    options: dict[str, Any] = {}

    def build(self, group: str) -> Any:
        """Construct it; ``group`` is ``segmenters``, ``trackers`` or ``rules``.

        Raises
        ------
        PluginError
            An unknown name, or an option (:class:`~cytoloop.acquire.plugins.OptionError`) it does not take.
        """
        return build(find_class(group, self.use), self.options)
