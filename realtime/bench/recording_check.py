"""What a disturbed run has left behind, held against what the microscope took; for ``bench faults --record``."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from ...acquire.errors import CytoloopError
from ...acquire.link.pixels import frame_with
from ...acquire.reply import Reply, encode_array
from ..experiment.stream import StreamConfig
from ..faults import count
from ..pipeline import Pipeline
from ..recording.ome_zarr import FRAMES
from ..recording.reader import RecordedFrames, RecordedMasks
from ..recording.run_writer import part_folders
from ..recording.side_index import Plane, read_planes
from ..service.journal import Entry, read_journal

_FRAME_SAID = re.compile(r"frame (\d+) is not recorded: ")
_MASK_SAID = re.compile(r"the mask of frame (\d+) is not recorded: ")
_JOURNAL_SAID = re.compile(r"frame (\d+): it could not be written to the log: ")

Image = NDArray[Any]


@dataclass
class Found:
    """What was found of one run or of several; all but the first six must be 0.

    Attributes
    ----------
    acquired, acknowledged, on_disk, decided
        Frames: taken, answered, recorded with the pixels that were taken, and with a reply of their own.
    left_out, unlogged
        Frames and masks of which their replies say that they are not recorded, and frames that are not in the journal.
    lost, duplicated, out_of_order
        Frames and masks that are missing though no reply says so; that are there twice; that stand in the wrong order
        in the recording or the journal. Replies, too.
    wrong
        Frames and masks with other pixels than were taken or segmented; those that a reply calls left out, though they
        are there.
    identities_broken, decided_otherwise
        Frames whose cells have other identities, or that have other decisions, than an undisturbed pipeline gives.
    over_quota, unsafe_commands
        Decisions, and what reached the actuator, beyond the quota of the run; moves of the stage beyond its limits.
    opened, unopened
        How often readers of others opened the unfinished recording; those that could not, and what they said.
    """

    acquired: int = 0
    acknowledged: int = 0
    on_disk: int = 0
    decided: int = 0
    left_out: int = 0
    unlogged: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    wrong: int = 0
    identities_broken: int = 0
    decided_otherwise: int = 0
    over_quota: int = 0
    unsafe_commands: int = 0
    opened: int = 0
    unopened: list[str] = field(default_factory=list[str])

    def add(self, other: Found) -> None:
        """Add what was found of another run."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def figures(self) -> dict[str, Any]:
        """Return the figures by name, of ``unopened`` how many."""
        return {**vars(self), "unopened": len(self.unopened)}

    def sound(self) -> bool:
        """Tell whether nothing is wrong."""
        bad = (self.lost, self.duplicated, self.out_of_order, self.wrong, self.identities_broken)
        worse = (self.decided_otherwise, self.over_quota, self.unsafe_commands, len(self.unopened))
        return not any((*bad, *worse)) and self.acquired == self.acknowledged == self.decided


def examine(
    stream: StreamConfig, run: Path, images: Mapping[int, Image], replies: Sequence[Reply], frames: int
) -> Found:
    """Compare what is in a run's folder and what was replied with what was taken.

    Parameters
    ----------
    stream
        As it was served.
    run
        The run's folder; its service has ended.
    images
        What pycro-manager has saved, by frame.
    replies
        All that came, in the order in which they came.
    frames
        How many were taken.
    """
    found = Found(decided=len({reply.sequence for reply in replies}))
    entries = list(read_journal(run / "journal"))
    unlogged = _said(replies, _JOURNAL_SAID)
    found.unlogged = len(unlogged)
    journal = count([entry.header.sequence for entry in entries], frames - len(unlogged))
    for each in (count([reply.sequence for reply in replies], frames), journal):
        found.lost += abs(each.lost)
        found.duplicated += each.duplicated
        found.out_of_order += each.out_of_order
    masks = _undisturbed(found, stream, entries, images)
    recorded, masked = RecordedFrames(run), RecordedMasks(run)
    said = _said(replies, _FRAME_SAID)
    found.on_disk = _compare(found, recorded.sequences(), said, frames, lambda number: np.array_equal(
        recorded.pixels(number, images[number].shape), images[number]
    ))  # fmt: skip
    if stream.record.masks:
        _compare(found, masked.sequences(), said | _said(replies, _MASK_SAID), frames, lambda number: (
            number not in masks or np.array_equal(masked.mask(number), masks[number])
        ))  # fmt: skip
    _order(found, (plane for part in recorded.parts for plane in part.planes))
    return found


def _said(replies: Sequence[Reply], pattern: re.Pattern[str]) -> set[int]:
    """Return the frames of which messages of the replies say something."""
    matches = (pattern.match(message) for reply in replies for message in reply.messages)
    return {int(match[1]) for match in matches if match}


