"""What each action of a rule asks for, for which cells, and why not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from cytoloop.acquire.commands import (
    Call,
    Command,
    Disarm,
    MoveFocus,
    MoveStage,
    Pause,
    Revisit,
    SetChannel,
    SetExposure,
    SetInterval,
    SetProperty,
    Skip,
    SnapExtra,
    Stimulate,
    Stop,
    Trigger,
    Webhook,
    decode_mask,
)
from cytoloop.acquire.coordinates import Affine
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.plugins import OptionError, build
from cytoloop.models.labels import Labels
from cytoloop.models.measure import measure
from cytoloop.realtime.rules.actions import ACTIONS, Action, Aim
from cytoloop.realtime.rules.rule import Moment
from cytoloop.trackers.tracks import Tracks

SHAPE = (80, 120)
NEEDED: dict[str, dict[str, Any]] = {
    "focus": {"z_um": 3.0},
    "revisit": {"after_s": 60.0},
    "exposure": {"exposure_ms": 20.0},
    "channel": {"preset": "FITC"},
    "interval": {"interval_s": 30.0},
    "property": {"device": "LED", "property": "State", "value": "1"},
    "pause": {"seconds": 2.0},
    "trigger": {"output": "gate"},
    "sort": {"output": "gate", "gate_px": 100.0},
    "webhook": {"url": "https://lab.example/hook"},
    "call": {"function": "dose"},
}


def blobs() -> Labels:
    """Return three cells: a tilted ellipse, a bar, and one cut by the right edge."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.zeros(SHAPE, np.int32)
    image[((x - 30 + (y - 20)) / 14) ** 2 + ((x - 30 - (y - 20)) / 7) ** 2 <= 1] = 1
    image[40:46, 50:80] = 2
    image[60:70, 112:120] = 3
    return Labels(image, 3)


def moment(
    *,
    mask: bool = True,
    stage: tuple[float, float] | None = (1000.0, 2000.0),
    affine: Affine | None = Affine(0.5, 0.0, 0.0, 0.5),  # noqa: B008
    z_um: float | None = 7.0,
    uncalibrated: str = "",
) -> Moment:
    labels = blobs()
    frame = Frame(np.ones(SHAPE, np.uint16), sequence=4, time_s=100.0, stage_um=stage, z_um=z_um)
    found = replace(measure(frame, labels), mask=labels.image if mask else None)
    n = len(found)
    tracks = Tracks(
        detections=found,
        track=np.array([11, 12, 13]),
        parent=np.zeros(n, np.int64),
        age=np.zeros(n, np.int32),
        velocity=np.zeros((n, 2)),
        covariance=np.ones((n, 3)),
        confidence=np.ones(n),
    )
    return Moment(frame, tracks, affine, uncalibrated=uncalibrated)


def aim(at: Moment, rows: Any, shift: tuple[float, float] = (0.0, 0.0), ahead_s: float = 2.0) -> Aim:
    """Return an aim at cells that go (x, y) px further until then."""
    return Aim(at.tracks.detections.yx[rows][:, ::-1] + shift, at.frame.time_s + ahead_s)


def ask(do: str, at: Moment, rows: list[int], shift: Any = (0.0, 0.0), **options: Any) -> list[Any]:
    chosen = np.array(rows, np.int64)
    action = build(ACTIONS[do], {**NEEDED.get(do, {}), **options})
    return action.commands(at, chosen, aim(at, chosen, shift))


def lit(command: Any) -> np.ndarray:
    assert isinstance(command, Stimulate)
    return decode_mask(command.mask, SHAPE)


