"""What does a run show of its data? Scores in bins, samples of rows, and counts by source, folder and column, all from
the events that count.

`read_seen` reads what the workers have written. Of a task that was interrupted or run again, only the attempt that
counts in the ledger is used, so the numbers agree with the report.
"""

from __future__ import annotations

import base64
import json
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core import storage
from curator_core.accounts.accounts import Accounts
from curator_core.accounts.ledger import open_accounts
from curator_core.accounts.seen_rows import MOST_PICTURES, MOST_VALUES, OTHERS, SAMPLE_SCHEMA, SEEN_SCHEMA
from curator_core.accounts.seen_sums import WHOLE, summed
from curator_core.accounts.table_files import ENDINGS, read_folder, size_of, write_parquet
from curator_core.arrow.arrays import array, distinct, grouped, null, to_numpy
from curator_core.errors import RunRefused
from curator_core.model.scores import Limit, unpacked_edges
from curator_core.model.seen_options import rows_kept

_INDEX = ["run_source", "generation", "attempt", "path", "stage", "kind", "name", "scale"]
BYTES_PER_TOKEN = 4
# Counts of up to this many bytes are read once and held in memory. Larger ones are read in two passes; the first reads
# only the columns that say which rows count.
_HELD_BYTES = 4 << 20
# Counts by task may take up to this many bytes; larger ones are added up by source if that leaves less than half of the
# rows.
SUM_BYTES = 4 << 20
_WORTH = 0.5
# Small tables are joined up to this many rows, because a call takes as long for a small table as for many rows.
_ROWS_AT_ONCE = 50_000
# This bit marks the key of a sum; the keys of tasks do not have it.
_SUM = 1 << 62
# Sample rows are read until this many wait; then the best of them are chosen.
_SAMPLES_WAITING = 20_000
_DECODER = json.JSONDecoder()


@dataclass
class ScoreSeen:
    """The distribution of a score over all rows. ``counts[i]`` rows have a score from ``edges[i]`` up to, but not
    including, ``edges[i + 1]``; ``below`` and ``above`` count the rows outside of the edges. ``kept`` counts the rows
    that stayed. ``free`` counts the rows that pass all tests of the filter except the limits of this score: a limit
    moved to an edge would keep exactly the free rows on its side.
    """

    name: str
    column: str
    limits: list[Limit]
    edges: list[float]
    integers: bool
    counts: list[int]
    kept: list[int]
    free: list[int]
    below: int = 0
    above: int = 0
    kept_below: int = 0
    kept_above: int = 0
    free_below: int = 0
    free_above: int = 0
    nulls: int = 0
    nans: int = 0
    rows: int = 0
    min: float | None = None
    max: float | None = None


@dataclass
class Sample:
    """A row that was kept as a sample. ``text`` is a part of the whole text: it begins after ``cut`` characters, and
    the whole text has ``length`` characters. ``spans`` mark the passages in ``text`` that the row was dropped for.
    ``near`` says whether the row was chosen because its score is close to ``limit``, and ``distance`` how close.
    ``picture`` is a small JPEG if the row has a picture.
    """

    side: str
    reason: str
    near: bool
    limit: str
    score_name: str
    score: float | None
    scores: dict[str, float]
    id: str | None
    source: str
    position: str
    task: str
    row: int
    text: str | None
    cut: int
    length: int
    spans: list[list[int]]
    columns: dict[str, Any]
    picture: bytes | None = None
    distance: float | None = None

    @property
    def marked(self) -> str:
        """The passages of the text that the row was dropped for."""
        return " … ".join((self.text or "")[start:end] for start, end in self.spans)


@dataclass
class MapRow:
    """A row for a map of embeddings: where it left the pipeline (``stage``), whether it was dropped there, and its vector."""

    stage: str
    side: str
    reason: str
    id: str | None
    source: str
    position: str
    text: str | None
    scores: dict[str, float]
    vector: bytes


@dataclass
class StageSeen:
    """What a run shows of one stage. ``of`` says how many rows the samples are drawn from: dropped ones (by reason) and
    kept ones.

    If the overlap of filters was measured, ``alone`` is the number of rows that the filter alone would drop of those
    that reach the first filter of its neighbours; ``first`` is the number that it is the first to drop, and ``anyway``
    how many of these a later filter would drop as well. ``empty`` are the columns of the output of the stage that have no
    value in any row, apart from those that are often empty.
    """

    name: str
    describe: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    mode: str = "filter"
    scores: list[ScoreSeen] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    of: dict[str, Any] = field(default_factory=lambda: {"dropped": {}, "kept": 0})
    alone: int | None = None
    first: int | None = None
    anyway: int | None = None
    empty: list[str] = field(default_factory=list)


