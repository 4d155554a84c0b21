"""Addresses: ``inproc://``, ``ipc://`` and ``tcp://`` behind one parser, and who may use which."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import zmq

from ..errors import AddressError

SCHEMES = ("inproc", "ipc", "tcp")
DEFAULT_ADDRESS = "tcp://127.0.0.1:5790"
_FORMS = "inproc://NAME, ipc://PATH or tcp://HOST:PORT"


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address.

    Attributes
    ----------
    scheme
        ``inproc`` (threads of one process), ``ipc`` (processes of one host) or ``tcp``.
    host, port
        Of a tcp address; ``""`` and 0 otherwise. Port 0 lets the system choose one when binding.
    is_local
        True if nothing outside this host can reach it; otherwise CURVE keys are required.
    """

    text: str
    scheme: str
    host: str = ""
    port: int = 0
    is_local: bool = True

    def __str__(self) -> str:
        return self.text


def parse_address(text: str) -> Address:
    """Read an address.

    Raises
    ------
    AddressError
        Names what is wrong and the forms that are allowed.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in SCHEMES or not rest:
        raise AddressError(f"address {text!r}: expected {_FORMS}")
    if scheme == "ipc" and not zmq.has("ipc"):
        raise AddressError(f"address {text!r}: this system has no ipc transport; use tcp://127.0.0.1:PORT")
    if scheme != "tcp":
        return Address(text, scheme)
    host, separator, port = rest.rpartition(":")
    if not separator or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise AddressError(f"address {text!r}: expected tcp://HOST:PORT with a port from 0 to 65535")
    return Address(text, scheme, host, int(port), _is_loopback(host))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a host name or an interface: may lead anywhere
        return False


def require_keys(address: Address, keys: object | None) -> None:
    """Refuse an address that others can reach when there are no CURVE keys for it.

    Raises
    ------
    AddressError
        Says how to make keys.
    """
    if not address.is_local and not keys:
        raise AddressError(
            f"address {address}: only loopback may be used without keys; "
            "make a folder of keys with 'cytoloop keys FOLDER' and name it on both sides"
        )
