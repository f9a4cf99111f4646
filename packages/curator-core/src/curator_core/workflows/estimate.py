"""What would a deduplication cost? The number of documents, the time, and the disk space."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curator_core import formatting, storage
from curator_core.errors import UsageError
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.machine import available_cpus
from curator_core.model.stage import CompositeStage, ProcessingStage
from curator_core.model.task import DocumentBatch, EmptyTask
from curator_core.running.preview import survey

# At most this many bytes are read of each source that is examined.
SAMPLE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Costs:
    """The measured cost of a whole run: how often the input is read or written, the time of all other steps as a
    multiple of the time for making keys, and the peak disk space, as multiples of the size of the keys and of the
    input.
    """

    readings: float
    keys: float
    disk_of_keys: float
    disk_of_text: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of a run, estimated from a few batches of three sources.

    ``seconds`` is processor time. ``disk`` is the peak size of the run's ``work`` folder, ``free`` the free space on
    the disk. ``chances`` gives the probability that two documents are compared, by their similarity, if that depends on
    chance.
    """

    sources: int
    bytes: int
    documents: int
    exact_count: bool
    seconds: float
    disk: int
    free: int | None
    chances: Mapping[str, float] = field(default_factory=dict)

    def describe(self) -> str:
        """The estimate as text."""
        about = "" if self.exact_count else "about "
        workers = max(1, int(available_cpus()))
        lines = [
            f"{formatting.count(self.sources, 'source')} ({formatting.size(self.bytes)}), "
            f"{about}{formatting.count(self.documents, 'document')}",
            f"about {formatting.duration(self.seconds)} of processor time, {formatting.duration(self.seconds / workers)} "
            f"with {formatting.count(workers, 'worker')} of this machine, and the start of the workers",
            f"up to {formatting.size(self.disk)} of disk for the files between steps, freed at the end"
            + ("" if self.free is None else f"; {formatting.size(self.free)} are free"),
        ]
        if self.free is not None and self.disk > self.free:
            lines.append("warning: that is more than the free space: choose a run directory on another disk")
        if self.chances:
            lines.append("the probability that two documents are compared depends on the similarity of their sketches:")
            lines.append("  Jaccard   " + "  ".join(f"{similarity:>4}" for similarity in self.chances))
            lines.append("  compared  " + "  ".join(f"{chance:.2f}" for chance in self.chances.values()))
        return "\n".join(lines)


def estimate(
    reader: ProcessingStage[Any, Any],
    keys: Any,
    run_dir: str,
    *,
    costs: Costs,
) -> Estimate:
    """Try ``keys``, the stage that makes keys, on batches of the reader's first, middle and last source."""
    halves = reader.decompose() if isinstance(reader, CompositeStage) else [reader]
    if len(halves) != 2:
        raise UsageError(f"{type(reader).__name__} is not a reader of files: its needs cannot be estimated")
    naming, reading = halves
    found, tasks = survey(naming.process(EmptyTask(task_id="sources")) or ())
    sources, size = found.sources, found.bytes
    rows = read_bytes = kept_bytes = 0
    read_s = keys_s = 0.0
    whole = len(tasks) == sources
    with tempfile.TemporaryDirectory(prefix="curator-estimate-") as place:
        trial = keys.with_(path=place)
        trial.setup(WorkerMetadata("estimate"))
        for task in tasks:
            total = sum(bytes_ or 0 for _, bytes_ in task._metadata.get("source_files", ()))
            seen, begun = 0, time.process_time()
            for number, batch in enumerate(reading.process(task) or ()):
                assert isinstance(batch, DocumentBatch)
                read_s += time.process_time() - begun
                batch.task_id = f"{task.task_id}.{number:05d}"
                batch._metadata = dict(task._metadata)
                begun = time.process_time()
                trial.process(batch)
                keys_s += time.process_time() - begun
                rows += batch.num_rows
                seen += batch.to_pyarrow().nbytes
                begun = time.process_time()
                if seen >= SAMPLE_BYTES:
                    whole = whole and seen >= total
                    break
            else:
                seen = total
            read_bytes += min(seen, total) if total else seen
        kept_bytes = sum(path.stat().st_size for path in Path(place).rglob("*.arrow"))
    share = size / read_bytes if read_bytes else 0.0
    return Estimate(
        sources=sources,
        bytes=size,
        documents=rows if whole else round(rows * share),
        exact_count=whole,
        seconds=(costs.readings * read_s + costs.keys * keys_s) * share,
        disk=round(kept_bytes * share * costs.disk_of_keys + size * costs.disk_of_text),
        free=free_bytes(run_dir),
    )


def free_bytes(folder: str) -> int | None:
    """The free bytes at the place of a folder, which may not exist yet; None if that is unknown."""
    if not storage.is_local(folder):
        return None
    place = Path(storage.absolute(folder))
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
