"""Choosing a runtime: the fastest that agrees, the same at the next start, and never one that disagrees."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from cytoloop.acquire.errors import MissingExtraError, ModelError, PluginError
from cytoloop.models.parity import Agreement
from cytoloop.models.runtimes import choose, cuda
from cytoloop.models.runtimes.choose import Choice, Trial, build_runtime, pick
from cytoloop.models.runtimes.drawn import drawn_frame
from cytoloop.models.runtimes.onnx import OnnxRuntime
from cytoloop.models.runtimes.trial import Reference
from cytoloop.models.runtimes.variants import converted
from cytoloop.models.runtimes.ways import Net, Way, file_of, hash_of, net_of
from scipy import ndimage

needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="the openvino extra is not installed"
)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CYTOLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def net(write_net, tmp_path):
    return write_net(tmp_path / "net.onnx", width=16)


def blobs(outputs, shape):
    """A decoder: what the first output puts above its mean, at the size of the frame."""
    plane = outputs[0][0, 0]
    mask = ndimage.label(ndimage.gaussian_filter(plane, 2) > plane.mean())[0].astype(np.int32)
    return mask.repeat(2, 0).repeat(2, 1)[: shape[0], : shape[1]]


def trial(runtime, precision, ms, *, accepted=True, reason=""):
    return Trial(runtime, precision, "cpu", ms, "", accepted, reason)


def test_of_all_ways_the_fastest_that_agrees_is_picked_and_the_others_are_told(net, planes):
    runtime, choice = build_runtime(net, frames=[planes])
    assert (choice.trials[0].runtime, choice.trials[0].precision) == ("onnxruntime", "fp32")
    accepted = [each for each in choice.trials if each.accepted]
    assert all(each.ms and each.ms > 0 for each in accepted)
    fastest = min(each.ms for each in accepted)
    (chosen,) = [
        each for each in accepted if (each.runtime, each.precision) == (choice.runtime, choice.precision)
    ]
    assert chosen.ms <= choose.NEAR * fastest
    assert (runtime.name, runtime.precision) == (choice.runtime, choice.precision)
    assert "the reference" in choice.reason
    refused = [each for each in choice.trials if not each.accepted]
    assert all(each.reason for each in refused)
    # Weights that were never trained lose too much in 8 bits: refused, with the figure.
    int8 = next(each for each in choice.trials if (each.runtime, each.precision) == ("onnxruntime", "int8"))
    assert not int8.accepted
    assert "of their spread, allowed 1%" in int8.reason


def test_the_next_start_makes_the_same_choice_without_trying_anything(net, monkeypatch):
    _, first = build_runtime(net, runtime="onnxruntime")
    monkeypatch.setattr(choose, "median_ms", lambda *_: pytest.fail("was measured again"))
    runtime, second = build_runtime(net, runtime="onnxruntime")
    assert second == first
    assert runtime.run(drawn_frame(net_of(net)))[0].shape == (1, 3, 256, 256)


def test_other_weights_other_threads_and_given_frames_are_judged_anew(net, write_net, planes, monkeypatch):
    build_runtime(net, runtime="onnxruntime")
    count = []
    measure = choose.median_ms
    monkeypatch.setattr(choose, "median_ms", lambda *given: count.append(1) or measure(*given))
    build_runtime(net, runtime="onnxruntime", threads=1)
    build_runtime(net, runtime="onnxruntime", frames=[planes])
    write_net(net, width=16, seed=1)
    build_runtime(net, runtime="onnxruntime")
    assert len(count) == 3


def test_a_damaged_choice_is_made_anew(net, cache):
    _, first = build_runtime(net, runtime="onnxruntime")
    (kept,) = (cache / "choices").iterdir()
    kept.write_bytes(kept.read_bytes()[:-5])
    _, second = build_runtime(net, runtime="onnxruntime")
    assert (second.runtime, second.precision) == (first.runtime, first.precision)


def test_a_choice_whose_weights_are_gone_is_made_anew(net, planes, cache, monkeypatch):
    monkeypatch.setattr(choose, "Agreement", lambda: Agreement(((0.5, 0.0),), 1.0, 1e6))
    monkeypatch.setattr(choose, "median_ms", lambda runtimes, _: [100.0 - i for i, _ in enumerate(runtimes)])
    monkeypatch.setattr(choose, "NEAR", 1.0)

    def chosen(**given):
        return build_runtime(net, runtime="onnxruntime", decode=blobs, **given)[1]

    first = chosen(frames=[planes])
    assert first.precision == "int8"
    assert chosen() == first
    for file in (cache / "nets").iterdir():
        file.unlink()
    assert chosen().precision == "fp32"


def test_a_choice_that_cannot_be_kept_is_made_all_the_same(net, cache, caplog):
    cache.write_text("a file where the folder should be")
    assert build_runtime(net, runtime="onnxruntime")[1].runtime == "onnxruntime"
    assert "cannot be kept" in caplog.text


def test_what_is_asked_for_by_name_is_not_put_to_the_test(net):
    runtime, choice = build_runtime(net, runtime="onnxruntime", precision="fp32", threads=1)
    weights = hash_of(net)
    assert choice == Choice("onnxruntime", "fp32", "cpu", "it was asked for", (), weights)
    assert runtime.precision == "fp32"


@needs_openvino
def test_a_net_calibrated_once_is_there_at_every_start(net, planes):
    with pytest.raises(ModelError, match=r"net.onnx: int8 needs frames to calibrate on"):
        build_runtime(net, runtime="openvino", precision="int8")
    first, _ = build_runtime(net, runtime="openvino", precision="int8", frames=[planes])
    assert first.precision == "int8"
    second, _ = build_runtime(net, runtime="openvino", precision="int8")
    assert first.run(planes)[0].tobytes() == second.run(planes)[0].tobytes()


def test_cells_are_compared_where_the_outputs_can_be_decoded(net, planes):
    reference = Reference(OnnxRuntime(net), [planes], blobs)
    words, failed = reference.judge(OnnxRuntime(net), choose.Agreement())
    assert words.startswith("F1@0.5 1.0000, F1@0.75 1.0000, F1@0.9 1.0000, px apart 0.000%")
    assert failed == []
    coarse = converted(net, "int8", runs_on="processor", calibration=[np.float32(0.05) * planes])
    _, failed = reference.judge(OnnxRuntime(coarse), choose.Agreement())
    assert "F1@0.75 is 0.0000, needs 0.99" in failed


def test_outputs_are_compared_where_there_are_no_cells(net, planes):
    def nothing(outputs, shape):
        return np.zeros(shape, np.int32)

    reference = Reference(OnnxRuntime(net), [planes], nothing)
    coarse = converted(net, "int8", runs_on="processor", calibration=[np.float32(0.05) * planes])
    words, failed = reference.judge(OnnxRuntime(coarse), choose.Agreement())
    assert "of their spread" in words
    assert failed


def test_a_runtime_that_answers_with_no_numbers_is_refused(net, planes):
    class Broken(OnnxRuntime):
        def run(self, tensor):
            return tuple(np.full_like(output, np.nan) for output in super().run(tensor))

    _, failed = Reference(OnnxRuntime(net), [planes], None).judge(Broken(net), choose.Agreement())
    assert failed == ["its outputs are not all numbers"]


def test_of_ways_about_as_fast_the_most_exact_is_taken():
    trials = [
        trial("onnxruntime", "fp32", 10.0),
        trial("openvino", "fp32", 5.3),
        trial("openvino", "int8", 5.0),
    ]
    assert pick(trials, "a frame").precision == "fp32"
    assert pick(trials, "a frame").runtime == "openvino"
    faster = [*trials, trial("openvino", "bf16", 4.0)]
    assert pick(faster, "a frame").precision == "bf16"


def test_a_way_that_was_refused_is_not_picked_however_fast():
    trials = [
        trial("onnxruntime", "fp32", 10.0),
        trial("openvino", "int8", 1.0, accepted=False, reason="F1 is 0.5"),
    ]
    choice = pick(trials, "3 frames")
    assert (choice.runtime, choice.precision) == ("onnxruntime", "fp32")
    assert (
        choice.reason
        == "10.0 ms a frame, the reference 10.0 ms; no other works and agrees, judged on 3 frames"
    )
    refused = [trial("onnxruntime", "fp32", 10.0, accepted=False), trials[1]]
    with pytest.raises(ModelError, match=r"agrees with the reference: openvino int8: F1 is 0.5"):
        pick(refused, "3 frames")


def test_what_cannot_be_had_is_refused_with_the_reason(net, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "cards", list)
    with pytest.raises(ModelError, match=r"no way to run ONNX weights in fp32 with runtime 'torch'"):
        build_runtime(net, runtime="torch")
    with pytest.raises(PluginError, match="no 'onxruntime'"):
        build_runtime(net, runtime="onxruntime")
    with pytest.raises(ValueError, match="precision must be 'auto' or one of fp32, .*; did you mean 'fp16'"):
        build_runtime(net, precision="fp61")
    with pytest.raises(ModelError, match="missing.onnx: cannot be read"):
        build_runtime(tmp_path / "missing.onnx")


@pytest.mark.skipif(find_spec("openvino") is not None, reason="OpenVINO is installed")
def test_a_runtime_that_is_not_installed_names_its_extra(net):
    with pytest.raises(MissingExtraError, match=r"cytoloop\[openvino\]"):
        build_runtime(net, runtime="openvino", precision="fp32")


def test_a_file_in_less_precision_is_run_as_it_is(net, planes):
    quantised = converted(net, "int8", runs_on="processor", calibration=[planes])
    runtime, choice = build_runtime(quantised, runtime="onnxruntime")
    assert (runtime.precision, choice.precision, choice.trials) == ("int8", "int8", ())
    assert net_of(quantised).reference == Way("onnxruntime", "int8")


def test_a_converted_net_is_made_once_and_again_when_damaged_or_calibrated_on_other_frames(net, planes):
    def int8(*frames):
        return converted(net, "int8", runs_on="processor", calibration=frames)

    path = int8(planes)
    first, made = path.read_bytes(), path.stat().st_mtime_ns
    assert (int8(planes), int8()) == (path, path)
    assert path.stat().st_mtime_ns == made
    assert int8(2 * planes).read_bytes() != first
    assert int8(planes).read_bytes() == first
    path.write_bytes(first[:100])
    assert int8(planes).read_bytes() == first
    path.write_bytes(first[:100])
    with pytest.raises(ModelError, match="needs frames"):
        int8()
    assert converted(net, "int8", runs_on="tensorrt", calibration=[planes]) != path
    assert sorted(file.suffix for file in path.parent.iterdir()) == [".onnx", ".onnx", ".sealed", ".sealed"]


def test_the_drawn_frame_suits_the_net_and_is_always_the_same(write_net, tmp_path):
    frame = drawn_frame(net_of(write_net(tmp_path / "two.onnx", channels=2)))
    assert frame.shape == (1, 2, 512, 512)
    assert frame.dtype == np.float32
    assert frame.tobytes() == drawn_frame(net_of(tmp_path / "two.onnx")).tobytes()
    cells, count = ndimage.label(ndimage.gaussian_filter(frame[0, 0], 2) > 0.2)
    assert count > 50
    assert 0.1 < (cells > 0).mean() < 0.5


def test_a_runtime_that_is_not_registered_can_be_named(net):
    path = "cytoloop.models.runtimes.onnx:OnnxRuntime"
    runtime, choice = build_runtime(net, runtime=path)
    assert isinstance(runtime, OnnxRuntime)
    assert choice.runtime == path


def test_what_was_tried_at_once_is_kept_for_any_runtime_and_for_each(net):
    trials = [
        trial("onnxruntime", "fp32", 10.0),
        trial("onnxruntime", "int8", None, accepted=False, reason="F1 is 0.5"),
        trial("openvino", "fp32", 30.0),
    ]
    files = net_of(net)
    assert choose.remember_trials(files, 2, trials, "3 frames").runtime == "onnxruntime"
    kept = {
        name: choose.recall(files, name, "auto", 2) for name in ("auto", "onnxruntime", "openvino", "torch")
    }
    assert {name: choice and choice.runtime for name, choice in kept.items()} == {
        "auto": "onnxruntime",
        "onnxruntime": "onnxruntime",
        "openvino": "openvino",
        "torch": None,
    }
    assert kept["auto"].weights == hash_of(net)
    assert choose.recall(files, "auto", "auto", 1) is None


def test_int8_weights_that_came_with_a_net_serve_until_it_is_calibrated_here(net, planes, tmp_path):
    shipped = converted(net, "int8", runs_on="processor", calibration=[3 * planes]).rename(
        tmp_path / "int8.onnx"
    )
    files = Net(net, None, int8=shipped)
    way = Way("onnxruntime", "int8")
    assert file_of(way, files) == shipped
    own = file_of(way, files, [planes])
    assert own != shipped
    assert file_of(way, files) == own
    with pytest.raises(ModelError, match="needs frames"):
        file_of(Way("tensorrt", "int8"), files)
