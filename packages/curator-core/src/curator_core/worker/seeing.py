"""What does a worker keep of a stage's work to be seen: counts of scores in bins, sizes, and a few rows of the data?

Which rows are kept depends on the rows alone: each has a number from its task's id and its place there, and those with the
smallest are kept; beside a limit those with the nearest scores. So a worker may forget a row as soon as it has seen enough that
come before it, and what all workers have kept holds the first of the whole run, whoever saw which.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.accounts.seen_rows import SeenRows, TaskKey, as_json
from curator_core.arrow.arrays import to_numpy
from curator_core.arrow.row_hash import lineage_numbers
from curator_core.model.places import places_of
from curator_core.model.recorder import Judged, Recorder
from curator_core.model.scores import Score
from curator_core.model.seen_options import SeenOptions
from curator_core.model.task import DocumentBatch, FileGroupTask, Task
from curator_core.planning.plan import PlannedStage
from curator_core.stages.column_filter import ColumnFilter

TEXT_KEPT = 2_000
VALUE_KEPT = 200
COLUMNS_KEPT = 16
_IDS = ("id", "key")
_TEXTS = ("text", "caption", "content", "url")
_SIZED = ("text", "bytes", "caption")

CountTokens = Callable[[Sequence[str]], Sequence[int]]


class _Best:
    """The first rows of one kind that a worker has seen, by distance and number."""

    __slots__ = ("keys", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.keys: list[tuple[float, int]] = []

    def choose(
        self, rows: np.ndarray[Any, Any], distances: np.ndarray[Any, Any] | None, numbers: np.ndarray[Any, Any]
    ) -> list[tuple[int, float, int]]:
        """Of these rows the ones that are among the first so far, with their distance and number."""
        if not len(rows):
            return []
        mine = numbers[rows]
        far = np.zeros(len(rows)) if distances is None else distances[rows]
        if len(self.keys) == self.most:
            worst, number = self.keys[-1]
            first = (
                mine < np.uint64(number)
                if distances is None
                else (far < worst) | ((far == worst) & (mine < np.uint64(number)))
            )
            if not first.any():
                return []
            rows, mine, far = rows[first], mine[first], far[first]
        if len(rows) > self.most:
            order = np.lexsort((mine, far))[: self.most]
            rows, mine, far = rows[order], mine[order], far[order]
        chosen = []
        for row, distance, number in zip(rows.tolist(), far.tolist(), mine.tolist(), strict=True):
            key = (distance, number)
            if len(self.keys) == self.most and key >= self.keys[-1]:
                continue
            bisect.insort(self.keys, key)
            del self.keys[self.most :]
            chosen.append((row, distance, number))
        return chosen


class StageSeer:
    """Looks at the work of one stage in one worker."""

    def __init__(self, planned: PlannedStage, options: SeenOptions, attempt: int, rows: SeenRows) -> None:
        self._name = planned.name
        self._stage = planned.stage
        self._options = options
        self._attempt = attempt
        self._rows = rows
        self._best: dict[tuple[str, str, str], _Best] = {}
        self._declared: list[tuple[Score, np.ndarray[Any, Any]]] | None = None

    # Rows that come and go ----------------------------------------------------------------------------------------

    def entered(self, task: Task[Any]) -> None:
        """The rows of a task that has come into the pipeline."""
        self._size("in", task)

    def left(self, task: Task[Any]) -> None:
        """The rows of a task that have come to the end."""
        self._size("out", task)

    def _size(self, kind: str, task: Task[Any]) -> None:
        if not isinstance(task, DocumentBatch):
            return
        key, table = TaskKey.of(task, self._attempt), task.to_pyarrow()
        sizes = _sizes(table, self._options.text)
        tokens = None
        total = int(sizes.sum()) if isinstance(sizes, np.ndarray) else sizes
        self._rows.count(key, "", kind, _file_of(task), [], [table.num_rows], [total], tokens)

    # Rows that a filter judges ------------------------------------------------------------------------------------

    def saw(self, task: Task[Any], recorder: Recorder) -> None:
        """What the stage has recorded of one task."""
        key = TaskKey.of(task, self._attempt)
        if recorder.judged is not None:
            self._judged(key, task, recorder.judged)
        elif recorder.which and isinstance(task, DocumentBatch):
            self._named(key, task if recorder.of is None else recorder.of, recorder.which)

    def dropped_whole(self, task: Task[Any], reason: str) -> None:
        """The stage has dropped a task with all its rows."""
        if isinstance(task, DocumentBatch) and task.num_rows:
            self._named(TaskKey.of(task, self._attempt), task, {reason: [np.arange(task.num_rows)]})

    def _judged(self, key: TaskKey, task: Task[Any], judged: Judged) -> None:
        batch, stage = judged.batch, self._stage
        assert isinstance(stage, ColumnFilter)
        kept = to_numpy(judged.kept).astype(bool)
        parts = stage.score_parts(judged.scores)
        if self._declared is None:
            self._declared = [(score, np.array(score.edges)) for score in stage.declared_scores()]
        values = {name: _floats(column) for name, column in parts.items()}
        free = self._free(judged.scores, len(kept))
        for score, edges in self._declared:
            if score.name in values:
                numbers, nulls = values[score.name]
                others = free.get(score.name)
                self._rows.score(
                    key,
                    self._name,
                    score.name,
                    score.scale,
                    edges,
                    numbers,
                    nulls,
                    kept,
                    np.ones(len(kept), bool) if others is None else others,
                )
        lost = np.flatnonzero(~kept)
        self._sides(key, int(kept.sum()), _counted(judged.reasons, len(lost)))
        if self._options.samples and len(kept):
            self._sample(key, task, batch, kept, lost, judged.reasons, values)

    def _free(self, scores: pa.Array, rows: int) -> dict[str, np.ndarray[Any, Any]]:
        """For each score of several, which rows pass all tests but those of its own limits."""
        assert self._declared is not None
        assert isinstance(self._stage, ColumnFilter)
        if len(self._declared) < 2:
            return {}
        failed = {
            reason: to_numpy(pc.fill_null(found, True)).astype(bool)
            for reason, found in self._stage.tests(scores).items()
        }
        total = np.sum(list(failed.values()), axis=0) if failed else np.zeros(rows, int)
        found = {}
        for score, _ in self._declared:
            own = {limit.reason for limit in score.limits}
            mine = sum((failed[reason].astype(int) for reason in own if reason in failed), np.zeros(rows, int))
            found[score.name] = total == mine
        return found

    def _sides(self, key: TaskKey, kept: int, dropped: dict[str, int]) -> None:
        if kept:
            self._rows.count(key, self._name, "side", "kept", [""], [kept])
        if dropped:
            self._rows.count(key, self._name, "side", "dropped", list(dropped), list(dropped.values()))

    def _sample(
        self,
        key: TaskKey,
        task: Task[Any],
        batch: DocumentBatch,
        kept: np.ndarray[Any, Any],
        lost: np.ndarray[Any, Any],
        reasons: pa.Array | str,
        values: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]],
    ) -> None:
        assert self._declared is not None
        numbers = lineage_numbers(f"{self._name}\0{task.task_id}", len(kept), self._options.seed)
        stay = np.flatnonzero(kept)
        groups = _grouped(lost, reasons)
        take = _Taken(self, key, batch, values)
        take.all("kept", "", "", self._of("kept", "", "").choose(stay, None, numbers), None)
        for reason, rows in groups.items():
            take.all(
                "dropped",
                reason,
                "",
                self._of("dropped", reason, "").choose(rows, None, numbers),
                self._score_of(reason),
            )
        for score, _ in self._declared:
            found = values.get(score.name)
            if found is None:
                continue
            for limit in score.limits:
                near = f"{score.name}\0{limit.parameter}"
                distances = np.abs(found[0] - limit.value)
                usable = np.isfinite(distances)
                with np.errstate(invalid="ignore"):
                    above = found[0] >= limit.edge()
                passes = above if limit.keeps == "at least" else ~above
                close = stay[usable[stay]]
                take.all("kept", "", near, self._of("kept", "", near).choose(close, distances, numbers), score.name)
                for reason, rows in groups.items():
                    if limit.reason and reason != limit.reason:
                        continue
                    # On the other side of this limit: a row that broke another one is not near to this.
                    close = rows[
                        usable[rows] & (~passes[rows] if getattr(self._stage, "mode", "") != "invert" else True)
                    ]
                    take.all(
                        "dropped",
                        reason,
                        near,
                        self._of("dropped", reason, near).choose(close, distances, numbers),
                        score.name,
                    )

    def _named(self, key: TaskKey, task: DocumentBatch, which: dict[str, list[Any]]) -> None:
        """A stage that is not a filter and says which rows it drops."""
        if not self._options.samples:
            return
        numbers = lineage_numbers(f"{self._name}\0{task.task_id}", task.num_rows, self._options.seed)
        take = _Taken(self, key, task, {})
        counts = {}
        for reason, pieces in which.items():
            rows = np.concatenate([np.atleast_1d(np.asarray(piece, np.int64)) for piece in pieces])
            counts[reason] = len(rows)
            take.all("dropped", reason, "", self._of("dropped", reason, "").choose(rows, None, numbers), None)
        self._sides(key, 0, counts)

    def _of(self, side: str, reason: str, near: str) -> _Best:
        best = self._best.get((side, reason, near))
        if best is None:
            best = self._best[side, reason, near] = _Best(self._options.samples)
        return best

    def _score_of(self, reason: str) -> str | None:
        assert self._declared is not None
        for score, _ in self._declared:
            if any(limit.reason == reason for limit in score.limits):
                return score.name
        return self._declared[0][0].name if len(self._declared) == 1 else None


class _Taken:
    """Puts chosen rows of one batch into the samples; what they share is computed once."""

    def __init__(
        self,
        seer: StageSeer,
        key: TaskKey,
        batch: DocumentBatch,
        values: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]],
    ) -> None:
        self._seer, self._key, self._batch, self._values = seer, key, batch, values
        self._known: dict[int, tuple[Any, ...]] = {}

    def all(self, side: str, reason: str, near: str, chosen: list[tuple[int, float, int]], score: str | None) -> None:
        for row, distance, number in chosen:
            if row not in self._known:
                self._known[row] = self._of_row(row)
            scores, place, text, columns = self._known[row]
            first = next(iter(scores)) if score is None and len(scores) == 1 else score
            cut, length, shown, spans = _shown(text, self._spans(side, reason, text))
            seer = self._seer
            seer._rows.sample(
                self._key,
                (
                    seer._name, side, reason, near, distance, number, row,
                    scores.get(first) if first else None, as_json({name: value for name, value in scores.items() if value is not None}),
                    *place, shown, cut, length, spans, columns,
                ),
            )  # fmt: skip

    def _spans(self, side: str, reason: str, text: str | None) -> list[tuple[int, int]]:
        at_fault = getattr(self._seer._stage, "at_fault", None)
        if not text or at_fault is None:
            return []
        try:
            return sorted(
                (int(start), int(end)) for start, end in at_fault(text, reason) if 0 <= start < end <= len(text)
            )
        except Exception:  # code of the stage's author, asked for an ornament: a run does not fail for it
            return []

    def _of_row(self, row: int) -> tuple[Any, ...]:
        table = self._batch.to_pyarrow()
        scores = {name: _number(found, row) for name, found in self._values.items()}
        one = table.slice(row, 1)
        names = table.column_names
        identity = next((one[name][0].as_py() for name in _IDS if name in names), None)
        places = places_of(self._batch)
        source, position = places.at(row) if places is not None else (_file_of(self._batch), "")
        text_column = self._text_column(names)
        text = None
        if text_column is not None:
            value = one[text_column][0].as_py()
            text = value if isinstance(value, str) else None
        columns = {}
        for name in names[:COLUMNS_KEPT]:
            if name != text_column and (value := _brief(one[name])) is not None:
                columns[name] = value
        place = (None if identity is None else str(identity), source, position)
        return scores, place, text, as_json(columns)

    def _text_column(self, names: Sequence[str]) -> str | None:
        own = getattr(self._seer._stage, "column", None)
        for name in (own, self._seer._options.text, *_TEXTS):
            if isinstance(name, str) and name in names and _is_text(self._batch.to_pyarrow().schema.field(name).type):
                return name
        return None


def _shown(text: str | None, spans: list[tuple[int, int]]) -> tuple[int, int, str | None, list[int]]:
    """Of a text as much as is kept, around what is at fault: what is before it, its length, itself, and where to mark it."""
    if text is None:
        return 0, 0, None, []
    start = 0
    if len(text) > TEXT_KEPT and spans:
        start = max(0, min(spans[0][0] - TEXT_KEPT // 4, len(text) - TEXT_KEPT))
    shown = text[start : start + TEXT_KEPT]
    inside = [(max(a - start, 0), min(b - start, len(shown))) for a, b in spans[:200]]
    return start, len(text), shown, [edge for a, b in inside if a < b for edge in (a, b)]


def _floats(column: pa.Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Scores as floats, and which of them are null, if any are."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if not column.null_count:
        return to_numpy(column).astype(np.float64), None
    nulls = to_numpy(column.is_null()).astype(bool)
    return to_numpy(column.cast(pa.float64())).astype(np.float64), nulls


def _number(found: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None], row: int) -> float | None:
    value = float(found[0][row])
    return value if math.isfinite(value) else None


def _grouped(lost: np.ndarray[Any, Any], reasons: pa.Array | str) -> dict[str, np.ndarray[Any, Any]]:
    if not len(lost):
        return {}
    if isinstance(reasons, str):
        return {reasons: lost}
    found = reasons.dictionary_encode()
    codes = to_numpy(found.indices)
    return {word: lost[codes == code] for code, word in enumerate(found.dictionary.to_pylist())}


def _counted(reasons: pa.Array | str, lost: int) -> dict[str, int]:
    if not lost:
        return {}
    if isinstance(reasons, str):
        return {reasons: lost}
    return {entry["values"].as_py(): entry["counts"].as_py() for entry in reasons.value_counts()}


def _file_of(task: Task[Any]) -> str:
    """The file that a task's rows come from; of several the first."""
    if isinstance(task, FileGroupTask) and task.data:
        return task.data[0]
    files = task._metadata.get("source_files")
    first = files[0] if isinstance(files, list) and files else ""
    return str(first[0] if isinstance(first, list | tuple) and first else first)


