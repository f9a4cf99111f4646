"""The parameters of stages and workflows that name test sets, their checks, and the index made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from curator_core.arrow.json_column import holds_texts, only_texts
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError, check_whole
from curator_core.model.task import DocumentBatch
from curator_core.stages.files import parse_bytes
from curator_text._columns import not_text
from curator_text.decontaminate.index import TestIndex, index_of
from curator_text.decontaminate.test_sets import checked_test_sets


@dataclass(kw_only=True, eq=False, repr=False)
class TestSetParameters:
    """The test sets, and the n-grams for which documents are searched."""

    __test__ = False  # pytest must not collect this class
    maybe_paths: ClassVar[tuple[str, ...]] = ("test_sets",)

    test_sets: Mapping[str, str | Sequence[str] | Mapping[str, Any]]
    column: str = "text"
    words: int = 13
    min_words: int = 8
    memory: int | str = "1GiB"

    def check_test_sets(self) -> None:
        owner = type(self).__name__
        checked_test_sets(owner, self.test_sets)
        if not isinstance(self.column, str) or not self.column:
            raise UsageError(f"{owner}.column must be the name of a column, not {self.column!r}")
        check_whole(f"{owner}.words", self.words)
        check_whole(f"{owner}.min_words", self.min_words)
        if self.min_words > self.words:
            raise UsageError(
                f"{owner}.min_words is {self.min_words}, which is more than the {self.words} words of an n-gram"
            )
        parse_bytes(self.memory, f"{owner}.memory")

    def index(self) -> TestIndex:
        """The index of the test sets, which is made from their files once in each process."""
        if "_index" not in self.__dict__:
            sets = checked_test_sets(type(self).__name__, self.test_sets)
            memory = parse_bytes(self.memory, f"{type(self).__name__}.memory")
            object.__setattr__(self, "_index", index_of(sets, self.words, self.min_words, memory))
        made: TestIndex = self.__dict__["_index"]
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_index", "_rule")}

    def texts_in(self, batch: DocumentBatch) -> pa.ChunkedArray:
        """The texts of the column; a value that is not text becomes null and is not searched."""
        column = column_of(batch.to_pyarrow(), self.column)
        if not holds_texts(column.type):
            raise not_text(self, self.column, column.type)
        return only_texts(column)
