"""What ``cytoloop doctor`` looks at; nothing heavy is imported, nothing is changed.

``ok`` is False only when something needed is missing, or something that is there cannot work. An optional
part that is missing is fine and comes with advice.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from importlib.util import find_spec
from pathlib import Path

from ..machine import cpu_name, nvidia_cards, usable_cores

OLDEST_PYTHON = (3, 11)
ROOMY_BYTES = 10 * 2**30
NEEDED_BYTES = 2**30
EXTRAS = {
    "engine": "the real pycro-manager acquisition engine",
    "plus": "acquisitions with pymmcore-plus",
    "zarr": "OME-Zarr recordings",
    "report": "pictures of a run",
    "scores": "scores against ground truth",
}
RUNTIMES = {
    "onnxruntime": "networks on the processor",
    "openvino": "networks on Intel processors",
    "tensorrt_rtx": "networks on NVIDIA cards: pip install 'cytoloop[tensorrt]'",
    "tensorrt": "networks on NVIDIA data-centre cards",
    "torch": "training: pip install 'cytoloop[train]'",
}
GROUPS = ("sources", "actuators", "segmenters", "trackers", "rules")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: its name, whether it can work, what was found, and what to do (may be ``""``)."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def all_checks() -> list[Check]:
    """Return every check of this computer, in the order in which a person reads them."""
    checks = [check_python(), Check("processor", True, f"{cpu_name()}, {usable_cores()} usable cores")]
    checks += [check_base(), check_plugins()]
    checks += [check_extra(extra, purpose) for extra, purpose in EXTRAS.items()]
    checks += [check_device_interface(), check_micromanager(), check_graphics_card()]
    checks += [check_runtime(module, purpose) for module, purpose in RUNTIMES.items()]
    checks += [check_transports(), check_shared_memory(), check_default_address(), check_disk(Path.cwd())]
    return checks


def check_python() -> Check:
    """Look at the interpreter's version."""
    found = f"{platform.python_version()} ({sys.executable})"
    fine = sys.version_info >= OLDEST_PYTHON
    return Check("python", fine, found, "" if fine else "Python 3.11 or newer is needed")


def requirements(extra: str = "") -> list[tuple[str, str]]:
    """Return (package, condition such as ``>=2.0``) of cytoloop itself, or of one of its extras."""
    chosen: list[tuple[str, str]] = []
    for line in requires("cytoloop") or []:
        what, _, marker = line.partition(";")
        of = re.search(r'extra == "(.+?)"', marker)
        match = re.match(r"([\w.-]+)(?:\[[^]]*])?\s*(.*)", what.strip())
        if (of.group(1) if of else "") == extra and match:
            chosen.append((match.group(1), match.group(2).strip()))
    return chosen


