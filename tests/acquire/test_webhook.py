"""Webhooks against a real server on this computer, and calls of registered functions."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cytoloop.acquire.actuators import Actuator
from cytoloop.acquire.calls import CallActuator
from cytoloop.acquire.commands import Call, Stop, Webhook
from cytoloop.acquire.errors import ActuatorError
from cytoloop.acquire.reply import Decision
from cytoloop.acquire.webhook import WebhookActuator


class Server:
    """Answers each POST as its script says, and keeps what came."""

    def __init__(self) -> None:
        self.came: list[tuple[str, dict[str, str], Any]] = []
        self.answers: Callable[[int, str], tuple[int, dict[str, str]]] = lambda number, path: (200, {})
        self.release = threading.Event()
        self.release.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.came.append((self.path, dict(self.headers), json.loads(body)))
                number = len(server.came)
                server.release.wait(20)
                code, headers = server.answers(number, self.path)
                self.send_response(code)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def do_GET(self) -> None:
                server.came.append((self.path, {"method": "GET"}, None))
                self.send_error(404)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def close(self) -> None:
        self.release.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return what makes an actuator that tries again at once; all are closed afterwards."""
    monkeypatch.setattr("cytoloop.acquire.webhook._FIRST_WAIT_S", 0.01)
    made: list[WebhookActuator] = []

    def make(**options: Any) -> WebhookActuator:
        made.append(WebhookActuator(**{"close_s": 20.0, **options}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def decision(command: Any, track: int = 3) -> Decision:
    return Decision("rule", command, 7, 1.0, 9.0, track=track, at_px=(4.0, 5.0), reasons=("area > 300",))


def test_both_are_actuators() -> None:
    assert isinstance(WebhookActuator(), Actuator)
    assert isinstance(CallActuator({}), Actuator)


def test_a_message_has_the_text_and_the_decision(server: Server, hook: Any) -> None:
    actuator = hook()
    actuator.actuate(decision(Webhook(f"{server.url}/secret", "a cell has divided")))
    actuator.close()
    ((path, headers, body),) = server.came
    assert path == "/secret"
    assert headers["Content-Type"] == "application/json"
    assert body["text"] == "a cell has divided"
    assert body["decision"]["rule"] == "rule"
    assert (body["decision"]["track"], body["decision"]["at_px"]) == (3, [4.0, 5.0])
    assert body["decision"]["reasons"] == ["area > 300"]
    assert (actuator.stats.sent, actuator.stats.failed, actuator.stats.waiting) == (1, 0, 0)


def test_a_server_that_does_not_answer_blocks_nothing_and_further_messages_are_refused(
    server: Server, hook: Any
) -> None:
    server.release.clear()
    actuator = hook(waiting=2)
    message = decision(Webhook(server.url))
    with pytest.raises(ActuatorError, match=r"webhook 127\.0\.0\.1: 2 messages wait already"):
        for _ in range(10):  # one may be on its way
            actuator.actuate(message)
    taken = actuator.stats.waiting
    server.release.set()
    actuator.close()
    assert actuator.stats.sent == taken in (2, 3)
    assert actuator.stats.dropped == 1


def test_a_failure_that_may_pass_is_tried_again(server: Server, hook: Any) -> None:
    codes = {1: 503, 2: 429, 3: 200}
    server.answers = lambda number, path: (codes[number], {})
    actuator = hook()
    actuator.actuate(decision(Webhook(server.url)))
    actuator.close()
    assert len(server.came) == 3
    assert (actuator.stats.sent, actuator.stats.failed) == (1, 0)


def test_after_the_last_try_a_message_is_given_up_and_the_next_one_goes_out(
    server: Server, hook: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = lambda number, path: (500 if path == "/secret" else 200, {})
    actuator = hook(retries=2)
    actuator.actuate(decision(Webhook(f"{server.url}/secret")))
    actuator.actuate(decision(Webhook(f"{server.url}/other")))
    actuator.close()
    assert [path for path, *_ in server.came] == ["/secret"] * 3 + ["/other"]
    assert (actuator.stats.sent, actuator.stats.failed) == (1, 1)
    assert "webhook 127.0.0.1: answered 500" in caplog.text
    assert "secret" not in caplog.text  # such a path is a password


@pytest.mark.parametrize("code", [400, 404, 410])
def test_a_message_that_is_refused_is_not_tried_again(code: int, server: Server, hook: Any) -> None:
    server.answers = lambda number, path: (code, {})
    actuator = hook()
    actuator.actuate(decision(Webhook(server.url)))
    actuator.close()
    assert (len(server.came), actuator.stats.failed) == (1, 1)


def test_a_server_that_is_not_there_is_a_failure_and_no_error(hook: Any) -> None:
    gone = Server()
    gone.close()
    actuator = hook(retries=1)
    actuator.actuate(decision(Webhook(gone.url)))
    actuator.close()
    assert (actuator.stats.sent, actuator.stats.failed) == (0, 1)


def test_a_late_answer_is_given_up(server: Server, hook: Any) -> None:
    server.release.clear()
    actuator = hook(timeout_s=0.05, retries=1)
    actuator.actuate(decision(Webhook(server.url)))
    actuator.close()
    assert (len(server.came), actuator.stats.failed) == (2, 1)


def test_a_redirect_on_the_same_host_keeps_the_message(server: Server, hook: Any) -> None:
    server.answers = lambda number, path: (308, {"Location": "/new"}) if path == "/old" else (204, {})
    actuator = hook()
    actuator.actuate(decision(Webhook(f"{server.url}/old", "hello")))
    actuator.close()
    assert [(path, body["text"]) for path, _, body in server.came] == [("/old", "hello"), ("/new", "hello")]
    assert actuator.stats.sent == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_not_followed(code: int, server: Server, hook: Any) -> None:
    other = Server()
    try:
        server.answers = lambda number, path: (code, {"Location": other.url})
        actuator = hook()
        actuator.actuate(decision(Webhook(server.url)))
        actuator.close()
        assert other.came == []
        assert (len(server.came), actuator.stats.failed) == (1, 1)
    finally:
        other.close()


@pytest.mark.parametrize("code", [301, 302, 303])
def test_a_redirect_that_would_lose_the_message_is_not_followed(code: int, server: Server, hook: Any) -> None:
    server.answers = lambda number, path: (code, {"Location": "/new"})
    actuator = hook()
    actuator.actuate(decision(Webhook(server.url)))
    actuator.close()
    assert (len(server.came), actuator.stats.failed) == (1, 1)


def test_redirects_in_a_circle_come_to_an_end(server: Server, hook: Any) -> None:
    server.answers = lambda number, path: (307, {"Location": "/again"})
    actuator = hook()
    actuator.actuate(decision(Webhook(server.url)))
    actuator.close()
    assert len(server.came) < 20
    assert actuator.stats.failed == 1


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://host/x",
        "data:,x",
        "host/x",
        "http:///x",
        "",
        "http://[::1",
        "http://host:99999/",
        "http://user:word@host/",
        "http://host/a b",
        "http://host/ä",
        "http://host/\r\nX: 1",
    ],
)
def test_an_address_that_is_not_http_with_a_host_is_refused_at_once(url: str, hook: Any) -> None:
    with pytest.raises(ActuatorError, match="webhook"):
        hook().actuate(decision(Webhook(url)))


def test_close_drops_what_waits_and_says_so(
    server: Server, hook: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.release.clear()
    actuator = hook(close_s=0.0, timeout_s=0.5)
    for _ in range(3):
        actuator.actuate(decision(Webhook(server.url)))
    actuator.close()
    assert (actuator.stats.waiting, actuator.stats.sent) == (0, 0)
    assert actuator.stats.dropped + actuator.stats.failed == 3
    assert "closed before it was sent" in caplog.text
    with pytest.raises(ActuatorError, match="closed"):
        actuator.actuate(decision(Webhook(server.url)))


@pytest.mark.parametrize("options", [{"timeout_s": 0.0}, {"retries": -1}, {"waiting": 0}, {"close_s": -1.0}])
def test_options_out_of_range_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ActuatorError, match=next(iter(options))):
        WebhookActuator(**options)


def test_only_commands_of_its_own_kind_are_taken(hook: Any) -> None:
    with pytest.raises(ActuatorError, match="Stop is not for WebhookActuator"):
        hook().actuate(decision(Stop("x")))
    with pytest.raises(ActuatorError, match="Stop is not for CallActuator"):
        CallActuator({}).actuate(decision(Stop("x")))


def test_a_registered_function_gets_its_arguments_and_the_decision_if_it_asks() -> None:
    came: list[Any] = []

    def dose(ul: float, drug: str = "none") -> None:
        came.append((ul, drug))

    def note(decision: Decision) -> None:
        came.append(decision.track)

    actuator = CallActuator({"dose": dose, "note": note})
    actuator.actuate(decision(Call("dose", {"ul": 2.5, "drug": "x"})))
    actuator.actuate(decision(Call("dose", {"ul": 1.0})))
    actuator.actuate(decision(Call("note"), track=8))
    assert came == [(2.5, "x"), (1.0, "none"), 8]


def _dose(ul: float) -> None:
    if ul < 0:
        raise ValueError("less than nothing")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Call("does"), "no function 'does'; registered: dose. Did you mean 'dose'?"),
        (Call("__import__"), "no function '__import__'"),
        (Call("dose"), "missing a required argument: 'ul'"),
        (Call("dose", {"ul": 1.0, "volume": 2.0}), "unexpected keyword argument 'volume'"),
        (Call("dose", {"ul": -1.0}), "'dose' failed: ValueError: less than nothing"),
        (Call("dose", {"ul": 1.0, "decision": "x"}), "'decision' is given by the loop itself"),
    ],
)
def test_a_call_that_cannot_be_made_is_an_actuator_error(command: Call, message: str) -> None:
    with pytest.raises(ActuatorError) as caught:
        CallActuator({"dose": _dose}).actuate(decision(command))
    assert message in str(caught.value)


@pytest.mark.parametrize("function", [3, lambda a, /: None])
def test_what_cannot_be_called_by_name_is_refused_at_once(function: Any) -> None:
    with pytest.raises(ActuatorError, match="function 'f'"):
        CallActuator({"f": function})