def _compare(
    found: Found, there: Iterable[int], said: set[int], frames: int, right: Callable[[int], bool]
) -> int:
    """Count what is lost and what is wrong of one kind of planes; return how many are there and right."""
    numbers = set(there)
    found.left_out += len(said)
    found.lost += len(set(range(frames)) - numbers - said)
    good = 0
    for number in sorted(numbers):
        with contextlib.suppress(CytoloopError):  # a damaged one is not right
            good += number not in said and right(number)
    found.wrong += len(numbers) - good
    return good


def _order(found: Found, planes: Iterable[Plane]) -> None:
    """Count planes of frames that are there twice, or come after a later one."""
    sequences = [plane.sequence for plane in planes]
    found.duplicated += sum(times - 1 for times in Counter(sequences).values())
    found.out_of_order += sum(later < earlier for earlier, later in pairwise(sequences))


def _undisturbed(
    found: Found, stream: StreamConfig, entries: Sequence[Entry], images: Mapping[int, Image]
) -> dict[int, Image]:
    """Give the frames to a new pipeline that nothing happens to, and compare; return the masks that it finds.

    It goes as far as the journal has every frame: one that a full disk kept out of it cannot be given its place.
    """
    pipeline = Pipeline(stream)
    masks: dict[int, Image] = {}
    for number, entry in enumerate(entries):
        if entry.header.sequence != number:
            break
        step = pipeline.step(frame_with(entry.header, images[number]))
        cells, was = step.reply.cells, entry.reply.cells
        same = np.array_equal(cells.track, was.track) and np.array_equal(cells.x_px, was.x_px)
        found.identities_broken += not (same and np.array_equal(cells.y_px, was.y_px))
        found.decided_otherwise += _plain(step.reply.decisions) != _plain(entry.reply.decisions)
        if step.labels is not None:
            masks[number] = step.labels.image
    return masks


def _plain(decisions: Any) -> bytes:
    return msgspec.msgpack.encode(decisions, enc_hook=encode_array)


def over_quota(replies: Sequence[Reply], reached: int, rule: str, quota: int) -> int:
    """Return by how much a rule has fired more often than its quota allows, in replies and at the actuator."""
    fired = sum(
        decision.rule == rule and not decision.refused for reply in replies for decision in reply.decisions
    )
    return max(0, fired - quota) + max(0, reached - quota)


def open_unfinished(found: Found, run: Path) -> None:
    """Open what is in a run's folder at this moment with the readers of others that are installed."""
    for folder in part_folders(run):
        latest = None
        if (folder / FRAMES).is_file() and (folder / "zarr.json").is_file():
            for plane in read_planes(folder / FRAMES):
                latest = plane
        if latest is None:  # nothing has been recorded yet
            continue
        for name, read in {"zarr": _with_zarr, "tensorstore": _with_tensorstore}.items():
            _tried(found, f"{name}: {folder.name}", read, folder, latest)
    for table in sorted([*run.rglob("*.arrow"), *run.rglob("*.arrows")]):
        if table.stat().st_size:
            _tried(found, f"pyarrow: {table.name}", _with_pyarrow, table, None)


def _tried(
    found: Found, what: str, read: Callable[[Path, Any], str], path: Path, plane: Plane | None
) -> None:
    try:
        wrong = read(path, plane)
    except ImportError:
        return
    except Exception as error:  # a reader of others may raise anything
        wrong = f"{type(error).__name__}: {error}"
    found.opened += not wrong
    if wrong:
        found.unopened.append(f"{what}: {wrong}"[:500])


def _with_zarr(folder: Path, plane: Plane) -> str:
    import zarr

    array: Any = zarr.open_group(folder, mode="r")[f"{plane.position}/0"]
    return _same(array[plane.t, plane.c, plane.z], plane)


def _with_tensorstore(folder: Path, plane: Plane) -> str:
    import tensorstore  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]

    store: Any = tensorstore
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder}/{plane.position}/0"}}
    array = store.open(spec, read=True).result()
    return _same(array[plane.t, plane.c, plane.z].read().result(), plane)


def _same(pixels: Any, plane: Plane) -> str:
    check = f"{xxhash.xxh3_64_intdigest(np.ascontiguousarray(pixels).data):016x}"
    return "" if check == plane.xxh3 else f"frame {plane.sequence} has other pixels than were written"


def _with_pyarrow(table: Path, _: object) -> str:
    """Read the whole batches of a table; its end may be torn, since it is being written."""
    import pyarrow as arrow  # pyright: ignore[reportMissingTypeStubs]

    library: Any = arrow
    with table.open("rb") as file:
        stream = library.ipc.open_stream(file)
        try:
            while True:
                stream.read_next_batch()
        except (StopIteration, library.ArrowInvalid, OSError):
            return ""
