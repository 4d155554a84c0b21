"""What says that it is warm compiles nothing more: a compiler holds a step up for many seconds, and an engine that is
silent for that long is taken for hung and replaced by the next, which compiles again."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from cytoloop.realtime.bench.families import FAMILIES

# In processes of their own, because the tests of this one have compiled all sorts of things before.
_COUNT = """
import gc, json, sys
import numpy as np
from numba.core.dispatcher import Dispatcher

def compiled():
    kernels = [each for each in gc.get_objects() if isinstance(each, Dispatcher)]
    return {f"{k.py_func.__module__}.{k.__name__}": len(k.overloads) for k in kernels}

def late(before):
    return sorted(name for name, count in compiled().items() if count > before.get(name, 0))

given = json.loads(sys.argv[1])
"""
_ENGINE = """
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.pixels import checksum, frame_of, header_of
from cytoloop.acquire.simulated.source import SimulatedSource
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.pipeline import Pipeline
from cytoloop.realtime.service.journal import Entry

def frames():
    white = np.iinfo(given["dtype"]).max
    for frame in SimulatedSource(kind="dividing", frames=6, size_px=256, seed=3).frames():
        image = (frame.pixels / frame.pixels.max() * white).astype(given["dtype"])
        pixels = np.stack([image] * given["channels"]) if given["channels"] > 1 else image
        names = tuple("abc"[: given["channels"]])
        sent = Frame(pixels, frame.sequence, frame.time_s, {}, names, stage_um=(0.0, 0.0), pixel_size_um=0.5)
        header = header_of(sent, skipped=0, slot=-1, check=checksum(pixels))
        yield header, frame_of(header, memoryview(pixels.tobytes()))

stream = StreamConfig(
    segmenter=PluginChoice(given["segmenter"], given["options"]), tracker=PluginChoice(given["tracker"])
)
live = Pipeline(stream)
before = compiled()
entries, cells = [], 0
for header, frame in frames():
    step = live.step(frame)
    entries.append(Entry.of(header, step.detections, step.reply, step.frame, step.memory))
    cells += len(step.reply.cells)
stepping = late(before)

successor = Pipeline(stream)
before = compiled()
same = [successor.restore(e.frame, e.restore_detections(), e.memory).cells.track.tolist() for e in entries]
restored = same == [e.reply.cells.track.tolist() for e in entries]
print(json.dumps({"cells": cells, "stepping": stepping, "taking over": late(before), "restored": restored}))
"""
_DECODER = """
from cytoloop.models.decoders.decoder import Grid
from cytoloop.realtime.bench.families import FAMILIES
from cytoloop.realtime.bench.scenes import simulated

family, mask = FAMILIES[given], simulated(256).truth[0]
outputs, decoder = family.encode(mask), family.build()
before = compiled()
found = decoder.decode(outputs, Grid(mask.shape, (1.0, 1.0)))
print(json.dumps({"cells": found.count, "late": late(before)}))
"""
_RULES = """
import cytoloop.realtime.bench.rules as bench
from cytoloop.realtime.rules.when import When
from cytoloop.trackers.history import History

light = {"do": "stimulate", "duration_ms": 50.0}
rules = [When(light, text, rank="area", until="area < 1 px^2", quota={"per_cell": 1}) for text in given]
world, history = bench._World(50, 0), History()
before = compiled()
decisions = 0
for number in range(40):
    tracks = world.tracks(number)
    measured = bench.measured_of(tracks, ("",))
    frame = bench.Frame(world.pixels, sequence=number, time_s=10.0 * number, pixel_size_um=0.65)
    descent = history.update(tracks, measured)
    affine = bench.Affine.from_pixel_size(0.65)
    moment = bench.Moment(frame, tracks, affine, 0, history, descent, measured)
    for rule in rules:
        verdict = rule.decide(moment)
        rule.settled(verdict.decisions)
        rule.explain(moment, 0)
        decisions += len(verdict.decisions)
print(json.dumps({"decisions": decisions, "late": late(before)}))
"""


def _run(program: str, given: Any) -> dict[str, Any]:
    command = [sys.executable, "-c", _COUNT + program, json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("segmenter", "options", "tracker", "dtype", "channels"),
    [
        ("net", {}, "lap", "uint16", 1),
        ("net", {}, "nearest", "uint8", 2),
        ("classical", {}, "lap", "uint8", 1),
        ("flow", {}, "flow", "uint8", 1),
        ("flow", {}, "flow", "uint16", 1),
        ("paired", {"nuclei": "classical", "cells": {"ring_px": 4}}, "lap", "uint16", 2),
    ],
)
def test_an_engine_that_is_warm_compiles_nothing_more(
    segmenter: str, options: dict[str, Any], tracker: str, dtype: str, channels: int
) -> None:
    given = {
        "segmenter": segmenter,
        "options": options,
        "tracker": tracker,
        "dtype": dtype,
        "channels": channels,
    }
    found = _run(_ENGINE, given)
    assert found.pop("cells") > 30
    assert found == {"stepping": [], "taking over": [], "restored": True}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_decoder_that_is_built_compiles_nothing_more(family: str) -> None:
    found = _run(_DECODER, family)
    assert found["cells"] > 10
    assert found["late"] == []


def test_rules_that_are_built_compile_nothing_more() -> None:
    asked = (
        "rate(area, 5 frames) > 0 um^2/min or past_std(mean / area, 20 frames) > 0 px^-2",
        "before(mean, 40 s) > 0 and change(p.dead, 3 frames) > 1",
        "neighbours(30 um) < 3 or nearest > 10 um",
        "rank(mean) <= 10 and mean > median(mean) and zscore(area) > 0",
    )
    found = _run(_RULES, asked)
    assert found["decisions"] > 10
    assert found["late"] == []
