"""Reads the format, size and orientation from the header of an encoded image, without decoding pixels."""

from __future__ import annotations

import functools
import importlib.util
import re
import struct
from dataclasses import dataclass

from curator_image.decode.isobmff import codec, shown_size

# The reasons for which an image is set aside. They appear in rejects and reports, so they are part of the interface.
EMPTY = "empty"
UNSUPPORTED = "unsupported format"
NOT_AN_IMAGE = "not an image"
WRONG_EXTENSION = "wrong extension"
TRUNCATED = "truncated"
CORRUPT = "corrupt"
TOO_LARGE = "too many pixels"
ABSURD = "absurd dimensions"
TOO_MANY_SCANS = "too many scans"

MAX_PIXELS = 89_478_485  # a quarter of a gigabyte as RGB
MAX_SIDE = 65_535
# A file with more segments than this before its picture is not a picture.
_MAX_STEPS = 10_000
# Each scan of a progressive JPEG goes over the whole picture again. Encoders make about ten scans; a crafted file may
# have thousands, and cost a second per kilobyte. So the number of pixels that all scans visit may be at most this many
# times the largest size of a picture.
_MOST_VISITS = 16

EXTENSIONS = {
    "jpg": "jpeg",
    "jpeg": "jpeg",
    "jpe": "jpeg",
    "jfif": "jpeg",
    "png": "png",
    "webp": "webp",
    "gif": "gif",
    "bmp": "bmp",
    "dib": "bmp",
    "tif": "tiff",
    "tiff": "tiff",
    "avif": "avif",
    "heic": "heic",
    "heif": "heic",
    "hif": "heic",
    "apng": "png",
    "mpo": "jpeg",
}
_CONTAINERS = ("heif", "hif")  # containers for any codec
# Extensions of picture files. A file with one of these extensions is a picture or a reject, never a sidecar.
PICTURE_EXTENSIONS = frozenset(
    {
        *EXTENSIONS,
        *("avifs", "heics", "jxl", "jp2", "j2k", "jpf", "jpx", "svg", "svgz", "ico", "psd"),
        *("ppm", "pgm", "pbm", "pnm", "tga", "exr", "hdr", "dds", "pcx", "xcf", "raw", "dng", "cr2", "nef", "arw"),
    }
)
# Formats that are recognised by their first bytes, but not decoded.
_FOREIGN = (
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"8BPS", "PSD"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    *((0, b"P%d" % number + space, "PNM") for number in range(1, 7) for space in (b"\n", b" ", b"\r", b"\t")),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"DDS ", "DDS"),
    (0, b"%PDF", "PDF"),
)
_SVG = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*|<!DOCTYPE[^>]*>\s*)*<svg[\s/>]", re.S | re.I
)


