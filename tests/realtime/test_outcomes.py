"""What came of decisions reaches the log of the run once each, whatever dies in between."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from cytoloop.acquire.errors import RefusedError, WireError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.client import Client
from cytoloop.acquire.link.control import ask_why
from cytoloop.acquire.link.messages import (
    Hello,
    Noted,
    Outcomes,
    Question,
    Refusal,
    Welcome,
    decode_from_service,
    encode,
)
from cytoloop.acquire.outcome import Outcome
from cytoloop.realtime.bench.blank import BLANK
from cytoloop.realtime.experiment.config import single_stream
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.service.outcome_log import OUTCOMES, OutcomeLog, read_outcomes
from cytoloop.realtime.service.run_folder import write_stream
from cytoloop.realtime.service.server import Service
from cytoloop.realtime.service.thread import EngineThread

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
FATES = ("applied", "dry", "expired", "disarmed", "refused", "failed")


def a_stream(**fields: Any) -> StreamConfig:
    return StreamConfig(**{"address": "tcp://127.0.0.1:0", "segmenter": PluginChoice(BLANK), **fields})


def an_image(number: int) -> Frame:
    return Frame(np.full((16, 16), number % 256, np.uint8), time_s=float(number))


def an_outcome(number: int, **changes: Any) -> Outcome:
    values = {"rule": "ä rule", "track": number, "command": "Skip", "age_s": number / 8}
    values |= {"fate": FATES[number % len(FATES)], "reason": 'so it "was"\n'}
    return Outcome(number, **values | changes)


def wait_until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def address(tmp_path: Path) -> str:
    """Return an address that one service after another can take at once."""
    return f"ipc://{tmp_path}/s" if zmq.has("ipc") else "tcp://127.0.0.1:5798"


def logged(client: Client) -> list[Outcome]:
    return list(read_outcomes(Path(client.stats().folder)))


@contextlib.contextmanager
def full_disk(largest: int) -> Iterator[None]:
    """Let no file of this process become larger than so many bytes."""
    resource = pytest.importorskip("resource", reason="only POSIX limits the size of a file")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


# --- over the link ----------------------------------------------------------------------------------------------


def test_every_outcome_is_in_the_log_once_when_the_engine_is_killed(tmp_path: Path) -> None:
    with (
        Service(single_stream(a_stream(), log=tmp_path)) as service,
        Client(service.addresses["default"]) as client,
    ):
        assert client.wait_connected(30)
        for number in range(60):
            client.send(an_image(number))
            client.safeguard.report(an_outcome(number))
            if number in (20, 40):
                assert number == 20 or client.drain(30)
                restarts = service.restarts["default"]
                os.kill(service.pids["default"], KILL)
                client.safeguard.report(an_outcome(1000 + number))  # while nobody is there
                wait_until(lambda before=restarts: service.restarts["default"] > before)
        assert client.drain(60)
        assert client.safeguard.pending == 0
        expected = [*range(21), 1020, *range(21, 41), 1040, *range(41, 60)]
        assert logged(client) == [an_outcome(number) for number in expected]
        assert client.stats().reconnects == 2


def test_outcomes_are_told_without_any_frame_and_to_the_next_service(tmp_path: Path, address: str) -> None:
    with Client(address) as client:
        for number in range(2500):  # more than go into one message
            client.safeguard.report(an_outcome(number))
        for round_ in range(3):
            with EngineThread(a_stream(address=address), tmp_path):
                assert client.drain(30)
                client.safeguard.report(an_outcome(2500 + round_))
                assert client.drain(30)
        assert [each.sequence for each in logged(client)] == list(range(2503))
    lines = next(tmp_path.rglob("outcomes.jsonl")).read_text().splitlines()
    assert json.loads(lines[7])["fate"] == "dry"


@pytest.mark.parametrize("torn", [b"{", b'{"sequence":99,"rule":"', b'{"sequence":99'])
def test_a_torn_last_line_is_cut_off_and_nothing_is_there_twice(
    tmp_path: Path, address: str, torn: bytes
) -> None:
    with Client(address) as client:
        with EngineThread(a_stream(address=address), tmp_path):
            for number in range(5):
                client.safeguard.report(an_outcome(number))
            assert client.drain(30)
            client.safeguard.report(an_outcome(5))
            assert client.drain(30)
        path = Path(client.stats().folder) / "outcomes.jsonl"
        with path.open("ab") as file:
            file.write(torn)
        assert [each.sequence for each in read_outcomes(path.parent)] == list(range(6))
        for number in range(6, 9):
            client.safeguard.report(an_outcome(number))
        with EngineThread(a_stream(address=address), tmp_path):
            assert client.drain(30)
        assert logged(client) == [an_outcome(number) for number in range(9)]
    assert len(path.read_bytes().splitlines()) == 9


def test_what_a_full_disk_did_not_take_is_told_again_when_there_is_room(tmp_path: Path) -> None:
    with EngineThread(a_stream(), tmp_path) as engine, Client(engine.address) as client:
        for number in range(300):
            client.safeguard.report(an_outcome(number))
        assert client.drain(30)
        size = (Path(client.stats().folder) / "outcomes.jsonl").stat().st_size
        said: list[str] = []

        def refused() -> bool:
            said.extend(engine.status.messages)
            return any("could not be written to the log; the microscope keeps it" in each for each in said)

        with full_disk(size + 5):
            client.safeguard.report(an_outcome(300))
            wait_until(refused)
            assert client.safeguard.pending == 1
        assert client.drain(30)
        assert logged(client) == [an_outcome(number) for number in range(301)]
        assert client.stats().reconnects == 0


# --- the file ---------------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Iterator[OutcomeLog]:
    made = OutcomeLog(tmp_path)
    yield made
    made.close()


def batch(first: int, count: int) -> Outcomes:
    return Outcomes(first, tuple(an_outcome(number) for number in range(first, first + count)))


def sequences(run: Path) -> list[int]:
    return [each.sequence for each in read_outcomes(run)]


def test_a_folder_without_outcomes_has_none(tmp_path: Path) -> None:
    assert sequences(tmp_path) == []


def test_what_comes_again_is_written_once(log: OutcomeLog, tmp_path: Path) -> None:
    assert [log.add(batch(0, 3)), log.add(batch(0, 3)), log.add(batch(1, 4)), log.add(batch(2, 1))] == [
        3,
        3,
        5,
        5,
    ]
    assert sequences(tmp_path) == [0, 1, 2, 3, 4]


def test_a_gap_of_outcomes_that_were_let_go_keeps_the_numbers(log: OutcomeLog, tmp_path: Path) -> None:
    assert log.add(batch(0, 2)) == 2
    assert log.add(batch(7, 2)) == 9
    assert sequences(tmp_path) == [0, 1, 7, 8]
    again = OutcomeLog(tmp_path)
    assert again.next == 9
    assert again.add(batch(7, 3)) == 10
    again.close()
    assert sequences(tmp_path) == [0, 1, 7, 8, 9]


@pytest.mark.parametrize("first", [(1 << 20) + 3, 1 << 40, (1 << 62) - 1])
def test_numbers_far_ahead_are_refused_and_fill_no_disk(log: OutcomeLog, tmp_path: Path, first: int) -> None:
    assert log.add(batch(0, 2)) == 2
    with pytest.raises(WireError, match=f"number {first} where 2 is next"):
        log.add(Outcomes(first, (an_outcome(1),)))
    assert log.add(batch(2, 1)) == 3
    assert sequences(tmp_path) == [0, 1, 2]


def test_on_a_full_disk_what_was_written_stays_and_the_rest_is_written_once_when_there_is_room(
    log: OutcomeLog, tmp_path: Path
) -> None:
    log.add(batch(0, 3))
    with full_disk((tmp_path / "outcomes.jsonl").stat().st_size + 10):
        for _ in range(2):
            with pytest.raises(OSError, match="full|large"):
                log.add(batch(3, 3))
    assert (log.next, sequences(tmp_path)) == (3, [0, 1, 2])
    assert log.add(batch(3, 4)) == 7
    assert sequences(tmp_path) == list(range(7))
    assert len((tmp_path / "outcomes.jsonl").read_bytes().splitlines()) == 7


# --- hostile ----------------------------------------------------------------------------------------------------


class Impostor:
    """A peer that speaks the protocol and means no good."""

    def __init__(self, engine: EngineThread) -> None:
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.connect(engine.address)

    def ask(self, message: Any, wanted: type[Any]) -> Any:
        """Send a message and return the answer of the wanted kind."""
        self.socket.send(encode(message))
        while self.socket.poll(10_000):
            answer = decode_from_service(self.socket.recv())
            if isinstance(answer, wanted):
                return answer
        raise AssertionError(f"no {wanted.__name__} came")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineThread]:
    with EngineThread(a_stream(), tmp_path) as made:
        yield made


@pytest.fixture
def impostor(engine: EngineThread) -> Iterator[Impostor]:
    made = Impostor(engine)
    yield made
    made.socket.close(linger=0)


HELLO = Hello("default", "0" * 32, "x", 0)


@pytest.mark.parametrize(
    "outcomes",
    [
        Outcomes(1 << 61, (an_outcome(0),)),
        Outcomes(0, (an_outcome(0, age_s=math.nan),)),
        Outcomes(0, (an_outcome(0, age_s=math.inf),)),
        Outcomes(0, (an_outcome(0, fate="won"),)),
        Outcomes(0, (an_outcome(0, reason="y" * 5000),)),
        Outcomes(0, (an_outcome(0, rule="r" * 300),)),
        Outcomes(0, (an_outcome(0),) * 1001),
        Outcomes(-1, (an_outcome(0),)),
    ],
    ids=["far", "nan", "infinite", "unknown fate", "long reason", "long rule", "many", "negative"],
)
def test_outcomes_that_no_microscope_sends_are_refused_and_the_engine_goes_on(
    engine: EngineThread, impostor: Impostor, tmp_path: Path, outcomes: Outcomes
) -> None:
    run = Path(impostor.ask(HELLO, Welcome).folder)
    assert impostor.ask(outcomes, Refusal).code == "again"
    assert engine.status.damaged == 1
    assert sequences(run) == []
    assert (run / "outcomes.jsonl").stat().st_size == 0
    assert impostor.ask(batch(0, 2), Noted).next == 2
    assert sequences(run) == [0, 1]


def test_a_stranger_can_note_nothing_and_ask_nothing_while_there_is_no_run(
    engine: EngineThread, impostor: Impostor
) -> None:
    assert impostor.ask(Question("default", 1), Refusal).reason == "no run is going on"
    assert impostor.ask(Question("left", 1), Refusal).reason.startswith("no stream 'left' here")
    with Client(engine.address) as client:
        assert client.wait_connected(10)
        assert impostor.ask(batch(0, 2), Refusal).code == "stranger"
        client.safeguard.report(an_outcome(7))
        assert client.drain(10)
        assert [each.sequence for each in logged(client)] == [7]
        assert engine.status.damaged == 0


def test_before_the_first_frame_there_is_nothing_to_explain(engine: EngineThread) -> None:
    with Client(engine.address) as client:
        assert client.wait_connected(10)
        with pytest.raises(RefusedError, match="no frame has been judged yet"):
            ask_why(1, address=engine.address, timeout_s=10)


def test_each_line_says_when_it_was_noted_and_which_configuration_asked(tmp_path: Path) -> None:
    configuration = write_stream(tmp_path, StreamConfig())
    log = OutcomeLog(tmp_path, configuration)
    log.add(batch(0, 2))
    log.close()
    lines = [json.loads(line) for line in (tmp_path / OUTCOMES).read_text().splitlines()]
    assert {line["configuration"] for line in lines} == {
        hashlib.sha256((tmp_path / "stream.json").read_bytes()).hexdigest()
    }
    assert [line["rule"] for line in lines] == [an_outcome(number).rule for number in range(2)]
    assert all(datetime.fromisoformat(line["noted"]).utcoffset() is not None for line in lines)
