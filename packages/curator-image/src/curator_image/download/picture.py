"""Decides which answers are pictures, by the type that the server names and by the first bytes."""

from __future__ import annotations

from curator_core.download import OPT_OUT_IMAGES, Head, MemorySink, Reason, Refused
from curator_image.decode.probe import sniff, unrecognised

_TYPES = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-download", "unknown/unknown"})


class PictureSink(MemorySink):
    """Keeps a picture in memory, and refuses early anything that is no picture or is in a format that is not read."""

    opt_out = MemorySink.opt_out | OPT_OUT_IMAGES
    # The comment or declaration in front of an SVG, and the brands of an AVIF, are longer than the marks of a JPEG.
    start = 4096

    def check_head(self, head: Head) -> None:
        kind = head.content_type
        if not kind.startswith("image/") and kind not in _TYPES:
            raise Refused(Reason.WRONG_TYPE, f"the server calls it {kind!r}")

    def check_start(self, data: bytes) -> None:
        if sniff(data) is None:
            error = unrecognised(data)
            raise Refused(error.reason, error.message)