@pytest.mark.parametrize("do", ACTIONS)
def test_every_action_is_built_from_options_and_keeps_the_protocol(do: str) -> None:
    action = build(ACTIONS[do], NEEDED.get(do, {}))
    assert isinstance(action, Action)
    assert all(isinstance(example, Command) for example in action.examples())
    chosen = moment()
    rows = np.array([1, 0])
    answers = action.commands(chosen, rows, aim(chosen, rows, (4.0, 1.0)))
    assert [row for row, _ in answers] == ([1, 0] if action.per_cell else [-1])
    for _, answer in answers:
        assert isinstance(answer, str) or type(answer) in {type(each) for each in action.examples()}
    assert not action.per_cell or action.commands(chosen, rows[:0], aim(chosen, rows[:0])) == []
    with pytest.raises(OptionError, match="unknown option"):
        build(ACTIONS[do], {**NEEDED.get(do, {}), "nonsense": 1})


@pytest.mark.parametrize("do", NEEDED)
def test_options_that_are_needed_are_named(do: str) -> None:
    with pytest.raises(OptionError):
        build(ACTIONS[do], {})


@pytest.mark.parametrize(
    ("do", "options", "message"),
    [
        ("stimulate", {"shape": "rign"}, "Did you mean 'ring'"),
        ("stimulate", {"radius": 3}, "Did you mean 'radius_px'"),
        ("stimulate", {"power": 1.5}, "power must be from 0 to 1"),
        ("stimulate", {"duration_ms": 0}, "duration_ms must be > 0"),
        ("stimulate", {"radius_px": -1}, "radius_px must be > 0"),
        ("stimulate", {"shape": "ring", "margin_px": -1}, "0 or more for a ring"),
        ("stimulate", {"margin_px": 2}, "margin_px must be 0 for a spot"),
        ("isolate", {"spacing_px": 0}, "spacing_px must be 1 or more"),
        ("isolate", {"margin_px": math.inf}, "margin_px must be finite"),
        ("centre", {"deadband_um": -1}, "deadband_um must be >= 0"),
        ("focus", {"offset_um": 1.0}, "one of z_um and offset_um"),
        ("focus", {"z_um": math.nan}, "z_um must be finite"),
        ("revisit", {"after_s": -1}, "after_s must be >= 0"),
        ("revisit", {"exposure_ms": 0}, "exposure_ms must be > 0"),
        ("exposure", {"exposure_ms": 0}, "exposure_ms must be > 0"),
        ("channel", {"preset": ""}, "preset must not be empty"),
        ("interval", {"interval_s": -1}, "interval_s must be >= 0"),
        ("property", {"device": ""}, "device must not be empty"),
        ("snap", {"exposure_ms": -1}, "exposure_ms must be > 0"),
        ("skip", {"events": 0}, "events must be >= 1"),
        ("pause", {"seconds": 0}, "seconds must be > 0"),
        ("trigger", {"delay_ms": -1}, "delay_ms must be >= 0"),
        ("trigger", {"output": ""}, "output must be the name of one"),
        ("sort", {"axis": "z"}, "axis"),
        ("sort", {"width_ms": 0}, "width_ms must be > 0"),
        ("sort", {"within_s": 0}, "within_s must be > 0"),
        ("sort", {"gate_px": math.nan}, "gate_px must be finite"),
        ("webhook", {"url": "file:///etc/passwd"}, "http://host/"),
        ("call", {"function": ""}, "function must not be empty"),
        ("call", {"arguments": {"a": [1]}}, "arguments"),
    ],
)
def test_an_option_that_makes_no_sense_is_named_with_what_is_allowed(
    do: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        build(ACTIONS[do], {**NEEDED.get(do, {}), **options})
    assert caught.value.option in {*options, "z_um"}


@pytest.mark.parametrize(
    ("do", "options", "command"),
    [
        ("focus", {}, MoveFocus(3.0)),
        ("exposure", {}, SetExposure(20.0)),
        ("channel", {"group": "Light"}, SetChannel("Light", "FITC")),
        ("interval", {}, SetInterval(30.0)),
        ("property", {}, SetProperty("LED", "State", "1")),
        ("property", {"value": 0.25}, SetProperty("LED", "State", "0.25")),
        ("snap", {"exposure_ms": 5, "channel": "DAPI"}, SnapExtra(5.0, "DAPI")),
        ("skip", {"events": 3}, Skip(3)),
        ("pause", {}, Pause(2.0)),
        ("stop", {"reason": "enough"}, Stop("enough")),
        ("disarm", {"reason": "odd"}, Disarm("odd")),
        ("revisit", {"channel": "DAPI"}, Revisit(1000.0, 2000.0, at_s=160.0, channel="DAPI")),
        ("trigger", {"delay_ms": 500, "width_ms": 3}, Trigger("gate", 102.5, 3.0)),
        ("webhook", {"text": "hello"}, Webhook("https://lab.example/hook", "hello")),
        ("call", {"arguments": {"ul": 2.5, "drug": "x"}}, Call("dose", {"ul": 2.5, "drug": "x"})),
    ],
)
@pytest.mark.parametrize("rows", [[], [0], [2, 0, 1]])
def test_what_concerns_the_whole_frame_is_asked_for_once(
    do: str, options: dict[str, Any], command: Any, rows: list[int]
) -> None:
    assert ask(do, moment(), rows, **options) == [(-1, command)]


@pytest.mark.parametrize("do", ["trigger", "webhook", "call"])
def test_what_can_concern_each_cell_does_so_where_that_is_asked_for(do: str) -> None:
    (_, once), *_ = ask(do, moment(), [2, 0])
    assert ask(do, moment(), [2, 0], per_cell=True) == [(2, once), (0, once)]
    assert ask(do, moment(), [], per_cell=True) == []


def test_commands_travel_over_the_wire() -> None:
    for do in ACTIONS:
        for _, answer in ask(do, moment(), [0, 1], (3.0, 0.0)):
            if not isinstance(answer, str):
                assert msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=Command) == answer


