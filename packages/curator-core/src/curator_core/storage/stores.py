"""Which file system does a URL belong to, and what do object stores do differently?"""

from __future__ import annotations

import os
import re
from typing import Any

from curator_core.errors import MissingDependency, UsageError, nearest
from curator_core.storage.names import AnyPath

# On these, a file appears only when its upload is committed. On every other file system, files are written under a
# temporary name and renamed.
_OBJECT_STORES = frozenset({"abfs", "abfss", "adl", "az", "gcs", "gs", "oci", "oss", "r2", "s3", "s3a", "tos"})


def protocol_of(path: AnyPath) -> str:
    return re.split("://|::", os.fspath(path), maxsplit=1)[0].lower()


def is_object_store(path: AnyPath) -> bool:
    return protocol_of(path) in _OBJECT_STORES


def open_remote(path: AnyPath, *, fresh: bool = False) -> tuple[Any, str]:
    """The fsspec file system of a URL and the name in it; ``fresh`` discards cached listings."""
    from fsspec.core import url_to_fs  # local paths, the common case, need no fsspec

    text = os.fspath(path)
    try:
        filesystem, name = url_to_fs(text)
    except ImportError as error:
        raise MissingDependency(
            f"{text!r} needs a package for {protocol_of(text)}:// that is not installed: {error}"
        ) from error
    except ValueError as error:
        if "rotocol" not in str(error):
            raise UsageError(f"{text!r} is not a URL that can be used: {error}") from error
        from fsspec import available_protocols  # see above

        hint = nearest(protocol_of(text), available_protocols())
        raise UsageError(f"{text!r} begins with an unknown protocol {protocol_of(text)!r}{hint}") from error
    if fresh:
        filesystem.invalidate_cache()
    return filesystem, name
