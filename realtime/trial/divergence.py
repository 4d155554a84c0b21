"""Where a replay differs from what the run's journal says, and what that comes of."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np

from ...acquire.reply import Cells, Decision, Reply, encode_array
from ..experiment.stream import StreamConfig

Cause: TypeAlias = Literal[
    "data", "model", "configuration", "plugin", "rounding", "version", "machine", "unknown"
]

MOST_LISTED = 100
_LAST_BITS = 1e-4  # relative; threads and processors add up in another order
_PARTS = (
    "divisions",
    "merges",
    "corrections",
    "drift_px",
    "novelty",
    "focus",
    "decisions",
    "shadow",
    "messages",
)
# What is no matter of the frames: it came of the disk, of restarts and of the link.
_OF_LOAD = (
    "is not recorded: ",
    "could not be written to the log",
    "never came: the client left them out",
    "is left out: the engine died of it",
)
# Keys of the configuration on which neither cells nor decisions depend.
_OF_LINK = frozenset(("name", "address", "policy", "credit", "keys", "hang_s", "start_s"))
_NO_MATTER = _OF_LINK | {"save_masks", "armed", "record", "safe", "calibration_days"}
_OF_DETECTIONS = frozenset(
    (
        "channels",
        "every",
        "channel",
        "segmenter",
        "pixel_size_um",
        "affine",
        "calibration",
        "objective",
        "trust",
    )
)


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first thing in which a replay differs.

    Attributes
    ----------
    frame
        Sequence number.
    what
        ``detections``, ``tracks`` (identities, places and measurements), or a part of the reply such as
        ``decisions``.
    cell
        The identity that it is about, in the run; None if no single cell is meant.
    recorded, replayed
        What differs, as the run and as the replay have it, shortened.
    largest
        Of detections of the same cells: the largest relative difference of a number.
    cause, why
        What it comes of, and that in words.
    """

    frame: int
    what: str
    cell: int | None = None
    recorded: str = ""
    replayed: str = ""
    largest: float | None = None
    cause: Cause = "unknown"
    why: str = ""


@dataclass(slots=True)
class Decided:
    """How the decisions of one cell differ: the frames in which only the run, or only the replay, has them."""

    track: int
    recorded_only: list[int] = field(default_factory=list[int])
    replayed_only: list[int] = field(default_factory=list[int])


def first_difference(
    then: Mapping[str, bytes] | None, recorded: Reply, now: Mapping[str, bytes] | None, replayed: Reply
) -> Divergence | None:
    """Return the first difference of one frame; None if there is none.

    Parameters
    ----------
    then, now
        The detections of the run and of the replay, as bytes for each column; None where there were none.
    recorded, replayed
        Their replies; timings, and what is said of load and restarts, do not count.
    """
    frame = recorded.sequence
    if (one := _plain(then)) != (two := _plain(now)):
        return _of_detections(frame, one, two, recorded)
    if (found := _of_cells(frame, recorded.cells, replayed.cells)) is not None:
        return found
    for part in _PARTS:
        a, b = _part(recorded, part), _part(replayed, part)
        if _bytes(a) != _bytes(b):
            return _of_part(frame, part, a, b)
    return None


def configuration_changes(then: StreamConfig, now: StreamConfig) -> dict[str, str]:
    """Return what differs between two configurations, in words, by key; what does not bear on results is left out."""
    one, two = msgspec.to_builtins(then), msgspec.to_builtins(now)
    changes: dict[str, str] = {}
    for key in one:
        if key not in _NO_MATTER and one[key] != two[key]:
            changes[key] = "; ".join(_changes(key, one[key], two[key]))
    return changes


def affects(changes: Mapping[str, str], what: str) -> dict[str, str]:
    """Return those of the changes that can make a part of a reply differ."""
    return {key: said for key, said in changes.items() if what != "detections" or key in _OF_DETECTIONS}


def decided(recorded: Sequence[Decision], replayed: Sequence[Decision]) -> tuple[set[int], set[int]]:
    """Return the cells of which only the run, and only the replay, decides in a frame, or otherwise."""
    one, two = ({(each.track, _bytes(each)) for each in side} for side in (recorded, replayed))
    return {track for track, _ in one - two}, {track for track, _ in two - one}


def _changes(key: str, one: Any, two: Any) -> list[str]:
    """Return the innermost keys that differ, each with both values."""
    if isinstance(one, dict) and isinstance(two, dict):
        left: dict[str, Any] = one
        right: dict[str, Any] = two
        keys = sorted(k for k in left.keys() | right.keys() if left.get(k) != right.get(k))
        return [said for k in keys for said in _changes(f"{key}.{k}", left.get(k), right.get(k))]
    if isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):  # pyright: ignore[reportUnknownArgumentType]
        pairs = enumerate(zip(one, two, strict=True))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return [said for n, (a, b) in pairs if a != b for said in _changes(f"{key}[{n}]", a, b)]
    return [f"{key} was {_short(one)}, is {_short(two)}"]


