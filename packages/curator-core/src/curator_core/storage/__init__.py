"""How are files read and written? One small set of functions handles local paths and any fsspec URL, and files appear
whole or not at all.

Local paths do not use fsspec. Credentials and endpoints of a store are found where its own tools look for them
(environment, configuration files) or in fsspec's configuration.

    with write_atomic("out/part.jsonl") as out:
        out.write(b"...")
    record = out.record(rows=1)
"""

from __future__ import annotations

from curator_core.storage.kernel_files import kernel_files_at, require_files
from curator_core.storage.names import (
    AnyPath,
    absolute,
    file_name,
    fixed_base,
    has_magic,
    is_local,
    is_temporary,
    join,
    local_path,
    natural_key,
    parent,
    relative,
    target_name,
)
from curator_core.storage.read import (
    FileInfo,
    exists,
    fingerprint,
    info,
    is_folder,
    list_files,
    match_files,
    open_arrow,
    open_input,
    read_bytes,
    resolved,
    scan,
)
from curator_core.storage.write import AtomicFile, make_folder, move, remove, write_atomic, write_bytes_atomic

__all__ = [
    "AnyPath",
    "AtomicFile",
    "FileInfo",
    "absolute",
    "exists",
    "file_name",
    "fingerprint",
    "fixed_base",
    "has_magic",
    "info",
    "is_folder",
    "is_local",
    "is_temporary",
    "join",
    "kernel_files_at",
    "list_files",
    "local_path",
    "make_folder",
    "match_files",
    "move",
    "natural_key",
    "open_arrow",
    "open_input",
    "parent",
    "read_bytes",
    "relative",
    "remove",
    "require_files",
    "resolved",
    "scan",
    "target_name",
    "write_atomic",
    "write_bytes_atomic",
]
