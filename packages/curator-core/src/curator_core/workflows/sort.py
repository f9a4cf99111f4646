"""How are all rows sorted by the values of columns, even if they do not fit in memory?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from curator_core import storage
from curator_core.across.order import SampleKeys, SortParameters, SortRead, SortWriter
from curator_core.across.shuffle import MOST_PARTITIONS, Partitions
from curator_core.errors import UsageError, check_whole
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step, Workflow
from curator_core.workflows.ends import Ends

# The size of the input for each file of the output, unless ``partitions`` gives their number.
FILE_BYTES = 64 << 20


@dataclass(kw_only=True)
class Sort(SortParameters, Ends):
    """Sorts all rows by ``columns``: by the first column, then by the next among equal rows, and so on.

    ``descending`` names the columns that are sorted from high to low. Text is sorted by code points, numbers by their
    values; NaN comes after all numbers, and null comes last, in either direction. Rows with equal values keep the order
    of the input, so the order depends on neither the number of files nor the number of workers.

    The output has up to ``partitions`` files, by default one for each 64 MiB of the input; in the order of their names
    they contain all rows in order. The data are read twice and written twice. A worker holds about three times
    ``memory``. For input and output, see `Ends`.
    """

    # The rows sorted by slot are about as large as the input.
    disk_of_input: ClassVar[float] = 1.0

    partitions: int | None = None
    memory: int | str = "128MiB"
    batch_bytes: int | str = "8MiB"

    def __post_init__(self) -> None:
        self.check_ends()
        if self.path is None and self.writer is None:
            raise UsageError("Sort needs a path to write to, or a writer")
        for name in ("columns", "descending"):
            value = getattr(self, name)
            good = isinstance(value, list | tuple) and all(isinstance(item, str) and item for item in value)
            if not good or len(set(value)) != len(value) or (name == "columns" and not value):
                raise UsageError(f"Sort.{name} must name columns, each once, not {value!r}")
        for name in self.descending:
            if name not in self.columns:
                raise UsageError(f"Sort.descending names {name!r}, which is not among the columns {self.columns!r}")
        check_whole("Sort.partitions", self.partitions, optional=True)
        self._read()  # the stage checks its own parameters

    def _read(self) -> SortRead:
        return SortRead(memory=self.memory, batch_bytes=self.batch_bytes)

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        sample, rows = storage.join(work_dir, "sample"), storage.join(work_dir, "rows")
        count = self.partitions or min(MOST_PARTITIONS, max(1, -(-self._input_bytes() // FILE_BYTES)))
        order: dict[str, Any] = {"columns": list(self.columns), "descending": list(self.descending)}
        yield Pipeline([self._reader(), SampleKeys(path=sample, **order)], name="sample")
        lay_out = SortWriter(path=rows, sample=sample, partitions=count, **order)
        yield Pipeline([self._reader(), lay_out], name="lay out")
        rows = yield from self._together(rows, count)
        writer = self._writer()
        assert writer is not None
        pipeline = Pipeline([Partitions(path=rows, empty_too=True), self._read(), writer], name="sort")
        yield Step(pipeline, frees=[work_dir], counts=True)
