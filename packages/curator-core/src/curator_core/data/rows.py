"""How are rows of any format read for display? By the reader that a package has registered for the format, with the
place of each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from curator_core import formatting, storage
from curator_core.config.build import build_stage, load_stage
from curator_core.config.yaml_file import parse_value
from curator_core.data.files import PACKAGE, Data, look_at, reader_of
from curator_core.errors import CuratorError, StageError, UsageError
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.parameters import constructor_signature
from curator_core.model.places import places_of
from curator_core.model.recorder import Reject
from curator_core.model.stage import CompositeStage, ProcessingStage
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask, Task

Stage = ProcessingStage[Any, Any]

# Parameters of readers that bound a batch, with values for reading only a few rows.
_SMALL = {"batch_bytes": "64KiB", "images_per_batch": 8}
# The records of WARC files that contain the text or its metadata.
_RECORDS = {"wet": ["conversion"], "wat": ["metadata"]}
# The number of rejects that are kept as examples.
_EXAMPLES = 5


@dataclass
class Rows:
    """Data and their reader, which lists the sources and yields their rows batch by batch.

    ``rejected`` counts the rows that could not be read so far, by reason; ``examples`` are the first of these, or those
    that ``wanted`` accepts.
    """

    found: Data
    reader: str
    kind: str  # ``text`` or ``image``
    naming: Stage  # lists the sources
    reading: list[Stage]  # read one source
    rejected: dict[str, int] = field(default_factory=dict)
    examples: list[Reject] = field(default_factory=list)
    wanted: Callable[[Reject], bool] | None = None

    def sources(self) -> Iterator[FileGroupTask]:
        """The files, or groups of files, one after the other."""
        return iter(cast(Any, self.naming.process(EmptyTask(task_id="sources"))) or ())

    def batches(self, source: Task[Any]) -> Iterator[DocumentBatch]:
        """The rows of a source."""
        return cast(Iterator[DocumentBatch], self._through([source], self.reading))

    def _through(
        self, tasks: Sequence[Task[Any]] | Iterator[Task[Any]], stages: Sequence[Stage]
    ) -> Iterator[Task[Any]]:
        if not stages:
            yield from tasks
            return
        stage = stages[0]
        for task in tasks:
            for made in self._made(stage, task):
                yield from self._through([made], stages[1:])

    def _made(self, stage: Stage, task: Task[Any]) -> Iterator[Task[Any]]:
        """The tasks that a stage makes from a task; its rejects are counted."""
        try:
            made = stage.process(task)
            for one in () if made is None else [made] if isinstance(made, Task) else made:
                self._take_rejects(stage)
                yield one
        except CuratorError:
            raise
        except Exception as error:
            raise StageError(stage.name, f"{type(error).__name__}: {error}", source=_sources_text(task)) from error
        finally:
            self._take_rejects(stage)

    def _take_rejects(self, stage: Stage) -> None:
        recorder = stage.recorder
        if recorder.rejects:
            for reject in recorder.rejects:
                self.rejected[reject.reason] = self.rejected.get(reject.reason, 0) + reject.rows
                if self.wanted(reject) if self.wanted is not None else len(self.examples) < _EXAMPLES:
                    self.examples.append(reject)
        object.__setattr__(stage, "_recorder", None)


def open_rows(
    data: str, *, reader: str | None = None, settings: Sequence[str] = (), few: bool = False, **params: Any
) -> Rows:
    """The rows of a file, a folder, a pattern or a URL, of the format with the most bytes.

    ``reader`` reads them whatever their ending; ``settings`` are its parameters as ``NAME.PARAMETER=VALUE``. ``few``
    makes batches small, so that the first rows arrive quickly. ``params`` that the reader does not have are ignored.
    """
    _refuse_run(data)
    if reader is None:
        found = look_at(data)
        name, kind = reader_of(found)
    else:
        name, kind = reader, "image" if "Image" in reader else "text"
        found = Data(data, "", 1, 0, {})
    try:
        cls = load_stage(name)
    except UsageError as error:
        if reader is None and "there is no stage" in str(error):
            files = f"{formatting.count(found.files, 'file')} of {found.ending}"
            raise UsageError(f'reading {files} needs: pip install "{PACKAGE[kind]}"') from error
        raise
    takes = constructor_signature(cls).parameters
    wanted: dict[str, Any] = {"paths": found.paths, "decode": False, "record_types": _RECORDS.get(found.ending)}
    wanted = {key: value for key, value in wanted.items() if value is not None}
    wanted |= {**(_SMALL if few else {}), **params}
    given = {key: value for key, value in wanted.items() if key in takes}
    stage = build_stage(name, given | settings_for(name, settings, "the reader of these data"))
    naming, *reading = _expanded(stage)
    for each in reading:
        each.setup(WorkerMetadata())
    return Rows(found, name, kind, naming, reading)


def with_thumbnails(rows: Rows, side: int) -> None:
    """Add a column ``thumbnail`` with a small picture if the rows are images; otherwise change nothing."""
    if rows.kind == "image":
        rows.reading.append(build_stage("Thumbnail", {"side": side}))


def place_text(batch: DocumentBatch, row: int) -> tuple[str, str]:
    """The file and the place of a row; two empty texts if the reader does not record them."""
    places = places_of(batch)
    return places.at(row) if places is not None else ("", "")


def _expanded(stage: Stage) -> list[Stage]:
    if isinstance(stage, CompositeStage):
        return [inner for part in stage.decompose() for inner in _expanded(part)]
    return [stage]


def settings_for(name: str, settings: Sequence[str], what: str, others: Sequence[str] = ()) -> dict[str, Any]:
    """The parameters of a stage among ``NAME.PARAMETER=VALUE``; settings of the stages in ``others`` are skipped."""
    found = {}
    for setting in settings:
        target, equals, text = setting.partition("=")
        stage, dot, parameter = target.rpartition(".")
        if dot and stage != name and stage in others:
            continue
        if not equals or not parameter or (dot and stage != name):
            raise UsageError(f"--set takes {name}.PARAMETER=VALUE here, for {what}, not {setting!r}")
        found[parameter] = parse_value(text)
    return found


def _refuse_run(data: str) -> None:
    """Raise if the data are a run directory. It contains no rows; the user probably wants the output of the run."""
    if storage.has_magic(data) or not storage.is_local(data):
        return
    if storage.exists(storage.join(data, "run.json")) and storage.exists(storage.join(data, "ledger")):
        raise UsageError(
            f"{data!r} is a run directory: see it with `curate report {data}`; the data are in the folders that its "
            "writers name"
        )


def _sources_text(task: Task[Any]) -> str:
    return ", ".join(task.data[:3]) if isinstance(task, FileGroupTask) else task.task_id