def test_a_spot_is_where_the_cell_will_be() -> None:
    at = moment()
    y, x = at.tracks.detections.yx[1]
    ((row, command),) = ask("stimulate", at, [1], (5.0, -2.0), radius_px=3, duration_ms=40, power=0.5)
    assert row == 1
    assert command == Stimulate(((x + 5.0, y - 2.0),), 3.0, (), 40.0, 0.5)


@pytest.mark.parametrize("shape", ["spot", "cell", "ring"])
@pytest.mark.parametrize("mask", [True, False])
def test_a_cell_that_leaves_the_image_gets_no_light(shape: str, mask: bool) -> None:
    ((_, why),) = ask("stimulate", moment(mask=mask), [2], (40.0, 0.0), shape=shape)
    assert why == "it will be outside the image"
    ((_, why),) = ask("stimulate", moment(mask=mask), [2], (math.nan, 0.0), shape=shape)
    assert why == "nobody knows where it will be"


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (5.2, -3.4), (-30.0, 0.0), (20.0, 12.0)])
def test_the_light_on_a_cell_is_its_mask_moved_and_cut_at_the_edge(row: int, shift: Any) -> None:
    own = blobs().image == row + 1
    wanted = np.zeros(SHAPE, np.bool_)
    y, x = np.nonzero(own)
    y, x = y + round(shift[1]), x + round(shift[0])
    inside = (y >= 0) & (x >= 0) & (y < SHAPE[0]) & (x < SHAPE[1])
    wanted[y[inside], x[inside]] = True
    ((_, command),) = ask("stimulate", moment(), [row], shift, shape="cell")
    if wanted.any():
        assert np.array_equal(lit(command), wanted)
    else:
        assert command == "it will be outside the image"


def test_without_a_mask_the_light_is_the_ellipse_of_the_cell() -> None:
    ((_, command),) = ask("stimulate", moment(mask=False), [0], shape="cell")
    own = blobs().image == 1
    overlap = (lit(command) & own).sum() / (lit(command) | own).sum()
    assert overlap > 0.93


