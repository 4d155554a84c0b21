"""Which map from px to um a frame gets, and that the stage rests where a calibration may not be used."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.calibration.stored import Calibration, write_calibration
from cytoloop.acquire.commands import Command, MoveStage, Revisit
from cytoloop.acquire.coordinates import Affine
from cytoloop.acquire.errors import ConfigurationError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.governor.limits import Limits
from cytoloop.acquire.reply import Decision
from cytoloop.models.labels import Labels
from cytoloop.realtime.experiment.config import load_experiment
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.pipeline import Pipeline
from cytoloop.realtime.pixel_maps import PixelMaps, ageless
from cytoloop.realtime.rules.rule import Moment, Verdict

NOW = datetime.now(UTC)
MEASURED = Affine(0.0, 0.5, -0.5, 0.0)
KEPT = Calibration(
    "stage",
    ((0.0, 0.5, 0.0), (-0.5, 0.0, 0.0)),
    0.01,
    NOW,
    objective="20x",
    shape=(64, 64),
    pixel_size_um=0.45,
)
GIVEN = (0.0, 0.25, 0.25, 0.0)


def frame(sequence: int = 0, **more: Any) -> Frame:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[20:30, 20:30] = 200
    return Frame(pixels, sequence, float(sequence), stage_um=(100.0, 50.0), **more)


def kept_in(folder: Path, **changes: Any) -> str:
    path = folder / "calibration.toml"
    write_calibration(path, replace(KEPT, **changes))
    return str(path)


def test_what_was_measured_goes_before_the_configuration_and_that_before_the_frame(tmp_path: Path) -> None:
    shown = frame(pixel_size_um=0.45, affine=GIVEN)
    configured = StreamConfig(affine=((0, 1), (1, 0)))
    measured = StreamConfig(affine=((0, 1), (1, 0)), calibration=kept_in(tmp_path))
    assert PixelMaps(measured).of(shown) == (MEASURED, "")
    assert PixelMaps(measured).configured == MEASURED
    assert PixelMaps(configured).of(shown) == (Affine(0, 1, 1, 0), "")
    assert PixelMaps(StreamConfig(pixel_size_um=2.0)).of(shown) == (Affine.from_pixel_size(2.0), "")
    assert PixelMaps(StreamConfig()).of(shown) == (Affine(*GIVEN), "")
    assert PixelMaps(StreamConfig()).of(frame(pixel_size_um=0.45)) == (Affine.from_pixel_size(0.45), "")
    assert PixelMaps(StreamConfig()).of(frame()) == (None, "")
    assert "cannot be used" in PixelMaps(StreamConfig()).of(frame(affine=(1.0, 1.0, 1.0, 1.0)))[1]


def test_a_calibration_that_may_not_be_used_leaves_no_map_and_nothing_takes_its_place(tmp_path: Path) -> None:
    file = kept_in(tmp_path)
    stream = StreamConfig(affine=((0, 1), (1, 0)), calibration=file)
    later = NOW + timedelta(days=91)
    stale = PixelMaps(stream, later)
    assert stale.configured is None
    assert stale.of(frame())[0] is None
    assert "stale: measured 91 days ago" in stale.of(frame())[1]
    assert PixelMaps(ageless(stream), later).of(frame()) == (MEASURED, "")
    other = PixelMaps(StreamConfig(calibration=file, objective="40x"))
    assert "of objective '20x', in use is '40x'" in other.of(frame())[1]
    assert PixelMaps(StreamConfig(calibration=file, objective="20x")).of(frame()) == (MEASURED, "")
    missing = PixelMaps(StreamConfig(calibration=str(tmp_path / "none.toml")))
    assert "there is no such file" in missing.of(frame())[1]
    binned = PixelMaps(stream).of(frame(pixel_size_um=0.9))
    assert binned[0] is None
    assert "another objective or binning" in binned[1]


def test_the_file_is_checked_with_the_experiment_and_its_path_is_relative_to_it(tmp_path: Path) -> None:
    experiment = tmp_path / "experiment.toml"
    text = '[streams.default]\nsegmenter = "classical"\ncalibration = "calibration.toml"\n'
    experiment.write_text(text)
    with pytest.raises(
        ConfigurationError, match="experiment.toml:3: streams.default.calibration: .*no such file"
    ):
        load_experiment(experiment)
    kept_in(tmp_path, kind="light")
    with pytest.raises(ConfigurationError, match="moves no stage"):
        load_experiment(experiment)
    (tmp_path / "calibration.toml").write_text("affine = 3")
    with pytest.raises(ConfigurationError, match="calibration.toml: kind: is missing"):
        load_experiment(experiment)
    file = kept_in(tmp_path, measured=NOW - timedelta(days=400))  # stale is told while it runs
    assert load_experiment(experiment).streams["default"].calibration == file
    experiment.write_text(text + "calibration_days = 0\n")
    with pytest.raises(ConfigurationError, match="calibration_days"):
        load_experiment(experiment)


class OneCell:
    channel = ""

    def segment(self, frame: Frame) -> Labels:
        return Labels((frame.channel(0) > 100).astype(np.int32), 1)


class Mover:
    name = "mover"
    commands: tuple[Command, ...] = (MoveStage(101.0, 50.0), Revisit(101.0, 50.0))

    def examples(self) -> tuple[Command, ...]:
        return self.commands

    def decide(self, moment: Moment) -> Verdict:
        now = moment.frame.time_s
        return Verdict(
            tuple(
                Decision("mover", command, moment.frame.sequence, now, now + 1) for command in self.commands
            )
        )


def choice(cls: type) -> PluginChoice:
    return PluginChoice(f"{cls.__module__}:{cls.__name__}")


def test_every_move_of_the_stage_is_refused_with_the_reason_and_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    from types import ModuleType

    module = ModuleType("pixel_map_parts")
    module.OneCell, module.Mover = OneCell, Mover  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pixel_map_parts", module)
    stream = StreamConfig(
        calibration=kept_in(tmp_path, measured=NOW - timedelta(days=100)),
        segmenter=PluginChoice("pixel_map_parts:OneCell"),
        rules=(PluginChoice("pixel_map_parts:Mover"),),
        limits=Limits(max_step_um=50, x_um=(0, 500), y_um=(0, 500)),
    )
    pipeline = Pipeline(stream)
    replies = [pipeline.step(frame(number)).reply for number in range(2)]
    for reply in replies:
        assert len(reply.decisions) == 2
        assert all("the calibration is stale" in decision.refused for decision in reply.decisions)
        assert reply.commands == ()
    said = [
        sum(message.startswith("the calibration is stale") for message in reply.messages) for reply in replies
    ]
    assert said == [1, 0]
    good = Pipeline(ageless(stream)).step(frame()).reply
    assert MoveStage(101.0, 50.0) in good.commands
