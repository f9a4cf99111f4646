"""What does a workflow read, and where does it write?"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from curator_core import formatting, storage
from curator_core.across.compact import MANY_PIECES, compact
from curator_core.across.documents import bases_of
from curator_core.errors import TooManyErrors, UsageError
from curator_core.model.parameters import paths_as_text
from curator_core.model.stage import CompositeStage, ProcessingStage, SourceStage
from curator_core.model.task import EmptyTask
from curator_core.pipeline import Pipeline
from curator_core.running.preview import Preview, survey
from curator_core.running.result import RunSummary
from curator_core.workflow import Step, Workflow
from curator_core.workflows.estimate import free_bytes
from curator_core.workflows.formats import format_of, reader_of, writer_of

# The approximate size of a reader's batches.
_BATCH_BYTES = 8 << 20


@dataclass(kw_only=True)
class Ends(Workflow):
    """Base of workflows from documents to documents.

    The input is ``paths`` in a ``format`` (by default that of the file names), or a ``reader``; the output is ``path``
    in the same format, or a ``writer``. A run does not begin if there is clearly too little room for the files between
    its steps, unless ``check_disk`` is false.
    """

    paths: str | Sequence[str] | None = None
    path: str | None = None
    format: str = "auto"
    reader: ProcessingStage[Any, Any] | None = None
    writer: ProcessingStage[Any, Any] | None = None

    # The size of the files between the steps, as the lowest possible multiple of the size of the input; 0 if it does
    # not follow from that.
    disk_of_input: ClassVar[float] = 0.0

    check_disk: bool = True

    _found: str | None = field(default=None, init=False, repr=False, compare=False)

    def check_ends(self) -> None:
        """Raise `UsageError` unless there is one input and at most one output."""
        owner = type(self).__name__
        paths_as_text(self, "paths", "path")
        if (self.paths is None) == (self.reader is None):
            raise UsageError(f"{owner} reads paths, or uses a reader: give one of the two")
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
        if self._found is None:  # cached: it lists the input, and each step calls it
            self._found = format_of(self.paths, type(self).__name__)
        return self._found

    def check_room(self, work_dir: str) -> None:
        if not self.check_disk or not self.disk_of_input:
            return
        needed, free = round(self._input_bytes() * self.disk_of_input), free_bytes(work_dir)
        if free is not None and free < needed:
            raise UsageError(
                f"{type(self).__name__} needs about {formatting.size(needed)} for the files between its steps, but "
                f"only {formatting.size(free)} are free at {work_dir!r}: choose a run directory on another disk "
                "(run_dir, "
                "--run-dir), make room, or give check_disk: false to skip this check"
            )

    def _together(self, path: str, partitions: int) -> Generator[Pipeline, Any, str]:
        """The step that compacts a shuffle with too many files, if needed, and the folder to read the shuffle from."""
        # This depends on the size of the input, not on the existing files: a resumed run must have the same steps.
        found = self._input()
        batches = max(found.sources, found.bytes // _BATCH_BYTES) if found is not None else 0
        if batches * partitions <= MANY_PIECES:
            return path
        into = f"{path}-together"
        yield compact(path, into, name=f"gather {storage.file_name(path)}")
        return into

    def _whole[S: (Pipeline, Step)](self, step: S, work_dir: str) -> Generator[S, RunSummary | None, None]:
        """Yield a step, and raise if its last stage has set rows aside, since later steps read them again.

        Rows that the reader sets aside are missing in every step, so they do not matter.
        """
        outcome = yield step  # None while the steps are only planned
        aside = outcome.stages[-1].quarantined if outcome is not None and outcome.stages else 0
        if aside:
            raise TooManyErrors(
                f"step {step.name!r} has set {formatting.count(aside, 'row')} aside, and later steps, which find rows by their "
                "places in the input, cannot work without them. "
                f"`curate rejects {storage.parent(work_dir)}` shows what failed. If the cause lies outside the input, such as too "
                "little memory, remove it and continue with `curate retry`; otherwise remove these rows from the input, "
                "or drop them in a reader of your own, and begin again (fresh=True, --fresh)"
            )

    def _input_bytes(self) -> int:
        """The size of the input files; 0 if there are none yet, as in a plan made before the step that writes them."""
        found = self._input()
        return 0 if found is None else found.bytes

    def _input(self) -> Preview | None:
        try:
            reader = self._reader()
            naming = reader.decompose()[0] if isinstance(reader, CompositeStage) else reader
            if not isinstance(naming, SourceStage) or not naming.tried_by_plan:
                return None
            found, _ = survey(naming.process(EmptyTask(task_id="sources")) or ())
        except UsageError:
            return None
        return found

    def _input_folders(self) -> list[str]:
        """The folders that contain the input; a file's first folder below them is its collection."""
        paths = self.paths if self.reader is None else self.reader.params().get("paths")
        if not paths:
            return []
        return bases_of([paths] if isinstance(paths, str) else list(paths))
