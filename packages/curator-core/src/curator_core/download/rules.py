"""What may a download do, and which word says how it ended? Where it may go, how long and how large it may be."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curator_core.download.networks import Network, allowed
from curator_core.errors import UsageError, check_whole

# Words of `X-Robots-Tag` by which a site says that its content is not for training; those only for pictures are
# separate.
OPT_OUT = frozenset({"noai", "noindex", "none"})
OPT_OUT_IMAGES = frozenset({"noimageai", "noimageindex"})


class Reason:
    """How a download ended. The words are in status rows, rejects and reports, so they are part of the interface."""

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


# These may end otherwise next time; all other failures are final.
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
    """An address that could not be fetched; ``reason`` is the word for it, ``status`` what the server answered last."""

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
    """Limits of a download. Times are in seconds and hold for one attempt; a redirect restarts them.

    ``timeout_s`` is for a whole answer (None: as long as it takes), ``idle_timeout_s`` for a pause within it.
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
        """What `allowed` takes: whether private networks may be fetched from, or which."""
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

    A host given as a number is judged here; a name is judged when it has been resolved. The parsed address is both
    judged and fetched, so no two parsers can disagree on where it leads.
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
    """Refuse a numeric address to which ``host`` leads, if connecting to it is not allowed."""
    if not allowed(address, private):
        where = host if host == address else f"{host} is {address}, which"
        raise Refused(
            Reason.PRIVATE, f"{where} is not a public address; allow_private can list private networks to allow"
        )


def opt_out(tags: Sequence[str], words: frozenset[str]) -> list[str]:
    """The words by which the values of `X-Robots-Tag` opt out; those for other robots count too."""
    found = {part.rpartition(":")[2].strip() for tag in tags for part in tag.lower().split(",")}
    return sorted(found & words)
