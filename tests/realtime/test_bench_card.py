"""The measurement of a card: what it reaches bounds what a net can, and without a card there is none."""

from __future__ import annotations

import math
import subprocess

import pytest
from cytoloop.acquire.errors import ModelError
from cytoloop.models.runtimes import cuda
from cytoloop.realtime.bench import card, segment
from cytoloop.realtime.bench.card import Card, measured_card
from cytoloop.realtime.progress import silent

GIVEN = Card("NVIDIA Test", fp32_tflops=10.0, fp16_tflops=40.0, copy_gbps=500.0)


def seen_by_torch() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


needs_card = pytest.mark.skipif(not seen_by_torch(), reason="no NVIDIA card, or no torch that sees it")


@pytest.mark.parametrize(
    ("gflop", "mbyte", "precision", "floor_ms"),
    [
        (20.0, 100.0, "fp32", 2.0),
        (20.0, 100.0, "fp16", 0.5),
        (20.0, 500.0, "fp16", 1.0),
        (20.0, 100.0, "int8", math.nan),
        (20.0, 100.0, "bf16", math.nan),
        (math.nan, 100.0, "fp32", math.nan),
        (20.0, math.nan, "fp32", math.nan),
    ],
)
def test_a_net_takes_as_long_as_its_operations_or_its_bytes(gflop, mbyte, precision, floor_ms):
    assert GIVEN.floor_ms(gflop, mbyte, precision) == pytest.approx(floor_ms, nan_ok=True)


def test_a_card_is_known_by_its_name_and_by_that_of_onnx_runtime():
    assert GIVEN.is_called("NVIDIA Test")
    assert GIVEN.is_called("cuda")
    assert not GIVEN.is_called("cpu")


def test_without_a_card_nothing_is_started(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda, "cards", list)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("a process was started"))
    assert measured_card() is None


@pytest.mark.skipif(seen_by_torch(), reason="torch sees a card")
def test_a_card_that_torch_does_not_see_is_not_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda, "cards", lambda: ["NVIDIA Test"])
    assert measured_card() is None


def test_a_card_that_fails_is_told_and_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch):
    failed = subprocess.CompletedProcess([], 1, "", "Traceback ...\nOutOfMemoryError: 1 GiB\n")
    monkeypatch.setattr(cuda, "cards", lambda: ["NVIDIA Test"])
    monkeypatch.setattr(card, "find_spec", lambda name: name)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(ModelError, match="cannot be measured: OutOfMemoryError: 1 GiB"):
        measured_card()
    monkeypatch.setattr(segment, "peak_gflops", lambda threads: 50.0)
    told = segment.run(silent, only=("classical",), size=(64,), frames=1)
    assert told["card"] is None
    assert len(told["rows"]) == 1
    assert "OutOfMemoryError" in told["skipped"][0]["reason"]


@pytest.mark.gpu
@needs_card
def test_a_card_reaches_plausible_rates():
    found = measured_card()
    assert found is not None
    assert found.name in cuda.cards()
    assert 0.5 < found.fp32_tflops <= found.fp16_tflops < 10_000
    assert 20 < found.copy_gbps < 50_000


@pytest.mark.gpu
@needs_card
def test_the_default_net_reaches_a_part_of_the_roofline():
    told = segment.run(silent, only=("q32",), size=(512,), quick=True)
    rows = [row for row in told["rows"] if row["runtime"] == "torch"]
    assert {row["device"] for row in rows} == {told["card"]["name"]}
    for row in rows:
        assert 0 < row["share_of_peak"] <= 1.5
        assert 0 < row["net_ms"]["p50"] <= row["ms"]["p50"]
