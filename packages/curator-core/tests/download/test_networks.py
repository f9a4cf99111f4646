"""Only addresses of the public Internet are connected to, in whatever form they are written."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core.download import allowed, networks
from curator_core.download.rules import FetchRules

REFUSED = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.0.9",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "168.63.129.16",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::10.0.0.1",
    "::8.8.8.8",
    "::ffff:10.0.0.1",
    "::ffff:0:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::168.63.129.16",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:a00:1::",
    "2002:808:808::",
    "2620:4f:8000::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fd00:42::42",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "168.63.129.17",
    "2606:4700::1111",
    "2001:4860:4860::8888",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_outside_the_public_internet_are_refused(address: str) -> None:
    assert not allowed(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_on_the_public_internet_are_allowed(address: str) -> None:
    assert allowed(address)


@given(st.ip_addresses())
def test_every_address_that_python_calls_private_is_refused_unless_listed(address: networks.Address) -> None:
    if not allowed(str(address)):
        assert allowed(str(address), [ipaddress.ip_network(str(networks.leads_to(address)))])
        return
    inner = networks.leads_to(address)
    judged = ("is_private", "is_loopback", "is_link_local", "is_multicast", "is_reserved")
    assert [name for name in judged if getattr(inner, name)] == []


def test_allowing_private_networks_does_not_allow_metadata_services() -> None:
    assert allowed("10.1.2.3", True)
    assert allowed("fd12::1", True)
    for address in ("169.254.169.254", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "::ffff:169.254.169.254"):
        assert not allowed(address, True)
        assert allowed(address, [ipaddress.ip_network(str(networks.leads_to(ipaddress.ip_address(address))))])


def test_a_listed_network_is_allowed_and_no_other() -> None:
    private = FetchRules(allow_private=["10.0.0.0/8"]).private_networks()
    assert allowed("10.1.2.3", private)
    assert allowed("::ffff:10.1.2.3", private)
    assert not allowed("192.168.1.1", private)


def test_the_tables_of_python_are_not_used() -> None:
    for name in ("networks.py", "rules.py", "client.py"):
        source = Path(networks.__file__).with_name(name).read_text(encoding="utf-8")
        code = "\n".join(line.partition("#")[0] for line in source.split('"""')[2:])
        assert not any(word in code for word in (".is_global", ".is_private", ".is_reserved", ".is_link_local"))
