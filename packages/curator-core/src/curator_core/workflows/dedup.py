"""What exact and fuzzy deduplication share: their input and output, and the steps that follow the decisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from curator_core import storage
from curator_core.across.apply import ApplyDecisions
from curator_core.across.decided import WriteDecisions
from curator_core.across.documents import DocumentParameters
from curator_core.across.shuffle import Partitions
from curator_core.errors import UsageError, check_whole
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step
from curator_core.workflows.ends import Ends
from curator_core.workflows.formats import writer_of
from curator_core.workflows.pairs import reader_text

DECISIONS = "decisions"


@dataclass(kw_only=True)
class Dedup(DocumentParameters, Ends):
    """Base of workflows that remove documents for which another one stays.

    What is read and written is said as in `Ends`. Without a ``path`` and a ``writer`` nothing is written but the table of
    decisions, in ``decisions/`` of the run directory, or in the folder ``decisions``. ``removed`` is a folder for the
    documents that go, with the table's columns beside their own. ``mode`` is ``remove``, ``annotate`` (all stay, and say
    what was decided) or ``rehydrate`` (survivors get a weight by the size of their cluster).

    ``partitions`` is how many pieces the work between the files comes in.
    """

    decisions: str | None = None
    removed: str | None = None
    mode: Literal["remove", "annotate", "rehydrate"] = "remove"
    partitions: int = 32

    def __post_init__(self) -> None:
        owner = type(self).__name__
        self.check_documents()
        check_whole(f"{owner}.partitions", self.partitions)
        self.check_ends()
        if self.path is None and self.writer is None and self.decisions is None and self.mode != "remove":
            raise UsageError(f"{owner}.mode {self.mode!r} needs a path or a writer")

    @classmethod
    def spans(
        cls,
        text: str,
        witness: str,
        settings: Mapping[str, Any],  # noqa: ARG003 - for workflows that compare parts
    ) -> tuple[Sequence[tuple[int, int, bool]], Sequence[tuple[int, int, bool]]]:
        """The pieces of a removed document and of its witness: from where to where, and whether the other has it too."""
        return [(0, len(text), True)], [(0, len(witness), True)]

    def _documents(self) -> dict[str, Any]:
        """The parameters of the stages that look at documents."""
        names = ("column", "id_column", "keep", "collection_column", "scope", "normalize")
        return {**{name: getattr(self, name) for name in names}, "bases": list(self.bases or self._input_folders())}

    def decisions_folder(self, work_dir: str) -> str:
        return self.decisions or storage.join(storage.parent(work_dir), DECISIONS)

    # The steps ----------------------------------------------------------------------------------------------------

    def _after(self, work_dir: str, keys: str, decided: str, settings: dict[str, Any]) -> Iterator[Step]:
        """From what was decided to the table, and from there to the documents."""
        folder = self.decisions_folder(work_dir)
        settings = {
            **settings,
            "workflow": type(self).__name__,
            "column": self.column,
            "keep": list(self.keep),
            "reader": reader_text(self._reader()),
        }
        table = WriteDecisions(path=folder, keys=keys, decided_by=settings)
        steps = [Step(Pipeline([Partitions(path=decided), table], name="table"))]
        if self.removed is not None:
            gone = ApplyDecisions(path=folder, mode="removed")
            steps.append(
                Step(Pipeline([self._reader(), gone, writer_of(self.removed, self._format())], name="removed"))
            )
        writer = self._writer()
        if writer is not None:
            applied = ApplyDecisions(path=folder, mode=self.mode)
            steps.append(Step(Pipeline([self._reader(), applied, writer], name="apply"), counts=True))
        # Given back at the end and no sooner: a run that is resumed asks what there was to do by what lies there.
        steps[-1] = replace(steps[-1], frees=[work_dir])
        for step in steps:  # noqa: UP028 - `yield from` a list cannot take what came of a step
            yield step
