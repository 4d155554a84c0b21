"""What can be wrong with the channels of a stream, before any frame has come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ...acquire.errors import nearest_name
from ...models.segmenter import needed_channels
from .toml_lines import KeyPath


class Wrong(NamedTuple):
    """A key of the stream, what is wrong with it, and the nearest known name."""

    key: KeyPath
    reason: str
    did_you_mean: str = ""


def check_channels(
    channels: Sequence[str], every: Mapping[str, int], channel: str, policy: str
) -> Iterable[Wrong]:
    """Yield what is wrong with the channels that a stream joins.

    Parameters
    ----------
    channels, every, channel, policy
        As in :class:`~.config.StreamConfig`.
    """
    for index, name in enumerate(channels):
        if name in channels[:index]:
            yield Wrong(("channels", index), f"{name!r} is listed twice.")
    if channels and channel and channel not in channels:
        yield _unknown(("channel",), channel, channels)
    for name in every:
        if name not in channels:
            yield _unknown(("every", name), name, channels)
    rare = [name for name in channels if every.get(name, 1) > 1]
    if rare and list(channels[-len(rare) :]) != rare:
        reason = f"list {', '.join(map(repr, rare))} last, so that the places of the others do not change."
        yield Wrong(("channels",), reason)
    if channel in rare:
        yield Wrong(("every", channel), f"{channel!r} is segmented, so it is needed at every time point.")
    if len(channels) > 1 and policy == "latest":
        reason = "channels are joined in a lossless stream only: 'latest' would leave single images out."
        yield Wrong(("policy",), reason)


def check_segmenter(
    channels: Sequence[str], every: Mapping[str, int], channel: str, segmenter: Any
) -> Iterable[Wrong]:
    """Yield what is wrong between the channels of a stream and those that its segmenter looks at.

    Parameters
    ----------
    channels, every, channel
        As in :class:`~.config.StreamConfig`, and free of mistakes.
    segmenter
        The segmenter itself.
    """
    needed = needed_channels(segmenter)
    if channel and len(needed) > 1:
        reason = (
            f"the segmenter looks at several channels ({', '.join(map(repr, needed))}); name them there only."
        )
        yield Wrong(("channel",), reason)
    elif channel and isinstance(segmenter.channel, str) and segmenter.channel != channel:
        yield Wrong(("channel",), f"the segmenter looks at {segmenter.channel!r}; name one of the two only.")
    elif channels and not channel:
        for each in needed:
            name = each if isinstance(each, str) else channels[each] if each < len(channels) else each
            if name not in channels:
                yield _unknown(("segmenter", "channel"), name, channels)
            elif every.get(str(name), 1) > 1:
                reason = f"the segmenter looks at {name!r}, so it is needed at every time point."
                yield Wrong(("every", str(name)), reason)


def _unknown(key: KeyPath, name: int | str, channels: Sequence[str]) -> Wrong:
    known = f"channels holds {', '.join(map(repr, channels))}." if channels else "list it in channels first."
    return Wrong(key, f"no channel {name!r}; {known}", nearest_name(str(name), channels))
