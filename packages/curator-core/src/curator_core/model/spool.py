"""A buffer of rows that wait to be written: the latest in memory, those before them in a temporary file.

The buffer must hold any number of rows: if a file of ten gigabytes has the wrong format, all of its rows are rejects.
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Generic, TypeVar, cast, overload

import pyarrow as pa

from curator_core.errors import OutputError

# At most this many things, and this many bytes, stay in memory.
KEPT = 4096
KEPT_BYTES = 8 << 20

T = TypeVar("T")


class Spool(Sequence[T], Generic[T]):
    """A list that is only appended to. Subclasses convert things to tables and back."""

    __slots__ = ("_bytes", "_file", "_recent", "_spilled", "_starts")

    def __init__(self) -> None:
        self._recent: list[T] = []
        self._bytes = 0
        self._file: BinaryIO | None = None
        self._starts: list[int] = []  # the offsets of the tables in the file
        self._spilled = 0

    @abstractmethod
    def to_table(self, things: list[T]) -> pa.Table:
        """Some of the things as a table; all tables of a spool have the same columns."""

    @abstractmethod
    def from_table(self, table: pa.Table) -> Iterator[T]:
        """The things in a table that `to_table` made."""

    @abstractmethod
    def size(self, thing: T) -> int:
        """The approximate size of a thing in bytes, without a fixed part."""

    def append(self, thing: T) -> None:
        self._recent.append(thing)
        self._bytes += self.size(thing)
        if len(self._recent) >= KEPT or self._bytes >= KEPT_BYTES:
            self._spill()

    def clear(self) -> None:
        if self._file is not None:
            self._file.close()
        self.__init__()  # type: ignore[misc]

    def tables(self) -> Iterator[pa.Table]:
        """All things in order, in tables."""
        yield from self._tables()
        if self._recent:
            yield self.to_table(self._recent)

    def __len__(self) -> int:
        return self._spilled + len(self._recent)

    def __iter__(self) -> Iterator[T]:
        for table in self._tables():
            yield from self.from_table(table)
        yield from self._recent

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: Any) -> Any:
        return (list(self) if self._spilled else self._recent)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)})" if self._spilled else repr(self._recent)

    def _tables(self) -> Iterator[pa.Table]:
        for start in self._starts:
            assert self._file is not None
            self._file.seek(start)
            with pa.ipc.open_stream(self._file) as stream:
                yield stream.read_all()

    def _spill(self) -> None:
        table = self.to_table(self._recent)
        try:
            if self._file is None:
                self._file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - open as long as the spool
            self._starts.append(self._file.seek(0, 2))
            with pa.ipc.new_stream(self._file, table.schema) as stream:
                stream.write_table(table)
        except OSError as error:
            raise OutputError(
                f"rejects cannot wait in a temporary file: {error.strerror or error}; free some space, or set TMPDIR to "
                "another folder"
            ) from error
        self._spilled += len(self._recent)
        self._recent, self._bytes = [], 0
