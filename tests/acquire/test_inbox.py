"""Replies that nobody reads do not fill the memory of the microscope's computer."""

from __future__ import annotations

import numpy as np
from cytoloop.acquire.link.inbox import FreshReplies
from cytoloop.acquire.reply import Cells, Reply


def a_reply(number: int, cells: int = 0) -> Reply:
    column = np.zeros(cells, np.float32)
    return Reply(number, Cells(np.zeros(cells, np.int64), column, column))


def test_replies_are_taken_once_in_order():
    fresh = FreshReplies(10, 10)
    for number in range(3):
        fresh.add(a_reply(number))
    assert [reply.sequence for reply in fresh.take()] == [0, 1, 2]
    assert fresh.take() == []


def test_the_oldest_give_way_when_there_are_too_many_replies_or_cells():
    fresh = FreshReplies(3, 100)
    for number in range(5):
        fresh.add(a_reply(number))
    assert [reply.sequence for reply in fresh.take()] == [2, 3, 4]
    for number, cells in enumerate((60, 30, 30, 500)):
        fresh.add(a_reply(number, cells))
    assert [reply.sequence for reply in fresh.take()] == [3]
    fresh.add(a_reply(9, 90))
    assert [reply.sequence for reply in fresh.take()] == [9]
