"""Tar archives as a stream, in and out."""

from __future__ import annotations

from curator_image.tar.names import MAX_NAME, clean_name, unsafe_name
from curator_image.tar.read import (
    ARCHIVES,
    BAD_HEADER,
    BLOCK,
    DEVICE,
    LINK,
    MEMBER_TOO_LARGE,
    NESTED,
    SPARSE,
    TRUNCATED_TAR,
    UNKNOWN_TYPE,
    UNSAFE_NAME,
    Member,
    Problem,
    looks_like_tar,
    read_tar,
)
from curator_image.tar.write import END, padding, tar_header

__all__ = [
    "ARCHIVES",
    "BAD_HEADER",
    "BLOCK",
    "DEVICE",
    "END",
    "LINK",
    "MAX_NAME",
    "MEMBER_TOO_LARGE",
    "NESTED",
    "SPARSE",
    "TRUNCATED_TAR",
    "UNKNOWN_TYPE",
    "UNSAFE_NAME",
    "Member",
    "Problem",
    "clean_name",
    "looks_like_tar",
    "padding",
    "read_tar",
    "tar_header",
    "unsafe_name",
]