class BadImage(Exception):
    """An image that cannot be used; ``reason`` is one of the reasons above, and ``message`` gives details."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


@dataclass(frozen=True, slots=True)
class Header:
    """Format and size of an image. ``width`` and ``height`` describe the picture as it is shown, upright."""

    format: str
    width: int
    height: int
    orientation: int = 1
    channels: int = 3
    # How often a decoder passes over the picture; more than once for a JPEG with several scans.
    scans: int = 1


def probe(
    data: bytes, *, ext: str = "", max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE, check_end: bool = True
) -> Header:
    """The header of an encoded image; raises `BadImage` if it is empty, unsupported, misnamed, truncated, or has absurd
    dimensions.

    ``ext`` is the file's extension; if it is empty, it is not checked. ``check_end`` looks for the end mark of the
    file.
    """
    if not data:
        raise BadImage(EMPTY, "the member has no bytes")
    kind = sniff(data)
    if kind is None:
        raise unrecognised(data)
    try:
        header = _PARSERS[kind](data)
    except BadImage:
        raise
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise BadImage(TRUNCATED, f"the {kind} header is cut short or malformed ({error})") from error
    if misnamed(ext, kind):
        raise BadImage(WRONG_EXTENSION, f"named .{ext}, but the bytes are {kind}")
    missing = missing_decoder(kind)
    if missing is not None:
        raise BadImage(UNSUPPORTED, missing)
    check_size(header.width, header.height, max_pixels, max_side)
    visits = header.scans * header.width * header.height
    if header.scans > 1 and visits > _MOST_VISITS * max_pixels:
        raise BadImage(
            TOO_MANY_SCANS,
            f"{header.scans:,} scans of {header.width} x {header.height} visit {visits:,} pixels, more than "
            f"{_MOST_VISITS * max_pixels:,}",
        )
    if check_end:
        check_closed(kind, data)
    return header


def sniff(data: bytes) -> str | None:
    """The format that the first bytes indicate, or None."""
    head = bytes(data[:16])
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "tiff"
    boxed = codec(data)
    if boxed:
        return boxed
    if head.startswith(b"BM") and len(data) >= 26 and _u32(data, 14) in (12, 16, 40, 52, 56, 64, 108, 124):
        return "bmp"
    return None


def misnamed(ext: str, kind: str) -> bool:
    """Whether an extension belongs to another format than ``kind``; an unknown extension belongs to none."""
    last = ext.lower().rpartition(".")[2]
    expected = EXTENSIONS.get(last, kind)
    return expected != kind and not (last in _CONTAINERS and kind in ("avif", "heic"))


def check_size(width: int, height: int, max_pixels: int, max_side: int) -> None:
    """Raise if an image is too large to allocate memory for."""
    if width < 1 or height < 1 or width > max_side or height > max_side:
        raise BadImage(ABSURD, f"{width} x {height}; each side may be 1 to {max_side}")
    if width * height > max_pixels:
        raise BadImage(TOO_LARGE, f"{width} x {height} is {width * height:,} pixels, more than {max_pixels:,}")


@functools.cache
def missing_decoder(kind: str) -> str | None:
    """What must be installed before a format can be decoded, or None."""
    if kind == "heic" and importlib.util.find_spec("pillow_heif") is None:
        return 'HEIC is read with: pip install "curator-image[heif]"'
    if kind == "avif":
        from PIL import features

        if not features.check("avif"):
            return "this build of Pillow has no AVIF; the wheels of Pillow 11.3 and later have it"
    return None


def unrecognised(data: bytes) -> BadImage:
    """The error for bytes in which `sniff` finds no format: an unsupported format, or no image at all."""
    if codec(data) is not None:
        return BadImage(UNSUPPORTED, "HEIF with a codec other than AV1 and HEVC is not read")
    if _SVG.match(bytes(data[:4096])):
        return BadImage(UNSUPPORTED, "SVG is not read")
    for offset, magic, name in _FOREIGN:
        if data[offset : offset + len(magic)] == magic:
            return BadImage(UNSUPPORTED, f"{name} is not read")
    return BadImage(NOT_AN_IMAGE, f"starts with {bytes(data[:8])!r}")


# JPEG ----------------------------------------------------------------------------------------------------------------

# Start-of-frame marks: all of 0xC0 to 0xCF except DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_NOT_FF = re.compile(rb"[^\xff]")
_SCAN = b"\xff\xda"


def _jpeg(data: bytes) -> Header:
    at, orientation = 2, 1
    for _ in range(_MAX_STEPS):
        # Decoders skip stray bytes between segments too. There may be megabytes of stray bytes, so no Python code runs
        # for each byte.
        at = data.find(b"\xff", at)
        found = _NOT_FF.search(data, at) if at >= 0 else None
        if found is None:
            break
        mark, at = data[found.start()], found.end()
        if mark in _BARE or mark == 0:
            continue
        if mark in (0xD9, 0xDA):
            raise BadImage(CORRUPT, "the JPEG has no frame header")
        (length,) = struct.unpack_from(">H", data, at)
        if length < 2:
            raise BadImage(CORRUPT, "a JPEG segment is shorter than its own length")
        if mark in _FRAMES:
            height, width, channels = struct.unpack_from(">HHB", data, at + 3)
            if orientation >= 5:
                width, height = height, width
            scans = _scans(data, at + length, channels, progressive=mark in _PROGRESSIVE)
            return Header("jpeg", width, height, orientation, channels, scans)
        if mark == 0xE1 and orientation == 1 and data[at + 2 : at + 8] == b"Exif\x00\x00":
            orientation = exif_orientation(data, at + 8, at + length)
        at += length
    raise BadImage(TRUNCATED, "the JPEG ends before its frame header")


def without_stray_bytes(data: bytes) -> bytes:
    """A JPEG without stray bytes between its segments; from its first scan on, the file is unchanged."""
    kept, at = [data[:2]], 2
    for _ in range(_MAX_STEPS):
        start = data.find(b"\xff", at)
        found = _NOT_FF.search(data, start) if start >= 0 else None
        if found is None:
            break
        mark, at = data[found.start()], found.end()
        if mark == 0xDA:
            return b"".join([*kept, data[at - 2 :]])
        if mark in _BARE or mark == 0:
            continue
        end = at + int.from_bytes(data[at : at + 2], "big")
        kept.append(data[at - 2 : end])
        at = end
    return data


def _scans(data: bytes, at: int, channels: int, *, progressive: bool) -> int:
    """How many scans follow a frame header. If the frame is not progressive and the first scan holds all channels, only
    that scan is decoded and counted.
    """
    first = data.find(_SCAN, at)
    if first < 0:
        return 1
    if not progressive and data[first + 4 : first + 5] == bytes([channels]):
        return 1
    scans = data.count(_SCAN, first)
    if scans > _MOST_VISITS:
        # A scan contains no end mark, and data after the end mark (a second picture, a film) is not decoded.
        end = data.find(b"\xff\xd9", first)
        scans = data.count(_SCAN, first, end) if end >= 0 else scans
    return max(1, scans)


def exif_orientation(data: bytes, start: int, end: int) -> int:
    """The EXIF orientation, or 1 if it is missing or broken, because a wrong tag must not make the picture a reject."""
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(data[start : start + 2])]
        magic, offset = struct.unpack_from(f"{order}HI", data, start + 2)
        if magic != 42:
            return 1
        (count,) = struct.unpack_from(f"{order}H", data, start + offset)
        for entry in range(min(count, 512)):
            at = start + offset + 2 + 12 * entry
            if at + 12 > end:
                break
            tag, kind, values = struct.unpack_from(f"{order}HHI", data, at)
            if tag == 0x0112:
                # As in Pillow, an orientation is a short or long number in the entry itself; other values are ignored.
                if not 1 <= values <= {3: 2, 4: 1}.get(kind, 0):
                    return 1
                (value,) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, at + 8)
                return value if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass
    return 1


# The others ----------------------------------------------------------------------------------------------------------


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise BadImage(CORRUPT, "the PNG does not begin with IHDR")
    width, height, _, color = struct.unpack_from(">IIBB", data, 16)
    orientation = 1
    at = 8
    for _ in range(_MAX_STEPS):
        if at + 8 > len(data):
            break
        length, name = _u32(data, at, ">"), data[at + 4 : at + 8]
        if name in (b"IDAT", b"IEND"):
            break
        if name == b"eXIf":
            orientation = exif_orientation(data, at + 8, at + 8 + length)
        at += 12 + length
    if orientation >= 5:
        width, height = height, width
    return Header("png", width, height, orientation, {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(color, 3))


def _webp(data: bytes) -> Header:
    chunk = data[12:16]
    orientation = 1
    if chunk == b"VP8X":
        width = 1 + int.from_bytes(_exact(data, 24, 3), "little")
        height = 1 + int.from_bytes(_exact(data, 27, 3), "little")
        if data[20] & 0x08:
            orientation = _webp_orientation(data)
    elif chunk == b"VP8L":
        bits = _u32(data, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + ((bits >> 14) & 0x3FFF)
    elif chunk == b"VP8 ":
        if _exact(data, 23, 3) != b"\x9d\x01\x2a":
            raise BadImage(CORRUPT, "the WebP key frame has no start code")
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    else:
        raise BadImage(CORRUPT, f"the WebP begins with chunk {bytes(chunk)!r}")
    if orientation >= 5:
        width, height = height, width
    return Header("webp", width, height, orientation)


def _webp_orientation(data: bytes) -> int:
    at = 12
    for _ in range(_MAX_STEPS):
        if at + 8 > len(data):
            break
        length = _u32(data, at + 4)
        if data[at : at + 4] == b"EXIF":
            start = at + 8 + (6 if data[at + 8 : at + 14] == b"Exif\x00\x00" else 0)
            return exif_orientation(data, start, at + 8 + length)
        at += 8 + length + (length & 1)
    return 1


def _gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("gif", width, height)


def _bmp(data: bytes) -> Header:
    if _u32(data, 14) == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header("bmp", width, abs(height))


def _tiff(data: bytes) -> Header:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\x00", b"\x00+")
    if big:
        (offset,) = struct.unpack_from(f"{order}Q", data, 8)
        (count,) = struct.unpack_from(f"{order}Q", data, offset)
        first, step, value_at = offset + 8, 20, 12
    else:
        offset = _u32(data, 4, order)
        (count,) = struct.unpack_from(f"{order}H", data, offset)
        first, step, value_at = offset + 2, 12, 8
    tags: dict[int, int] = {}
    for entry in range(min(count, 4096)):
        at = first + entry * step
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        if tag in (0x0100, 0x0101, 0x0112, 0x0115):
            tags[tag] = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, at + value_at)[0]
    if 0x0100 not in tags or 0x0101 not in tags:
        raise BadImage(CORRUPT, "the TIFF has no width or no height")
    width, height = tags[0x0100], tags[0x0101]
    orientation = tags.get(0x0112, 1)
    if not 1 <= orientation <= 8:
        orientation = 1
    if orientation >= 5:
        width, height = height, width
    return Header("tiff", width, height, orientation, tags.get(0x0115, 1))


def _avif(data: bytes) -> Header:
    return Header("avif", *shown_size(data))


def _heic(data: bytes) -> Header:
    return Header("heic", *shown_size(data))


_PARSERS = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "gif": _gif,
    "bmp": _bmp,
    "tiff": _tiff,
    "avif": _avif,
    "heic": _heic,
}


def check_closed(kind: str, data: bytes) -> None:
    """Raise if a file lacks its end mark, since it is truncated; this check is cheap and saves a decode."""
    if kind == "jpeg":
        # Some writers pad or append, so an end mark anywhere after the start of the last scan counts. Finding that scan
        # means searching the whole file, so the common case comes first.
        if b"\xff\xd9" not in data[-32:] and data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda"):
            raise BadImage(TRUNCATED, "the JPEG has no end mark")
    elif kind == "png":
        if data.rfind(b"IEND") < 0:
            raise BadImage(TRUNCATED, "the PNG has no end chunk")
    elif kind == "webp":
        said = _u32(data, 4) + 8
        if said > len(data):
            raise BadImage(TRUNCATED, f"the WebP declares {said:,} bytes and has {len(data):,}")
    elif kind == "bmp":
        start = _u32(data, 10)
        if start >= len(data):
            raise BadImage(TRUNCATED, "the BMP ends before its pixels")


def _u32(data: bytes, at: int, order: str = "<") -> int:
    value: int = struct.unpack_from(f"{order}I", data, at)[0]
    return value


def _exact(data: bytes, at: int, size: int) -> bytes:
    value = data[at : at + size]
    if len(value) != size:
        raise ValueError(f"ends within bytes {at} to {at + size}")
    return bytes(value)
