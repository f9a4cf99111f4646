"""Reads the codec and the size of a picture from the header of an AVIF or HEIC file. Both formats nest boxes in boxes;
only a few of them are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

# The codec of each brand. The general brands (``mif1``, ``msf1``) name no codec; for these, the compatible brands name
# it.
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "heic"),
}
_GENERAL = (b"mif1", b"msf1", b"mif2", b"miaf")
# A file with more boxes or properties than this is not a picture.
_MOST = 4096


def codec(data: bytes) -> str | None:
    """``avif`` or ``heic`` if the first bytes name it, empty for another codec in this container, and None for other
    files.
    """
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), len(data), 256)
    brands = [bytes(data[8:12]), *(bytes(data[at : at + 4]) for at in range(16, end - 3, 4))]
    if brands[0] not in _BRANDS and brands[0] not in _GENERAL:
        return None
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "")


def shown_size(data: bytes) -> tuple[int, int]:
    """Width and height of the primary picture after rotation; raises `ValueError` if the file does not give a size."""
    meta = _find(data, 0, len(data), b"meta")
    primary = _primary(data, _find(data, meta[0] + 4, meta[1], b"pitm")[0])
    properties = _find(data, meta[0] + 4, meta[1], b"iprp")
    found = list(_boxes(data, *_find(data, *properties, b"ipco")))
    size: tuple[int, int] | None = None
    turned = False
    for index in _associated(data, *_find(data, *properties, b"ipma"), primary):
        if not 1 <= index <= len(found):
            raise ValueError(f"property {index} of {len(found)}")
        kind, start, _ = found[index - 1]
        if kind == b"ispe" and size is None:
            size = struct.unpack_from(">II", data, start + 4)
        elif kind == b"clap" and size is not None:  # the clean aperture to which the picture is cropped, in fractions
            across, across_of, down, down_of = struct.unpack_from(">4I", data, start)
            if across_of and down_of:
                size = min(size[0], across // across_of), min(size[1], down // down_of)
        elif kind == b"irot":
            turned = bool(data[start] & 1) != turned
    if size is None:
        raise ValueError("the primary picture has no size")
    return (size[1], size[0]) if turned else size


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each box in a byte range, and the start and end of its content."""
    for _ in range(_MOST):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        elif size == 0:
            size = end - start
        if size < head or start + size > end:
            # The file is truncated in this box; the boxes before it are still valid.
            return
        yield kind, start + head, start + size
        start += size


def _find(data: bytes, start: int, end: int, wanted: bytes) -> tuple[int, int]:
    for kind, at, stop in _boxes(data, start, end):
        if kind == wanted:
            return at, stop
    raise ValueError(f"there is no {wanted.decode()!r} box")


def _primary(data: bytes, start: int) -> int:
    number: int = struct.unpack_from(">I" if data[start] else ">H", data, start + 4)[0]
    return number


def _associated(data: bytes, start: int, end: int, item: int) -> Iterator[int]:
    """The numbers, counted from 1, of an item's properties."""
    version, wide = data[start], data[start + 3] & 1
    (count,) = struct.unpack_from(">I", data, start + 4)
    at = start + 8
    for _ in range(min(count, _MOST)):
        (number,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        many = data[at]
        at += 1
        for place in range(many):
            if number == item:
                if wide:
                    yield struct.unpack_from(">H", data, at + 2 * place)[0] & 0x7FFF
                else:
                    yield data[at + place] & 0x7F
        at += many * (2 if wide else 1)
        if at > end:
            raise ValueError("the list of properties extends beyond its box")
