"""The private parts of pycro-manager 1.0.2's Python engine, touched here and nowhere else.

The engine loses errors and then hangs in several ways (the numbers are those of the list in ``docs``): this
module sees them happen. Nothing in the installed package is changed; what is replaced are attributes of one
acquisition object.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import AcquisitionError

_LOG = logging.getLogger("cytoloop.loop")
_MODULE = "pycromanager.acquisition.acq_eng_py.internal.engine"
_ENDED = "the acquisition has ended; submit events inside its 'with' block"
_UNBOUNDED = 1 << 30
_POLL_S = 0.05
_GRACE_S = 2.0
_HOOKS = {
    "event_generation_hook_fn": "get_event_generation_hooks",
    "pre_hardware_hook_fn": "get_before_hardware_hooks",
    "post_hardware_hook_fn": "get_after_hardware_hooks",
    "post_camera_hook_fn": "get_after_camera_hooks",
}


def _engine() -> Any:
    module = sys.modules.get(_MODULE)
    return None if module is None else module.Engine.get_instance()


def running_core() -> Any:
    """Return the core of the Python engine that runs in this process, or None (also for the Java backend)."""
    engine = _engine()
    return None if engine is None else engine.core


def check_camera() -> None:
    """Refuse a camera whose images the engine cannot handle, before it hangs on them (trap 8).

    Raises
    ------
    AcquisitionError
        If the camera of the running core gives colour or more than 16 bit.
    """
    core = running_core()
    if core is None or not core.getCameraDevice():
        return
    if core.getNumberOfComponents() != 1 or core.getBytesPerPixel() not in (1, 2):
        camera = core.getCameraDevice()
        kind = "RGB" if core.getNumberOfComponents() != 1 else f"{8 * core.getBytesPerPixel()}-bit"
        raise AcquisitionError(
            f"camera {camera!r} gives {kind} images, on which pycro-manager 1.0.2 fails;"
            " set its PixelType to 8bit or 16bit"
        )


def apply_exposure(exposure_ms: float | None) -> None:
    """Make the engine set an exposure that was changed elsewhere since its last event (trap 9).

    It compares an event with the one before and not with the camera. Call it in the hook, from the thread
    that runs the hardware.
    """
    engine = _engine()
    if exposure_ms is None or engine is None or engine.last_event is None:
        return
    if engine.core.getExposure() != exposure_ms:
        engine.last_event = None


def stop_headless() -> None:
    """Stop the engine so that ``start_headless`` works again in this process (trap 10)."""
    from pycromanager import stop_headless as stop

    stop()
    engine = sys.modules[_MODULE].Engine
    if hasattr(engine, "singleton"):
        del engine.singleton


class Watch:
    """Sees what happens to one acquisition, and ends it without hanging.

    Parameters
    ----------
    acquisition
        A ``pycromanager.Acquisition`` of the Python backend, of which nothing has been submitted yet.
    image_timeout_s
        Time in s, beyond exposure and planned start, after which an image is overdue.
    complete
        Called with the metadata of every image that was taken, to add to them; from the hardware's thread.

    Raises
    ------
    AcquisitionError
        If the acquisition cannot be watched, or its functions are such that it would fail in silence.
    """

    def __init__(
        self, acquisition: Any, image_timeout_s: float, complete: Callable[[dict[str, Any]], None]
    ) -> None:
        engine: Any = getattr(acquisition, "_acq", None)
        if not hasattr(engine, "submit_event_iterator") or running_core() is None:
            raise AcquisitionError(
                "the guard needs a running pycro-manager acquisition of the Python backend"
                " (start_headless(..., python_backend=True))"
            )
        self._acquisition, self._engine = acquisition, engine
        self.ending = False
        self.imaged = 0
        self.longest_exposure_ms = float(running_core().getExposure())
        self._image_timeout_s, self._complete = image_timeout_s, complete
        self._changed = threading.Condition()
        self._submitted = self._finished = self._processed = self._busy = 0
        self._progress_s = time.monotonic()
        self._current: Any = None
        self._closed = False
        self._failure: tuple[str, BaseException] | None = None
        hooks = [(name, hook) for name, getter in _HOOKS.items() for hook in getattr(self._engine, getter)()]
        _check_functions(hooks, acquisition._process_fn)
        for name, hook in hooks:
            hook._hook_fn = self._watched(hook._hook_fn, name)
        acquisition._process_fn = self._watched(_checked_result(acquisition._process_fn), "image_process_fn")
        # With a dead listener (a user's callback that raised) the bounded queues would fill up and hang the end.
        acquisition._notification_queue.maxsize = acquisition._image_notification_queue.maxsize = _UNBOUNDED
        self._submit, self._add_to_output = self._engine.submit_event_iterator, self._engine.add_to_output
        self._engine.submit_event_iterator = self._submit_event_iterator
        self._engine.add_to_output = self._image_taken
        self._mark_finished, acquisition.mark_finished = acquisition.mark_finished, self._close
        self._wait, self._engine.block_unless_aborted = (
            self._engine.block_unless_aborted,
            self._wait_unless_aborted,
        )

    def submit(self, event_or_events: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Hand checked events to the acquisition as one ``acquire()``.

        Raises
        ------
        AcquisitionError
            If the acquisition has ended: pycro-manager would lose the events in silence (trap 12).
        """
        if self._closed:
            raise AcquisitionError(_ENDED)
        with self._changed:
            self._submitted += 1
            self._progress_s = time.monotonic()
        try:
            self._acquisition.acquire(event_or_events)
        except Exception as error:
            if self._closed:
                raise AcquisitionError(_ENDED) from error
            self.end()  # aborted by the user, a moment ago

    def wait(self, outstanding: int = 0) -> None:
        """Wait until at most so many submissions are unfinished; with 0, until all their images are processed.

        Returns early when the acquisition is ending.

        Raises
        ------
        AcquisitionError
            If something failed, or an image is overdue.
        """
        with self._changed:
            while not self.ending:
                self._check()
                idle = self._submitted - self._finished <= outstanding
                if idle and (outstanding or self._processed >= self.imaged):
                    return
                self._changed.wait(_POLL_S)

    def elapsed_s(self) -> float:
        """Return the present in s on the clock in which the engine counts planned starts, 0 before it runs."""
        start_ms = self._engine.get_start_time_ms()
        return 0.0 if start_ms < 0 else max(0.0, time.time() - start_ms / 1000)

    def end(self) -> None:
        """End the acquisition now; what has been taken is kept. Does not block, any thread may call it."""
        with self._changed:
            if self.ending or self._acquisition._finished:  # nothing is left to end
                return
            self.ending = True
            self._changed.notify_all()
        # What goes wrong from here on is told by the guard, or logged, and not by await_completion() instead.
        self._acquisition._check_for_exceptions = lambda: None
        self._acquisition.abort()
        self._mark_finished()  # abort() empties the queue, and the end's own marker with it (trap 5)

    def shut_down(self) -> None:
        """End the acquisition after an error that the caller raises; bounded even if the hardware hangs."""
        self.end()
        from pycromanager.acquisition.acq_future import AcqNotification

        engine = self._engine
        last = engine.core_.TaggedImage(None, None)
        if not engine.events_finished_.wait(_GRACE_S):
            _LOG.error("the acquisition engine hangs; ending the acquisition without it")
            engine.events_finished_.set()
            if not engine.first_dequeue_.full():
                engine.first_dequeue_.put_nowait(last)
            engine.post_notification(AcqNotification.create_acq_events_finished_notification())
        if not engine.data_sink_.block_until_finished(_GRACE_S):
            engine.save_image(last)

    def _close(self) -> None:
        """Stand in for ``mark_finished``, with which the ``with`` block ends: what comes later would be lost."""
        self._closed = True
        self._mark_finished()

    # --- what the acquisition does ---------------------------------------------------------------------------

    def _submit_event_iterator(self, events: Iterator[Any]) -> Any:
        future = self._submit(self._pulled(events))
        future.add_done_callback(self._done)  # the engine drops it, and the error of a last event (trap 2)
        return future

    def _pulled(self, events: Iterator[Any]) -> Iterator[Any]:
        """Pass events on; the engine executes one when it asks for the next."""
        previous = None
        for event in events:
            self._executing(previous)
            yield event
            previous = event
        self._executing(previous)

    def _executing(self, event: Any) -> None:
        with self._changed:
            self._current, self._progress_s = event, time.monotonic()
        if event is not None and self.ending:
            event.set_minimum_start_time(None)
        elif event is not None and event.get_exposure() is not None:
            self.longest_exposure_ms = max(self.longest_exposure_ms, event.get_exposure())

    def _wait_unless_aborted(self, timeout_ms: float) -> None:
        """Leave the wait for a planned start when the acquisition is aborted; the engine itself would spin."""
        self._wait(timeout_ms)
        if self._engine.is_abort_requested():
            raise AcquisitionError("aborted while waiting for the planned start of an event")

    def _done(self, future: Any) -> None:
        error = None if future.cancelled() else future.exception()
        with self._changed:
            self._finished += 1
            self._progress_s = time.monotonic()
            self._changed.notify_all()
        if error is not None:
            self._failed("the hardware", error)

    def _image_taken(self, tagged_image: Any) -> None:
        if tagged_image.tags is not None:
            self._complete(tagged_image.tags)
            with self._changed:
                self.imaged += 1
                self._progress_s = time.monotonic()
        self._add_to_output(tagged_image)

    def _watched(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return the user's function; what it raises is kept, and the watchdog sleeps while it runs."""

        @functools.wraps(function)
        def watched(*arguments: Any) -> Any:
            with self._changed:
                self._busy += 1
            try:
                return function(*arguments)
            except Exception as error:
                self._failed(name, error)
                raise
            finally:
                with self._changed:
                    self._busy -= 1
                    self._processed += name == "image_process_fn"
                    self._progress_s = time.monotonic()
                    self._changed.notify_all()

        return watched

    # --- what went wrong --------------------------------------------------------------------------------------

    def _failed(self, where: str, error: BaseException) -> None:
        with self._changed:
            if self.ending:
                _LOG.debug("%s after the end of the acquisition: %s", where, error)
            elif self._failure is None:
                self._failure = (where, error)
            self._changed.notify_all()

    def _check(self) -> None:
        acquisition = self._acquisition
        if self._failure is not None:
            where, error = self._failure
            raise AcquisitionError(f"{where} failed{self._at()}: {_chain(error)}") from error
        error = acquisition._exception or self._engine.abort_exception_
        if error is not None:
            raise AcquisitionError(f"the acquisition failed{self._at()}: {_chain(error)}") from error
        if self._engine.is_abort_requested():
            _LOG.warning("the acquisition was aborted%s", self._at())
            self.end()
            return
        if not acquisition._event_thread.is_alive():
            raise AcquisitionError(_ENDED)
        threads = {
            "notification_callback_fn": acquisition._notification_dispatch_thread,
            "image_saved_fn": acquisition._storage_monitor_thread,
        }
        for what, thread in threads.items():
            if not thread.is_alive():
                raise AcquisitionError(f"{what} raised{self._at()}; its traceback was printed above")
        self._check_overdue()

    def _check_overdue(self) -> None:
        if self._busy or (self._finished >= self._submitted and self._processed >= self.imaged):
            return
        silent_s = time.monotonic() - self._progress_s
        start_ms = None if self._current is None else self._current.get_minimum_start_time_absolute()
        if start_ms is not None:
            silent_s = min(silent_s, time.time() - start_ms / 1000)
        allowed_s = self._image_timeout_s + self.longest_exposure_ms / 1000
        if silent_s > allowed_s:
            raise AcquisitionError(
                f"no image within {allowed_s:.1f} s{self._at()}: the camera or another device hangs"
            )

    def _at(self) -> str:
        axes = None if self._current is None else self._current.get_axis_positions()
        return f" at {axes}" if axes else ""


def _check_functions(hooks: list[tuple[str, Any]], process_fn: Callable[..., Any] | None) -> None:
    """Refuse hooks that the engine cannot call (trap 1)."""
    if process_fn is None or not any(name == "pre_hardware_hook_fn" for name, _ in hooks):
        raise AcquisitionError(
            "the acquisition needs image_process_fn=loop.on_image and pre_hardware_hook_fn=loop.before_event"
        )
    for name, hook in hooks:
        if not _takes(hook._hook_fn, 1):
            raise AcquisitionError(
                f"{name} must take one argument, (event): pycro-manager 1.0.2's Python backend calls it with one,"
                " whatever its documentation says of an event queue"
            )
    if not (_takes(process_fn, 2) or _takes(process_fn, 3)):
        raise AcquisitionError("image_process_fn must take (image, metadata)")


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a builtin that has no signature
        return True
    return True


def _checked_result(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return image_process_fn with its result checked: anything but an image ends the storage (trap 8)."""

    @functools.wraps(function)
    def checked(*arguments: Any) -> Any:
        result = function(*arguments)
        if result is None:
            return None
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            raise AcquisitionError(
                "image_process_fn must return (image, metadata) or None: pycro-manager 1.0.2 fails on"
                f" {'a list' if isinstance(result, list) else type(result).__name__}"
            )
        if getattr(result[0], "dtype", None) != arguments[0].dtype:
            raise AcquisitionError(
                f"image_process_fn must return an image of the same type, {arguments[0].dtype}"
            )
        return result

    return checked


def _chain(error: BaseException) -> str:
    """Return an error with those that it came from."""
    words: list[str] = []
    link: BaseException | None = error
    while link is not None:
        words.append(str(link) or type(link).__name__)
        link = link.__cause__ or link.__context__
    return ": ".join(dict.fromkeys(words))
