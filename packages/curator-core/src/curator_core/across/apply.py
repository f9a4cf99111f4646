"""How is a table of decisions applied to its rows? They are dropped, marked, weighted or shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curator_core.across.decisions import KEPT, REMOVED, Decisions
from curator_core.across.inputs import Inputs
from curator_core.across.roll import rows_of
from curator_core.arrow.arrays import array, null, scalar, to_numpy
from curator_core.arrow.row_hash import lineage_numbers
from curator_core.errors import UsageError, check_free, check_whole, nearest
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch

MODES = ("remove", "annotate", "rehydrate", "removed")
WEIGHTS = ("size", "sqrt", "log")
# The reason in the accounts for each rule; any other rule is itself the reason.
REASONS = {
    "exact": "exact duplicate",
    "normalized": "exact duplicate",
    "nothing_new": "near duplicate",
    "containment": "near duplicate",
    "jaccard": "near duplicate",
    "similar": "semantic duplicate",
    "perceptual": "duplicate picture",
    "fraction": "not in the top fraction",
    "list": "listed",
}
# The columns that `annotate` can add, and their types.
NOTES = {
    "decision": pa.string(),
    "rule": pa.string(),
    "duplicate_of": pa.string(),
    "jaccard": pa.float64(),
    "containment": pa.float64(),
    "new_words": pa.int32(),
    "similarity": pa.float64(),
    "cluster": pa.uint64(),
    "cluster_size": pa.int64(),
}


@dataclass(kw_only=True)
class ApplyDecisions(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Applies the table of decisions in the folder ``path`` to the rows of the sources.

    It must come directly after the reader that the decisions were made with, since it identifies a row by its batch and
    its place there; a batch that is missing from the decisions, or has a different number of rows, is refused.
    ``mode``:

    - ``remove`` drops the removed rows, with the reason in the accounts (``exact duplicate``, ``near duplicate``, …);
    - ``annotate`` keeps all rows and adds ``columns`` to them: any of ``decision``, ``rule``, ``duplicate_of`` (the id of
      the row that stays for it, or its source and row if rows have no ids), ``jaccard``, ``containment``,
      ``new_words``,
      ``similarity``, ``cluster`` and ``cluster_size``; each new column has this name with ``prefix`` before it;
    - ``rehydrate`` drops the same rows and gives each survivor a ``weight`` from the size of its cluster: ``size``, its
      square root (``sqrt``), or 1 + log2 of it (``log``); at most ``max_weight``. The weight is written into
      ``weight_column``, or, with ``repeat``, the survivor is repeated that many times: with a weight of 2.3 two or
      three times, depending on ``seed`` and its place;
    - ``removed`` keeps only the removed rows, with ``columns``, so that a pipeline can write them out.
    """

    path: str
    mode: Literal["remove", "annotate", "rehydrate", "removed"] = "remove"
    columns: Sequence[str] | None = None
    prefix: str = ""
    weight: Literal["size", "sqrt", "log"] = "size"
    max_weight: float | None = None
    weight_column: str = "weight"
    repeat: bool = False
    seed: int = 0

    tried_by_plan = False  # the batches of a preview differ from those of a run

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise UsageError(f"ApplyDecisions.path must be the folder of a table of decisions, not {self.path!r}")
        if self.mode not in MODES:
            raise UsageError(f"ApplyDecisions.mode must be one of {', '.join(MODES)}, not {self.mode!r}")
        if self.weight not in WEIGHTS:
            raise UsageError(f"ApplyDecisions.weight must be one of {', '.join(WEIGHTS)}, not {self.weight!r}")
        self._check_weight()
        if isinstance(self.columns, str):
            raise UsageError(f"ApplyDecisions.columns must be a list such as [{self.columns!r}]")
        default = ["duplicate_of", "cluster", "cluster_size"] if self.mode == "annotate" else list(NOTES)
        self._notes = default if self.columns is None else list(self.columns)
        for name in self._notes:
            if name not in NOTES:
                known = ", ".join(NOTES)
                raise UsageError(f"ApplyDecisions.columns may hold {known}, not {name!r}{nearest(str(name), NOTES)}")
        check_whole("ApplyDecisions.seed", self.seed, least=0)
        self.creates_rows = self.mode == "rehydrate" and self.repeat
        self.shows_kept = self.mode == "remove"

    def _check_weight(self) -> None:
        most = self.max_weight
        number = isinstance(most, int | float) and not isinstance(most, bool)
        if most is not None and not (number and most >= 1):
            raise UsageError(f"ApplyDecisions.max_weight must be a number of 1 or more, not {most!r}")
        if not isinstance(self.weight_column, str) or not self.weight_column:
            raise UsageError(f"ApplyDecisions.weight_column must be the name of a column, not {self.weight_column!r}")

    def outputs(self) -> list[str]:
        if self.mode in ("annotate", "removed"):
            return [f"{self.prefix}{name}" for name in self._notes]
        return [self.weight_column] if self.mode == "rehydrate" and not self.repeat else []

    def may_be_empty(self) -> list[str]:
        return self.outputs() if self.mode in ("annotate", "removed") else []

    def describe(self) -> str:
        if self.mode == "annotate":
            return f"drops nothing; marks rows according to the decisions in {self.path!r}"
        if self.mode == "removed":
            return f"keeps only the rows that the decisions in {self.path!r} remove"
        rest = "" if self.mode == "remove" else "; repeats survivors" if self.repeat else "; weighs survivors"
        return f"drops the rows that the decisions in {self.path!r} remove{rest}"

    def setup(self, worker: WorkerMetadata) -> None:
        self._decisions = Decisions.open(self.path)
        self._inputs = Inputs.read(self.path)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        check_free("ApplyDecisions", task.column_names, self.outputs())
        decisions = self._decisions
        if self._inputs is not None:
            self._inputs.require_same(task)
        batch = decisions.roll.number_of(task.task_id, task.num_rows)
        if self.mode in ("annotate", "removed"):
            return self._noted(task, decisions.of_batch(batch))
        sizes = ["cluster_size"] if self.mode == "rehydrate" else []
        about = decisions.of_batch(batch, ["decision", "rule", "copy_of", *sizes])
        if not about.num_rows and self.mode == "remove":
            return task
        keep = self._without_removed(about, task.num_rows)
        if self.mode == "remove":
            return task if keep.all() else task.filter(array(keep))
        weights = self._weights(about, task.num_rows)
        if not self.repeat:
            return task.append_column(self.weight_column, array(weights)).filter(array(keep))
        times = np.where(keep, self._times(weights, batch), 0)
        return task.with_data(task.to_pyarrow().take(array(np.repeat(np.arange(task.num_rows), times))))

    def _without_removed(self, about: pa.Table, rows: int) -> NDArray[np.bool_]:
        """Whether each row stays; the reason is recorded for the others."""
        keep = np.ones(rows, np.bool_)
        removed = about.filter(pc.equal(about["decision"], scalar(REMOVED)))
        keep[rows_of(to_numpy(removed["number"]))] = False
        # An exact copy of a removed document counts as an exact copy, whatever the reason for the removal of that
        # document.
        rules = pc.if_else(removed["copy_of"].is_valid(), scalar("exact"), removed["rule"])
        places = rows_of(to_numpy(removed["number"]))
        words = np.array([rule or REMOVED for rule in rules.to_pylist()], object)
        for rule in dict.fromkeys(words.tolist()):
            which = places[words == rule]
            self.record_dropped(REASONS.get(rule, rule), len(which), which=which)
        return keep

    def _weights(self, about: pa.Table, rows: int) -> NDArray[np.float64]:
        sizes = np.ones(rows, np.float64)
        there = about.filter(about["cluster_size"].is_valid())
        sizes[rows_of(to_numpy(there["number"]))] = to_numpy(there["cluster_size"])
        if self.weight == "sqrt":
            sizes = np.sqrt(sizes)
        elif self.weight == "log":
            # The logarithm is rounded, since its last digit depends on the C library; that of a root does not.
            sizes = np.array([round(1 + math.log2(size), 9) for size in sizes.tolist()])
        return sizes if self.max_weight is None else np.minimum(sizes, self.max_weight)

    def _times(self, weights: NDArray[np.float64], batch: int) -> NDArray[np.int64]:
        whole = np.floor(weights)
        chance = lineage_numbers(f"{batch}", len(weights), self.seed) >> np.uint64(11)
        return (whole + (chance * 2.0**-53 < weights - whole)).astype(np.int64)

    def _noted(self, task: DocumentBatch, about: pa.Table) -> DocumentBatch:
        rows = rows_of(to_numpy(about["number"]))
        at = np.full(task.num_rows, -1, np.int64)
        at[rows] = np.arange(len(rows))
        place = pc.if_else(array(at >= 0), array(at), null(pa.int64()))
        for name in self._notes:
            task = task.append_column(f"{self.prefix}{name}", _note(about, name, place))
        if self.mode == "annotate":
            return task
        removed = np.zeros(task.num_rows, np.bool_)
        removed[rows] = to_numpy(pc.equal(about["decision"], scalar(REMOVED)))
        self.record_dropped(KEPT, int(len(removed) - removed.sum()), which=np.flatnonzero(~removed))
        return task.filter(array(removed))


def _note(about: pa.Table, name: str, place: pa.Array) -> pa.ChunkedArray:
    """The notes on each row; a row without a decision is kept, and is a cluster of its own."""
    if name == "duplicate_of":
        stands = pc.binary_join_element_wise(about["witness_source"], about["witness_row"].cast(pa.string()), "#")
        return pc.coalesce(about["witness_id"], stands).take(place)
    noted = about[name].take(place)
    alone = {"decision": KEPT, "cluster_size": 1}
    return pc.fill_null(noted, pa.scalar(alone[name], NOTES[name])) if name in alone else noted
