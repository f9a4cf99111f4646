"""The output folders of a run: which run owns each, what is in it, and the success file that marks it finished."""

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
    """A stage that fills a folder: with what it writes, or with the rows that it drops."""

    name: str
    folder: str
    repacks: bool = False


@dataclass(slots=True)
class Finished:
    """What the finishing pass left: the files of each writer in numbers, and what the user should be told."""

    written: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: int = 0
    bytes: int = 0
    rows: int = 0
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Outputs:
    """The folders that a run fills.

    ``success_files`` holds, by absolute folder, the checksum of the success file that this run (in an earlier attempt)
    has put there. It grows as folders are finished; ``note`` is called after each entry and before the file appears, so
    that a run that is killed in between can be resumed. A run without a run directory notes nothing.
    """

    def __init__(
        self,
        plan: Plan,
        success_files: Mapping[str, str] | None = None,
        note: Callable[[], None] = lambda: None,
        *,
        dropped: str | None = None,
    ) -> None:
        """``dropped``: the folder for the rows that stages drop."""
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
        """Refuse to write over what another run has finished: files are named after their sources in every run.

        ``recorded``: whether this run has a run directory; without one it cannot know its own output again.
        """
        for writer in self.writers:
            if self._finished_by_another(writer.folder):
                holds = "the finished output of another run" if recorded else "finished output"
                ways = (
                    "or replace what is there with fresh=True (--fresh)"
                    if recorded
                    else "replace what is there with fresh=True, or run with a run_dir, which recognises its own output"
                )
                raise RunRefused(
                    f"stage {writer.name!r} writes to {writer.folder!r}, which holds {holds}: choose another folder, {ways}"
                )

    def unmark(self) -> None:
        """Remove the success files: a folder that is about to change is no longer finished. A second call does
        nothing.
        """
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
        of ``sources`` and belong to no event were left by earlier attempts, and are removed.
        """
        for writer in self.writers:
            if self._finished_by_another(writer.folder):
                raise RunRefused(
                    f"another run has finished its output in {writer.folder!r} while this one ran, and their files have "
                    "the same names: choose another folder, or write it all again with fresh=True (--fresh)"
                )
        self.unmark()  # no source may have had to run, but a finishing pass can remove and pack files all the same
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
        # Counted separately: what a run has written is what its writers have written.
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
        """Each writer that leaves its files as they are: its folder, and what is in it; listed once."""
        found: dict[str, tuple[str, set[str]]] = {}
        for writer in self.writers:
            if not writer.repacks:
                paths = storage.list_files(writer.folder) if storage.exists(writer.folder) else []
                found[writer.name] = (writer.folder, {storage.relative(path, writer.folder) for path in paths})
        return found


def _check_apart(writers: Sequence[Writer]) -> None:
    """Dropped rows have a folder of their own: the content of a folder is taken for the output of one stage."""
    found: dict[str, Writer] = {}
    for writer in writers:
        place = storage.absolute(writer.folder).rstrip("/")
        other = found.setdefault(place, writer)
        if other is not writer and (other.name.endswith(_ROWS) or writer.name.endswith(_ROWS)):
            raise PlanError(
                f"{writer.folder!r} is the folder of {other.name!r} and of {writer.name!r}: give each its own"
            )


def checksum(data: bytes) -> str:
    """What identifies a success file."""
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
    """Remove what earlier attempts of this run left: files named after its sources that belong to no event. Returns how
    many other files there are.
    """
    if not storage.exists(folder):
        return 0
    targets = {storage.file_name(name) for name in (*standing, SUCCESS)}
    # Another run may share the folder and the sources: a file is this stage's own only if it writes files of that kind.
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
        # No source's name begins with an underscore: files like `_roll.arrow` are what a stage adds when it finishes.
        if ours or (temporary and (target in targets or target.startswith("_"))):
            storage.remove(path)
        elif not file.startswith((".", "_")):
            others += 1
    return others


def _ending(name: str) -> str:
    """What follows the lineage in the name of a file: ``.jsonl.gz`` of ``page-3f2a.00002.jsonl.gz``."""
    _, _, rest = name.partition(".")
    parts = rest.split(".")
    while parts and parts[0].isdigit():
        parts.pop(0)
    return ".".join(parts)


def _once(records: Sequence[FileRecord]) -> list[FileRecord]:
    """Each path once, with its last record, in the order of first mention."""
    by_path: dict[str, FileRecord] = {}
    for record in records:
        by_path[record.path] = record
    return list(by_path.values())
