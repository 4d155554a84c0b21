"""The rule ``when``: episodes, dwell, hysteresis, cooldown, quotas, ranks, families, and its reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.coordinates import Affine
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.plugins import OptionError, build, find_class
from cytoloop.acquire.reply import Correction, Decision, Division
from cytoloop.models.detections import Detections
from cytoloop.realtime.cell_table import measured_of
from cytoloop.realtime.experiment.stream import PluginChoice
from cytoloop.realtime.rules.fields import FieldRules
from cytoloop.realtime.rules.rule import Moment, Verdict
from cytoloop.realtime.rules.when import When
from cytoloop.trackers.history import History
from cytoloop.trackers.tracks import Ended, Tracks
from msgspec.structs import replace

LIGHT = {"do": "stimulate", "duration_ms": 50.0}
STEP_S = 10.0


class World:
    """Frames with cells of a given brightness by identity, and what a rule says of them."""

    def __init__(self, refuse: bool = False, **options: Any) -> None:
        options = {"action": LIGHT, "condition": "mean > 10", **options}
        self.rule: When = build(find_class("rules", "when"), options)
        self.history, self.frames, self.refuse = History(), 0, refuse
        self.moment: Moment | None = None

    def see(
        self, cells: Mapping[int, float], *, parents: Mapping[int, int] | None = None, **said: Any
    ) -> Verdict:
        n, time_s = len(cells), STEP_S * self.frames
        mean = np.array(list(cells.values()), float).reshape(n, 1)
        found = Detections(
            sequence=self.frames,
            time_s=time_s,
            shape=(100, 200),
            yx=np.column_stack([np.full(n, 50.0), 10.0 + 10 * np.arange(n)]),
            area=np.full(n, 50.0),
            bbox=np.zeros((n, 4), np.int32),
            mean=mean,
            maximum=mean,
            moments=np.tile([4.0, 4.0, 0.0], (n, 1)),
        )
        tracks = Tracks(
            detections=found,
            track=np.array(list(cells), np.int64),
            parent=np.array([(parents or {}).get(track, 0) for track in cells], np.int64),
            age=np.zeros(n, np.int32),
            velocity=np.tile([1.0, 2.0], (n, 1)),
            covariance=np.tile([1.0, 2.0, 0.5], (n, 1)),
            confidence=np.ones(n),
            **said,
        )
        measured = measured_of(tracks, ("",))
        descent = self.history.update(tracks, measured)
        frame = Frame(np.zeros((1, 1), np.uint8), self.frames, time_s, stage_um=(0.0, 0.0))
        self.moment = Moment(frame, tracks, Affine.from_pixel_size(1.0), 0, self.history, descent, measured)
        self.frames += 1
        verdict = self.rule.decide(self.moment)
        self.rule.settled(tuple(replace(each, refused="no" * self.refuse) for each in verdict.decisions))
        return verdict

    def fired(self, cells: Mapping[int, float], **said: Any) -> list[int]:
        return [each.track for each in self.see(cells, **said).decisions]

    def course(self, values: Sequence[float]) -> list[int]:
        """Return the frames in which a single cell with this brightness is acted on."""
        return [number for number, value in enumerate(values) if self.fired({1: value})]

    def why(self, row: int = 0) -> Any:
        assert self.moment is not None
        return self.rule.explain(self.moment, row)


def test_a_cell_is_acted_on_once_in_each_episode() -> None:
    assert World().course([5, 11, 12, 13, 5, 11, 12]) == [1, 5]


@pytest.mark.parametrize(
    ("held", "frames"), [("3 frames", [3]), ("20 s", [3]), ("25 s", [4]), ("10 frames", [])]
)
def test_a_condition_must_hold_for_as_long_as_it_says(held: str, frames: list[int]) -> None:
    assert World(**{"for": held}).course([5, 11, 11, 11, 11, 11]) == frames


def test_a_break_begins_the_wait_anew() -> None:
    assert World(**{"for": "3 frames"}).course([11, 11, 5, 11, 11, 11]) == [5]


def test_with_hysteresis_an_episode_goes_on_until_it_is_ended() -> None:
    course = [11, 9, 8, 11, 3, 11]
    assert World().course(course) == [0, 3, 5]
    assert World(until="mean < 5").course(course) == [0, 5]


@pytest.mark.parametrize(
    ("cooldown", "frames"),
    [("0 s", [0, 1, 2, 3, 4, 5]), ("2 frames", [0, 2, 4]), ("30 s", [0, 3]), ("1 h", [0])],
)
def test_with_a_cooldown_a_cell_is_acted_on_again_while_the_condition_holds(
    cooldown: str, frames: list[int]
) -> None:
    assert World(cooldown=cooldown).course([11] * 6) == frames


def test_a_cooldown_outlives_an_episode() -> None:
    assert World(cooldown="40 s").course([11, 5, 11, 11, 11, 11]) == [0, 4]


def test_quotas_of_cell_frame_and_run_are_kept() -> None:
    assert World(cooldown="0 s", quota={"per_cell": 2}).course([11] * 5) == [0, 1]
    world = World(quota={"per_frame": 2})
    crowd = dict.fromkeys(range(1, 6), 20.0)
    assert [world.fired(crowd) for _ in range(4)] == [[1, 2], [3, 4], [5], []]
    world = World(quota={"per_run": 3})
    assert [len(world.fired(crowd)) for _ in range(3)] == [3, 0, 0]


def test_a_quota_of_the_run_holds_over_all_fields_of_view_and_a_cells_does_not() -> None:
    options = {"action": LIGHT, "condition": "mean > 10", "quota": {"per_run": 3, "per_cell": 1}}
    rules = FieldRules([PluginChoice("when", options)])
    worlds = [World(), World()]
    for world in worlds:
        (world.rule,) = rules.build()  # pyright: ignore[reportAttributeAccessIssue]
    crowd = {1: 20.0, 2: 20.0}
    assert [world.fired(crowd) for world in worlds] == [[1, 2], [1]]


def test_what_the_limits_refuse_counts_for_nothing() -> None:
    world = World(refuse=True, quota={"per_cell": 1, "per_run": 1})
    assert world.course([11, 11, 11]) == [0, 1, 2]
    world.refuse = False
    assert world.course([11, 11]) == [0]


def test_of_the_cells_that_are_meant_only_the_first_by_rank_are_acted_on() -> None:
    world = World(rank="mean", most=2)
    assert world.fired({1: 20, 2: 40, 3: 30, 4: 5}) == [2, 3]
    assert world.fired({1: 20, 2: 40, 3: 30, 4: 5}) == []  # the third is not among the two brightest
    assert world.why(0).verdict == "no: not among the 2 with the highest rank"
    assert world.fired({1: 50, 2: 40, 3: 30, 4: 5}) == [1]


def test_of_a_lineage_or_of_sisters_one_is_acted_on() -> None:
    birth = {"parents": {2: 1, 3: 1}, "divisions": (Division(1, (2, 3)),)}
    lineage, sisters, each = World(once_per="lineage"), World(once_per="mother"), World()
    assert [world.fired({1: 20}) for world in (lineage, sisters, each)] == [[1]] * 3
    assert [world.fired({2: 20, 3: 20}, **birth) for world in (lineage, sisters, each)] == [[], [2], [2, 3]]
    assert lineage.why(0).verdict == "no: another cell of its lineage was acted on"


def test_a_condition_of_the_frame_fires_once_and_is_about_no_cell() -> None:
    world = World(condition="frame.count >= 3", action={"do": "stop"})
    assert world.fired({1: 1, 2: 1}) == []
    (decision,) = world.see({1: 1, 2: 1, 3: 1}).decisions
    assert (decision.track, decision.at_px) == (0, None)
    assert decision.reasons[0] == "frame.count >= 3 (3 against 3)"
    assert world.fired({1: 1, 2: 1, 3: 1}) == []


def test_an_action_of_the_whole_frame_is_asked_for_once_however_many_cells_ask() -> None:
    world = World(action={"do": "exposure", "exposure_ms": 20.0})
    assert len(world.see({1: 20, 2: 20, 3: 20}).decisions) == 1
    assert len(world.see({1: 20, 2: 20, 3: 20}).decisions) == 0


def test_what_was_done_to_a_track_counts_for_the_one_that_it_is() -> None:
    world = World(quota={"per_cell": 1}, cooldown="0 s")
    assert world.fired({1: 5, 2: 20}) == [2]
    revoked = (Correction(0, 2, 1, 0, "seen better since"),)
    assert world.fired({1: 20}, corrections=revoked) == []


def test_the_place_of_a_track_that_is_over_says_nothing_of_the_next() -> None:
    world = World(quota={"per_cell": 1}, **{"for": "2 frames"})
    assert [world.fired({1: 20}), world.fired({1: 20})] == [[], [1]]
    world.see({}, ended=(Ended(1),))
    assert [world.fired({2: 20}), world.fired({2: 20})] == [[], [2]]


def test_frames_in_which_a_cell_is_not_seen_neither_count_nor_break() -> None:
    world = World(**{"for": "3 frames"})
    assert [world.fired(cells) for cells in ({1: 20}, {1: 20}, {}, {1: 20})] == [[], [], [], [1]]


def test_a_decision_says_where_the_cell_will_be_and_why() -> None:
    world = World(**{"for": "2 frames"})
    world.see({7: 20.0})
    (decision,) = world.see({7: 25.0}).decisions
    assert isinstance(decision, Decision)
    assert (decision.track, decision.sequence, decision.time_s, decision.at_s) == (7, 1, 10.0, 20.0)
    assert decision.at_px == (12.0, 51.0)
    assert decision.velocity_px_s == (0.2, 0.1)
    assert decision.covariance_px2 == (2.0, 0.5, 1.0)
    assert decision.reasons == ("mean > 10 (25 against 10)", "held for 2 frame(s)")
    assert decision.expires_s == 40.0


def test_every_clause_is_explained_with_value_threshold_and_since_when() -> None:
    world = World(condition="mean > 10 and area > 100 um^2", **{"for": "2 frames"})
    world.see({1: 5.0})
    world.see({1: 20.0})
    world.see({1: 21.0})
    said = world.why()
    assert (said.rule, said.track, said.sequence, said.fired) == ("when", 1, 2, False)
    bright, large = said.clauses
    assert (bright.text, bright.value, bright.threshold, bright.holds) == ("mean > 10", 21.0, 10.0, True)
    assert (bright.since_s, large.since_s) == (10.0, 0.0)
    assert (large.value, large.threshold, large.unit, large.holds) == (50.0, 100.0, "um^2", False)
    assert said.verdict == "no: area > 100 um^2 (50 um^2 against 100 um^2)"


def test_of_many_clauses_each_has_a_time_of_its_own() -> None:
    world = World(condition=" and ".join(f"mean > {10 * number}" for number in range(20)))
    for mean in (0.0, 55.0, 155.0, 125.0):  # more clauses hold, then fewer
        world.see({1: mean})
    since = [each.since_s for each in world.why().clauses]
    assert since == [10.0] * 6 + [20.0] * 7 + [30.0] * 3 + [0.0] * 4


def test_of_a_rule_that_comes_later_each_clause_is_told_since_it_looks() -> None:
    world = World()
    world.see({1: 20.0, 2: 5.0})
    world.rule = World(condition="mean > 10 and mean > 50").rule
    world.see({1: 20.0, 2: 5.0})
    world.see({1: 20.0, 2: 20.0})
    assert [[each.since_s for each in world.why(row).clauses] for row in (0, 1)] == [
        [10.0, 10.0],
        [20.0, 10.0],
    ]


def test_every_verdict_is_told() -> None:
    world = World(**{"for": "2 frames"}, cooldown="20 s", quota={"per_cell": 2, "per_frame": 1})
    verdicts = []
    for _ in range(6):
        world.see({1: 20.0})
        verdicts.append(
            world.why().verdict.partition(":")[0] + ":" + world.why().verdict.partition(":")[2][:14]
        )
    assert verdicts == [
        "not yet: held for 1 fr",
        "yes: the condition",
        "no: acted on at 1",
        "yes: the condition",
        "no: acted on 2 ti",
        "no: acted on 2 ti",
    ]
    crowded = World(quota={"per_frame": 1})
    crowded.see({1: 20.0, 2: 20.0})
    assert "others came first" in crowded.why(1).verdict
    spent = World(quota={"per_run": 1})
    spent.see({1: 20.0})
    spent.see({1: 20.0, 2: 20.0})
    assert spent.why(1).verdict == "no: quota.per_run 1 is used up"


def test_a_channel_that_the_frames_lack_is_told_once_and_nothing_is_done() -> None:
    world = World(condition="GFP.mean > 1")
    said = [world.see({1: 20.0}) for _ in range(3)]
    assert [each.messages for each in said] == [
        ("'mean_GFP' is not measured in these frames; what asks for it does not hold",), (), ()
    ]  # fmt: skip
    assert not any(each.decisions for each in said)


@pytest.mark.parametrize(
    ("options", "option", "reason", "hint"),
    [
        ({"condition": "meen > 3"}, "condition", "'meen > 3', column 1: nothing is called 'meen'", "mean"),
        ({"rank": "frame.count"}, "rank", "one number, not one of each cell", ""),
        ({"most": 3}, "most", "needs 'rank'", ""),
        ({"for": "5"}, "for", "a number of frames or a time is needed", ""),
        ({"quota": {"per_cel": 1}}, "quota.per_cel", "allowed: per_cell, per_frame, per_run", "per_cell"),
        ({"quota": {"per_run": 0}}, "quota.per_run", "must be 1 or more", ""),
        ({"action": {"do": "stimulat"}}, "action.do", "'stimulat' is no action", "stimulate"),
        ({"action": {}}, "action.do", "is needed; known: stimulate", ""),
        ({"action": {"do": "stimulate", "powr": 1}}, "action.powr", "unknown option", "power"),
        ({"condition": "frame.count > 3"}, "condition", "says nothing of cells", ""),
        ({"until": "frame.count > 3"}, "until", "must be about cells", ""),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: Any, option: str, reason: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        World(**options)
    assert (caught.value.option, caught.value.did_you_mean) == (option, hint)
    assert reason in caught.value.reason
