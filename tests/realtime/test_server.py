"""The service survives the death of its engines: nothing lost, nothing twice, nothing out of order."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.errors import LinkError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.client import Client
from cytoloop.models.labels import Labels
from cytoloop.realtime.bench.blank import BLANK
from cytoloop.realtime.experiment.config import Experiment, single_stream
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.service.journal import read_journal
from cytoloop.realtime.service.server import Service
from cytoloop.realtime.service.thread import EngineThread

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def a_stream(**fields: object) -> StreamConfig:
    return StreamConfig(**{"address": "tcp://127.0.0.1:0", "segmenter": PluginChoice(BLANK), **fields})  # type: ignore[arg-type]


def an_image(value: int) -> Frame:
    return Frame(np.full((64, 64), value % 256, np.uint8), time_s=value / 10)


def wait_until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def in_journal(client: Client) -> list[int]:
    return [entry.header.sequence for entry in read_journal(Path(client.stats().folder) / "journal")]


def test_a_killed_engine_is_replaced_and_nothing_is_lost_or_repeated(tmp_path: Path):
    with (
        Service(single_stream(a_stream(), log=tmp_path)) as service,
        Client(service.addresses["default"]) as client,
    ):
        for number in range(60):
            client.send(an_image(number))
            if number in (20, 40):
                restarts = service.restarts["default"]
                os.kill(service.pids["default"], KILL)
                client.send(an_image(number))  # on its way while nobody is there
                wait_until(lambda before=restarts: service.restarts["default"] > before)
        assert client.drain(30)
        replies = [reply.sequence for reply in client.replies()]
        assert service.restarts["default"] == 2
        assert any("died" in message for message in service.messages())
        assert replies == list(range(62))
        assert in_journal(client) == list(range(62))


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows cannot stop a process with a signal")
def test_a_hung_engine_is_replaced_and_nothing_is_lost_or_repeated(tmp_path: Path):
    stream = a_stream(hang_s=0.8)
    with (
        Service(single_stream(stream, log=tmp_path)) as service,
        Client(service.addresses["default"], silence_s=0.5) as client,
    ):
        for number in range(10):
            client.send(an_image(number))
        assert client.drain(10)
        os.kill(service.pids["default"], signal.SIGSTOP)
        for number in range(10, 20):
            client.send(an_image(number))
        assert client.drain(30)
        assert service.restarts["default"] == 1
        assert any("no sign of life" in message for message in service.messages())
        assert in_journal(client) == list(range(20))


def test_a_whole_service_that_is_started_again_takes_the_run_over(tmp_path: Path):
    with Service(single_stream(a_stream(), log=tmp_path)) as service:
        address = service.addresses["default"]
        client = Client(address)
        for number in range(5):
            client.send(an_image(number))
        assert client.drain(10)
    with client, Service(single_stream(a_stream(address=address), log=tmp_path)) as service:
        for number in range(5, 10):
            client.send(an_image(number))
        assert client.drain(30)
        assert in_journal(client) == list(range(10))
        wait_until(lambda: any("taken over at frame 5" in message for message in service.messages()))


def test_streams_are_independent(tmp_path: Path):
    streams = {name: a_stream(name=name) for name in ("left", "right")}
    with (
        Service(Experiment(streams=streams, log=str(tmp_path))) as service,
        Client(service.addresses["left"], stream="left") as left,
        Client(service.addresses["right"], stream="right") as right,
    ):
        for number in range(20):
            left.send(an_image(number))
            right.send(an_image(number))
            if number == 5:
                os.kill(service.pids["left"], KILL)
        assert left.drain(30)
        assert right.drain(30)
        assert service.restarts == {"left": 1, "right": 0}
        assert right.stats().reconnects == 0
        assert in_journal(left) == in_journal(right) == list(range(20))


def test_a_stream_that_cannot_be_served_says_why(tmp_path: Path):
    with EngineThread(a_stream(), tmp_path) as other:
        with pytest.raises(LinkError, match=f"cannot listen on {other.address}"):
            Service(single_stream(a_stream(address=other.address), log=tmp_path))


def test_a_segmenter_that_cannot_be_built_says_why(tmp_path: Path):
    with pytest.raises(LinkError, match="no 'clasical'"):
        Service(single_stream(a_stream(segmenter=PluginChoice("clasical")), log=tmp_path))


def test_an_address_inside_one_process_is_refused(tmp_path: Path):
    with pytest.raises(LinkError, match="inproc://x cannot be served"):
        Service(single_stream(a_stream(address="inproc://x"), log=tmp_path))


def test_a_frame_that_kills_every_engine_is_left_out_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "fragile.py").write_text(
        "import os\n"
        "from cytoloop.realtime.bench.blank import Blank\n"
        "class Fragile(Blank):\n"
        "    def segment(self, frame):\n"
        "        if frame.pixels[0, 0] == 13:\n"
        "            os._exit(3)\n"
        "        return super().segment(frame)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))  # a spawned process gets it, too
    stream = a_stream(segmenter=PluginChoice("fragile:Fragile"))
    with (
        Service(single_stream(stream, log=tmp_path)) as service,
        Client(service.addresses["default"]) as client,
    ):
        for number in (11, 12, 13, 14, 15):
            client.send(an_image(number))
        assert client.drain(60)
        replies = client.replies()
        assert [reply.sequence for reply in replies] == list(range(5))
        assert service.restarts["default"] == 3
        assert "left out" in " ".join(replies[2].messages)
        assert not any(reply.messages for reply in replies if reply.sequence != 2)
        assert in_journal(client) == list(range(5))


SLOW = """
    import os, time
    import numpy as np

    def load(noted):
        with open(noted, "a") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(2.5)
        return lambda image: (np.indices(image.shape)[0] < 9) * 1
