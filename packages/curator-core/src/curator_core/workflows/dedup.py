"""What exact and fuzzy deduplication share: their input and output, and the steps that follow the decisions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from curator_core import storage
from curator_core.across.apply import ApplyDecisions
from curator_core.across.decided import WriteDecisions
from curator_core.across.documents import DocumentParameters, bases_of
from curator_core.across.shuffle import Partitions
from curator_core.errors import UsageError, check_whole
from curator_core.model.stage import ProcessingStage
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step, Workflow
from curator_core.workflows.formats import format_of, reader_of, writer_of

DECISIONS = "decisions"


@dataclass(kw_only=True)
class Dedup(DocumentParameters, Workflow):
    """Base of workflows that remove documents for which another one stays.

    What is read: ``paths`` in a ``format`` (by the names of the files), or a ``reader``; what is written: ``path`` in the
    same format, or a ``writer``. With neither of the latter nothing is written but the table of decisions, in
    ``decisions/`` of the run directory, or in the folder ``decisions``. ``removed`` is a folder for the documents that go,
    with the table's columns beside their own. ``mode`` is ``remove``, ``annotate`` (all stay, and say what was decided) or
    ``rehydrate`` (survivors get a weight by the size of their cluster).

    ``partitions`` is how many pieces the work between the files comes in.
    """

    paths: str | Sequence[str] | None = None
    path: str | None = None
    format: str = "auto"
    reader: ProcessingStage[Any, Any] | None = None
    writer: ProcessingStage[Any, Any] | None = None
    decisions: str | None = None
    removed: str | None = None
    mode: Literal["remove", "annotate", "rehydrate"] = "remove"
    partitions: int = 32

    def __post_init__(self) -> None:
        owner = type(self).__name__
        self.check_documents()
        check_whole(f"{owner}.partitions", self.partitions)
        if (self.paths is None) == (self.reader is None):
            raise UsageError(f"{owner} reads paths, or what a reader gives: give one of the two")
        if self.path is not None and self.writer is not None:
            raise UsageError(f"{owner} writes to path, or by a writer: give one of the two")
        if self.path is None and self.writer is None and self.decisions is None and self.mode != "remove":
            raise UsageError(f"{owner}.mode {self.mode!r} needs a path or a writer")

    # The ends -----------------------------------------------------------------------------------------------------

    def _reader(self) -> ProcessingStage[Any, Any]:
        if self.reader is not None:
            return self.reader
        assert self.paths is not None
        return reader_of(self.paths, self._format(), type(self).__name__)

    def _format(self) -> str:
        if self.format != "auto":
            return self.format
        if self.paths is None:
            return "jsonl"
        return format_of(self.paths, type(self).__name__)

    def _documents(self) -> dict[str, Any]:
        """The parameters of the stages that look at documents."""
        names = ("column", "id_column", "keep", "collection_column", "scope", "normalize")
        paths = self.paths if self.reader is None else self.reader.params().get("paths")
        bases = self.bases or (bases_of([paths] if isinstance(paths, str) else list(paths)) if paths else [])
        return {**{name: getattr(self, name) for name in names}, "bases": list(bases)}

    def decisions_folder(self, work_dir: str) -> str:
        return self.decisions or storage.join(storage.parent(work_dir), DECISIONS)

    # The steps ----------------------------------------------------------------------------------------------------

    def _after(self, work_dir: str, keys: str, decided: str, settings: dict[str, Any]) -> Iterator[Step]:
        """From what was decided to the table, and from there to the documents."""
        folder = self.decisions_folder(work_dir)
        table = WriteDecisions(path=folder, keys=keys, decided_by=settings)
        steps = [Step(Pipeline([Partitions(path=decided), table], name="table"))]
        if self.removed is not None:
            gone = ApplyDecisions(path=folder, mode="removed")
            steps.append(
                Step(Pipeline([self._reader(), gone, writer_of(self.removed, self._format())], name="removed"))
            )
        writer = self.writer
        if writer is None and self.path is not None:
            writer = writer_of(self.path, self._format())
        if writer is not None:
            applied = ApplyDecisions(path=folder, mode=self.mode)
            steps.append(Step(Pipeline([self._reader(), applied, writer], name="apply"), counts=True))
        # Given back at the end and no sooner: a run that is resumed asks what there was to do by what lies there.
        steps[-1] = replace(steps[-1], frees=[work_dir])
        for step in steps:  # noqa: UP028 - `yield from` a list cannot take what came of a step
            yield step
