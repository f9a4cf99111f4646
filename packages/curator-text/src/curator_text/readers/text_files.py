"""Reads text files, each as one document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.errors import UsageError
from curator_core.model.places import Places, place_rows
from curator_core.model.stage import FanOut
from curator_core.model.task import DocumentBatch, FileGroupTask
from curator_core.stages.partitioned_reader import PartitionedReader
from curator_core.storage import open_input
from curator_text.readers._arguments import bounded_bytes, checked_encoding, path_text
from curator_text.readers._bytes import Truncated, decompressed


@dataclass(kw_only=True, eq=False, repr=False)
class TextFilesParameters:
    """The parameters of both `TextFilesReader` and `TextFilesRead`."""

    text_column: str = "text"
    path_column: str = "path"
    encoding: str = "utf-8"
    max_file_bytes: int | str = "256MiB"
    batch_bytes: int | str = "16MiB"


@dataclass(kw_only=True)
class TextFilesRead(TextFilesParameters, FanOut[FileGroupTask, DocumentBatch]):
    """Reads the files of a task as one document each; see `TextFilesReader`."""

    def __post_init__(self) -> None:
        self._encoding = checked_encoding(self.encoding, type(self).__name__)
        if self.text_column == self.path_column:
            raise UsageError(f"text_column and path_column are both {self.text_column!r}: rename one of them")
        self._max_file_bytes = bounded_bytes("max_file_bytes", self.max_file_bytes)
        self._batch_bytes = bounded_bytes("batch_bytes", self.batch_bytes)

    def outputs(self) -> list[str]:
        return [self.path_column, self.text_column]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        paths: list[str] = []
        texts: list[str] = []
        held = 0
        given = False
        for path in task.data:
            text = self._text(path)
            if text is None:
                continue
            paths.append(path_text(path))
            texts.append(text)
            held += len(text)
            if held >= self._batch_bytes:
                yield self._batch(paths, texts, task)
                paths, texts, held, given = [], [], 0, True
        # Files without a document still provide the columns, so that output from them has a schema.
        if texts or not given:
            yield self._batch(paths, texts, task)

    def _text(self, path: str) -> str | None:
        self.record_read(1)
        try:
            with open_input(path) as raw:
                file = decompressed(raw)
                pieces = []
                room = self._max_file_bytes + 1
                while room and (piece := file.read(min(room, 1 << 20))):
                    pieces.append(piece)
                    room -= len(piece)
            data = b"".join(pieces)
            if not room:
                self.record_rejected(
                    "file too large",
                    source=path,
                    message=f"more than max_file_bytes={self.max_file_bytes}",
                    raw=data[: 1 << 16],
                )
                return None
            text = data.decode(self._encoding)
            if self._encoding != "utf-8":
                text.encode()  # UTF-7 and similar encodings can encode a lone surrogate, which is not text
            return text
        except Truncated as error:
            self.record_rejected("truncated file", source=path, message=str(error.args[0]))
        except UnicodeError as error:
            self.record_rejected(
                "bad UTF-8" if self._encoding == "utf-8" else f"bad {self.encoding}",
                source=path,
                position=f"byte {error.start}" if isinstance(error, UnicodeDecodeError) else "",
                message=getattr(error, "reason", str(error)),
                raw=data[: 1 << 16],
            )
        return None

    def _batch(self, paths: list[str], texts: list[str], task: FileGroupTask) -> DocumentBatch:
        columns = {self.path_column: array(paths, pa.string()), self.text_column: array(texts, pa.string())}
        batch = DocumentBatch(data=pa.table(columns), dataset_name=task.dataset_name)
        return place_rows(batch, Places(paths, "", [""] * len(paths)))


@dataclass(kw_only=True)
class TextFilesReader(TextFilesParameters, PartitionedReader[DocumentBatch]):
    """Reads text files, plain or compressed, each as one document with its path.

    A task reads several small files, up to ``bytes_per_partition``. A file that is not text in ``encoding``, or larger
    than ``max_file_bytes``, is set aside. A byte order mark stays in the text; ``utf-8-sig`` removes it.
    """

    extensions: Sequence[str] | None = None
    bytes_per_partition: int | str | None = "16MiB"

    read = TextFilesRead
