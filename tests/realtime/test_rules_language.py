"""Expressions of rules: what is refused and where, and that what is computed is what independent code computes."""

from __future__ import annotations

import ast
import math
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.coordinates import Affine
from cytoloop.acquire.frame import Frame
from cytoloop.models.detections import Detections
from cytoloop.realtime.cell_table import measured_of
from cytoloop.realtime.rules.known import Known
from cytoloop.realtime.rules.language.conditions import read_condition
from cytoloop.realtime.rules.language.durations import Duration, read_duration
from cytoloop.realtime.rules.language.functions import FUNCTIONS
from cytoloop.realtime.rules.language.quantities import QUANTITIES
from cytoloop.realtime.rules.language.sight import quantity, sight_of
from cytoloop.realtime.rules.language.syntax import ExpressionError
from cytoloop.realtime.rules.language.terms import number_term
from cytoloop.realtime.rules.rule import Moment
from cytoloop.trackers.history import History
from cytoloop.trackers.tracks import Tracks
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree

N, FRAMES, SIDE, UM = 40, 12, 200, 0.5


@pytest.fixture(scope="module")
def movie() -> tuple[Moment, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the last moment of cells that grow and move, with area and mean of all frames, (frames, n)."""
    random = np.random.default_rng(3)
    area = random.uniform(50, 200, N) * np.cumprod(random.normal(1.02, 0.02, (FRAMES, N)), axis=0)
    mean = random.uniform(100, 900, (FRAMES, N))
    yx = random.uniform(0, SIDE - 1, (N, 2))
    history = History()
    moments: list[Moment] = []
    for number in range(FRAMES):
        found = Detections(
            sequence=number,
            time_s=30.0 * number,
            shape=(SIDE, SIDE),
            yx=yx,
            area=area[number],
            bbox=np.zeros((N, 4), np.int32),
            mean=mean[number][:, np.newaxis],
            maximum=2 * mean[number][:, np.newaxis],
            moments=np.column_stack([np.full(N, 9.0), np.full(N, 4.0), np.zeros(N)]),
            novelty=0.25,
        )
        tracks = Tracks(
            detections=found,
            track=np.arange(1, N + 1),
            parent=np.zeros(N, np.int64),
            age=np.full(N, number, np.int32),
            velocity=np.tile([3.0, 4.0], (N, 1)),
            covariance=np.ones((N, 3)),
            confidence=np.linspace(0, 1, N),
        )
        measured = measured_of(tracks, ("",))
        descent = history.update(tracks, measured)
        frame = Frame(
            np.zeros((1, 1), np.uint8),
            number,
            30.0 * number,
            stage_um=(10.0, 20.0),
            z_um=7.0,
            exposure_ms=40.0,
        )
        moments.append(Moment(frame, tracks, Affine.from_pixel_size(UM), 0, history, descent, measured))
    return moments[-1], area, mean


def said(moment: Moment, text: str) -> list[bool]:
    condition = read_condition(text)
    with np.errstate(all="ignore"):
        return condition.whole(condition.each(sight_of(moment))).tolist()


def test_every_quantity_is_what_was_measured(movie: Any) -> None:
    moment, area, mean = movie
    yx = moment.tracks.detections.yx
    distance = cKDTree(yx).query(yx, 2)[0][:, 1]
    centre = (SIDE - 1) / 2
    expected: dict[str, Any] = {
        "area": area[-1],
        "mean": mean[-1],
        "max": 2 * mean[-1],
        "major": np.full(N, 12.0),  # four standard deviations
        "minor": np.full(N, 8.0),
        "elongation": np.full(N, 1.5),
        "x": yx[:, 1],
        "y": yx[:, 0],
        "border": np.minimum(yx, SIDE - 1 - yx).min(axis=1),
        "nearest": distance,
        "speed": np.full(N, 5.0),
        "stage_x": (10.0 + UM * (yx[:, 1] - centre)) / UM,
        "stage_y": (20.0 + UM * (yx[:, 0] - centre)) / UM,
        "age": np.full(N, FRAMES - 1.0),
        "lifetime": np.full(N, 30.0 * (FRAMES - 1)),
        "since_division": np.full(N, math.nan),
        "generation": np.zeros(N),
        "track": np.arange(1.0, N + 1),
        "confidence": np.linspace(0, 1, N),
        "frame.count": np.full(N, float(N)),
        "frame.density": np.full(N, N / SIDE**2),
        "frame.time": np.full(N, 30.0 * (FRAMES - 1)),
        "frame.novelty": np.full(N, 0.25),
        "frame.exposure": np.full(N, 0.04),
        "frame.z": np.full(N, 7.0 / UM),
    }
    missing = {name: np.full(N, math.nan) for name in QUANTITIES if name not in expected}
    assert {"nuclei", "cell_confidence", "frame.focus"} <= missing.keys()
    for name, values in {**expected, **missing}.items():
        if not QUANTITIES[name].truth:
            np.testing.assert_allclose(quantity(moment, name), values, rtol=1e-6, err_msg=name)


def test_every_function_is_what_independent_code_gives(movie: Any) -> None:
    moment, area, mean = movie
    times = 30.0 * np.arange(FRAMES)
    yx = moment.tracks.detections.yx
    last = mean[-1]
    expected: dict[str, Any] = {
        "abs(0 - mean)": last,
        "sqrt(area)": np.sqrt(area[-1]),
        "log(mean)": np.log(last),
        "exp(confidence)": np.exp(np.linspace(0, 1, N)),
        "min(mean, 500)": np.minimum(last, 500),
        "max(mean, 500)": np.maximum(last, 500),
        "min(mean)": last.min(),
        "max(mean)": last.max(),
        "median(mean)": np.median(last),
        "mean(mean)": last.mean(),
        "std(mean)": last.std(),
        "sum(mean)": last.sum(),
        "percentile(mean, 90)": np.percentile(last, 90),
        "rank(mean)": N - np.argsort(np.argsort(last)),
        "zscore(mean)": (last - last.mean()) / last.std(),
        "count(mean > 500)": float((last > 500).sum()),
        "neighbours(20 px)": [len(cKDTree(yx).query_ball_point(each, 20)) - 1 for each in yx],
        "neighbours(10 um)": [len(cKDTree(yx).query_ball_point(each, 20)) - 1 for each in yx],
        "rate(area, 5 frames)": np.polyfit(times[-6:], area[-6:], 1)[0],
        "rate(area, 2 min)": np.polyfit(times[-5:], area[-5:], 1)[0],
        "before(mean, 3 frames)": mean[-4],
        "before(mean, 90 s)": mean[-4],
        "change(mean, 3 frames)": last / mean[-4],
        "past_mean(mean, 4 frames)": mean[-4:].mean(axis=0),
        "past_min(mean, 4 frames)": mean[-4:].min(axis=0),
        "past_max(mean, 4 frames)": mean[-4:].max(axis=0),
        "past_std(mean, 4 frames)": mean[-4:].std(axis=0),
        "rate(mean / area, 3 frames)": np.polyfit(times[-4:], (mean / area)[-4:], 1)[0],
    }
    assert {text.partition("(")[0] for text in expected} == set(FUNCTIONS)
    for text, values in expected.items():
        np.testing.assert_allclose(
            quantity(moment, text), np.broadcast_to(values, N), rtol=1e-4, atol=1e-7, err_msg=text
        )


def test_a_window_that_is_longer_than_the_past_of_a_cell_holds_nothing(movie: Any) -> None:
    moment, _, _ = movie
    for text in (
        "rate(area, 12 frames)",
        "before(mean, 65 frames)",
        "rate(area, 2 h)",
        "past_max(mean, 13 frames)",
    ):
        assert np.isnan(quantity(moment, text)).all(), text


def test_units_are_turned_into_each_other(movie: Any) -> None:
    moment, area, _ = movie
    assert said(moment, "area > 30 um^2") == (area[-1] * UM**2 > 30).tolist()
    assert said(moment, "area > 3e-5 mm^2") == (area[-1] * UM**2 > 30).tolist()
    assert said(moment, "frame.time == 5.5 min") == [True]
    assert said(moment, "speed > 2.4 um/frame and speed < 2600 nm/frame") == [True] * N
    assert said(moment, "confidence >= 50 %") == (np.linspace(0, 1, N) >= 0.5).tolist()
    grown = np.polyfit(30.0 * np.arange(6), area[-6:], 1)[0]
    assert said(moment, "rate(area, 5 frames) > 1 um^2/min") == (grown * UM**2 * 60 > 1).tolist()


def test_what_is_unknown_never_holds_under_not_neither(movie: Any) -> None:
    moment, _, _ = movie
    for sign in ("<", "<=", ">", ">=", "==", "!="):
        for text in (f"since_division {sign} 10 min", f"not since_division {sign} 10 min"):
            assert said(moment, text) == [False] * N, text
    assert said(moment, "not (since_division > 1 s or mean < 0)") == [False] * N
    assert said(moment, "not (since_division > 1 s and mean < 0)") == [True] * N


def test_without_a_pixel_size_nothing_in_um_holds(movie: Any) -> None:
    moment, _, _ = movie
    blind = Moment(moment.frame, moment.tracks, None, 0, moment.history, moment.descent, moment.measured)
    assert said(blind, "area > 0.001 um^2") == [False] * N
    assert said(blind, "not area > 0.001 um^2") == [False] * N
    assert said(blind, "area > 1 px^2") == [True] * N


REFUSED = {
    "areaa > 3 px^2": (0, "nothing is called 'areaa'", "area"),
    "area > 300": (5, "write its unit behind the number", ""),
    "area > 3 um": (5, "cannot compare an area (px^2 or um^2) and a length (px or um)", ""),
    "area + age > 3 px^2": (5, "cannot add", ""),
    "(area > 3 px^2": (14, "')' is missing before 'the end', to close the '(' at column 1", ""),
    "area > 3 px^2)": (13, "')' was not expected here", ""),
    "area = 3 px^2": (5, "'=' means nothing", "=="),
    "area & mean": (5, "'&' means nothing", "and"),
    "rate(x, 5 frames) > 1": (5, "only of what is measured the past is kept", ""),
    "rate(area, 5) > 0": (11, "a time or a number of frames", ""),
    "rate(area) > 0": (0, "rate takes what is measured, and how far back, not 1 argument(s)", ""),
    "ratee(area, 5 frames) > 0": (0, "no function is called 'ratee'", "rate"),
    "median(frame.count) > 1": (7, "something of each cell is needed", ""),
    "3": (0, "a condition is needed", ""),
    "area": (0, "area is a number; compare it", ""),
    "1 < 2": (2, "always so, or never", ""),
    "provisional > 1": (0, "this holds or does not", ""),
    "frame.cont > 1": (0, "nothing is called 'frame.cont'", "frame.count"),
    "GFP.maen > 1": (0, "nothing is called 'maen' of a channel", "GFP.mean"),
    "GPF.mean > 1": (0, "there is no channel 'GPF'", "GFP.mean"),
    "p.mitotik > 0.5": (0, "knows no class 'mitotik'", "p.mitotic"),
    "um > 3": (0, "'um' is a unit", ""),
    "area > 3 px^x": (12, "a power is a whole number", ""),
    "area > ": (6, "a number, a quantity or '(' is expected, not 'the end'", ""),
    "sqrt(x) > 3": (0, "has no unit", ""),
    "log(area) > 3": (0, "a plain number is needed", ""),
    "": (0, "nothing is written here", ""),
    "(" * 50 + "1" + ")" * 50: (40, "nested deeper than 40 levels", ""),
    "mean > " + "1" * 2000: (2000, "longer than 2000 characters", ""),
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:30])
def test_a_mistake_is_told_with_its_place_and_the_nearest_name(text: str) -> None:
    at, reason, hint = REFUSED[text]
    with pytest.raises(ExpressionError) as caught:
        read_condition(text, Known(("GFP", "DAPI"), ("mitotic",)))
    assert reason in caught.value.reason
    assert (caught.value.at, caught.value.did_you_mean) == (at, hint)


def test_um_is_refused_where_nobody_will_ever_say_the_pixel_size() -> None:
    with pytest.raises(ExpressionError, match="needs a pixel size"):
        read_condition("area > 3 um^2", Known(pixel_size=False))


@given(st.text(alphabet="area mean()<>=!+-*/^%.,0123456789 andornotpxum\"'frame", max_size=60))
def test_any_text_is_an_expression_or_refused_within_it(text: str) -> None:
    try:
        read_condition(text)
    except ExpressionError as error:
        assert 0 <= error.at <= len(text)
        assert error.reason


def numbers() -> st.SearchStrategy[str]:
    """Return arithmetic of plain numbers, as text that Python reads too."""
    leaf = st.integers(1, 9).map(str) | st.just("mean")
    return st.recursive(
        leaf,
        lambda inner: (
            st.tuples(inner, st.sampled_from("+-*/"), inner).map(" ".join)
            | inner.map("({})".format)
            | inner.map("-{}".format)
            | st.tuples(inner, st.integers(0, 3)).map(lambda pair: f"({pair[0]}) ** {pair[1]}")
        ),
        max_leaves=8,
    )


@given(numbers())
def test_arithmetic_binds_as_in_python(movie: Any, text: str) -> None:
    moment, _, mean = movie
    ast.parse(text, mode="eval")
    with np.errstate(all="ignore"):
        expected = eval(text, {"mean": mean[-1]})
        found = quantity(moment, text)
    np.testing.assert_allclose(found, np.broadcast_to(np.asarray(expected, float), N), rtol=1e-9)


@given(st.recursive(
    st.sampled_from(["a", "b", "c"]),
    lambda inner: st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join)
    | inner.map("({})".format)
    | inner.map("not {}".format),
    max_leaves=8,
))  # fmt: skip
def test_and_or_not_bind_as_in_python(movie: Any, text: str) -> None:
    moment, _, mean = movie
    meant = {"a": "mean > 300", "b": "mean > 500", "c": "mean < 700"}
    ours = " ".join(
        f"{meant[word]}" if word in meant else word
        for word in text.replace("(", " ( ").replace(")", " ) ").split()
    )
    last = mean[-1]
    truths = [eval(text, {"a": value > 300, "b": value > 500, "c": value < 700}) for value in last]
    assert said(moment, ours) == truths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 frames", Duration(5, 0.0, "5 frames")),
        ("10 min", Duration(0, 600.0, "10 min")),
        ("0 s", Duration(0, 0.0, "0 s")),
    ],
)
def test_a_duration_is_of_frames_or_a_time(text: str, expected: Duration) -> None:
    assert read_duration(text) == expected


@pytest.mark.parametrize("text", ["5", "1.5 frames", "3 px", "area", "-5 s", ""])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        read_duration(text)


def test_a_rank_is_a_number_of_each_cell() -> None:
    assert number_term("-area / median(area)").per_cell
    with pytest.raises(ExpressionError, match="holds or does not"):
        number_term("area > 3 px^2")