@dataclass
class Counted:
    """The rows of one source, folder, or value of a column."""

    value: str
    rows_in: int = 0
    rows_out: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, other: Counted) -> None:
        # By name, not in a loop over names: there may be a million sources.
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out
        self.rejected += other.rejected
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.tokens_in += other.tokens_in
        self.tokens_out += other.tokens_out
        for stage, rows in other.dropped.items():
            self.dropped[stage] = self.dropped.get(stage, 0) + rows


@dataclass
class Seen:
    """Everything that a run shows of its data. ``tokens`` says how tokens were counted. ``overlap`` has, for each
    filter, the number of rows that both it and each of its neighbours would drop.
    """

    stages: dict[str, StageSeen] = field(default_factory=dict)
    by: dict[str, list[Counted]] = field(default_factory=dict)
    overlap: dict[str, dict[str, int]] = field(default_factory=dict)
    map: list[MapRow] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    tokens: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; a limit is a mapping."""
        found = asdict(self)
        for row in found["map"]:
            row["vector"] = base64.b64encode(row["vector"]).decode()
        for stage, plain in zip(self.stages.values(), found["stages"].values(), strict=True):
            for sample, entry in zip(stage.samples, plain["samples"], strict=True):
                entry["marked"] = sample.marked
                entry["picture"] = data_uri(sample.picture)
        return found


def read_seen(run_dir: str, accounts: Accounts | None = None) -> Seen:
    """Read what a run shows of its data; the result is empty if the run kept nothing. Each step of a workflow has a run
    directory of its own. ``accounts`` are the accounts of the run, if the caller has read them already.
    """
    declared = _declared(run_dir)
    if not declared:
        return Seen()
    seen = Seen(options=declared[-1]["options"], tokens=_said_tokens(declared[-1]["options"]))
    for entry in declared[-1]["stages"]:
        seen.stages[entry["name"]] = StageSeen(
            entry["name"], entry["describe"], entry["settings"], entry.get("mode", "filter")
        )
    accounts = accounts or open_accounts(run_dir)
    sums = _Sums()
    for table in _joined(_counting(run_dir, accounts)):
        sums.add(table)
    _put_scores(seen, declared, sums)
    for (stage, side), reasons in sums.sides.items():
        entry = seen.stages.setdefault(stage, StageSeen(stage))
        if side == "kept":
            entry.of["kept"] += sum(reasons.values())
        else:
            for reason, rows in sorted(reasons.items()):
                entry.of["dropped"][reason] = entry.of["dropped"].get(reason, 0) + rows
    for (stage, what), numbers in sums.overlaps.items():
        if what == "with":
            seen.overlap[stage] = numbers
        elif what == "":
            entry = seen.stages.setdefault(stage, StageSeen(stage))
            entry.alone, entry.first, entry.anyway = (numbers[name] for name in ("alone", "first", "anyway"))
    _put_empty(seen, declared[-1]["stages"], sums)
    limited = {
        entry["name"]
        for attempt in declared
        for entry in attempt["stages"]
        if any(score["limits"] for score in entry.get("scores", ()))
    }
    _put_samples(seen, run_dir, accounts, limited)
    _put_counts(seen, accounts, sums, [entry["name"] for entry in declared[-1]["stages"]])
    return seen


def sum_counts(run_dir: str, accounts: Accounts, attempt: int) -> None:
    """Replace the counts by task of complete sources by counts by source, if they have grown large.

    No process may be writing to the run directory. Counts of sources that are no longer listed or have changed stay as
    they are, since they may count again.
    """
    folder = storage.join(run_dir, "seen")
    if size_of(run_dir, "seen") <= SUM_BYTES:
        return
    before = [path for path in storage.list_files(folder) if path.endswith(ENDINGS)]
    sums: list[pa.Table] = []
    rest: list[pa.Table] = []
    rows = 0
    for table, chosen, complete in _judged(run_dir, accounts):
        rows += len(table)
        if (mine := chosen & complete).any():
            part = table.filter(array(mine))
            # A sum counts if its attempt is that of the last event of its source.
            _, _, attempts = accounts.complete(part)
            place = part.schema.get_field_index("attempt")
            sums.append(summed(part.set_column(place, "attempt", array(attempts.astype(np.int32)))))
        if not complete.all():
            rest.append(table.filter(array(~complete)))
        if sum(map(len, sums[1:])) > max(_ROWS_AT_ONCE, len(sums[0])):
            sums = [summed(pa.concat_tables(sums))]
    made = [summed(pa.concat_tables(sums))] if sums else []
    made += rest
    if sum(map(len, made)) > rows * _WORTH:
        return
    path = storage.join(folder, f"{attempt:04d}-sums.parquet")
    whole = pa.concat_tables(made).unify_dictionaries()
    write_parquet(path, (whole.slice(start, _ROWS_AT_ONCE) for start in range(0, len(whole), _ROWS_AT_ONCE)))
    # The old files are removed after the new one is written: a row in both counts once, and a sum takes precedence over
    # its parts.
    for other in before:
        if storage.file_name(other) != storage.file_name(path):
            storage.remove(other)


# Counts ---------------------------------------------------------------------------------------------------------------


class _Sums:
    """Adds up rows of counts."""

    def __init__(self) -> None:
        # (stage, score, scale): rows, kept and free by bin; the smallest and the largest value.
        self.scores: dict[tuple[str, str, str], list[np.ndarray]] = {}
        self.ends: dict[tuple[str, str, str], tuple[float, float]] = {}
        self.sides: dict[tuple[str, str], dict[str, int]] = {}
        self.overlaps: dict[tuple[str, str], dict[str, int]] = {}
        self.empty: dict[str, dict[str, int]] = {}  # stage: column: rows without a value
        # kind: source: rows, bytes, tokens
        self.sizes: dict[str, dict[str, list[int]]] = {"in": {}, "out": {}}
        self.files: dict[str, str] = {}
        # (kind, stage, column): value: rows, bytes, tokens
        self.values: dict[tuple[str, str, str], dict[str, list[int]]] = {}

    def add(self, table: pa.Table) -> None:
        if not len(table):
            return
        table = table.unify_dictionaries().combine_chunks()
        kinds, stages, names, scales = (_texts(table[name]) for name in ("kind", "stage", "name", "scale"))
        # Sizes have the name of a file, of which there may be as many as sources.
        of_sizes = np.isin(kinds[1], [kinds[0].index(kind) for kind in ("in", "out") if kind in kinds[0]])
        names = (names[0], np.where(of_sizes, 0, names[1]))
        codes = np.zeros(len(table), np.int64)
        for found, codes_of in (kinds, stages, names, scales):
            codes = codes * (len(found) + 1) + codes_of
        _, first, inverse = grouped(codes)
        # One call for all groups: a call for each would take longer than all else.
        table = table.take(array(np.argsort(inverse, kind="stable")))
        bounds = np.r_[0, np.cumsum(np.bincount(inverse))].tolist()
        columns = _Lists(table)
        for number, at in enumerate(first.tolist()):
            kind, stage, name, scale = (found[codes_of[at]] for found, codes_of in (kinds, stages, names, scales))
            part = _Part(columns, bounds[number], bounds[number + 1])
            if kind == "score":
                self._score((stage, name, scale), part)
            elif kind == "side":
                _add_values(self.sides.setdefault((stage, name), {}), part)
            elif kind in ("in", "out"):
                self._size(kind, part.table)
            elif kind == "overlap":
                _add_values(self.overlaps.setdefault((stage, name), {}), part)
            elif kind == "empty":
                _add_values(self.empty.setdefault(stage, {}), part)
            elif kind.startswith("by "):
                _add_lists(self.values.setdefault((kind, stage, name), {}), part)

    def _score(self, key: tuple[str, str, str], part: _Part) -> None:
        bins = part.numbers("keys")
        most = int(bins.max(initial=0)) + 1
        sums = self.scores.setdefault(key, [np.zeros(0, np.int64)] * 3)
        for place, name in enumerate(("rows", "kept", "free")):
            found = np.bincount(bins, weights=part.numbers(name), minlength=most).astype(np.int64)
            sums[place] = _widened(sums[place], max(most, len(sums[place])))
            sums[place][: len(found)] += found
        low, high = self.ends.get(key, (np.inf, -np.inf))
        # Only the rows of scores have these columns.
        lows, highs = (to_numpy(part.table[name]) for name in ("low", "high"))
        self.ends[key] = min(low, float(lows.min())), max(high, float(highs.max()))

    def _size(self, kind: str, part: pa.Table) -> None:
        sources, codes = _texts(part["run_source"])
        columns = [to_numpy(part[column].combine_chunks().flatten()) for column in ("rows", "kept")]
        tokens = part["free"].combine_chunks().flatten()
        columns.append(to_numpy(tokens) if len(tokens) == len(part) else np.zeros(len(part)))
        sums = [
            np.bincount(codes, weights=column, minlength=len(sources)).astype(np.int64).tolist() for column in columns
        ]
        used = np.bincount(codes, minlength=len(sources))
        for code, source in enumerate(sources):
            if used[code]:
                mine = self.sizes[kind].get(source)
                added = [column[code] for column in sums]
                self.sizes[kind][source] = added if mine is None else [a + b for a, b in zip(mine, added, strict=True)]
        if kind == "in":
            names, name_codes = _texts(part["name"])
            for pair in distinct(codes * len(names) + name_codes).tolist():
                source, name = sources[pair // len(names)], names[pair % len(names)]
                known = self.files.get(source)
                if name and (known is None or name < known):
                    self.files[source] = name


def _widened(sums: np.ndarray, size: int) -> np.ndarray:
    """A copy with zeros at the end. `numpy.pad` takes several times as long."""
    wide = np.zeros(size, sums.dtype)
    wide[: len(sums)] = sums
    return wide


class _Lists:
    """The columns of lists of a table of counts: all of their numbers one after another, and where each list begins. The
    names are numbers, too: ``words`` are the different ones.
    """

    def __init__(self, table: pa.Table) -> None:
        lists = {name: table[name].combine_chunks() for name in ("keys", "names", "rows", "kept", "free")}
        self.offsets = {name: to_numpy(column.offsets) for name, column in lists.items()}
        names = lists["names"].values.dictionary_encode()
        self.words: list[str] = names.dictionary.to_pylist()
        self.values = {name: to_numpy(column.values) for name, column in lists.items() if name != "names"}
        self.values["names"] = to_numpy(names.indices)
        self.table = table


class _Part(NamedTuple):
    """Some rows of a table of counts."""

    columns: _Lists
    first: int
    end: int

    @property
    def table(self) -> pa.Table:
        return self.columns.table.slice(self.first, self.end - self.first)

    def numbers(self, name: str) -> np.ndarray:
        """The numbers in the lists of one column."""
        offsets = self.columns.offsets[name]
        return self.columns.values[name][offsets[self.first] : offsets[self.end]]

    def named(self, codes: np.ndarray) -> list[tuple[str, int]]:
        """The different names among these codes, each with its code; in the same order in every run."""
        return sorted((self.columns.words[code], code) for code in distinct(codes).tolist())


def _add_values(found: dict[str, int], part: _Part) -> None:
    codes = part.numbers("names")
    sums = np.bincount(codes, weights=part.numbers("rows")).tolist()
    for name, code in part.named(codes):
        found[name] = found.get(name, 0) + int(sums[code])


def _add_lists(found: dict[str, list[int]], part: _Part) -> None:
    codes = part.numbers("names")
    for place, column in enumerate(("rows", "kept", "free")):
        values = part.numbers(column)
        if len(values) != len(codes):
            continue
        sums = np.bincount(codes, weights=values).tolist()
        for name, code in part.named(codes):
            found.setdefault(name, [0, 0, 0])[place] += int(sums[code])


def _counting(run_dir: str, accounts: Accounts) -> Iterator[pa.Table]:
    """The rows of counts that count, a file at a time: those of tasks, or sums of whole sources in their place. A row
    that two workers wrote is taken once.
    """
    for table, chosen, _ in _judged(run_dir, accounts):
        if chosen.any():
            yield table if chosen.all() else table.filter(array(chosen))


def _judged(run_dir: str, accounts: Accounts) -> Iterator[tuple[pa.Table, np.ndarray, np.ndarray]]:
    """All rows of counts, a file at a time, each with whether it counts and whether its source is complete."""
    keys: list[np.ndarray] = []
    of: list[np.ndarray] = []  # the source and the kind of count
    finished: list[np.ndarray] = []
    words: dict[tuple[str, ...], int] = {}
    paths: list[str] = []
    held = size_of(run_dir, "seen") <= _HELD_BYTES
    tables: list[pa.Table] = []
    for path, table in read_folder(run_dir, "seen", SEEN_SCHEMA, None if held else _INDEX):
        if held:
            tables.append(table)
        found, tasks = accounts.counting(table)
        complete, sources, attempts = accounts.complete(table)
        paths_of, path_codes = _texts(table["path"])
        sums = np.array([path == WHOLE for path in paths_of], bool)[path_codes]
        found = np.where(sums, complete & (attempts == to_numpy(table["attempt"])), found)
        kinds = [_texts(table[name]) for name in ("stage", "kind", "name", "scale")]
        local = np.zeros(len(table), np.int64)
        for texts, codes in kinds:
            local = local * (len(texts) + 1) + codes
        _, first, inverse = grouped(local)
        named = (tuple(texts[codes[at]] for texts, codes in kinds) for at in first.tolist())
        what = np.array([words.setdefault(name, len(words)) for name in named], np.int64)[inverse]
        # The task is in the upper half of the key and the kind of count in the lower half. The name of an input file is
        # part of its kind, so there may be as many kinds as tasks.
        of.append((sources << 32) | what)
        keys.append(np.where(found, np.where(sums, of[-1] | _SUM, (tasks << 32) | what), -1))
        finished.append(complete)
        paths.append(path)
    if not paths:
        return
    every = np.concatenate(keys)
    _, first, _ = grouped(every)
    chosen = np.zeros(len(every), bool)
    chosen[first] = True
    chosen &= every >= 0
    sums_of = every[(every & _SUM > 0) & (every >= 0)] & ~_SUM
    if len(sums_of):
        # The counts of tasks are left out if a sum contains them.
        every_of, whole_of = np.concatenate(of), distinct(sums_of)
        place = np.minimum(np.searchsorted(whole_of, every_of), len(whole_of) - 1)
        chosen &= (every & _SUM > 0) | (whole_of[place] != every_of)
    start = 0
    pieces = {}
    for path, mine, whole in zip(paths, keys, finished, strict=True):
        pieces[path] = chosen[start : start + len(mine)], whole
        start += len(mine)
    for path, table in zip(paths, tables, strict=True) if held else read_folder(run_dir, "seen", SEEN_SCHEMA):
        if path in pieces:
            yield table, *pieces[path]


def _joined(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in fewer tables."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _texts(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The texts of a dictionary column, and for each row the number of its text."""
    plain = column.unify_dictionaries().combine_chunks()
    if isinstance(plain, pa.ChunkedArray):
        plain = plain.chunk(0) if plain.num_chunks else pa.array([], column.type)
    return plain.dictionary.to_pylist(), to_numpy(plain.indices).astype(np.int64)


