"""Makes the headers of a tar, which depend only on names and sizes."""

from __future__ import annotations

from curator_image.tar.read import BLOCK

_ZEROS = bytes(BLOCK)


def tar_header(name: str, size: int) -> bytes:
    """The header or headers of a plain file; they depend only on its name and size."""
    encoded = name.encode("utf-8")
    extra: list[tuple[str, bytes]] = []
    if len(encoded) > 100:
        extra.append(("path", encoded))
    if size >= 8**11:
        extra.append(("size", str(size).encode()))
    before = b""
    if extra:
        body = b"".join(_pax_record(key, value) for key, value in extra)
        before = _header(b"pax/" + encoded[:90], len(body), b"x") + body + bytes(-len(body) % BLOCK)
    return before + _header(encoded[:100], min(size, 8**11 - 1), b"0")


def padding(size: int) -> bytes:
    """The padding between ``size`` bytes of data and the next header."""
    return _ZEROS[: -size % BLOCK]


END = bytes(2 * BLOCK)


def _header(name: bytes, size: int, kind: bytes) -> bytes:
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _pax_record(key: str, value: bytes) -> bytes:
    content = b" " + key.encode() + b"=" + value + b"\n"
    length = len(content) + 1
    while len(str(length)) + len(content) != length:
        length = len(str(length)) + len(content)
    return str(length).encode() + content
