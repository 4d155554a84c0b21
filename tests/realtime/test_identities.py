"""An identity means one cell of the stream, and memory is not kept for cells that are gone."""

from __future__ import annotations

from itertools import count

import numpy as np
from cytoloop.acquire.reply import Correction, Division, Merge
from cytoloop.models.detections import Detections
from cytoloop.realtime.identities import Identities
from cytoloop.trackers.tracks import Ended, Tracks


def tracks(ids: list[int], parents: list[int] | None = None, **fields: object) -> Tracks:
    n = len(ids)
    column, pair = np.ones(n), np.ones((n, 2))
    found = Detections(
        0,
        0.0,
        (9, 9),
        pair,
        column,
        np.ones((n, 4), np.int32),
        column[:, None],
        column[:, None],
        np.ones((n, 3)),
    )
    return Tracks(
        found,
        np.array(ids, np.int64),
        np.array(parents or [0] * n, np.int64),
        np.zeros(n, np.int32),
        pair,
        np.ones((n, 3)),
        column,
        **fields,  # type: ignore[arg-type]
    )


def test_two_fields_of_view_never_share_a_number():
    numbers = count(1)
    left, right = Identities(numbers), Identities(numbers)
    assert left.renumber(tracks([1, 2])).track.tolist() == [1, 2]
    assert right.renumber(tracks([2, 1])).track.tolist() == [4, 3]
    assert left.renumber(tracks([3, 1])).track.tolist() == [5, 1]
    assert right.renumber(tracks([1])).track.tolist() == [3]


def test_mothers_and_daughters_are_named_alike_everywhere():
    numbers = count(10)
    names = Identities(numbers)
    names.renumber(tracks([1]))
    divided = names.renumber(
        tracks([2, 3], [1, 1], divisions=(Division(1, (2, 3)),), ended=(Ended(1, "exit"),))
    )
    assert divided.track.tolist() == [11, 12]
    assert divided.parent.tolist() == [10, 10]
    assert divided.divisions == (Division(10, (11, 12)),)
    assert divided.ended == (Ended(10, "exit"),)
    assert names.renumber(tracks([2, 3], [1, 1])).parent.tolist() == [10, 10]


def test_cells_that_are_gone_are_forgotten():
    names = Identities(count(1))
    for number in range(1, 1000):
        names.renumber(tracks([number], ended=(Ended(number - 1),) if number > 1 else ()))
    assert len(names) <= 2


def test_corrections_and_merges_name_cells_as_everything_else_does():
    numbers = count(10)
    names = Identities(numbers)
    names.renumber(tracks([1, 4]))
    names.renumber(tracks([2, 3, 4], [1, 1, 0], divisions=(Division(1, (2, 3)),)))
    after = names.renumber(
        tracks([1, 4], corrections=(Correction(1, 2, 1, 0, "not confirmed"),), merges=(Merge(4, (3,)),))
    )
    assert after.track.tolist() == [10, 11]
    assert after.corrections == (Correction(1, 12, 10, 0, "not confirmed"),)
    assert after.merges == (Merge(11, (13,)),)
