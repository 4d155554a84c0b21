"""Model files that are broken, contradict themselves or mean harm are refused with the file and the reason."""

from __future__ import annotations

import copy
import io
import stat
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cytoloop.acquire.errors import ModelError
from cytoloop.models.packages.package import ModelPackage, load_package
from cytoloop.models.packages.saving import weights_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CYTOLOOP_CACHE", str(tmp_path / "cache"))


def description_of(net: Path) -> dict[str, Any]:
    """Return a whole and true description of the net: (1, 1, y, x) -> (1, 3, y / 2, x / 2)."""
    space = [{"type": "space", "id": axis, "size": {"min": 16, "step": 16}} for axis in "yx"]
    halved = [
        {"type": "space", "id": axis, "scale": 2.0, "size": {"tensor_id": "raw", "axis_id": axis}}
        for axis in "yx"
    ]
    channels = [{"type": "channel", "channel_names": names} for names in (["a"], ["u", "v", "w"])]
    return {
        "format_version": "0.5.3",
        "type": "model",
        "name": "net",
        "inputs": [{"id": "raw", "axes": [{"type": "batch"}, channels[0], *space], "preprocessing": []}],
        "outputs": [{"id": "maps", "axes": [{"type": "batch"}, channels[1], *halved], "postprocessing": []}],
        "weights": {"onnx": {"source": net.name, "sha256": weights_file(net).sha256}},
        "config": {"cytoloop": {"decoder": "core", "normalise": {"kind": "percentile"}}},
    }


@pytest.fixture
def folder(write_net, tmp_path) -> Path:
    """A package that can be loaded."""
    (tmp_path / "package").mkdir()
    net = write_net(tmp_path / "package" / "weights.onnx", width=2, levels=1)
    (net.parent / "rdf.yaml").write_text(yaml.safe_dump(description_of(net)))
    assert load_package(net.parent).decoder == "core"
    return net.parent


def refused(path: Path, reason: str) -> None:
    """Expect that a package is refused, before long and before any runtime is loaded."""
    started = time.perf_counter()
    with pytest.raises(ModelError, match=reason) as error:
        load_package(path)
    assert str(path.parent if path.suffix == ".onnx" else path) in str(error.value)
    assert "\n" not in str(error.value)
    assert time.perf_counter() - started < 30


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no mapping but NoneType"),
        (b"Dear colleague, here is my model.", "no mapping but str"),
        (b"[1, 2", "no valid YAML: .*expected ',' or ']'"),
        (bytes(range(256)), "no valid YAML"),
        (b"PK\x03\x04" + b"\x00" * 200, "no valid YAML"),
        (b"- " * 5000, "no valid YAML: too deep"),
        (b"a: &a [*a]", "more than 100000 values"),
        (b"a: !!python/object/apply:os.system [ls]", "no valid YAML: could not determine a constructor"),
        (b"a: !!timestamp soon", "no valid YAML"),
        (b"a: " + b"9" * 5000, "no valid YAML"),
        (b"a: 1\n" * 60_000, "larger than 262144 bytes"),
        (
            b"format_version: 0.3.6",
            "format_version is 0.3.6; 0.4 and 0.5 of the BioImage.IO model format are read",
        ),
        (b"name: x", "format_version is missing"),
        (b"format_version: 0.5.3\ntype: dataset", "describes a 'dataset', not a model"),
        (b"format_version: 0.5.3", "missing required field `inputs`"),
    ],
)
def test_a_description_that_is_none_is_refused(content, reason, folder):
    (folder / "rdf.yaml").write_bytes(content)
    refused(folder, reason)


