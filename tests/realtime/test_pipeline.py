from __future__ import annotations

import gc
import math
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from cytoloop.acquire.commands import Command, MoveStage, Stimulate
from cytoloop.acquire.errors import PluginError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.governor.limits import Limits
from cytoloop.acquire.reply import Division, Reply, encode_array
from cytoloop.models.detections import Detections
from cytoloop.models.labels import Labels
from cytoloop.realtime import fields_of_view
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.pipeline import Pipeline
from cytoloop.realtime.rules.rule import Moment, Verdict
from cytoloop.trackers.tracks import Tracks

SHAPE = (40, 60)


class Spots:
    """Segments squares: the value of a pixel is the number of its cell; 255 makes it fail, 254 lie."""

    def __init__(self, channel: int = 0) -> None:
        self.channel = channel

    def segment(self, frame: Frame) -> Labels:
        image = frame.channel(self.channel).astype(np.int32)
        if image.max() == 255:
            raise RuntimeError("out of memory")
        if image.max() == 254:
            return Labels(image[:5, :5], 3)
        return Labels(image, int(image.max()))


class InOrder:
    """Gives the cells of every frame the identities 1, 2, ... and has cell 1 divide when cell 3 appears."""

    def __init__(self) -> None:
        self.frames = 0
        self.before = 0

    def update(self, detections: Detections) -> Tracks:
        n = len(detections)
        if n == 5:
            raise ArithmeticError("five")
        ids = np.arange(1, n + 1)
        divisions = (Division(1, (2, 3)),) if n == 3 and self.before == 1 else ()
        self.frames += 1
        self.before = n
        return Tracks(
            detections=detections,
            track=ids,
            parent=np.where(ids > 1, 1, 0),
            age=np.full(n, self.frames - 1, np.int32),
            velocity=np.zeros((n, 2)),
            covariance=np.tile([1.0, 1.0, 0.0], (n, 1)),
            confidence=np.ones(n),
            divisions=divisions,
        )


class Short:
    """Returns no rows."""

    def update(self, detections: Detections) -> Tracks:
        return InOrder().update(replace(detections, area=detections.area[:0]))


class Faulty:
    """Fails in every frame."""

    name = "faulty"

    def examples(self) -> tuple[Command, ...]:
        return ()

    def decide(self, moment: Moment) -> Verdict:
        raise ZeroDivisionError("no cells")


class Wordless(Faulty):
    """Forgets to answer."""

    name = "wordless"

    def decide(self, moment: Moment) -> Verdict:
        return None  # type: ignore[return-value]


def plugin(cls: type[Any], **options: Any) -> PluginChoice:
    return PluginChoice(f"{__name__}:{cls.__name__}", options)


def stream(*rules: PluginChoice, **changes: Any) -> StreamConfig:
    settings: dict[str, Any] = {"segmenter": plugin(Spots), "tracker": plugin(InOrder), "pixel_size_um": 0.5}
    return StreamConfig(rules=rules, **(settings | changes))


