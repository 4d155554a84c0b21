"""The trust gate disarms when what is seen is no longer what the rules rest on, once, and never otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.commands import Command, Disarm, Stop
from cytoloop.acquire.errors import ConfigurationError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.governor.limits import Limits
from cytoloop.acquire.link.pixels import checksum, header_of
from cytoloop.acquire.reply import Decision, Reply
from cytoloop.acquire.simulated.microscope import SimulatedMicroscope
from cytoloop.acquire.simulated.source import SimulatedSource
from cytoloop.acquire.sources.source import open_source
from cytoloop.models.detections import Detections
from cytoloop.models.labels import Labels
from cytoloop.realtime.experiment.choice import PluginChoice
from cytoloop.realtime.experiment.config import load_experiment
from cytoloop.realtime.experiment.stream import StreamConfig
from cytoloop.realtime.pipeline import Pipeline
from cytoloop.realtime.rules.rule import Moment, Verdict
from cytoloop.realtime.service.journal import Entry, Journal, read_journal
from cytoloop.realtime.trust import RULE, Trust, TrustGate
from cytoloop.trackers.tracks import Tracks

DATA = Path(__file__).parents[3] / "shared" / "data"
Act = Callable[[SimulatedMicroscope, int], None]


class Halved:
    """Segments well, but for frames whose number is in ``wrong``, where it finds every second cell only."""

    def __init__(self, wrong: tuple[int, ...] = (), fails: bool = False) -> None:
        self.channel = 0
        self._wrong, self._fails = wrong, fails

    def segment(self, frame: Frame) -> Labels:
        if self._fails:
            raise RuntimeError("no memory")
        image = np.kron(np.arange(1, 17).reshape(4, 4), np.ones((10, 10), np.int32)).astype(np.int32)
        image[::10] = image[:, ::10] = 0
        if frame.sequence in self._wrong:
            image = np.where(image % 2 == 0, image // 2, 0).astype(np.int32)
        return Labels(image, int(image.max()))


class Flood:
    """Wants to stop in every frame, and says so many times."""

    name = "flood"

    def examples(self) -> tuple[Command, ...]:
        return ()

    def decide(self, moment: Moment) -> Verdict:
        at = moment.frame
        return Verdict((Decision("flood", Stop("now"), at.sequence, at.time_s, at.time_s + 1),) * 3)


def simulated(act: Act | None = None, *, kind: Any = "nuclei", frames: int = 40) -> Iterator[Frame]:
    source = SimulatedSource(kind=kind, frames=frames, size_px=256, seed=3)
    for frame in source.frames():
        yield frame
        if act is not None:
            act(source.microscope, frame.sequence)


def replies(frames: Iterable[Frame], **settings: Any) -> list[Reply]:
    pipeline = Pipeline(StreamConfig(**({"segmenter": PluginChoice("classical")} | settings)))
    return [pipeline.step(frame).reply for frame in frames]


def disarmed(found: Iterable[Reply]) -> list[tuple[int, str]]:
    """Return when and why it was disarmed."""
    return [
        (each.sequence, each.command.reason)
        for reply in found
        for each in reply.decisions
        if isinstance(each.command, Disarm)
    ]


def focus_lost(at: int, back: int | None = None) -> Act:
    def act(microscope: SimulatedMicroscope, sequence: int) -> None:
        if sequence == at:
            microscope.z_um = 5.0
        if sequence == back:
            microscope.z_um = 0.0

    return act


def moved(microscope: SimulatedMicroscope, sequence: int) -> None:
    x, y = microscope.stage_um
    if sequence % 5 == 4:
        microscope.stage_um = (x + 15.0, y - 8.0)


@pytest.mark.parametrize("kind", ["nuclei", "dividing", "rods"])
def test_lost_focus_disarms_once_with_its_figures(kind: str):
    found = replies(simulated(focus_lost(15), kind=kind))
    ((sequence, reason),) = disarmed(found)
    assert sequence == 20
    assert reason.startswith("focus is lost: the figure of focus is 0.0")
    (decision,) = found[20].decisions
    assert (decision.rule, decision.refused, decision.reasons[1]) == (RULE, "", "for 5 frames in a row")
    assert [message for message in found[20].messages if message.startswith("trust: disarmed, focus is lost")]
    assert found[5].focus is not None and found[20].focus is not None
    assert found[20].focus < 0.6 * found[5].focus


def test_focus_that_comes_back_is_said_and_arms_nothing_but_may_be_lost_anew():
    def act(microscope: SimulatedMicroscope, sequence: int) -> None:
        microscope.z_um = 5.0 if 10 <= sequence < 20 or sequence >= 30 else 0.0

    found = replies(simulated(act, frames=45))
    assert [sequence for sequence, _ in disarmed(found)] == [15, 35]
    said = [reply.sequence for reply in found if any("only a person arms" in each for each in reply.messages)]
    assert said == [25]


@pytest.mark.parametrize("kind", ["nuclei", "dividing", "rods"])
def test_a_sample_that_is_followed_or_moved_as_the_stage_says_never_disarms(kind: str):
    assert disarmed(replies(simulated(kind=kind))) == []
    assert disarmed(replies(simulated(moved, kind=kind))) == []


@pytest.mark.parametrize("gain", [0.25, 3.0])
def test_a_bleached_or_brighter_sample_is_still_in_focus(gain: float):
    def bleached(frame: Frame) -> Frame:
        light = np.maximum(frame.pixels.astype(float) - 100, 0) * gain ** (frame.sequence / 40)
        return replace(frame, pixels=np.clip(light + 100, 0, 65_535).astype(np.uint16))

    assert disarmed(replies(map(bleached, simulated()))) == []


def test_a_camera_that_is_saturated_throughout_has_lost_its_focus():
    def white(frame: Frame) -> Frame:
        return replace(frame, pixels=np.full_like(frame.pixels, 4095)) if frame.sequence >= 15 else frame

    ((sequence, reason),) = disarmed(replies(map(white, simulated(frames=30))))
    assert sequence == 19
    assert "the figure of focus is 0," in reason


def test_cells_that_come_and_go_are_no_loss_of_focus():
    def dark(frame: Frame) -> Frame:
        here = frame.sequence % 30 < 12  # nothing is in view for longer than focus_frames
        return frame if here else replace(frame, pixels=np.full_like(frame.pixels, 100))

    assert disarmed(replies(map(dark, simulated(frames=150)))[40:]) == []


def test_lost_frames_do_not_disarm():
    kept = [
        frame for frame in simulated(frames=60) if frame.sequence % 7 != 3 and not 25 <= frame.sequence < 30
    ]
    assert disarmed(replies(kept)) == []


def test_a_stage_that_moved_without_saying_so_disarms():
    def act(microscope: SimulatedMicroscope, sequence: int) -> None:
        if sequence == 19:
            moved(microscope, 4)

    unsaid = (replace(frame, stage_um=(0.0, 0.0)) for frame in simulated(act))
    ((sequence, reason),) = disarmed(replies(unsaid))
    assert sequence == 20
    assert "um beyond the 0.0 um that the stage says, 10 um is the most allowed" in reason


def test_a_stage_that_says_it_moved_and_did_not_disarms():
    stuck = (
        replace(frame, stage_um=(15.0, 0.0) if frame.sequence >= 20 else (0.0, 0.0)) for frame in simulated()
    )
    assert [sequence for sequence, _ in disarmed(replies(stuck))] == [20]


@pytest.mark.parametrize("trust", [Trust(focus=False), Trust(focus=0)])
def test_a_check_that_is_switched_off_does_not_disarm(trust: Trust):
    assert disarmed(replies(simulated(focus_lost(15)), trust=trust)) == []


def a_gate(**settings: Any) -> Callable[..., Verdict]:
    """Return what looks at frames of 30 cells with a novelty and a confidence of links."""
    gate, made = TrustGate(Trust(**settings)), iter(range(1000))

    def look(*, novelty: float | None = None, confidence: float = 1.0, cells: int = 30) -> Verdict:
        sequence = next(made)
        found = Detections(
            sequence=sequence,
            time_s=float(sequence),
            shape=(100, 100),
            yx=np.zeros((cells, 2)),
            area=np.ones(cells),
            bbox=np.zeros((cells, 4), np.int32),
            mean=np.ones((cells, 1)),
            maximum=np.ones((cells, 1)),
            moments=np.ones((cells, 3)),
            novelty=novelty,
        )
        tracks = Tracks(
            found,
            track=np.arange(1, cells + 1),
            parent=np.zeros(cells, np.int64),
            age=np.full(cells, sequence, np.int32),
            velocity=np.zeros((cells, 2)),
            covariance=np.ones((cells, 3)),
            confidence=np.full(cells, confidence),
        )
        return gate.look(Frame(np.zeros((100, 100), np.uint8), sequence, float(sequence)), tracks)

    return look


def test_images_that_the_net_does_not_know_disarm_after_some_frames_in_a_row():
    look = a_gate(novelty_frames=3)
    novelties = [0.4, 1.2, 1.2, 0.9, 1.2, 1.2, 1.2, 1.2]
    assert [len(look(novelty=each).decisions) for each in novelties] == [0, 0, 0, 0, 0, 0, 1, 0]


def test_with_few_cells_only_a_rise_of_the_novelty_disarms():
    look = a_gate()
    assert [look(novelty=4.5 - sequence / 20, cells=5).decisions for sequence in range(40)] == [()] * 40
    assert sum(len(look(novelty=9.0, cells=5).decisions) for _ in range(10)) == 1


def test_links_that_are_no_longer_sure_disarm():
    look = a_gate()
    trips = [look(confidence=0.99 if sequence < 20 else 0.3) for sequence in range(40)]
    assert [index for index, verdict in enumerate(trips) if verdict.decisions] == [24]
    (decision,) = trips[24].decisions
    assert "the median confidence of links is 0.3" in decision.reasons[0]


REFERENCE = PluginChoice(f"{__name__}:Halved")


def scenes(frames: int) -> Iterator[Frame]:
    rng = np.random.default_rng(2)
    for sequence in range(frames):
        yield Frame(rng.integers(0, 99, (40, 40)).astype(np.uint8), sequence, float(sequence))


def test_a_segmenter_that_disagrees_with_its_reference_disarms_at_the_sampled_frame():
    wrong = PluginChoice(f"{__name__}:Halved", {"wrong": tuple(range(15, 40))})
    trust = Trust(reference=REFERENCE, reference_every=10, reference_f1=0.7)
    found = replies(scenes(40), segmenter=wrong, trust=trust)
    assert disarmed(found) == [
        (20, "the segmenter disagrees with its reference: F1 at IoU 0.5 is 0.67, 0.7 is the lowest allowed")
    ]
    assert [reply.sequence for reply in found if "reference" in reply.timings_ms] == [0, 10, 20, 30]


def test_a_reference_that_fails_is_said_once_and_disarms_nothing():
    failing = PluginChoice(f"{__name__}:Halved", {"fails": True})
    found = replies(scenes(20), segmenter=REFERENCE, trust=Trust(reference=failing, reference_every=5))
    assert disarmed(found) == []
    said = [message for reply in found for message in reply.messages if "reference" in message]
    assert said == ["trust: the reference segmenter failed: RuntimeError: no memory"]


def test_limits_that_are_used_up_let_it_disarm():
    limits = Limits(commands_per_s=0.001)
    rules = (PluginChoice(f"{__name__}:Flood"),)
    found = replies(simulated(focus_lost(15)), limits=limits, rules=rules)
    assert [sequence for sequence, _ in disarmed(found)] == [20]
    first = found[20].decisions[0]
    assert isinstance(first.command, Disarm) and not first.refused


def test_an_engine_that_takes_over_disarms_at_the_same_frame(tmp_path: Path):
    trust = Trust(reference=PluginChoice("classical", {"polarity": "dark"}), reference_every=8)
    stream = StreamConfig(segmenter=PluginChoice("classical"), trust=trust)
    live, journal = Pipeline(stream), Journal(tmp_path / "journal")
    for frame in simulated(focus_lost(15, 25)):
        step = live.step(frame)
        header = header_of(frame, skipped=0, slot=-1, check=checksum(frame.pixels))
        journal.append(Entry.of(header, step.detections, step.reply, step.frame, step.memory))
    journal.close()
    entries = list(read_journal(tmp_path / "journal"))
    successor = Pipeline(stream)
    again = [successor.restore(each.frame, each.restore_detections(), each.memory) for each in entries]
    before = [each.reply for each in entries]
    assert disarmed(again) == disarmed(before)
    assert [sequence for sequence, _ in disarmed(before)] == [0, 20]
    for one, other in zip(again, before, strict=True):
        assert (one.focus, one.messages, one.decisions) == (other.focus, other.messages, other.decisions)


@pytest.mark.parametrize("movie", ["Fluo-N2DH-SIM+/01", "Bact-trpL-early/01"])
def test_real_movies_do_not_disarm(movie: str):
    if not (DATA / movie).is_dir():
        pytest.skip("the recordings are not here")
    source = open_source(DATA / movie)
    assert disarmed(replies(source.frames(), segmenter=PluginChoice("net"))) == []


@pytest.mark.parametrize(
    ("table", "key", "hint"),
    [
        ("focuss = 0.5", "focuss", "focus"),
        ("focus = 1.5", "focus", ""),
        ("focus = true", "focus", ""),
        ("focus_frames = 0", "focus_frames", ""),
        ("stage_um = 'far'", "stage_um", ""),
        ('reference = "clasical"', "reference.use", "classical"),
        ("reference = { use = 'classical', thresholds = 3 }", "reference.thresholds", "threshold"),
    ],
)
def test_a_mistake_in_the_table_is_told_with_its_line(tmp_path: Path, table: str, key: str, hint: str):
    path = tmp_path / "experiment.toml"
    path.write_text(f"[streams.default]\n[streams.default.trust]\n{table}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_experiment(path)
    (problem,) = caught.value.problems
    assert (problem.line, problem.key, problem.did_you_mean) == (3, f"streams.default.trust.{key}", hint)


def test_every_check_can_be_switched_off_in_the_file(tmp_path: Path):
    path = tmp_path / "experiment.toml"
    off = "\n".join(
        f"{key} = false" for key in ("focus", "novelty", "confidence", "stage_um", "reference_f1")
    )
    path.write_text(f"[streams.default]\n[streams.default.trust]\n{off}\n", encoding="utf-8")
    trust = load_experiment(path).streams["default"].trust
    assert not any((trust.focus, trust.novelty, trust.confidence, trust.stage_um, trust.reference_f1))
