"""Which registered reader and writer suit a folder of files?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curator_core import storage
from curator_core.config.build import build_stage, load_stage
from curator_core.errors import CuratorError, UsageError, nearest
from curator_core.model.stage import ProcessingStage
from curator_core.registry import STAGES, entries
from curator_core.stages.files import checked_paths, is_pattern

_READER, _WRITER = "Reader", "Writer"


def readers() -> dict[str, type[ProcessingStage[Any, Any]]]:
    """The installed readers of files, by the name of their format, such as ``JsonlReader`` for ``jsonl``."""
    found: dict[str, type[ProcessingStage[Any, Any]]] = {}
    for name in entries(STAGES):
        if not name.endswith(_READER):
            continue
        try:
            kind = load_stage(name)
        except CuratorError:  # the reader needs an extra that is not installed
            continue
        if getattr(kind, "suffixes", ()):
            found[name.removesuffix(_READER).lower()] = kind
    return found


def format_of(paths: str | Sequence[str], owner: str) -> str:
    """The format of the files that ``paths`` name, by their endings."""
    endings = {f: tuple(kind.suffixes) for f, kind in readers().items()}  # type: ignore[attr-defined]
    counts: dict[str, int] = {}
    for entry in checked_paths(f"{owner}.paths", paths):
        if is_pattern(entry):
            names = [file.path for file in storage.match_files(entry)]
        elif storage.is_folder(entry):
            names = list(storage.list_files(entry))
        else:
            names = [entry]
        for name in names:
            for kind, ends in endings.items():
                if name.lower().endswith(ends):
                    counts[kind] = counts.get(kind, 0) + 1
    if len(counts) == 1:
        return next(iter(counts))
    if counts:
        shown = ", ".join(f"{number} of {kind}" for kind, number in sorted(counts.items()))
        raise UsageError(
            f"{owner}.paths {paths!r}: there are files of several formats ({shown}). Choose one as format (--format), or name the files"
        )
    for entry in checked_paths(f"{owner}.paths", paths):
        if not is_pattern(entry) and not storage.exists(entry):
            raise UsageError(
                f"{owner}.paths: there is no file or folder {entry!r}. Correct the path; or, if an earlier step makes it, give "
                "the format of its files (--format)"
            )
    raise UsageError(
        f"{owner}.paths {paths!r}: no file has an ending that an installed reader reads ({', '.join(sorted(endings))}). Give "
        "their format (--format), or a reader"
    )


def reader_of(paths: str | Sequence[str], kind: str, owner: str) -> ProcessingStage[Any, Any]:
    """The reader of a format, for these paths."""
    known = readers()
    if kind not in known:
        raise UsageError(
            f"{owner}.format must be one of {', '.join(sorted(known))}, not {kind!r}{nearest(kind, known)}"
        )
    return known[kind](paths=paths)


def writer_of(path: str, kind: str) -> ProcessingStage[Any, Any]:
    """The writer of a format, or the writer of JSON lines if the format has none."""
    names = {name.removesuffix(_WRITER).lower(): name for name in entries(STAGES) if name.endswith(_WRITER)}
    return build_stage(names.get(kind, "JsonlWriter"), {"path": path})