def _put_scores(seen: Seen, declared: list[dict[str, Any]], sums: _Sums) -> None:
    for number, content in enumerate(reversed(declared)):
        for entry in content["stages"]:
            for score in entry.get("scores", ()):
                key = (entry["name"], score["name"], score["scale"])
                found = sums.scores.pop(key, None)
                stage = seen.stages.setdefault(entry["name"], StageSeen(entry["name"], entry["describe"]))
                if found is None:
                    if number == 0:
                        stage.scores.append(_score_seen(entry, score, [np.zeros(0, np.int64)] * 3, (np.inf, -np.inf)))
                    continue
                ends = sums.ends[key]
                made = _score_seen(entry, score, found, ends)
                if number:
                    made.name = f"{made.name} (earlier limits)"
                stage.scores.append(made)


def _put_empty(seen: Seen, declared: list[dict[str, Any]], sums: _Sums) -> None:
    """The columns that have no value in any row of the output. If one worker has met a value, the counts of the others
    do not add up to all rows.
    """
    often = {name for entry in declared for name in entry.get("may_be_empty", ())}
    whole = sum(amounts[0] for amounts in sums.sizes["out"].values())
    for stage, columns in sums.empty.items():
        found = [name for name, rows in columns.items() if rows == whole and name not in often]
        if found:
            seen.stages.setdefault(stage, StageSeen(stage)).empty = sorted(found)


