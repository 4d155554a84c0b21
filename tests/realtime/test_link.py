"""One contract for every transport: each frame answered exactly once, in order, pixels intact."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from cytoloop.acquire.commands import MoveStage
from cytoloop.acquire.errors import AddressError, FrameError, RefusedError, WireError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link import client as client_module
from cytoloop.acquire.link import connection as connection_module
from cytoloop.acquire.link.addresses import parse_address
from cytoloop.acquire.link.client import Client
from cytoloop.acquire.link.keys import make_keys
from cytoloop.acquire.link.messages import Answer, Hello, Refusal, decode_from_service, encode
from cytoloop.acquire.reply import Decision
from cytoloop.models.detections import Detections
from cytoloop.models.labels import Labels
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.rules.rule import Moment, Verdict
from cytoloop.realtime.service.journal import read_journal
from cytoloop.realtime.service.thread import EngineThread
from cytoloop.trackers.tracks import Tracks

SEEN: list[Frame] = []
GATE = threading.Event()


class Recorder:
    """A segmenter that keeps a copy of all it saw, and works only while the gate is open."""

    channel = 0

    def segment(self, frame: Frame) -> Labels:
        GATE.wait(10)
        SEEN.append(Frame(frame.pixels.copy(), frame.sequence, frame.time_s, frame.axes, frame.channels))
        return Labels(np.zeros(frame.shape, np.int32), 0)


class Idle:
    """A tracker for frames without cells."""

    def update(self, detections: Detections) -> Tracks:
        nothing = np.empty(0)
        empty = np.empty(0, np.int64)
        return Tracks(detections, empty, empty, np.empty(0, np.int32), nothing, nothing, nothing)


@pytest.fixture(autouse=True)
def clean_slate() -> Iterator[None]:
    SEEN.clear()
    GATE.set()
    yield
    GATE.set()


def a_stream(address: str, **fields: object) -> StreamConfig:
    segmenter = PluginChoice(f"{__name__}:Recorder")
    return StreamConfig(
        address=address, segmenter=segmenter, tracker=PluginChoice(f"{__name__}:Idle"), **fields
    )  # type: ignore[arg-type]


def an_image(number: int) -> Frame:
    pixels = np.random.default_rng(number).integers(0, 65_536, (64, 96), dtype=np.uint16)
    return Frame(pixels, time_s=number / 10, axes={"time": number})


ADDRESSES = ["inproc://link", "tcp://127.0.0.1:0"]
if zmq.has("ipc"):
    ADDRESSES.append("ipc")


@pytest.fixture(params=[(address, shared) for address in ADDRESSES for shared in (True, False)], ids=str)
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, bool]:
    address, shared = request.param
    return (f"ipc://{tmp_path}/s" if address == "ipc" else address), shared


def test_every_frame_is_answered_once_in_order_and_intact(transport: tuple[str, bool], tmp_path: Path):
    address, shared = transport
    with EngineThread(a_stream(address), tmp_path / "log") as engine:
        with Client(engine.address, shared_memory=shared) as client:
            images = [an_image(number) for number in range(30)]
            assert [client.send(image) for image in images] == list(range(30))
            assert client.drain(20)
            replies, stats = client.replies(), client.stats()
        assert [reply.sequence for reply in replies] == list(range(30))
        assert (stats.acknowledged, stats.dropped, stats.damaged, stats.reconnects) == (30, 0, 0, 0)
        assert engine.status.damaged == 0
    assert [frame.sequence for frame in SEEN] == list(range(30))
    assert all(np.array_equal(seen.pixels, sent.pixels) for seen, sent in zip(SEEN, images, strict=True))
    assert [frame.axes for frame in SEEN] == [image.axes for image in images]
    journal = next((tmp_path / "log").rglob("journal"))
    assert [entry.header.sequence for entry in read_journal(journal)] == list(range(30))


def test_frames_of_changing_size_and_type_pass(transport: tuple[str, bool], tmp_path: Path):
    address, shared = transport
    shapes = [(8, 8), (200, 300), (2, 16, 16), (1, 1), (33, 7)]
    images = [
        np.full(shape, index, np.uint8 if index % 2 else np.uint16) for index, shape in enumerate(shapes)
    ]
    with (
        EngineThread(a_stream(address), tmp_path) as engine,
        Client(engine.address, shared_memory=shared) as client,
    ):
        for image in images:
            client.send(Frame(image, channels=("a", "b")[: 1 if image.ndim == 2 else 2]))
        assert client.drain(20)
        assert client.stats().acknowledged == len(images)


def test_latest_analyses_no_old_frame_and_declares_what_it_left_out(tmp_path: Path):
    with (
        EngineThread(a_stream("inproc://latest", policy="latest"), tmp_path) as engine,
        Client(engine.address) as client,
    ):
        assert client.wait_connected(5)
        GATE.clear()
        client.send(an_image(0))
        wait_until(lambda: engine.status.client != "")
        for number in range(1, 20):
            client.send(an_image(number))
        GATE.set()
        assert client.drain(10)
        stats = client.stats()
    seen = [frame.sequence for frame in SEEN]
    assert seen[-1] == 19
    assert seen == sorted(seen)
    assert len(seen) <= 3
    assert stats.acknowledged + stats.dropped == 20
    assert stats.acknowledged == len(seen)


def test_a_client_that_comes_back_gets_the_replies_it_missed(tmp_path: Path):
    address = f"ipc://{tmp_path}/s" if zmq.has("ipc") else "tcp://127.0.0.1:5797"
    stream = a_stream(address)
    with Client(address, silence_s=0.5) as client:
        for number in range(5):
            client.send(an_image(number))
        for _ in range(3):  # three engines, one after the other, the log between them
            with EngineThread(stream, tmp_path / "log"):
                assert client.drain(10)
                client.send(an_image(9))
                client.send(an_image(9))
        with EngineThread(stream, tmp_path / "log"):
            assert client.drain(10)
        replies = [reply.sequence for reply in client.replies()]
        assert client.stats().reconnects >= 2
    assert replies == list(range(11))
    folders = list((tmp_path / "log" / "default").iterdir())
    assert len(folders) == 1
    assert [entry.header.sequence for entry in read_journal(folders[0] / "journal")] == list(range(11))


def test_a_slow_step_is_not_taken_for_a_lost_service(tmp_path: Path):
    with (
        EngineThread(a_stream("tcp://127.0.0.1:0"), tmp_path) as engine,
        Client(engine.address, silence_s=0.2) as client,
    ):
        assert client.wait_connected(5)
        GATE.clear()
        for number in range(5):
            client.send(an_image(number))
        time.sleep(1.0)  # five times the silence that a service which is not at work may keep
        assert client.stats().state == "connected"
        GATE.set()
        assert client.drain(10)
        assert client.stats().reconnects == 0
    assert [frame.sequence for frame in SEEN] == list(range(5))


class Nonsense:
    """A rule that wants the stage at no place at all, once."""

    name = "nonsense"

    def decide(self, moment: Moment) -> Verdict:
        number = moment.frame.sequence
        decision = Decision("nonsense", MoveStage(math.nan, 0.0), number, 0.0, 1.0)
        return Verdict((decision,) if number == 2 else ())

    def examples(self) -> tuple[()]:
        return ()


def test_a_decision_that_is_not_finite_is_told_and_stalls_nothing(tmp_path: Path):
    stream = a_stream("tcp://127.0.0.1:0", rules=(PluginChoice(f"{__name__}:Nonsense"),))
    with EngineThread(stream, tmp_path) as engine, Client(engine.address) as client:
        for number in range(6):
            client.send(an_image(number))
        assert client.drain(10)
        replies = client.replies()
        assert [reply.sequence for reply in replies] == list(range(6))
        assert not any(reply.decisions for reply in replies)
        assert any("not finite" in message for message in replies[2].messages)
        assert client.stats().damaged == 0


def test_a_damaged_answer_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    genuine, damaged = client_module.decode_from_service, [False]

    def damaged_once(part: bytes) -> Any:
        message = genuine(part)
        if isinstance(message, Answer) and message.reply.sequence == 2 and not damaged[0]:
            damaged[0] = True
            raise WireError("CRC mismatch")
        return message

    monkeypatch.setattr(client_module, "decode_from_service", damaged_once)
    with EngineThread(a_stream("tcp://127.0.0.1:0"), tmp_path) as engine, Client(engine.address) as client:
        for number in range(8):
            client.send(an_image(number))
        assert client.drain(10)
        assert [reply.sequence for reply in client.replies()] == list(range(8))
        assert (client.stats().damaged, client.stats().reconnects) == (1, 1)
    assert [frame.sequence for frame in SEEN] == list(range(8))


def test_a_frame_that_the_service_refuses_is_left_out_and_stalls_nothing(tmp_path: Path):
    with EngineThread(a_stream("tcp://127.0.0.1:0"), tmp_path) as engine, Client(engine.address) as client:
        for number in range(6):
            name = "x" * 300 if number == 2 else "time"  # longer than an axis may be called
            client.send(Frame(an_image(number).pixels, axes={name: number}))
        assert client.drain(10)
        replies = client.replies()
        assert [reply.sequence for reply in replies] == [0, 1, 3, 4, 5]
        assert any("left them out" in message for message in replies[2].messages)
        assert (client.stats().dropped, client.stats().acknowledged) == (1, 5)
    assert [frame.sequence for frame in SEEN] == [0, 1, 3, 4, 5]


def test_sending_never_blocks_without_a_service(tmp_path: Path):
    client = Client("tcp://127.0.0.1:9", buffer_mb=1)
    try:
        for number in range(300):
            client.send(an_image(number))
        stats = client.stats()
    finally:
        client.close(drain_s=0)
    assert stats.sent == 300
    assert stats.dropped == 300 - (1 << 20) // an_image(0).pixels.nbytes
    assert stats.state in ("connecting", "silent")


def test_an_unknown_stream_is_refused_by_name(tmp_path: Path):
    with (
        EngineThread(a_stream("inproc://refuses"), tmp_path) as engine,
        Client(engine.address, stream="right") as client,
    ):
        with pytest.raises(RefusedError, match="no stream 'right'.*serves 'default'"):
            client.wait_connected(5)


def test_a_second_client_is_told_who_holds_the_stream(tmp_path: Path):
    with EngineThread(a_stream("inproc://held"), tmp_path) as engine, Client(engine.address) as first:
        assert first.wait_connected(5)
        with Client(engine.address) as second, pytest.raises(RefusedError, match="in use by .* pid"):
            second.wait_connected(5)
        first.send(an_image(0))
        assert first.drain(5)


def test_a_stream_is_free_again_when_its_client_has_left(tmp_path: Path):
    with EngineThread(a_stream("inproc://free"), tmp_path) as engine:
        for _ in range(2):
            with Client(engine.address) as client:
                client.send(an_image(0))
                assert client.drain(5)
    assert len(list((tmp_path / "default").iterdir())) == 2


def test_an_rgb_image_is_refused_by_name_and_takes_no_number(tmp_path: Path):
    with EngineThread(a_stream("inproc://rgb"), tmp_path) as engine, Client(engine.address) as client:
        with pytest.raises(FrameError, match="RGB"):
            client.send(Frame(np.zeros((64, 64, 4), np.uint8)))
        assert client.send(an_image(0)) == 0


def test_strangers_and_gaps_are_refused_and_the_engine_goes_on(tmp_path: Path):
    with EngineThread(a_stream("tcp://127.0.0.1:0"), tmp_path) as engine, Client(engine.address) as client:
        assert client.wait_connected(5)
        stranger: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        stranger.connect(engine.address)
        for parts in (
            [b""],
            [b"GET / HTTP/1.1\r\n\r\n"],
            [encode(Hello("default", "0" * 32, "x", 0)), b"extra"],
        ):
            stranger.send_multipart(parts)
        wait_until(lambda: engine.status.damaged >= 3)
        stranger.close(linger=0)
        client.send(an_image(0))
        assert client.drain(5)


def test_another_version_is_told_so(tmp_path: Path):
    with EngineThread(a_stream("tcp://127.0.0.1:0"), tmp_path) as engine:
        other: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        other.connect(engine.address)
        part = bytearray(encode(Hello("default", "0" * 32, "from the future", 0)))
        part[4] += 1
        other.send(bytes(part))
        assert other.poll(5000)
        refusal = decode_from_service(other.recv())
        other.close(linger=0)
        assert isinstance(refusal, Refusal)
        assert (refusal.code, "update the older one" in refusal.reason) == ("rejected", True)


def test_a_client_with_keys_is_served_and_a_stranger_is_turned_away(tmp_path: Path):
    keys = tmp_path / "keys"
    make_keys(keys, ("scope",))
    make_keys(tmp_path / "other", ("scope",))
    stranger_home = tmp_path / "other" / "scope"
    (stranger_home / "service.key").write_bytes((keys / "service.key").read_bytes())
    with EngineThread(a_stream("tcp://127.0.0.1:0", keys=str(keys)), tmp_path / "log") as engine:
        with Client(engine.address, keys=keys / "scope") as client:
            client.send(an_image(0))
            assert client.drain(10)
        with Client(engine.address, keys=stranger_home) as stranger:
            assert not stranger.wait_connected(1.0)
            assert stranger.stats().state != "connected"
        with Client(engine.address) as plain:
            assert not plain.wait_connected(1.0)
    assert len(SEEN) == 1


def test_keys_change_while_the_service_runs_and_a_withdrawn_one_is_locked_out_at_once(tmp_path: Path):
    keys = tmp_path / "keys"
    make_keys(keys, ("old",))
    with EngineThread(a_stream("tcp://127.0.0.1:0", keys=str(keys)), tmp_path / "log") as engine:
        with Client(engine.address, keys=keys / "old") as old:
            old.send(an_image(0))
            assert old.drain(10)
            (keys / "clients" / "old.key").unlink()
            until = time.monotonic() + 10
            while old.stats().state != "refused" and time.monotonic() < until:
                time.sleep(0.02)
            assert "may not enter any more" in old.stats().reason or old.stats().state != "connected"
            old.send(an_image(1))
            assert not old.drain(1.0)
            make_keys(keys, ("new",))
            with Client(engine.address, keys=keys / "new") as new:
                assert new.wait_connected(10)
                new.send(an_image(0))
                assert new.drain(10)
            old.close(0)


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://192.168.1.2:5790", "tcp://scope:5790"]
)
def test_an_address_that_others_reach_needs_keys_on_both_sides(address: str, tmp_path: Path):
    with pytest.raises(AddressError, match="cytoloop keys"):
        Client(address)
    with pytest.raises(AddressError, match="cytoloop keys"):
        EngineThread(a_stream(address), tmp_path)


@pytest.mark.parametrize(
    "text", ["", "tcp://", "127.0.0.1:5790", "udp://x:1", "tcp://127.0.0.1", "tcp://h:99999", "tcp://h:٣"]
)
def test_a_malformed_address_is_refused_with_the_allowed_forms(text: str):
    with pytest.raises(AddressError, match="expected"):
        parse_address(text)


def test_keys_that_cannot_be_read_are_named_at_once(tmp_path: Path):
    with pytest.raises(AddressError, match=r"client.key_secret: no usable key.*cytoloop keys"):
        Client("tcp://127.0.0.1:5790", keys=tmp_path)
    (tmp_path / "client.key_secret").write_text("not a key")
    with pytest.raises(AddressError, match=r"client.key_secret"):
        Client("tcp://127.0.0.1:5790", keys=tmp_path)


def test_an_error_inside_the_link_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    failures = iter([OSError("no more file handles")])
    genuine = connection_module.header_of

    def failing_once(*arguments: Any, **keywords: Any) -> Any:
        for failure in failures:
            raise failure
        return genuine(*arguments, **keywords)

    monkeypatch.setattr(connection_module, "header_of", failing_once)
    with EngineThread(a_stream("tcp://127.0.0.1:0"), tmp_path) as engine, Client(engine.address) as client:
        for number in range(5):
            client.send(an_image(number))
        assert client.drain(10)
        assert [reply.sequence for reply in client.replies()] == list(range(5))
        assert client.stats().reconnects == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]"])
def test_loopback_is_open(host: str):
    assert parse_address(f"tcp://{host}:5790").is_local


def test_an_address_in_use_is_named(tmp_path: Path):
    with EngineThread(a_stream("tcp://127.0.0.1:0"), tmp_path) as engine:
        with pytest.raises(AddressError, match="cannot listen on tcp://127.0.0.1"):
            EngineThread(a_stream(engine.address), tmp_path)


def test_keys_are_never_overwritten(tmp_path: Path):
    make_keys(tmp_path, ("a",))
    before = (tmp_path / "service.key_secret").read_bytes()
    with pytest.raises(AddressError, match="never overwritten"):
        make_keys(tmp_path, ("a",))
    make_keys(tmp_path, ("b",))
    assert (tmp_path / "service.key_secret").read_bytes() == before


def wait_until(condition: object, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
