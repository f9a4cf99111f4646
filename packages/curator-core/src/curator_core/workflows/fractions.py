"""The best fraction of the data by a score, and buckets of several scores by rank."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar, Literal

from curator_core import storage
from curator_core.across import selection
from curator_core.across.batch_decisions import DecidedBatches, PackDecisions
from curator_core.across.fractions import RULE, AddBuckets, KeepTop, write_limits
from curator_core.across.selection import (
    BATCHES,
    FOUND,
    ROLL,
    Candidates,
    CollectScores,
    Counts,
    CountScores,
    MeasureScores,
    Requests,
    Totals,
)
from curator_core.errors import UsageError, check_whole
from curator_core.model.stage import ProcessingStage
from curator_core.pipeline import Pipeline
from curator_core.stages.files import FilePartitioning
from curator_core.workflow import Step, Workflow
from curator_core.workflows.ends import Ends

DECISIONS = "decisions"
DECIDED = "decided"
_LATER = "as many passes over the digits of the scores as needed to find the limits, and one that applies these"


@dataclass(kw_only=True)
class TopFraction(Ends):
    """Keeps the best ``fraction`` of the data by the score in ``column``: a fraction of the rows, or of the sum of a
    ``weight``.

    ``weight`` is ``rows``, or a column of whole numbers, such as counts of tokens; a null has weight 0. ``order`` says
    which scores are best; null and NaN come last, and among equal scores the rows that come first in the input are
    kept. Rows are kept in this order as long as their total weight is at most the fraction, which is exact to the row.
    ``by`` selects in each group separately: the values of a column, or ``collection``, the first folder below the
    input.

    For input and output, see `Ends`. Removed rows are in a table of decisions, in ``decisions/`` of the run directory
    or in the folder ``decisions``, with the text of ``id_column`` if the data have it.
    """

    sure_paths: ClassVar[tuple[str, ...]] = ("decisions",)

    column: str
    fraction: float
    weight: str = "rows"
    by: str | None = None
    order: Literal["highest", "lowest"] = "highest"
    decisions: str | None = None
    id_column: str | None = "id"

    later = _LATER

    def __post_init__(self) -> None:
        _check_ends(self)
        _check_columns("TopFraction.column", [self.column])
        _check_columns("TopFraction.weight", [self.weight])
        _check_group(self)
        self._part = _exact("TopFraction.fraction", self.fraction)
        if self.order not in ("highest", "lowest"):
            raise UsageError(f"TopFraction.order must be 'highest' or 'lowest', not {self.order!r}")

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        scores = storage.join(work_dir, "scores")
        lowest = [self.column] if self.order == "lowest" else []
        how: dict[str, Any] = {"by": self.by, "bases": self._input_folders(), "owner": "TopFraction"}
        measure = MeasureScores(path=scores, columns=[self.column], lowest=lowest, weight=self.weight, **how)
        yield from self._whole(Pipeline([self._reader(), measure], name="measure"), work_dir)
        totals = Totals.read(scores)
        bounds = (int(self._part * weight) for weight in totals.weight.tolist())
        requests = Requests.of(((0, group, bound) for group, bound in enumerate(bounds)), totals)
        answers = yield from _answered(work_dir, scores, requests, keys_alone=False)
        limits = storage.join(work_dir, "limits.arrow")
        write_limits(limits, answers)
        keep = KeepTop(
            scores=scores,
            limits=limits,
            column=self.column,
            order=self.order,
            reason=f"not in the top {float(100 * self._part):.10g} %",
            decided=storage.join(work_dir, DECIDED),
            id_column=self.id_column,
            **how,
        )
        yield Step(_apply(self, keep), counts=True)
        roll, decided = storage.join(scores, ROLL), storage.join(work_dir, DECIDED)
        table = PackDecisions(
            path=self.decisions or storage.join(storage.parent(work_dir), DECISIONS),
            roll=roll,
            decided_by={"rule": RULE, "column": self.column, "order": self.order, "fraction": self.fraction},
        )
        pipeline = Pipeline([DecidedBatches(path=decided, roll=roll), table], name="table")
        yield Step(pipeline, frees=[storage.join(scores, BATCHES), decided])


@dataclass(kw_only=True)
class QuantileBuckets(Ends):
    """Gives each row a bucket from 0 to ``buckets`` - 1 by the ranks of its scores over the whole data.

    The bucket of a score is the part of the rows with a worse score, in units of 1/``buckets``, rounded down: if no
    scores are equal, bucket 19 of 20 is the best 5 %. Equal scores share a bucket. The highest scores are the best, or
    the lowest for columns that are also in ``lowest``; null and NaN are worse than any number. The buckets of several
    ``columns`` are combined into ``bucket_column`` by their ``max`` or their ``mean``, rounded down; ``each`` also adds
    ``<column>_bucket`` for each column. With ``by``, ranks are those within a group: the values of a column, or
    ``collection``, the first folder below the input. For input and output, see `Ends`.
    """

    columns: Sequence[str]
    buckets: int = 20
    combine: Literal["max", "mean"] = "max"
    lowest: Sequence[str] = ()
    by: str | None = None
    bucket_column: str = "bucket"
    each: bool = False

    later = _LATER

    def __post_init__(self) -> None:
        _check_ends(self)
        _check_columns("QuantileBuckets.columns", self.columns)
        _check_columns("QuantileBuckets.bucket_column", [self.bucket_column])
        _check_group(self)
        for name in self.lowest:
            if name not in self.columns:
                raise UsageError(
                    f"QuantileBuckets.lowest names {name!r}, which is not among the columns {self.columns!r}"
                )
        check_whole("QuantileBuckets.buckets", self.buckets, least=2)
        if self.combine not in ("max", "mean"):
            raise UsageError(f"QuantileBuckets.combine must be 'max' or 'mean', not {self.combine!r}")

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        scores = storage.join(work_dir, "scores")
        how: dict[str, Any] = {"by": self.by, "bases": self._input_folders(), "owner": "QuantileBuckets"}
        which: dict[str, Any] = {"columns": list(self.columns), "lowest": list(self.lowest)}
        yield from self._whole(
            Pipeline([self._reader(), MeasureScores(path=scores, **which, **how)], name="measure"), work_dir
        )
        totals = Totals.read(scores)
        # A row is in bucket b or above if at least b/buckets of all rows are worse, which means that it is better than
        # the row at that place, counted from the worst.
        asked = (
            (column, group, rows - -(-edge * rows // self.buckets))
            for column in range(len(self.columns))
            for group, rows in enumerate(totals.rows.tolist())
            for edge in range(1, self.buckets)
        )
        answers = yield from _answered(work_dir, scores, Requests.of(asked, totals), keys_alone=True)
        limits = storage.join(work_dir, "limits.arrow")
        write_limits(limits, answers)
        add = AddBuckets(
            scores=scores,
            limits=limits,
            buckets=self.buckets,
            combine=self.combine,
            bucket_column=self.bucket_column,
            each=self.each,
            **which,
            **how,
        )
        yield Step(_apply(self, add), frees=[storage.join(scores, BATCHES)], counts=True)


def _answered(
    work_dir: str, scores: str, requests: Requests, *, keys_alone: bool
) -> Generator[Pipeline, Any, Requests]:
    """Yield the steps that answer ``requests``, and return the answers; with ``keys_alone`` only the keys are needed."""
    for number in itertools.count(1):
        if keys_alone:
            requests = requests.whole_keys()
        if requests.answered:
            return requests
        few = requests.candidates() <= selection.MOST_CANDIDATES
        name = "collect" if few else f"count-{number}"
        folder, targets = storage.join(work_dir, name), storage.join(work_dir, f"{name}-targets.arrow")
        requests.targets().write(targets)
        where = {"path": folder, "scores": scores, "targets": targets}
        files = FilePartitioning(paths=storage.join(scores, BATCHES), bytes_per_partition="64MiB")
        bits = requests.digit_bits()
        look = CollectScores(**where) if few else CountScores(**where, digit_bits=bits)
        yield Pipeline([files, look], name=name)
        found = storage.join(folder, FOUND)
        requests = requests.settled(Candidates.read(found)) if few else requests.advanced(Counts.read(found), bits)
    raise AssertionError("unreachable")


def _apply(workflow: Ends, stage: ProcessingStage[Any, Any]) -> Pipeline:
    """The step that reads the data again and applies the limits."""
    writer = workflow._writer()
    assert writer is not None
    return Pipeline([workflow._reader(), stage, writer], name="apply")


def _check_ends(workflow: Ends) -> None:
    workflow.check_ends()
    if workflow.path is None and workflow.writer is None:
        raise UsageError(f"{type(workflow).__name__} needs a path to write to, or a writer")


def _check_columns(what: str, names: object) -> None:
    good = isinstance(names, list | tuple) and names and all(isinstance(name, str) and name for name in names)
    if not good or len(set(names)) != len(names):  # type: ignore[arg-type, call-overload]
        raise UsageError(f"{what} must name columns, each once, not {names!r}")


def _check_group(workflow: TopFraction | QuantileBuckets) -> None:
    if workflow.by is not None and not (isinstance(workflow.by, str) and workflow.by):
        raise UsageError(
            f"{type(workflow).__name__}.by must be the name of a column or 'collection', not {workflow.by!r}"
        )


def _exact(what: str, value: object) -> Fraction:
    """A fraction as the user wrote it: 0.1 becomes exactly a tenth, which a float cannot represent."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UsageError(f"{what} must be a number from 0 to 1, not {value!r}")
    return Fraction(Decimal(repr(value)))