def _score_seen(
    entry: dict[str, Any], score: dict[str, Any], sums: list[np.ndarray], ends: tuple[float, float]
) -> ScoreSeen:
    edges = score["edges"]
    size = len(edges) + 3
    rows, kept, free = (_widened(column, size) for column in sums)
    last = len(edges)
    low, high = ends
    return ScoreSeen(
        name=score["name"],
        column=entry.get("column", ""),
        limits=[Limit(**limit) for limit in score["limits"]],
        edges=edges,
        integers=score["integers"],
        counts=rows[1:last].tolist(),
        kept=kept[1:last].tolist(),
        free=free[1:last].tolist(),
        below=int(rows[0]),
        above=int(rows[last]),
        kept_below=int(kept[0]),
        kept_above=int(kept[last]),
        free_below=int(free[0]),
        free_above=int(free[last]),
        nulls=int(rows[last + 1]),
        nans=int(rows[last + 2]),
        rows=int(rows.sum()),
        min=low if np.isfinite(low) else None,
        max=high if np.isfinite(high) else None,
    )


# Samples --------------------------------------------------------------------------------------------------------------


def _put_samples(seen: Seen, run_dir: str, accounts: Accounts, limited: Collection[str]) -> None:
    """``limited`` are the filters with limits, of which fewer rows are kept that are not both dropped and near a limit."""
    bounds = _Bounds(int(seen.options.get("samples", 0)), int(seen.options.get("map", 0)), limited)
    waiting: list[pa.Table] = []
    for _, table in read_folder(run_dir, "samples", SAMPLE_SCHEMA):
        found, _ = accounts.counting(table)
        if found.any():
            waiting.append(table if found.all() else table.filter(array(found)))
        if sum(map(len, waiting)) > _SAMPLES_WAITING:
            waiting = [_first_rows(pa.concat_tables(waiting), bounds)]
    if not waiting:
        return
    for stage, row in _rows(_first_rows(pa.concat_tables(waiting), bounds)):
        if isinstance(row, MapRow):
            seen.map.append(row)
        else:
            seen.stages.setdefault(stage, StageSeen(stage)).samples.append(row)


