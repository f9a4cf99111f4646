"""Is the output still as the run wrote it?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from curator_core import storage
from curator_core.accounts.source_list import SourceList
from curator_core.errors import UsageError
from curator_core.model.lineage import source_of
from curator_core.running.directory import RunDirectory
from curator_core.running.outputs import SUCCESS, checksum
from curator_core.running.workflow_plan import is_within


def verify(run_dir: str) -> list[str]:
    """Recompute the size and checksum of every file and compare them with the records of the run; return the
    differences.

    For a workflow, all steps are checked, without the folders that were removed during the run.
    """
    if RunDirectory(run_dir).read_json("run.json") is None:
        raise UsageError(f"{run_dir!r} holds no run: there is no run.json")
    return _verify(RunDirectory(run_dir), [])


def files_of(run_dir: str) -> int:
    """The number of files that a run has recorded, without those that it has removed."""
    return _files_of(RunDirectory(run_dir), [])


def _verify(directory: RunDirectory, freed: list[str]) -> list[str]:
    record = _record_of(directory)
    complete = record.get("state") in ("done", "quarantined") if record.get("steps") else "outputs" in record
    if not complete:
        return [f"the run has not finished (its state is {record.get('state')!r}): resume it first"]
    if record.get("steps"):
        freed = [*freed, *_freed(directory, record)]
        return [
            f"{step['name']}: {problem}"
            for step in record["steps"]
            for problem in _verify(RunDirectory(directory.path(step["folder"])), freed)
        ]
    problems: list[str] = []
    known = SourceList(directory.url).rows
    for stage, output in record["outputs"].items():
        folder = output["folder"]
        if any(is_within(folder, place) for place in freed):
            continue
        mark = storage.join(folder, SUCCESS)
        if not storage.exists(mark):
            problems.append(f"{stage}: {mark!r} is missing")
            continue
        written = storage.read_bytes(mark)
        recorded = record.get("marks", {}).get(folder)  # records of early versions lack it
        if recorded is not None and checksum(written) != recorded:
            problems.append(
                f"{stage}: {mark!r} is not the one that this run wrote: another run has replaced the output"
            )
            continue
        try:
            listed = {entry["path"]: entry for entry in json.loads(written)["files"]}
        except (ValueError, KeyError, TypeError):
            problems.append(f"{stage}: {mark!r} is damaged: it is not the list of files that a run writes")
            continue
        present = {storage.relative(path, folder) for path in storage.list_files(folder)} - {SUCCESS}
        for path, entry in listed.items():
            if path not in present:
                problems.append(f"{stage}: {path!r} is missing")
                continue
            digest, size = hashlib.sha256(), 0
            with storage.open_input(storage.join(folder, path)) as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                    size += len(block)
            if size != entry["bytes"]:
                problems.append(f"{stage}: {path!r} has {size} bytes, not {entry['bytes']}")
            elif entry["sha256"] and digest.hexdigest() != entry["sha256"]:
                problems.append(f"{stage}: {path!r} has changed: its sha256 is not the recorded one")
        extra = sorted(path for path in present - set(listed) if source_of(storage.file_name(path)) in known)
        problems.extend(f"{stage}: {path!r} exists and was not recorded" for path in extra)
    return problems


def _files_of(directory: RunDirectory, freed: list[str]) -> int:
    record = _record_of(directory)
    freed = [*freed, *_freed(directory, record)]
    inner = (_files_of(RunDirectory(directory.path(step["folder"])), freed) for step in record.get("steps", ()))
    outputs = record.get("outputs", {}).values() if not record.get("steps") else ()  # the file belongs to a step
    own = (int(o["files"]) for o in outputs if not any(is_within(o["folder"], place) for place in freed))
    return sum(inner) + sum(own)


def _freed(directory: RunDirectory, record: Mapping[str, Any]) -> list[str]:
    """The folders that the steps of a workflow have removed."""
    return [directory.path(folder) for step in record.get("steps", ()) for folder in step.get("freed", ())]


def _record_of(directory: RunDirectory) -> dict[str, Any]:
    record: dict[str, Any] | None = directory.read_json("run.json")
    if record is None:
        raise UsageError(f"{directory.url!r} holds no run: there is no run.json")
    return record
