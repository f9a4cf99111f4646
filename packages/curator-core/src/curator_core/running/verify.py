"""Whether the output is still what the run has written."""

from __future__ import annotations

import hashlib
import json

from curator_core import storage
from curator_core.accounts.source_list import SourceList
from curator_core.errors import UsageError
from curator_core.model.lineage import source_of
from curator_core.running.directory import RunDirectory
from curator_core.running.outputs import SUCCESS, checksum
from curator_core.running.steps import step_folders


def verify(run_dir: str) -> list[str]:
    """Recompute every file's size and checksum and compare with what the run recorded; the differences, one a line."""
    directory = RunDirectory(run_dir)
    record = directory.read_json("run.json")
    if record is None:
        raise UsageError(f"{run_dir!r} holds no run: there is no run.json")
    steps = step_folders(directory.url)
    if steps:
        return [f"{storage.file_name(step)}: {problem}" for step in steps for problem in verify(step)]
    problems: list[str] = []
    if "outputs" not in record:
        return [f"the run has not finished (its state is {record.get('state')!r}): resume it first"]
    known = SourceList(directory.url).rows
    for stage, output in record["outputs"].items():
        folder = output["folder"]
        mark = storage.join(folder, SUCCESS)
        if not storage.exists(mark):
            problems.append(f"{stage}: {mark!r} is missing")
            continue
        written = storage.read_bytes(mark)
        recorded = record.get("marks", {}).get(folder)  # early runs have not noted it
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
        problems.extend(f"{stage}: {path!r} is there and was not recorded" for path in extra)
    return problems
