"""CURVE keys: who may talk to a service that is not on loopback.

A folder of keys, as :func:`make_keys` writes it::

    service.key_secret      stays on the computer of the service
    service.key             public: every client needs it
    clients/NAME.key        public: one for each client that may connect; to lock
                            one out, delete it
    NAME/service.key        the folder to copy to the microscope computer NAME ...
    NAME/client.key_secret  ... where it is given as ``keys=``
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from ..errors import AddressError

# A socket without a ZAP domain of its own would let any client in that knows the service's public key.
ZAP_DOMAIN = "cytoloop"


def make_keys(folder: str | Path, clients: tuple[str, ...] = ("microscope",)) -> list[Path]:
    """Write a key pair for the service and one for each client; return the secret files.

    Raises
    ------
    AddressError
        If the folder holds keys already (they are never overwritten) or a client's name is no plain name.
    """
    root = Path(folder)
    for name in clients:
        if not name or name in ("clients", "service") or Path(name).name != name:
            raise AddressError(
                f"client name {name!r}: a plain name is needed, other than 'clients' and 'service'"
            )
        if (root / name).exists():
            raise AddressError(f"{root / name} exists; keys are never overwritten")
    root.mkdir(parents=True, exist_ok=True)
    public = root / "clients"
    public.mkdir(exist_ok=True)
    secrets: list[Path] = []
    if not (root / "service.key_secret").exists():
        zmq.auth.create_certificates(root, "service")
        secrets.append(root / "service.key_secret")
    for name in clients:
        home = root / name
        home.mkdir()
        zmq.auth.create_certificates(home, "client")
        shutil.move(home / "client.key", public / f"{name}.key")
        shutil.copy(root / "service.key", home / "service.key")
        secrets.append(home / "client.key_secret")
    for path in secrets:
        path.chmod(0o600)  # Windows ignores all but the write bit; the folder's owner guards it there
    return secrets


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """A client's own key pair and the service's public key."""

    public: bytes
    secret: bytes
    service: bytes

    @staticmethod
    def load(folder: str | Path) -> ClientKeys:
        """Read the keys from a client's folder.

        Raises
        ------
        AddressError
            If a file is missing or holds no key.
        """
        public, secret = _load(Path(folder) / "client.key_secret")
        service, _ = _load(Path(folder) / "service.key", secret=False)
        return ClientKeys(public, secret, service)

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """Give them to a socket that is not connected yet."""
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret
        socket.curve_serverkey = self.service


class Door:
    """Lets in those clients of a service whose public keys lie in its folder, and follows changes of that.

    A key that is added opens at once; one that is taken away closes at once, also to a client that is connected.

    Parameters
    ----------
    socket
        The service's, not bound yet; gets its key pair.
    folder
        Of the service's keys.

    Raises
    ------
    AddressError
        If a key is missing or none.
    """

    def __init__(self, socket: zmq.Socket[bytes], folder: str | Path) -> None:
        public, secret = _load(Path(folder) / "service.key_secret")
        self._folder = Path(folder) / "clients"
        if not self._folder.is_dir():
            raise AddressError(
                f"{self._folder}: this folder of client keys is missing; make it with 'cytoloop keys'"
            )
        self._state: object = None
        self._allowed: frozenset[str] = frozenset()
        self._authenticator = ThreadAuthenticator(socket.context)
        self._authenticator.start()
        self.refresh()
        socket.zap_domain = ZAP_DOMAIN.encode()
        socket.curve_publickey, socket.curve_secretkey, socket.curve_server = public, secret, True

    def refresh(self) -> bool:
        """Look at the folder again; return whether the keys that may enter have changed."""
        try:
            files = sorted(self._folder.glob("*.key"))
            state = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files]
        except OSError:  # a folder that is not there for a moment locks nobody out
            return False
        if state == self._state:
            return False
        allowed: set[str] = set()
        for path in files:
            with contextlib.suppress(AddressError):
                allowed.add(_load(path, secret=False)[0].decode())
        before, self._state, self._allowed = self._allowed, state, frozenset(allowed)
        self._authenticator.configure_curve(domain=ZAP_DOMAIN, location=str(self._folder))
        return self._allowed != before

    def admits(self, part: zmq.Frame) -> bool:
        """Return whether the sender of a message may still send any."""
        try:
            return part.get("User-Id") in self._allowed
        except zmq.ZMQError:
            return False

    def stop(self) -> None:
        """End the check."""
        self._authenticator.stop()


def _load(path: Path, *, secret: bool = True) -> tuple[bytes, bytes]:
    try:
        public, private = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise AddressError(
            f"{path}: no usable key: {error}; make keys with 'cytoloop keys FOLDER'"
        ) from error
    if secret and not private:
        raise AddressError(f"{path}: this file holds no secret key")
    return public, private or b""
