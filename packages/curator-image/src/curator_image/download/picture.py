"""Decides whether a response is a picture, by its content type and its first bytes."""

from __future__ import annotations

from curator_core.download import OPT_OUT_IMAGES, Head, MemorySink, Reason, Refused
from curator_image.decode.probe import sniff, unrecognised

_TYPES = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-download", "unknown/unknown"})


class PictureSink(MemorySink):
    """Collects a picture in memory, and refuses early a response that is not a picture or has an unsupported format."""

    opt_out = MemorySink.opt_out | OPT_OUT_IMAGES
    # How many bytes are needed to recognise a format: an SVG may begin with comments, and an AVIF with many brands.
    start = 4096

    def check_head(self, head: Head) -> None:
        kind = head.content_type
        if not kind.startswith("image/") and kind not in _TYPES:
            raise Refused(Reason.WRONG_TYPE, f"the content type is {kind!r}")

    def check_start(self, data: bytes) -> None:
        if sniff(data) is None:
            error = unrecognised(data)
            raise Refused(error.reason, error.message)