def test_a_margin_grows_or_shrinks_the_light_by_so_many_pixels() -> None:
    own = blobs().image == 2
    y, x = np.nonzero(own)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    away = np.sqrt(((rows[..., None] - y) ** 2 + (columns[..., None] - x) ** 2).min(axis=-1))
    ((_, wide),) = ask("stimulate", moment(), [1], shape="cell", margin_px=2.5)
    assert np.array_equal(lit(wide), away <= 2.5)
    ((_, narrow),) = ask("stimulate", moment(), [1], shape="cell", margin_px=-1)
    assert lit(narrow).sum() == 4 * 28
    ((_, band),) = ask("stimulate", moment(), [1], shape="ring", margin_px=2, radius_px=3)
    assert np.array_equal(lit(band), (away > 2) & (away <= 5))
    ((_, none),) = ask("stimulate", moment(), [1], shape="cell", margin_px=-10)
    assert none == "nothing of it is left within margin_px -10"


def test_all_but_the_chosen_cells_is_one_command_that_spares_each_of_them() -> None:
    first, second = ask("isolate", moment(), [1, 0], side="around")
    image = blobs().image
    assert first[0] == 1
    assert np.array_equal(lit(first[1]), (image != 1) & (image != 2))
    assert second == (0, "it is isolated together with cell 12")
    ((_, wide),) = ask("isolate", moment(), [1], side="around", margin_px=3)
    assert lit(wide).sum() < (image != 2).sum()
    assert not lit(wide)[37:49, 50:80].any()
    ((_, none),) = ask("isolate", moment(), [1], side="around", margin_px=500)
    assert none == "there is nothing around the cells"


def test_the_inside_of_a_cell_is_its_region() -> None:
    ((_, command),) = ask("isolate", moment(), [0])
    assert np.array_equal(lit(command), blobs().image == 1)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_raster_lies_on_the_cell_and_goes_through_its_centre(row: int) -> None:
    at = moment()
    ((_, command),) = ask("isolate", at, [row], how="raster", spacing_px=4)
    assert isinstance(command, Stimulate)
    points = np.array(command.points_px)
    assert command.radius_px == 2.0
    x, y = np.rint(points).astype(int).T
    assert (blobs().image[np.clip(y, 0, 79), np.clip(x, 0, 119)] == row + 1).all()
    assert np.allclose(np.abs(points - at.tracks.detections.yx[row, ::-1]).sum(axis=1).min(), 0)
    assert len(points) == pytest.approx((blobs().image == row + 1).sum() / 16, rel=0.4)


def test_a_raster_around_the_cells_spares_them_and_has_an_upper_bound() -> None:
    ((_, command),) = ask("isolate", moment(), [1], how="raster", side="around", spacing_px=8)
    x, y = np.rint(np.array(command.points_px)).astype(int).T
    assert len(x) == pytest.approx(80 * 120 / 64, rel=0.1)
    assert not (blobs().image[y, x] == 2).any()
    ((_, why),) = ask("isolate", moment(), [1], how="raster", side="around", spacing_px=1)
    assert why.endswith("at most 4096: choose a larger spacing_px")


def test_the_stage_brings_the_first_cell_to_the_centre() -> None:
    at = moment()
    y, x = at.tracks.detections.yx[0]
    first, second = ask("centre", at, [0, 1], (4.0, -2.0))
    target = (1000 + 0.5 * (x + 4 - 59.5), 2000 + 0.5 * (y - 2 - 39.5))
    assert first == (0, MoveStage(*target))
    assert second == (1, "the stage can centre one cell at a time, that is cell 11")


def test_the_stage_rests_within_the_deadband() -> None:
    ((_, why),) = ask("centre", moment(), [0], deadband_um=50)
    assert "um from the centre, deadband_um is 50" in why


