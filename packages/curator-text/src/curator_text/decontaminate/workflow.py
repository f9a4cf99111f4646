"""Decontamination in two passes: n-grams that are common in the data do not indicate a test set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from curator_core import storage
from curator_core.errors import UsageError
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step, Workflow
from curator_core.workflows.ends import Ends
from curator_text.decontaminate.counts import CountTestNgrams
from curator_text.decontaminate.parameters import TestSetParameters
from curator_text.decontaminate.stage import Decontaminate, OverlapParameters


@dataclass(kw_only=True)
class Decontamination(OverlapParameters, Ends):
    """Removes overlaps with test sets from documents, except for n-grams that are common in the data.

    It reads the data twice: `CountTestNgrams` counts how many documents contain each n-gram of the test sets, and
    `Decontaminate`, which explains the parameters, ignores n-grams that occur in more than ``max_documents`` documents.
    Input and output are given as in other workflows: ``paths`` and ``path`` (in a ``format``, by default that of the
    files), or a ``reader`` and a ``writer``. The report by test set is in ``decontamination/`` of the run directory,
    unless ``report_path`` names another folder.
    """

    def __post_init__(self) -> None:
        self.check_ends()
        self.check_overlaps()
        if self.path is None and self.writer is None:
            raise UsageError("Decontamination writes to a path or with a writer: give one of the two")

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        counts = storage.join(work_dir, "counts")
        count = CountTestNgrams(**self._given_of(TestSetParameters), path=counts)
        yield Pipeline([self._reader(), count], name="count")
        given = self._given_of(OverlapParameters)
        given["report_path"] = self.report_path or storage.join(storage.parent(work_dir), "decontamination")
        writer = self._writer()
        assert writer is not None
        apply = Decontaminate(**given, counts_path=counts)
        yield Step(Pipeline([self._reader(), apply, writer], name="apply"), counts=True)

    def _given_of(self, kind: type[TestSetParameters]) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(kind)}
