"""What does a worker record about a stage for the report? Binned counts of scores, sizes, and a few rows of the data.

The choice depends on the rows alone: each has a number from its task's id and its place there, and the rows with the
smallest numbers are kept, or near a limit those with the nearest scores. Together the workers keep the first rows of
the whole run, whichever worker handled which row.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import weakref
from collections.abc import Iterator, Sequence
from itertools import islice
from struct import unpack_from
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.accounts.seen_rows import (
    MOST_PICTURES,
    MOST_VALUES,
    OTHERS,
    Measured,
    SeenRows,
    TaskKey,
    as_json,
    words_as_json,
)
from curator_core.arrow.arrays import array, scalar, to_numpy
from curator_core.arrow.json_column import whole_as_integers
from curator_core.arrow.row_hash import row_numbers
from curator_core.model.places import Places, places_of
from curator_core.model.recorder import Judged, Recorder, Scored
from curator_core.model.scores import Limit, Score
from curator_core.model.seen_options import SeenOptions, rows_kept
from curator_core.model.task import DocumentBatch, Task
from curator_core.planning.plan import PlannedStage
from curator_core.stages.column_filter import ColumnFilter
from curator_core.stages.found_limits import without_limits
from curator_core.worker.first_rows import Best, Beyond, Chosen, Firsts, Verdicts
from curator_core.worker.tokens import CountTokens, token_counter

TEXT_KEPT = 1_000
VALUE_KEPT = 200
COLUMNS_KEPT = 16
SPANS_KEPT = 200
PICTURE_KEPT = 32 << 10
PICTURES_HELD = 500
MAP_TEXT_KEPT = 80
MAP = "map"
# At most this many chosen rows, and bytes of their pictures, wait for the next flush.
ROWS_WAITING = 4_000
PICTURES_WAITING = 64 << 20
_IDS = ("id", "key")
_TEXTS = ("text", "caption", "content", "url")
_SIZED = ("text", "bytes", "caption")


# Scores as floats, and which of them are null, if any are.
_Numbers = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]


class _Shown(NamedTuple):
    """The columns of a table that samples show: the text, the id, the columns beside the text, and all of these."""

    text: str | None
    identity: str | None
    brief: list[str]
    wanted: list[str]


class _Declared(NamedTuple):
    """A score that a filter declares, with the edges of its bins, their hash, and of each limit its name among the
    samples and its edge.
    """

    score: Score
    edges: np.ndarray[Any, Any]
    scale: str
    limits: list[tuple[Limit, str, float]]

    @classmethod
    def of(cls, score: Score) -> _Declared:
        limits = [(limit, f"{score.name}\0{limit.parameter}", limit.edge()) for limit in score.limits]
        return cls(score, np.array(score.edges), score.scale, limits)


class StageSeer:
    """Records the work of one stage in one worker."""

    def __init__(
        self,
        planned: PlannedStage,
        options: SeenOptions,
        attempt: int,
        rows: SeenRows,
        scores: Sequence[Score] | None = None,
    ) -> None:
        self.name = planned.name
        self.stage = planned.stage
        self.options = options
        self._attempt = attempt
        self._rows = rows
        self._firsts: dict[str, Firsts] = {}
        self._counter: CountTokens | None = None
        self._scores = scores
        self._declared: list[_Declared] | None = None
        self._limited = False  # whether the stage is a filter with limits
        self._schema: pa.Schema | None = None  # the schema of the table measured last; `_columns` is the result for it
        self._columns: tuple[str | None, bool] = (None, False)
        self._filled: set[str] = set()  # the columns that have had a value in this worker
        self._unfilled: list[tuple[int, str]] = []  # the other columns of `_schema`, with their places
        self._shown: tuple[pa.Schema, _Shown] | None = None
        self._taken: list[_Taken] = []
        self._waiting = 0
        self._waiting_bytes = 0
        rows.before_flush.append(self._settle)

    # Rows that enter and leave ----------------------------------------------------------------------------------------

    def entered(self, task: Task[Any]) -> None:
        """Record the rows of a task that enters the pipeline."""
        self._rows.catch_up()
        self._size("in", task)

    def left(self, task: Task[Any]) -> None:
        """Record the rows of a task that reach the end."""
        self._size("out", task)
        if isinstance(task, DocumentBatch):
            self._count_empty(task)
            rows = _Rows.of(task)
            if self._maps(rows):
                key = TaskKey.of(task, self._attempt)
                self._keep(key, rows, self._mapped(key, rows, None, np.ones(task.num_rows, bool)), {})
        self._rows.catch_up()

    def _maps(self, rows: _Rows) -> bool:
        """Whether there are embeddings for a map; a frame has no lists of fixed length."""
        return bool(self.options.map and rows.table is not None and self._columns_of(rows.table)[1])

    def _mapped(self, key: TaskKey, rows: _Rows, reason: str | None, among: np.ndarray[Any, Any]) -> list[Chosen]:
        """Rows with an embedding that leave here may appear in the map."""
        vectors = _vectors_of(rows.table) if self._maps(rows) else None
        if vectors is None:
            return []
        if self._rows.map is None:
            self._rows.map = Best(self.options.map)
        if vectors.null_count:
            among = among & to_numpy(pc.is_valid(vectors)).astype(bool)
        numbers = row_numbers(f"map\0{self.name}\0{key.source}{key.path}", len(vectors), self.options.seed)
        best: Best = self._rows.map
        return [Chosen(best, reason, MAP, *found) for found in best.choose(among, None, numbers)]

    def changed(self, parent: Task[Any], made: Task[Any]) -> None:
        """Record that a stage has turned a batch into another one, which may have new columns to count rows by."""
        if self.options.by and isinstance(made, DocumentBatch) and isinstance(parent, DocumentBatch):
            new = [name for name in self.options.by if name in made.column_names and name not in parent.column_names]
            self._by(TaskKey.of(parent, self._attempt), "by in", made.to_pyarrow(), new)

    def _size(self, kind: str, task: Task[Any]) -> None:
        if not isinstance(task, DocumentBatch):
            return
        # If no stage changes a task, the table that leaves is the one that entered.
        measured = self._rows.measured
        if measured is None or measured.table() is not task.data:
            table = task.to_pyarrow()
            name = self._columns_of(table)[0]
            size = 0 if name is None else _column_bytes(table[name])
            measured = self._rows.measured = Measured(
                weakref.ref(table), table.num_rows, size, self._tokens(table, name)
            )
        # Only the rows that enter are counted by the file that they come from.
        self._rows.size(task, self._attempt, kind, _file_of(task) if kind == "in" else "", measured)
        if self.options.by:
            table = task.to_pyarrow()
            names = [name for name in self.options.by if name in table.column_names]
            self._by(TaskKey.of(task, self._attempt), f"by {kind}", table, names, measured.tokens)

    def _count_empty(self, task: DocumentBatch) -> None:
        """Count the rows of each column that has no value in this task or in any task before. These counts add up to
        all rows only if no worker has met a value, so a worker stops counting a column at its first value.
        """
        table = task.to_pyarrow()
        self._columns_of(table)
        if not table.num_rows or not self._unfilled:
            return
        self._unfilled = [(at, name) for at, name in self._unfilled if _is_empty(table.column(at))]
        empty = [name for _, name in self._unfilled]
        self._filled.update(set(table.column_names).difference(empty))
        if empty:
            key = TaskKey.of(task, self._attempt)
            self._rows.count(key, self.name, "empty", "", empty, [table.num_rows] * len(empty))

    def _columns_of(self, table: pa.Table) -> tuple[str | None, bool]:
        """The column that measures the size of rows, and whether there are embeddings; cached, since most tables have
        the same schema.
        """
        schema = table.schema
        if self._schema is None or not schema.equals(self._schema):
            self._schema = schema
            self._columns = (sized_column(table, self.options.text), any(_is_vector(field.type) for field in schema))
            self._unfilled = [(at, name) for at, name in enumerate(schema.names) if name not in self._filled]
        return self._columns

    def _by(
        self,
        key: TaskKey,
        kind: str,
        table: pa.Table,
        names: Sequence[str],
        tokens: np.ndarray[Any, Any] | None = None,
        stage: str = "",
    ) -> None:
        """Count rows, bytes and tokens by the values of columns; rare values are counted together."""
        if not names or not table.num_rows:
            return
        sized = sized_column(table, self.options.text)
        sizes = np.zeros(table.num_rows, np.int64) if sized is None else _row_bytes(table[sized])
        if tokens is None:
            tokens = self._tokens(table, sized)
        for name in names:
            values = _as_words(table[name])
            words, codes = values.dictionary.to_pylist(), to_numpy(values.indices)
            sums = [np.bincount(codes, weights=weights, minlength=len(words)).astype(np.int64) for weights in
                    (np.ones(len(codes)), sizes, np.zeros(len(codes)) if tokens is None else tokens)]  # fmt: skip
            order = sorted(range(len(words)), key=lambda at: (-int(sums[0][at]), words[at]))
            rows = [[words[at], *(int(column[at]) for column in sums)] for at in order[:MOST_VALUES]]
            rest = order[MOST_VALUES:]
            if rest:
                rows.append([OTHERS, *(int(column[rest].sum()) for column in sums)])
            shown = [list(column) for column in zip(*rows, strict=True)]
            self._rows.count(key, stage, kind, name, *shown)

    def _tokens(self, table: pa.Table, name: str | None) -> np.ndarray[Any, Any] | None:
        """The number of tokens of each row; None if they are estimated."""
        if self.options.tokens == "bytes":
            return None
        if name is None or not _is_text(table.schema.field(name).type):
            return np.zeros(table.num_rows, np.int64)
        if self._counter is None:
            self._counter = token_counter(self.options)
        assert self._counter is not None
        return np.array(self._counter([text or "" for text in table[name].to_pylist()]), np.int64)

    # Rows that a filter judges ------------------------------------------------------------------------------------

    def saw(self, task: Task[Any], recorder: Recorder) -> None:
        """Process the stage's records about one task."""
        key = TaskKey.of(task, self._attempt)
        if recorder.judged is not None:
            rows = _Rows.of(recorder.judged.batch)
            if rows.table is None:  # the next stage may change a frame in place
                self._judged(key, rows, recorder.judged)
            else:
                self._rows.later(key, functools.partial(self._judged, key, rows, recorder.judged))
        elif isinstance(task, DocumentBatch) and (recorder.which or recorder.of is not None or not recorder.rejects):
            self._named(key, task if recorder.of is None else recorder.of, recorder.which, recorder.scored)

    def dropped_whole(self, task: Task[Any], reason: str) -> None:
        """Record that the stage has dropped a task with all its rows."""
        if isinstance(task, DocumentBatch) and task.num_rows:
            self._named(TaskKey.of(task, self._attempt), task, {reason: [np.arange(task.num_rows)]})

    def _judged(self, key: TaskKey, rows: _Rows, judged: Judged) -> None:
        stage = self.stage
        assert isinstance(stage, ColumnFilter)
        kept = to_numpy(judged.kept)
        parts = stage.score_parts(judged.scores)
        if self._declared is None:
            scores = stage.declared_scores() if self._scores is None else self._scores
            self._declared = [_Declared.of(score) for score in scores]
            self._limited = any(score.limits for score in scores)
        values = {name: _floats(column) for name, column in parts.items()}
        free = self._free(judged.scores, len(kept))
        for score, edges, scale, _ in self._declared:
            if score.name in values:
                numbers, nulls = values[score.name]
                others = free.get(score.name)
                self._rows.score(key, self.name, score.name, scale, edges, numbers, nulls, kept, others)
        lost = len(kept) - int(np.count_nonzero(kept))
        if self.options.by and lost and stage.mode != "annotate":
            self._by_dropped(key, rows.as_table().take(array((~kept).nonzero()[0])))
        counted = _counted(judged.reasons, lost)
        self._sides(key, len(kept) - lost, counted)
        if self.options.samples and len(kept):
            verdicts = Verdicts(kept, judged.reasons, list(counted))
            self._keep(key, rows, self._samples(key, rows, verdicts, values), values)

    def _by_dropped(self, key: TaskKey, table: pa.Table) -> None:
        names = [name for name in self.options.by if name in table.column_names]
        self._by(key, "by dropped", table, names, np.zeros(table.num_rows, np.int64), self.name)

    def _free(self, scores: pa.Array, rows: int) -> dict[str, np.ndarray[Any, Any]]:
        """For each of several scores, the rows that pass all tests except those of its own limits."""
        assert self._declared is not None
        assert isinstance(self.stage, ColumnFilter)
        if len(self._declared) < 2:
            return {}
        failed = {
            reason: to_numpy(pc.fill_null(found, scalar(True))).astype(bool)
            for reason, found in self.stage.tests(scores).items()
        }
        total = np.sum(list(failed.values()), axis=0) if failed else np.zeros(rows, int)
        found = {}
        about = [{limit.reason for limit in declared.score.limits} for declared in self._declared]
        for place, (score, *_) in enumerate(self._declared):
            own = about[place]
            if any(own & other for at, other in enumerate(about) if at != place):
                # One test checks the limits of several scores: without the limits of this score, it gives the rows that
                # pass the others.
                try:
                    tests = without_limits(self.stage, score.limits).tests(scores)
                except Exception:  # code of the filter's author, which may not handle these limits
                    tests = self.stage.tests(scores)
                found[score.name] = ~np.any(
                    [to_numpy(pc.fill_null(test, scalar(True))).astype(bool) for test in tests.values()], axis=0
                )
                continue
            mine = sum((failed[reason].astype(int) for reason in own if reason in failed), np.zeros(rows, int))
            found[score.name] = total == mine
        return found

    def _sides(self, key: TaskKey, kept: int, dropped: dict[str, int]) -> None:
        if kept:
            self._rows.count(key, self.name, "side", "kept", [""], [kept])
        if dropped:
            self._rows.count(key, self.name, "side", "dropped", list(dropped), list(dropped.values()))

    def _samples(self, key: TaskKey, rows: _Rows, verdicts: Verdicts, values: dict[str, _Numbers]) -> list[Chosen]:
        assert self._declared is not None
        numbers = row_numbers(f"{self.name}\0{key.source}{key.path}", len(verdicts.kept), self.options.seed)
        chosen = self._first("").choose(verdicts, None, numbers)
        mode = getattr(self.stage, "mode", "")
        if mode != "annotate":
            for reason in verdicts.reasons:
                chosen += self._mapped(key, rows, reason, verdicts.of(reason))
        for score, _, _, limits in self._declared:
            found = values.get(score.name)
            if found is None:
                continue
            for limit, near, edge in limits:
                distances = found[0] - limit.value
                np.abs(distances, out=distances)
                # Only rows beyond this limit count: a row that was dropped for another limit is not near this one.
                beyond = Beyond(
                    verdicts,
                    found[0],
                    None if mode == "invert" else edge,
                    low=limit.keeps == "at least",
                    reason=limit.reason,
                )
                chosen += self._first(near).choose(beyond, distances, numbers)
        return chosen

    def _first(self, near: str) -> Firsts:
        found = self._firsts.get(near)
        if found is None:
            kept, dropped = (
                rows_kept(self.options.samples, side, near=bool(near), limited=self._limited)
                for side in ("kept", "dropped")
            )
            found = self._firsts[near] = Firsts(near, kept, dropped)
        return found

    def _keep(self, key: TaskKey, rows: _Rows, chosen: list[Chosen], values: dict[str, _Numbers]) -> None:
        """Copy the chosen rows of a batch."""
        if chosen:
            take = _Taken(self, key, rows, chosen, values)
            self._taken.append(take)
            self._waiting += len(take.rows)
            self._waiting_bytes += take.picture_bytes
            if self._waiting > ROWS_WAITING or self._waiting_bytes > PICTURES_WAITING:
                self._settle()

    def _settle(self) -> None:
        """Add the waiting rows that are still among the first."""
        for take in self._taken:
            for key, values in take.settle():
                self._rows.sample(key, values)
        self._taken, self._waiting, self._waiting_bytes = [], 0, 0

    def at_fault(self, text: str | None, reason: str) -> list[tuple[int, int]]:
        """The passages for which the stage has dropped a text, if it can tell."""
        find = getattr(self.stage, "at_fault", None)
        if not text or find is None:
            return []
        found: list[tuple[int, int]] = []
        size = beyond = len(text)
        try:
            for start, end in islice(find(text, reason), SPANS_KEPT):
                if 0 <= start < end <= size:
                    if not found:
                        beyond = start + TEXT_KEPT
                    found.append((int(start), int(end)))
                    if start > beyond:
                        break  # nothing is shown this far from the first passage
        except Exception:  # code of the stage's author: an extra must not fail the run
            return []
        return sorted(found)

    def shown_of(self, schema: pa.Schema) -> _Shown:
        """The columns to show for a row; cached, since most tables have the same schema."""
        if self._shown is None or not schema.equals(self._shown[0]):
            names = [field.name for field in schema if _is_shown(field.type)]
            # The column that the stage reads, or one with a common name.
            usual = (getattr(self.stage, "column", None), self.options.text, *_TEXTS)
            text = next(
                (n for n in usual if isinstance(n, str) and n in names and _is_text(schema.field(n).type)), None
            )
            identity = next((name for name in _IDS if name in names), None)
            kept = [name for name in names[:COLUMNS_KEPT] if name != text]
            wanted = list(dict.fromkeys([*kept, *(name for name in (text, identity) if name)]))
            self._shown = schema, _Shown(text, identity, [name for name in wanted if name != text], wanted)
        return self._shown[1]

    def picture(self, batch: type[DocumentBatch], value: bytes | None) -> bytes | None:
        """A small JPEG of a row, if its batch can make one; cached, since a row may be near to the limits of several
        filters.
        """
        if value is None:
            return None
        key = hashlib.blake2b(value, digest_size=16).digest()
        pictures = self._rows.pictures
        if key not in pictures:
            try:
                made = batch.thumbnail(value)
            except Exception:  # code of the batch's author: an extra must not fail the run
                made = None
            if len(pictures) >= PICTURES_HELD:
                pictures.clear()
            whole = made is not None and len(made) <= PICTURE_KEPT and made[:3] == b"\xff\xd8\xff"
            pictures[key] = made if whole else None
        return pictures[key]

    def _named(
        self, key: TaskKey, task: DocumentBatch, which: dict[str, list[Any]], scored: Scored | None = None
    ) -> None:
        """Record the verdict of a stage that is not a filter but says which rows it drops."""
        groups = {
            reason: np.concatenate([np.atleast_1d(np.asarray(piece, np.int64)) for piece in pieces])
            for reason, pieces in which.items()
        }
        if self.options.by and groups:
            self._by_dropped(key, task.to_pyarrow().take(array(np.concatenate(list(groups.values())))))
        sides: list[tuple[str | None, np.ndarray[Any, Any]]] = []
        kept = np.ones(task.num_rows, bool)
        for reason, rows in groups.items():
            among = np.zeros(task.num_rows, bool)
            among[rows] = True
            kept &= ~among
            sides.append((reason, among))
        shows_kept = self.stage.shows_kept
        if shows_kept:
            sides.append((None, kept))
        numbers = row_numbers(f"{self.name}\0{task.task_id}", task.num_rows, self.options.seed)
        of, chosen = _Rows.of(task), list[Chosen]()
        for side, among in sides:
            if self.options.samples:
                chosen += self._first("").first(side, among, None, numbers)
                if scored is not None:
                    near = self._first(f"{scored.name}\0{scored.limit}")
                    chosen += near.first(side, among, scored.distances, numbers)
            if side is not None:
                chosen += self._mapped(key, of, side, among)
        values: dict[str, _Numbers] = {} if scored is None else {scored.name: (np.asarray(scored.values, float), None)}
        self._keep(key, of, chosen, values)
        counts = {reason: len(rows) for reason, rows in groups.items()}
        self._sides(key, int(kept.sum()) if shows_kept else 0, counts)

    def score_of(self, reason: str | None, near: str) -> str | None:
        """The name of the score that decides about a row near a limit, or about one that is dropped for a reason."""
        if near or reason is None:
            return near.partition("\0")[0] or None
        declared = self._declared or ()
        for score, *_ in declared:
            if any(limit.reason == reason for limit in score.limits):
                return score.name
        return declared[0].score.name if len(declared) == 1 else None