def _plain(columns: Mapping[str, bytes] | None) -> dict[str, bytes] | None:
    """Return the columns with the mask unpacked: two versions of zlib may pack it differently."""
    if columns is None:
        return None
    return {k: zlib.decompress(v) if k == "mask" else v for k, v in columns.items()}


def _of_detections(
    frame: int, one: dict[str, bytes] | None, two: dict[str, bytes] | None, recorded: Reply
) -> Divergence:
    if one is None or two is None:
        there = ["none" if each is None else "there" for each in (one, two)]
        return Divergence(frame, "detections", None, there[0], there[1])
    counts = [len(each["area"]) // 8 for each in (one, two)]
    if counts[0] != counts[1]:
        return Divergence(frame, "detections", None, f"{counts[0]} cells", f"{counts[1]} cells")
    names = [name for name in one | two if one.get(name) != two.get(name)]
    name = names[0]
    values = [_numbers(name, each.get(name, b"")) for each in (one, two)]
    largest = max((_largest(n, one.get(n, b""), two.get(n, b"")) for n in names), default=0.0)
    if len(values[0]) != len(values[1]):
        sizes = [f"{name}: {len(each)} values" for each in values]
        return Divergence(frame, "detections", None, sizes[0], sizes[1], largest=largest)
    same = (values[0] == values[1]) | (np.isnan(values[0]) & np.isnan(values[1]))
    at = int(np.argmin(same))
    row = at * counts[0] // len(same)
    of_cells = name != "mask" and len(same) % max(counts[0], 1) == 0 and len(same) >= counts[0] > 0
    cell = int(recorded.cells.track[row]) if of_cells and row < len(recorded.cells) else None
    texts = [f"{name} {each[at]!s}" for each in values]
    return Divergence(frame, "detections", cell, texts[0], texts[1], largest=largest)


def _largest(name: str, one: bytes, two: bytes) -> float:
    """Return the largest relative difference of a column; infinite if it is of another length, or of whole numbers."""
    if len(one) != len(two) or name in ("mask", "bbox", "nuclei", "area"):
        return float("inf")
    a, b = _numbers(name, one), _numbers(name, two)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return float("inf")
    scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), 1e-6)
    return float(np.nanmax(np.abs(a - b) / scale, initial=0.0))


def _numbers(name: str, stored: bytes) -> Any:
    if name in ("bbox", "nuclei"):
        return np.frombuffer(stored, "<i4").astype(float)
    if name == "mask":
        return np.frombuffer(stored, "u1").astype(float)
    if name == "embedding":
        return np.frombuffer(stored[4:], "<f4").astype(float)
    kind = "<f4" if name == "confidence" or name.startswith("class:") else "<f8"
    return np.frombuffer(stored, kind).astype(float)


def _of_cells(frame: int, one: Cells, two: Cells) -> Divergence | None:
    if len(one) != len(two):
        return Divergence(frame, "tracks", None, f"{len(one)} cells", f"{len(two)} cells")
    names = {"track": one.track, "x_px": one.x_px, "y_px": one.y_px} | one.columns
    others = {"track": two.track, "x_px": two.x_px, "y_px": two.y_px} | two.columns
    if list(names) != list(others):
        return Divergence(
            frame, "tracks", None, f"columns {', '.join(names)}", f"columns {', '.join(others)}"
        )
    for name, a in names.items():
        b = others[name]
        if a.tobytes() != b.tobytes():
            at = int(np.argmin((a == b) | (np.isnan(a) & np.isnan(b))))
            return Divergence(frame, "tracks", int(one.track[at]), f"{name} {a[at]}", f"{name} {b[at]}")
    return None


def _part(reply: Reply, name: str) -> Any:
    value = getattr(reply, name)
    if name == "messages":
        return tuple(each for each in value if not any(of in each for of in _OF_LOAD))
    return value


def _of_part(frame: int, part: str, one: Any, two: Any) -> Divergence:
    """Return the difference of two parts; of lists, the first item that differs."""
    if isinstance(one, tuple) and isinstance(two, tuple) and part != "drift_px":
        left: tuple[Any, ...] = one
        right: tuple[Any, ...] = two
        at = next(
            (n for n, (a, b) in enumerate(zip(left, right, strict=False)) if _bytes(a) != _bytes(b)), -1
        )
        at = min(len(left), len(right)) if at < 0 else at
        a, b = (each[at] if at < len(each) else None for each in (left, right))
        shown = a if a is not None else b
        cell = getattr(shown, "track", getattr(shown, "mother", getattr(shown, "old", None)))
        return Divergence(frame, part, cell or None, _short(a), _short(b))
    return Divergence(frame, part, None, _short(one), _short(two))


def _bytes(value: Any) -> bytes:
    return msgspec.msgpack.encode(value, enc_hook=encode_array)


def _short(value: Any) -> str:
    if value is None:
        return "none"
    if not isinstance(value, str):
        value = msgspec.json.encode(value, enc_hook=str).decode()
    return value if len(value) <= 600 else f"{value[:600]}..."


def is_rounding(found: Divergence) -> bool:
    """Return whether detections differ in their last bits only."""
    return found.what == "detections" and found.largest is not None and found.largest <= _LAST_BITS