def image(*centres: tuple[int, int], value: int | None = None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return squares of 5 x 5 px at (x, y), numbered from 1."""
    pixels = np.zeros(SHAPE, np.uint8)
    for number, (x, y) in enumerate(centres, 1):
        pixels[y - 2 : y + 3, x - 2 : x + 3] = number
    if value is not None:
        pixels[0, 0] = value
    return pixels


def frame(sequence: int, *centres: tuple[int, int], **changes: Any) -> Frame:
    given: dict[str, Any] = {"pixels": image(*centres), "time_s": sequence * 1.0, "stage_um": (10.0, 20.0)}
    return Frame(sequence=sequence, **(given | changes))


def timeless(reply: Reply) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(reply, timings_ms={}), enc_hook=encode_array)


RULES = (
    PluginChoice("follow", {"deadband_um": 0.0}),
    PluginChoice("on_division"),
    PluginChoice("stop_at_count", {"count": 3, "dwell_frames": 1}),
    PluginChoice(f"{__name__}:Faulty"),
)


def eventful() -> Iterator[Frame]:
    """Cells that move and divide in two fields of view, other channels, failures, times that stand still."""
    for index in range(0, 60, 6):
        yield frame(index, (20 + index // 6, 10), axes={"time": index, "position": "A"})
        yield frame(index + 1, (30, 20), axes={"position": "B", "z": 1}, stage_um=None)
        yield frame(index + 2, (20, 10), channels=("other",))
        yield frame(index + 3, (20, 10), (40, 10), (40, 30), axes={"position": "A"}, time_s=index + 2.5)
        yield frame(index + 4, pixels=image(value=255), axes={"position": "B", "z": 1})
        yield frame(index + 5, (9, 9), (19, 9), (29, 9), (39, 9), (49, 9), axes={"position": "A"}, time_s=3.0)


def test_a_frame_comes_back_as_cells_decisions_and_timings() -> None:
    step = Pipeline(stream(PluginChoice("follow"))).step(frame(4, (20, 10), (50, 30)))
    reply, labels, detections, seen, _ = step
    assert seen is not None
    assert seen.sequence == 4
    assert labels is not None
    assert labels.count == 2
    assert detections is not None
    assert len(detections) == 2
    assert reply.sequence == 4
    assert reply.cells.track.tolist() == [1, 2]
    assert (reply.cells.x_px.tolist(), reply.cells.y_px.tolist()) == ([20.0, 50.0], [10.0, 30.0])
    columns = {name: values.tolist() for name, values in reply.cells.columns.items()}
    axes = pytest.approx([4 * math.sqrt(2)] * 2)  # the variance over five pixels in a row is 2
    assert columns == {
        "area_px": [25.0, 25.0],
        "mean": [1.0, 2.0],
        "max": [1.0, 2.0],
        "major_px": axes,
        "minor_px": axes,
        "parent": [0.0, 1.0],
        "age": [0.0, 0.0],
        "confidence": [1.0, 1.0],
        "generation": [0.0, 1.0],
        "sister": [0.0, 0.0],
        "since_division_s": pytest.approx([math.nan, 0.0], nan_ok=True),
    }
    assert all(values.dtype == np.float32 for values in reply.cells.columns.values())
    assert set(reply.timings_ms) == {"segment", "measure", "track", "decide"}
    assert all(value >= 0 for value in reply.timings_ms.values())
    (decision,) = reply.decisions
    assert decision.command == MoveStage(10.0 + 0.5 * (20 - 29.5), 20.0 + 0.5 * (10 - 19.5))
    assert reply.messages == ("follow: following cell 1",)


def test_the_same_frames_give_the_same_replies_byte_for_byte() -> None:
    one, other = Pipeline(stream(*RULES)), Pipeline(stream(*RULES))
    replies = [timeless(one.step(each).reply) for each in eventful()]
    assert replies == [timeless(other.step(each).reply) for each in eventful()]
    assert len(set(replies)) > 20


@pytest.mark.parametrize("killed_at", [0, 1, 7, 30, 59])
def test_restoring_from_detections_gives_the_replies_and_the_state_of_the_run(killed_at: int) -> None:
    live, restored = Pipeline(stream(*RULES)), Pipeline(stream(*RULES))
    steps = [live.step(each) for each in eventful()]
    for step, each in zip(steps, eventful(), strict=True):
        if each.sequence < killed_at:
            blank = replace(each, pixels=np.zeros_like(each.pixels))
            reply = restored.restore(blank, step.detections, step.memory)
        else:
            reply = restored.step(each).reply
        known = [message.split(": RuntimeError")[0] for message in step.reply.messages]
        again = [message.split(": RuntimeError")[0] for message in reply.messages]
        assert again == known
        assert timeless(msgspec.structs.replace(reply, messages=())) == timeless(
            msgspec.structs.replace(step.reply, messages=())
        )
    assert restored.failed == live.failed


def test_every_reply_can_be_sent() -> None:
    pipeline = Pipeline(stream(*RULES))
    for each in eventful():
        reply = pipeline.step(each).reply
        assert reply.sequence == each.sequence
        assert len(msgspec.msgpack.encode(reply, enc_hook=encode_array)) > 10


def test_every_field_of_view_has_tracks_and_rules_of_its_own() -> None:
    pipeline = Pipeline(stream(PluginChoice("stop_at_count", {"count": 1, "dwell_frames": 2})))
    fields = [{"position": "A"}, {"position": "B"}, {"position": "A", "z": 1}, {"position": 1}, {}]
    for sequence, axes in enumerate(fields):
        reply = pipeline.step(frame(sequence, (20, 10), axes=axes)).reply
        assert reply.cells.columns["age"].tolist() == [0.0]
        assert not reply.decisions
    for sequence, axes in enumerate(fields):
        reply = pipeline.step(frame(5 + sequence, (20, 10), axes={"time": 1, **axes})).reply
        assert reply.cells.columns["age"].tolist() == [1.0]
        assert len(reply.decisions) == 1


def test_the_first_channel_is_segmented_when_none_is_named_and_others_are_acknowledged() -> None:
    pipeline = Pipeline(stream())
    assert len(pipeline.step(frame(0, (20, 10), channels=("DAPI",))).reply.cells) == 1
    step = pipeline.step(frame(1, (20, 10), channels=("GFP",)))
    assert step.labels is None
    assert step.detections is None
    assert (step.reply.sequence, len(step.reply.cells)) == (1, 0)
    assert step.reply.messages == ("channel 'GFP' is left alone; 'DAPI', which came first, is segmented",)
    assert pipeline.step(frame(2, (20, 10), channels=("GFP",))).reply.messages == ()
    assert pipeline.step(frame(3, (20, 10), channels=("DAPI",))).reply.cells.columns["age"].tolist() == [1.0]
    assert pipeline.failed == 0


def test_the_named_channel_is_segmented_wherever_it_stands_in_the_frame() -> None:
    pipeline = Pipeline(stream(channel="GFP", segmenter=plugin(Spots, channel=1)))
    other = pipeline.step(frame(0, (20, 10), channels=("DAPI",))).reply
    assert other.messages == ("channel 'DAPI' is left alone; 'GFP' is segmented",)
    both = np.stack([image((20, 10), (40, 10), (40, 30)), image((30, 20))])
    for channels, cells in ((("DAPI", "GFP"), 1), (("GFP", "DAPI"), 3)):
        reply = pipeline.step(frame(1, pixels=both, channels=channels)).reply
        assert len(reply.cells) == cells
        assert reply.cells.columns["mean"][0] == 1.0
    assert len(pipeline.step(frame(3, (30, 20), channels=("GFP",))).reply.cells) == 1


def test_of_several_channels_at_once_the_segmenter_takes_its_own() -> None:
    both = np.stack([image((20, 10)), image((20, 10), (40, 30))])
    pipeline = Pipeline(stream(segmenter=plugin(Spots, channel=1)))
    reply = pipeline.step(frame(0, pixels=both, channels=("a", "b"))).reply
    assert reply.cells.columns["mean"].tolist() == [1.0, 2.0]
    missing = Pipeline(stream(segmenter=plugin(Spots, channel=2))).step(
        frame(0, pixels=both, channels=("a", "b"))
    )
    assert "channel 2 is to be segmented, the frame has 'a', 'b'" in missing.reply.messages[0]


@pytest.mark.parametrize(
    ("value", "why"), [(255, "RuntimeError: out of memory"), (254, "FrameError: mask of shape")]
)
def test_a_frame_that_cannot_be_segmented_is_answered_counted_and_survived(value: int, why: str) -> None:
    pipeline = Pipeline(stream())
    pipeline.step(frame(0, (20, 10)))
    step = pipeline.step(frame(1, pixels=image(value=value)))
    assert step[1:] == (None, None, None, None)
    assert (step.reply.sequence, len(step.reply.cells), pipeline.failed) == (1, 0, 1)
    assert step.reply.messages[0].startswith(f"the frame could not be segmented (1 so far): {why}")
    assert pipeline.step(frame(2, (20, 10))).reply.cells.columns["age"].tolist() == [1.0]


def test_a_tracker_that_fails_or_loses_rows_is_answered_and_survived() -> None:
    pipeline = Pipeline(stream())
    five = frame(0, (9, 9), (19, 9), (29, 9), (39, 9), (49, 9))
    assert pipeline.step(five).reply.messages == ("tracking failed: ArithmeticError: five",)
    assert len(pipeline.step(frame(1, (20, 10))).reply.cells) == 1
    short = Pipeline(stream(tracker=plugin(Short))).step(frame(0, (20, 10))).reply
    assert short.messages == ("tracking failed: ValueError: 0 rows for 1 detections",)


def test_a_rule_that_fails_is_named_and_the_others_decide() -> None:
    enough = PluginChoice("stop_at_count", {"count": 1, "dwell_frames": 1})
    reply = Pipeline(stream(plugin(Faulty), plugin(Wordless), enough)).step(frame(0, (20, 10))).reply
    assert [decision.rule for decision in reply.decisions] == ["stop_at_count"]
    assert reply.messages[0] == "rule 'faulty' failed: ZeroDivisionError: no cells"
    assert reply.messages[1].startswith("rule 'wordless' failed: AttributeError")


def test_the_limits_have_the_last_word_and_say_so() -> None:
    pipeline = Pipeline(stream(PluginChoice("on_division"), limits=Limits(commands_per_s=1)))
    pipeline.step(frame(0, (20, 10)))
    reply = pipeline.step(frame(1, (20, 10), (40, 10), (40, 30))).reply
    assert [bool(decision.refused) for decision in reply.decisions] == [False, True]
    assert [type(command) for command in reply.commands] == [Stimulate]
    assert (
        "limits: Stimulate of rule 'on_division' refused: more than 1 commands per second"
        in reply.messages[0]
    )


def test_the_rate_of_commands_is_shared_by_all_fields_of_view() -> None:
    enough = PluginChoice("follow", {"deadband_um": 0.0})
    pipeline = Pipeline(stream(enough, limits=Limits(commands_per_s=1)))
    replies = [pipeline.step(frame(i, (20, 10), axes={"position": i}, time_s=0.5)).reply for i in range(3)]
    assert [len(reply.commands) for reply in replies] == [1, 0, 0]


def test_the_pixel_size_of_the_frame_serves_when_none_is_configured_and_an_unusable_one_is_named() -> None:
    follow = PluginChoice("follow")
    pipeline = Pipeline(stream(follow, pixel_size_um=None))
    wrong = pipeline.step(frame(0, (20, 10), pixel_size_um=math.inf)).reply
    assert wrong.messages[0] == "a pixel size of inf um cannot be used; it is ignored"
    assert not wrong.decisions
    right = pipeline.step(frame(1, (20, 10), pixel_size_um=2.0)).reply
    assert right.decisions[0].command == MoveStage(10.0 + 2 * (20 - 29.5), 20.0 + 2 * (10 - 19.5))


@pytest.mark.parametrize(
    "times", [[0.0] * 4, [3.0, 2.0, 1.0, 0.0], [math.nan] * 4, [math.inf, -math.inf, 0.0, 1.0]]
)
def test_times_that_do_not_increase_are_named_once_and_survived(times: list[float]) -> None:
    pipeline = Pipeline(stream(*RULES[:3]))
    replies = [pipeline.step(frame(i, (20, 10), time_s=time_s)).reply for i, time_s in enumerate(times)]
    said = [message for reply in replies for message in reply.messages if "frame times" in message]
    assert len(said) == 1
    assert all(len(reply.cells) == 1 for reply in replies)


def test_an_empty_image_gives_an_empty_reply_without_a_word() -> None:
    reply = Pipeline(stream(*RULES[:3])).step(frame(0)).reply
    assert (len(reply.cells), reply.decisions, reply.messages) == (0, (), ())


def test_what_cannot_be_built_fails_before_the_first_frame() -> None:
    for wrong in ({"segmenter": PluginChoice("nothing")}, {"tracker": plugin(InOrder, speed=1)}):
        with pytest.raises(PluginError):
            Pipeline(stream(**wrong))
    with pytest.raises(PluginError, match="count"):
        Pipeline(stream(PluginChoice("stop_at_count", {"count": 0})))


def test_a_segmenter_that_is_loaded_already_is_taken_over() -> None:
    loaded = Doubting()
    reply = Pipeline(stream(segmenter=PluginChoice("nothing")), loaded).step(frame(0, (20, 10))).reply
    assert reply.novelty == 0.4


def test_more_fields_of_view_than_can_be_kept_forget_the_one_not_seen_for_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fields_of_view, "MOST_FIELDS", 3)
    pipeline = Pipeline(stream())
    ages: list[float] = []
    messages: list[str] = []
    for sequence, position in enumerate([0, 1, 2, 0, 3, 0, 1]):
        reply = pipeline.step(frame(sequence, (20, 10), axes={"position": position})).reply
        ages.extend(reply.cells.columns["age"].tolist())
        messages.extend(reply.messages)
    assert ages == [0, 0, 0, 1, 0, 2, 0]
    assert [message[-30:] for message in messages] == [
        "tracks of (1, 0) are forgotten",
        "tracks of (2, 0) are forgotten",
    ]


def test_memory_is_bounded_by_the_cells_in_view_and_not_by_the_length_of_the_run() -> None:
    pipeline = Pipeline(stream(*RULES))
    frames = list(eventful())

    def run(rounds: int) -> int:
        for turn in range(rounds):
            for each in frames:
                channels = (f"{turn}",) if each.channels == ("other",) else each.channels
                pipeline.step(replace(each, time_s=each.time_s + 60.0 * turn, channels=channels))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        early = run(18)  # until the past that the trust gate looks at is as long as it gets
        late = run(12)
    finally:
        tracemalloc.stop()
    assert late - early < 20_000


Disc = tuple[float, float, float]
BYSTANDERS: list[Disc] = [(x, 0.5 * x - 25 + side, 7.0) for x in range(-60, 240, 40) for side in (-38, 38)]


def picture(
    cells: list[Disc], stage: tuple[float, float], noise: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Render cells, (x, y, radius) in um at 1 um per px, as seen from a stage position, with camera noise."""
    y, x = np.mgrid[:128, :128].astype(float)
    light = np.full((128, 128), 120.0)
    for x_um, y_um, radius in cells:
        distance = np.hypot(x - (x_um - stage[0] + 63.5), y - (y_um - stage[1] + 63.5))
        light += 900 / (1 + np.exp(np.clip(2 * (distance - radius), -50, 50)))
    return noise.poisson(light).astype(np.uint16)


def test_the_registered_plugins_close_the_loop_on_a_cell_that_leaves_and_divides() -> None:
    rules = (PluginChoice("follow", {"deadband_um": 1.0}), PluginChoice("on_division"))
    pipeline = Pipeline(StreamConfig(rules=rules, pixel_size_um=1.0))
    noise = np.random.default_rng(5)
    stage = waiting = (0.0, -20.0)
    followed: list[int] = []
    stimulated: list[int] = []
    for index in range(40):
        x, y = 10.0 + 3.0 * index, -20.0 + 1.5 * index  # it would leave the field after 18 frames
        apart = 5.5 + 0.5 * (index - 28)
        cells: list[Disc] = [(x, y, 7.5)] if index < 28 else [(x, y - apart, 5.2), (x, y + apart, 5.2)]
        pixels = picture(cells + BYSTANDERS, stage, noise)
        reply = pipeline.step(Frame(pixels, sequence=index, time_s=0.5 * index, stage_um=stage)).reply
        if 8 <= index < 28:
            assert math.dist((x, y), stage) < 7.0  # the stage is one frame behind
        target = waiting
        for decision in reply.decisions:
            assert not decision.refused
            match decision.command:
                case MoveStage(x_um=x_um, y_um=y_um):
                    followed.append(decision.track)
                    target = (x_um, y_um)
                case Stimulate(points_px=((x_px, y_px),)):
                    stimulated.append(index)
                    at_um = (x_px - 63.5 + stage[0], y_px - 63.5 + stage[1])
                    assert min(math.dist(at_um, cell[:2]) for cell in cells) < 6.0
                case other:
                    raise AssertionError(other)
        stage, waiting = waiting, target  # a move arrives one frame late
    assert len(set(followed)) == 2  # the cell, then one daughter
    assert len(stimulated) == 2
    assert all(28 <= index <= 31 for index in stimulated)
    assert math.dist((x, y), stage) < 20.0


class Doubting(Spots):
    """Is surer of cell 1 than of cell 2, and finds frames with a third unlike what it knows."""

    def segment(self, frame: Frame) -> Labels:
        found = super().segment(frame)
        sure = np.linspace(0.9, 0.5, found.count, dtype=np.float32)
        return replace(found, confidence=sure, novelty=1.5 if found.count > 2 else 0.4)


def test_how_sure_the_segmenter_is_comes_with_every_reply_and_a_strange_frame_is_said_once() -> None:
    live, restored = (Pipeline(stream(segmenter=plugin(Doubting))) for _ in range(2))
    centres = [[(20, 10), (40, 10)], [(20, 10), (40, 10), (10, 30)], [(20, 10), (40, 10), (10, 30)]]
    frames = [frame(number, *places) for number, places in enumerate(centres)]
    steps = [live.step(each) for each in frames]
    replies = [step.reply for step in steps]
    assert replies[0].cells.columns["cell_confidence"].tolist() == pytest.approx([0.9, 0.5])
    assert [reply.novelty for reply in replies] == [0.4, 1.5, 1.5]
    said = [any("novelty above 1" in message for message in reply.messages) for reply in replies]
    assert said == [False, True, False]
    again = [
        restored.restore(each, step.detections, step.memory) for each, step in zip(frames, steps, strict=True)
    ]
    assert [timeless(reply) for reply in again] == [timeless(reply) for reply in replies]


def test_a_segmenter_that_says_nothing_of_its_doubts_adds_nothing_to_the_reply() -> None:
    reply = Pipeline(stream()).step(frame(0, (20, 10))).reply
    assert reply.novelty is None
    assert "cell_confidence" not in reply.cells.columns
