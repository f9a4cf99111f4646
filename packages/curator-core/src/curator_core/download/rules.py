"""What may a download do, and which word describes its outcome? Allowed addresses, and limits of time and size."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curator_core.download.networks import Network, allowed
from curator_core.errors import UsageError, check_whole

# Words of `X-Robots-Tag` by which a site excludes its content from training; those for images alone are separate.
OPT_OUT = frozenset({"noai", "noindex", "none"})
OPT_OUT_IMAGES = frozenset({"noimageai", "noimageindex"})


class Reason:
    """The outcome of a download. The words are in status rows, rejects and reports, so they are part of the interface."""

    OK = "ok"
    BAD_URL = "bad url"
    PRIVATE = "private address"
    TIMEOUT = "timeout"
    DNS = "dns"
    CONNECTION = "connection"
    CUT_OFF = "cut off"
    TOO_LARGE = "too large"
    EMPTY = "empty"
    WRONG_TYPE = "wrong type"
    WRONG_RANGE = "wrong range"
    OPTED_OUT = "opted out"
    REDIRECTS = "too many redirects"


# These may succeed at the next attempt; all other failures are final.
_PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)
PASSING = frozenset(
    {
        Reason.TIMEOUT,
        Reason.DNS,
        Reason.CONNECTION,
        Reason.CUT_OFF,
        Reason.WRONG_RANGE,
        *(f"http {code}" for code in _PASSING_STATUS),
    }
)


class NotFetched(Exception):
    """An address that could not be fetched; ``reason`` is the word for it, ``status`` the last status from the server."""

    def __init__(self, reason: str, message: str, status: int | None = None) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
        self.status = status


class Refused(NotFetched):
    """An address that is never fetched, however often it is requested."""


class Failed(NotFetched):
    """One attempt failed; ``retry_after`` is the time that the server asked for."""

    def __init__(self, reason: str, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(reason, message, status)
        self.retry_after = retry_after


@dataclass(frozen=True, kw_only=True)
class FetchRules:
    """Limits of a download. Times are in seconds and apply to one attempt; a redirect restarts them.

    ``timeout_s`` limits a whole answer (None: no limit), ``idle_timeout_s`` a pause within it.
    """

    concurrency: int = 64
    per_host: int = 4
    timeout_s: float | None = 20.0
    idle_timeout_s: float | None = None
    connect_timeout_s: float = 10.0
    retries: int = 2
    backoff_s: float = 1.0
    max_retry_after_s: float = 60.0
    max_bytes: int | None = None
    max_redirects: int = 5
    allow_private: bool | Sequence[str] = False
    https_only: bool = False
    respect_opt_out: bool = True
    user_agent: str = "curator/0.1"

    def __post_init__(self) -> None:
        check_whole("concurrency", self.concurrency)
        check_whole("per_host", self.per_host)
        check_whole("max_bytes", self.max_bytes, optional=True)
        check_whole("retries", self.retries, least=0)
        check_whole("max_redirects", self.max_redirects, least=0)
        for name in ("timeout_s", "idle_timeout_s", "connect_timeout_s"):
            if getattr(self, name) is not None and not 0 < self._seconds(name) < float("inf"):
                raise UsageError(f"{name} must be more than 0 seconds, not {getattr(self, name)!r}")
        for name in ("backoff_s", "max_retry_after_s"):
            if not 0 <= self._seconds(name) < float("inf"):
                raise UsageError(f"{name} must be 0 seconds or more, not {getattr(self, name)!r}")
        if not isinstance(self.user_agent, str) or not self.user_agent.isprintable():
            raise UsageError(f"user_agent must be a line of text, not {self.user_agent!r}")
        self.private_networks()

    def _seconds(self, name: str) -> float:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UsageError(f"{name} must be a number of seconds, not {value!r}")
        return float(value)

    def private_networks(self) -> bool | list[Network]:
        """The argument for `allowed`: whether private networks are allowed, or a list of those that are."""
        if isinstance(self.allow_private, bool):
            return self.allow_private
        if isinstance(self.allow_private, str) or not isinstance(self.allow_private, Sequence):
            raise UsageError(
                f"allow_private must be true, false, or a list of networks such as ['10.0.0.0/8'], not {self.allow_private!r}"
            )
        try:
            return [ipaddress.ip_network(text) for text in self.allow_private]
        except ValueError as error:
            raise UsageError(f"allow_private must list networks such as '10.0.0.0/8': {error}") from error


def check_url(url: Any, private: bool | Sequence[Network], *, https_only: bool = False) -> str:
    """The host of a `yarl.URL` that may be fetched; `Refused` for any other.

    A numeric host is checked here; a name is checked after it is resolved. The same parsed address is checked and
    fetched, so that there are no two parsers that could disagree.
    """
    if url.scheme not in ("http", "https"):
        raise Refused(Reason.BAD_URL, f"the scheme is {url.scheme!r}, and only http and https are fetched")
    if https_only and url.scheme != "https":
        raise Refused(Reason.BAD_URL, f"it leads to {str(url)!r}, and only https is fetched here")
    host = str(url.raw_host or "")
    if not host or any(char.isspace() for char in host):
        raise Refused(Reason.BAD_URL, f"{host!r} is not a host" if host else "there is no host in it")
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    check_address(host, host, private)
    return host


def check_address(host: str, address: str, private: bool | Sequence[Network]) -> None:
    """Raise `Refused` if ``address``, to which ``host`` resolves, is not allowed."""
    if not allowed(address, private):
        where = host if host == address else f"{host} is {address}, which"
        raise Refused(
            Reason.PRIVATE, f"{where} is not a public address; allow_private can list private networks to allow"
        )


def opt_out(tags: Sequence[str], words: frozenset[str]) -> list[str]:
    """The words by which the values of `X-Robots-Tag` opt out, including those for other robots."""
    found = {part.rpartition(":")[2].strip() for tag in tags for part in tag.lower().split(",")}
    return sorted(found & words)