def _sizes(table: pa.Table, text: str) -> int:
    """How many bytes the values of the column have that stands for the rows' content."""
    name = next((name for name in (text, *_SIZED) if name in table.column_names), None)
    return 0 if name is None else sum(_bytes_of(chunk) for chunk in table[name].chunks)


def _bytes_of(chunk: pa.Array) -> int:
    kind = chunk.type
    if not (_is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) or not len(chunk):
        return 0
    wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    if chunk.null_count or pa.types.is_dictionary(kind) or pa.types.is_string_view(kind):
        return int(pc.sum(pc.binary_length(chunk.cast(pa.large_string()) if _is_text(kind) else chunk)).as_py() or 0)
    offsets = np.frombuffer(chunk.buffers()[1], np.int64 if wide else np.int32)
    return int(offsets[chunk.offset + len(chunk)]) - int(offsets[chunk.offset])


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _brief(column: pa.ChunkedArray) -> Any:
    """A value that is short enough to be shown beside a text: a number, a word, a date; None for anything else."""
    kind = column.type
    if (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_list(kind)
        or pa.types.is_fixed_size_list(kind)
    ):
        return None
    if isinstance(kind, pa.BaseExtensionType):
        return None
    value = column[0].as_py()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= VALUE_KEPT else f"{text[:VALUE_KEPT]}…"
