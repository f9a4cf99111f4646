"""Is everything accounted for, and what was the outcome? Shares, totals and results of a run, from its accounts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.accounts.accounts import Accounts
from curator_core.accounts.events import DONE, FAILED, MERGED
from curator_core.accounts.ledger import read_results
from curator_core.accounts.tally import StageTotals, Tally
from curator_core.arrow.arrays import grouped, to_numpy
from curator_core.errors import AccountingError
from curator_core.formatting import count
from curator_core.model.codec import decode_task
from curator_core.model.task import FileGroupTask, FileRecord, Task
from curator_core.planning.plan import Plan, difference
from curator_core.running.attempt import plan_of
from curator_core.running.result import PlanShare


@dataclass(frozen=True, slots=True)
class SourceRejects:
    """The number of rows read from a source, and how many of them were rejected."""

    source: str
    read: int
    rejected: int

    @property
    def fraction(self) -> float:
        return self.rejected / self.read if self.read else 0.0


@dataclass
class Totals:
    """The sums of the events that count, by stage, and the files of each stage in lineage order."""

    tally: Tally
    outputs: dict[str, list[FileRecord]] = field(default_factory=dict)
    sources_failed: int = 0
    rejects: list[SourceRejects] = field(default_factory=list)


def require_complete(accounts: Accounts, sources: Iterable[str]) -> None:
    """Raise `AccountingError` if a part of a source is not accounted for."""
    short = [accounts.settle(source) for source in accounts.incomplete(sources)]
    short = [settlement for settlement in short if settlement.missing]
    if not short:
        return
    first = short[0]
    where = f"; stage {first.last_stage!r} saw it last" if first.last_stage else ", and no stage has recorded it"
    more = f" ({len(short) - 1} more sources are also short)" if len(short) > 1 else ""
    raise AccountingError(
        f"source {first.source!r} is short of {first.missing} of its share: task {first.missing_task!r} was never "
        f"accounted for{where}{more}. Run again with resume to make up for it"
    )


def settled_shares(accounts: Accounts, sources: Sequence[str]) -> dict[str, str]:
    """Where the shares of all sources have ended, as exact fractions; raise `AccountingError` if they do not add up."""
    ends = accounts.shares(sources)
    merged = ends.pop(MERGED)
    if merged or sum(ends.values()) != len(sources):
        found = ", ".join(f"{kind} {share}" for kind, share in ends.items())
        raise AccountingError(
            f"the shares of {count(len(sources), 'source')} do not add up: {found}, and {len(sources) - sum(ends.values())} is "
            "missing. Run again with resume to make up for it"
        )
    return {kind: str(share) for kind, share in ends.items()}


def totals(accounts: Accounts, plan: Plan, by_segment: Sequence[Sequence[str]]) -> Totals:
    """The totals and files of all stages, including those that had nothing to do."""
    result = Totals(empty_tally(plan))
    rejected: dict[str, int] = {}
    for segment, sources in enumerate(by_segment):
        numbers = accounts.event_numbers(sources)
        found: dict[str, list[tuple[int, int, FileRecord]]] = {}
        # The input of later segments consists of merges, not of sources.
        columns = ["counts", "outputs"] if segment else ["counts", "outputs", "source"]
        for positions, table in accounts.tables(numbers, columns):
            result.tally.add_table(table["counts"])
            _add_outputs(found, positions, table["outputs"].combine_chunks())
            if not segment:
                _add_rejected(rejected, table)
        for stage, records in found.items():
            records.sort(key=itemgetter(0, 1))
            result.outputs.setdefault(stage, []).extend(record for _, _, record in records)
    result.rejects = source_rejects(accounts, rejected, [planned.name for planned in plan.stages]) if rejected else []
    result.sources_failed = len({task.partition(".")[0] for task in failed_tasks(accounts, by_segment)})
    return result


def source_rejects(accounts: Accounts, rejected: Mapping[str, int], stages: Sequence[str]) -> list[SourceRejects]:
    """The sources that have lost rows to rejects (``rejected`` gives the number for each), those with the largest share
    first.

    The rows of a source are those of the stage with the largest input from it, which is its reader. Only the events of
    these sources are read, so memory does not grow with the others.
    """
    read: dict[tuple[str, str], int] = {}
    for _, table in accounts.tables(accounts.event_numbers(list(rejected)), ["source", "counts"]):
        names, codes, values = _counts_by_source(table)
        stage = values.field("stage").dictionary_encode()
        kinds = stage.dictionary.to_pylist()
        keys, _, place = grouped(codes * len(kinds) + to_numpy(stage.indices))
        sums = np.bincount(place, weights=to_numpy(values.field("rows_in")), minlength=len(keys))
        for key, rows in zip(keys.tolist(), sums.tolist(), strict=True):
            name = (names[key // len(kinds)], kinds[key % len(kinds)])
            read[name] = read.get(name, 0) + int(rows)
    most = {
        source: max([rows, *(read.get((source, stage), 0) for stage in stages)]) for source, rows in rejected.items()
    }
    found = [SourceRejects(source, most[source], rows) for source, rows in rejected.items() if rows]
    return sorted(found, key=lambda item: (-item.fraction, item.source))


def _add_rejected(rejected: dict[str, int], table: pa.Table) -> None:
    """Add the rows that each source has lost to rejects, from the counts of its events."""
    if not _any_rejected(table["counts"]):
        return
    names, codes, values = _counts_by_source(table)
    lost = values.field("rejected")
    there = to_numpy(pc.indices_nonzero(lost.is_valid()))
    for code, text in zip(codes[there].tolist(), lost.drop_null().to_pylist(), strict=True):
        rejected[names[code]] = rejected.get(names[code], 0) + sum(json.loads(text).values())


def _any_rejected(counts: pa.ChunkedArray) -> bool:
    flat = [chunk.flatten().field("rejected") for chunk in counts.chunks]
    return any(column.null_count < len(column) for column in flat)


def _counts_by_source(table: pa.Table) -> tuple[list[str], np.ndarray, pa.StructArray]:
    """The names of the sources of some events, and the counts of these events, each with the number of its source."""
    counts = table["counts"].combine_chunks()
    owners = table["source"].dictionary_encode().combine_chunks()
    codes = np.repeat(to_numpy(owners.indices), to_numpy(counts.value_lengths())).astype(np.int64)
    return owners.dictionary.to_pylist(), codes, counts.flatten()


def empty_tally(plan: Plan) -> Tally:
    """An empty tally with every stage except the source, in the order of the plan."""
    tally = Tally()
    for planned in plan.stages:
        if planned is not plan.source:
            tally.stages[planned.name] = StageTotals(planned.name)
    return tally


def shares_by_plan(
    accounts: Accounts, plans: Sequence[dict[str, Any]], by_segment: Sequence[Sequence[str]]
) -> list[PlanShare]:
    """The rows made under each of the ``plans``, the present one last; see `attempt.plans_of`.

    The generation of a source says which attempt began it, and so under which plan it was processed.
    """
    since = [int(plan.get("since", 0)) for plan in plans]
    shares = []
    for position, plan in enumerate(plans):
        share = PlanShare(max(1, since[position]), difference(plan["steps"], plans[-1]["steps"]))
        tally = Tally()
        for segment, ids in enumerate(by_segment):
            mine = [source for source in ids if plan_of(accounts.generation(source), since) == position]
            share.sources += len(mine) if segment == 0 else 0
            for _, table in accounts.tables(accounts.event_numbers(mine), ["counts"]):
                tally.add_table(table["counts"])
        share.rows_in = tally.rows_read
        last = tally.stages.get(plan["steps"][-1]["name"])
        share.rows_out = last.rows_out if last else 0
        shares.append(share)
    return shares


def failed_tasks(accounts: Accounts, by_segment: Iterable[Sequence[str]]) -> list[str]:
    """The tasks that were set aside."""
    sources = [source for ids in by_segment for source in ids]
    return [task for task, _ in accounts.tasks(accounts.event_numbers(sources, FAILED))]


def ordered_results(
    accounts: Accounts,
    sources: Sequence[str],
    results: dict[str, Task[Any]],
    run_dir: str | None,
    *,
    without: Set[str] = frozenset(),
) -> list[Task[Any]]:
    """``results`` in lineage order, with the results of earlier attempts loaded, except those in ``without``."""
    numbers = accounts.event_numbers(sources, DONE)
    ids = [task for task, _ in accounts.tasks(numbers)]
    if without and all(task_id in without for task_id in ids):
        return []
    if any(task_id not in results for task_id in ids) and run_dir is not None:
        stored = set()
        for positions, table in accounts.tables(numbers, ["source", "path", "generation", "result", "outputs"]):
            for position, row in zip(positions, table.to_pylist(), strict=True):
                task_id = ids[position]
                if task_id in results or task_id in without or not row["result"]:
                    continue
                if row["result"] == "stored":
                    stored.add(task_id)
                else:
                    results[task_id] = _file_group(task_id, row)
        for task_id, data in read_results(run_dir, stored).items() if stored else ():
            results[task_id] = decode_task(data, pickled=False)
    return [results[task_id] for task_id in ids if task_id in results]


def count_results(accounts: Accounts, sources: Sequence[str]) -> int:
    """The number of tasks of these sources that have reached the end."""
    return len(accounts.event_numbers(sources, DONE))


def _add_outputs(
    found: dict[str, list[tuple[int, int, FileRecord]]], positions: np.ndarray, outputs: pa.ListArray
) -> None:
    """Add the outputs of events to ``found`` by stage, each with the position of its event and its number there."""
    if isinstance(outputs, pa.ChunkedArray):
        outputs = pa.concat_arrays(outputs.chunks)
    values = outputs.flatten()
    lengths = to_numpy(outputs.value_lengths())
    owners = np.repeat(positions, lengths).tolist()
    columns = [values.field(name).to_pylist() for name in ("stage", "path", "rows", "bytes", "sha256")]
    for number, (position, stage, *record) in enumerate(zip(owners, *columns, strict=True)):
        found.setdefault(stage, []).append((position, number, FileRecord(*record)))


def _file_group(task_id: str, row: dict[str, Any]) -> FileGroupTask:
    """The result of a task from its event, which contains the result."""
    if row["result"] == "outputs":
        records = [FileRecord(o["path"], o["rows"], o["bytes"], o["sha256"]) for o in row["outputs"]]
        paths = [record.path for record in records]
    else:
        paths, listed = json.loads(row["result"])
        records = [FileRecord(*record) for record in listed]
    return FileGroupTask(
        data=paths, records=records, task_id=task_id, _source=row["source"], _generation=row["generation"]
    )
