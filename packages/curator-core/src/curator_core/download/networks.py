"""Which addresses may a download connect to? Those of the public Internet, and networks that the user lists.

The networks are listed here because Python's tables (`ipaddress.is_global`) change in patch releases and lack the
metadata services of some clouds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address
type Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# The IANA IPv4 Special-Purpose Address Registry (RFC 6890 and later additions), and multicast.
_SPECIAL_4 = (
    "0.0.0.0/8",  # this network; 0.0.0.0 is this machine
    "10.0.0.0/8",  # private
    "100.64.0.0/10",  # shared with a provider; metadata of Alibaba Cloud at 100.100.100.200
    "127.0.0.0/8",  # this machine
    "169.254.0.0/16",  # link-local; metadata of most clouds at 169.254.169.254
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # protocol assignments; metadata of Oracle Cloud at 192.0.0.192
    "192.0.2.0/24",  # documentation
    "192.31.196.0/24",  # AS112
    "192.52.193.0/24",  # AMT
    "192.88.99.0/24",  # 6to4 relays
    "192.168.0.0/16",  # private
    "192.175.48.0/24",  # AS112
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
)
# Within global unicast (2000::/3), outside of which nothing is public: the IANA IPv6 Special-Purpose Address Registry.
_GLOBAL_6 = "2000::/3"
_SPECIAL_6 = (
    "2001::/23",  # protocol assignments: Teredo, benchmarks, AMT, ORCHID and others
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4, which carries an IPv4 address and no longer has relays
    "2620:4f:8000::/48",  # AS112
    "3fff::/20",  # documentation
)
# Services of clouds that give credentials or secrets to any client inside the cloud. Even if all private networks are
# allowed, these are refused unless a network that contains them is listed.
_METADATA = (
    "100.100.100.200/32",  # Alibaba Cloud
    "168.63.129.16/32",  # Azure's host, which has a public address
    "169.254.0.0/16",  # AWS, Azure, Google, DigitalOcean, Hetzner and others; AWS tasks at 169.254.170.2
    "192.0.0.192/32",  # Oracle Cloud
    "fd00:ec2::254/128",  # AWS
    "fd20:ce::254/128",  # Google
    "fd00:42::42/128",  # Scaleway
    "fe80::/10",  # link-local
)
# These stand for the IPv4 address in their last 32 bits.
_MAPPED = ("::ffff:0:0/96", "64:ff9b::/96")


def _networks(texts: Sequence[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


SPECIAL = _networks((*_SPECIAL_4, *_SPECIAL_6))
METADATA = _networks(_METADATA)
CARRIERS = _networks(_MAPPED)
GLOBAL_6 = ipaddress.IPv6Network(_GLOBAL_6)


def allowed(address: str, private: bool | Sequence[Network] = False) -> bool:
    """Whether connections to a numeric address are allowed.

    ``private`` allows more than the public Internet: the networks that it lists, or with True all networks except those of the metadata services of clouds.
    """
    number = leads_to(ipaddress.ip_address(address.partition("%")[0]))
    if isinstance(private, bool):
        return not _within(number, METADATA) and (private or _is_public(number))
    return _within(number, private) or _is_public(number)


def leads_to(number: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for (mapped, NAT64), or the address itself."""
    if _within(number, CARRIERS):
        return ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)
    return number


def _is_public(number: Address) -> bool:
    if _within(number, SPECIAL) or _within(number, METADATA):
        return False
    return number.version == 4 or number in GLOBAL_6


def _within(number: Address, networks: Sequence[Network]) -> bool:
    return any(number.version == network.version and number in network for network in networks)
