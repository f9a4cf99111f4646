"""Which documents are connected by edges, even if the edges do not fit in memory?

The input is a folder of Arrow files whose rows are edges: ``a`` and ``b``, two numbers of documents. A *group* is a set
of documents that edges connect, and is named after the smallest number in it. The output lists the members of the
groups by batch, so that a step that reads the sources again opens only the files that its batch needs (`groups_of`).

Edges that fit in memory are solved by one task (`components`). More edges are reduced in rounds of two pipelines each
over a shuffle of the edges (large star and small star, Kiveris et al., *Connected Components in MapReduce and Beyond*,
2014):

- *large star*: the larger neighbours of each node are tied to the smallest of all its neighbours and itself;
- *small star*: each node and its smaller neighbours are tied to the smallest of them.

Neither separates documents that were connected, and each change moves an edge to a smaller number, so the rounds end. A
task contracts its edges before it writes them: edges that connect the same documents within the task become a star
around the smallest. As soon as the edges fit in memory, one task solves the rest. Otherwise the rounds end when one of
them changes nothing. Then each document has either larger neighbours only (it is the smallest of its group), or one
neighbour, its smallest; the step that writes the members checks this for each document, and stops the run if it is not
true.

**Memory.** A task holds edges of 16 bytes: as much of a partition as fits in ``memory``/4, and its stars. A document
with more neighbours than that is read twice, once to find the smallest neighbour and once to tie the others to it.
Finding the components takes about ten times the bytes of the edges: 240 MiB in a worker by default, and 960 MiB in the
task that solves the rest. So with 10⁹ documents that all have an edge, each round reads and
writes 16 GB (large star: 32 GB) in partitions of 12 MiB, whatever the shape of the groups.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.roll import ROW_BITS
from curator_core.across.shuffle import (
    PLACE,
    Span,
    finish_partitioned,
    notes_of,
    partition_spans,
    write_partitioned,
)
from curator_core.arrow.arrays import array, to_numpy
from curator_core.errors import AccountingError, CuratorError, UsageError
from curator_core.model.lineage import child_id, source_id
from curator_core.model.stage import FanOut, ProcessingStage, SourceStage
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask, FileRecord

MANIFEST = "_groups.json"

EDGE_BYTES = 16
PART_ROWS = 1 << 20
_BATCH_ROWS = 1 << 16
_SCHEMA = pa.schema([pa.field("number", pa.uint64(), nullable=False), pa.field("group", pa.uint64(), nullable=False)])

type Numbers = NDArray[np.uint64]


# In memory -----------------------------------------------------------------------------------------------------------


def components(a: Numbers, b: Numbers) -> tuple[Numbers, Numbers]:
    """All numbers in the edges (``a[i]``, ``b[i]``), sorted, and for each the smallest number that is connected with
    it.

    Before it returns, it checks for all edges that both ends have the same smallest number, and that this is not larger
    than either end.
    """
    if len(a) != len(b):
        raise UsageError(f"components: {len(a)} numbers in a and {len(b)} in b")
    members, ends = np.unique(np.concatenate([a, b]).astype(np.uint64, copy=False), return_inverse=True)
    left, right = ends[: len(a)], ends[len(a) :]
    # Places in `members` have the order of the numbers, so the smallest place belongs to the smallest number.
    root = np.arange(len(members))
    one, other = left, right
    while True:
        apart = one != other
        one, other = one[apart], other[apart]
        if not len(one):
            break
        low, high = np.minimum(one, other), np.maximum(one, other)
        # Each root with a smaller neighbour is tied to the smallest. A root without one has neighbours tied to it, or
        # is tied to a smaller one itself in the next turn: every two turns at least halve the number of roots.
        np.minimum.at(root, high, low)
        _follow(root, high)
        one, other = root[one], root[other]
    _follow(root, np.arange(len(members)))
    if not (np.array_equal(root[left], root[right]) and (root <= np.arange(len(root))).all()):
        raise AccountingError("connected components did not converge: an edge has ends in two groups")
    return members, members[root]


def _follow(root: NDArray[np.int64], nodes: NDArray[np.int64]) -> None:
    """Point each of ``nodes`` to the end of its chain."""
    while len(nodes):
        to = root[root[nodes]]
        moved = to != root[nodes]
        nodes, to = nodes[moved], to[moved]
        root[nodes] = to


def stars(a: Numbers, b: Numbers) -> tuple[Numbers, Numbers]:
    """The fewest edges that connect the same numbers: from each number to the smallest one connected with it."""
    members, groups = components(a, b)
    others = members != groups
    return members[others], groups[others]


def groups_of(folder: str, batch: int) -> tuple[NDArray[np.int64], Numbers]:
    """The rows of a batch that are in a group with others, in order, and the number of the group of each."""
    parts = _parts(storage.join(folder, MANIFEST), storage.fingerprint(storage.join(folder, MANIFEST)))
    low, high = batch << ROW_BITS, (batch + 1) << ROW_BITS
    found: list[pa.RecordBatch] = []
    for name, first, last in parts:
        if first < high and low <= last:
            with storage.open_arrow(storage.join(folder, name)) as source, pa.ipc.open_file(source) as file:
                found += _between(file, low, high)
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.uint64)
    numbers = np.concatenate([to_numpy(piece.column(0)) for piece in found])
    groups = np.concatenate([to_numpy(piece.column(1)) for piece in found])
    return (numbers & np.uint64((1 << ROW_BITS) - 1)).astype(np.int64), groups


@functools.lru_cache(maxsize=4)
def _parts(path: str, _: str) -> list[tuple[str, int, int]]:
    return [(name, first, last) for name, _, first, last in json.loads(storage.read_bytes(path))["parts"]]


def _between(file: Any, low: int, high: int) -> Iterator[pa.RecordBatch]:
    """The rows with a number in [low, high) of a file whose record batches are in order."""
    first, stop = 0, file.num_record_batches
    while first < stop:  # the first record batch whose last number is not below `low`
        middle = (first + stop) // 2
        if int(to_numpy(file.get_batch(middle).column(0))[-1]) < low:
            first = middle + 1
        else:
            stop = middle
    for at in range(first, file.num_record_batches):
        piece = file.get_batch(at)
        numbers = to_numpy(piece.column(0))
        start, stop = (int(np.searchsorted(numbers, np.uint64(edge))) for edge in (low, min(high, (1 << 64) - 1)))
        if start == stop:
            return
        yield piece.slice(start, stop - start)


# Reading edges -------------------------------------------------------------------------------------------------------


def edge_files(folder: str) -> list[storage.FileInfo]:
    """The files of a folder that hold edges, in natural order."""
    found = [file for file in storage.scan(folder) if not storage.file_name(file.path).startswith("_")]
    return sorted(found, key=lambda file: storage.natural_key(file.path))


def _edges_in(path: str) -> Iterator[tuple[Numbers, Numbers]]:
    """The edges of a file, some at a time; an edge that is stored in both directions is given once."""
    with storage.open_arrow(path) as source:
        try:
            file = pa.ipc.open_file(source)
        except (pa.ArrowInvalid, OSError) as error:
            raise CuratorError(f"{path!r} is not a complete Arrow file of edges ({error}): write it again") from error
        names = file.schema.names
        if "v" in names and PLACE in names:
            for at in range(file.num_record_batches):
                batch = file.get_batch(at)
                u, v = _node(to_numpy(batch.column(PLACE))), to_numpy(batch.column("v"))
                once = v < u
                yield u[once], v[once]
            return
        if any(name not in names or file.schema.field(name).type != pa.uint64() for name in ("a", "b")):
            raise UsageError(f"{path!r} holds no edges: it needs columns 'a' and 'b' of uint64, and has {names}")
        for at in range(file.num_record_batches):
            batch = file.get_batch(at)
            yield to_numpy(batch.column("a")), to_numpy(batch.column("b"))


def _table(a: Numbers, b: Numbers) -> pa.Table:
    return pa.table([array(a), array(b)], ["a", "b"])


@dataclass(kw_only=True)
class AllEdges(SourceStage[FileGroupTask]):
    """Lists all files of edges in a folder, as one source."""

    path: str

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        yield _source(edge_files(self.path), 0)


@dataclass(kw_only=True)
class EdgeFiles(SourceStage[FileGroupTask]):
    """Lists the files of edges in a folder in lots that fit in ``memory``; each lot is a source."""

    path: str
    memory: int

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        lot: list[storage.FileInfo] = []
        number = size = 0
        for file in edge_files(self.path):
            if lot and size + file.size > self.memory:
                yield _source(lot, number)
                lot, size = [], 0
                number += 1
            lot.append(file)
            size += file.size
        if lot:
            yield _source(lot, number)


def _source(files: Sequence[storage.FileInfo], number: int) -> FileGroupTask:
    names = [storage.file_name(file.path) for file in files]
    return FileGroupTask(
        data=[file.path for file in files],
        task_id=source_id(f"edges-{number:05d}", names),
        _generation=source_id("", [file.fingerprint for file in files]),
    )


@dataclass(kw_only=True)
class ReadEdges(FanOut[FileGroupTask, DocumentBatch]):
    """Reads files of edges, about ``memory`` bytes at a time."""

    memory: int

    def outputs(self) -> list[str]:
        return ["a", "b"]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        yield from _lots(_apart(self, task), self.memory)


def _apart(stage: ProcessingStage[Any, Any], task: FileGroupTask) -> Iterator[tuple[Numbers, Numbers]]:
    """The edges in a task's files that connect two different documents."""
    for path in task.data:
        for a, b in _edges_in(path):
            apart = a != b
            stage.record_dropped("an edge from a document to itself", len(a) - int(np.count_nonzero(apart)))
            yield a[apart], b[apart]


