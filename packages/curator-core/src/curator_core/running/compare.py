"""How do two runs differ in configuration, counts by stage and counts by source? The answer needs only their run
directories.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curator_core import storage
from curator_core.accounts.ledger import open_accounts
from curator_core.accounts.seen import Counted, ScoreSeen, Seen, read_seen
from curator_core.accounts.seen_rows import OTHERS
from curator_core.accounts.source_list import GONE, SourceList
from curator_core.arrow.arrays import array, scalar
from curator_core.errors import UsageError
from curator_core.planning.plan import difference
from curator_core.running.attempt import WORKFLOW
from curator_core.running.directory import RunDirectory
from curator_core.running.result import RunSummary
from curator_core.running.so_far import settled
from curator_core.running.steps import pipelines_in

# The ending of the name of an output that contains the rows a stage has dropped.
_DROPPED = ": dropped rows"
# The counts of a stage.
_COUNTS = ("rows_in", "rows_out", "quarantined")
_REASONS = ("dropped", "rejected")
# Stands for a folder that a writer fills, since two runs never fill the same one.
_ITS_FOLDER = "(its folder)"
# Options that affect how a run works, but not its outcome.
_MANNER = ("retries",)
_SHOWN_SOURCES = 1000


@dataclass(frozen=True)
class RunRecord:
    """The records of the run of one pipeline. ``step`` is its name in a workflow, and ``root`` the run directory of the
    workflow, or its own if there is none. ``places`` are the folders that all steps have filled.
    """

    root: str
    folder: str
    step: str
    record: dict[str, Any]
    plan: dict[str, Any]
    summary: RunSummary | None
    places: tuple[str, ...] = ()

    @functools.cached_property
    def seen(self) -> Seen:
        """What the run shows of its data."""
        return read_seen(self.folder)

    @property
    def outputs(self) -> dict[str, str]:
        """The folders that the run has filled, by stage."""
        return {name: folder for name, folder in self.folders.items() if not name.endswith(_DROPPED)}

    @property
    def dropped(self) -> dict[str, str]:
        """The folders with the rows that stages have dropped, if the run has written them."""
        return {name: folder for name, folder in self.folders.items() if name.endswith(_DROPPED)}

    @property
    def folders(self) -> dict[str, str]:
        """All folders that the run has filled, including those with dropped rows."""
        return {stage: str(output["folder"]) for stage, output in (self.record.get("outputs") or {}).items()}


@dataclass
class SourceCounts:
    """A source, folder or value of a column for which two runs have different counts; None for a run without it."""

    source: str
    a: dict[str, int] | None
    b: dict[str, int] | None

    def as_dict(self, name: str = "source") -> dict[str, Any]:
        return {name: self.source, "a": self.a, "b": self.b}


@dataclass
class ScoreMoved:
    """A score with different distributions in two runs: ``share`` of the rows would have to change bins to make them
    equal.

    ``bins`` gives the rows of both runs between neighbouring edges that both have.
    """

    stage: str
    score: str
    rows_a: int
    rows_b: int
    share: float
    bins: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class Comparison:
    """The differences between two runs of a pipeline, and what could not be compared.

    ``manner`` lists differences in how they ran (executor, versions, time), which do not count as differences.
    """

    step: str = ""
    configuration: list[str] = field(default_factory=list)
    manner: list[str] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)  # all stages; ``differs`` says which of them differ
    sources: list[SourceCounts] = field(default_factory=list)
    differing_sources: int = 0
    # Folders and values of columns with different counts.
    by: dict[str, list[SourceCounts]] = field(default_factory=dict)
    scores: list[ScoreMoved] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        return bool(
            self.configuration
            or self.differing_sources
            or self.scores
            or any(self.by.values())
            or any(stage["differs"] for stage in self.stages)
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "differs": self.differs,
            "configuration": self.configuration,
            "manner": self.manner,
            "stages": self.stages,
            "differing_sources": self.differing_sources,
            "sources": [source.as_dict() for source in self.sources],
            "by": {column: [value.as_dict("value") for value in values] for column, values in self.by.items()},
            "scores": [score.as_dict() for score in self.scores],
            "unknown": self.unknown,
        }


def records_of(run_dir: str) -> dict[str, RunRecord]:
    """The runs in a run directory by the names of their steps; without a workflow, its own run under an empty name."""
    if not storage.exists(storage.join(run_dir, "run.json")):
        raise UsageError(f"{run_dir!r} holds no run: there is no run.json; `curate runs` lists the runs below a folder")
    places = pipelines_in(run_dir) or {"": run_dir}
    if (RunDirectory(run_dir).read_json("run.json") or {}).get("kind") != WORKFLOW:
        places = {"": run_dir}
    runs = {step: _record_of(place, step, storage.absolute(run_dir)) for step, place in places.items()}
    filled = tuple(folder for run in runs.values() for folder in run.folders.values())
    return {step: replace(run, places=filled) for step, run in runs.items()}


def _record_of(run_dir: str, step: str, root: str) -> RunRecord:
    directory = RunDirectory(run_dir)
    record = settled(directory.read_json("run.json") or {}, directory.url)
    summary = record.get("summary")
    plan = directory.read_json("plan.json") or {}
    return RunRecord(root, directory.url, step, record, plan, RunSummary.from_dict(summary) if summary else None)


def paired(a: str, b: str) -> tuple[list[tuple[RunRecord, RunRecord]], list[str]]:
    """Pair the runs of two run directories; return the pairs, and sentences about runs without a counterpart."""
    ours, theirs = records_of(a), records_of(b)
    lines = [f"step {step!r} is in {a} alone" for step in ours if step not in theirs]
    lines += [f"step {step!r} is in {b} alone" for step in theirs if step not in ours]
    return [(ours[step], theirs[step]) for step in ours if step in theirs], lines


def compare(a: RunRecord, b: RunRecord) -> Comparison:
    """The differences between two runs of a pipeline according to their records."""
    found = Comparison(a.step or b.step)
    found.configuration = difference(_steps_of(a, b), _steps_of(b, a))
    ours, theirs = a.record.get("options") or {}, b.record.get("options") or {}
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            line = f"option {key} was {ours.get(key)!r}, is {theirs.get(key)!r}"
            (found.manner if key in _MANNER else found.configuration).append(line)
    found.manner += _manner(a.record, b.record)
    for run in (a, b):
        if run.summary is None:
            found.unknown.append(
                f"the run in {run.folder} has not ended (its state is {run.record.get('state')!r}), so its counts by "
                "stage cover only complete work"
            )
    found.stages = _stages(a, b)
    found.sources, found.differing_sources = _sources(a, b)
    _compare_seen(found, a.seen, b.seen)
    return found


def _compare_seen(found: Comparison, a: Seen, b: Seen) -> None:
    """Compare what the runs show of their data: counts by folder and column, files of sources, histograms of scores."""
    for name, run in (("a", a), ("b", b)):
        if not run.stages:
            found.unknown.append(f"{name} has kept no data for viewing (`seen: false`): no scores, no counts by folder")
    if not a.stages or not b.stages:
        return
    for column in [*b.by, *(column for column in a.by if column not in b.by)]:
        values = _differing_values(a.by.get(column, []), b.by.get(column, []))
        if column != "source":
            if values:
                found.by[column] = values
        elif values and all(value.source != OTHERS for value in values) and len(values) == found.differing_sources:
            found.sources = values  # the same sources, named by their files
    for stage in b.stages.values():
        earlier = a.stages.get(stage.name)
        before = {score.name: score for score in (earlier.scores if earlier else ())}
        moved = [_moved(stage.name, before[score.name], score) for score in stage.scores if score.name in before]
        found.scores += [score for score in moved if score is not None]


def _differing_values(a: Sequence[Counted], b: Sequence[Counted]) -> list[SourceCounts]:
    ours, theirs = ({entry.value: entry for entry in side} for side in (a, b))
    found = []
    for value in [*theirs, *(value for value in ours if value not in theirs)]:
        was, now = (
            None if (entry := side.get(value)) is None else {"rows_in": entry.rows_in, "rows_out": entry.rows_out}
            for side in (ours, theirs)
        )
        if was != now:
            found.append(SourceCounts(value, was, now))
    return sorted(found, key=lambda entry: (-_change(entry), entry.source))


def _change(entry: SourceCounts) -> int:
    none = {"rows_in": 0, "rows_out": 0}
    a, b = entry.a or none, entry.b or none
    return max(abs(a[key] - b[key]) for key in none)


def _moved(stage: str, a: ScoreSeen, b: ScoreSeen) -> ScoreMoved | None:
    """The distribution of the rows between the edges that both runs have, since edges depend on limits; None if there
    is no difference.
    """
    shared = sorted(set(a.edges) & set(b.edges))
    rows = [_between(score, shared) for score in (a, b)]
    if rows[0] == rows[1]:
        return None
    totals = [sum(counts) for counts in rows]
    shares = [[count / total if total else 0.0 for count in counts] for counts, total in zip(rows, totals, strict=True)]
    edges: list[float | None] = [None, *shared, None]
    bins = [
        {"from": edges[at], "to": edges[at + 1], "a": was, "b": now}
        for at, (was, now) in enumerate(zip(*rows, strict=True))
        if was or now
    ]
    share = sum(abs(was - now) for was, now in zip(*shares, strict=True)) / 2
    return ScoreMoved(stage, b.name, totals[0], totals[1], share, bins)


def _between(score: ScoreSeen, shared: Sequence[float]) -> list[int]:
    counts = [0] * (len(shared) + 1)
    counts[0] += score.below
    counts[bisect.bisect_right(shared, score.edges[-1]) if score.edges else 0] += score.above
    for edge, rows in zip(score.edges, score.counts, strict=False):
        counts[bisect.bisect_right(shared, edge)] += rows
    return counts


def _steps_of(run: RunRecord, other: RunRecord) -> list[dict[str, Any]]:
    """The stages of a plan, with placeholders for the folders that the run and its steps have filled, or, if it has not
    come so far, would have filled as another run has.
    """
    steps = run.plan.get("steps") or []
    own = {storage.absolute(folder).rstrip("/") for folder in run.folders.values()}
    paths = (step["params"].get("path") for step in steps if step["name"] in other.folders)
    own |= {storage.absolute(path).rstrip("/") for path in paths if isinstance(path, str)}
    above = {run.root.rstrip("/"): "(the run)"}
    above |= {storage.absolute(folder).rstrip("/"): "(the output)" for folder in run.places}

    def place(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: place(item) for key, item in value.items()}
        if isinstance(value, list):
            return [place(item) for item in value]
        if not isinstance(value, str):
            return value
        path = storage.absolute(value).rstrip("/")
        if path in own:
            return _ITS_FOLDER
        inside = next((folder for folder in above if "/" in value and f"{path}/".startswith(f"{folder}/")), None)
        return value if inside is None else f"{above[inside]}{path[len(inside) :]}"

    return [{**step, "params": place(step["params"])} for step in steps]


def _manner(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    lines = []
    for what in ("executor", "python"):
        if a.get(what) != b.get(what):
            lines.append(f"{what} was {a.get(what)!r}, is {b.get(what)!r}")
    ours, theirs = a.get("versions") or {}, b.get("versions") or {}
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            lines.append(f"{name} was {ours.get(name, 'not installed')}, is {theirs.get(name, 'not installed')}")
    return lines


def _stages(a: RunRecord, b: RunRecord) -> list[dict[str, Any]]:
    """The counts of every stage of both runs, in the order of the second run; stages of the first run alone come last."""
    ours, theirs = _totals(a), _totals(b)
    found = []
    for name in [*theirs, *(name for name in ours if name not in theirs)]:
        was, now = ours.get(name), theirs.get(name)
        found.append({"name": name, "differs": was != now, "a": was, "b": now})
    return found


def _totals(run: RunRecord) -> dict[str, dict[str, Any]]:
    if run.summary is None:
        return {
            stage: {"rows_in": rows_in, "rows_out": rows_out, "quarantined": 0, "dropped": {}, "rejected": {}}
            for stage, rows_in, rows_out in _by_stage(run)
        }
    return {
        stage.name: {
            **{key: getattr(stage, key) for key in _COUNTS},
            **{key: dict(sorted(getattr(stage, key).items())) for key in _REASONS},
        }
        for stage in run.summary.stages
    }


def _by_stage(run: RunRecord) -> Iterator[tuple[str, int, int]]:
    table = _counts(run).group_by("stage").aggregate([("rows_in", "sum"), ("rows_out", "sum")])
    rows = {row["stage"]: (row["rows_in_sum"], row["rows_out_sum"]) for row in table.to_pylist()}
    for step in run.plan.get("steps") or ():
        if step["name"] in rows:
            yield step["name"], *rows[step["name"]]


def _sources(a: RunRecord, b: RunRecord) -> tuple[list[SourceCounts], int]:
    """The sources whose counts differ, those that differ most first, and their number."""
    ours, theirs = _by_source(a), _by_source(b)
    both = ours.join(theirs, "source", join_type="full outer", left_suffix="_a", right_suffix="_b")
    columns = [f"{key}_{side}" for side in "ab" for key in ("rows_in", "rows_out")]
    same = pc.and_(pc.equal(both["rows_in_a"], both["rows_in_b"]), pc.equal(both["rows_out_a"], both["rows_out_b"]))
    differing = both.filter(pc.invert(pc.fill_null(same, scalar(False))))
    filled = {name: pc.fill_null(differing[name], scalar(0)) for name in columns}
    change = pc.max_element_wise(
        pc.abs(pc.subtract(filled["rows_in_a"], filled["rows_in_b"])),
        pc.abs(pc.subtract(filled["rows_out_a"], filled["rows_out_b"])),
    )
    order = differing.append_column("change", change).sort_by([("change", "descending"), ("source", "ascending")])
    found = [
        SourceCounts(
            row["source"],
            *(
                None
                if row[f"rows_in_{side}"] is None
                else {"rows_in": row[f"rows_in_{side}"], "rows_out": row[f"rows_out_{side}"]}
                for side in "ab"
            ),
        )
        for row in order.slice(0, _SHOWN_SOURCES).to_pylist()
    ]
    return found, differing.num_rows


def _by_source(run: RunRecord) -> pa.Table:
    """For every source, the number of rows read and of rows that the last stage let through.

    After a merge, rows belong to no source and are counted under the merge.
    """
    names = [step["name"] for step in run.plan.get("steps") or ()]
    sums = _counts(run).group_by(["source", "stage"]).aggregate([("rows_in", "sum"), ("rows_out", "sum")])
    place = pc.index_in(sums["stage"], value_set=array(names, pa.string()))
    sums = sums.append_column("place", place).filter(place.is_valid()).sort_by("place")
    ends = sums.group_by("source", use_threads=False).aggregate([("rows_in_sum", "max"), ("rows_out_sum", "last")])
    return pa.table(
        {
            "source": ends["source"].cast(pa.string()),
            "rows_in": ends["rows_in_sum_max"].cast(pa.int64()),
            "rows_out": ends["rows_out_sum_last"].cast(pa.int64()),
        }
    )


def _counts(run: RunRecord) -> pa.Table:
    """The counts of each stage for each source, from the events that count."""
    listing = SourceList(run.folder)
    accounts = open_accounts(run.folder, listing)
    known = [row.source for row in listing.rows.values() if row.generation != GONE]
    parts = []
    for _, table in accounts.tables(accounts.event_numbers(known), ["source", "counts"]):
        for batch in table.to_batches():
            counts = batch.column("counts")
            flat = counts.flatten()
            rows = pc.list_parent_indices(counts)
            parts.append(
                pa.table(
                    {
                        "source": batch.column("source").cast(pa.string()).take(rows),
                        "stage": flat.field("stage"),
                        "rows_in": flat.field("rows_in"),
                        "rows_out": flat.field("rows_out"),
                    }
                )
            )
    schema = pa.schema(
        [("source", pa.string()), ("stage", pa.string()), ("rows_in", pa.int64()), ("rows_out", pa.int64())]
    )
    return pa.concat_tables([schema.empty_table(), *parts])


def differing_stages(found: Comparison) -> Sequence[dict[str, Any]]:
    """The stages whose counts differ."""
    return [stage for stage in found.stages if stage["differs"]]
