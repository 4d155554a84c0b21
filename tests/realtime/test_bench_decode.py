"""The measurement of decoders: what it counts is so, what is left out is told, and ours find what the others find."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import MissingExtraError
from cytoloop.models.decoders.decoder import Grid
from cytoloop.models.labels import numbered
from cytoloop.models.scores import score
from cytoloop.realtime.bench import decode, own_decoders
from cytoloop.realtime.bench.families import FAMILIES
from cytoloop.realtime.bench.own_decoders import OWN
from cytoloop.realtime.bench.scenes import simulated
from cytoloop.realtime.cli import main
from cytoloop.realtime.progress import silent

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SIZE = 160


@pytest.fixture(scope="module")
def measured() -> dict[str, object]:
    return decode.run(silent, size=(SIZE,), frames=2, others=False)


def test_every_family_is_measured_and_each_decoder_left_out_is_told(measured):
    assert [row["family"] for row in measured["rows"]] == list(FAMILIES) == list(OWN)
    assert {row["decoder"] for row in measured["rows"]} == {"cytoloop"}
    assert {each["family"] for each in measured["skipped"]} == set(FAMILIES)
    assert all(each["decoder"] and each["reason"] for each in measured["skipped"])


def test_rows_hold_what_came_back_and_how_long_it_took(measured):
    for row in measured["rows"]:
        assert row["size"] == SIZE
        assert row["cells_true"] > 8
        assert row["f1_50"] > 0.95, row["family"]
        assert row["mean_iou"] > 0.9, row["family"]
        assert 0 < row["ms"]["p50"] <= row["ms"]["p99"] <= row["ms"]["max"]
        assert row["cpu_ms"] > 0
        assert np.isnan(row["times_as_fast"])
    assert json.dumps(measured)


class Slow:
    """An own decoder that finds one cell, and talks."""

    name = "slow"

    def prepare(self, outputs, shape):
        return shape

    def decode(self, given):
        sys.stdout.write("one cell found\n")
        return np.ones(given, np.int64)


class Broken(Slow):
    name = "broken"

    def decode(self, given):
        raise ZeroDivisionError("no cells")


class Missing(Slow):
    name = "missing"

    def __init__(self):
        raise MissingExtraError("missing", "peers")


@pytest.fixture
def other_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    for family, kind in (("boundary", Slow), ("distance", Broken), ("boxes", Missing)):
        monkeypatch.setitem(OWN, family, kind)


def test_the_other_decoder_of_a_family_is_a_row_beside_ours(other_decoders, capsys):
    main_args = ["bench", "decode", "--family", "boundary", "--size", str(SIZE), "--frames", "1", "--json"]
    with pytest.raises(SystemExit) as left:
        main(main_args)
    assert left.value.code == 0
    printed = capsys.readouterr()
    ours, theirs = json.loads(printed.out)["rows"]  # what others print does not come in between
    assert "one cell found" in printed.err
    assert (ours["decoder"], theirs["decoder"], theirs["cells"]) == ("cytoloop", "slow", 1)
    assert ours["times_as_fast"] == pytest.approx(theirs["ms"]["p50"] / ours["ms"]["p50"], rel=0.01)
    assert ours["times_as_fast"] * theirs["times_as_fast"] == pytest.approx(1)


def test_a_decoder_that_fails_or_is_missing_leaves_the_rest_standing(other_decoders):
    found = decode.run(silent, family=("distance", "boxes"), size=(SIZE,), frames=1)
    assert [(row["family"], row["decoder"]) for row in found["rows"]] == [
        ("distance", "cytoloop"),
        ("boxes", "cytoloop"),
    ]
    reasons = {each["decoder"]: each["reason"] for each in found["skipped"]}
    assert "no cells" in reasons["broken"]
    assert "cytoloop[peers]" in reasons["missing"]


def test_packages_that_cannot_be_imported_say_why(monkeypatch: pytest.MonkeyPatch):
    def fail(name: str) -> None:
        raise RuntimeError("operator is not there")

    monkeypatch.setattr(own_decoders.importlib, "import_module", fail)
    monkeypatch.setattr(own_decoders, "find_spec", lambda name: object())
    for kind in OWN.values():
        with pytest.raises(MissingExtraError, match="operator is not there"):
            kind()


def test_masks_of_a_folder_are_taken_evenly_spread(tmp_path: Path):
    mask = simulated(96).truth[0]
    for number in range(12):
        tifffile.imwrite(tmp_path / f"mask{number}.tif", (mask * (number + 1)).astype(np.uint16))
    assert [path.stem for path in decode._mask_files(tmp_path, 3)] == ["mask0", "mask5", "mask11"]
    (row,) = decode.run(silent, family=("boundary",), masks=str(tmp_path), frames=3, others=False)["rows"]
    assert row["size"] == 96
    assert row["cells_true"] == mask.max()
    assert row["f1_50"] > 0.9


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--size", "8"), "64 px or more"),
        (("--frames", "0"), "1 frame or more"),
        (("--family", "startdist"), "Did you mean 'stardist'?"),
        (("--masks", "no-such-folder"), "no-such-folder"),
    ],
)
def test_what_cannot_be_measured_is_wrong_usage(args: tuple[str, ...], told: str, capsys):
    with pytest.raises(SystemExit) as left:
        main(["bench", "decode", *args])
    assert left.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_numbers_are_consecutive_whether_or_not_there_is_background():
    assert numbered(np.array([[0, 7, 3]], np.int32))[0].tolist() == [[0, 2, 1]]
    assert numbered(np.array([[7, 3]], np.int32))[0].tolist() == [[2, 1]]


def agree(family: str, mask: np.ndarray, least: float) -> None:
    """Compare our decoder with the family's own, with each other and with the truth."""
    try:
        own = OWN[family]()
    except MissingExtraError as error:
        pytest.skip(str(error))
    outputs = FAMILIES[family].encode(mask)
    ours = FAMILIES[family].build().decode(outputs, Grid(mask.shape, (1.0, 1.0))).image
    theirs = np.asarray(own.decode(own.prepare(outputs, mask.shape)))
    assert theirs.shape == mask.shape
    assert score(theirs, ours).f1[0.5] >= least
    assert score(mask, ours).f1[0.5] >= score(mask, theirs).f1[0.5] - 0.01


PACKAGES = {
    "boundary": "skimage",
    "distance": "skimage",
    "stardist": "stardist",
    "cellpose": "cellpose",
    "omnipose": "omnipose",
    "instanseg": "instanseg",
    "boxes": "torchvision",
}


@pytest.mark.filterwarnings("ignore")  # of the packages
@pytest.mark.parametrize("family", FAMILIES)
def test_ours_finds_the_cells_that_the_own_decoder_of_the_family_finds(family: str):
    pytest.importorskip(PACKAGES[family], exc_type=Exception)
    agree(family, simulated(256).truth[0], 0.98)


@pytest.mark.filterwarnings("ignore")  # of the packages
@pytest.mark.parametrize("family", FAMILIES)
def test_it_does_so_on_true_masks_of_a_real_movie(family: str):
    pytest.importorskip(PACKAGES[family], exc_type=Exception)
    path = DATA / "Fluo-N2DH-SIM+/01_GT/SEG/man_seg040.tif"
    if not path.is_file():
        pytest.skip("the shared data are not here")
    agree(family, numbered(tifffile.imread(path).astype(np.int32))[0], 0.95)
