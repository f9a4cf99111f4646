"""Which files does a path stand for, in which format, and which registered reader reads them?

Core has no modality, so this module names readers by the endings of files; the packages that register them may not be
installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from curator_core import storage
from curator_core.errors import UsageError
from curator_core.formatting import count
from curator_core.stages.files import is_data, is_pattern

_COMPRESSED = (".gz", ".bgz", ".zst", ".bz2", ".xz", ".lz4")
_IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"})
# The reader for each file ending, and the template that suits its rows.
READERS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("jsonl", "ndjson", "json"), ("JsonlReader", "text")),
    **dict.fromkeys(("csv", "tsv"), ("CsvReader", "text")),
    **dict.fromkeys(("txt", "md", "text"), ("TextFilesReader", "text")),
    **dict.fromkeys(("warc", "wet", "wat"), ("WarcReader", "text")),
    **dict.fromkeys(("parquet", "pq"), ("ParquetReader", "text")),
    "tar": ("ImageReader", "image"),
    "tgz": ("ImageReader", "image"),
    **dict.fromkeys(sorted(_IMAGES), ("ImageReader", "image")),
}
PACKAGE = {"text": "curator-text", "image": "curator-image"}
# The first bytes of image files: JPEG, PNG, GIF, BMP, TIFF; WebP has its name at byte 8.
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*")


@dataclass(frozen=True)
class Data:
    """Files of one format, and the arguments that make a reader read them."""

    paths: str
    ending: str
    files: int
    bytes: int
    others: Mapping[str, int]  # the number of files of other formats beside them, by ending


def look_at(data: str) -> Data:
    """The files of ``data``, which is a file, a folder, or a pattern; if there are several formats, those of the one
    with the most bytes.
    """
    if is_pattern(data):
        files = list(storage.match_files(data))
        pattern = True
    elif storage.is_folder(data):
        files = [file for file in storage.scan(data, recursive=True) if is_data(file.path, data)]
        pattern = False
    else:
        files, pattern = [storage.info(data)], True  # raises an error that names the path if there is no file
    if not files:
        raise UsageError(f"{data!r} holds no file to read")
    sizes: dict[str, int] = {}
    counts: dict[str, int] = {}
    spellings: dict[str, set[str]] = {}
    for file in files:
        ending, full = _ending(file.path)
        sizes[ending] = sizes.get(ending, 0) + file.size
        counts[ending] = counts.get(ending, 0) + 1
        spellings.setdefault(ending, set()).add(full)
    known = [ending for ending in sizes if ending in READERS]
    if not known:
        endings = ", ".join(repr(f".{ending}") if ending else "no ending" for ending in sorted(counts)[:5])
        raise UsageError(
            f"no reader takes {data!r}: {count(len(files), 'file')} with {endings}. Curator reads files that end with "
            f"{', '.join(f'.{ending}' for ending in sorted(READERS))}"
        )
    # Image files and the captions beside them belong together, so a text file is then not a format of its own.
    best = max(known, key=lambda ending: (sizes[ending], ending))
    images = [ending for ending in known if ending in _IMAGES]
    group = images if best in _IMAGES else [best]
    paths = data
    # A caption beside its picture has no reader of its own; a pattern excludes formats other than the chosen one.
    beside = {e: n for e, n in counts.items() if e not in group and not (best in _IMAGES and e in ("txt", "json"))}
    if beside and not pattern and best not in _IMAGES:
        spelled = sorted(spellings[best])
        paths = storage.join(data, f"**/*{spelled[0] if len(spelled) == 1 else f'.{best}*'}")
    return Data(paths, best, sum(counts[e] for e in group), sum(sizes[e] for e in group), beside)


def _ending(path: str) -> tuple[str, str]:
    """``jsonl`` and ``.jsonl.gz`` of ``part-1.jsonl.gz``."""
    name = storage.file_name(path)
    base, compression = name, ""
    for suffix in _COMPRESSED:
        if name.lower().endswith(suffix):
            base, compression = name[: -len(suffix)], name[-len(suffix) :]
            break
    stem, dot, ending = base.rpartition(".")
    return (ending.lower(), f".{ending}{compression}") if dot and stem else ("", "")


def reader_of(found: Data) -> tuple[str, str]:
    """The reader for files of a format, and the kind of its rows, ``text`` or ``image``."""
    reader, kind = READERS[found.ending]
    return ("ImageReader", "image") if reader == "ParquetReader" and _holds_images(found) else (reader, kind)


def _holds_images(found: Data) -> bool:
    """Whether the first Parquet file has a column of encoded images: bytes, or Hugging Face's struct with bytes."""
    files = storage.match_files(found.paths) if is_pattern(found.paths) else None
    if files is None:
        files = list(storage.scan(found.paths)) if storage.is_folder(found.paths) else [storage.info(found.paths)]
    named = (file.path for file in files if _ending(file.path)[0] == found.ending)
    first = min(named, key=storage.natural_key)
    with storage.open_input(first) as raw:
        try:
            file = pq.ParquetFile(raw)
            names = [column.name for column in file.schema_arrow if _may_hold_images(column.type)]
            batch = next(file.iter_batches(1, columns=names), None) if names else None
        except (pa.ArrowException, OSError):
            return False  # an error is reported when the file is read
    if batch is None:
        return False
    values = (next(iter(column.to_pylist()), None) for column in batch.columns)
    heads = [value.get("bytes") if isinstance(value, dict) else value for value in values]
    return any(head.startswith(_MAGIC) or head[8:12] == b"WEBP" for head in heads if isinstance(head, bytes))


def _may_hold_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _may_hold_images(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
