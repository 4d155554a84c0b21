"""The near side: one process of another environment that has loaded a worker."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from io import BufferedReader, BufferedWriter, FileIO
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import ModelError
from ...acquire.frame import Pixels
from .child import WireFault, receive, receive_array, send
from .environment import variables

CHILD = Path(__file__).with_name("child.py")
_KEPT_BYTES = 16_384
_QUOTED_LINES = 5
_QUOTED_CHARACTERS = 1000
_PATIENCE_S = 5.0


class _Ready(msgspec.Struct, tag="ready"):
    python: str
    numpy: str


class _Failed(msgspec.Struct, tag="failed"):
    reason: str
    line: int = 0
    missing: str = ""


class _Found(msgspec.Struct, tag="labels"):
    shape: tuple[int, int]
    confidences: int


class Program:
    """A process that has loaded a worker; one thread uses it.

    It ends when :meth:`close` is called, when a time is exceeded, when it breaks the rules of the wire, and when
    this process ends, however it ends. Once it has ended it stays so.

    Parameters
    ----------
    python, worker
        Interpreter and file, both absolute.
    options
        Keywords of the worker's ``load``; anything that JSON can tell.
    start_s
        Time in s for starting Python and loading the model.

    Raises
    ------
    ModelError
        If the interpreter cannot be started, the worker cannot be loaded, or not in time.
    """

    def __init__(self, python: Path, worker: Path, options: Mapping[str, Any], start_s: float) -> None:
        self._python, self._worker = python, worker
        self._late = self._closed = False
        try:
            self._process = subprocess.Popen(
                [str(python), "-u", str(CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=variables(python, os.environ),
                start_new_session=True,  # a group of its own, which can be ended as a whole
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise ModelError(f"{python}: cannot be started: {error}") from error
        self._to = cast(BufferedWriter, self._process.stdin)
        self._from = cast(BufferedReader, self._process.stdout)
        self._said = _Tail(cast(BufferedReader, self._process.stderr))
        with self._closed_on_error():
            with self._within(start_s, "loading it", "start_s"):
                answer = self._ask({"worker": str(worker), "options": dict(options)})
            if isinstance(answer, _Failed):
                raise ModelError(self._reason(answer))
            if not isinstance(answer, _Ready):
                raise self._broken("it answers before it is asked")
        self.python, self.numpy = answer.python, answer.numpy

    @property
    def ended(self) -> bool:
        """Whether the process has ended, for whatever reason."""
        return self._process.poll() is not None

    def segment(
        self, image: Pixels, timeout_s: float
    ) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
        """Return labels and confidences of one image as the worker gave them; blocks until they are here.

        Parameters
        ----------
        image
            (y, x) or (channels, y, x).
        timeout_s
            Time in s for all of it.

        Raises
        ------
        ModelError
            If the worker failed on it; then the next image may be tried. If the process died, took too long or
            sent what is no answer; then :attr:`ended` is true.
        """
        size = image.shape[-2:]
        with self._within(timeout_s, "a frame", "timeout_s"):
            answer = self._ask({"shape": image.shape, "dtype": image.dtype.name}, image)
            if isinstance(answer, _Failed):
                raise ModelError(self._reason(answer))
            if not isinstance(answer, _Found):
                raise self._broken("it answers what was not asked")
            if answer.shape != size or not -1 <= answer.confidences <= size[0] * size[1]:
                raise self._broken(
                    f"labels of shape {answer.shape} with {answer.confidences} confidences for an image of {size}"
                )
            labels = self._array(answer.shape, "int32")
            confidences = self._array((answer.confidences,), "float32") if answer.confidences >= 0 else None
        return labels, confidences

    def close(self) -> None:
        """End the process and whatever it has started, and close the pipes."""
        if self._closed:
            return
        self._kill()
        self._closed = True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_S)
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError):  # what was not yet written is lost with it
                pipe.close()
        self._said.join(_PATIENCE_S)

    def _kill(self) -> None:
        if self._closed:  # its number may be another process's by now
            return
        if sys.platform != "win32":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    # --- messages -------------------------------------------------------------------------------------------

    def _ask(self, header: dict[str, Any], *arrays: Pixels) -> _Ready | _Failed | _Found:
        try:
            send(self._to, header, *arrays)
            text = receive(self._from)
        except OSError:
            text = None
        except WireFault as error:
            raise self._broken(str(error)) from error
        if text is None:
            raise ModelError(self._obituary())
        try:
            return msgspec.json.decode(text, type=_Ready | _Failed | _Found)
        except msgspec.MsgspecError as error:
            raise self._broken(str(error)) from error

    def _array(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        try:
            return receive_array(self._from, shape, dtype)
        except (OSError, WireFault):
            raise ModelError(self._obituary()) from None

    @contextlib.contextmanager
    def _within(self, seconds: float, what: str, option: str) -> Generator[None]:
        """Kill the process if it takes longer, which ends any reading and writing that waits for it."""
        timer = threading.Timer(seconds, self._be_late)
        timer.daemon = True
        timer.start()
        failure: ModelError | None = None
        try:
            yield
        except ModelError as error:
            failure = error
        except BaseException:  # Ctrl-C within a message: the rest of it would be taken for the next answer
            self.close()
            raise
        finally:
            timer.cancel()
            timer.join()
        if self._late:  # whatever it failed with then, this is why
            self.close()
            raise ModelError(
                f"{self._worker.name}: {what} took longer than {seconds:g} s ({option}); its process was ended"
                + self._said.quoted()
            )
        if failure is not None:
            raise failure

    def _be_late(self) -> None:
        self._late = True
        self._kill()

    @contextlib.contextmanager
    def _closed_on_error(self) -> Generator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    # --- reasons --------------------------------------------------------------------------------------------

    def _reason(self, failed: _Failed) -> str:
        """Return why the worker failed, in words for a person."""
        where = f"{self._worker.name}, line {failed.line}" if failed.line else self._worker.name
        if not failed.missing:
            return f"{where}: {failed.reason}"
        package = failed.missing.partition(".")[0]
        return f"{where}: the environment of {self._python} lacks the package {package!r} ({failed.reason})"

    def _broken(self, reason: str) -> ModelError:
        """End a process that breaks the rules of the wire: what it sends next cannot be told apart."""
        self.close()
        return ModelError(f"{self._worker.name}: its process sent what is no answer: {reason}")

    def _obituary(self) -> str:
        self.close()
        code = self._process.returncode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return f"{self._worker.name}: its process ended ({how}){self._said.quoted()}"


class _Tail(threading.Thread):
    """Reads what a process says on stderr, until it ends, and keeps the end of it."""

    def __init__(self, pipe: BufferedReader) -> None:
        super().__init__(name="stderr of a model's process", daemon=True)
        self._pipe, self._kept = pipe, b""
        self.start()

    def run(self) -> None:
        """Read until the other side has ended."""
        with self._pipe as pipe:
            while chunk := cast(FileIO, pipe.raw).read(4096):
                self._kept = (self._kept + chunk)[-_KEPT_BYTES:]

    def quoted(self) -> str:
        """Return the last lines, to be put behind a message, or ``""`` if nothing was said."""
        lines = [line.strip() for line in self._kept.decode("utf-8", "replace").splitlines() if line.strip()]
        text = " | ".join(lines[-_QUOTED_LINES:])[-_QUOTED_CHARACTERS:]
        return f". It said last: {text}" if text else ""
