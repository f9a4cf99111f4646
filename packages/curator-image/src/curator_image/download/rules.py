"""What a download may do: where it may go, how long it may take, how much it may bring."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curator_core.errors import UsageError

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Words of `X-Robots-Tag` by which a site says that its images are not for training.
OPT_OUT = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Refused(Exception):
    """An address that is not fetched; ``reason`` is the word for the status."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, kw_only=True)
class FetchRules:
    """Limits of a download. Times are in seconds and hold for one attempt; a redirect starts them anew."""

    concurrency: int = 64
    per_host: int = 4
    timeout_s: float = 20.0
    connect_timeout_s: float = 10.0
    retries: int = 2
    backoff_s: float = 1.0
    max_retry_after_s: float = 60.0
    max_bytes: int = 32 << 20
    max_redirects: int = 5
    allow_private: bool | Sequence[str] = False
    respect_opt_out: bool = True
    user_agent: str = "curator-image/0.1 (image download)"

    def __post_init__(self) -> None:
        for name in ("concurrency", "per_host", "max_bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} must be a whole number of 1 or more, not {value!r}")
        for name in ("retries", "max_redirects"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise UsageError(f"{name} must be a whole number of 0 or more, not {value!r}")
        for name in ("timeout_s", "connect_timeout_s"):
            if not self._seconds(name) > 0:
                raise UsageError(f"{name} must be more than 0 seconds, not {getattr(self, name)!r}")
        for name in ("backoff_s", "max_retry_after_s"):
            if not self._seconds(name) >= 0:
                raise UsageError(f"{name} must be 0 seconds or more, not {getattr(self, name)!r}")
        self.private_networks()

    def _seconds(self, name: str) -> float:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UsageError(f"{name} must be a number of seconds, not {value!r}")
        return float(value)

    def private_networks(self) -> list[Network]:
        """The networks beside the public ones that may be fetched from."""
        if self.allow_private is True:
            return [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
        if self.allow_private is False:
            return []
        if isinstance(self.allow_private, str):
            raise UsageError(
                f"allow_private must be true, false, or a list of networks such as [{self.allow_private!r}]"
            )
        try:
            return [ipaddress.ip_network(text) for text in self.allow_private]
        except ValueError as error:
            raise UsageError(f"allow_private must list networks such as '10.0.0.0/8': {error}") from error


def check_url(url: Any, networks: Sequence[Network]) -> str:
    """The host of a `yarl.URL` that may be fetched; `Refused` for any other.

    A host given as a number is judged here; a name is judged when it has been resolved. It is the parsed address that
    is judged and fetched, so that no two parsers can disagree on where it leads.
    """
    if url.scheme not in ("http", "https"):
        raise Refused("bad url", f"the scheme is {url.scheme!r}, and only http and https are fetched")
    host = str(url.raw_host or "")
    if not host:
        raise Refused("bad url", "there is no host in it")
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not allowed(str(number), networks):
        raise Refused("private address", f"{host} is not a public address")
    return host


def allowed(address: str, networks: Sequence[Network]) -> bool:
    """Whether a numeric address is public, or in one of ``networks``."""
    number = ipaddress.ip_address(address.partition("%")[0])
    inside = [number, *_embedded(number)]
    if any(number in network for network in networks if network.version == number.version):
        return True
    return all(part.is_global and not part.is_multicast and not part.is_reserved for part in inside)


def _embedded(
    number: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The IPv4 addresses that an IPv6 address leads to: mapped, 6to4, Teredo, NAT64."""
    if isinstance(number, ipaddress.IPv4Address):
        return []
    found: list[ipaddress.IPv4Address | ipaddress.IPv6Address | None] = [number.ipv4_mapped, number.sixtofour]
    found += number.teredo or ()
    if number in _NAT64:
        found.append(ipaddress.IPv4Address(int(number) & 0xFFFFFFFF))
    return [part for part in found if part is not None]
