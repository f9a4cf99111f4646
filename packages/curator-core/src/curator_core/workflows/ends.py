"""What does a workflow read, and where does it write?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from curator_core.across.documents import bases_of
from curator_core.errors import UsageError
from curator_core.model.stage import CompositeStage, ProcessingStage, SourceStage
from curator_core.model.task import EmptyTask
from curator_core.running.preview import survey
from curator_core.workflow import Workflow
from curator_core.workflows.formats import format_of, reader_of, writer_of


@dataclass(kw_only=True)
class Ends(Workflow):
    """Base of workflows from documents to documents.

    What is read: ``paths`` in a ``format`` (by the names of the files), or a ``reader``; what is written: ``path`` in the
    same format, or a ``writer``.
    """

    paths: str | Sequence[str] | None = None
    path: str | None = None
    format: str = "auto"
    reader: ProcessingStage[Any, Any] | None = None
    writer: ProcessingStage[Any, Any] | None = None

    _found: str | None = field(default=None, init=False, repr=False, compare=False)

    def check_ends(self) -> None:
        """Raise `UsageError` unless there is one input and at most one output."""
        owner = type(self).__name__
        if (self.paths is None) == (self.reader is None):
            raise UsageError(f"{owner} reads paths, or what a reader gives: give one of the two")
        if self.path is not None and self.writer is not None:
            raise UsageError(f"{owner} writes to path, or by a writer: give one of the two")
        for name in ("reader", "writer"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, ProcessingStage):
                raise UsageError(f"{owner}.{name} must be a stage, not {value!r}")

    def _reader(self) -> ProcessingStage[Any, Any]:
        if self.reader is not None:
            return self.reader
        assert self.paths is not None
        return reader_of(self.paths, self._format(), type(self).__name__)

    def _writer(self) -> ProcessingStage[Any, Any] | None:
        if self.writer is not None or self.path is None:
            return self.writer
        return writer_of(self.path, self._format())

    def _format(self) -> str:
        if self.format != "auto":
            return self.format
        if self.paths is None:
            return "jsonl"
        if self._found is None:  # it lists the input, and each step asks
            self._found = format_of(self.paths, type(self).__name__)
        return self._found

    def _input_bytes(self) -> int:
        """The size of the files that are read; 0 where there are none yet, as when a plan is made before another step ran."""
        try:
            reader = self._reader()
            naming = reader.decompose()[0] if isinstance(reader, CompositeStage) else reader
            if not isinstance(naming, SourceStage) or not naming.tried_by_plan:
                return 0
            found, _ = survey(naming.process(EmptyTask(task_id="sources")) or ())
        except UsageError:
            return 0
        return found.bytes

    def _input_folders(self) -> list[str]:
        """The folders that contain the input; a file's first folder below them is its collection."""
        paths = self.paths if self.reader is None else self.reader.params().get("paths")
        if not paths:
            return []
        return bases_of([paths] if isinstance(paths, str) else list(paths))