def installed(package: str) -> str:
    """Return the installed version of a package, or ``""``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def meets(found: str, condition: str) -> bool:
    """Compare a version with ``==1.2.3`` or ``>=1.2``; anything else counts as met."""
    if condition.startswith("=="):
        return found == condition[2:]
    if condition.startswith(">="):
        return _numbers(found) >= _numbers(condition[2:])
    return True


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"[\d.]*", text)[0].split(".") if part)  # type: ignore[index]


def check_base() -> Check:
    """Look at what cytoloop itself needs."""
    return judge_packages("cytoloop", requirements(), "python -m pip install --force-reinstall cytoloop")


def judge_packages(name: str, needed: list[tuple[str, str]], remedy: str) -> Check:
    """Check that every needed package is there in a fitting version."""
    wrong = [
        f"{package} {installed(package) or 'missing'} (needs {condition or 'any'})"
        for package, condition in needed
        if not installed(package) or not meets(installed(package), condition)
    ]
    if wrong:
        return Check(name, False, "; ".join(wrong), remedy)
    return Check(name, True, f"{installed('cytoloop')}, all {len(needed)} packages it needs")


def check_plugins() -> Check:
    """Count the registered plugins; none in a group means an installation from before they were added."""
    counts = {group: len(entry_points(group=f"cytoloop.{group}")) for group in GROUPS}
    missing = [group for group, count in counts.items() if not count]
    found = ", ".join(f"{count} {group}" for group, count in counts.items())
    advice = f"no {', '.join(missing)} registered: install cytoloop again" if missing else ""
    return Check("plugins", not missing, found, advice)


def check_extra(extra: str, purpose: str) -> Check:
    """Look at an optional part: missing is fine, a wrong version is not."""
    needed = requirements(extra)
    remedy = f"for {purpose}: python -m pip install 'cytoloop[{extra}]'"
    if any(not installed(package) for package, _ in needed):
        there = [f"{package} {installed(package)}" for package, _ in needed if installed(package)]
        return Check(extra, True, f"only {', '.join(there)}" if there else "not installed", remedy)
    check = judge_packages(extra, needed, remedy)
    return Check(extra, True, ", ".join(f"{p} {installed(p)}" for p, _ in needed)) if check.ok else check


def check_device_interface() -> Check:
    """Compare the device interface of pymmcore (4th number) with that of the test adapters (1st number)."""
    return judge_interface(installed("pymmcore"), installed("mm-test-adapters"))


def judge_interface(core: str, adapters: str) -> Check:
    """Judge whether versions of pymmcore and mm-test-adapters, ``""`` if missing, work together."""
    if not core:
        return Check("device interface", True, "pymmcore is not installed", "see engine")
    speaks = core.split(".")[3] if core.count(".") >= 3 else "?"
    if not adapters:
        advice = "for simulated devices: python -m pip install 'cytoloop[engine]'"
        return Check("device interface", True, f"pymmcore {core} speaks {speaks}, no test adapters", advice)
    offered = adapters.split(".")[0]
    found = f"pymmcore speaks {speaks}, mm-test-adapters speak {offered}"
    advice = f"python -m pip install 'mm-test-adapters=={speaks}.*'"
    return Check("device interface", speaks == offered, found, "" if speaks == offered else advice)


def check_micromanager() -> Check:
    """Look for an installed Micro-Manager where its installers put it."""
    folders = micromanager_folders()
    if not folders:
        advice = "for a real microscope: install Micro-Manager 2.0, or set MICROMANAGER_PATH to its folder"
        return Check("Micro-Manager", True, "not found", advice)
    return Check("Micro-Manager", True, ", ".join(map(str, folders)))


def micromanager_folders() -> list[Path]:
    """Return folders that hold device adapters, the one of MICROMANAGER_PATH first."""
    home = Path.home()
    named = os.environ.get("MICROMANAGER_PATH", "")
    places = {
        "Windows": [Path("C:/Program Files"), home / "AppData/Local/pymmcore-plus/pymmcore-plus/mm"],
        "Darwin": [Path("/Applications"), home / "Library/Application Support/pymmcore-plus/mm"],
    }.get(platform.system(), [Path("/opt"), Path("/usr/local"), home / ".local/share/pymmcore-plus/mm"])
    found = [Path(named)] if named else []
    for place in places:
        if place.is_dir():
            found += sorted(p for p in place.iterdir() if p.name.lower().startswith("micro-manager"))
    adapters = ("mmgr_dal_*", "libmmgr_dal_*", "lib/micro-manager/libmmgr_dal_*")
    return [folder for folder in found if any(next(folder.glob(pattern), None) for pattern in adapters)]


def check_graphics_card() -> Check:
    """Ask NVIDIA's driver for its cards."""
    cards = nvidia_cards()
    if not cards:
        return Check("graphics card", True, "no NVIDIA card or no driver", "the processor is used")
    return Check("graphics card", True, "; ".join(cards))


def check_runtime(module: str, purpose: str) -> Check:
    """Look for a runtime of networks, without importing it."""
    if find_spec(module) is None:
        return Check(module, True, "not installed", f"optional: {purpose}")
    return Check(module, True, installed(module.replace("_", "-")) or "installed")


def check_transports() -> Check:
    """Ask ZeroMQ what it was built with."""
    import zmq

    features: dict[str, bool] = {name: bool(zmq.has(name)) for name in ("ipc", "curve")}
    found = f"ZeroMQ {zmq.zmq_version()}: tcp" + "".join(f", {name}" for name, has in features.items() if has)
    advice = "" if features["curve"] else "this pyzmq has no CURVE: only loopback works; install it again"
    return Check("transports", True, found, advice or ("" if features["ipc"] else "use tcp://127.0.0.1 here"))


def check_shared_memory() -> Check:
    """Allocate 1 MiB that two processes could share."""
    from multiprocessing.shared_memory import SharedMemory

    try:
        memory = SharedMemory(create=True, size=2**20)
    except OSError as error:
        return Check("shared memory", False, str(error), "allow it (in a container: --shm-size=1g)")
    memory.close()
    memory.unlink()
    shm = Path("/dev/shm")
    free = f", {shutil.disk_usage(shm).free / 2**20:.0f} MiB free" if shm.is_dir() else ""
    return Check("shared memory", True, f"works{free}")


def check_default_address() -> Check:
    """Try to bind the address that a service uses when none is given."""
    from ...acquire.link.addresses import DEFAULT_ADDRESS, parse_address

    address = parse_address(DEFAULT_ADDRESS)
    with socket.socket() as trial:
        try:
            trial.bind((address.host, address.port))
        except OSError:
            advice = "if no cytoloop is meant to run, end it or use another address in the experiment file"
            return Check("default address", True, f"{address} is in use", advice)
    return Check("default address", True, f"{address} is free")


def check_disk(folder: Path) -> Check:
    """Look at the room for logs and recordings where the command was started."""
    free = shutil.disk_usage(folder).free
    advice = "" if free >= ROOMY_BYTES else "little room for recordings"
    return Check("disk", free >= NEEDED_BYTES, f"{free / 2**30:.0f} GiB free in {folder}", advice)
