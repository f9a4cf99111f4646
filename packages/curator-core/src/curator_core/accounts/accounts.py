"""Is every source accounted for? Shares, from the events that workers recorded.

A source carries a share of 1. When a task becomes *n*, each child carries 1/*n* of its parent's share; when tasks are
merged, shares add up; a task that ends (done, dropped, failed) returns its share to the account. Ids say which task
descends from which (`curator_core.model.lineage`), so an event contains no fraction: a ``fork`` records the number of
children, and every share follows exactly from that, even if children leave before their number is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.accounts.events import (
    DONE,
    DROPPED,
    EVENT_FIELDS,
    FAILED,
    FORK,
    KIND_CODES,
    KINDS,
    MERGE,
    MERGED,
    Event,
    events_from,
    events_table,
)
from curator_core.arrow.arrays import array, to_numpy
from curator_core.model.lineage import CHILD_DIGITS, child_id, lineage_key


@dataclass(slots=True)
class Settlement:
    """Where the share of one source has gone; ``missing`` is the part that no event accounts for."""

    source: str
    done: Fraction = Fraction(0)
    dropped: Fraction = Fraction(0)
    failed: Fraction = Fraction(0)
    merged: Fraction = Fraction(0)
    missing: Fraction = Fraction(0)
    last_stage: str = ""  # the last stage that saw the missing part
    missing_task: str = ""

    @property
    def complete(self) -> bool:
        return self.missing == 0

    @property
    def total(self) -> Fraction:
        return self.done + self.dropped + self.failed + self.merged + self.missing


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The events of one file: their number, and a function that loads the columns that only some questions need."""

    size: int
    load: Callable[[Sequence[str]], pa.Table]


@dataclass(frozen=True, slots=True)
class _Columns:
    """Events as columns of numbers; each text is represented by a number."""

    source: np.ndarray
    path: np.ndarray
    kind: np.ndarray
    children: np.ndarray
    attempt: np.ndarray
    generation: np.ndarray
    aside: np.ndarray  # whether rows of the task were quarantined

    @classmethod
    def joined(cls, batches: Sequence[_Columns]) -> _Columns:
        """The batches joined, in order."""
        if len(batches) == 1:
            return batches[0]
        none = [np.zeros(0, np.int64)]
        return cls(*(np.concatenate([getattr(b, f.name) for b in batches] or none) for f in fields(cls)))


class _Codes:
    """A number for each different text."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}

    def code(self, text: str) -> int:
        return self.codes.setdefault(text, len(self.codes))

    def column(self, column: pa.ChunkedArray) -> np.ndarray:
        """The codes of a dictionary column."""
        parts = []
        for chunk in column.chunks:
            codes = np.array([self.code(text) for text in chunk.dictionary.to_pylist()], np.int32)
            indices = to_numpy(chunk.indices)
            parts.append(codes[indices] if len(codes) else np.zeros(0, np.int32))
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def texts(self) -> list[str]:
        return list(self.codes)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The newest event of each task, sorted by source and path, and whether it counts."""

    key: np.ndarray  # source << 32 | path
    number: np.ndarray  # the number of the event
    source: np.ndarray
    path: np.ndarray
    kind: np.ndarray
    children: np.ndarray
    valid: np.ndarray  # whether the task descends, fork by fork, from its source
    parts: np.ndarray  # the task's share is 1 / parts
    complete: np.ndarray  # by source
    failed: np.ndarray  # by source


