"""Turns HTML pages into text; no page can end a run or delay it for long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array
from curator_core.errors import MissingDependency, UsageError, check_free, check_whole
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_text._columns import check_different
from curator_text.extract._engines import DETAILS, ENGINES
from curator_text.extract._guard import Answer, GuardedProcess

_RAW_KEPT = 1 << 16


@dataclass(kw_only=True)
class HtmlExtractor(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Turns the pages in ``column`` (bytes or text) into plain text, with title, language and share of links.

    ``engine`` is ``resiliparse`` (fast), ``trafilatura`` or ``justext`` (slower and stricter; they need the extra
    ``extract``). ``main_content`` leaves out menus, footers and similar parts. ``charset_column`` names a column with
    the encoding that the server declared. Without it, valid UTF-8 is read as UTF-8, and any other encoding is detected
    from the bytes. The language is resiliparse's quick guess from the first 2,000 characters of the text.

    Pages are extracted in a separate process. A page that takes more than ``timeout_s`` or ``memory_mb``, or that the
    engine cannot read, is set aside; content that is neither HTML nor text is dropped as ``not HTML``. The column with
    the page is removed unless ``keep_content`` is set.
    """

    column: str = "content"
    text_column: str = "text"
    title_column: str | None = "title"
    language_column: str | None = "language"
    link_ratio_column: str | None = "link_ratio"
    charset_column: str | None = None
    engine: str = "resiliparse"
    main_content: bool = True
    keep_content: bool = False
    timeout_s: float = 10.0
    memory_mb: int = 1024

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError(f"HtmlExtractor.engine must be one of {', '.join(ENGINES)}, not {self.engine!r}")
        if not isinstance(self.timeout_s, int | float) or not 0 < self.timeout_s < math.inf:
            raise UsageError(f"HtmlExtractor.timeout_s must be more than 0 seconds, not {self.timeout_s!r}")
        check_whole("HtmlExtractor.memory_mb", self.memory_mb, least=64)
        check_different(self, *([self.column] if self.keep_content else []), *self.outputs())
        self._guard: GuardedProcess | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_guard": None}

    def inputs(self) -> list[str]:
        return [self.column, *([self.charset_column] if self.charset_column else [])]

    def outputs(self) -> list[str]:
        names = [self.text_column, self.title_column, self.language_column, self.link_ratio_column]
        return [name for name in names if name]

    def removes(self) -> list[str]:
        return [] if self.keep_content or self.column in self.outputs() else [self.column]

    def setup(self, worker: WorkerMetadata) -> None:
        if find_spec(self.engine) is None:
            extra = "" if self.engine == "resiliparse" else "[extract]"
            raise MissingDependency(f'{self.engine} is not installed: pip install "curator-text{extra}"')
        columns = zip(DETAILS, (self.title_column, self.language_column, self.link_ratio_column), strict=True)
        wanted = ",".join(detail for detail, column in columns if column)
        arguments = [self.engine, str(int(self.main_content)), wanted, str(self.memory_mb << 20)]
        self._guard = GuardedProcess(arguments, self.timeout_s)

    def teardown(self) -> None:
        if self._guard is not None:
            self._guard.close()

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self._guard is None:
            self.setup(WorkerMetadata())
        assert self._guard is not None
        table = task.to_pyarrow()
        check_free(type(self).__name__, (name for name in table.column_names if name != self.column), self.outputs())
        contents = _as_bytes(table[self.column])
        charsets: list[str | None] = [None] * len(contents)
        if self.charset_column:
            charsets = table[self.charset_column].to_pylist()
        pages = [(row, content) for row, content in enumerate(contents) if content is not None]
        found = [Answer(None)] * len(contents)
        kept = [True] * len(contents)
        answers = self._guard.answers([(content, charsets[row]) for row, content in pages])
        for (row, content), answer in zip(pages, answers, strict=True):
            if answer.reason is None:
                found[row] = answer
                continue
            kept[row] = False
            if answer.reason == b"not HTML":
                self.record_dropped("not HTML", which=row)
                continue
            self.record_rejected(
                answer.reason.decode(),
                source=task.task_id,
                position=_label(table, row),
                message=(answer.text or b"").decode(),
                raw=content[:_RAW_KEPT],
            )
        columns = {
            self.text_column: _texts([answer.text for answer in found]),
            self.title_column: _texts([answer.title for answer in found]),
            self.language_column: _texts([answer.language for answer in found]),
            self.link_ratio_column: array([answer.link_ratio for answer in found], pa.float64()),
        }
        if self.removes():
            table = table.drop_columns([self.column])
        for name, values in columns.items():
            if name is None:
                continue
            at = table.column_names.index(name) if name in table.column_names else -1
            table = table.set_column(at, name, values) if at >= 0 else table.append_column(name, values)
        return task.with_data(table if all(kept) else table.filter(array(kept)))


def _as_bytes(column: pa.ChunkedArray) -> list[bytes | None]:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.cast(column, pa.large_binary())
    elif not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise UsageError(f"HtmlExtractor reads bytes or text, but the column is {column.type}")
    values: list[bytes | None] = column.to_pylist()
    return values


def _texts(values: list[bytes | None]) -> pa.Array:
    return array(values, pa.binary()).cast(pa.string())


def _label(table: pa.Table, row: int) -> str:
    """Describe the place of a page."""
    for name in ("url", "id", "path"):
        if name in table.column_names:
            return f"row {row}, {name} {table[name][row].as_py()}"
    return f"row {row}"
