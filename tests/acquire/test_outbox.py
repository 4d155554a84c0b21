"""The outbox keeps order, declares gaps and loses nothing that it did not count."""

from __future__ import annotations

import numpy as np
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.outbox import Outbox
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

FRAME = Frame(np.zeros((4, 8), np.uint8))  # 32 bytes


def test_nothing_is_sent_before_the_service_gave_credit():
    outbox = Outbox(1000)
    outbox.put(FRAME)
    assert outbox.next() is None
    outbox.rewind(0, 1, "lossless")
    frame, skipped = outbox.next() or (None, None)
    assert (frame is not None and frame.sequence, skipped) == (0, 0)
    assert outbox.next() is None


def test_a_restarted_service_gets_what_it_has_not_taken_and_answers_what_it_has():
    outbox = Outbox(1000)
    outbox.rewind(0, 3, "lossless")
    for _ in range(4):
        outbox.put(FRAME)
    sent = [outbox.next() for _ in range(3)]
    assert all(sent)
    outbox.rewind(1, 3, "lossless")  # frame 0 was taken, its answer is on the way
    again = [outbox.next() for _ in range(3)]
    assert [item[0].sequence for item in again if item] == [1, 2]
    assert outbox.answered(0) is not None
    assert (item := outbox.next()) is not None and item[0].sequence == 3


def test_a_repeated_answer_is_told_from_the_first():
    outbox = Outbox(1000)
    outbox.rewind(0, 1, "lossless")
    outbox.put(FRAME)
    outbox.next()
    assert outbox.answered(0) is not None
    assert outbox.answered(0) is None


def test_latest_never_sends_an_old_frame_and_declares_the_gap():
    outbox = Outbox(1000)
    outbox.rewind(0, 1, "latest")
    for _ in range(10):
        outbox.put(FRAME)
    frame, skipped = outbox.next() or (FRAME, -1)
    assert (frame.sequence, skipped, outbox.dropped) == (9, 9, 9)


def test_a_frame_that_no_longer_fits_is_counted_and_declared():
    outbox = Outbox(70)  # two frames
    outbox.rewind(0, 1, "lossless")
    kept = [outbox.put(FRAME)[1] for _ in range(4)]
    assert kept == [True, True, False, False]
    outbox.next()
    outbox.answered(0)
    outbox.next()
    outbox.answered(1)
    outbox.put(FRAME)
    frame, skipped = outbox.next() or (FRAME, -1)
    assert (frame.sequence, skipped, outbox.dropped) == (4, 2, 2)


class Exchange(RuleBasedStateMachine):
    """A client and a service that may die at any moment; the service's log survives."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(32 * 6)
        self.wire: list[tuple[int, int]] = []
        self.answers: list[int] = []
        self.log: list[int] = []
        self.expected = 0
        self.declared = 0
        self.put = 0
        self.answered: list[int] = []
        self.connect()

    def connect(self) -> None:
        awaiting = self.outbox.awaiting
        self.wire.clear()
        self.outbox.rewind(self.expected, 3, "lossless")
        self.answers = [sequence for sequence in self.log if sequence >= awaiting]

    @rule(count=st.integers(1, 5))
    def acquire(self, count: int) -> None:
        for _ in range(count):
            self.outbox.put(FRAME)
            self.put += 1

    @rule()
    def send(self) -> None:
        while item := self.outbox.next():
            self.wire.append((item[0].sequence, item[1]))

    @precondition(lambda self: self.wire)
    @rule()
    def process(self) -> None:
        sequence, skipped = self.wire.pop(0)
        assert sequence - skipped == self.expected, "the service would refuse this frame"
        self.log.append(sequence)
        self.declared += skipped
        self.expected = sequence + 1
        self.answers.append(sequence)

    @precondition(lambda self: self.answers)
    @rule()
    def answer(self) -> None:
        sequence = self.answers.pop(0)
        if self.outbox.answered(sequence) is not None:
            self.answered.append(sequence)

    @rule()
    def die_and_restart(self) -> None:
        self.connect()

    @invariant()
    def every_frame_once_in_order(self) -> None:
        assert self.log == sorted(set(self.log))
        assert self.answered == sorted(set(self.answered))
        assert set(self.answered) <= set(self.log)
        assert self.outbox.pending + len(self.answered) + self.outbox.dropped == self.put

    def teardown(self) -> None:
        while self.wire or self.answers or self.outbox.pending:
            self.send()
            if self.wire:
                self.process()
            if self.answers:
                self.answer()
        assert self.answered == self.log
        assert len(self.log) + self.outbox.dropped == self.put


TestExchange = Exchange.TestCase
TestExchange.settings = settings(max_examples=60, stateful_step_count=40)
