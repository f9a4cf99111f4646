"""How is a reader made of two stages that share their parameters? One lists the files, the other reads them."""

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
    """Base of readers of files: ``partitioning`` lists them, ``read`` reads them.

    Each of the two stages gets the reader's parameters of the same name. A reader and its reading stage share a base
    class with their common parameters, so that these are in one place::

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
    # The endings of the files that are read from a folder; if empty, all files are read.
    suffixes: ClassVar[Sequence[str]] = ()

    def __post_init__(self) -> None:
        self.decompose()

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        checked_paths(f"{type(self).__name__}.paths", self.paths)
        given = {"extensions": self.suffixes or None, **self.handed_on()}
        return [made_from(given, self.partitioning), made_from(given, self.read)]

    def handed_on(self) -> dict[str, Any]:
        """The parameters for both stages, by name."""
        return self.params()


def made_from[S: ProcessingStage[Any, Any]](given: Mapping[str, Any], kind: type[S]) -> S:
    """A stage of ``kind`` with those of the ``given`` parameters that it takes; a composite makes its parts with this."""
    return kind(**{name: given[name] for name in constructor_signature(kind).parameters if name in given})