@pytest.mark.parametrize(
    ("lack", "message"),
    [
        ({"affine": None}, "give a pixel size"),
        ({"stage": None}, "do not say where the stage is"),
        ({"affine": None, "uncalibrated": "the calibration is 40 days old"}, "40 days old"),
    ],
)
@pytest.mark.parametrize(("do", "options"), [("centre", {}), ("revisit", {"per_cell": True})])
def test_without_a_map_from_pixels_to_the_stage_it_says_so(
    do: str, options: Any, lack: dict[str, Any], message: str
) -> None:
    ((row, why),) = ask(do, moment(**lack), [1], **options)
    assert row == 1
    assert message in why


def test_focus_goes_by_an_offset_from_where_the_frame_was_taken() -> None:
    action = build(ACTIONS["focus"], {"offset_um": -1.5})
    none = np.empty(0, np.int64)
    assert action.commands(moment(), none, aim(moment(), none)) == [(-1, MoveFocus(5.5))]
    ((_, why),) = action.commands(moment(z_um=None), none, aim(moment(), none))
    assert why == "the frame does not say where the focus is"


def test_each_cell_can_be_visited_in_the_centre() -> None:
    at = moment()
    answers = ask("revisit", at, [2, 1], per_cell=True, after_s=30, exposure_ms=9)
    assert [row for row, _ in answers] == [2, 1]
    y, x = at.tracks.detections.yx[2]
    place = (1000 + 0.5 * (x - 59.5), 2000 + 0.5 * (y - 39.5))
    assert answers[0][1] == Revisit(*place, at_s=130.0, exposure_ms=9.0)
    assert ask("revisit", moment(stage=None), []) == [(-1, "the frames do not say where the stage is")]


def test_the_gate_opens_when_the_cell_passes_it() -> None:
    at = moment()
    y, x = at.tracks.detections.yx[0]
    # 10 px in 2 s: 5 px/s along x, 1 px/s along y.
    ((_, along_x),) = ask("sort", at, [0], (10.0, 2.0), gate_px=float(x) + 30, width_ms=20)
    assert along_x == Trigger("gate", pytest.approx(100 + 6 - 0.01), 20.0)
    ((_, along_y),) = ask(
        "sort", at, [0], (10.0, 2.0), gate_px=float(y) + 4, axis="y", delay_ms=5, width_ms=2
    )
    assert along_y == Trigger("gate", pytest.approx(104.004), 2.0)
    ((_, back),) = ask("sort", at, [0], (-10.0, 0.0), gate_px=float(x) - 40)
    assert back == Trigger("gate", pytest.approx(107.9995), 1.0)


@pytest.mark.parametrize(
    ("shift", "options", "message"),
    [
        ((0.0, 5.0), {}, "it does not move along x"),
        ((-10.0, 0.0), {}, "has passed the gate, or moves away from it"),
        ((math.nan, 0.0), {}, "its speed is not known yet"),
        ((0.1, 0.0), {}, "within_s is 10"),
        ((10.0, 0.0), {"delay_ms": -60_000}, "ms before the frame"),
    ],
)
def test_a_cell_that_does_not_reach_the_gate_is_told_why(
    shift: Any, options: dict[str, Any], message: str
) -> None:
    ((_, why),) = ask("sort", moment(), [0], shift, **options)
    assert message in why


def test_in_the_first_frame_no_speed_is_known_unless_it_is_given() -> None:
    at, rows = moment(), np.array([0])
    places = at.tracks.detections.yx[rows][:, ::-1]
    action = build(ACTIONS["sort"], {"output": "gate", "gate_px": float(places[0, 0]) + 8})
    ((_, why),) = action.commands(at, rows, Aim(places, at.frame.time_s))
    assert why == "its speed is not known yet"
    ((_, command),) = action.commands(at, rows, Aim(places, 100.0, np.array([[4.0, 0.0]])))
    assert command == Trigger("gate", pytest.approx(101.9995), 1.0)
