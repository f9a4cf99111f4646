"""Small stages between images and documents: drop duplicates, drop pixels, use the caption as the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from curator_core.across.apply import ApplyDecisions
from curator_core.across.lookup import Lookup
from curator_core.arrow.arrays import scalar
from curator_core.errors import UsageError, check_free
from curator_core.model.stage import CompositeStage, ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_image.batch import BYTES, CAPTION, KEY, PICTURES, ImageBatch


@dataclass(kw_only=True)
class ImageDuplicateRemoval(CompositeStage[ImageBatch, ImageBatch]):
    """Drops the images that a deduplication removes, or that a list names.

    ``decisions_path`` is the folder of a table of decisions, such as ``decisions/`` in the run directory of
    `ExactDedup`. The table identifies an image by its batch and its place in the batch, so this stage must directly
    follow the same reader that was used to make the decisions. ``ids_path`` is instead a list of ids from any origin: a
    text file with one id a line, JSON lines, or Parquet with a column ``ids_column``; ``id_column`` is the column of
    ids in this pipeline. With ``keep=True``, the stage keeps the listed images and drops all others.
    """

    decisions_path: str | None = None
    ids_path: str | None = None
    id_column: str = KEY
    ids_column: str = "id"
    keep: bool = False

    def __post_init__(self) -> None:
        if (self.decisions_path is None) == (self.ids_path is None):
            raise UsageError(
                "ImageDuplicateRemoval takes decisions_path, the folder of a table of decisions, or ids_path, a list of ids: "
                "give one of the two"
            )
        for name in ("decisions_path", "ids_path", "id_column", "ids_column"):
            value = getattr(self, name)
            if not (isinstance(value, str) and value) and not (value is None and name.endswith("_path")):
                raise UsageError(f"ImageDuplicateRemoval.{name} must be some text, not {value!r}")
        if not isinstance(self.keep, bool):
            raise UsageError(f"ImageDuplicateRemoval.keep must be true or false, not {self.keep!r}")

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        if self.decisions_path is not None:
            return [ApplyDecisions(path=self.decisions_path, mode="removed" if self.keep else "remove", columns=[])]
        assert self.ids_path is not None
        how: Literal["inner", "anti"] = "inner" if self.keep else "anti"
        return [Lookup(table=self.ids_path, on=self.id_column, table_on=self.ids_column, columns=[], how=how)]


@dataclass(kw_only=True)
class ImagesToDocuments(ProcessingStage[ImageBatch, DocumentBatch]):
    """Drops image bytes and pixels and keeps every other column, for text writers and workflows."""

    drop: Sequence[str] = (BYTES, *PICTURES)

    def __post_init__(self) -> None:
        if isinstance(self.drop, str):
            raise UsageError(f"ImagesToDocuments.drop must be a list such as [{self.drop!r}]")

    def removes(self) -> list[str]:
        return list(self.drop)

    def process(self, task: ImageBatch) -> DocumentBatch:
        table = task.to_pyarrow()
        table = table.drop_columns([name for name in self.drop if name in table.column_names])
        return DocumentBatch(data=table, dataset_name=task.dataset_name, _metadata=dict(task._metadata))


@dataclass(kw_only=True)
class CaptionToText(ProcessingStage[ImageBatch, ImageBatch]):
    """Copies the caption into the column that text stages read by default; a missing caption becomes an empty text."""

    column: str = CAPTION
    text_column: str = "text"

    def __post_init__(self) -> None:
        for name in ("column", "text_column"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise UsageError(f"CaptionToText.{name} must be the name of a column, not {getattr(self, name)!r}")

    def inputs(self) -> list[str]:
        return [self.column]

    def outputs(self) -> list[str]:
        return [self.text_column]

    def process(self, task: ImageBatch) -> ImageBatch:
        import pyarrow.compute as pc

        check_free("CaptionToText", task.column_names, [self.text_column])
        values = task.to_pyarrow().column(self.column)
        return task.append_column(self.text_column, pc.fill_null(values.cast(pa.string()), scalar("")))
