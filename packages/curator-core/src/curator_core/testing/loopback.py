"""How do tests of downloads stay on this machine? Names are resolved from a table, and connections to other machines
fail.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Answers = Sequence[str] | Callable[[], Sequence[str]]


@contextlib.contextmanager
def loopback_only(names: Mapping[str, Answers] | None = None) -> Iterator[list[str]]:
    """Resolve only ``localhost`` and ``names``, and refuse connections that leave this machine.

    The value of a name is its addresses, or a function that returns them. Yields the addresses to which connections
    were made or tried.
    """
    table: dict[str, Answers] = {"localhost": ["127.0.0.1"], **(names or {})}
    real_lookup, real_connect = socket.getaddrinfo, socket.socket.connect
    connected: list[str] = []

    def lookup(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:  # noqa: A002
        name = host.decode() if isinstance(host, bytes) else host
        answers = table.get(name or "localhost")
        if answers is None:
            # Numbers in any notation (127.1, 0x7f.1) are resolved without a server; other names have no address.
            return real_lookup(host, port, family, type, proto, flags | socket.AI_NUMERICHOST)
        found = answers() if callable(answers) else answers
        return [entry for address in found for entry in real_lookup(address, port, 0, type, proto, flags)]

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            connected.append(address[0])
            if not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
                raise AssertionError(f"a test connects to {address[0]!r}, which is not this machine")
        real_connect(self, address)

    socket.getaddrinfo = lookup
    socket.socket.connect = connect  # type: ignore[assignment, method-assign]
    try:
        yield connected
    finally:
        socket.getaddrinfo = real_lookup
        socket.socket.connect = real_connect  # type: ignore[method-assign]
