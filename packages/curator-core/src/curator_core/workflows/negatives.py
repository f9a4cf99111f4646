"""Which hard negatives do pairs of query and passage have for training retrieval? Passages that are near to a query
without answering it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from curator_core import storage
from curator_core.across.negatives import MineNegatives, MineParameters, WritePassages, WriteQueries
from curator_core.across.shuffle import Partitions
from curator_core.errors import UsageError, check_whole
from curator_core.model.stage import ProcessingStage
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step, Workflow
from curator_core.workflows.ends import Ends
from curator_core.workflows.formats import reader_of
from curator_core.workflows.pieces import pieces_of

_PIECES_IN_ONE = 8


@dataclass(kw_only=True)
class HardNegatives(MineParameters, Ends):
    """Finds for each pair of a query and a passage the nearest passages that do not answer the query.

    The input contains pairs: ``query_column`` and ``passage_column`` with their vectors ``query_vector`` and
    ``passage_vector``. Negatives are taken from all passages of the input, and from ``corpus``, files with the two
    columns of passages. A passage that any row pairs with the same query is not a negative of it, nor is one that says
    nearly the same (``eps``).

    The output has the columns ``anchor``, ``positive`` and ``negative_1`` to ``negative_N`` (``form`` ``tuple``), or a
    row for each negative (``triplet``), in the order that sentence-transformers expects; with ``scores`` it also has
    the cosines.
    """

    disk_of_input = 1.0

    query_column: str = "query"
    passage_column: str = "passage"
    query_vector: str = "query_embedding"
    passage_vector: str = "passage_embedding"
    corpus: str | list[str] | None = None
    partitions: int | None = None

    def __post_init__(self) -> None:
        self.check_ends()
        self.check_mining()
        check_whole("HardNegatives.partitions", self.partitions, optional=True)
        for name in ("query_column", "passage_column", "query_vector", "passage_vector"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise UsageError(f"HardNegatives.{name} must be the name of a column, not {value!r}")
        if self.path is None and self.writer is None:
            raise UsageError("HardNegatives must write its results: give a path or a writer")
        if self.corpus is not None and self.paths is None:
            raise UsageError("HardNegatives.corpus needs paths: with a reader, its rows are the passages")

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        queries, passages = (storage.join(work_dir, name) for name in ("queries", "passages"))
        count = self.partitions or pieces_of(self._input_bytes())
        columns = {"column": self.passage_column, "vector_column": self.passage_vector}
        write = WritePassages(**columns, path=passages, partitions=count)
        yield Pipeline([self._all_passages(), write], name="passages")
        ask = WriteQueries(
            path=queries,
            query_column=self.query_column,
            passage_column=self.passage_column,
            query_vector=self.query_vector,
            passage_vector=self.passage_vector,
            # There are fewer of these than partitions of passages, since all passages are read for each of them.
            partitions=self.partitions or pieces_of(self._input_bytes(), _PIECES_IN_ONE),
        )
        yield Pipeline([self._reader(), ask], name="queries")
        how: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(MineParameters)}
        writer = self._writer()
        assert writer is not None  # the input was checked at the beginning
        mine = MineNegatives(**how, passages=passages)
        yield Step(Pipeline([Partitions(path=queries), mine, writer], name="mine"), frees=[work_dir], counts=True)

    def _all_passages(self) -> ProcessingStage[Any, Any]:
        if self.corpus is None or self.paths is None:
            return self._reader()
        pairs, more = ([given] if isinstance(given, str) else list(given) for given in (self.paths, self.corpus))
        return reader_of([*pairs, *more], self._format(), type(self).__name__)
