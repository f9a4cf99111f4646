"""The output folders of a run: which run owns each, what it contains, and the success file that marks it as finished."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from curator_core import storage
from curator_core.accounts.events import Event
from curator_core.errors import PlanError, RunRefused
from curator_core.formatting import count
from curator_core.model.lineage import source_of
from curator_core.model.stage import overrides
from curator_core.model.task import FileRecord
from curator_core.planning.plan import Plan
from curator_core.worker.dropped_rows import dropped_folder, output_name

SUCCESS = "_SUCCESS"
_ROWS = output_name("")


@dataclass(frozen=True, slots=True)
class Writer:
    """A stage that fills a folder, with its output or with the rows that it drops."""

    name: str
    folder: str
    repacks: bool = False


@dataclass(slots=True)
class Finished:
    """The outcome of the finishing pass: the number of files of each writer, and notes for the user."""

    written: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: int = 0
    bytes: int = 0
    rows: int = 0
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Outputs:
    """The folders that a run fills.

    ``success_files`` holds, by absolute folder, the checksum of the success file that an earlier attempt of this run
    has written there. It grows as folders are finished; ``note`` is called after each entry and before the file
    appears, so that a run that is killed in between can be resumed. A run without a run directory records nothing.
    """

    def __init__(
        self,
        plan: Plan,
        success_files: Mapping[str, str] | None = None,
        note: Callable[[], None] = lambda: None,
        *,
        dropped: str | None = None,
    ) -> None:
        """``dropped`` is the folder for the rows that stages drop."""
        self.plan = plan
        self.success_files = dict(success_files or {})
        self.note = note
        self._unmarked = False
        self.writers = [
            Writer(planned.name, folder, planned.stage.repacks())
            for planned in plan.stages
            if (folder := planned.stage.output_folder())
        ]
        self.dropped = [
            Writer(output_name(planned.name), folder)
            for planned in plan.stages
            if (folder := dropped_folder(planned, dropped))
        ]
        _check_apart([*self.writers, *self.dropped])
        self.writers += self.dropped

    def require_own(self, *, recorded: bool) -> None:
        """Raise if the output would overwrite the finished output of another run, since all runs name files after their
        sources.

        ``recorded`` says whether this run has a run directory; without one it cannot recognise its own output.
        """
        for writer in self.writers:
            if self._finished_by_another(writer.folder):
                holds = "the finished output of another run" if recorded else "finished output"
                ways = (
                    "or replace it with fresh=True (--fresh)"
                    if recorded
                    else "replace it with fresh=True, or run with a run_dir, which recognises its own output"
                )
                raise RunRefused(
                    f"stage {writer.name!r} writes to {writer.folder!r}, which holds {holds}: choose another folder, {ways}"
                )

    def unmark(self) -> None:
        """Remove the success files, since the folders are about to change. A second call does nothing."""
        if self._unmarked:
            return
        self._unmarked = True
        for writer in self.writers:
            path = storage.join(writer.folder, SUCCESS)
            if storage.exists(path):
                storage.remove(path)

    def are_there(self, events: Iterable[Event]) -> bool:
        """Whether the files that these events name still exist; files that a finishing pass has repacked are not
        checked.
        """
        for event in events:
            for stage, record in event.outputs:
                if stage in self._direct:
                    folder, present = self._direct[stage]
                    if storage.relative(record.path, folder) not in present:
                        return False
        return True

    def finish(self, outputs: Mapping[str, Sequence[FileRecord]], sources: AbstractSet[str]) -> Finished:
        """The finishing pass of each stage, and a success file in each folder.

        ``outputs`` are the files that count, by stage and in lineage order. Files in a folder that are named after one
        of ``sources`` but belong to no event are leftovers of earlier attempts and are removed.
        """
        for writer in self.writers:
            if self._finished_by_another(writer.folder):
                raise RunRefused(
                    f"another run has finished its output in {writer.folder!r} while this one ran, and their files have "
                    "the same names: choose another folder, or write it all again with fresh=True (--fresh)"
                )
        self.unmark()  # even if no source had to run, a finishing pass can remove and pack files
        done = Finished()
        for planned in self.plan.stages:
            records = _once(outputs.get(planned.name, []))
            if overrides(planned.stage, "finish"):
                standing = planned.stage.finish(records)
                if standing is not None:
                    records = list(standing)
            folder = planned.stage.output_folder()
            if folder:
                self._finish_folder(planned.name, folder, records, sources, done)
            if text := planned.stage.conclusion():
                done.notes.append(text)
        # Dropped rows are counted separately: the output of a run is that of its writers.
        beside = Finished()
        for writer in self.dropped:
            records = _once(outputs.get(writer.name, []))
            if records or storage.exists(writer.folder):
                self._finish_folder(writer.name, writer.folder, records, sources, beside)
        done.written |= beside.written
        done.warnings += beside.warnings
        return done

    def _finish_folder(
        self, stage: str, folder: str, records: Sequence[FileRecord], sources: AbstractSet[str], done: Finished
    ) -> None:
        names = [storage.relative(record.path, folder) for record in records]
        others = _remove_strays(folder, set(names), sources)
        if others:
            done.warnings.append(
                f"{folder!r} also holds {count(others, 'file')} that this run did not write; {SUCCESS} does not list them"
            )
        storage.make_folder(folder)
        rows, size = sum(record.rows for record in records), sum(record.bytes for record in records)
        with storage.write_atomic(storage.join(folder, SUCCESS)) as out:
            for text in _success_text(stage, rows, size, names, records):
                out.write(text.encode("utf-8", "surrogatepass"))
            out.flush()
            self.success_files[storage.absolute(folder)] = out.sha256
            self.note()
        done.written[stage] = {"folder": storage.absolute(folder), "files": len(records)}
        done.files += len(records)
        done.bytes += size
        done.rows += rows

    def _finished_by_another(self, folder: str) -> bool:
        path = storage.join(folder, SUCCESS)
        if not storage.exists(path):
            return False
        return checksum(storage.read_bytes(path)) != self.success_files.get(storage.absolute(folder))

    @functools.cached_property
    def _direct(self) -> dict[str, tuple[str, set[str]]]:
        """The folder and the files of each writer that does not repack them; each folder is listed once."""
        found: dict[str, tuple[str, set[str]]] = {}
        for writer in self.writers:
            if not writer.repacks:
                paths = storage.list_files(writer.folder) if storage.exists(writer.folder) else []
                found[writer.name] = (writer.folder, {storage.relative(path, writer.folder) for path in paths})
        return found


def _check_apart(writers: Sequence[Writer]) -> None:
    """Check that dropped rows have folders of their own, since all files in a folder count as the output of one stage."""
    found: dict[str, Writer] = {}
    for writer in writers:
        place = storage.absolute(writer.folder).rstrip("/")
        other = found.setdefault(place, writer)
        if other is not writer and (other.name.endswith(_ROWS) or writer.name.endswith(_ROWS)):
            raise PlanError(
                f"{writer.folder!r} is the folder of {other.name!r} and of {writer.name!r}: give each its own"
            )


def checksum(data: bytes) -> str:
    """The checksum that identifies a success file."""
    return hashlib.sha256(data).hexdigest()


def _success_text(
    stage: str, rows: int, size: int, names: Sequence[str], records: Sequence[FileRecord]
) -> Iterator[str]:
    """The content of a success file: JSON with a line for each file, because there may be a million of them."""
    yield f'{{"stage": {json.dumps(stage)}, "rows": {rows}, "bytes": {size}, "files": ['
    end = "\n"
    for name, record in zip(names, records, strict=True):
        entry = {"path": name, "rows": record.rows, "bytes": record.bytes, "sha256": record.sha256}
        yield end + json.dumps(entry)
        end = ",\n"
    yield "\n]}\n"


def _remove_strays(folder: str, standing: AbstractSet[str], sources: AbstractSet[str]) -> int:
    """Remove leftovers of earlier attempts of this run: files named after its sources that belong to no event. Return
    the number of other files.
    """
    if not storage.exists(folder):
        return 0
    targets = {storage.file_name(name) for name in (*standing, SUCCESS)}
    # Another run may share the folder and the sources: a file belongs to this stage only if the stage writes files of
    # that kind.
    endings = {_ending(name) for name in targets - {SUCCESS}}
    others = 0
    for path in storage.list_files(folder, hidden=True):
        name = storage.relative(path, folder)
        if name in standing or name == SUCCESS:
            continue
        file = storage.file_name(path)
        temporary = storage.is_temporary(path)
        target = storage.target_name(path) if temporary else file
        ours = source_of(target) in sources and (not endings or _ending(target) in endings)
        # No source's name begins with an underscore: a file like `_roll.arrow` is one that a stage adds in `finish`.
        if ours or (temporary and (target in targets or target.startswith("_"))):
            storage.remove(path)
        elif not file.startswith((".", "_")):
            others += 1
    return others


def _ending(name: str) -> str:
    """The part of a file name after the lineage: ``jsonl.gz`` in ``page-3f2a.00002.jsonl.gz``."""
    _, _, rest = name.partition(".")
    parts = rest.split(".")
    while parts and parts[0].isdigit():
        parts.pop(0)
    return ".".join(parts)


def _once(records: Sequence[FileRecord]) -> list[FileRecord]:
    """Each path once, with its last record, in the order of first appearance."""
    by_path: dict[str, FileRecord] = {}
    for record in records:
        by_path[record.path] = record
    return list(by_path.values())
