"""The CUDA driver through ctypes: memory, a stream, graphs. It comes with every NVIDIA driver; nothing to install."""

from __future__ import annotations

import ctypes
import platform
import weakref
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...acquire.errors import ModelError

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NON_BLOCKING = 1
_SLEEP_WITHOUT_TIMING = 1 | 2
_THREAD_LOCAL = 1
# Names and arguments as in cuda.h of CUDA 12 and 13; all of them exist since driver 470.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuEventCreate": (POINTER(c_void_p), c_uint),
    "cuEventDestroy_v2": (c_void_p,),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_uint64),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphDestroy": (c_void_p,),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
}


def cards() -> list[str]:
    """Return the names of the NVIDIA cards that the driver offers; none without a driver."""
    try:
        driver = _load()
    except OSError:
        return []
    count, device, name = c_int(), c_int(), ctypes.create_string_buffer(256)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    found: list[str] = []
    for index in range(count.value):
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        found.append(name.value.decode("utf-8", "replace"))
    return found


class Card:
    """One NVIDIA card, with a stream of its own.

    It uses the card's primary context, as TensorRT and torch do, so that their work and ours share memory.

    Parameters
    ----------
    index
        Which card.

    Attributes
    ----------
    name
        ``"NVIDIA RTX A4000"``.
    capability
        Compute capability, ``"8.6"``.
    driver
        CUDA version of the driver, ``"13.0"``.
    stream
        Handle of the stream.

    Raises
    ------
    ModelError
        If there is no driver or no such card.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            self._driver = _load()
        except OSError as error:
            raise ModelError(f"no NVIDIA driver was found: {error}") from None
        self.call("cuInit", 0)
        count, device, context = c_int(), c_int(), c_void_p()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        if not 0 <= index < count.value:
            raise ModelError(f"there is no NVIDIA card {index}; the driver offers {count.value}")
        self.call("cuDeviceGet", ctypes.byref(device), index)
        self.name = self._name(device)
        self.capability = ".".join(
            str(self._attribute(a, device)) for a in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)
        )
        self.driver = self._version()
        # Retained for the life of the process: TensorRT and torch hold it just as long.
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._context = context.value
        self.activate()
        self.stream = self._handle("cuStreamCreate", _NON_BLOCKING, destroy="cuStreamDestroy_v2")
        self._done = self._handle("cuEventCreate", _SLEEP_WITHOUT_TIMING, destroy="cuEventDestroy_v2")

    def activate(self) -> None:
        """Make the card the one that this thread works on."""
        self.call("cuCtxSetCurrent", self._context)

    def call(self, function: str, *arguments: Any) -> None:
        """Call the driver.

        Raises
        ------
        ModelError
            If it answers with an error; says which.
        """
        code = getattr(self._driver, function)(*arguments)
        if code:
            text = c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            said = (text.value or b"unknown error").decode("ascii", "replace")
            raise ModelError(f"the graphics card fails in {function}: {said} ({code})")

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array that the card reads and writes without a detour; freed with its last view."""
        size, address = _bytes(shape, dtype), c_void_p()
        self.call("cuMemHostAlloc", ctypes.byref(address), size, 0)
        memory: Any = (ctypes.c_byte * size).from_address(address.value or 0)
        weakref.finalize(memory, self._free, "cuMemFreeHost", address.value)
        return np.frombuffer(memory, dtype).reshape(shape)

    def memory(self, owner: object, size: int) -> int:
        """Return the address of memory on the card that is freed with its owner."""
        address = c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), max(size, 1))
        weakref.finalize(owner, self._free, "cuMemFree_v2", address.value)
        return address.value

    def upload(self, target: int, source: NDArray[Any]) -> None:
        """Copy an array of :meth:`pinned` to the card, in the stream."""
        self.call("cuMemcpyHtoDAsync_v2", target, source.ctypes.data, source.nbytes, self.stream)

    def download(self, target: NDArray[Any], source: int) -> None:
        """Copy memory of the card to an array of :meth:`pinned`, in the stream."""
        self.call("cuMemcpyDtoHAsync_v2", target.ctypes.data, source, target.nbytes, self.stream)

    def wait(self) -> None:
        """Sleep, without spinning, until the stream has done what it was given."""
        self.call("cuEventRecord", self._done, self.stream)
        self.call("cuEventSynchronize", self._done)

    def capture(self, owner: object, work: Callable[[], None]) -> int | None:
        """Record what ``work`` puts into the stream as a graph that is launched in one go.

        Returns
        -------
        int or None
            Handle of the graph, freed with its owner; None if the work cannot be recorded.
        """
        graph, executable = c_void_p(), c_void_p()
        self.call("cuStreamBeginCapture_v2", self.stream, _THREAD_LOCAL)
        try:
            work()
        except ModelError:
            self._driver.cuStreamEndCapture(self.stream, ctypes.byref(graph))
            return None
        if self._driver.cuStreamEndCapture(self.stream, ctypes.byref(graph)) or not graph.value:
            return None
        self.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        self.call("cuGraphDestroy", graph)
        weakref.finalize(owner, self._free, "cuGraphExecDestroy", executable.value)
        return executable.value

    def launch(self, graph: int) -> None:
        """Put a recorded graph into the stream."""
        self.call("cuGraphLaunch", graph, self.stream)

    def _handle(self, function: str, flags: int, *, destroy: str) -> int:
        handle = c_void_p()
        self.call(function, ctypes.byref(handle), flags)
        weakref.finalize(self, _free, self._driver, self._context, destroy, handle.value)
        return handle.value or 0

    @property
    def _free(self) -> Callable[[str, int | None], None]:
        """Return a function that frees a handle and does not keep this object alive."""
        driver, context = self._driver, self._context
        return lambda function, handle: _free(driver, context, function, handle)

    def _name(self, device: c_int) -> str:
        text = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", text, len(text), device)
        return text.value.decode("utf-8", "replace")

    def _attribute(self, attribute: int, device: c_int) -> int:
        value = c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        return value.value

    def _version(self) -> str:
        value = c_int()
        self.call("cuDriverGetVersion", ctypes.byref(value))
        return f"{value.value // 1000}.{value.value % 1000 // 10}"


def _free(driver: Any, context: int | None, function: str, handle: int | None) -> None:
    """Free a handle; at the end of the process the driver may be gone, and everything with it."""
    driver.cuCtxSetCurrent(context)
    getattr(driver, function)(handle)


def _bytes(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1)


def _load() -> Any:
    """Load the driver's library.

    Raises
    ------
    OSError
        If there is none.
    """
    if platform.system() == "Darwin":
        raise OSError("there is none for macOS")
    library = ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
    for name, arguments in _FUNCTIONS.items():
        function = getattr(library, name, None)
        if function is None:
            raise OSError(f"the NVIDIA driver is too old: it has no {name}; update it")
        function.argtypes, function.restype = arguments, c_int
    return library