class _Rows(NamedTuple):
    """The rows of a batch as they were when a stage judged them: a later stage may put another table into the batch."""

    batch: DocumentBatch
    table: pa.Table | None  # None if the rows are a frame
    places: Places | None

    @classmethod
    def of(cls, batch: DocumentBatch) -> _Rows:
        return cls(batch, batch.data if isinstance(batch.data, pa.Table) else None, places_of(batch))

    def as_table(self) -> pa.Table:
        return self.batch.to_pyarrow() if self.table is None else self.table


class _Taken:
    """Copies of the chosen rows of one batch, which wait until they are written.

    Most rows are chosen early and replaced by others before the next flush. So the costly work (converting a row and
    finding the passages at fault) is done only for the rows that are left at the flush. The batch itself is not held:
    if a worker held the batches of a second, with the values derived from them, it would need new memory for each batch
    instead of reusing the same memory.
    """

    __slots__ = (
        "_brief",
        "_chosen",
        "_columns",
        "_identity",
        "_key",
        "_kind",
        "_pictures",
        "_places",
        "_seer",
        "_text",
        "_values",
        "_vectors",
        "picture_bytes",
        "rows",
    )

    def __init__(
        self,
        seer: StageSeer,
        key: TaskKey,
        of: _Rows,
        chosen: list[Chosen],
        values: dict[str, _Numbers],
    ) -> None:
        self._seer, self._key, self._chosen, self._kind = seer, key, chosen, type(of.batch)
        rows = sorted({one.row for one in chosen})
        self.rows = {row: place for place, row in enumerate(rows)}
        table = of.as_table()
        shown = seer.shown_of(table.schema)
        # The column that is shown as the row's text, its name, and the columns that are shown beside the text.
        self._text, self._identity, self._brief = shown.text, shown.identity, shown.brief
        # Only a few rows are taken from most batches; for these, `take` and its arrays would be slower.
        columns = [(name, table[name]) for name in shown.wanted]
        self._columns = {name: [column[row].as_py() for row in rows] for name, column in columns}
        self._pictures: list[bytes | None] = []  # the values that pictures of the rows are made from
        self.picture_bytes = 0
        drawn = of.batch.picture_column
        if drawn is not None and drawn in table.column_names and _is_binary(table.schema.field(drawn).type):
            self._pictures = [table[drawn][row].as_py() for row in rows]
            self.picture_bytes = sum(len(picture or b"") for picture in self._pictures)
        self._vectors: pa.ChunkedArray | None = None  # embeddings of the rows
        if any(one.near == MAP for one in chosen):
            vectors = _vectors_of(table)
            self._vectors = None if vectors is None else vectors.take(array(np.array(rows, np.int64)))
        self._values = {name: found[0][rows].tolist() for name, found in values.items()}
        self._places = [(_file_of(of.batch), "")] * len(rows) if of.places is None else of.places.of(rows)

    def settle(self) -> Iterator[tuple[TaskKey, tuple[Any, ...]]]:
        """The rows that are still among the first, as samples."""
        left: dict[int, list[tuple[Chosen, int]]] = {}
        for one in self._chosen:
            rank = one.best.rank(one.distance, one.number)
            if rank is not None:
                left.setdefault(self.rows[one.row], []).append((one, rank))
        seer, columns, text_name, identity = self._seer, self._columns, self._text, self._identity
        for place, entries in sorted(left.items()):
            source, position = self._places[place]
            scores = {name: found[place] for name, found in self._values.items() if math.isfinite(found[place])}
            encoded = words_as_json(scores)
            text = columns[text_name][place] if text_name else None
            name = columns[identity][place] if identity else None
            name = None if name is None else str(whole_as_integers(name))
            brief: str | None = None
            parts: dict[str, tuple[int, int, str | None, list[int]]] = {}
            for (_, why, near, row, distance, number), rank in entries:
                side, reason = ("kept", "") if why is None else ("dropped", why)
                score = None if near == MAP else seer.score_of(why, near)
                if near == MAP:
                    vector = self._vector(place)
                    if vector is not None:
                        numbers = ((key, columns[key][place]) for key in self._brief)
                        of_row = {k: v for k, v in numbers if isinstance(v, float) and math.isfinite(v)}
                        cut, length, part, spans = _shown(text[:MAP_TEXT_KEPT] if text else text, [])
                        first = next(iter(scores), None) if score is None and len(self._values) == 1 else score
                        yield self._key, (
                            seer.name, side, reason, "", distance, number, row, scores.get(first) if first else None,
                            as_json(scores | of_row), name, source, position, part, cut, length, spans, "{}", None,
                            vector,
                        )  # fmt: skip
                    continue
                if brief is None:
                    shown = ((key, _brief(columns[key][place])) for key in self._brief)
                    brief = words_as_json({key: value for key, value in shown if value is not None})
                fault = reason if side == "dropped" else ""
                if fault not in parts:
                    parts[fault] = _shown(text, seer.at_fault(text, reason) if side == "dropped" else [])
                cut, length, part, spans = parts[fault]
                first = score or (next(iter(scores), None) if len(self._values) == 1 else None)
                pictured = self._pictures and rank < MOST_PICTURES
                picture = seer.picture(self._kind, self._pictures[place]) if pictured else None
                yield self._key, (
                    seer.name, side, reason, near, distance, number, row, scores.get(first) if first else None, encoded,
                    name, source, position, part, cut, length, spans, brief, picture, None,
                )  # fmt: skip

    def _vector(self, place: int) -> bytes | None:
        """The embedding of a row in half precision, scaled to a largest value of 1; None if a map cannot use it."""
        assert self._vectors is not None
        value = np.array(self._vectors[place].as_py(), np.float64)
        largest = np.max(np.abs(value), initial=0.0)
        return (value / largest).astype("<f2").tobytes() if 0 < largest < np.inf else None


