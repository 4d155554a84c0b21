"""A network cable that can be cut: forwards TCP between a client and a service until it is, without a word."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from types import TracebackType

_BLOCK = 1 << 16


class Cable:
    """Listens on a free port of this computer and forwards to a service; a context manager.

    A cut cable keeps its connections open and carries nothing, as a network that is gone does; what was sent meanwhile
    is lost with the connections when it is mended.

    Parameters
    ----------
    address
        ``tcp://HOST:PORT`` of the service.

    Attributes
    ----------
    address
        Where clients connect.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._service = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._partners: dict[socket.socket, socket.socket] = {}
        self._cut = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="cytoloop cable", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Carry nothing from now on."""
        self._cut.set()

    def mend(self) -> None:
        """Carry again, over new connections."""
        self._cut.clear()

    def _work(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            was_cut = False
            while not self._ended.is_set():
                if self._cut.is_set():
                    was_cut = True
                    self._ended.wait(0.005)
                    continue
                if was_cut:
                    was_cut = False
                    self._drop(selector, *self._partners)
                for key, _ in selector.select(0.02):
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._partners:
                        self._forward(selector, key.fileobj)
            self._drop(selector, *self._partners)
        self._listener.close()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        try:
            service = socket.create_connection(self._service, timeout=1.0)
        except OSError:
            client.close()
            return
        for one, other in ((client, service), (service, client)):
            one.settimeout(5.0)
            self._partners[one] = other
            selector.register(one, selectors.EVENT_READ)

    def _forward(self, selector: selectors.BaseSelector, sender: socket.socket) -> None:
        try:
            block = sender.recv(_BLOCK)
            if block:
                self._partners[sender].sendall(block)
                return
        except OSError:
            pass
        self._drop(selector, sender)

    def _drop(self, selector: selectors.BaseSelector, *ends: socket.socket) -> None:
        for end in ends:
            for each in (end, self._partners.pop(end, None)):
                if each is not None and each.fileno() >= 0:
                    self._partners.pop(each, None)
                    with contextlib.suppress(KeyError, ValueError):
                        selector.unregister(each)
                    each.close()

    def close(self) -> None:
        """End the thread and all connections."""
        self._ended.set()
        self._thread.join()

    def __enter__(self) -> Cable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
