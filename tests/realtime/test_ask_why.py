"""Asking a service that runs why a cell was or was not chosen: the last frame at once, others from the journal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from cytoloop.acquire.errors import LinkError, RefusedError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.client import Client
from cytoloop.acquire.link.control import ask_why
from cytoloop.acquire.link.messages import Because, Question
from cytoloop.acquire.link.pixels import checksum, header_of
from cytoloop.acquire.reply import Reply
from cytoloop.realtime.cli import main
from cytoloop.realtime.experiment.stream import PluginChoice, RuleSet, StreamConfig
from cytoloop.realtime.service.run import Run
from cytoloop.realtime.service.thread import EngineThread
from numpy.typing import NDArray

DISCS = ((30, 40, 8, 1000), (90, 110, 9, 2000))  # y, x, radius in px, value
DARK = 100


def a_rule(name: str, threshold: int) -> PluginChoice:
    light = {"do": "stimulate", "duration_ms": 50.0}
    options = {"action": light, "condition": f"mean > {threshold}", "cooldown": "0 s", "name": name}
    return PluginChoice("when", options)


def a_stream(**fields: Any) -> StreamConfig:
    own = {
        "address": "tcp://127.0.0.1:0",
        "segmenter": PluginChoice("classical", {"diameter_px": 16.0}),
        "rules": (a_rule("bright", 1500),),
        "shadow": (RuleSet(name="candidate", rules=(a_rule("any", 300),)),),
        "armed": True,
    }
    return StreamConfig(**own | fields)


def pixels_of(number: int) -> NDArray[np.uint16]:
    """Return two discs that become smaller with each frame."""
    image = np.full((140, 180), DARK, np.uint16)
    y, x = np.indices(image.shape)
    for cy, cx, radius, value in DISCS:
        image[(y - cy) ** 2 + (x - cx - number) ** 2 < (radius - number / 4) ** 2] = value
    return image


def send(client: Client, number: int) -> Reply:
    reply = client.wait(
        client.send(Frame(pixels_of(number), time_s=float(number), axes={"time": number})), 30
    )
    assert reply is not None
    assert len(reply.cells) == 2
    return reply


def cell_near(reply: Reply, y: float, x: float) -> int:
    distance = (reply.cells.y_px - y) ** 2 + (reply.cells.x_px - x) ** 2
    return int(reply.cells.track[int(np.argmin(distance))])


@pytest.fixture(params=[True, False], ids=["shared memory", "socket"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[EngineThread, Client]]:
    with (
        EngineThread(a_stream(), tmp_path) as engine,
        Client(engine.address, shared_memory=request.param) as client,
    ):
        assert client.wait_connected(10)
        yield engine, client


def why(engine: EngineThread, track: int, sequence: int = -1) -> Because:
    return ask_why(track, sequence, address=engine.address, timeout_s=90)


def test_each_rule_says_of_a_cell_what_it_looked_at_in_the_last_frame(
    served: tuple[EngineThread, Client],
) -> None:
    engine, client = served
    for number in range(3):
        reply = send(client, number)
    dim, bright = (cell_near(reply, y, x + 2) for y, x, _, _ in DISCS)
    for track, fired in ((dim, False), (bright, True)):
        answer = why(engine, track)
        assert (answer.track, answer.sequence, answer.time_s, answer.seen) == (track, 2, 2.0, True)
        assert list(answer.rules) == ["armed", "candidate"]
        (armed,), (shadow,) = answer.rules["armed"], answer.rules["candidate"]
        assert (armed.rule, armed.track, armed.sequence, armed.fired) == ("bright", track, 2, fired)
        assert (shadow.rule, shadow.fired) == ("any", True)
        (clause,) = armed.clauses
        assert (clause.text, clause.threshold, clause.holds) == ("mean > 1500", 1500.0, fired)
        assert clause.value == pytest.approx(2000 if fired else 1000, abs=150)
    assert why(engine, bright, 2) == why(engine, bright)


def test_the_picture_is_cut_out_of_the_pixels_that_were_sent(served: tuple[EngineThread, Client]) -> None:
    engine, client = served
    for number in range(3):
        reply = send(client, number)
    sent = pixels_of(2)
    for y, x, _, value in DISCS:
        answer = why(engine, cell_near(reply, y, x + 2))
        crop = np.frombuffer(answer.image, np.uint8).reshape(answer.shape)
        assert set(np.unique(crop)) == {0, 255}
        windows = np.lib.stride_tricks.sliding_window_view(sent, crop.shape)
        same = ((windows == value) == (crop == 255)).all(axis=(2, 3)) & (
            (windows == DARK) == (crop == 0)
        ).all(axis=(2, 3))
        assert same.sum() == 1  # there it was cut out, and nowhere else
        rows, columns = np.nonzero(crop == 255)
        assert answer.box is not None
        left, top, right, bottom = answer.box
        found = left + 0.5, top + 0.5, right - 0.5, bottom - 0.5
        assert found == pytest.approx(
            (columns.min(), rows.min(), columns.max(), rows.max()), abs=1.5
        )  # the segmenter's edge


def test_the_frame_as_a_whole_and_a_cell_that_is_not_in_it_are_answered_too(
    served: tuple[EngineThread, Client],
) -> None:
    engine, client = served
    send(client, 0)
    unseen = why(engine, 999)
    assert (unseen.seen, unseen.image) == (False, b"")
    assert unseen.rules["armed"][0].verdict == (
        "it decided nothing about cell 999, which was not seen in this frame."
    )
    whole = why(engine, 0)
    assert (whole.track, whole.seen, whole.image) == (0, False, b"")
    assert len(whole.rules["armed"]) == 1


def test_a_frame_that_is_not_there_yet_is_told(served: tuple[EngineThread, Client]) -> None:
    engine, client = served
    send(client, 0)
    with pytest.raises(RefusedError, match="the last frame that was judged is frame 0"):
        why(engine, 1, 7)
    with pytest.raises(RefusedError, match="no stream 'left' here"):
        ask_why(1, address=engine.address, stream="left", timeout_s=10)


def test_a_frame_before_is_explained_as_it_was_when_it_was_the_last_and_as_the_command_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EngineThread(a_stream(), tmp_path) as engine, Client(engine.address) as client:
        assert client.wait_connected(10)
        for number in range(4):
            reply = send(client, number)
            if number == 2:
                track = cell_near(reply, DISCS[1][0], DISCS[1][1] + 2)
                then = why(engine, track)
        later = why(engine, track, 2)
        assert (later.track, later.sequence, later.time_s, later.seen) == (track, 2, 2.0, True)
        assert later.rules == then.rules
        assert later.image == b""  # its pixels are gone
        folder = client.stats().folder
        with pytest.raises(SystemExit) as left:
            main(["rules", "why", folder, "--cell", str(track), "--frame", "2", "--json"])
        assert not left.value.code
        told = json.loads(capsys.readouterr().out)["rules"]
        assert [(each["file"], each["rule"], each["verdict"], each["fired"]) for each in told] == [
            (file, each.rule, each.verdict, each.fired)
            for file, listed in later.rules.items()
            for each in listed
        ]
        assert [clause["value"] for each in told for clause in each["clauses"]] == [
            clause.value for listed in later.rules.values() for each in listed for clause in each.clauses
        ]
        send(client, 4)  # the engine has gone on meanwhile
        with pytest.raises(RefusedError, match="no cell 999 was ever seen in this run"):
            why(engine, 999, 1)


def test_an_engine_that_ends_while_it_works_an_answer_out_leaves_no_process_behind(tmp_path: Path) -> None:
    def children() -> set[int]:
        return {child.pid for child in psutil.Process().children(recursive=True)}

    before = children()
    with EngineThread(a_stream(), tmp_path) as engine, Client(engine.address) as client:
        assert client.wait_connected(10)
        for number in range(2):
            send(client, number)
        with pytest.raises(LinkError, match=r"no answer within 0\.1 s"):
            ask_why(1, 0, address=engine.address, timeout_s=0.1)
        deadline = time.monotonic() + 30
        while not (working := children() - before):
            assert time.monotonic() < deadline
    assert not working & children()


def test_the_picture_of_channels_that_were_joined_shows_the_one_that_is_segmented(tmp_path: Path) -> None:
    stream = a_stream(channels=("gfp", "phase"), channel="gfp", shadow=())
    with EngineThread(stream, tmp_path) as engine, Client(engine.address) as client:
        assert client.wait_connected(10)
        bright = np.full((140, 180), 3000, np.uint16)
        for name, pixels in (("gfp", pixels_of(0)), ("phase", bright)):
            frame = Frame(pixels, axes={"time": 0, "channel": name}, channels=(name,))
            reply = client.wait(client.send(frame), 30)
        assert reply is not None
        track = cell_near(reply, *DISCS[0][:2])
        answer = why(engine, track)
        assert answer == why(
            engine, track, reply.sequence
        )  # by the number of the reply that holds the cell, too
        assert set(answer.image) == {0, 255}
        assert 150 < answer.image.count(b"\xff") < 250  # pi * 8 * 8 px


def test_pixels_whose_memory_was_given_back_are_not_shown(tmp_path: Path) -> None:
    run = Run(a_stream(), tmp_path, "0" * 32, lambda: None)
    frame = Frame(pixels_of(0), axes={"time": 0})
    reply = run.process(header_of(frame, skipped=0, slot=-1, check=checksum(frame.pixels)), frame)
    question = Question("default", cell_near(reply, *DISCS[0][:2]))
    shown = run.explain(question)
    frame.pixels[60:] = 7  # as the next image does that comes to lie there
    after = run.explain(question)
    run.close()
    assert shown is not None
    assert after is not None
    assert shown.image
    assert (after.image, after.shape, after.rules) == (b"", (0, 0), shown.rules)
