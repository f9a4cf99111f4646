"""What do the columns of data contain? Types, nulls, lengths, values and tokens, from all rows or from some of each
file.

Every number is a sum over rows, and the bins of histograms are bounded by powers of two, so that memory does not grow
with the data.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from operator import length_hint
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curator_core import formatting
from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.json_column import JSON, values_of
from curator_core.config.build import build_stage
from curator_core.data.find import ID_COLUMNS
from curator_core.data.rows import Rows, place_text
from curator_core.data.values import kind_of, rows_of, text_of
from curator_core.errors import CuratorError, UsageError, nearest
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.task import DocumentBatch
from curator_core.running.preview import likely_text
from curator_core.stages.column_filter import ColumnFilter

# The number of sources to take rows from if not all rows are examined.
_SOURCES = 20
_LISTED = 100_000
# If a column has more different values than this, its values are not counted.
_VALUES = 1000
_LONGEST_VALUE = 200
# The number of documents whose language is guessed, and how much of each is examined.
LANGUAGE_ROWS = 1000
_LANGUAGE_CHARACTERS = 2000
_BYTES_OF_A_TOKEN = 4
ESTIMATED = f"estimated: bytes / {_BYTES_OF_A_TOKEN}"
# How many characters of each text in a sample are kept.
_SAMPLE_CHARACTERS = 1_000_000


class Octaves:
    """A histogram of whole numbers from 0 on, in bins from one power of two to the next."""

    def __init__(self) -> None:
        self._counts = np.zeros(65, np.int64)
        self.low: int | None = None
        self.high: int | None = None
        self.total = 0

    def add(self, values: npt.NDArray[np.int64]) -> None:
        if not len(values):
            return
        _, exponents = np.frexp(values.astype(np.float64))
        self._counts += np.bincount(np.where(values > 0, exponents, 0), minlength=65)[:65]
        low, high = int(values.min()), int(values.max())
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)
        self.total += int(values.sum())

    @property
    def rows(self) -> int:
        return int(self._counts.sum())

    @property
    def mean(self) -> float:
        return self.total / self.rows if self.rows else 0.0

    def bins(self) -> list[dict[str, int]]:
        """The bins from the first to the last one with rows; a bin includes both ``from`` and ``to``."""
        filled = np.flatnonzero(self._counts)
        if not len(filled):
            return []
        return [
            {"from": (1 << at) >> 1, "to": max(0, (1 << at) - 1), "rows": int(self._counts[at])}
            for at in range(int(filled[0]), int(filled[-1]) + 1)
        ]

    def as_dict(self) -> dict[str, Any]:
        return {"min": self.low, "max": self.high, "mean": self.mean, "total": self.total, "histogram": self.bins()}


@dataclass
class ColumnProfile:
    """The content of one column, as far as it was examined."""

    name: str
    types: dict[str, int] = field(default_factory=dict)  # rows by type, since files may differ
    rows: int = 0
    nulls: int = 0
    empty: int = 0  # empty texts, bytes and lists
    nans: int = 0
    lengths: Octaves | None = None
    length_of: str = ""
    low: Any = None
    high: Any = None
    total: float = 0.0
    values: dict[str, int] | None = field(default_factory=dict)  # None if there are too many to count

    def add(self, column: pa.ChunkedArray, kind: str) -> None:
        self.types[kind] = self.types.get(kind, 0) + len(column)
        self.rows += len(column)
        self.nulls += column.null_count
        there = column.drop_null()
        if isinstance(column.type, pa.BaseExtensionType) and column.type != JSON:
            self.values = None
            return
        if column.type == JSON:
            self._count(text_of(value) for value in values_of(there))
            return
        plain = there.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else there
        self._add_plain(plain)

    def _add_plain(self, there: pa.ChunkedArray) -> None:
        kind = there.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            self._add_lengths(pc.utf8_length(there), "characters")
            self._count(there.to_pylist() if self._counts_values(there) else None)
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
            self._add_lengths(pc.binary_length(there), "bytes")
            self.values = None
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            self._add_lengths(pc.list_value_length(there), "items")
            self.values = None
        elif pa.types.is_boolean(kind):
            self._count("true" if value else "false" for value in there.to_pylist())
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            self._add_numbers(there)
        elif pa.types.is_struct(kind) or pa.types.is_map(kind):
            self.values = None
        else:  # dates, times, decimals: types with an order
            self._bound(there)
            self._count(map(str, there.to_pylist()) if self._counts_values(there) else None)

    def _add_lengths(self, lengths: pa.ChunkedArray, of: str) -> None:
        self.length_of = of
        self.lengths = self.lengths or Octaves()
        found = to_numpy(lengths.combine_chunks()).astype(np.int64)
        self.empty += int((found == 0).sum())
        self.lengths.add(found)

    def _add_numbers(self, there: pa.ChunkedArray) -> None:
        if pa.types.is_floating(there.type):
            nan = pc.is_nan(there)
            self.nans += pc.sum(nan).as_py() or 0
            there = there.filter(pc.invert(nan))
        self._bound(there)
        self.total += pc.sum(there.cast(pa.float64())).as_py() or 0.0
        self._count(map(str, there.to_pylist()) if self._counts_values(there) else None)

    def _bound(self, there: pa.ChunkedArray) -> None:
        ends = pc.min_max(there).as_py()
        if ends["min"] is not None:
            self.low = ends["min"] if self.low is None else min(self.low, ends["min"])
            self.high = ends["max"] if self.high is None else max(self.high, ends["max"])

    def _counts_values(self, there: pa.ChunkedArray) -> bool:
        """Whether the column may have few enough different values to count."""
        return self.values is not None and pc.count_distinct(there).as_py() <= _VALUES

    def _count(self, texts: Any) -> None:
        if self.values is None:
            return
        if texts is None:
            self.values = None
            return
        for text in texts:
            if len(text) > _LONGEST_VALUE:
                self.values = None
                return
            self.values[text] = self.values.get(text, 0) + 1
            if len(self.values) > _VALUES:
                self.values = None
                return

    @property
    def mean(self) -> float | None:
        numbers = self.rows - self.nulls - self.nans
        return self.total / numbers if numbers and isinstance(self.low, int | float) else None

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": self.name,
            "types": self.types,
            "rows": self.rows,
            "nulls": self.nulls,
            "null_share": self.nulls / self.rows if self.rows else 0.0,
        }
        if self.lengths is not None:
            found |= {"empty": self.empty, "length": {"of": self.length_of, **self.lengths.as_dict()}}
        if self.low is not None:
            found |= {"min": self.low, "max": self.high, "mean": self.mean, "nans": self.nans}
        if self.values is not None:
            top = sorted(self.values.items(), key=lambda item: (-item[1], item[0]))[:10]
            found["values"] = {"distinct": len(self.values), "top": [{"value": v, "rows": n} for v, n in top]}
        return found


@dataclass
class Profile:
    """The result of examining data."""

    rows: int = 0
    sources: int = 0  # the number of sources that were examined
    all_sources: int | None = None  # the number of all sources; None if it is unknown
    complete: bool = False  # whether every row was examined
    columns: dict[str, ColumnProfile] = field(default_factory=dict)
    text_column: str | None = None
    tokens: Octaves = field(default_factory=Octaves)
    counted_by: str = ESTIMATED
    languages: dict[str, int] = field(default_factory=dict)
    no_language: str = ""  # why no language was guessed
    samples: list[dict[str, Any]] = field(default_factory=list)


def make_profile(
    rows: Rows,
    wanted: int | None,
    *,
    samples: int = 3,
    text_column: str | None = None,
    tokenizer: str | None = None,
) -> Profile:
    """Examine ``wanted`` rows, taken from sources all over the data, or all rows if it is None."""
    return _Look(rows, wanted, samples, text_column, tokenizer).profile()


class _Look:
    def __init__(
        self, rows: Rows, wanted: int | None, samples: int, text_column: str | None, tokenizer: str | None
    ) -> None:
        self.rows = rows
        self.wanted = wanted
        self.samples = samples
        self.given_text = text_column
        self._met_all = True
        self.found = Profile(text_column=text_column)
        self.counter: ColumnFilter | None = None
        self.tokenizer = tokenizer
        # Random numbers for sampling rows; the same data always give the same rows.
        self.random = np.random.default_rng(0)
        self.best: list[tuple[float, int, dict[str, Any]]] = []
        self.texts: list[tuple[float, str]] = []  # the texts with the smallest random numbers

    def profile(self) -> Profile:
        found = self.found
        whole = True
        chosen, per_source = self._chosen()
        for source in chosen:
            found.sources += 1
            left = per_source
            for batch in self.rows.batches(source):
                if left is not None and batch.num_rows > left:
                    whole = False
                    self._add(batch, left)
                    left = 0
                    break
                self._add(batch, batch.num_rows)
                left = None if left is None else left - batch.num_rows
        found.complete = whole and found.sources == (found.all_sources or found.sources) and self._met_all
        self._guess_languages()
        found.samples = [row for _, _, row in sorted(self.best, key=lambda item: -item[0])]
        return found

    def _chosen(self) -> tuple[Iterator[Any], int | None]:
        """The sources to examine, and the number of rows to take from each."""
        sources = self.rows.sources()
        count = length_hint(sources, 0)
        if not count:  # the reader does not know the number of sources
            first = list(islice(sources, _LISTED))
            count = len(first) if len(first) < _LISTED else 0
            sources = chain(first, sources)
        self.found.all_sources = count or None
        if self.wanted is None:
            return sources, None
        if not count:
            self._met_all = False
            return islice(sources, _SOURCES), -(-self.wanted // _SOURCES)
        taken = min(count, _SOURCES, self.wanted)
        places = {number * count // taken for number in range(taken)}
        return (source for number, source in enumerate(sources) if number in places), -(-self.wanted // taken)

    def _add(self, batch: DocumentBatch, rows: int) -> None:
        found = self.found
        table = batch.to_pyarrow().slice(0, rows)
        found.rows += table.num_rows
        for column in table.schema:
            profile = found.columns.setdefault(column.name, ColumnProfile(column.name, rows=0))
            profile.add(table.column(column.name), kind_of(column))
        numbers = self.random.random(table.num_rows)
        self._add_text(table, numbers)
        self._sample(batch, table, numbers.tolist())

    def _add_text(self, table: pa.Table, numbers: npt.NDArray[np.float64]) -> None:
        if not table.num_rows:
            return
        found = self.found
        if self.given_text is not None and self.given_text not in table.column_names:
            raise UsageError(
                f"there is no column {self.given_text!r}{nearest(self.given_text, table.column_names) or ':'} the columns are "
                f"{', '.join(table.column_names)}"
            )
        texts_alone = [column for column in table.column_names if column not in ID_COLUMNS]
        name = found.text_column = found.text_column or likely_text([table.select(texts_alone)])
        if name is None or name not in table.column_names:
            return
        texts = table.column(name)
        if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
            if self.given_text is not None:
                raise UsageError(f"the column {name!r} holds {texts.type}, not text")
            return
        there = np.flatnonzero(to_numpy(texts.is_valid().combine_chunks()))
        texts = texts.drop_null()
        if self.tokenizer is None:
            length = to_numpy(pc.binary_length(texts).combine_chunks()).astype(np.int64)
            found.tokens.add(-(-length // _BYTES_OF_A_TOKEN))
        else:
            found.tokens.add(self._tokens(texts))
        last = self.texts[-1][0] if len(self.texts) == LANGUAGE_ROWS else 1.0
        for at in np.flatnonzero(numbers[there] < last).tolist():
            self.texts.append((float(numbers[there[at]]), texts[at].as_py()[:_LANGUAGE_CHARACTERS]))
        self.texts = sorted(self.texts)[:LANGUAGE_ROWS]

    def _tokens(self, texts: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        if self.counter is None:
            self.counter = _filter("TokenCountFilter", {"tokenizer": self.tokenizer})
            self.found.counted_by = str(self.tokenizer)
        return to_numpy(self.counter.score(texts)).astype(np.int64)

    def _sample(self, batch: DocumentBatch, table: pa.Table, numbers: Sequence[float]) -> None:
        for row, number in enumerate(numbers):
            if len(self.best) < self.samples or (self.best and -number > self.best[0][0]):
                source, position = place_text(batch, row)
                values = {name: _short(value) for name, value in rows_of(table.slice(row, 1))[0].items()}
                kept = {"source": source, "position": position, "columns": values}
                # The rows with the smallest numbers are kept in a heap, with the largest of them in front.
                entry = (-number, self.found.rows - table.num_rows + row, kept)
                if len(self.best) < self.samples:
                    heapq.heappush(self.best, entry)
                else:
                    heapq.heapreplace(self.best, entry)

    def _guess_languages(self) -> None:
        found = self.found
        if not self.texts:
            found.no_language = "there is no text"
            return
        try:
            guess = _filter("LanguageFilter", {"languages": None, "min_score": 0.0})
            scores = guess.score(array([text for _, text in self.texts], pa.string()))
        except CuratorError as error:
            missing = 'pip install "curator-text[language]"'
            found.no_language = f"it needs {missing}" if "there is no stage" in str(error) else str(error)
            return
        for value in pc.struct_field(scores, "language").value_counts().to_pylist():
            found.languages[value["values"] or "none"] = value["counts"]


def _filter(name: str, params: Mapping[str, Any]) -> ColumnFilter:
    stage = build_stage(name, params)
    assert isinstance(stage, ColumnFilter)
    stage.setup(WorkerMetadata())
    return stage


def _short(value: Any) -> Any:
    """A value as it is stored in a sample, with bounded length."""
    if isinstance(value, bytes):
        return value if len(value) <= 1 << 16 else text_of(value)
    if isinstance(value, str):
        return value if len(value) <= _SAMPLE_CHARACTERS else f"{value[:_SAMPLE_CHARACTERS]}…"
    if isinstance(value, list | dict):
        text = text_of(value)
        return value if len(text) <= _SAMPLE_CHARACTERS else f"{text[:_SAMPLE_CHARACTERS]}…"
    return value


def profile_lines(found: Profile, width: int) -> Sequence[str]:
    """A profile as lines of text: how much was examined, the columns, lengths and tokens of the text, languages."""
    lines = [_looked_at(found)]
    if not found.columns:
        return lines
    lines.append("")
    names = {name: formatting.cut(formatting.printable(name), 28) for name in found.columns}
    table = [("column", "type", "null", "")]
    table += [(names[name], _types(c), _null(c), _holds(c)) for name, c in found.columns.items()]
    widths = [max(len(row[at]) for row in table) for at in range(3)]
    for name, kind, null, holds in table:
        line = f"  {name:<{widths[0]}}  {kind:<{widths[1]}}  {null:>{widths[2]}}  {holds}"
        lines.append(formatting.cut(line, width).rstrip())
    profile = found.columns.get(found.text_column or "")
    if profile is not None and profile.lengths is not None:
        name = formatting.printable(profile.name)
        lines += ["", f"characters of {name!r}: {_range(profile.lengths)}", *_bars(profile.lengths)]
        lines += ["", f"tokens of {name!r} ({found.counted_by}): {_range(found.tokens)}", *_bars(found.tokens)]
        if found.languages:
            rows = sum(found.languages.values())
            top = sorted(found.languages.items(), key=lambda item: (-item[1], item[0]))
            shown = ", ".join(f"{code} {formatting.percent(n, rows)}" for code, n in top[:8])
            more = f", and {formatting.count(len(top) - 8, 'other')}" if len(top) > 8 else ""
            lines += ["", f"languages, detected in {formatting.count(rows, 'text')}: {shown}{more}"]
        elif found.no_language:
            lines += ["", f"languages: not detected, {formatting.printable(found.no_language)}"]
    return lines


def _looked_at(found: Profile) -> str:
    rows = formatting.count(found.rows, "row")
    if not found.rows:
        return "there are no rows"
    if found.complete:
        return f"read all {rows}" if found.rows != 1 else "read the one row"
    of = f" of {found.all_sources:,}" if found.all_sources else ""
    return (
        f"read {rows}, the first of {found.sources:,}{of} sources spread evenly over the data; the shares are "
        "estimates, and --all reads every row"
    )


def _types(column: ColumnProfile) -> str:
    kinds = [kind for kind in column.types if kind != "null"] or list(column.types)
    return formatting.cut(" or ".join(kinds), 32)


def _null(column: ColumnProfile) -> str:
    return formatting.percent(column.nulls, column.rows) if column.nulls else ""


def _holds(column: ColumnProfile) -> str:
    parts = []
    if column.low is not None:
        mean = column.mean
        parts.append(
            f"{_value(column.low)} to {_value(column.high)}" + ("" if mean is None else f", mean {_value(mean)}")
        )
    if column.nans:
        parts.append(f"{column.nans:,} NaN")
    if column.lengths is not None and column.lengths.rows:
        parts.append(f"{_range(column.lengths)} {column.length_of}")
    if column.empty:
        parts.append(f"{column.empty:,} empty")
    if column.values:
        top = sorted(column.values.items(), key=lambda item: (-item[1], item[0]))
        if len(top) == column.rows - column.nulls - column.nans and len(top) > 3:
            parts.append("all different")
        else:
            shown = ", ".join(f"{formatting.cut(formatting.printable(text), 24)!r} {n:,}" for text, n in top[:3])
            parts.append(f"{formatting.count(len(top), 'value')}: {shown}{', …' if len(top) > 3 else ''}")
    return "; ".join(parts)


def _value(value: Any) -> str:
    return formatting.number(value) if isinstance(value, int | float) else str(value)


def _range(lengths: Octaves) -> str:
    if not lengths.rows:
        return "none"
    if lengths.low == lengths.high:
        return f"{lengths.low:,}"
    return f"{lengths.low:,} to {lengths.high:,}, mean {formatting.number(round(lengths.mean, 1))}"


def _bars(lengths: Octaves, width: int = 40) -> list[str]:
    bins = lengths.bins()
    most = max((entry["rows"] for entry in bins), default=0)
    labels = [f"{e['from']:,}" if e["from"] == e["to"] else f"{e['from']:,} to {e['to']:,}" for e in bins]
    room = max(map(len, labels), default=0)
    counts = [f"{entry['rows']:,}" for entry in bins]
    wide = max(map(len, counts), default=0)
    return [
        f"  {label:>{room}}  {count:>{wide}}  {'█' * max(bool(e['rows']), round(width * e['rows'] / most))}".rstrip()
        for label, count, e in zip(labels, counts, bins, strict=True)
    ]