def _lots(edges: Iterator[tuple[Numbers, Numbers]], memory: int) -> Iterator[DocumentBatch]:
    held: list[tuple[Numbers, Numbers]] = []
    rows = 0
    most = max(1, memory // EDGE_BYTES)
    for a, b in edges:
        for start in range(0, len(a), most):
            piece = a[start : start + most], b[start : start + most]
            if rows + len(piece[0]) > most and held:
                yield DocumentBatch(data=_joined(held))
                held, rows = [], 0
            held.append(piece)
            rows += len(piece[0])
    if rows:
        yield DocumentBatch(data=_joined(held))


def _joined(edges: Sequence[tuple[Numbers, Numbers]]) -> pa.Table:
    return _table(np.concatenate([a for a, _ in edges]), np.concatenate([b for _, b in edges]))


# Rounds --------------------------------------------------------------------------------------------------------------

# A bijection of 64-bit numbers that spreads them over the whole range, so a place still identifies its node.
_SPREAD = 0x9E3779B97F4A7C15
_GATHER = pow(_SPREAD, -1, 1 << 64)


def _place(nodes: Numbers) -> Numbers:
    return nodes * np.uint64(_SPREAD)


def _node(places: Numbers) -> Numbers:
    return places * np.uint64(_GATHER)


@dataclass(kw_only=True)
class WriteEdges(ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes edges for the next star, sorted by their larger end or, with ``both_ways``, by each end.

    ``notes`` is the file for the number of edges, the number of edges that this round has changed, and the highest
    number of a document.
    """

    path: str
    partitions: int
    both_ways: bool
    notes: str
    creates_rows = True

    def inputs(self) -> list[str]:
        return ["a", "b"]

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def process(self, task: DocumentBatch) -> FileGroupTask:
        table = task.to_pyarrow()
        a, b = to_numpy(table["a"]), to_numpy(table["b"])
        low, high = np.minimum(a, b), np.maximum(a, b)
        changed = int(task._metadata.get("changed", 0))
        members, groups = components(high, low)
        # An edge counts as unchanged if it is part of the star.
        changed += int(np.count_nonzero(groups[np.searchsorted(members, high)] != low))
        others = members != groups
        high, low = members[others], groups[others]
        self.record_dropped("other edges of the task connect the same", table.num_rows - len(high))
        notes = {"edges": len(high), "changed": changed, "highest": int(high.max(initial=0))}
        u, v = (np.concatenate([high, low]), np.concatenate([low, high])) if self.both_ways else (high, low)
        path = storage.join(self.path, f"{task.task_id}.arrow")
        record = write_partitioned(path, pa.table([array(v)], ["v"]), _place(u), self.partitions, notes=notes)
        self.record_output(record)
        return FileGroupTask(data=[path], records=[record], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        finish_partitioned(self.path, outputs, partitions=self.partitions)
        found = [notes_of(record) for record in outputs]
        summed = {key: sum(notes[key] for notes in found) for key in ("edges", "changed")}
        content = {**summed, "highest": max((notes["highest"] for notes in found), default=0)}
        storage.write_bytes_atomic(self.notes, json.dumps(content).encode())


def notes_in(folder: str, name: str) -> dict[str, int]:
    notes: dict[str, int] = json.loads(storage.read_bytes(storage.join(folder, f"{name}.json")))
    return notes


class _Star(FanOut[FileGroupTask, DocumentBatch]):
    """Makes a star at each node of a partition. Its output is edges, with the number of those that it has changed."""

    memory: int

    def outputs(self) -> list[str]:
        return ["a", "b"]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        for span in partition_spans(task, self.memory):
            if span.tables is not None:
                u, v = _sorted_ends(span.tables)
                span.tables.clear()
                starts = _starts(u)
                smallest = np.repeat(np.minimum.reduceat(v, starts), np.diff(starts, append=len(u)))
                yield from self._tied(u, v, smallest, starts)
            else:  # a node with more neighbours than fit in memory
                least = min(int(v.min()) for _, v in _ends_of(span))
                for number, (u, v) in enumerate(_ends_of(span)):
                    smallest = np.full(len(u), least, np.uint64)
                    yield from self._tied(u, v, smallest, np.zeros(0 if number else 1, np.int64))

    def _tied(self, u: Numbers, v: Numbers, smallest: Numbers, starts: NDArray[np.int64]) -> Iterator[DocumentBatch]:
        """The edges of the stars. The rows of each ``u`` begin at ``starts``; ``smallest`` is the smallest of its
        neighbours.
        """
        raise NotImplementedError

    def _edges(self, a: Numbers, b: Numbers, changed: int) -> Iterator[DocumentBatch]:
        if len(a):
            yield DocumentBatch(data=_table(a, b), _metadata={"changed": changed})


@dataclass(kw_only=True)
class LargeStar(_Star):
    """Ties the larger neighbours of each node to the smallest of the node and all its neighbours."""

    memory: int

    def _tied(self, u: Numbers, v: Numbers, smallest: Numbers, starts: NDArray[np.int64]) -> Iterator[DocumentBatch]:
        larger = v > u
        to = np.minimum(u, smallest)[larger]
        return self._edges(v[larger], to, int(np.count_nonzero(to != u[larger])))


@dataclass(kw_only=True)
class SmallStar(_Star):
    """Ties each node and its smaller neighbours to the smallest of them."""

    memory: int

    def _tied(self, u: Numbers, v: Numbers, smallest: Numbers, starts: NDArray[np.int64]) -> Iterator[DocumentBatch]:
        others = v != smallest
        a = np.concatenate([u[starts], v[others]])
        return self._edges(a, np.concatenate([smallest[starts], smallest[others]]), int(np.count_nonzero(others)))


def _ends(table: pa.Table) -> tuple[Numbers, Numbers]:
    return _node(to_numpy(table[PLACE])), to_numpy(table["v"])


def _ends_of(span: Span) -> Iterator[tuple[Numbers, Numbers]]:
    return (_ends(table) for _, table in span.read())


def _sorted_ends(tables: list[pa.Table]) -> tuple[Numbers, Numbers]:
    u, v = _ends(pa.concat_tables(tables))
    order = np.argsort(u, kind="stable")
    return u[order], v[order]


def _starts(u: Numbers) -> NDArray[np.int64]:
    return np.flatnonzero(np.append(True, u[1:] != u[:-1]))


# Members -------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class StarMembers(FanOut[FileGroupTask, DocumentBatch]):
    """Yields each document with its group from edges that form stars, and checks for each document that they do."""

    memory: int

    def outputs(self) -> list[str]:
        return ["number", "group"]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        for span in partition_spans(task, self.memory):
            if span.tables is not None:
                u, v = _sorted_ends(span.tables)
                span.tables.clear()
                starts = _starts(u)
                least, most = np.minimum.reduceat(v, starts), np.maximum.reduceat(v, starts)
                yield self._members(u[starts], least, most)
            else:
                least = most = node = np.zeros(0, np.uint64)
                for u, v in _ends_of(span):
                    node = u[:1]
                    least = np.array([np.append(least, v).min()])
                    most = np.array([np.append(most, v).max()])
                yield self._members(node, least, most)

    def _members(self, u: Numbers, least: Numbers, most: Numbers) -> DocumentBatch:
        wrong = np.flatnonzero((least < u) & (least != most))
        if len(wrong):
            raise AccountingError(
                f"groups did not converge: {int(u[wrong[0]])} has the neighbours {int(least[wrong[0]])} and "
                f"{int(most[wrong[0]])} after a round that has changed nothing"
            )
        return DocumentBatch(data=pa.table([array(u), array(np.minimum(u, least))], schema=_SCHEMA))


@dataclass(kw_only=True)
class WriteMembers(ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes members, sorted by ranges of ``batches``."""

    path: str
    partitions: int
    batches: int

    def inputs(self) -> list[str]:
        return ["number", "group"]

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def process(self, task: DocumentBatch) -> FileGroupTask:
        table = task.to_pyarrow()
        # All rows of a batch have the same place, and the batches are spread over the whole range.
        places = (to_numpy(table["number"]) >> np.uint64(ROW_BITS)) * np.uint64(min((1 << 64) // self.batches, 1 << 63))
        path = storage.join(self.path, f"{task.task_id}.arrow")
        record = write_partitioned(path, table, places, self.partitions)
        self.record_output(record)
        return FileGroupTask(data=[path], records=[record], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        finish_partitioned(self.path, outputs, partitions=self.partitions)


class _GroupsWriter(FanOut[FileGroupTask, FileGroupTask]):
    """Writes files of members in order, with the list of batches in each file."""

    path: str

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        parts: list[tuple[str, int, int, int]] = []
        for record in outputs:
            with storage.open_arrow(record.path) as source, pa.ipc.open_file(source) as file:
                if count := file.num_record_batches:
                    first = to_numpy(file.get_batch(0).column(0))[0]
                    last = to_numpy(file.get_batch(count - 1).column(0))[-1]
                    parts.append((storage.relative(record.path, self.path), record.rows, int(first), int(last)))
        parts.sort(key=lambda part: part[2])
        content = {"members": sum(part[1] for part in parts), "parts": parts}
        storage.write_bytes_atomic(storage.join(self.path, MANIFEST), json.dumps(content).encode())

    def _write(self, path: str, tables: Iterator[pa.Table]) -> FileGroupTask:
        rows = 0
        with storage.write_atomic(path) as out, pa.ipc.new_file(out, _SCHEMA) as writer:
            for table in tables:
                rows += table.num_rows
                writer.write_table(table, max_chunksize=_BATCH_ROWS)
        record = out.record(rows=rows)
        self.record_output(record)
        return FileGroupTask(data=[path], records=[record])


@dataclass(kw_only=True)
class SolveGroups(_GroupsWriter):
    """Solves all edges at once and writes the members of groups, in files that never split a batch."""

    path: str

    def process(self, task: FileGroupTask) -> Iterator[FileGroupTask]:
        edges = list(_apart(self, task))
        a = np.concatenate([np.zeros(0, np.uint64), *(a for a, _ in edges)])
        b = np.concatenate([np.zeros(0, np.uint64), *(b for _, b in edges)])
        edges.clear()
        table = pa.table([*map(array, components(a, b))], schema=_SCHEMA)
        for number, part in enumerate(_by_batches(table)):
            yield self._write(storage.join(self.path, f"{child_id(task.task_id, number)}.arrow"), iter([part]))


def _by_batches(table: pa.Table) -> Iterator[pa.Table]:
    """Members in order, some rows at a time; the members of a batch are never split."""
    batches = to_numpy(table["number"]) >> np.uint64(ROW_BITS)
    start = 0
    while start < len(batches):
        last = batches[min(start + PART_ROWS, len(batches)) - 1]
        stop = int(np.searchsorted(batches, last, "right"))
        yield table.slice(start, stop - start)
        start = stop


@dataclass(kw_only=True)
class WriteGroups(_GroupsWriter):
    """Writes the members in one range of batches, in order."""

    path: str
    memory: int

    def process(self, task: FileGroupTask) -> Iterator[FileGroupTask]:
        yield self._write(storage.join(self.path, f"{task.task_id}.arrow"), self._sorted(task))

    def _sorted(self, task: FileGroupTask) -> Iterator[pa.Table]:
        for span in partition_spans(task, self.memory):
            # All rows of a batch have the same place; the batch fits in memory, since it was once a task.
            tables = span.tables if span.tables is not None else [table for _, table in span.read()]
            table = pa.concat_tables(tables).drop_columns([PLACE])
            tables.clear()
            order = np.argsort(to_numpy(table["number"]), kind="stable")
            yield table.take(array(order)).cast(_SCHEMA)
