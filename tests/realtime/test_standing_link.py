"""The standing of a microscope over a real link: who may change it, who hears of it, and what it makes of decisions."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from cytoloop.acquire.errors import AddressError, LinkError, RefusedError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.governor.limits import Limits
from cytoloop.acquire.governor.safe import SafeState
from cytoloop.acquire.link.client import Client
from cytoloop.acquire.link.control import set_standing
from cytoloop.acquire.link.messages import Control, Hello, Refusal, decode_from_service, encode
from cytoloop.realtime.bench.blank import BLANK
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.service.journal import read_journal
from cytoloop.realtime.service.thread import EngineThread

LIGHT = {"action": {"do": "stimulate", "duration_ms": 50.0}, "condition": "mean > 300", "name": "lit"}


def a_stream(**fields: Any) -> StreamConfig:
    return StreamConfig(**{"address": "tcp://127.0.0.1:0", "segmenter": PluginChoice(BLANK), **fields})


def lighting(**options: Any) -> dict[str, Any]:
    """Return what makes a stream light every bright cell."""
    return {
        "segmenter": PluginChoice("classical", {"diameter_px": 16.0}),
        "rules": (PluginChoice("when", LIGHT | options),),
        "pixel_size_um": 1.0,
    }


def an_image(number: int) -> Frame:
    """Return a bright disc."""
    y, x = np.indices((80, 100))
    pixels = np.where((y - 40) ** 2 + (x - 50) ** 2 < 64, 1000, 100).astype(np.uint16)
    return Frame(pixels, time_s=float(number), axes={"time": number})


def wait_until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def say(engine: EngineThread, standing: Any, **more: Any) -> Any:
    return set_standing(standing, who="me", why="the test", address=engine.address, **more)


def send(client: Client, number: int) -> Any:
    """Send a frame and return its reply."""
    reply = client.wait(client.send(an_image(number)), 30)
    assert reply is not None
    return reply


@pytest.mark.parametrize(("fields", "standing"), [({}, "disarmed"), ({"armed": True}, "armed")])
def test_a_microscope_is_disarmed_unless_its_stream_says_armed(
    fields: dict[str, Any], standing: str, tmp_path: Path
) -> None:
    with EngineThread(a_stream(**fields), tmp_path) as engine, Client(engine.address) as client:
        assert client.safeguard.safety.standing == "disarmed"
        assert client.wait_connected(10)
        assert client.safeguard.safety.standing == standing
        wait_until(lambda: engine.status.standing == standing)


def test_the_terms_of_the_stream_reach_the_microscope(tmp_path: Path) -> None:
    limits = Limits(exposure_ms=(1.0, 2.0), properties=("Camera.Gain",), triggers_max=3)
    safe = SafeState(after_s=7.0, set=("LED.State=0",))
    stream = a_stream(limits=limits, safe=safe, affine=((0.0, 0.5), (-0.5, 0.0)))
    with EngineThread(stream, tmp_path) as engine, Client(engine.address) as client:
        assert client.wait_connected(10)
        terms = client.safeguard.terms
        assert terms is not None
        assert (terms.limits, terms.safe, terms.affine) == (limits, safe, (0.0, 0.5, -0.5, 0.0))
        assert terms.uncalibrated == ""


def test_a_calibration_that_cannot_be_used_bars_the_microscope_from_moving(tmp_path: Path) -> None:
    stream = a_stream(calibration=str(tmp_path / "lost.toml"))
    with EngineThread(stream, tmp_path) as engine, Client(engine.address) as client:
        assert client.wait_connected(10)
        terms = client.safeguard.terms
        assert terms is not None
        assert "lost.toml" in terms.uncalibrated


def test_frames_carry_the_standing_into_the_journal(tmp_path: Path) -> None:
    with EngineThread(a_stream(), tmp_path) as engine, Client(engine.address) as client:
        assert client.wait_connected(10)
        for number, standing in enumerate(["disarmed", "dry", "armed", "dry"]):
            if number:
                client.safeguard.safety.set(standing, "the test")  # type: ignore[arg-type]
            send(client, number)
        folder = Path(client.stats().folder)
    headers = [entry.header for entry in read_journal(folder / "journal")]
    assert [header.standing for header in headers] == ["disarmed", "dry", "armed", "dry"]


def test_what_is_decided_on_a_disarmed_frame_is_refused_and_counts_for_no_quota(tmp_path: Path) -> None:
    stream = a_stream(**lighting(cooldown="0 s", quota={"per_run": 2}))
    with EngineThread(stream, tmp_path) as engine, Client(engine.address) as client:
        assert client.wait_connected(10)
        for number in range(4):
            (decision,) = send(client, number).decisions
            assert (decision.rule, decision.refused) == ("lit", "disarmed")
        assert client.decisions() == []
        say(engine, "armed")
        refused = [[each.refused for each in send(client, number).decisions] for number in range(4, 8)]
        assert refused == [[""], [""], [], []]
        assert len(client.decisions()) == 2


def test_a_disarmed_frame_counts_no_dose_and_a_dry_one_does(tmp_path: Path) -> None:
    stream = a_stream(**lighting(cooldown="0 s"), limits=Limits(dose_ms_per_cell=100.0))
    with EngineThread(stream, tmp_path) as engine, Client(engine.address) as client:
        assert client.wait_connected(10)
        said: list[str] = []
        for number in range(6):
            if number == 3:
                say(engine, "dry")
            (decision,) = send(client, number).decisions
            said.append(decision.refused)
        assert said[:5] == ["disarmed"] * 3 + ["", ""]
        assert said[5].startswith("dose_ms_per_cell: 150 ms")


@pytest.mark.parametrize("standing", ["armed", "dry", "disarmed"])
def test_someone_else_changes_the_standing_and_hears_that_it_is_so(standing: Any, tmp_path: Path) -> None:
    with EngineThread(a_stream(armed=standing == "disarmed"), tmp_path) as engine:
        with Client(engine.address) as client:
            assert client.wait_connected(10)
            stands = say(engine, standing)
            assert (stands.standing, stands.safe) == (standing, False)
            assert stands.why == "me: the test"
            assert client.safeguard.safety.standing == standing
            assert engine.status.standing == standing


def test_an_order_is_confirmed_also_when_it_stands_so_already(tmp_path: Path) -> None:
    with EngineThread(a_stream(armed=True), tmp_path) as engine, Client(engine.address) as client:
        assert client.wait_connected(10)
        for standing in ("armed", "armed", "dry", "dry"):
            stands = say(engine, standing)
            assert (stands.standing, stands.why) == (standing, "me: the test")


def test_the_last_of_many_orders_holds(tmp_path: Path) -> None:
    with EngineThread(a_stream(), tmp_path) as engine, Client(engine.address) as client:
        assert client.wait_connected(10)
        for standing in ("armed", "dry", "disarmed") * 5:
            assert say(engine, standing).standing == client.safeguard.safety.standing == standing


def test_without_a_microscope_an_order_is_refused_in_so_many_words(tmp_path: Path) -> None:
    with EngineThread(a_stream(), tmp_path) as engine:
        with pytest.raises(RefusedError, match="no microscope is connected to stream 'default'"):
            say(engine, "armed")
        with Client(engine.address) as client:
            assert client.wait_connected(10)
            assert say(engine, "armed").standing == "armed"
            with pytest.raises(RefusedError, match="no stream 'left' here; this address serves 'default'"):
                say(engine, "disarmed", stream="left")
            assert client.safeguard.safety.standing == "armed"
        with pytest.raises(RefusedError, match="no microscope is connected"):
            say(engine, "armed")


def test_without_a_service_an_order_fails_within_its_time() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(LinkError, match=r"no answer within 0\.3 s; is the service running there"):
        set_standing("armed", who="me", why="", address=gone, timeout_s=0.3)
    with pytest.raises(AddressError, match="cytoloop keys"):
        set_standing("armed", who="me", why="", address="tcp://192.168.1.2:5790", timeout_s=0.3)


def test_a_microscope_that_does_not_confirm_is_told(tmp_path: Path) -> None:
    """One that has gone without a word: its address holds the stream, and nobody reads what is sent there."""
    with EngineThread(a_stream(), tmp_path) as engine:
        lost: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        lost.connect(engine.address)
        lost.send(encode(Hello("default", "0" * 32, "lost", 0)))
        assert lost.poll(10_000)
        lost.close(linger=0)
        with pytest.raises(RefusedError, match="the microscope did not confirm within 5 s; it may do so yet"):
            say(engine, "armed")


def test_the_word_of_a_person_before_the_service_answers_is_kept(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s" if zmq.has("ipc") else "tcp://127.0.0.1:5799"
    with Client(address) as client:
        client.safeguard.safety.set("dry", "a person")
        client.send(an_image(0))
        with EngineThread(a_stream(address=address, armed=True), tmp_path) as engine:
            assert client.drain(30)
            assert client.safeguard.safety.standing == "dry"
            wait_until(lambda: engine.status.standing == "dry")
        folder = Path(client.stats().folder)
    assert [entry.header.standing for entry in read_journal(folder / "journal")] == ["dry"]


def test_the_standing_outlives_the_service_whatever_the_next_one_says(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s" if zmq.has("ipc") else "tcp://127.0.0.1:5799"
    with Client(address) as client:
        with EngineThread(a_stream(address=address), tmp_path) as engine:
            assert client.wait_connected(10)
            say(engine, "armed")
        with EngineThread(a_stream(address=address), tmp_path) as engine:
            wait_until(lambda: engine.status.standing == "armed")
            assert client.safeguard.safety.standing == "armed"


def test_an_order_longer_than_any_reason_is_cut_and_a_forged_one_is_dropped(tmp_path: Path) -> None:
    with EngineThread(a_stream(), tmp_path) as engine, Client(engine.address) as client:
        assert client.wait_connected(10)
        stranger: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        stranger.connect(engine.address)
        try:
            stranger.send(encode(Control("default", "armed", "me", "y" * 10_000)))
            stranger.send(encode(Control("default", "armed", "m" * 300, "why")))
            stranger.send(encode(Control("x" * 300, "armed", "me", "why")))
            stranger.send(encode(Control("default", "live", "me", "why")))  # type: ignore[arg-type]
            wait_until(lambda: engine.status.damaged == 4)
            assert client.safeguard.safety.standing == "disarmed"
            stranger.send(encode(Control("other", "armed", "me", "y" * 4096)))
            assert stranger.poll(10_000)
            assert isinstance(decode_from_service(stranger.recv()), Refusal)
            assert not stranger.poll(0)
        finally:
            stranger.close(linger=0)
        stands = set_standing("dry", who="m" * 10_000, why="y" * 10_000, address=engine.address)
        assert stands.standing == client.safeguard.safety.standing == "dry"
        assert len(stands.why) <= 4096
        assert not send(client, 0).decisions
        assert client.stats().damaged == client.stats().reconnects == 0
