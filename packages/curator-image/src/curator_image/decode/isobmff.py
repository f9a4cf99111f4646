"""What does the header of an AVIF or HEIC file say? Both formats nest boxes in boxes; only a few are read."""

from __future__ import annotations

import struct
from collections.abc import Iterator

# The codec that a brand stands for. The general brands (``mif1``, ``msf1``) name none; the compatible brands then do.
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "heic"),
}
_GENERAL = (b"mif1", b"msf1", b"mif2", b"miaf")
# A file of more boxes or properties than this is not a picture.
_MOST = 4096


def codec(data: bytes) -> str | None:
    """``avif`` or ``heic`` where the first bytes announce it; empty for another picture in such boxes; else None."""
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), len(data), 256)
    brands = [bytes(data[8:12]), *(bytes(data[at : at + 4]) for at in range(16, end - 3, 4))]
    if brands[0] not in _BRANDS and brands[0] not in _GENERAL:
        return None
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "")


def shown_size(data: bytes) -> tuple[int, int]:
    """Width and height of the primary picture as it is shown, turned as the file says; `ValueError` if it does not say."""
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
        elif kind == b"clap" and size is not None:  # cut to a clean aperture: fractions of pixels
            across, across_of, down, down_of = struct.unpack_from(">4I", data, start)
            if across_of and down_of:
                size = min(size[0], across // across_of), min(size[1], down // down_of)
        elif kind == b"irot":
            turned = bool(data[start] & 1) != turned
    if size is None:
        raise ValueError("the primary picture has no size")
    return (size[1], size[0]) if turned else size


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each box in a stretch; start and end are those of the box's content."""
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
            # The last box of a file that was cut: what comes before is still good.
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
    """The numbers, from 1 on, of the properties of an item."""
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
