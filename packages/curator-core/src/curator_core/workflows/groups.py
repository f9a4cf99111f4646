"""Which documents are connected by edges? The steps that find out, with all edges in one task or in rounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from curator_core import storage
from curator_core.across.groups import (
    EDGE_BYTES,
    PART_ROWS,
    AllEdges,
    EdgeFiles,
    LargeStar,
    ReadEdges,
    SmallStar,
    SolveGroups,
    StarMembers,
    WriteEdges,
    WriteGroups,
    WriteMembers,
    edge_files,
    notes_in,
)
from curator_core.across.roll import ROW_BITS
from curator_core.across.shuffle import MOST_PARTITIONS, Partitions
from curator_core.errors import UsageError
from curator_core.pipeline import Pipeline
from curator_core.stages.files import parse_bytes
from curator_core.workflow import Step, Workflow

_LEAST_PARTITIONS = 16


@dataclass(kw_only=True)
class Groups(Workflow):
    """Writes to ``path`` the groups of documents that the edges in the folder ``edges`` connect.

    Up to ``memory`` bytes of edges (16 bytes each) are solved by one task, which takes about ten times as much memory.
    More edges are solved in rounds, whose tasks hold ``memory``/4 bytes of edges each. An edge from a document to
    itself is left out. The result depends on the edges alone, whatever the memory and the number of workers.
    """

    edges: str
    path: str
    memory: int | str = "96MiB"
    later = "if the edges do not fit in memory, rounds over them until one changes nothing or the rest fits"

    def __post_init__(self) -> None:
        for name in ("edges", "path"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise UsageError(f"Groups.{name} must be a folder or URL, not {value!r}")
        parse_bytes(self.memory, "Groups.memory")

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        memory = parse_bytes(self.memory, "Groups.memory")
        # The plan is made before the edges exist.
        size = sum(file.size for file in edge_files(self.edges)) if storage.exists(self.edges) else 0
        if size <= memory:
            yield Pipeline([AllEdges(path=self.edges), SolveGroups(path=self.path)], name="groups")
            return
        share = max(EDGE_BYTES, memory // 4)
        partitions = min(MOST_PARTITIONS, max(_LEAST_PARTITIONS, -(-2 * size // share)))
        before = self.edges
        notes = storage.join(work_dir, "notes")

        def written(name: str, both: bool) -> WriteEdges:
            report = storage.join(notes, f"{name}.json")
            return WriteEdges(path=storage.join(work_dir, name), partitions=partitions, both_ways=both, notes=report)

        # The files in `notes` stay when folders are freed, so that a resumed run has the same steps.
        yield Pipeline(
            [EdgeFiles(path=before, memory=share), ReadEdges(memory=share), written("edges", True)], name="edges"
        )
        before = "edges"
        number = 0
        while True:
            number += 1
            changed = 0
            for kind in ("large", "small"):
                name = f"{kind}-{number:02d}"
                stage = LargeStar(memory=share) if kind == "large" else SmallStar(memory=share)
                stages = [Partitions(path=storage.join(work_dir, before)), stage, written(name, kind == "small")]
                yield Step(Pipeline(stages, name=name), frees=[storage.join(work_dir, before)])
                before = name
                changed += notes_in(notes, name)["changed"]
            left = notes_in(notes, before)
            folder = storage.join(work_dir, before)
            if left["edges"] * EDGE_BYTES <= memory:
                yield Step(
                    Pipeline([AllEdges(path=folder), SolveGroups(path=self.path)], name="groups"), frees=[folder]
                )
                return
            if not changed:
                break
        batches = (left["highest"] >> ROW_BITS) + 1
        parts = min(batches, MOST_PARTITIONS, -(-2 * left["edges"] // PART_ROWS))
        members = storage.join(work_dir, "members")
        write = WriteMembers(path=members, partitions=parts, batches=batches)
        yield Step(
            Pipeline([Partitions(path=folder), StarMembers(memory=share), write], name="members"), frees=[folder]
        )
        yield Step(
            Pipeline([Partitions(path=members), WriteGroups(path=self.path, memory=share)], name="groups"),
            frees=[members],
        )