class Accounts:
    """The events of a run. The newest event of each task counts, if the task descends from its source.

    Events are columns of numbers (about 20 bytes each), so that a ledger of ten million events fits in memory and is
    evaluated in seconds.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._sources, self._paths, self._generations = _Codes(), _Codes(), _Codes()
        self._paths.code("")
        self._columns: list[_Columns] = []
        self._batches: list[EventBatch] = []
        self._new: list[Event] = []
        self._expected: dict[str, str] = {}
        self._stale: set[str] = set()
        self._judged: _Verdict | None = None
        self.merges: dict[str, Event] = {}
        for event in events:
            self.add(event)

    # Taking in ----------------------------------------------------------------------------------------------------

    def add(self, event: Event) -> None:
        """Add an event; adding it twice changes nothing."""
        if event.kind == MERGE:
            known = self.merges.get(event.task)
            if known is None or event.attempt >= known.attempt:
                self.merges[event.task] = event
            return
        self._new.append(event)
        self._judged = None

    def add_table(self, index: pa.Table, load: Callable[[Sequence[str]], pa.Table]) -> None:
        """Add events as the ledger stores them: the columns of `INDEX`, and a function that loads the others."""
        kinds = index["kind"]
        codes = np.concatenate(
            [
                np.array([KIND_CODES[text] for text in chunk.dictionary.to_pylist()], np.int8)[to_numpy(chunk.indices)]
                for chunk in kinds.chunks
                if len(chunk)
            ]
            or [np.zeros(0, np.int8)]
        )
        if (codes == KIND_CODES[MERGE]).any():
            for event in events_from(load([name for name, _ in EVENT_FIELDS])):
                if event.kind == MERGE:
                    self.add(event)
        self._columns.append(
            _Columns(
                source=self._sources.column(index["source"]),
                path=self._paths.column(index["path"]),
                kind=codes,
                children=to_numpy(index["children"]),
                attempt=to_numpy(index["attempt"]),
                generation=self._generations.column(index["generation"]),
                aside=to_numpy(index["quarantined"]) > 0,
            )
        )
        self._batches.append(EventBatch(len(index), load))
        self._judged = None

    def expect(self, source: str, generation: str) -> None:
        """Only events of this generation count for the source. A verdict that was reached before is not revised: the
        source counts as incomplete until the ledger is read again.
        """
        if self._judged is not None and self._expected.get(source) != generation:
            self._stale.add(source)
        self._expected[source] = generation

    # The verdict --------------------------------------------------------------------------------------------------

    def sources(self) -> list[str]:
        """The sources that an event counts for."""
        verdict, names = self._verdict(), self._sources.texts()
        # The codes are sorted already. `numpy.unique` would load `numpy.ma`, which takes longer than a small report.
        first = np.flatnonzero(np.diff(verdict.source, prepend=-1))
        return [names[code] for code in verdict.source[first].tolist()]

    def is_complete(self, source: str) -> bool:
        """Whether every part of a source has ended, or waits as a stored member of a merge."""
        verdict = self._verdict()
        code = self._sources.codes.get(source)
        return code is not None and source not in self._stale and bool(verdict.complete[code])

    def incomplete(self, sources: Iterable[str]) -> list[str]:
        """Those of the ``sources`` that are not complete; faster than one question for each."""
        complete, codes, stale = self._verdict().complete.tolist(), self._sources.codes, self._stale
        return [
            source for source in sources if (code := codes.get(source)) is None or source in stale or not complete[code]
        ]

    def has_failures(self, source: str) -> bool:
        """Whether a task of the source, or rows of one, were set aside."""
        verdict = self._verdict()
        code = self._sources.codes.get(source)
        return code is not None and bool(verdict.failed[code])

    def reachable(self, source: str) -> Iterator[Event]:
        """The events that count, from the source down, in lineage order."""
        for number in self.event_numbers([source]):
            yield from self.events(number, 1)

    def attempt_of(self, source: str, task: str) -> int | None:
        """The attempt that the event of a task belongs to, if it counts."""
        verdict = self._verdict()
        code, path = self._sources.codes.get(source), self._paths.codes.get(task[len(source) :])
        if code is None or path is None:
            return None
        key = code << 32 | path
        place = int(np.searchsorted(verdict.key, key))
        if place == len(verdict.key) or verdict.key[place] != key or not verdict.valid[place]:
            return None
        return int(self._all().attempt[verdict.number[place]])

    def counting(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """The rows of a table that belong to a task and an attempt that count, with a number for each row's task.

        The table has the columns ``run_source``, ``generation``, ``attempt`` and ``path``; all but the attempt are
        dictionaries.
        """
        verdict = self._verdict()
        sources, current = self._sources_of(table)
        paths = _looked_up(table["path"], lambda text: self._paths.codes.get(text, -1))
        if not len(verdict.key):
            return np.zeros(len(table), bool), np.zeros(len(table), np.int64)
        key = sources << 32 | np.maximum(paths, 0)
        place = np.minimum(np.searchsorted(verdict.key, key), len(verdict.key) - 1)
        found = (sources >= 0) & (paths >= 0) & (verdict.key[place] == key) & verdict.valid[place] & current
        found &= self._all().attempt[verdict.number[place]] == to_numpy(table["attempt"])
        return found, place

    def _sources_of(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """The number of the source of each row of a table, -1 for an unknown one, and whether its generation counts."""
        sources = _looked_up(table["run_source"], lambda text: self._sources.codes.get(text, -1))
        numbers = {text: number for number, text in enumerate(dict.fromkeys(self._expected.values()))}
        wanted = _looked_up(table["run_source"], lambda text: numbers.get(self._expected.get(text, ""), -2))
        given = _looked_up(table["generation"], lambda text: numbers.get(text, -1))
        return sources, wanted == given

    def complete(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each row of a table (see `counting`): whether it belongs to the generation that counts of a complete
        source, the number of its source, and the attempt that recorded the last event of the source.
        """
        verdict = self._verdict()
        sources, current = self._sources_of(table)
        if not len(verdict.key):
            return np.zeros(len(table), bool), sources, np.zeros(len(table), np.int64)
        # The event of the source itself is recorded last, after those of all its tasks.
        place = np.minimum(np.searchsorted(verdict.key, sources << 32), len(verdict.key) - 1)
        found = (sources >= 0) & (verdict.key[place] == sources << 32) & current
        found &= verdict.complete[np.maximum(sources, 0)]
        return found, sources, self._all().attempt[verdict.number[place]]

    def generation(self, source: str) -> str:
        """The generation (see `SourceStage`) that the events of a source belong to; empty if none is expected."""
        return self._expected.get(source, "")

    def settle(self, source: str) -> Settlement:
        """The shares of one source; shares that went into merges are reported separately (see `shares`)."""
        result = Settlement(source)
        verdict = self._verdict()
        code = self._sources.codes.get(source, -1)
        start, stop = np.searchsorted(verdict.source, [code, code + 1]) if code >= 0 else (0, 0)
        paths = self._paths.texts()
        tasks = {paths[verdict.path[i]]: i for i in range(start, stop) if verdict.valid[i]}
        names = self._stage_names(verdict.number[start:stop]) if tasks else {}
        stack: list[tuple[str, Fraction, str]] = [("", Fraction(1), "")]
        while stack:
            path, share, seen = stack.pop()
            at = tasks.get(path)
            if at is None:
                result.missing += share
                result.missing_task = result.missing_task or source + path
                result.last_stage = result.last_stage or seen
                continue
            kind, children = KINDS[verdict.kind[at]], int(verdict.children[at])
            if kind == FORK and children:
                stage = names.get(int(verdict.number[at]), "")
                stack.extend((child_id(path, i), share / children, stage) for i in range(children))
            else:
                end = DROPPED if kind == FORK else kind
                setattr(result, end, getattr(result, end) + share)
        return result

    def shares(self, sources: Sequence[str]) -> dict[str, Fraction]:
        """Where the shares of all ``sources`` went; shares that went into merges are followed to their end."""
        self._verdict()
        ends = dict.fromkeys((DONE, DROPPED, FAILED, MERGED), Fraction(0))
        weights: dict[str, Fraction] = {}
        self._add_shares(np.array([self._sources.codes[s] for s in sources], np.int64), None, ends, weights)
        while weights:
            # The members of a merge come from earlier segments, so each round moves down the pipeline by one merge.
            names = [name for name in weights if name in self._sources.codes]
            ends[MERGED] += sum((weights[name] for name in weights.keys() - set(names)), Fraction(0))
            codes = np.array([self._sources.codes[name] for name in names], np.int64)
            given = {self._sources.codes[name]: weights[name] for name in names}
            weights = {}
            self._add_shares(codes, given, ends, weights)
        return ends

    def _add_shares(
        self,
        codes: np.ndarray,
        given: dict[int, Fraction] | None,
        ends: dict[str, Fraction],
        onward: dict[str, Fraction],
    ) -> None:
        verdict = self._verdict()
        wanted = np.zeros(len(self._sources.codes), bool)
        wanted[codes] = True
        leaf = verdict.valid & wanted[verdict.source] & ((verdict.kind != KIND_CODES[FORK]) | (verdict.children == 0))
        merged = leaf & (verdict.kind == KIND_CODES[MERGED])
        if merged.any():
            merge_of = {member: merge.task for merge in self.merges.values() for member in merge.members}
            names, paths = self._sources.texts(), self._paths.texts()
            for place in np.flatnonzero(merged).tolist():
                code = int(verdict.source[place])
                share = Fraction(1, int(verdict.parts[place])) * (given[code] if given else 1)
                merge = merge_of.get(names[code] + paths[verdict.path[place]])
                if merge is None:
                    ends[MERGED] += share
                else:
                    onward[merge] = onward.get(merge, Fraction(0)) + share
            leaf &= ~merged
        at = np.flatnonzero(leaf)
        if not len(at):
            return
        kinds = np.where(verdict.kind[at] == KIND_CODES[FORK], KIND_CODES[DROPPED], verdict.kind[at]).astype(np.int64)
        parts = verdict.parts[at]
        if given is None and parts.dtype != object:
            # There are few different denominators, so the leaves of each are counted.
            order = np.lexsort((parts, kinds))
            kinds, parts = kinds[order], parts[order]
            starts = np.flatnonzero(np.r_[True, (kinds[1:] != kinds[:-1]) | (parts[1:] != parts[:-1])])
            for start, stop in zip(starts, np.r_[starts[1:], len(kinds)], strict=True):
                ends[KINDS[kinds[start]]] += Fraction(int(stop - start), int(parts[start]))
            return
        for kind, part, code in zip(kinds, parts, verdict.source[at], strict=True):
            ends[KINDS[kind]] += Fraction(1, int(part)) * (given[int(code)] if given else 1)

    # What the events say ------------------------------------------------------------------------------------------

    def event_numbers(self, sources: Sequence[str], kind: str = "") -> np.ndarray:
        """The numbers of the events that count for ``sources``, in the order of the sources and then in lineage order."""
        verdict = self._verdict()
        rank = np.full(len(self._sources.codes) or 1, -1, np.int64)
        for position, source in enumerate(sources):
            code = self._sources.codes.get(source)
            if code is not None:
                rank[code] = position
        at = np.flatnonzero(verdict.valid & (rank[verdict.source] >= 0)) if len(verdict.source) else np.zeros(0, int)
        if kind:
            at = at[verdict.kind[at] == KIND_CODES[kind]]
        order = np.lexsort((self._path_ranks()[verdict.path[at]], rank[verdict.source[at]]))
        found: np.ndarray = verdict.number[at[order]]
        return found

    def tasks(self, numbers: np.ndarray) -> list[tuple[str, str]]:
        """The task and the generation of each of these events."""
        names, paths, generations = self._sources.texts(), self._paths.texts(), self._generations.texts()
        events = self._all()
        source, path, generation = events.source[numbers], events.path[numbers], events.generation[numbers]
        return [(names[s] + paths[p], generations[g]) for s, p, g in zip(source, path, generation, strict=True)]

    def tables(self, numbers: np.ndarray, columns: Sequence[str]) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """Columns of the events with these ``numbers``, file by file, with the position of each event in ``numbers``."""
        position = np.full(sum(batch.size for batch in self._batches), -1, np.int64)
        position[numbers] = np.arange(len(numbers))
        start = 0
        for batch in self._batches:
            mine = position[start : start + batch.size]
            start += batch.size
            picked = np.flatnonzero(mine >= 0)
            if len(picked):
                table = batch.load(columns)
                yield mine[picked], table if len(picked) == batch.size else table.take(array(picked))

    def events(self, number: int, count: int = 1) -> list[Event]:
        """``count`` events with all their columns, beginning at a number."""
        found = []
        for _, table in self.tables(np.arange(number, number + count), [name for name, _ in EVENT_FIELDS]):
            found += list(events_from(table))
        return found

    # How ----------------------------------------------------------------------------------------------------------

    def _all(self) -> _Columns:
        """The columns of all events."""
        self._take_new()
        self._columns = [_Columns.joined(self._columns)]
        return self._columns[0]

    def _take_new(self) -> None:
        if not self._new:
            return
        events, self._new = self._new, []
        for start in range(0, len(events), 100_000):
            table = events_table(events[start : start + 100_000])
            self.add_table(table, table.select)

    def _stage_names(self, numbers: np.ndarray) -> dict[int, str]:
        ordered = np.sort(numbers)
        return {
            int(ordered[position]): stage
            for positions, table in self.tables(ordered, ["stage"])
            for position, stage in zip(positions, table["stage"].to_pylist(), strict=True)
        }

    def _path_ranks(self) -> np.ndarray:
        """The position of each path in lineage order."""
        paths = self._paths.texts()
        ordered = to_numpy(pc.sort_indices(array(paths, pa.string())))
        # A child's number may have more digits than ids are padded to.
        if any(len(path) % (CHILD_DIGITS + 1) for path in paths):
            ordered = np.array(sorted(range(len(paths)), key=lambda code: lineage_key(paths[code])[1]), np.int64)
        ranks = np.empty(len(paths), np.int64)
        ranks[ordered] = np.arange(len(paths))
        return ranks

    def _verdict(self) -> _Verdict:
        if self._judged is None or self._new:
            self._judged = self._judge()
            self._stale.clear()
        return self._judged

    def _judge(self) -> _Verdict:
        events = self._all()
        # A merge event lists the members of a merge. It does not say what became of a task, so it is left to `merges`.
        numbers = np.flatnonzero(self._expected_ones(events) & (events.kind != KIND_CODES[MERGE]))
        newest, key = _newest(events, numbers)
        numbers = numbers[newest]
        source, path = events.source[numbers], events.path[numbers]
        kind, children = events.kind[numbers], events.children[numbers]
        valid, parts = self._descend(key, source, path, kind, children)
        count = len(self._sources.codes)
        forked = valid & (kind == KIND_CODES[FORK])
        announced = 1 + np.bincount(source[forked], weights=children[forked], minlength=count)
        there = np.bincount(source[valid], minlength=count)
        bad = valid & ((kind == KIND_CODES[FAILED]) | events.aside[numbers].astype(bool))
        return _Verdict(
            key=key,
            number=numbers,
            source=source,
            path=path,
            kind=kind,
            children=children,
            valid=valid,
            parts=parts,
            complete=there == announced,
            failed=np.bincount(source[bad], minlength=count) > 0,
        )

    def _expected_ones(self, events: _Columns) -> np.ndarray:
        """Which events belong to the generation that counts for their source. If no generation is expected (a run
        without a run directory reads each source only once), any generation counts.
        """
        none, any_one = -1, -2
        codes = self._generations.codes
        wanted = (self._expected.get(name) for name in self._sources.texts())
        expected = np.array([any_one if w is None else codes.get(w, none) for w in wanted], np.int64)
        if not len(events.source):
            return np.zeros(0, bool)
        found: np.ndarray = (expected[events.source] == events.generation) | (expected[events.source] == any_one)
        return found

    def _descend(
        self, key: np.ndarray, source: np.ndarray, path: np.ndarray, kind: np.ndarray, children: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether each task descends from its source by recorded forks, and into how many parts the share was split."""
        texts = self._paths.texts()
        depth = np.array([text.count(".") for text in texts], np.int32)
        parent = np.array([self._paths.codes.get(text.rpartition(".")[0], -1) for text in texts], np.int64)
        number = np.array([int(text.rpartition(".")[2] or 0) for text in texts], np.int64)
        valid = np.zeros(len(key), bool)
        parts = np.ones(len(key), np.int64)
        levels = depth[path]
        valid[levels == 0] = True
        for level in range(1, int(levels.max(initial=0)) + 1):
            at = np.flatnonzero(levels == level)
            above = source[at].astype(np.int64) << 32 | parent[path[at]]
            place = np.minimum(np.searchsorted(key, above), len(key) - 1)
            fits = (
                (parent[path[at]] >= 0)
                & (key[place] == above)
                & valid[place]
                & (kind[place] == KIND_CODES[FORK])
                & (number[path[at]] < children[place])
            )
            valid[at] = fits
            at, place = at[fits], place[fits]
            if len(at) and parts.dtype != object:
                most = parts[place].astype(float) * children[place]
                if most.max() > 2.0**62:
                    parts = parts.astype(object)
            parts[at] = parts[place] * children[place]
        return valid, parts


def _looked_up(column: pa.ChunkedArray, code: Callable[[str], int]) -> np.ndarray:
    """A number for each text of a dictionary column."""
    parts = [np.zeros(0, np.int64)]
    for chunk in column.chunks:
        if len(chunk):
            parts.append(
                np.array([code(text) for text in chunk.dictionary.to_pylist()], np.int64)[to_numpy(chunk.indices)]
            )
    return np.concatenate(parts)


def _newest(events: _Columns, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each task, the event that counts among those with these ``numbers``: the positions of these events, and the
    sorted keys of the tasks.

    A later attempt beats an earlier one. Within an attempt, a task that was set aside remains set aside, even if its
    worker left other events before it died. Otherwise any event will do; the one with the most children is taken, so
    that the choice is always the same.
    """
    key = events.source[numbers].astype(np.int64) << 32 | events.path[numbers]
    order = np.argsort(key, kind="stable")
    if not (np.diff(key[order]) == 0).any():
        return order, key[order]
    order = np.lexsort(
        (events.children[numbers], events.kind[numbers] == KIND_CODES[FAILED], events.attempt[numbers], key)
    )
    key = key[order]
    last = np.r_[key[1:] != key[:-1], True]
    return order[last], key[last]