class _Bounds(NamedTuple):
    """How many rows of a kind are samples, and how many are in the map."""

    samples: int
    mapped: int
    limited: Collection[str]

    def of(self, kind: tuple[str, ...]) -> int:
        """The bound for a stage, side, reason and nearness."""
        stage, side, _, near = kind
        return rows_kept(self.samples, side, near=bool(near), limited=stage in self.limited)


def _first_rows(table: pa.Table, bounds: _Bounds) -> pa.Table:
    """The first rows of the map, and of each stage, side, reason and nearness, in this order; rows near to a limit come
    before the others. A row that two workers have kept is taken once.
    """
    table = table.unify_dictionaries().combine_chunks()
    texts = {name: _texts(table[name]) for name in ("run_source", "path", "stage", "side", "reason", "near")}
    tasks, _ = _ranks([texts["run_source"], texts["path"]], "".join)
    of_map = to_numpy(table["vector"].is_valid())
    groups, kinds = _ranks(
        [texts[name] for name in ("stage", "side", "reason", "near")], lambda named: (*named[:3], not named[3])
    )
    groups = np.where(of_map, -1, groups)
    columns = [to_numpy(table[name]) for name in ("row", "order", "distance")]
    order = np.lexsort((columns[0], tasks, *columns[1:], groups))
    alike = np.ones(len(order), bool)
    for column in (groups, tasks, *columns):
        alike[1:] &= column[order[1:]] == column[order[:-1]]
    alike[:1] = False
    order = order[~alike]
    begins = np.flatnonzero(np.diff(groups[order], prepend=-2))
    at = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))
    most = np.array([bounds.mapped, *map(bounds.of, kinds)])[groups[order] + 1]
    first = at < most
    found = table.take(array(order[first]))
    pictures = found["picture"]
    if pictures.null_count < len(found):
        # Each worker has made pictures of its own first rows, of which those of all workers are the first.
        pictured = array(at[first] < MOST_PICTURES)
        place = found.schema.get_field_index("picture")
        found = found.set_column(place, found.schema.field(place), pc.if_else(pictured, pictures, null(pa.binary())))
    return found


