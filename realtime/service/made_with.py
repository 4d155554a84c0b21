"""What a run was made with: versions, processor, nets and plugins, so that a replay can say why it differs."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from ...acquire.errors import CytoloopError
from ...acquire.machine import cpu_name, usable_cores
from ...acquire.plugins import find_class
from ...models.packages.package import SHIPPED, known_packages
from ..experiment.stream import StreamConfig

_FILE = "made_with.json"
_PACKAGES = ("cytoloop", "numpy", "numba", "scipy", "onnxruntime", "openvino", "torch", "tensorrt")
_MOST_FILES = 200
_LARGEST = 4 << 30
_NET = "net"
_NET_MODEL = "q32"


class MadeWith(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was made with.

    Attributes
    ----------
    python, system, cpu
        Version and names.
    packages
        Version of each package that computes something and is installed.
    threads
        Cores that the process may use, and the option ``threads`` of the segmenter, if it is given.
    models
        SHA-256 of each file that an option of the segmenter or the tracker names: nets, masks that are given.
    plugins
        SHA-256 of the module of each ``module:Class``.
    """

    python: str = ""
    system: str = ""
    cpu: str = ""
    packages: dict[str, str] = {}
    threads: dict[str, int] = {}
    models: dict[str, str] = {}
    plugins: dict[str, str] = {}


def made_with(stream: StreamConfig) -> MadeWith:
    """Return what a run of this stream is made with, here and now."""
    options = stream.segmenter.options
    threads = {"cores": usable_cores()}
    if isinstance(given := options.get("threads"), int):
        threads["segmenter"] = given
    return MadeWith(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name(),
        packages=dict(_versions()),
        threads=threads,
        models=_models(stream),
        plugins=dict(_plugins(stream)),
    )


def write_made_with(run: Path, stream: StreamConfig) -> None:
    """Note in a run's folder what it is made with, unless that is noted already; a full disk does not stop the run."""
    path = run / _FILE
    if path.is_file():
        return
    new = run / f"{_FILE}.new"
    with contextlib.suppress(OSError):
        new.write_bytes(msgspec.json.format(msgspec.json.encode(made_with(stream))) + b"\n")
        new.replace(path)


def read_made_with(run: Path) -> MadeWith | None:
    """Return what a run was made with; None if it does not say (an older version, a full disk)."""
    try:
        return msgspec.json.decode((run / _FILE).read_bytes(), type=MadeWith)
    except (OSError, ValueError):
        return None


def differences(then: MadeWith, now: MadeWith) -> dict[str, list[str]]:
    """Return what differs, in words, under ``model``, ``plugin``, ``version`` and ``machine``; those that do only."""
    found = {
        "model": _changed(then.models, now.models, "the file of the model", hashes=True),
        "plugin": _changed(then.plugins, now.plugins, "the code of", hashes=True),
        "version": _changed({"python": then.python} | then.packages, {"python": now.python} | now.packages),
        "machine": _changed({"cpu": then.cpu, "system": then.system}, {"cpu": now.cpu, "system": now.system})
        + _changed(then.threads, now.threads, "threads:"),
    }
    return {kind: said for kind, said in found.items() if said}


def _changed(
    then: Mapping[str, object], now: Mapping[str, object], what: str = "", *, hashes: bool = False
) -> list[str]:
    said: list[str] = []
    for name in sorted(then.keys() | now.keys()):
        one, two = then.get(name), now.get(name)
        if one != two:
            short = (
                (str(one)[:12], str(two)[:12]) if hashes and one and two else (one or "none", two or "none")
            )
            said.append(f"{what} {name} was {short[0]}, is {short[1]}".strip())
    return said


def _versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            yield name, version(name)


def _models(stream: StreamConfig) -> dict[str, str]:
    chosen = (stream.segmenter, stream.tracker)
    values = [value for each in chosen for value in _texts(each.options)]
    if stream.segmenter.use == _NET and "model" not in stream.segmenter.options:
        values.append(_NET_MODEL)
    shipped = known_packages()
    paths = [SHIPPED / value if value in shipped else Path(value) for value in values]
    return {name: digest for path in paths for name, digest in _hashes(path)}


def _texts(value: Any) -> Iterator[str]:
    """Yield all strings in the options of a plugin."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():  # pyright: ignore[reportUnknownVariableType]
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _texts(each)


def _hashes(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the files of a model, each by the name of the model and its own, with its SHA-256."""
    try:
        if path.is_file():
            yield path.name, _hash_of(path)
        elif path.is_dir():
            files = sorted(each for each in path.rglob("*") if each.is_file())[:_MOST_FILES]
            for each in files:
                yield f"{path.name}/{each.relative_to(path).as_posix()}", _hash_of(each)
    except (OSError, ValueError):  # ValueError: a text that cannot be a path
        return


def _hash_of(path: Path) -> str:
    if path.stat().st_size > _LARGEST:
        return f"{path.stat().st_size} bytes"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plugins(stream: StreamConfig) -> Iterator[tuple[str, str]]:
    shadow = [rule for each in stream.shadow for rule in each.rules]
    chosen = [("segmenters", stream.segmenter), ("trackers", stream.tracker)]
    chosen += [("rules", rule) for rule in (*stream.rules, *shadow)]
    for group, each in chosen:
        if ":" in each.use:
            with contextlib.suppress(CytoloopError, OSError, TypeError):
                file = inspect.getsourcefile(find_class(group, each.use))
                if file:
                    yield each.use, _hash_of(Path(file))
