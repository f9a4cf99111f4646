"""Where a download connects, how it reports its end, and how it is stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from curator_core import UsageError
from curator_core.download import Client, FetchRules, InOrder, MemorySink, Outcome, Refused
from curator_core.download.rules import check_url
from curator_core.testing.loopback import loopback_only

pytest.importorskip("aiohttp")
yarl = pytest.importorskip("yarl")

BODY = bytes(range(256)) * 40
HERE = ["127.0.0.1/32"]


def fetch(url: str, **rules: Any) -> Outcome:
    client = Client(FetchRules(**{"retries": 0, "backoff_s": 0, "allow_private": HERE, **rules}))
    try:
        return client.wait(client.fetch(url, MemorySink(client.rules.max_bytes)))
    finally:
        client.close()


def ok(request: Any) -> None:
    request.send(200, BODY)


@pytest.fixture
def two_hosts(serve: Callable[..., Any]) -> tuple[Any, Any]:
    """Servers at 127.0.0.1, which tests allow, and 127.0.0.2, which they do not, with the same port."""
    first = serve(ok)
    return first, serve(ok, "127.0.0.2", first.server_port)


def test_a_name_that_changes_its_address_is_checked_at_every_connection(two_hosts: tuple[Any, Any]) -> None:
    allowed, inside = two_hosts
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    with loopback_only({"rebinding.example": lambda: next(answers)}) as connected:
        url = allowed.url("a", "rebinding.example")
        client = Client(FetchRules(retries=0, allow_private=HERE))
        try:
            client._session.connector._use_dns_cache = False
            outcomes = [client.wait(client.fetch(url, MemorySink())) for _ in range(2)]
        finally:
            client.close()
    assert [outcome.reason for outcome in outcomes] == ["ok", "private address"]
    assert connected == ["127.0.0.1"]
    assert not inside.asked


def test_a_name_with_private_and_public_addresses_is_fetched_from_a_public_one(two_hosts: tuple[Any, Any]) -> None:
    allowed, inside = two_hosts
    with loopback_only({"both.example": ["127.0.0.2", "127.0.0.1"]}) as connected:
        assert fetch(allowed.url("a", "both.example")).ok
    assert connected == ["127.0.0.1"]
    assert not inside.asked


def test_no_socket_is_opened_to_a_private_address_even_if_the_resolver_allows_it(
    two_hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed, inside = two_hosts
    monkeypatch.setattr("curator_core.download.client.allowed", lambda *_: True)
    with loopback_only({"inside.example": ["127.0.0.2"]}) as connected:
        outcome = fetch(allowed.url("a", "inside.example"))
    assert outcome.reason == "private address"
    assert connected == []
    assert not inside.asked


@pytest.mark.parametrize(
    "host", ["127.0.0.2", "2130706434", "0x7f.2", "127.2", "[::ffff:127.0.0.2]", "[::1]", "0.0.0.0"]
)
def test_numeric_addresses_are_checked_in_every_notation_also_after_a_redirect(
    serve: Callable[..., Any], host: str
) -> None:
    server = serve(lambda request: request.send(302, Location=server.url("a", host)))
    with loopback_only() as connected:
        direct, redirected = fetch(server.url("a", host)), fetch(server.url("redirect"))
    assert direct.reason in ("private address", "bad url")
    assert direct.http_status is None
    assert redirected.reason in ("private address", "bad url")
    assert redirected.http_status == 302
    assert set(connected) == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("value", "opted_out"),
    [
        ("none", True),
        ("None", True),
        ("noindex, nofollow", True),
        ("somebot: noai", True),
        ("max-snippet:-1, none", True),
        ("nofollow", False),
        ("noimageai", False),
        ("all", False),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST", False),
    ],
)
def test_the_words_of_robots_tags_are_respected(serve: Callable[..., Any], value: str, opted_out: bool) -> None:
    server = serve(lambda request: request.send(200, BODY, X_Robots_Tag=value))
    outcome = fetch(server.url("a"))
    assert (outcome.reason, outcome.http_status) == ("opted out" if opted_out else "ok", 200)
    assert fetch(server.url("a"), respect_opt_out=False).data == BODY


@pytest.mark.parametrize(
    ("answer", "reason", "status"),
    [
        (lambda request: request.send(404), "http 404", 404),
        (lambda request: request.send(503), "http 503", 503),
        (lambda request: request.send(200, BODY * 100), "too large", 200),
        (lambda request: request.send(200, BODY, length=len(BODY) + 1), "cut off", 200),
        (lambda request: request.send(200), "empty", 200),
        (lambda request: request.send(200, BODY, Content_Encoding="br"), "wrong type", 200),
        (lambda request: request.send(301, Location="/again"), "too many redirects", 301),
        (lambda request: request.send(302, Location="ftp://a/b"), "bad url", 302),
        (lambda request: request.connection.close(), "connection", None),
        (lambda request: request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nx"), "connection", None),
    ],
)
def test_the_status_of_the_server_is_kept_however_the_download_ended(
    serve: Callable[..., Any], answer: Callable[[Any], None], reason: str, status: int | None
) -> None:
    outcome = fetch(serve(answer).url("a"), max_bytes=100_000)
    assert (outcome.reason, outcome.http_status, outcome.data) == (reason, status, b"")


def test_a_name_without_an_address_is_resolved_again(serve: Callable[..., Any]) -> None:
    outcome = fetch("http://no-such-host.example/a", retries=1)
    assert (outcome.reason, outcome.http_status, outcome.attempts) == ("dns", None, 2)


@pytest.fixture
def silent(serve: Callable[..., Any]) -> Iterator[tuple[Any, threading.Event, threading.Event]]:
    """A server that begins an answer and sends no more, with events for a request and for the end of the test."""
    asked, over = threading.Event(), threading.Event()

    def answer(request: Any) -> None:
        request.send(200, b"x", length=10)
        asked.set()
        over.wait(60)

    yield serve(answer), asked, over
    over.set()


@pytest.mark.slow
def test_a_response_that_stops_is_a_timeout(silent: Any) -> None:
    server, _, _ = silent
    outcome = fetch(server.url("a"), timeout_s=None, idle_timeout_s=0.2)
    assert (outcome.reason, outcome.http_status) == ("timeout", 200)
    assert fetch(server.url("a"), timeout_s=0.2).reason == "timeout"


def test_abandoning_a_list_cancels_active_downloads(silent: Any) -> None:
    server, asked, _ = silent
    client = Client(FetchRules(timeout_s=None, allow_private=HERE))
    outcomes = iter(InOrder(client, ["not an address", server.url("a")], memory_bytes=1000))
    assert next(outcomes).reason == "bad url"
    assert asked.wait(60)
    outcomes.close()  # type: ignore[attr-defined]
    client.close()
    assert not client._thread.is_alive()


def test_ctrl_c_while_waiting_cancels_the_download(silent: Any) -> None:
    server, _, _ = silent
    client = Client(FetchRules(timeout_s=None, allow_private=HERE))
    coming, undone = threading.Event(), threading.Event()

    class Sink(MemorySink):
        def write(self, chunk: bytes) -> None:
            super().write(chunk)
            coming.set()

        def undo(self) -> None:
            undone.set()

    def interrupt() -> None:
        assert coming.wait(60)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    # A runner of tests may have its own answer to Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            client.wait(client.fetch(server.url("a"), Sink()))
    finally:
        signal.signal(signal.SIGINT, before)
    assert undone.wait(60)
    client.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"concurrency": 0}, "1 or more"),
        ({"max_bytes": True}, "1 or more"),
        ({"retries": -1}, "0 or more"),
        ({"timeout_s": 0}, "more than 0"),
        ({"timeout_s": float("nan")}, "more than 0"),
        ({"backoff_s": "1"}, "a number of seconds"),
        ({"allow_private": "10.0.0.0/8"}, r"such as \['10.0.0.0/8'\]"),
        ({"allow_private": ["the office"]}, "must list networks"),
        ({"allow_private": 1}, "true, false, or a list"),
        ({"user_agent": "a\r\nHost: b"}, "line of text"),
    ],
)
def test_wrong_rules_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FetchRules(**wrong)


def test_if_only_https_is_allowed_a_redirect_to_http_is_refused(serve: Callable[..., Any]) -> None:
    outcome = fetch(serve(lambda request: request.send(200, BODY)).url("a"), https_only=True)
    assert (outcome.reason, outcome.http_status) == ("bad url", None)
    assert "only https is fetched here" in outcome.message
    for target in ("http://models.example/a", "ftp://models.example/a"):
        with pytest.raises(Refused, match=r"only https? "):
            check_url(yarl.URL(target), True, https_only=True)
    assert check_url(yarl.URL("https://models.example/a"), True, https_only=True) == "models.example"