def _vectors_of(table: pa.Table) -> pa.ChunkedArray | None:
    """The embeddings of a batch: its first column of lists of floats of equal length."""
    return next((table[field.name] for field in table.schema if _is_vector(field.type)), None)


def _shown(text: str | None, spans: list[tuple[int, int]]) -> tuple[int, int, str | None, list[int]]:
    """The part of a text that is kept, around the passages at fault: the number of characters before it, the length of
    the text, the part itself, and its spans.
    """
    if text is None:
        return 0, 0, None, []
    start = 0
    if len(text) > TEXT_KEPT and spans:
        start = max(0, min(spans[0][0] - TEXT_KEPT // 4, len(text) - TEXT_KEPT))
    shown = text[start : start + TEXT_KEPT]
    size = len(shown)
    marks: list[int] = []
    for begin, end in spans:  # there may be hundreds
        first = begin - start if begin > start else 0
        last = end - start if end - start < size else size
        if first < last:
            marks += (first, last)
    return start, len(text), shown, marks


def _floats(column: pa.Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Scores as floats, and which of them are null, if any are."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if not column.null_count:
        return to_numpy(column).astype(np.float64, copy=False), None
    nulls = to_numpy(column.is_null()).astype(bool)
    return to_numpy(column.cast(pa.float64())).astype(np.float64), nulls


def _counted(reasons: pa.Array | str, lost: int) -> dict[str, int]:
    if not lost:
        return {}
    if isinstance(reasons, str):
        return {reasons: lost}
    return {entry["values"].as_py(): entry["counts"].as_py() for entry in reasons.value_counts()}


def _file_of(batch: DocumentBatch) -> str:
    """The file that a batch's rows come from, or the first of several."""
    files = batch._metadata.get("source_files")
    first = files[0] if isinstance(files, list) and files else ""
    return str(first[0] if isinstance(first, list | tuple) and first else first)


def sized_column(table: pa.Table, text: str) -> str | None:
    """The column that holds the main content of rows, which measures their size."""
    return next((name for name in (text, *_SIZED) if name in table.column_names), None)


def _row_bytes(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    kind = column.type
    if _is_text(kind):
        column = column.cast(pa.large_string())
    elif not _is_binary(kind):
        return np.zeros(len(column), np.int64)
    return to_numpy(pc.fill_null(pc.binary_length(column), scalar(0))).astype(np.int64)


def _as_words(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """The values of a column as text; ``(none)`` if there is no value."""
    if isinstance(column.type, pa.BaseExtensionType) or pa.types.is_nested(column.type):
        texts = array([None if v is None else as_json(v) for v in column.to_pylist()], pa.string())
    else:
        texts = column.cast(pa.string())
    texts = pc.fill_null(texts, scalar("(none)"))
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    return texts.dictionary_encode()


# The format of the offsets of text or bytes: the code of `struct`, and the width.
_OFFSETS = {
    pa.string().id: ("<i", 4),
    pa.binary().id: ("<i", 4),
    pa.large_string().id: ("<q", 8),
    pa.large_binary().id: ("<q", 8),
}


def _column_bytes(column: pa.ChunkedArray) -> int:
    """The number of bytes of all values of a column of texts or bytes; 0 for any other column."""
    kind = column.type
    offsets = _OFFSETS.get(kind.id)
    if offsets is None or column.null_count:
        if not (offsets is not None or _is_text(kind)):
            return 0
        values = column.cast(pa.large_string()) if _is_text(kind) else column
        return int(pc.sum(pc.binary_length(values)).as_py() or 0)
    code, width = offsets
    total = 0
    for chunk in column.chunks:
        if len(chunk):
            # Only two numbers of the buffer are read, because making an array would be slow for tasks of one row.
            buffer, first = chunk.buffers()[1], chunk.offset
            (start,) = unpack_from(code, buffer, first * width)
            (end,) = unpack_from(code, buffer, (first + len(chunk)) * width)
            total += end - start
    return total


def _is_empty(column: pa.ChunkedArray) -> bool:
    """Whether every value of a column is null, or a text or bytes of length 0. Only counts and lengths are read."""
    if column.null_count == len(column):
        return True
    return (_is_text(column.type) or _is_binary(column.type)) and not _column_bytes(column)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_vector(kind: pa.DataType) -> bool:
    """Whether a column holds embeddings: lists of floats of equal length, two or more."""
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type) and kind.list_size > 1)


def _is_shown(kind: pa.DataType) -> bool:
    """Whether the values of a column may be short enough to be shown beside a text."""
    if isinstance(kind, pa.BaseExtensionType) or _is_binary(kind):
        return False
    return not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _brief(value: Any) -> Any:
    """A value to show beside a text: a number, a word, a date, cut if it is long; None if there is nothing to show."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= VALUE_KEPT else f"{text[:VALUE_KEPT]}…"
