"""A second service stands by for the first, and takes its runs over when it is gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.client import Client
from cytoloop.realtime.recording.lock import FolderLock
from cytoloop.realtime.recording.reader import RecordedFrames
from cytoloop.realtime.recording.verify import verify
from cytoloop.realtime.service.journal import read_journal

SERVE = "from cytoloop.realtime.cli import main; main()"
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform == "win32", reason="kills a group of processes"),
]


def image(number: int) -> np.ndarray:
    noise = np.random.default_rng(number).integers(0, 60, (48, 64), np.uint16)
    noise[10:20, 10:20] += 3000
    noise[30:38, 40 + number % 3 : 48 + number % 3] += 3000
    return noise


@contextmanager
def serving(file: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve", str(file), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def test_a_second_service_goes_on_with_the_same_cells_and_nothing_is_lost(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = tmp_path / "experiment.toml"
    file.write_text(
        f'[streams.default]\naddress = "tcp://127.0.0.1:{port}"\nsegmenter = "classical"\n'
        "[streams.default.record]\nframes = true\nbuffer_mb = 16\n"
    )
    with (
        serving(file) as first,
        Client(f"tcp://127.0.0.1:{port}") as client,
        serving(file, "--standby") as second,
    ):
        assert client.wait_connected(60)
        for number in range(60):
            client.send(Frame(image(number), axes={"time": number}, time_s=float(number)))
            time.sleep(0.05)
            if number == 30:
                assert client.drain(60)
                os.killpg(first.pid, signal.SIGKILL)  # the supervisor with all of its processes
        assert client.drain(90)
        assert second.poll() is None
        run = Path(client.stats().folder)
    entries = list(read_journal(run / "journal"))
    assert [entry.header.sequence for entry in entries] == list(range(60))
    assert {tuple(sorted(entry.reply.cells.track.tolist())) for entry in entries[1:]} == {(1, 2)}
    recorded = RecordedFrames(run)
    # What had been handed to the recorder and not written died with it; what is there is whole.
    assert set(range(31, 60)) <= set(recorded.sequences())
    assert not verify(run).damaged


def test_a_service_that_stands_by_and_is_never_needed_ends_on_ctrl_c(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        file = tmp_path / "experiment.toml"
        file.write_text(
            f'[streams.default]\naddress = "tcp://127.0.0.1:{taken.getsockname()[1]}"\nsegmenter = "classical"\n'
        )
        with serving(file, "--standby") as process:
            time.sleep(5.0)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0


def test_only_one_process_writes_into_a_folder_and_the_lock_goes_with_it(tmp_path: Path) -> None:
    hold = "import sys, time; from pathlib import Path; from cytoloop.realtime.recording.lock import FolderLock\n"
    hold += "lock = FolderLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(OSError, match="written by another process"):
            FolderLock(tmp_path)
        holder.kill()
        holder.wait()
    lock = FolderLock(tmp_path)
    lock.close()
