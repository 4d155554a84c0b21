"""A recorded run is replayed: the same comes out, or the first difference and its cause are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.governor.limits import Limits
from cytoloop.acquire.link.client import Client
from cytoloop.acquire.reply import Cells, Reply
from cytoloop.acquire.simulated.source import SimulatedSource
from cytoloop.models.packages.package import SHIPPED
from cytoloop.realtime.cli import main
from cytoloop.realtime.experiment.config import single_stream
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.recording.reader import RecordedFrames
from cytoloop.realtime.recording.settings import Record
from cytoloop.realtime.replay_run import Compared, cause_of
from cytoloop.realtime.service.made_with import MadeWith, differences, read_made_with
from cytoloop.realtime.service.server import Service
from cytoloop.realtime.trial.divergence import first_difference

pytestmark = pytest.mark.timeout(300)

FRAMES = 12
STIMULATE = {"do": "stimulate", "duration_ms": 20}
WHEN = PluginChoice("when", {"condition": "age >= 2 frames and area > 5 um^2", "action": STIMULATE})
FOLLOW = PluginChoice("follow", {"which": "brightest", "deadband_um": 0.1})
DIVIDED = PluginChoice("on_division", {"duration_ms": 20})
CLASSICAL = PluginChoice("classical")


def a_stream(**changes: Any) -> StreamConfig:
    fields = {
        "address": "tcp://127.0.0.1:0",
        "segmenter": CLASSICAL,
        "record": Record(frames=True, buffer_mb=16),
        "rules": (WHEN, FOLLOW),
        "limits": Limits(stimulation_ms_max=50.0),
        "armed": True,
    }
    return StreamConfig(**{**fields, **changes})


def a_run(log: Path, stream: StreamConfig, frames: Iterable[Frame]) -> Path:
    with Service(single_stream(stream, log=log)) as service, Client(service.addresses["default"]) as client:
        for frame in frames:
            client.send(frame)
        assert client.drain(120)
        return Path(client.stats().folder)


def simulated(kind: Any, frames: int = FRAMES, seed: int = 3) -> Iterable[Frame]:
    return SimulatedSource(kind=kind, frames=frames, size_px=192, seed=seed).frames()


def two_channels() -> Iterable[Frame]:
    for frame in simulated("nuclei", 6):
        for number, name in enumerate(("DAPI", "GFP")):
            yield Frame(
                (frame.pixels // (number + 1)).astype(frame.pixels.dtype),
                time_s=frame.time_s + 0.1 * number,
                axes={"time": frame.axes.get("time", frame.sequence)},
                channels=(name,),
                stage_um=frame.stage_um,
                pixel_size_um=frame.pixel_size_um,
            )


def replayed(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, dict[str, Any], str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(["replay", *map(str, args), "--json"])
    told = capsys.readouterr()
    return int(left.value.code or 0), json.loads(told.out) if told.out else {}, " ".join(told.err.split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of nuclei with two rules."""
    return a_run(tmp_path_factory.mktemp("run"), a_stream(), simulated("nuclei"))


def copied(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / run.name))


def change_a_pixel(run: Path, number: int) -> None:
    recorded = RecordedFrames(run)
    ((part, plane),) = [(p, e) for p in recorded.parts for e in p.planes if e.sequence == number]
    (shard,) = (each for each in (part.folder / "0" / "0" / "c").rglob("*") if each.is_file())
    data = bytearray(shard.read_bytes())
    pixels = part.read(plane)
    at = plane.offset + int(np.argmax(pixels)) * pixels.dtype.itemsize
    data[at] ^= 0xFF
    shard.write_bytes(data)


def test_a_run_comes_out_the_same_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told, _ = replayed(capsys, run, "--out", tmp_path / "out")
    assert told["first_divergence"] is None
    assert (code, told["identical"], told["compared"], told["processed"]) == (0, True, FRAMES, FRAMES)
    assert told["decisions"] > 0, told
    assert told["tracks"] > 2
    assert (tmp_path / "out" / "report.html").is_file()
    made = read_made_with(run)
    assert made is not None
    assert made.packages["numpy"] == np.__version__


@pytest.mark.parametrize("sample", ["dividing", "rods", "runaway", "joined"])
def test_runs_with_divisions_and_joined_channels_come_out_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sample: str
) -> None:
    if sample == "joined":
        stream = a_stream(channels=("DAPI", "GFP"), channel="DAPI")
        made = a_run(tmp_path / "log", stream, two_channels())
    else:
        made = a_run(tmp_path / "log", a_stream(rules=(WHEN, FOLLOW, DIVIDED)), simulated(sample))
    code, told, err = replayed(capsys, made, "--out", tmp_path / "out")
    assert told["first_divergence"] is None, err
    assert (code, told["identical"]) == (0, True)
    assert told["segmented"] >= 6


