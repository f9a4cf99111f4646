"""A reader in two stages: one names the files, the other reads them, and both take their parameters from one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from curator_core.model.parameters import constructor_signature
from curator_core.model.stage import CompositeStage, ProcessingStage
from curator_core.model.task import EmptyTask, Task
from curator_core.stages.files import FilePartitioning, checked_paths

Y = TypeVar("Y", bound=Task[Any])


@dataclass(kw_only=True)
class PartitionedReader(CompositeStage[EmptyTask, Y]):
    """Base of readers of files: ``partitioning`` names them, ``read`` reads them.

    Each half is given the reader's parameters of the same name. A reader shares the parameters of its reading half
    through a base class for both, so that they are in one place::

        @dataclass(kw_only=True, eq=False, repr=False)
        class LineParameters:
            encoding: str = "utf-8"

        @dataclass(kw_only=True)
        class LinesRead(LineParameters, FanOut[FileGroupTask, DocumentBatch]): ...

        @dataclass(kw_only=True)
        class LinesReader(LineParameters, PartitionedReader[DocumentBatch]):
            read = LinesRead
            suffixes = (".txt",)
    """

    paths: str | Sequence[str]
    files_per_partition: int = 1
    bytes_per_partition: int | str | None = None
    limit: int | None = None

    partitioning: ClassVar[type[ProcessingStage[Any, Any]]] = FilePartitioning
    read: ClassVar[type[ProcessingStage[Any, Any]]]
    # The endings of files that are read from a folder; all files if it is empty.
    suffixes: ClassVar[Sequence[str]] = ()

    def __post_init__(self) -> None:
        self.decompose()

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        checked_paths(f"{type(self).__name__}.paths", self.paths)
        given = {"extensions": self.suffixes or None, **self.handed_on()}
        return [made_from(given, self.partitioning), made_from(given, self.read)]

    def handed_on(self) -> dict[str, Any]:
        """The parameters for both halves, by name."""
        return self.params()


def made_from[S: ProcessingStage[Any, Any]](given: Mapping[str, Any], kind: type[S]) -> S:
    """A stage of ``kind`` with those parameters of ``given`` that it takes: this is how a composite makes its
    halves.
    """
    return kind(**{name: given[name] for name in constructor_signature(kind).parameters if name in given})
