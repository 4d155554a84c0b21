"""Model packages: ours and those of BioImage.IO are read, run as described, and written as others can read them."""

from __future__ import annotations

import gc
import shutil
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cytoloop.acquire.errors import ModelError
from cytoloop.acquire.plugins import build, find_class
from cytoloop.models.packages.adapt import adapt, prepare
from cytoloop.models.packages.framing import Framing
from cytoloop.models.packages.normalise import Normalisation
from cytoloop.models.packages.package import ModelPackage, known_packages, load_package
from cytoloop.models.packages.saving import save_package, weights_file
from cytoloop.models.runtimes.onnx import OnnxRuntime

SIDES = {"y": {"min": 16, "step": 16}, "x": {"min": 16, "step": 16}}


@pytest.fixture
def net(write_net, tmp_path) -> Path:
    """(1, 1, y, x) -> (1, 3, y / 2, x / 2), sides in steps of 16 px."""
    (tmp_path / "nets").mkdir()
    return write_net(tmp_path / "nets" / "net.onnx")


@pytest.fixture
def short_sighted(write_net, tmp_path) -> Path:
    """The same, but each px of the output sees 12 px around it only."""
    (tmp_path / "short").mkdir()
    return write_net(tmp_path / "short" / "net.onnx", levels=0)


@pytest.fixture
def core(monkeypatch, tmp_path):
    """bioimageio.core, which leaves the files that it reads open."""
    monkeypatch.setenv("BIOIMAGEIO_CACHE_PATH", str(tmp_path / "bioimageio"))
    core = pytest.importorskip("bioimageio.core", reason="bioimageio.core is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield core
        gc.collect()


@pytest.fixture
def ours(net) -> ModelPackage:
    return ModelPackage(
        name="q8",
        folder=net.parent,
        weights=(weights_file(net),),
        channel_names=("cells",),
        step=16,
        grid=2,
        diameter_px=24.0,
        diameter_range=(12.0, 56.0),
        shown_px=30.0,
        novelty={"doubt_p95": 0.5},
        decoder="core",
        decoder_options={"persistence": 0.25},
        card="# q8\n\n## Validation\n\nNone: it was never trained.\n",
        terms="BSD-3-Clause",
    )


def rdf_05(net: Path, **changes: Any) -> dict[str, Any]:
    """Return a description of the net in format 0.5, as others write it."""
    space = [{"type": "space", "id": axis, "size": size} for axis, size in SIDES.items()]
    halved = [
        {"type": "space", "id": axis, "scale": 2.0, "size": {"tensor_id": "raw", "axis_id": axis}}
        for axis in "yx"
    ]
    given = {
        "id": "raw",
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["nuclei"]}, *space],
    }
    made = {
        "id": "maps",
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": list("abc")}, *halved],
    }
    given["preprocessing"] = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"]}}]
    made["postprocessing"] = [{"id": "sigmoid"}]
    return {
        "format_version": "0.5.3",
        "type": "model",
        "name": "Someone's nuclei",
        "license": "CC-BY-4.0",
        "inputs": [given],
        "outputs": [made],
        "weights": {"onnx": {"source": net.name, "sha256": weights_file(net).sha256, "opset_version": 17}},
        **changes,
    }


def rdf_04(net: Path, **changes: Any) -> dict[str, Any]:
    """Return the same in format 0.4."""
    given = {"name": "raw", "axes": "bcyx", "data_type": "float32"}
    given["shape"] = {"min": [1, 1, 16, 16], "step": [0, 0, 16, 16]}
    given["preprocessing"] = [
        {"name": "zero_mean_unit_variance", "kwargs": {"mode": "per_sample", "axes": "yx"}}
    ]
    made = {"name": "maps", "axes": "bcyx", "data_type": "float32", "postprocessing": [{"name": "sigmoid"}]}
    made["shape"] = {"reference_tensor": "raw", "scale": [1, 0, 0.5, 0.5], "offset": [0, 1.5, 0, 0]}
    return {**rdf_05(net), "format_version": "0.4.9", "inputs": [given], "outputs": [made], **changes}


def written(net: Path, description: dict[str, Any], name: str = "rdf.yaml") -> Path:
    """Write a package beside the net, and return its folder."""
    (net.parent / name).write_text(yaml.safe_dump(description), encoding="utf-8")
    return net.parent