def test_one_pixel_that_changed_is_refused_or_named_as_the_cause(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harmed = copied(run, tmp_path)
    change_a_pixel(harmed, 7)
    code, _, err = replayed(capsys, harmed, "--out", tmp_path / "refused")
    assert code == 1
    assert "frame 7" in err
    assert "--damaged" in err
    code, told, _ = replayed(capsys, harmed, "--out", tmp_path / "out", "--damaged")
    assert (code, told["identical"], told["damaged"]) == (1, False, [7])
    found = told["first_divergence"]
    assert (found["frame"], found["what"], found["cause"]) == (7, "detections", "data")


def test_another_rule_is_a_diff_that_names_the_key(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text(
        '[streams.default]\nsegmenter = { use = "classical" }\n'
        '[[streams.default.rules]]\nuse = "when"\ncondition = "age >= 4 frames and area > 5 um^2"\n'
        'action = { do = "stimulate", duration_ms = 20 }\n'
        '[[streams.default.rules]]\nuse = "follow"\nwhich = "brightest"\ndeadband_um = 0.1\n'
        "[streams.default.limits]\nstimulation_ms_max = 50\n"
    )
    code, told, _ = replayed(capsys, run, "--out", tmp_path / "out", "--config", file)
    found = told["first_divergence"]
    assert (found["what"], found["cause"]) == ("decisions", "configuration")
    assert "rules[0].options.condition was age >= 2 frames" in found["why"]
    assert code == 0
    assert not told["identical"]
    assert told["diff"]["cells"]
    assert list(told["diff"]["configuration"]) == ["rules"]


def a_model(folder: Path) -> Path:
    """Copy a shipped net, without the checksums in its description, so that one byte may change."""
    model = Path(shutil.copytree(SHIPPED / "q16", folder / "q16"))
    description = model / "rdf.yaml"
    lines = description.read_text().splitlines(keepends=True)
    description.write_text("".join(line for line in lines if "sha256" not in line))
    return model


@pytest.mark.parametrize("checked", [False, True])
def test_one_byte_of_the_model_that_changed_is_named_as_the_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checked: bool
) -> None:
    model = Path(shutil.copytree(SHIPPED / "q16", tmp_path / "q16")) if checked else a_model(tmp_path)
    stream = a_stream(segmenter=PluginChoice("net", {"model": str(model), "threads": 1}))
    made = a_run(tmp_path / "log", stream, simulated("nuclei", 4))
    assert replayed(capsys, made, "--out", tmp_path / "same")[1]["identical"]
    weights = model / "weights.onnx"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2 // 4 * 4 + 1] ^= 0x55
    weights.write_bytes(data)
    code, told, _ = replayed(capsys, made, "--out", tmp_path / "out")
    found = told["first_divergence"]
    assert (code, told["identical"]) == (1, False)
    assert (found["frame"], found["what"], found["cause"]) == (0, "detections", "model")
    assert "q16/weights.onnx" in found["why"]


def test_another_version_is_named_as_the_cause_unless_only_the_last_bits_differ() -> None:
    differs = differences(MadeWith(packages={"numpy": "1.0"}), MadeWith(packages={"numpy": "2.0"}))
    assert differs == {"version": ["numpy was 1.0, is 2.0"]}
    reply = Reply(4, Cells(np.array([9]), np.zeros(1, np.float32), np.zeros(1, np.float32)))
    one = {"area": np.array([7.0]).tobytes(), "mean": np.array([[5.0]]).tobytes()}
    for mean, cause in ((5.0 + 1e-9, "rounding"), (6.0, "version")):
        two = one | {"mean": np.array([[mean]]).tobytes()}
        found = first_difference(one, reply, two, reply)
        assert found is not None
        assert (found.frame, found.what, found.cell) == (4, "detections", 9)
        assert cause_of(found, Compared(), differs)[0] == cause
    assert first_difference(one, reply, dict(one), reply) is None


def test_frames_that_were_not_recorded_are_taken_from_the_journal(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copied(run, tmp_path)
    lines = (other / "frames.ome.zarr" / "frames.jsonl").read_text().splitlines(keepends=True)
    (other / "frames.ome.zarr" / "frames.jsonl").write_text("".join(lines[:5] + lines[6:]))
    code, _, err = replayed(capsys, other, "--out", tmp_path / "refused")
    assert code == 1
    assert "it is not in the recording" in err
    code, told, _ = replayed(capsys, other, "--out", tmp_path / "out", "--damaged")
    assert (code, told["identical"], told["from_journal"]) == (0, True, 1)