def test_a_description_that_grows_by_reference_is_refused_while_it_is_small(folder):
    lists = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    merges = [f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    for first, others, reason in (
        ("a0: &a0 [1, 2, 3]", lists, "more than 100000 values"),
        ("a0: &a0 {k: 1, l: 2}", merges, "no valid YAML: .*tag:yaml.org,2002:merge"),
    ):
        (folder / "rdf.yaml").write_text("\n".join([first, *others]))
        tracemalloc.start()
        refused(folder, reason)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
        tracemalloc.stop()


def at(description: dict[str, Any], *keys: Any) -> Any:
    """Return what lies below some keys."""
    for key in keys:
        description = description[key]
    return description


def set_to(value: Any, *keys: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of one field."""

    def change(description: dict[str, Any]) -> None:
        at(description, *keys[:-1])[keys[-1]] = value

    return change


def step_added(step: dict[str, Any], tensor: str = "inputs") -> Callable[[dict[str, Any]], None]:
    """Return a change that adds a step, in a description without a part of our own."""

    def change(description: dict[str, Any]) -> None:
        at(description, tensor, 0, "preprocessing" if tensor == "inputs" else "postprocessing").append(step)
        del description["config"]["cytoloop"]["normalise"]

    return change


def volume(description: dict[str, Any]) -> None:
    """Change y to z."""
    at(description, *Y_IN)["id"] = at(description, *Y_OUT)["id"] = at(description, *Y_OUT, "size")[
        "axis_id"
    ] = "z"


Y_IN, Y_OUT = ("inputs", 0, "axes", 2), ("outputs", 0, "axes", 2)
OURS = ("config", "cytoloop")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_to([], "inputs"), "0 inputs and 1 outputs; nets from one image are run"),
        (lambda d: d["inputs"].append(d["inputs"][0]), "2 inputs and 1 outputs"),
        (set_to(7, "inputs"), r"Expected `array`, got `int` - at `\$.inputs`"),
        (set_to([], "outputs"), "1 inputs and 0 outputs"),
        (
            set_to({"keras_hdf5": {"source": "a.h5"}}, "weights"),
            "weights only as keras_hdf5; onnx or torchscript",
        ),
        (set_to({}, "weights"), "weights only as none"),
        (
            set_to("0" * 64, "weights", "onnx", "sha256"),
            "is not the file that rdf.yaml describes: its SHA-256 differs",
        ),
        (set_to("https://example.com/a.onnx", "weights", "onnx", "source"), "lies on the network: download"),
        (set_to("../../etc/passwd", "weights", "onnx", "source"), "lies outside of the package"),
        (set_to("/etc/passwd", "weights", "onnx", "source"), "lies outside of the package"),
        (set_to("no.onnx", "weights", "onnx", "source"), "no.onnx: cannot be read"),
        (set_to("a\0b", "weights", "onnx", "source"), "cannot be read"),
        (
            set_to(["a", "b"], "inputs", 0, "axes", 1, "channel_names"),
            "input has 1 along c; rdf.yaml describes 2",
        ),
        (
            set_to(list("ab"), "outputs", 0, "axes", 1, "channel_names"),
            "'logits' has 3 along c; .* describes 2",
        ),
        (
            lambda d: at(d, "outputs", 0, "axes").pop(1),
            "output 'logits' has 4 axes; rdf.yaml describes 'byx'",
        ),
        (lambda d: d["outputs"].append(copy.deepcopy(d["outputs"][0])), "1 outputs; rdf.yaml describes 2"),
        (
            volume,
            r"the input has the axes b, c of 1, z, x; an image \(batch, channel, y, x\) is",
        ),
        (set_to("x", *Y_IN, "id"), "axes 'bcxx' name one twice"),
        (set_to(64, *Y_IN, "size"), "one of y and x has a fixed size, the other has not"),
        (set_to(0, *Y_IN, "size", "step"), "axis 'y' has a size that is not 1 to 32768"),
        (set_to(-16, *Y_IN, "size", "step"), "axis 'y' has a size that is not 1 to 32768"),
        (set_to(10**12, *Y_IN, "size", "min"), "axis 'y' has a size that is not 1 to 32768"),
        (
            set_to({"min": 24, "step": 16}, *Y_IN, "size"),
            r"y is 24 \+ n \* 16, x is 16 \+ n \* 16: no size fits both",
        ),
        (set_to("yes", *Y_IN, "size"), r"Expected `int \| object \| null`, got `str`"),
        (set_to(0.0, *Y_OUT, "scale"), "axis 'y' has scale 0.0"),
        (set_to(float("nan"), *Y_OUT, "scale"), "axis 'y' has scale nan"),
        (set_to(0.5, *Y_OUT, "scale"), "2 output px per input px along y; 1, 1/2, 1/3 ... are possible"),
        (set_to(4.0, *Y_OUT, "scale"), "outputs lie on grids of different pitch"),
        (set_to(4, *Y_OUT, "size", "offset"), "the output is 4 px longer than the input along y"),
        (set_to("q", *Y_OUT, "size", "axis_id"), "a size refers to axis 'q' of 'raw', which is not there"),
        (step_added({"id": "scale_rage"}), "unknown step 'scale_rage'; known: .*Did you mean 'scale_range'"),
        (step_added({"id": "softmax", "kwargs": {"axis": "z"}}), "preprocessing of 'raw': .*no axis 'z'"),
        (step_added({"id": "custom", "source": "a.py"}, "outputs"), "unknown step 'custom'"),
        (
            step_added({"id": "scale_mean_variance", "kwargs": {"reference_tensor": "raw"}}, "outputs"),
            "postprocessing of 'maps' brings an image back to the input",
        ),
        (set_to(99, *OURS, "version"), "config.cytoloop.version is 99; up to 1 is read: update cytoloop"),
        (set_to(-2.0, *OURS, "diameter_px"), "config.cytoloop: diameters must be above 0 px"),
        (set_to(float("nan"), *OURS, "diameter_px"), "config.cytoloop: diameters must be above 0 px"),
        (set_to({"kind": "otsu"}, *OURS, "normalise"), "config.cytoloop: Invalid enum value 'otsu'"),
        (
            set_to({"kind": "fixed", "low": 5, "high": 1}, *OURS, "normalise"),
            "normalise: low and high must be grey",
        ),
        (set_to(3, *OURS, "diametre"), "config.cytoloop: Object contains unknown field `diametre`"),
        (set_to([1], "config", "cytoloop"), "config.cytoloop: Expected `object`, got `array`"),
        (
            set_to([{"source": "weights.onnx", "precision": "int8"}], *OURS, "weights"),
            "weights.onnx is fp32, not int8",
        ),
    ],
)
def test_a_description_that_contradicts_itself_or_its_files_is_refused(change, reason, folder):
    description = yaml.safe_load((folder / "rdf.yaml").read_text())
    change(description)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(description))
    refused(folder, reason)


def test_a_net_that_takes_one_size_cannot_be_described_as_taking_any(folder):
    import onnx

    path = folder / "weights.onnx"
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 64
    onnx.save(model, path)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(description_of(path)))
    refused(folder, "input has 64 along y; rdf.yaml describes any length")


@pytest.mark.parametrize("size", [0, 1, 100, 1000])
def test_a_net_that_was_cut_or_emptied_is_refused_in_a_package_and_alone(size, folder):
    path = folder / "weights.onnx"
    path.write_bytes(path.read_bytes()[:size])
    refused(path, "weights.onnx: ")
    description = yaml.safe_load((folder / "rdf.yaml").read_text())
    del description["weights"]["onnx"]["sha256"]
    (folder / "rdf.yaml").write_text(yaml.safe_dump(description))
    refused(folder, "weights.onnx: ")


def test_a_net_that_claims_10_gb_is_refused_without_taking_them(folder):
    import onnx

    path = folder / "weights.onnx"
    model = onnx.load(path)
    model.graph.initializer[0].dims[:] = [50_000, 50_000]
    path.write_bytes(model.SerializeToString())
    tracemalloc.start()
    refused(path, r"tensor 'weight0' claims 10000000000 bytes and holds \d+")
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def length_delimited(number: int, content: bytes) -> bytes:
    """Return a field of Protocol Buffers."""
    size, length = b"", len(content)
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (length_delimited(1, b"") * 400_000, "more than 262144 parts"),
        (length_delimited(5, length_delimited(1, b"\x01" * 3_000_000)), "more axes than any net has"),
        (length_delimited(5, length_delimited(8, b"\xff" * 3_000_000)), "one input tensor is needed"),
        (length_delimited(5, length_delimited(7, b"\x01" * 3_000_000)), "one input tensor is needed"),
    ],
    ids=["nodes", "axes", "name", "numbers"],
)
def test_a_file_that_is_made_to_take_long_does_not(graph, reason, tmp_path):
    path = tmp_path / "slow.onnx"
    path.write_bytes(length_delimited(8, b"\x10\x11") + length_delimited(7, graph))
    refused(path, reason)


def zipped(path: Path, members: dict[str, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", options.get("compression", zipfile.ZIP_DEFLATED)) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.txt", "leads out of the package"),
        ("a/../../evil.txt", "leads out of the package"),
        ("/evil.txt", "leads out of the package"),
        ("..\\evil.txt", "leads out of the package"),
        ("C:evil.txt", "leads out of the package"),
        ("C:\\evil.txt", "leads out of the package"),
    ],
)
def test_a_zip_that_writes_elsewhere_is_refused(name, reason, folder, tmp_path):
    members = {file.name: file.read_bytes() for file in folder.iterdir()}
    refused(zipped(tmp_path / "net.zip", {**members, name: b"evil"}), reason)
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_link_in_a_zip_is_not_followed(folder, tmp_path):
    (tmp_path / "secret").write_text("secret")
    path = tmp_path / "net.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
        link = zipfile.ZipInfo("README.md")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(tmp_path / "secret"))
    assert not (load_package(path).folder / "README.md").is_symlink()


def test_a_zip_that_unpacks_to_too_much_is_refused(folder, tmp_path):
    members = {file.name: file.read_bytes() for file in folder.iterdir()}
    bomb = zipped(tmp_path / "bomb.zip", {**members, "zeros.bin": bytes(64 << 20)})
    assert bomb.stat().st_size < 1 << 20
    refused(bomb, r"'zeros.bin' unpacks to 67108864 bytes from \d+; 50 times as much is allowed")
    many = zipped(tmp_path / "many.zip", {**members, **{f"{i}.txt": b"" for i in range(1500)}})
    refused(many, "1502 files; a package has at most 1000")
    rare = zipped(tmp_path / "rare.zip", members, compression=zipfile.ZIP_BZIP2)
    refused(rare, "is packed in a way that only few programs know")
    assert not (tmp_path / "cache").exists()


def test_a_zip_that_lies_about_its_sizes_is_refused(folder, tmp_path):
    members = {file.name: file.read_bytes() for file in folder.iterdir()}
    path = zipped(tmp_path / "net.zip", members, compression=zipfile.ZIP_STORED)
    content = path.read_bytes()
    size = len(members["weights.onnx"]).to_bytes(4, "little")
    assert content.count(size * 2) == 2
    path.write_bytes(content.replace(size * 2, (10**10 & 0xFFFFFFFF).to_bytes(4, "little") * 2))
    refused(path, "net.zip: ")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_zip_or_an_empty_one_is_refused(content, tmp_path):
    path = tmp_path / "net.zip"
    path.write_bytes(content)
    refused(path, "no .zip that can be unpacked|there is no rdf.yaml in it")


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """Return the content with some bytes changed, cut out or repeated."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        where, how = data.draw(st.integers(0, len(changed) - 1)), data.draw(st.integers(0, 3))
        length = data.draw(st.integers(1, 64))
        if how < 2:
            changed[where] = data.draw(st.integers(0, 255))
        elif how == 2 and len(changed) > length + 1:
            del changed[where : where + length]
        else:
            changed[where:where] = changed[where : where + length]
    return bytes(changed)


@FUZZ
@given(st.data())
def test_no_damage_to_any_part_gets_through_as_another_kind_of_error(folder, tmp_path, data):
    originals = {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".original"}
    which = data.draw(st.sampled_from(["rdf.yaml", "weights.onnx", "net.zip", "plain.onnx"]))
    if which in originals:
        content = originals[which]
        if which == "weights.onnx":
            unchecked = originals["rdf.yaml"].replace(b"sha256", b"sha000")
            (folder / "rdf.yaml").write_bytes(unchecked)
        path = folder
        (folder / which).write_bytes(damaged(data, content))
    elif which == "plain.onnx":
        path = tmp_path / "plain.onnx"
        path.write_bytes(damaged(data, originals["weights.onnx"]))
    else:
        buffer, path = io.BytesIO(), tmp_path / "net.zip"
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in originals.items():
                archive.writestr(name, content)
        path.write_bytes(damaged(data, buffer.getvalue()))
    try:
        assert isinstance(load_package(path, decoder="core"), ModelPackage)
    except ModelError as error:
        assert str(error)
    finally:
        for name, content in originals.items():
            (folder / name).write_bytes(content)
