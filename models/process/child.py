"""The far side: this file is run, by path, by the Python of another environment; the model lives there.

It imports nothing of cytoloop and needs Python 3.8 and numpy only; the near side uses its :func:`send`,
:func:`receive` and :func:`receive_array`, so that the wire is written down once.

The wire is the pair of pipes that a process is born with. A message is the length of its header (4 bytes, little
endian), the header (JSON), and the bytes of the arrays whose shapes the header tells. Both sides check sizes
before they take memory. The near side sends ``worker`` and ``options`` once, then ``shape`` and ``dtype`` of each
image. The answer has a ``type``: ``ready``, ``labels`` or ``failed``.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import queue
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np

LONGEST_HEADER = 1 << 20
LARGEST_ARRAY = 1 << 32
LARGEST_LABEL = 2**31 - 1
_LONGEST_REASON = 2000
_LENGTH = struct.Struct("<I")

Array = np.ndarray  # of any type; the parameters of this class are too new for Python 3.8


class WireFault(Exception):
    """Bytes that are no message."""


def send(stream: BufferedWriter, header: dict[str, Any], *arrays: Array[Any, Any]) -> None:
    """Write one message."""
    text = json.dumps(header).encode()
    if len(text) > LONGEST_HEADER:
        raise WireFault(f"a header of {len(text)} bytes; at most {LONGEST_HEADER}")
    stream.write(_LENGTH.pack(len(text)) + text)
    for array in arrays:
        stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    stream.flush()


def receive(stream: BufferedReader) -> bytes | None:
    """Return the header of the next message, None if the other side has ended."""
    length = stream.read(_LENGTH.size)
    if not length:
        return None
    size = _LENGTH.unpack(length)[0] if len(length) == _LENGTH.size else 0
    if not 2 <= size <= LONGEST_HEADER:
        raise WireFault(f"a header of {size} bytes; 2 to {LONGEST_HEADER} are allowed")
    header = stream.read(size)
    if len(header) != size:
        raise WireFault("it ended within a message")
    return header


def receive_array(stream: BufferedReader, shape: tuple[int, ...], dtype: str) -> Array[Any, Any]:
    """Return the array that follows a header."""
    kind = np.dtype(dtype)
    count = math.prod(shape) if all(side >= 0 for side in shape) else -1
    if not 0 <= count * kind.itemsize <= LARGEST_ARRAY:
        raise WireFault(
            f"an array of shape {tuple(shape)}, {dtype}; at most {LARGEST_ARRAY} bytes are allowed"
        )
    array = np.empty(shape, kind)
    place = array.reshape(-1).view(np.uint8).data
    while len(place):
        size = stream.readinto(place)
        if not size:
            raise WireFault("it ended within an array")
        place = place[size:]
    return array


def main() -> None:
    """Load the worker, then segment image after image until the near side ends."""
    incoming, outgoing = _take_the_wire()
    requests: queue.Queue[tuple[dict[str, Any], Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(incoming, requests), daemon=True).start()
    header, _ = requests.get()
    worker = header["worker"]
    try:
        segment = _load(worker, header["options"])
    except (Exception, SystemExit) as error:
        send(outgoing, _failure(error, worker))
        os._exit(1)  # the thread that listens would make an orderly end fail
    send(outgoing, {"type": "ready", "python": sys.version.split()[0], "numpy": np.__version__})
    while True:
        _, image = requests.get()
        shape = image.shape[-2:]
        try:
            labels, confidences = _checked(segment(image), shape)
        except (Exception, SystemExit) as error:
            send(outgoing, _failure(error, worker))
            continue
        count = -1 if confidences is None else len(confidences)
        send(
            outgoing,
            {"type": "labels", "shape": shape, "confidences": count},
            labels,
            *([] if confidences is None else [confidences]),
        )


def _take_the_wire() -> tuple[BufferedReader, BufferedWriter]:
    """Take the pipes away from stdin and stdout, so that what a model prints goes to stderr, also from C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the near side's to act on
    wire = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    if sys.platform == "win32":
        import msvcrt

        for each in wire:
            msvcrt.setmode(each, os.O_BINARY)
    return os.fdopen(wire[0], "rb"), os.fdopen(wire[1], "wb")


def _listen(stream: BufferedReader, requests: queue.Queue[tuple[dict[str, Any], Any]]) -> None:
    """Take messages in, beside the model; when the near side has ended, end this process whatever the model does."""
    try:
        while True:
            text = receive(stream)
            if text is None:
                break
            header = json.loads(text)
            image = None
            if "shape" in header:
                image = receive_array(stream, tuple(header["shape"]), header["dtype"])
            requests.put((header, image))
    except Exception:
        traceback.print_exc()
    if sys.platform != "win32" and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)  # with the processes that the model has started
    os._exit(1)


def _load(worker: str, options: dict[str, Any]) -> Callable[..., Any]:
    # What lies beside the worker can be imported, but nothing there or beside this file may hide a package.
    sys.path[:] = [folder for folder in sys.path if folder != str(Path(__file__).parent)]
    sys.path.append(str(Path(worker).parent))
    spec = importlib.util.spec_from_file_location("cytoloop_worker", worker)
    if spec is None or spec.loader is None:
        raise ImportError("the worker must be a Python file, NAME.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    load = getattr(module, "load", None)
    if not callable(load):
        raise _Refusal("it has no function load; 'def load(**options)' that returns segment(image) is needed")
    segment = load(**options)
    if not callable(segment):
        raise _Refusal(f"load returned {type(segment).__name__}; a function segment(image) is needed")
    return segment


class _Refusal(Exception):
    """What the worker did is not what is needed; the text says all."""


def _checked(result: Any, shape: tuple[int, ...]) -> tuple[Array[Any, Any], Array[Any, Any] | None]:
    """Return labels as int32 of the image's shape, and confidences as float32 or None."""
    confidences = None
    if isinstance(result, tuple):
        if len(result) != 2:
            raise _Refusal(
                f"segment returned {len(result)} things; labels, or (labels, confidences), are needed"
            )
        result, confidences = result
    labels = np.asarray(result)
    if labels.dtype.kind not in "iu":
        hint = "; scipy.ndimage.label gives each cell its number" if labels.dtype.kind == "b" else ""
        raise _Refusal(f"labels of type {labels.dtype}: whole numbers are needed, such as int32{hint}")
    if labels.shape != shape:
        raise _Refusal(f"labels of shape {labels.shape} for an image of {shape}")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest > LARGEST_LABEL:
        wrong = lowest if lowest < 0 else highest
        raise _Refusal(f"labels hold {wrong}: 0 is background, cells are 1 to {LARGEST_LABEL}")
    if confidences is not None:
        confidences = np.asarray(confidences, np.float32)
        if confidences.ndim != 1 or confidences.size > labels.size:
            raise _Refusal(f"confidences of shape {confidences.shape}: one for each cell is needed")
    return labels.astype(np.int32, copy=False), confidences


def _failure(error: BaseException, worker: str) -> dict[str, Any]:
    """Return the answer that tells an error: what, where in the worker's file, and which package is missing."""
    traceback.print_exc()
    if isinstance(error, _Refusal):
        return {"type": "failed", "reason": str(error)}
    lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == worker]
    return {
        "type": "failed",
        "reason": f"{type(error).__name__}: {error}"[:_LONGEST_REASON],
        "line": lines[-1] if lines else 0,
        "missing": (getattr(error, "name", None) or "") if isinstance(error, ModuleNotFoundError) else "",
    }


if __name__ == "__main__":
    main()
