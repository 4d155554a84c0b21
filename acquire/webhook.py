"""Webhook: tells an http(s) address of a decision, beside the acquisition and never in its way."""

from __future__ import annotations

import logging
import queue
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from . import commands
from .errors import ActuatorError
from .reply import Decision

_LOG = logging.getLogger("cytoloop.loop")
_FIRST_WAIT_S = 0.5
_TOLD_FAILURES = 5
_BUSY = 429


@dataclass(frozen=True, slots=True)
class WebhookStats:
    """What has become of the messages so far.

    Attributes
    ----------
    sent
        Answered with success (2xx).
    failed
        Given up: refused by the server, or not answered after all tries.
    dropped
        Not taken because too many waited, or still waiting when the actuator was closed.
    waiting
        In the queue, or on their way.
    """

    sent: int
    failed: int
    dropped: int
    waiting: int


class WebhookActuator:
    """Carries out :class:`~cytoloop.acquire.commands.Webhook`: a POST of JSON, in a thread of its own.

    The object has ``text`` and ``decision`` (rule, track, reasons, times and so on). ``actuate`` only puts it into
    a queue. A message that fails for a reason that may pass (no connection, no answer in time, 429 or 5xx) is tried
    again, later each time; any other answer ends it. Redirects are followed on the same host only, and only those
    that keep the POST (307, 308). The log names the host and not the path, which often holds a secret.

    Parameters
    ----------
    timeout_s
        Longest wait for a connection, and for an answer, in s.
    retries
        How often a message is tried again.
    waiting
        Messages that may wait; further ones are refused.
    close_s
        How long ``close`` waits for those that wait, in s.

    Raises
    ------
    ActuatorError
        If an option is out of its range.
    """

    commands: tuple[type, ...] = (commands.Webhook,)

    def __init__(
        self, *, timeout_s: float = 5.0, retries: int = 3, waiting: int = 100, close_s: float = 2.0
    ) -> None:
        for name, value, least in (
            ("timeout_s", timeout_s, 1e-3),
            ("retries", retries, 0),
            ("waiting", waiting, 1),
            ("close_s", close_s, 0),
        ):
            if not least <= value < float("inf"):
                raise ActuatorError(f"{name} {value}: must be finite and {least:g} or more")
        self._timeout_s, self._retries, self._close_s = timeout_s, retries, close_s
        self._queue: queue.Queue[tuple[SplitResult, str, bytes]] = queue.Queue(waiting)
        self._opener = urllib.request.build_opener(_SameHost())
        self._lock = threading.Lock()
        self._sent = self._failed = self._dropped = self._waiting = 0
        self._idle = threading.Condition(self._lock)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def stats(self) -> WebhookStats:
        """What has become of the messages so far."""
        with self._lock:
            return WebhookStats(self._sent, self._failed, self._dropped, self._waiting)

    def actuate(self, decision: Decision) -> None:
        """Put a message into the queue; does not block.

        Raises
        ------
        ActuatorError
            If the address is not http(s) with a host, too many messages wait, or the actuator is closed.
        """
        command = decision.command
        if not isinstance(command, commands.Webhook):
            raise ActuatorError(f"{type(command).__name__} is not for WebhookActuator")
        address = checked_address(command.url)
        if self._closing.is_set():
            raise ActuatorError("the webhook is closed")
        body = msgspec.json.encode({"text": command.text, "decision": decision})
        with self._lock:
            try:
                self._queue.put_nowait((address, command.url, body))
            except queue.Full:
                self._dropped += 1
                raise ActuatorError(
                    f"webhook {address.hostname}: {self._queue.maxsize} messages wait already"
                ) from None
            self._waiting += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cytoloop webhook", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Wait shortly for the messages that wait, drop and count the rest, and end the thread."""
        with self._idle:
            self._idle.wait_for(lambda: self._waiting == 0, self._close_s)
        self._closing.set()
        if self._thread is not None:
            self._thread.join(self._timeout_s + 1)
            self._thread = None

    def _run(self) -> None:
        while not (self._closing.is_set() and self._queue.empty()):
            try:
                address, url, body = self._queue.get(timeout=0.1)
            except queue.Empty:
                continue
            self._count(*self._deliver(address, url, body))

    def _deliver(self, address: SplitResult, url: str, body: bytes) -> tuple[str, str]:
        """Return ``sent``, ``failed`` or ``dropped``, and why."""
        wait_s, reason = _FIRST_WAIT_S, ""
        for attempt in range(self._retries + 1):
            if self._closing.is_set() or (attempt and self._closing.wait(wait_s)):
                return "dropped", f"webhook {address.hostname}: closed before it was sent; {reason}"
            wait_s *= 2 if attempt else 1
            reason, again = self._post(url, body)
            if not reason:
                return "sent", ""
            if not again:
                break
        return "failed", f"webhook {address.hostname}: {reason}"

    def _post(self, url: str, body: bytes) -> tuple[str, bool]:
        """Return what went wrong, or ``""``, and whether it may pass."""
        request = urllib.request.Request(
            url, body, {"Content-Type": "application/json", "User-Agent": "cytoloop"}, method="POST"
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                answer.read(1)
            return "", False
        except urllib.error.HTTPError as error:
            with error:
                return f"answered {error.code} {error.reason}", error.code >= 500 or error.code == _BUSY
        except urllib.error.URLError as error:
            return f"cannot be reached: {error.reason}", True
        except (OSError, HTTPException) as error:
            return f"no answer: {error!r}", True
        except Exception as error:  # whatever it is, the next message must go out
            return f"failed: {error!r}", False

    def _count(self, what: str, reason: str) -> None:
        with self._idle:
            self._waiting -= 1
            self._sent += what == "sent"
            self._failed += what == "failed"
            self._dropped += what == "dropped"
            told = self._failed + self._dropped
            self._idle.notify_all()
        if reason and told <= _TOLD_FAILURES:
            more = " (further ones are only counted)" if told == _TOLD_FAILURES else ""
            _LOG.warning("%s%s", reason, more)


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to the same host, and only where the POST stays one."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if code not in (307, 308) or (before.scheme, before.netloc) != (after.scheme, after.netloc):
            return None
        return urllib.request.Request(newurl, req.data, dict(req.header_items()), method="POST")


def checked_address(url: str) -> SplitResult:
    """Return an address in its parts.

    Raises
    ------
    ActuatorError
        If it is not http(s) with a host, or has a user name, spaces, control characters or letters beyond ASCII in it.
    """
    try:
        address = urlsplit(url)
        valid = address.scheme in ("http", "https") and bool(address.hostname)
        _ = address.port
    except ValueError as error:
        raise ActuatorError(f"webhook: not an address: {error}") from None
    if not valid:
        raise ActuatorError(
            f"webhook scheme {address.scheme!r}: http://host/... or https://host/... is needed"
        )
    if (
        address.username is not None
        or not url.isascii()
        or any(char.isspace() or not char.isprintable() for char in url)
    ):
        raise ActuatorError(
            f"webhook {address.hostname}: no user name, spaces, control characters or letters beyond ASCII"
        )
    return address