def _rows(table: pa.Table) -> Iterator[tuple[str, Sample | MapRow]]:
    """The rows of a table of samples, each with its stage."""
    columns = {name: _plain_list(column) for name, column in zip(table.column_names, table.columns, strict=True)}
    wanted = (
        "run_source", "path", "stage", "side", "reason", "near", "distance", "row", "score", "scores", "id", "source",
        "position", "text", "cut", "length", "spans", "columns", "picture", "vector",
    )  # fmt: skip
    for (
        run_source, path, stage, side, reason, near, distance, row, score, scores, name, source, position, text, cut,
        length, spans, brief, picture, vector,
    ) in zip(*(columns[name] for name in wanted), strict=True):  # fmt: skip
        decoded = _decoded(scores)
        if vector is not None:
            yield stage, MapRow(stage, side, reason, name, source, position, text, decoded, vector)
            continue
        score_name, _, limit = near.partition("\0")
        yield stage, Sample(
            side, reason, bool(near), limit, score_name, score, decoded, name, source, position, run_source + path, row,
            text, cut, length, spans, _decoded(brief), picture, distance if near else None,
        )  # fmt: skip


def _plain_list(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())  # ten times as fast
    if not pa.types.is_list(column.type):
        values: list[Any] = column.to_pylist()
        return values
    # Spans, of which a row may have hundreds: begin, end, begin, end, ...
    whole = column.combine_chunks()
    ends = to_numpy(whole.offsets).tolist()
    pairs = to_numpy(whole.values)[ends[0] : ends[-1]].reshape(-1, 2).tolist()
    return [pairs[(first - ends[0]) // 2 : (last - ends[0]) // 2] for first, last in pairwise(ends)]


def _ranks(
    columns: Sequence[tuple[list[str], np.ndarray]], key: Callable[[tuple[str, ...]], Any]
) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """The rank of each row among the different combinations of texts, sorted by ``key`` and then by the texts; and the
    combinations in this order.
    """
    codes = np.zeros(len(columns[0][1]), np.int64)
    for texts, column in columns:
        codes = codes * (len(texts) + 1) + column
    _, first, inverse = grouped(codes)
    named = [tuple(texts[column[at]] for texts, column in columns) for at in first.tolist()]
    ordered = sorted(set(named), key=lambda texts: (key(texts), texts))
    places = {texts: place for place, texts in enumerate(ordered)}
    return np.array([places[texts] for texts in named], np.int64)[inverse], ordered


def _decoded(text: str) -> dict[str, Any]:
    """Decode a text from `as_json`."""
    found: dict[str, Any] = _DECODER.raw_decode(text)[0]
    return found


def name_of_score(sample: Mapping[str, Any]) -> str:
    """The name of the score that is shown of a sample. A row from anywhere was chosen for no score: its score is named
    if no other of its scores has the same value.
    """
    names = [name for name, value in sample["scores"].items() if value == sample["score"]]
    return sample["score_name"] or (names[0] if len(names) == 1 else "score")


def data_uri(picture: bytes | None) -> str | None:
    """A small JPEG as a data URL for a page."""
    return None if picture is None else f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"


# By source, by folder, by column --------------------------------------------------------------------------------------


def _put_counts(seen: Seen, accounts: Accounts, sums: _Sums, stages: list[str]) -> None:
    by_source = _by_source(accounts, stages)
    estimated = seen.options.get("tokens", "bytes") == "bytes"
    for source, (_, size, tokens) in sums.sizes["in"].items():
        entry = by_source.get(source) or by_source.setdefault(source, Counted(source))
        entry.bytes_in += size
        entry.tokens_in += tokens
    for source, (_, size, tokens) in sums.sizes["out"].items():
        entry = by_source.get(source) or by_source.setdefault(source, Counted(source))
        entry.bytes_out += size
        entry.tokens_out += tokens
    merged = {source for source in by_source if source in accounts.merges}
    files = {source: sums.files.get(source, "") for source in by_source if source not in merged}
    root = _common_root([file for file in files.values() if file])
    places: dict[str, Counted] = {}
    folders: dict[str, Counted] = {}
    for source in sorted(by_source):
        entry = by_source[source]
        file = files.get(source, "")
        place = "(merged)" if source in merged else file or source
        folder = "(merged)" if source in merged else _collection(file, root) if file else "(no file)"
        if folder not in folders:
            folders[folder] = Counted(folder)
        folders[folder].add(entry)
        if place in places:
            places[place].add(entry)
        else:  # most places hold one source
            entry.value = place
            places[place] = entry
    seen.by = {"collection": _largest(folders), "source": _largest(places)}
    for (kind, stage, column), values in sums.values.items():
        by_value = {entry.value: entry for entry in seen.by.get(column, ())}
        for value, (rows, bytes_of, tokens_of) in values.items():
            entry = by_value.setdefault(value, Counted(value))
            if kind == "by dropped":
                entry.dropped[stage] = entry.dropped.get(stage, 0) + rows
                continue
            suffix = kind.removeprefix("by ")
            for unit, number in (("rows", rows), ("bytes", bytes_of), ("tokens", tokens_of)):
                setattr(entry, f"{unit}_{suffix}", getattr(entry, f"{unit}_{suffix}") + number)
        seen.by[column] = list(by_value.values())
    for column in list(seen.by):
        if column not in ("collection", "source"):
            seen.by[column] = _largest({entry.value: entry for entry in seen.by[column]})
    for name in ("bytes_in", "bytes_out", "tokens_in", "tokens_out"):
        setattr(seen, name, sum(getattr(entry, name) for entry in folders.values()))
    if estimated:
        everything: list[Any] = [seen, *(entry for listed in seen.by.values() for entry in listed)]
        for one in everything:
            one.tokens_in, one.tokens_out = one.bytes_in // BYTES_PER_TOKEN, one.bytes_out // BYTES_PER_TOKEN


def _largest(found: dict[str, Counted]) -> list[Counted]:
    ordered = sorted(found.values(), key=lambda entry: (-entry.rows_in, entry.value))
    for entry in ordered:
        if entry.dropped:
            entry.dropped = {stage: rows for stage, rows in entry.dropped.items() if rows}
    if len(ordered) <= MOST_VALUES:
        return ordered
    others = Counted(OTHERS)
    for entry in ordered[MOST_VALUES:]:
        others.add(entry)
    return [*ordered[:MOST_VALUES], others]


def _by_source(accounts: Accounts, stages: list[str]) -> dict[str, Counted]:
    """The rows in and out of each source, and how many of them each stage has dropped, from the events that count."""
    names = accounts.sources()
    numbers = {name: number for number, name in enumerate(names)}
    order = {stage: number for number, stage in enumerate(stages)}
    shape = (len(names), len(stages) + 1)
    rows_in, rows_out, dropped, rejected = (np.zeros(shape, np.int64) for _ in range(4))
    for _, table in accounts.tables(accounts.event_numbers(names), ["source", "counts"]):
        texts, codes = _texts(table["source"])
        counts = table["counts"].combine_chunks()
        values = counts.flatten()
        if not len(values):
            continue
        known = np.array([numbers.get(text, -1) for text in texts], np.int64)
        lengths = to_numpy(pc.list_value_length(counts))
        source = np.repeat(known[codes], lengths)
        stage = values.field("stage").dictionary_encode()
        place = np.array([order.get(name, len(stages)) for name in stage.dictionary.to_pylist()], np.int64)[
            to_numpy(stage.indices)
        ]
        np.add.at(rows_in, (source, place), to_numpy(values.field("rows_in")))
        np.add.at(rows_out, (source, place), to_numpy(values.field("rows_out")))
        for name, into in (("dropped", dropped), ("rejected", rejected)):
            column = values.field(name)
            there = to_numpy(pc.indices_nonzero(column.is_valid()))
            if len(there):
                said = column.drop_null().dictionary_encode()
                lost = np.array([sum(json.loads(text).values()) for text in said.dictionary.to_pylist()], np.int64)
                np.add.at(into, (source[there], place[there]), lost[to_numpy(said.indices)])
    # The first stage that was given rows of the source.
    entered = np.take_along_axis(rows_in, (rows_in > 0).argmax(axis=1)[:, None], axis=1)[:, 0].tolist()
    # A source has no counts at the last stage if its rows went into a merge or none of them got that far.
    left = (rows_out[:, len(stages) - 1] if stages else rows_out[:, 0] * 0).tolist()
    found = {
        name: Counted(name, rows_in=given, rows_out=made, rejected=lost)
        for name, given, made, lost in zip(names, entered, left, rejected.sum(axis=1).tolist(), strict=True)
    }
    for number, place in zip(*(axis.tolist() for axis in dropped[:, : len(stages)].nonzero()), strict=True):
        found[names[number]].dropped[stages[place]] = int(dropped[number, place])
    return found


def _common_root(files: list[str]) -> str:
    folders = [posixpath.dirname(file) for file in files]
    if not folders:
        return ""
    first, last = min(folders).split("/"), max(folders).split("/")
    shared = 0
    while shared < min(len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    return "/".join(first[:shared])


def _collection(file: str, root: str) -> str:
    """The folder below the root that contains a file; a dot if it is in the root itself."""
    rest = posixpath.dirname(file)[len(root) :].strip("/")
    return rest.partition("/")[0] or "."


def _declared(run_dir: str) -> list[dict[str, Any]]:
    """The declarations of the attempts of a run, the latest one last."""
    folder = storage.join(run_dir, "declared")
    if not storage.exists(folder):
        return []
    found = []
    for path in sorted(storage.list_files(folder)):
        try:
            content = json.loads(storage.read_bytes(path))
            if not {"attempt", "options", "stages"} <= content.keys():
                raise ValueError("it does not name the stages")
            for score in (score for stage in content["stages"] for score in stage.get("scores", ())):
                score["edges"] = unpacked_edges(score["edges"])
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise RunRefused(
                f"{path!r} is damaged ({type(error).__name__}: {error}): it is written whole or not at all, so something else "
                "changed it; remove it and lose the scores that it describes, or start over with fresh=True (--fresh)"
            ) from None
        found.append(content)
    return found


def _said_tokens(options: dict[str, Any]) -> str:
    tokens = options.get("tokens", "bytes")
    return f"estimated: bytes / {BYTES_PER_TOKEN}" if tokens == "bytes" else str(tokens)