def answers(package: ModelPackage, image: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return what the net says of planes (channels, y, x), with all steps of the package."""
    runtime = adapt(OnnxRuntime(package.weights[0].path, threads=1), package)
    return runtime.run(prepare(package, image)[np.newaxis])


def test_what_is_written_is_read_again(ours, tmp_path):
    saved = save_package(ours, tmp_path / "q8", authors=["A. Person"])
    assert saved.folder == tmp_path / "q8"
    assert saved.weights[0].path == tmp_path / "q8" / "weights.onnx"
    assert saved.weights[0].path.read_bytes() == ours.weights[0].path.read_bytes()
    same = {"folder": ours.folder, "weights": ours.weights, "input_name": ours.input_name}
    assert replace(saved, **same) == ours
    assert load_package(tmp_path / "q8") == load_package(str(tmp_path / "q8")) == saved
    assert (saved.folder / "README.md").read_text() == ours.card


def test_a_package_of_our_own_is_run_as_it_is(ours, tmp_path, planes):
    saved = save_package(ours, tmp_path / "q8")
    runtime = OnnxRuntime(saved.weights[0].path)
    assert adapt(runtime, saved) is runtime
    assert prepare(saved, planes[0]) is planes[0] or np.shares_memory(prepare(saved, planes[0]), planes)


def test_what_is_written_is_valid_for_bioimage_io(ours, tmp_path, planes, core):
    from bioimageio.spec import load_description

    outputs = OnnxRuntime(ours.weights[0].path).run(planes)
    saved = save_package(ours, tmp_path / "q8", authors=["A. Person"], example=(planes, outputs))
    found = load_description(saved.folder / "rdf.yaml")
    assert found.validation_summary.status in ("valid-format", "passed"), found.validation_summary
    assert found.name == "cytoloop q8"
    assert [axis.id for axis in found.inputs[0].axes] == ["batch", "channel", "y", "x"]
    assert np.load(saved.folder / "test_logits.npy").shape == outputs[0].shape


def test_bioimageio_core_runs_what_is_written_and_gets_the_same(ours, tmp_path, planes, core):
    from bioimageio.spec import load_model_description

    outputs = OnnxRuntime(ours.weights[0].path).run(planes)
    saved = save_package(replace(ours, normalise=Normalisation("none", clip=None)), tmp_path / "q8")
    model = load_model_description(saved.folder / "rdf.yaml", perform_io_checks=False)
    sample = core.predict(model=model, inputs={"planes": planes}, skip_preprocessing=True)
    assert np.abs(sample.members["logits"].data.data - outputs[0]).max() < 1e-4


def test_a_package_that_was_read_can_be_written_again(ours, tmp_path):
    for changed in (ours, replace(ours, fixed_shape=(128, 128), step=1)):
        saved = save_package(changed, tmp_path / "q8")
        again = save_package(saved, tmp_path / "again")
        assert again.framing == Framing()
        assert (again.fixed_shape, again.step, again.grid) == (changed.fixed_shape, changed.step, 2)


def test_a_package_is_replaced_whole_and_nothing_else_is(ours, tmp_path):
    folder = tmp_path / "models" / "q8"
    save_package(ours, folder)
    (folder / "note.txt").write_text("of the first")
    again = save_package(replace(ours, diameter_px=20.0), folder)
    assert (again.diameter_px, load_package(folder).diameter_px) == (20.0, 20.0)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "rdf.yaml", "weights.onnx"]
    assert [path.name for path in folder.parent.iterdir()] == ["q8"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("...")
    with pytest.raises(ModelError, match="thesis: holds other files than a model package"):
        save_package(ours, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


def test_a_package_that_cannot_be_written_leaves_the_old_one(ours, tmp_path):
    folder = tmp_path / "models" / "q8"
    save_package(ours, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for broken in (
        replace(ours, diameter_px=-1.0),
        replace(ours, channels=2, channel_names=("a", "b")),
        replace(ours, framing=Framing(layout="byxc")),
        replace(ours, weights=()),
    ):
        with pytest.raises(ModelError):
            save_package(broken, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["q8"]


def test_statistics_may_come_as_numpy_has_them(ours, tmp_path):
    known = {"doubt_p95": np.float64(0.5), "doubt_p50": np.float32(0.25)}
    saved = save_package(replace(ours, novelty=known, decoder_options={"size": np.int64(3)}), tmp_path / "q8")
    assert saved.novelty == {"doubt_p95": 0.5, "doubt_p50": 0.25}
    assert type(saved.decoder_options["size"]) is int


@pytest.mark.parametrize(
    "rule",
    [
        Normalisation("percentile", 2.0, 98.0, clip=None),
        Normalisation("mean_std", clip=None),
        Normalisation("fixed", 0.0, 255.0),
        Normalisation("fixed", 0.0, 1.0),
        Normalisation("none", clip=None),
    ],
)
def test_every_rule_for_grey_levels_is_kept(rule, ours, tmp_path):
    saved = save_package(replace(ours, normalise=rule), tmp_path / "q8")
    assert (saved.normalise, saved.preprocess) == (rule, ())


def test_a_folder_that_cannot_be_written_is_an_error_with_its_name(ours, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="q8: cannot be written: "):
        save_package(ours, tmp_path / "file" / "q8")


def test_weights_in_several_precisions_are_kept_apart(ours, net, tmp_path, write_net):
    import onnx

    model = onnx.load(net)
    for tensor in model.graph.initializer:
        if tensor.name == "weight0":
            half = onnx.numpy_helper.from_array(
                onnx.numpy_helper.to_array(tensor).astype(np.float16), "half0"
            )
            model.graph.initializer.append(half)
    onnx.save(model, net.with_name("half.onnx"))
    both = replace(ours, weights=(*ours.weights, weights_file(net.with_name("half.onnx"))))
    saved = save_package(both, tmp_path / "q8")
    assert [(file.kind, file.precision) for file in saved.weights] == [("onnx", "fp32"), ("onnx", "fp16")]
    assert saved.weights[1].sha256 == weights_file(net.with_name("half.onnx")).sha256


@pytest.mark.parametrize("describe", [rdf_04, rdf_05])
def test_both_formats_say_the_same(describe, net):
    package = load_package(written(net, describe(net)), decoder="boundary")
    assert (package.name, package.terms, package.decoder) == ("Someone's nuclei", "CC-BY-4.0", "boundary")
    assert (package.channels, package.step, package.grid, package.fixed_shape) == (1, 16, 2, None)
    assert (package.diameter_px, package.novelty) == (None, None)
    assert package.normalise == Normalisation("none", clip=None)
    assert [type(step).__name__ for step in package.preprocess] == ["ZeroMeanUnitVariance"]
    assert [[type(step).__name__ for step in steps] for steps in package.postprocess] == [["Sigmoid"]]
    assert [(file.kind, file.precision) for file in package.weights] == [("onnx", "fp32")]


@pytest.mark.parametrize("describe", [rdf_04, rdf_05])
def test_a_package_of_others_is_run_as_bioimageio_core_runs_it(describe, net, draw_nuclei, core):
    from bioimageio.spec import load_model_description

    image = draw_nuclei((96, 128), 12)[0].astype(np.float32)
    description = describe(net)
    if describe is rdf_04:
        extra = {"documentation": "README.md", "test_inputs": ["in.npy"], "test_outputs": ["out.npy"]}
        description |= extra | {"timestamp": "2020-01-01T00:00:00", "authors": [{"name": "A. Person"}]}
        description |= {
            "description": "x",
            "cite": [{"text": "x", "url": "https://example.com/"}],
            "tags": [],
        }
    description["name"] = "Nuclei of someone"
    folder = written(net, description)
    model = load_model_description(folder / "rdf.yaml", perform_io_checks=False)
    expected = core.predict(model=model, inputs={"raw": image[np.newaxis, np.newaxis]}).members["maps"]
    (found,) = answers(load_package(folder, decoder="boundary"), image[np.newaxis])
    assert found.shape == (1, 3, 48, 64)
    assert np.abs(found - expected.data.data).max() < 1e-4
    assert 0 <= found.min() < 0.4 < 0.6 < found.max() <= 1


def test_frames_are_cast_to_what_the_input_is_described_as(net):
    description = rdf_05(net)
    description["inputs"][0]["data"] = {"type": "uint8"}
    description["inputs"][0]["preprocessing"] = [{"id": "scale_linear", "kwargs": {"gain": 0.01}}]
    package = load_package(written(net, description), decoder="boundary")
    assert [type(step).__name__ for step in package.preprocess] == [
        "EnsureDtype",
        "ScaleLinear",
        "EnsureDtype",
    ]
    assert prepare(package, np.full((1, 16, 16), 250.0, np.float32)).max() == 2
    with pytest.raises(ModelError, match="values from 300 to 300 are not uint8: convert the frames"):
        prepare(package, np.full((1, 16, 16), 300.0, np.float32))


def test_sides_that_the_net_does_not_take_are_mirrored_out(net):
    package = load_package(written(net, rdf_05(net)), decoder="boundary")
    image = np.random.default_rng(0).normal(size=(1, 70, 90)).astype(np.float32)
    (found,) = answers(package, image)
    assert found.shape == (1, 3, 35, 45)
    padded = np.pad(prepare(package, image), ((0, 0), (0, 10), (0, 6)), mode="symmetric")[np.newaxis]
    (expected,) = OnnxRuntime(net, threads=1).run(padded)
    assert np.allclose(found, 1 / (1 + np.exp(-expected[:, :, :35, :45])), atol=1e-6)


def with_axes(description: dict[str, Any], tensor: str, **fields: Any) -> dict[str, Any]:
    """Change fields of y and x of all inputs or outputs."""
    for described in description[tensor]:
        for axis in described["axes"]:
            if axis["type"] == "space":
                axis.update(fields)
    return description


def test_a_halo_is_cut_off_and_the_frame_is_covered(short_sighted):
    whole = load_package(written(short_sighted, rdf_05(short_sighted)), decoder="boundary")
    package = load_package(
        written(short_sighted, with_axes(rdf_05(short_sighted), "outputs", halo=8)), decoder="boundary"
    )
    assert (package.framing.border, package.framing.crop) == (16, 8)
    image = np.random.default_rng(0).normal(size=(1, 64, 96)).astype(np.float32)
    (found,), (expected,) = answers(package, image), answers(whole, image)
    assert found.shape == expected.shape == (1, 3, 32, 48)
    assert np.abs(found - expected)[:, :, 15:-15, 15:-15].max() < 1e-5


def test_a_net_of_one_size_sees_a_larger_frame_in_tiles(short_sighted):
    whole = load_package(written(short_sighted, rdf_05(short_sighted)), decoder="boundary")
    sized = with_axes(with_axes(rdf_05(short_sighted), "inputs", size=128), "outputs", halo=16)
    package = load_package(written(short_sighted, sized), decoder="boundary")
    assert package.fixed_shape == (128, 128)
    image = np.random.default_rng(0).normal(size=(1, 150, 210)).astype(np.float32)
    (found,), (expected,) = answers(package, image), answers(whole, image)
    assert found.shape == expected.shape == (1, 3, 75, 105)
    assert np.abs(found - expected)[:, :, 20:-20, 20:-20].max() < 1e-5
    assert answers(package, image[:, :40, :30])[0].shape == (1, 3, 20, 15)


def _channels_last(net: Path) -> Path:
    """Write the net again with its channels as the last axis, as TensorFlow has them."""
    import onnx

    model = onnx.load(net)
    graph = model.graph
    graph.node[0].input[0] = "turned"
    graph.node[-1].output[0] = "unturned"
    graph.node.insert(0, onnx.helper.make_node("Transpose", ["planes"], ["turned"], perm=[0, 3, 1, 2]))
    graph.node.append(onnx.helper.make_node("Transpose", ["unturned"], ["logits"], perm=[0, 2, 3, 1]))
    for value, shape in ((graph.input[0], (1, "y", "x", 1)), (graph.output[0], (1, "y2", "x2", 3))):
        changed = onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, shape)
        value.CopyFrom(changed)
    onnx.save(model, net.with_name("last.onnx"))
    return net.with_name("last.onnx")


def test_a_net_with_its_channels_last_says_the_same(net):
    image = np.random.default_rng(0).normal(size=(1, 64, 96)).astype(np.float32)
    (expected,) = answers(load_package(written(net, rdf_05(net)), decoder="boundary"), image)
    last = _channels_last(net)
    description = rdf_05(last)
    for tensor in (*description["inputs"], *description["outputs"]):
        tensor["axes"] = [tensor["axes"][i] for i in (0, 2, 3, 1)]
    package = load_package(written(last, description), decoder="boundary")
    assert (package.framing.layout, package.framing.output_layouts) == ("byxc", ("byxc",))
    assert np.allclose(answers(package, image)[0], expected, atol=1e-6)
    plain = load_package(last, decoder="boundary")
    assert (plain.framing.layout, plain.channels, plain.step) == ("byxc", 1, 32)
    maps = answers(replace(plain, grid=2), prepare(package, image))
    assert np.allclose(1 / (1 + np.exp(-maps[0])), expected, atol=1e-6)


def test_a_plain_onnx_file_tells_its_shapes_and_needs_a_decoder(net):
    with pytest.raises(
        ModelError, match=r"net.onnx: says not what its outputs mean; set decoder to one of .*core"
    ):
        load_package(net)
    package = load_package(net, decoder="distance", decoder_options={"threshold": 0.4})
    assert (package.name, package.channels, package.step, package.grid) == ("net", 1, 32, 1)
    assert (package.decoder, package.decoder_options) == ("distance", {"threshold": 0.4})
    assert package.normalise == Normalisation()


def test_a_map_that_does_not_cover_the_frame_is_not_taken_for_one_that_does(net):
    package = load_package(net, decoder="boundary")  # its grid is 2, which no one says
    with pytest.raises(
        ModelError, match=r"net: output 0 has shape \(1, 3, 32, 32\); described is 'bcyx', with 64 x 64 px"
    ):
        answers(package, np.zeros((1, 64, 64), np.float32))


def test_a_zip_is_unpacked_once_and_again_when_it_was_damaged(net, tmp_path, monkeypatch):
    monkeypatch.setenv("CYTOLOOP_CACHE", str(tmp_path / "cache"))
    folder = written(net, rdf_05(net), "bioimageio.yaml")
    for top in ("", "someones-nuclei/"):
        path = tmp_path / f"net{len(top)}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in folder.iterdir():
                archive.write(file, top + file.name)
        package = load_package(path, decoder="boundary")
        assert package.folder.is_relative_to(tmp_path / "cache" / "packages")
        made = package.weights[0].path.stat().st_mtime_ns
        assert load_package(path, decoder="boundary") == package
        assert package.weights[0].path.stat().st_mtime_ns == made
        package.weights[0].path.write_bytes(b"damaged")
        assert load_package(path, decoder="boundary") == package
    assert len(list((tmp_path / "cache" / "packages").iterdir())) == 2


@pytest.mark.parametrize(
    ("change", "decoder", "options"),
    [
        (
            {"config": {"stardist": {"thresholds": {"prob": 0.48, "nms": 0.3}}}},
            "stardist",
            {"prob_threshold": 0.48},
        ),
        ({"config": {"cytoloop": {"decoder": "flows", "decoder_options": {"a": 1}}}}, "flows", {"a": 1}),
    ],
)
def test_a_decoder_that_a_package_names_is_taken(change, decoder, options, net):
    package = load_package(written(net, rdf_05(net, **change)))
    assert package.decoder == decoder
    assert dict(package.decoder_options) | options == package.decoder_options
    other = load_package(net.parent, decoder="core", decoder_options={"b": 2})
    assert (other.decoder, other.decoder_options) == ("core", {"b": 2})
    added = load_package(net.parent, decoder_options={"b": 2})
    assert added.decoder_options == {**package.decoder_options, "b": 2}


def test_steps_that_make_cells_name_a_decoder(net):
    description = rdf_05(net)
    kwargs = {"prob_threshold": 0.5, "nms_threshold": 0.4, "n_rays": 32, "grid": [2, 2], "b": 2}
    description["outputs"][0]["postprocessing"].append({"id": "stardist_postprocessing", "kwargs": kwargs})
    package = load_package(written(net, description))
    assert package.decoder == "stardist"
    assert package.decoder_options == {"prob_threshold": 0.5, "nms_threshold": 0.4, "grid": 2}
    assert build(find_class("decoders", "stardist"), package.decoder_options)
    assert [[type(step).__name__ for step in steps] for steps in package.postprocess] == [["Sigmoid"]]


def test_a_name_that_is_nothing_is_refused_with_what_there_is(tmp_path):
    with pytest.raises(ModelError, match="no-such-net: no model package of this name or path; shipped: "):
        load_package("no-such-net")
    with pytest.raises(ModelError, match=r"no model package: there is no rdf.yaml in it"):
        load_package(tmp_path)


@pytest.mark.parametrize(
    "name", known_packages() or [pytest.param("", marks=pytest.mark.skip("none is shipped"))]
)
def test_a_shipped_package_is_whole(name):
    package = load_package(name)
    assert package.name == name
    assert package.card and package.terms and package.decoder
    assert package.weights[0].precision == "fp32"
    assert build(find_class("decoders", package.decoder), package.decoder_options)


@pytest.mark.parametrize("name", known_packages())
def test_a_shipped_package_is_valid_for_bioimage_io(name, core):
    from bioimageio.spec import load_description

    found = load_description(load_package(name).folder / "rdf.yaml")
    assert found.validation_summary.status in ("valid-format", "passed"), found.validation_summary


def test_a_folder_may_be_moved(ours, tmp_path):
    save_package(ours, tmp_path / "q8")
    shutil.move(tmp_path / "q8", tmp_path / "elsewhere")
    assert load_package(tmp_path / "elsewhere").weights[0].path.parent == tmp_path / "elsewhere"
