"""Which passages are near to a query without being an answer to it? An exact search in blocks, with the same result on
every machine.

Products of whole numbers (see `curator_core.across.vectors`) find the passages that may be among the nearest. Cosines
in float64, computed in a fixed order, then decide. Passages are sorted by the hash of their text, so the same text
counts once, and the result does not depend on the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.alike import mixed
from curator_core.across.digests import digests
from curator_core.across.lacking import Lacking, row_namer
from curator_core.across.products import MultipliesVectors, Products, products_for
from curator_core.across.shuffle import (
    MANIFEST,
    PLACE,
    Manifest,
    finish_partitioned,
    partition_pieces,
    partition_tables,
    read_manifest,
    require_complete,
    write_partitioned,
)
from curator_core.across.vectors import Vectors, Whole, cosines, packed, unpacked, vectors_of
from curator_core.arrow.arrays import array, distinct, ranges_within, to_numpy
from curator_core.arrow.json_column import JSON, texts_in
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError, check_whole
from curator_core.formatting import count
from curator_core.model.stage import FanOut, ProcessingStage
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord

Sampling = Literal["top", "random"]
Form = Literal["tuple", "triplet"]
_VECTOR, _PASSAGE_VECTOR = "vector", "passage_vector"
# The metadata key under which a file lists the rows of its batch that are left out.
_LACKING = b"curator.lacking"
_NO_PAIR = "no vector or no text"
type _Places = Sequence[tuple[Manifest, int]]

# The number of queries and of passages in a block; their products take 32 MiB.
_QUERIES, _PASSAGES = 512, 1 << 14
# The memory for pairs and their nearest passages. All passages are read once for as many pairs as fit in it.
_HELD_BYTES = 1 << 27
_FOUND_BYTES = 48


@dataclass(kw_only=True)
class WritePassages(ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes each passage of a batch with its vector, sorted by the hash of its text."""

    path: str
    column: str
    vector_column: str
    partitions: int = 32

    def inputs(self) -> list[str]:
        return [self.column, self.vector_column]

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def process(self, task: DocumentBatch) -> FileGroupTask:
        table = task.to_pyarrow()
        texts, values = _texts_in(table, self.column), column_of(table, self.vector_column)
        found = digests(texts)
        name = row_namer(task)
        vectors, rows = vectors_of(values, f"the column {self.vector_column!r}", name)
        lacking = Lacking.of(values, vectors, rows, name)
        present = found.present[rows]
        if len(present) < task.num_rows or not present.all():
            self.record_metric("no_vector_or_no_text", task.num_rows - int(present.sum()))
        rows, vectors = rows[present], vectors[present]
        made = pa.table(
            {
                "low": array(found.low[rows]),
                "text": texts.cast(pa.large_string()).take(array(rows)),
                _VECTOR: packed(vectors),
            }
        ).replace_schema_metadata({_LACKING: json.dumps([lacking.note(), _counted(~found.present, name)])})
        path = storage.join(self.path, f"{task.task_id or 'batch'}.arrow")
        self.record_output(write_partitioned(path, made, found.high[rows], self.partitions))
        return FileGroupTask(data=[path], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        notes = [_lacking_in(record) for record in outputs]
        self._lacking = Lacking.added((note for note, _ in notes), f"the column {self.vector_column!r}")
        self._no_text = _summed(note for _, note in notes)
        finish_partitioned(self.path, outputs)

    def conclusion(self) -> str:
        rows, first = self._no_text
        have, are = ("has", "is no negative") if rows == 1 else ("have", "are no negatives")
        no_text = f"{count(rows, 'row')} {have} no text in {self.column!r} and {are} (first: {first})" if rows else ""
        no_vector = self._lacking.text(self.vector_column, "is no negative", "are no negatives")
        return "\n".join(filter(None, (no_vector, no_text)))


@dataclass(kw_only=True)
class WriteQueries(ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes each pair of a query and its passage with both vectors, sorted by the hash of the query.

    A pair without a text or a vector is dropped.
    """

    path: str
    query_column: str
    passage_column: str
    query_vector: str
    passage_vector: str
    partitions: int = 32

    def inputs(self) -> list[str]:
        return [self.query_column, self.passage_column, self.query_vector, self.passage_vector]

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def process(self, task: DocumentBatch) -> FileGroupTask:
        table = task.to_pyarrow()
        queries, passages = (_texts_in(table, name) for name in (self.query_column, self.passage_column))
        asked, given = digests(queries), digests(passages)
        name = row_namer(task)
        vectors, rows = vectors_of(column_of(table, self.query_vector), f"the column {self.query_vector!r}", name)
        theirs, their_rows = vectors_of(
            column_of(table, self.passage_vector), f"the column {self.passage_vector!r}", name
        )
        if len(rows) and len(their_rows) and vectors.shape[1] != theirs.shape[1]:
            raise UsageError(
                f"the vectors of {self.query_vector!r} have {vectors.shape[1]} numbers and those of "
                f"{self.passage_vector!r} {theirs.shape[1]}: both must come from one model"
            )
        whole = np.intersect1d(np.intersect1d(rows, their_rows), np.flatnonzero(asked.present & given.present))
        left_out = np.ones(task.num_rows, np.bool_)
        left_out[whole] = False
        self.record_dropped(_NO_PAIR, int(left_out.sum()), which=np.flatnonzero(left_out))
        note = _counted(left_out, name)
        chosen = array(whole)
        made = pa.table(
            {
                "low": array(asked.low[whole]),
                "query": queries.cast(pa.large_string()).take(chosen),
                "passage": passages.cast(pa.large_string()).take(chosen),
                "passage_high": array(given.high[whole]),
                "passage_low": array(given.low[whole]),
                _VECTOR: packed(vectors[np.searchsorted(rows, whole)]),
                _PASSAGE_VECTOR: packed(theirs[np.searchsorted(their_rows, whole)]),
            }
        ).replace_schema_metadata({_LACKING: json.dumps(note)})
        path = storage.join(self.path, f"{task.task_id or 'batch'}.arrow")
        self.record_output(write_partitioned(path, made, asked.high[whole], self.partitions))
        return FileGroupTask(data=[path], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        self._dropped = _summed(map(_lacking_in, outputs))
        finish_partitioned(self.path, outputs)

    def conclusion(self) -> str:
        rows, first = self._dropped
        columns = ", ".join(map(repr, self.inputs()))
        return f"{count(rows, 'pair')} dropped: {_NO_PAIR} in one of {columns} (first: {first})" if rows else ""


def _texts_in(table: pa.Table, name: str) -> pa.ChunkedArray:
    """The column of texts; null where a column of mixed values holds something else."""
    column = column_of(table, name)
    return texts_in(column)[0] if column.type == JSON else column


def _counted(rows: NDArray[np.bool_], name: Callable[[int], str]) -> tuple[int, str]:
    """How many rows there are, and the name of the first."""
    found = np.flatnonzero(rows)
    return len(found), name(int(found[0])) if len(found) else ""


def _summed(counts: Iterable[tuple[int, str]]) -> tuple[int, str]:
    """The sum of such counts, and the name of the first row of all."""
    there = [(rows, first) for rows, first in counts if rows]
    return sum(rows for rows, _ in there), there[0][1] if there else ""


def _lacking_in(record: FileRecord) -> Any:
    """The rows of its batch that a file lists as left out."""
    with storage.open_input(record.path) as stream, pa.ipc.open_file(stream) as file:
        return json.loads(file.schema.metadata[_LACKING])


@dataclass(kw_only=True)
class MineParameters:
    """The parameters that say which passages are hard negatives of a query.

    The passages that are not positives of the query are ranked from 1, the nearest; those from ``first_rank`` to
    ``last_rank`` are examined. The cosine of query and negative must be lower than that of query and positive by at
    least ``margin``, and at most ``ratio`` times as high. A passage with a cosine of 1 - ``eps`` or more with a
    positive says the same, so it is not a negative. Of the remaining passages ``negatives`` are taken: the nearest ones
    (``top``), or ``random`` ones by ``seed``.
    """

    negatives: int = 5
    first_rank: int = 1
    last_rank: int = 100
    margin: float = 0.0
    ratio: float | None = None
    eps: float = 0.05
    sampling: Sampling = "top"
    seed: int = 0
    form: Form = "tuple"
    scores: bool = False

    def check_mining(self) -> None:
        """Raise `UsageError` if a value makes no sense."""
        owner = type(self).__name__
        for name in ("negatives", "first_rank", "last_rank"):
            check_whole(f"{owner}.{name}", getattr(self, name))
        check_whole(f"{owner}.seed", self.seed, least=0)
        if self.last_rank - self.first_rank + 1 < self.negatives:
            raise UsageError(
                f"{owner}: between first_rank {self.first_rank} and last_rank {self.last_rank} there are fewer than "
                f"{self.negatives} negatives: raise last_rank"
            )
        for name, allowed in (("margin", (-2, 2)), ("ratio", (0, 1)), ("eps", (0, 2))):
            value = getattr(self, name)
            if value is None and name == "ratio":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not allowed[0] <= value <= allowed[1]:
                raise UsageError(f"{owner}.{name} must be a number from {allowed[0]} to {allowed[1]}, not {value!r}")
        if self.sampling not in ("top", "random"):
            raise UsageError(f"{owner}.sampling must be 'top' or 'random', not {self.sampling!r}")
        if self.form not in ("tuple", "triplet"):
            raise UsageError(f"{owner}.form must be 'tuple' or 'triplet', not {self.form!r}")


@dataclass(slots=True)
class _Found:
    """Candidates: for each its pair, its passage (a place and a row there), and the passage's cosines with the query
    and with the nearest positive of the query.
    """

    pair: NDArray[np.int64]
    place: NDArray[np.int64]
    row: NDArray[np.int64]
    high: NDArray[np.uint64]
    cosine: NDArray[np.float64]
    to_positive: NDArray[np.float64]

    def take(self, at: NDArray[np.int64]) -> _Found:
        return _Found(*(getattr(self, name)[at] for name in self.__slots__))

    @classmethod
    def joined(cls, parts: Sequence[_Found]) -> _Found:
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class _Block:
    """Different passages: their vectors, the whole numbers on the device that multiplies them, both halves of their
    hashes, and the place and the row that each comes from.
    """

    vectors: Vectors
    whole: Whole
    put: Any
    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    place: NDArray[np.int64]
    row: NDArray[np.int64]


class _Search:
    """Finds for each pair the ``last_rank`` nearest passages that are not positives of its query. ``best`` holds those
    of the blocks examined so far, the nearest first.
    """

    def __init__(self, pairs: pa.Table, last_rank: int, products: Products) -> None:
        self.pairs, self.last_rank, self._products = pairs, last_rank, products
        self.queries, self.positives = unpacked(pairs[_VECTOR]), unpacked(pairs[_PASSAGE_VECTOR])
        self._whole = Whole.of(self.queries)
        self._numbers = products.put(self._whole.numbers)
        self._group = _groups(to_numpy(pairs["place"]), to_numpy(pairs["low"]))
        group = self._group
        self._own = distinct(_marks(group, to_numpy(pairs["passage_high"]), to_numpy(pairs["passage_low"])))
        self._begins = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
        self._ends = np.append(self._begins[1:], len(group))
        self._most_own = int((self._ends - self._begins).max())
        self._least = np.full(len(group), -np.inf)  # passages with a lower cosine are not among the nearest
        none = np.zeros(0, np.int64)
        self.best = _Found(none, none, none, np.zeros(0, np.uint64), np.zeros(0), np.zeros(0))

    def look_at(self, block: _Block) -> None:
        """Examine a block."""
        passages = block.whole
        scale = self._whole.scale * passages.scale
        wrong = 2 * (self._whole.error + passages.error) * scale
        # Among this many passages with the highest products, at least last_rank are not positives.
        enough = self.last_rank + self._most_own
        by_rank = np.isinf(self._least).any() and enough < len(passages.numbers)
        limits = self._least * scale - wrong
        pair, column = self._products.near(self._numbers, block.put, limits, enough if by_rank else 0, wrong)
        keep = ~np.isin(_marks(self._group[pair], block.high[column], block.low[column]), self._own)
        pair, column = pair[keep], column[keep]
        cosine = cosines(self.queries, block.vectors, pair, column)
        keep = cosine >= self._least[pair]
        pair, column, cosine = pair[keep], column[keep], cosine[keep]
        # Only the best of the block so far are compared with positives.
        order = np.lexsort((block.high[column], -cosine, pair))
        order = order[_ranks(pair[order]) < self.last_rank]
        pair, column, cosine = pair[order], column[order], cosine[order]
        if not len(pair):
            return
        near = _nearest_positive(self._group[pair], block.vectors, column, self.positives, self._begins, self._ends)
        new = _Found(pair, block.place[column], block.row[column], block.high[column], cosine, near)
        best = _Found.joined([self.best, new])
        best = best.take(np.lexsort((best.high, -best.cosine, best.pair)))
        self.best = best.take(np.flatnonzero(_ranks(best.pair) < self.last_rank))
        full = np.flatnonzero(_ranks(self.best.pair) == self.last_rank - 1)
        self._least[self.best.pair[full]] = self.best.cosine[full]


@dataclass(kw_only=True)
class MineNegatives(MineParameters, MultipliesVectors, FanOut[FileGroupTask, DocumentBatch]):
    """Finds hard negatives for the pairs of a partition among all passages in the folder ``passages``."""

    passages: str

    def __post_init__(self) -> None:
        self.check_mining()

    def outputs(self) -> list[str]:
        return list(self._schema().names)

    def setup(self, worker: Any) -> None:
        self._manifest = read_manifest(require_complete(self.passages))
        self._products = products_for(self.resources, self.name)

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        table = pa.concat_tables([piece for _, piece in partition_pieces(task)]).combine_chunks()
        names = ("place", "low", "passage_high", "passage_low")
        order = np.lexsort([to_numpy(table[name]) for name in names][::-1])
        table = table.take(array(order)).combine_chunks()
        manifest = self._manifest
        places = [(manifest, partition) for partition in np.flatnonzero(manifest.rows).tolist()]
        bytes_each = (2 * unpacked(table[_VECTOR].slice(0, 1)).shape[1] * 4) + 2 * self.last_rank * _FOUND_BYTES
        held = max(_QUERIES, _HELD_BYTES // bytes_each)
        for start, stop in _cuts(table, held):
            yield from self._mined(task, table.slice(start, stop - start), places)

    def _mined(self, task: FileGroupTask, pairs: pa.Table, places: _Places) -> Iterator[DocumentBatch]:
        searches = [
            _Search(pairs.slice(start, stop - start), self.last_rank, self._products)
            for start, stop in _cuts(pairs, _QUERIES)
        ]
        for block in _blocks(places, self._products):
            for search in searches:
                search.look_at(block)
        asked = [cosines(search.queries, search.positives) for search in searches]
        found = [self._hard(search, towards) for search, towards in zip(searches, asked, strict=True)]
        texts = _texts(places, _Found.joined(found))  # for all pairs at once, since each search reads all passages
        first = 0
        for search, towards, mine in zip(searches, asked, found, strict=True):
            table = self._table(search.pairs, towards, mine, texts.slice(first, len(mine.pair)))
            first += len(mine.pair)
            yield DocumentBatch(data=table, dataset_name=task.dataset_name)

    def _hard(self, search: _Search, asked: NDArray[np.float64]) -> _Found:
        """The hard negatives of the pairs of a search, given the cosine of each query with its passage."""
        found, pairs = search.best, search.pairs
        rank = _ranks(found.pair) + 1
        hard = rank >= self.first_rank
        hard &= found.cosine <= asked[found.pair] - self.margin
        if self.ratio is not None:
            hard &= found.cosine <= asked[found.pair] * self.ratio
        hard &= found.to_positive < 1 - self.eps
        found = found.take(np.flatnonzero(hard))
        if self.sampling == "random":
            lots = mixed(found.high ^ mixed(to_numpy(pairs["low"])[found.pair] ^ np.uint64(self.seed)))
            found = found.take(np.lexsort((lots, found.pair)))
        found = found.take(np.flatnonzero(_ranks(found.pair) < self.negatives))
        if self.sampling == "random":
            found = found.take(np.lexsort((found.high, -found.cosine, found.pair)))
        return found

    def _schema(self) -> pa.Schema:
        one = self.form == "triplet"
        names = ["anchor", "positive", *(["negative"] if one else [f"negative_{n + 1}" for n in range(self.negatives)])]
        fields = [pa.field(name, pa.large_string()) for name in names]
        if self.scores:
            fields += [pa.field(f"{name}_score", pa.float64()) for name in names[1:]]
        return pa.schema(fields)

    def _table(self, pairs: pa.Table, asked: NDArray[np.float64], found: _Found, texts: pa.Array) -> pa.Table:
        counts = np.bincount(found.pair, minlength=pairs.num_rows)
        if self.form == "triplet":
            self.record_dropped("no hard negative", int((counts == 0).sum()))
            rows = found.pair
            columns = [pairs["query"].take(array(rows)), pairs["passage"].take(array(rows)), texts]
            scores = [array(asked[rows]), array(found.cosine)]
        else:
            enough = counts == self.negatives
            self.record_dropped(f"fewer than {self.negatives} hard negatives", int((~enough).sum()))
            at = np.flatnonzero(enough[found.pair]).reshape(-1, self.negatives)
            rows = np.flatnonzero(enough)
            columns = [pairs["query"].take(array(rows)), pairs["passage"].take(array(rows))]
            columns += [texts.take(array(at[:, number])) for number in range(self.negatives)]
            scores = [array(asked[rows]), *(array(found.cosine[at[:, number]]) for number in range(self.negatives))]
        return pa.table([*columns, *(scores if self.scores else [])], schema=self._schema())


def _groups(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number the queries; equal queries are adjacent and get the same number."""
    changes = np.append(False, (high[1:] != high[:-1]) | (low[1:] != low[:-1])) if len(high) else np.zeros(0, np.bool_)
    return np.cumsum(changes)


def _cuts(pairs: pa.Table, most: int) -> list[tuple[int, int]]:
    """Ranges of ``most`` pairs or fewer; the pairs of one query are never separated, however many they are."""
    group = _groups(to_numpy(pairs["place"]), to_numpy(pairs["low"]))
    edges = np.append(0, np.cumsum(np.bincount(group)))
    return [(int(edges[first]), int(edges[last])) for first, last in ranges_within(np.diff(edges), most)]


def _marks(group: NDArray[np.int64], high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash for each pair of a query and a passage."""
    return mixed(mixed(group.astype(np.uint64)) ^ high) ^ low


def _ranks(pair: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each candidate within its pair, from 0; the candidates of a pair are adjacent."""
    if not len(pair):
        return np.zeros(0, np.int64)
    begins = np.flatnonzero(np.append(True, pair[1:] != pair[:-1]))
    return np.arange(len(pair)) - np.repeat(begins, np.diff(np.append(begins, len(pair))))


def _nearest_positive(
    group: NDArray[np.int64],
    vectors: Vectors,
    rows: NDArray[np.int64],
    positives: Vectors,
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The highest cosine of each of these rows with a positive of its query."""
    each = (ends - begins)[group]
    at = np.repeat(np.arange(len(group)), each)
    first = np.cumsum(each) - each
    which = begins[group][at] + np.arange(len(at)) - first[at]
    found = cosines(vectors, positives, rows[at], which)
    return np.maximum.reduceat(found, first) if len(at) else np.zeros(0)


def _blocks(places: _Places, products: Products) -> Iterator[_Block]:
    """The different passages of all partitions, in blocks; the same text counts once."""
    held: list[tuple[Any, ...]] = []
    for number, place in enumerate(places):
        tables = _tables(place)
        high, low = (np.concatenate([to_numpy(table[name]) for table in tables]) for name in (PLACE, "low"))
        order = np.lexsort((low, high))
        same = np.append(False, (np.diff(high[order]) == 0) & (np.diff(low[order]) == 0))
        rows = order[~same]
        vectors = unpacked(pa.chunked_array([chunk for table in tables for chunk in table[_VECTOR].chunks]))
        for start in range(0, len(rows), _PASSAGES):
            some = rows[start : start + _PASSAGES]
            held.append((vectors[some], high[some], low[some], np.full(len(some), number), some))
            if sum(len(part[0]) for part in held) >= _PASSAGES // 2:
                yield _block(held, products)
                held = []
    if held:
        yield _block(held, products)


def _block(parts: Sequence[tuple[Any, ...]], products: Products) -> _Block:
    vectors, *others = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    whole = Whole.of(vectors)
    return _Block(vectors, whole, products.put(whole.numbers), *others)


def _tables(place: tuple[Manifest, int]) -> list[pa.Table]:
    manifest, partition = place
    task = FileGroupTask(data=[storage.join(manifest.folder, MANIFEST)], _metadata={"partition": partition})
    return [table for _, table in partition_tables(task)]


def _texts(places: _Places, found: _Found) -> pa.Array:
    """The texts of the passages that were found."""
    order = np.argsort(found.place, kind="stable")
    pieces: list[pa.Array] = [array([], pa.large_string())]
    for number in np.unique(found.place):
        here = order[found.place[order] == number]
        texts = pa.concat_tables([table.select(["text"]) for table in _tables(places[number])])["text"]
        pieces.append(texts.combine_chunks().take(array(found.row[here])))
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pa.concat_arrays(pieces).take(array(back))
