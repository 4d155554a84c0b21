"""Examples of what the rules of a run chose and did not choose, each explained clause by clause."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import tifffile
from numpy.typing import NDArray

from ...acquire.explanation import Explanation
from ...acquire.outcome import Outcome
from ...acquire.reply import Decision
from ..asking import Judged, explain
from ..progress import Progress, silent
from ..rules.rule import Moment, Rule
from ..service.outcome_log import read_outcomes
from ..service.run_folder import read_stream
from .firings import Crop, cut_crop
from .images import Wanted
from .played import Played, Seen, playing

MOST_EXAMPLES = 12
MOST_PLAYED = 2000
"""Only this many frames are worked out again for examples, and images of them looked for."""
_ASKED = 16

Images: TypeAlias = Callable[[Sequence[Wanted]], Iterable[tuple[int, NDArray[Any]]]]
"""Yields the segmented channel of frames, each with its number, as :func:`~.images.images_in` does."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One cell in one frame, with what a rule says of it.

    Attributes
    ----------
    explanation
        Why it was or was not chosen; of a rule about the frame as a whole, of that.
    time_s
        Of the frame.
    crop
        The image around the cell; None where there is none.
    outcome
        What came of the decision at the microscope, if that is known.
    """

    explanation: Explanation
    time_s: float
    crop: Crop | None = None
    outcome: Outcome | None = None


def examples_of(
    run: Path,
    decisions: Iterable[Decision],
    images: Images,
    progress: Progress = silent,
    most: int = MOST_EXAMPLES,
) -> dict[str, list[Example]]:
    """Return, for each rule that was armed, some cells that it chose and some of the same frames that it did not.

    The run is worked out again from its journal, without segmenting anything. Of a rule that chose nothing, cells of
    the last frame are explained. Those not chosen are the ones near the chosen cell for which most clauses held.

    Parameters
    ----------
    run
        The run's folder of the service.
    decisions
        Of the run, in order; its first ones are enough.
    images
        Where images come from.
    progress
        Told about each frame.
    most
        Examples of all rules together, at least one for each of the first so many rules.

    Returns
    -------
    dict
        By name of the rule, those that were chosen first; empty without rules. What happened after the first 2000
        frames is not looked at.

    Raises
    ------
    SourceError
        If the folder is that of no run or lacks its configuration, or the images cannot be read.
    PluginError
        If what the run was made with is not there.
    """
    stream = read_stream(run)
    if not stream.rules:
        return {}
    search = _Search(decisions, len(stream.rules), most)
    played = Played()
    with playing(run, msgspec.structs.replace(stream, shadow=()), played, progress) as frames:
        seen = None
        for seen in frames:
            search.look(seen)
            if search.is_over or played.frames >= MOST_PLAYED:
                break
        if seen is not None:
            search.look_at_the_silent(seen)
    pictured = _with_images(run, search.found, images)
    return _sorted(_with_outcomes(run, pictured))


class _Found(NamedTuple):
    """An example whose image is not known yet.

    ``mask`` is the number of the frame's mask, ``shape`` the (y, x) size of the frame, ``bbox`` y0, x0, y1, x1 of the
    cell in px, empty if no cell is meant, and ``label`` that of the cell.
    """

    example: Example
    wanted: Wanted
    mask: int
    shape: tuple[int, ...]
    bbox: tuple[int, ...] = ()
    label: int = 0


class _Search:
    """Finds the examples of all rules while the frames go by.

    Parameters
    ----------
    decisions
        Of the run, in order.
    rules, most
        How many rules there are, and how many examples there may be.

    Attributes
    ----------
    found
        The examples so far.
    """

    def __init__(self, decisions: Iterable[Decision], rules: int, most: int) -> None:
        self.found: list[_Found] = []
        self._share = max(
            1, most // (2 * rules)
        )  # of each rule: so many that it chose, and as many that it did not
        self._most_rules = max(1, most // 2)
        self._chosen: dict[str, list[Decision]] = {}
        for decision in decisions:
            if decision.rule in self._chosen or len(self._chosen) < self._most_rules:
                own = self._chosen.setdefault(decision.rule, [])
                if len(own) < self._share and decision.track not in (each.track for each in own):
                    own.append(decision)
        self._waiting = [decision for own in self._chosen.values() for decision in own]
        self._left = dict.fromkeys(self._chosen, self._share)
        self._shown: set[tuple[str, int]] = {(each.rule, each.track) for each in self._waiting}
        self.is_over = False

    def look(self, seen: Seen) -> None:
        """Take in one frame."""
        judged = seen.judged
        here = [each for each in self._waiting if each.sequence == judged.moment.frame.sequence]
        for decision in here:
            self._waiting.remove(decision)
            rule = next((each for each in judged.rules[""] if each.name == decision.rule), None)
            if rule is None:
                continue
            if decision.track:
                self._add(seen, _explained(judged, rule, decision.track))
                wanted = -(-self._share // len(self._chosen[decision.rule]))
                self._add_others(seen, rule, decision.track, wanted)
            else:
                self._add(seen, _of_frame(judged, rule))
        self.is_over = bool(self._chosen) and not self._waiting

    def look_at_the_silent(self, seen: Seen) -> None:
        """Explain the rules that have chosen nothing so far by cells of this frame, in the middle of the image."""
        heard = {each.example.explanation.rule for each in self.found}
        others = [each for each in seen.judged.rules[""] if each.name not in heard]
        for rule in others[: self._most_rules - len(heard)]:
            self._left[rule.name] = self._share
            tracks = seen.judged.moment.tracks.track.tolist()
            if tracks and _explained(seen.judged, rule, tracks[0]).track:
                self._add_others(seen, rule, 0, self._share)
            else:
                self._add(seen, _of_frame(seen.judged, rule))

    def _add_others(self, seen: Seen, rule: Rule, track: int, wanted: int) -> None:
        """Add cells that the rule did not choose, near one that it chose, or in the middle."""
        explanations = [_explained(seen.judged, rule, each) for each in _near(seen.judged.moment, track)]
        others = [
            each for each in explanations if not each.fired and (rule.name, each.track) not in self._shown
        ]
        others.sort(key=lambda each: sum(not clause.holds for clause in each.clauses))
        for explanation in others[: min(wanted, self._left[rule.name])]:
            self._left[rule.name] -= 1
            self._shown.add((rule.name, explanation.track))
            self._add(seen, explanation)

    def _add(self, seen: Seen, explanation: Explanation) -> None:
        moment = seen.judged.moment
        detections = moment.tracks.detections
        row = moment.tracks.row(explanation.track) if explanation.track else None
        found = _Found(
            Example(explanation, moment.frame.time_s),
            Wanted(moment.frame, moment.channel),
            seen.reply.sequence,
            detections.shape,
        )
        if row is not None:
            found = found._replace(bbox=tuple(detections.bbox[row].tolist()), label=row + 1)
        self.found.append(found)


def _explained(judged: Judged, rule: Rule, track: int) -> Explanation:
    """Return what a rule says of a cell; 0 asks about the frame as a whole."""
    (explanation,) = explain((rule,), judged.moment, judged.decisions[""], track)
    return explanation


def _of_frame(judged: Judged, rule: Rule) -> Explanation:
    """Return what a rule says of the frame as a whole; one that looks at nothing else says so of every cell."""
    tracks = judged.moment.tracks.track.tolist()
    explanation = _explained(judged, rule, tracks[0] if tracks else 0)
    return explanation if explanation.track == 0 else _explained(judged, rule, 0)


def _near(moment: Moment, track: int) -> list[int]:
    """Return the cells nearest to a cell, without it; without one, those nearest to the middle of the image."""
    tracks = moment.tracks
    row = tracks.row(track)
    yx = tracks.detections.yx
    centre = (np.array(tracks.detections.shape) - 1) / 2 if row is None else yx[row]
    order = np.argsort(np.hypot(*(yx - centre).T), kind="stable")
    return [int(each) for each in tracks.track[order[: _ASKED + 1]] if each != track]


def _with_images(run: Path, found: list[_Found], images: Images) -> list[Example]:
    """Return the examples, those of a cell with the image around it."""
    wanted = {each.wanted.frame.sequence: each.wanted for each in found if each.bbox}
    crops: dict[int, Crop] = {}
    for number, image in images(list(wanted.values())) if wanted else ():
        own = [place for place, each in enumerate(found) if each.wanted.frame.sequence == number]
        labels = _mask(run, found[own[0]].mask) if own else None
        for place in own:
            each = found[place]
            if each.bbox and image.shape == each.shape:
                fits = labels is not None and labels.shape == each.shape
                crops[place] = cut_crop(image, labels if fits else None, each.bbox, each.label, "")
    return [replace(each.example, crop=crops.get(place)) for place, each in enumerate(found)]


def _mask(run: Path, number: int) -> NDArray[Any] | None:
    path = run / "masks" / f"{number:06d}.tif"
    return tifffile.imread(path) if path.is_file() else None


def _with_outcomes(run: Path, examples: list[Example]) -> list[Example]:
    """Return the examples, those that were chosen with what came of it."""
    places = {
        (each.explanation.sequence, each.explanation.rule, each.explanation.track): place
        for place, each in enumerate(examples)
        if each.explanation.fired
    }
    examples = list(examples)
    for outcome in read_outcomes(run) if places else ():
        place = places.pop((outcome.sequence, outcome.rule, outcome.track), None)
        if place is not None:
            examples[place] = replace(examples[place], outcome=outcome)
    return examples


def _sorted(examples: list[Example]) -> dict[str, list[Example]]:
    """Return the examples by rule, in the order of the rules; those that were chosen first."""
    by_rule: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda each: not each.explanation.fired):
        by_rule.setdefault(example.explanation.rule, []).append(example)
    return by_rule
