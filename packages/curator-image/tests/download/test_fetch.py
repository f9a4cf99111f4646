"""Every misbehaviour of a server is reported by one word, takes bounded time and memory, and affects no other
address."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from curator_core.download import Client, FetchRules, InOrder, Outcome
from curator_core.testing.loopback import loopback_only
from curator_image.download.picture import PictureSink


@pytest.fixture(autouse=True)
def _loopback() -> Iterator[None]:
    with loopback_only():
        yield


def fetch(urls: list[str], memory_bytes: int = 512 << 20, **rules: Any) -> list[Outcome]:
    client = Client(FetchRules(**rules))
    try:
        return list(InOrder(client, urls, memory_bytes=memory_bytes, sink=PictureSink))
    finally:
        client.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "reason", "requests"),
    [
        ("missing", "http 404", 1),
        ("html", "wrong type", 1),
        ("disguised", "not an image", 1),
        ("empty", "empty", 1),
        ("huge", "too large", 1),
        ("endless", "too large", 1),
        ("gzip-bomb", "too large", 1),
        ("cut-off", "cut off", 2),
        ("hang", "timeout", 2),
        ("drip", "timeout", 2),
        ("reset", "connection", 4),  # aiohttp itself retries once when a connection breaks
        ("garbage", "connection", 2),
        ("down", "http 503", 2),
        ("busy", "http 429", 1),
        ("robots", "opted out", 1),
        ("svg", "unsupported format", 1),
        ("svg-with-a-comment", "unsupported format", 1),
        ("loop", "too many redirects", 6),
        ("nowhere", "http 302", 1),
    ],
)
def test_failures_have_a_word_and_temporary_failures_a_second_try(
    server: Any, quick: dict[str, Any], path: str, reason: str, requests: int
) -> None:
    # The limit for the rest allows for a busy machine.
    limits = {"timeout_s": 0.6} if reason == "timeout" else {}
    (outcome,) = fetch([server.url(path)], **{**quick, **limits}, max_bytes=1_000_000)
    assert (outcome.reason, outcome.data) == (reason, b"")
    silent = ("hang", "reset", "garbage")
    assert (outcome.http_status is None) == (path in silent)
    assert server.seen[f"/{path}"] == requests


@pytest.mark.slow
def test_good_images_are_complete_and_in_order_among_all_the_bad_ones(server: Any, quick: dict[str, Any]) -> None:
    paths = [f"ok{i}" if i % 3 else ["hang", "missing", "reset", "html", "drip"][i // 3 % 5] for i in range(45)]
    rules = {**quick, "timeout_s": 3.0, "retries": 0}
    outcomes = fetch([server.url(path) for path in paths], **rules, per_host=16)
    assert [outcome.url for outcome in outcomes] == [server.url(path) for path in paths]
    assert [outcome.ok for outcome in outcomes] == [path.startswith("ok") for path in paths]
    assert all(outcome.data.startswith(b"\xff\xd8") for outcome in outcomes if outcome.ok)


@pytest.mark.parametrize("path", ["png", "avif", "gzip", "redirect?/ok", "café", "redirect?/redirect?/png"])
def test_unusual_but_valid_images_are_fetched(server: Any, quick: dict[str, Any], path: str) -> None:
    (outcome,) = fetch([server.url(path)], **quick)
    assert (outcome.reason, outcome.http_status) == ("ok", 200)


@pytest.mark.parametrize("path", ["flaky-503", "flaky-429", "flaky-reset"])
def test_a_server_that_recovers_gets_another_request(server: Any, quick: dict[str, Any], path: str) -> None:
    (outcome,) = fetch([server.url(path)], **{**quick, "retries": 3})
    assert outcome.reason == "ok"
    assert outcome.attempts > 1
    assert server.seen[f"/{path}"] == 3


def test_a_host_that_asks_to_wait_gets_no_requests_for_that_time(server: Any, quick: dict[str, Any]) -> None:
    fetcher = Client(FetchRules(**quick))
    try:
        assert fetcher._retry_after({"Retry-After": "30"}, "slow.example") == 30
        assert fetcher._pauses["slow.example"] > time.monotonic() + 29
        assert fetcher._retry_after({"Retry-After": "7200"}, "other.example") == 7200
        assert "other.example" not in fetcher._pauses
        assert fetcher._retry_after({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, "past.example") == 0
        assert fetcher._retry_after({"Retry-After": "soon"}, "vague.example") is None
    finally:
        fetcher.close()


def test_a_host_gets_no_more_requests_at_a_time_than_allowed(server: Any, quick: dict[str, Any]) -> None:
    outcomes = fetch([server.url(f"together{i}") for i in range(39)], **quick, per_host=3)
    assert all(outcome.ok for outcome in outcomes)
    assert server.most == 3


def test_a_name_that_does_not_exist_is_a_dns_failure(quick: dict[str, Any]) -> None:
    (outcome,) = fetch(["http://no-such-host.example/a.jpg"], **quick)
    assert (outcome.reason, outcome.attempts) == ("dns", 2)


@pytest.mark.parametrize(
    "url",
    ["", "not an address", "ftp://example.com/a.jpg", "file:///etc/passwd", "http://", "http://[::1", "http://a:b/"],
)
def test_only_web_addresses_are_fetched(url: str) -> None:
    (outcome,) = fetch([url])
    assert outcome.reason == "bad url"


@pytest.mark.parametrize("target", ["http://127.0.0.2:{port}/ok", "//127.0.0.2:{port}/ok", "file:///etc/passwd"])
def test_a_redirect_is_checked_like_any_address(server: Any, quick: dict[str, Any], target: str) -> None:
    rules = {**quick, "allow_private": ["127.0.0.1/32"]}
    (outcome,) = fetch([server.url(f"redirect?{target.format(port=server.port)}")], **rules)
    assert outcome.reason in ("private address", "bad url")
    assert sum(server.seen.values()) == 1


def test_a_redirect_to_a_name_is_checked_when_the_name_is_resolved(server: Any, quick: dict[str, Any]) -> None:
    rules = {**quick, "allow_private": ["127.0.0.1/32"]}
    outcomes = fetch([server.url(f"redirect?http://localhost:{server.port}/ok")], **rules)
    assert outcomes[0].ok  # localhost is 127.0.0.1, which is allowed here but not by default:
    (outcome,) = fetch([f"http://localhost:{server.port}/ok"], **{**quick, "allow_private": ["127.0.0.2/32"]})
    assert outcome.reason == "private address"


@pytest.mark.slow
def test_memory_is_bounded_and_no_download_waits_forever(server: Any, quick: dict[str, Any]) -> None:
    urls = [server.url("drip" if i == 0 else f"ok{i}") for i in range(60)]
    outcomes = fetch(urls, memory_bytes=2000, **{**quick, "timeout_s": 3.0, "retries": 0}, per_host=16)
    assert sum(outcome.ok for outcome in outcomes) == 59


@pytest.mark.slow
def test_a_list_that_is_abandoned_early_leaves_nothing_behind(server: Any, quick: dict[str, Any]) -> None:
    client = Client(FetchRules(**quick))
    for outcome in InOrder(client, [server.url(f"ok{i}") for i in range(500)], memory_bytes=1 << 20):
        assert outcome.ok
        break
    client.close()
    assert sum(server.seen.values()) < 500


def test_the_server_sees_the_user_agent(server: Any, quick: dict[str, Any]) -> None:
    fetch([server.url("ok")], **quick, user_agent="my-crawler/1 (me@example.com)")
    assert server.agents == {"my-crawler/1 (me@example.com)"}