"""


def test_a_model_that_loads_for_longer_than_a_hang_is_loaded_once_in_each_engine(tmp_path: Path):
    noted, worker = tmp_path / "loaded.txt", tmp_path / "slow.py"
    worker.write_text(textwrap.dedent(SLOW))
    segmenter = PluginChoice("process", {"worker": str(worker), "options": {"noted": str(noted)}})

    def loads() -> int:
        return len(noted.read_text().split())

    with Service(single_stream(a_stream(segmenter=segmenter, hang_s=1.0), log=tmp_path)) as service:
        with Client(service.addresses["default"]) as client:
            for number in range(5):
                client.send(an_image(number))
            assert client.drain(10)
            wait_until(lambda: loads() == 2)  # the standby's
            os.kill(service.pids["default"], KILL)  # while the standby loads
            for number in range(5, 10):
                client.send(an_image(number))
            assert client.drain(30)
            assert [len(reply.cells) for reply in client.replies()] == [1] * 10
            assert in_journal(client) == list(range(10))
        with Client(service.addresses["default"]) as client:  # another run, the same engine
            client.send(an_image(0))
            assert client.drain(10)
            assert in_journal(client) == [0]
            wait_until(lambda: loads() == 3)
            time.sleep(1.5)  # for longer than a hang, but not until the new standby is ready
            client.send(an_image(1))
            assert client.drain(10)
        assert service.restarts["default"] == 1
        assert loads() == 3
        assert not [message for message in service.messages() if "sign of life" in message]


def test_an_engine_that_loads_for_too_long_is_given_up_with_the_reason(tmp_path: Path):
    worker = tmp_path / "slow.py"
    worker.write_text("import time\ntime.sleep(600)\n")
    stream = a_stream(segmenter=PluginChoice("process", {"worker": str(worker)}), start_s=3.0)
    with pytest.raises(LinkError, match=r"its engine did not start within 3 s \(raise start_s"):
        Service(single_stream(stream, log=tmp_path))


class Counting:
    """Finds one more cell in each frame, and cannot forget how many it found."""

    channel = 0
    built = 0

    def __init__(self) -> None:
        type(self).built += 1
        self.frames = 0

    def segment(self, frame: Frame) -> Labels:
        self.frames += 1
        image = np.zeros(frame.shape, np.int32)
        image[: 5 * self.frames] = np.arange(5 * self.frames)[:, None] // 5 + 1
        return Labels(image, self.frames)


class Forgetting(Counting):
    """Finds one more cell in each frame, and can forget how many it found."""

    built = 0

    def reset(self) -> None:
        self.frames = 0

    def memory(self, frame: Frame) -> dict[str, Any]:
        return {"frames": self.frames}

    def recall(self, frame: Frame, memory: Mapping[str, Any]) -> None:
        self.frames = memory["frames"]


@pytest.mark.parametrize(("kind", "built"), [(Counting, 3), (Forgetting, 1)])
def test_no_run_knows_the_frames_of_the_one_before_in_the_same_engine(
    tmp_path: Path, kind: type[Counting], built: int
):
    kind.built = 0
    stream = a_stream(segmenter=PluginChoice(f"{__name__}:{kind.__name__}"))
    with EngineThread(stream, tmp_path) as engine:
        for _ in range(3):
            with Client(engine.address) as client:
                for number in range(3):
                    client.send(an_image(number))
                assert client.drain(10)
                assert [len(reply.cells) for reply in client.replies()] == [1, 2, 3]
    assert kind.built == built
