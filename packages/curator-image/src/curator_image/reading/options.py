"""The parameters for reading images, with their defaults and checks, for all stages that share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from curator_core.errors import UsageError, check_whole
from curator_image.batch import CAPTION, ODD, PICTURES
from curator_image.decode.probe import MAX_PIXELS, MAX_SIDE
from curator_image.reading.rows import FIXED, JSON_TYPES, ODDITIES
from curator_image.reading.samples import Grouping

_BATCH_BYTES = 2**31 - 1


@dataclass(kw_only=True)
class ReadOptions:
    """The parameters that `ImageReader` and `ImageRead` share; see `ImageReader`."""

    images_per_batch: int = 128
    bytes_per_batch: int = 64 << 20
    json_fields: Mapping[str, str] | Sequence[str] = ()
    sidecars: Sequence[str] = ("txt", "json")
    grouping: Grouping = "picture"
    reject_odd: Sequence[str] = ()
    bytes_column: str | None = None
    key_column: str | None = None
    max_member_bytes: int = 256 << 20
    max_sample_bytes: int = 512 << 20
    max_members: int = 64
    max_pixels: int = MAX_PIXELS
    max_side: int = MAX_SIDE

    def _check_read_options(self) -> None:
        """Raise `UsageError` for the first invalid parameter."""
        stage = type(self).__name__
        for name in (
            *("images_per_batch", "bytes_per_batch", "max_member_bytes", "max_sample_bytes", "max_members"),
            *("max_pixels", "max_side"),
        ):
            check_whole(f"{stage}.{name}", getattr(self, name))
        if self.max_member_bytes > self.max_sample_bytes:
            raise UsageError(
                f"{stage}: max_member_bytes={self.max_member_bytes:,} is more than max_sample_bytes="
                f"{self.max_sample_bytes:,}, the limit for all members of a sample together"
            )
        if self.bytes_per_batch + self.max_sample_bytes > _BATCH_BYTES:
            raise UsageError(
                f"{stage}: bytes_per_batch={self.bytes_per_batch:,} and max_sample_bytes={self.max_sample_bytes:,} "
                f"together may be at most {_BATCH_BYTES:,}, which is the limit of a batch"
            )
        for name in ("sidecars", "reject_odd", "json_fields"):
            if isinstance(getattr(self, name), str):
                raise UsageError(f"{stage}.{name} must be a list such as [{getattr(self, name)!r}]")
        if self.grouping not in get_args(Grouping):
            raise UsageError(f"{stage}.grouping must be one of {', '.join(get_args(Grouping))}, not {self.grouping!r}")
        for odd in self.reject_odd:
            if odd not in ODDITIES:
                raise UsageError(f"{stage}.reject_odd may list {', '.join(ODDITIES)}, not {odd!r}")
        for name, kind in named_fields(self.json_fields).items():
            if kind not in JSON_TYPES:
                raise UsageError(f"{stage}.json_fields[{name!r}] must be one of {', '.join(JSON_TYPES)}, not {kind!r}")
            if name in (*FIXED, *PICTURES, ODD, CAPTION, "json"):
                raise UsageError(
                    f"{stage}.json_fields: there is already a column {name!r}, so leave the field out; it stays in the "
                    "json column"
                )


def named_fields(fields: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """``json_fields`` as a mapping from names to types."""
    return dict(fields) if isinstance(fields, Mapping) else dict.fromkeys(fields, "string")
