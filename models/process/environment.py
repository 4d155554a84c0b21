"""Finding the Python of another environment and the worker's file, and what the process inherits."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from ...acquire.errors import ModelError, nearest_name

WORKERS = Path(__file__).parent / "workers"
_IN_ENVIRONMENT = ("bin/python", "Scripts/python.exe", "python.exe")
# They are meant for the Python that runs us; another one would import packages that are not its own.
_OURS_ALONE = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__")


def shipped_workers() -> list[str]:
    """Return the names of the workers that come with cytoloop, sorted."""
    return sorted(path.stem for path in WORKERS.glob("[!_]*.py"))


def find_python(given: str) -> Path:
    """Return the interpreter that is meant.

    Parameters
    ----------
    given
        Path of an interpreter, or of the folder of an environment, or a command on ``PATH``; ``""`` is the Python
        that runs cytoloop.

    Raises
    ------
    ModelError
        If there is none.
    """
    if not given:
        return Path(sys.executable)
    path = Path(given).expanduser()
    if path.is_dir():
        found = next((path / each for each in _IN_ENVIRONMENT if (path / each).is_file()), None)
        if found is None:
            raise ModelError(f"python: the folder {given!r} holds no {', '.join(_IN_ENVIRONMENT)}")
        return found.absolute()
    if path.is_file():
        return path.absolute()  # not resolved: the link itself tells Python which environment it is
    command = shutil.which(given)
    if command is None:
        raise ModelError(
            f"python: {given!r} does not exist; give the interpreter of the environment, or its folder"
            " (in the environment, python -c 'import sys; print(sys.executable)' prints it)"
        )
    return Path(command).absolute()


def find_worker(given: str) -> Path:
    """Return the file of a worker.

    Parameters
    ----------
    given
        Name of a shipped worker; or path of a Python file, looked for in the working directory and then wherever
        Python finds modules, as plugins are: beside the experiment file, on ``PYTHONPATH``.

    Raises
    ------
    ModelError
        If there is none; lists the shipped ones.
    """
    shipped = shipped_workers()
    if given in shipped:
        return WORKERS / f"{given}.py"
    path = Path(given).expanduser()
    folders = ["."] if path.is_absolute() else [".", *sys.path]
    found = next((file for folder in folders if (file := Path(folder) / path).is_file()), None)
    if found is not None and found.suffix == ".py":
        return found.absolute()
    hint = nearest_name(given, shipped)
    what = (
        "is no Python file (.py)"
        if found is not None or path.is_dir()
        else "is neither shipped nor a file here"
    )
    raise ModelError(
        f"worker: {given!r} {what}; shipped: {', '.join(shipped)}."
        + (f" Did you mean {hint!r}?" if hint else "")
    )


def variables(python: Path, ours: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of the process: ours, without what is meant for our Python alone.

    The interpreter's own folders come first on ``PATH``, as activating a conda environment does it; on Windows
    its libraries are found there only.
    """
    folder = python.parent
    folders = [folder, *(each for each in (folder / "Library" / "bin", folder / "Scripts") if each.is_dir())]
    kept = {name: value for name, value in ours.items() if name.upper() not in _OURS_ALONE}
    path = os.pathsep.join([*map(str, folders), *filter(None, [ours.get("PATH", "")])])
    return {**kept, "PATH": path, "PYTHONIOENCODING": "utf-8"}
