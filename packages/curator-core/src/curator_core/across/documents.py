"""What does deduplication need to know about the documents of a batch? Their values, collections, order of preference
and ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.digests import Digests, digests
from curator_core.across.preference import Preference
from curator_core.arrow.arrays import array, scalar
from curator_core.arrow.json_column import as_text, only_texts
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError
from curator_core.model.places import places_of
from curator_core.model.task import DocumentBatch
from curator_core.stages.files import is_pattern

_NAMES = pa.dictionary(pa.int32(), pa.string())


@dataclass(kw_only=True, eq=False, repr=False)
class DocumentParameters:
    """The parameters that say which documents are the same, which one is kept, and how they are named.

    ``column`` is compared. ``keep`` is the order of preference. A collection is the value of ``collection_column``, by
    default the first folder below one of ``bases``; with ``scope="per_collection"`` only documents of one collection
    are compared. The table contains ``id_column`` if the data have it.
    """

    column: str = "text"
    id_column: str | None = "id"
    keep: Sequence[str | Mapping[str, Any]] = ("longest", "first")
    collection_column: str | None = None
    scope: Literal["global", "per_collection"] = "global"
    normalize: bool = False
    bases: Sequence[str] = ()

    def check_documents(self) -> Preference:
        """The order of preference, after a check of the parameters."""
        owner = type(self).__name__
        for name in ("column", "id_column", "collection_column"):
            value = getattr(self, name)
            if not (isinstance(value, str) and value) and not (value is None and name != "column"):
                raise UsageError(f"{owner}.{name} must be the name of a column, not {value!r}")
        if self.scope not in ("global", "per_collection"):
            raise UsageError(f"{owner}.scope must be 'global' or 'per_collection', not {self.scope!r}")
        return Preference.of(self.keep, owner)

    def columns_read(self) -> list[str]:
        """The required columns."""
        return list(dict.fromkeys([self.column, *self._scores(), *filter(None, [self.collection_column])]))

    def _scores(self) -> list[str]:
        return Preference.of(self.keep, type(self).__name__).columns

    def ids(self, table: pa.Table) -> pa.Array:
        """The ids as text; null for rows without one."""
        return ids_of(self, table, self.id_column)

    def texts(self, table: pa.Table) -> pa.ChunkedArray:
        """The texts of the column; values that are not text are null, since they have no words to compare."""
        return only_texts(column_of(table, self.column))

    def collections(self, task: DocumentBatch) -> pa.Array:
        """The collection of each row, as a dictionary of names."""
        table = task.to_pyarrow()
        if self.collection_column is not None:
            values = as_text(column_of(table, self.collection_column).combine_chunks())
            return pc.fill_null(values, scalar("")).dictionary_encode().cast(_NAMES)
        return folders_of(task, self.bases, f"{type(self).__name__} distinguishes collections by folder")

    def scoped(self, found: Digests, collections: pa.Array) -> Digests:
        """The digests; with ``scope="per_collection"``, equal values in different collections get different digests."""
        if self.scope == "global":
            return found
        salts = collection_salts(collections)
        return found._replace(high=found.high ^ salts[:, 0], low=found.low ^ salts[:, 1])


def ids_of(stage: object, table: pa.Table, id_column: str | None) -> pa.Array:
    """The ids in a column as text; null for rows without one."""
    if id_column is None or id_column not in table.column_names:
        return pa.nulls(table.num_rows, pa.string())
    values = table.column(id_column).combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_nested(values.type) or pa.types.is_binary(values.type):
        raise UsageError(f"{type(stage).__name__}.id_column {id_column!r} must hold text or numbers, not {values.type}")
    return as_text(values)


def collection_salts(collections: pa.Array) -> NDArray[np.uint64]:
    """Two pseudo-random numbers for each row, by the name of its collection."""
    names = digests(pa.chunked_array([collections.dictionary]))
    rows = collections.indices.to_numpy(zero_copy_only=False)
    return np.stack([names.high[rows], names.low[rows]], axis=1)


def collection_of(path: str, bases: Sequence[str]) -> str:
    """The first folder of a path below the longest of ``bases`` that contains it; empty if the file is directly in that
    base.
    """
    best = ""
    for base in bases:
        if len(base) >= len(best) and path.startswith(f"{base.rstrip('/')}/"):
            best = base
    below = path[len(best.rstrip("/")) + 1 :] if best else path
    first, slash, _ = below.partition("/")
    return first if slash and best else ""


def folders_of(task: DocumentBatch, bases: Sequence[str], what: str) -> pa.DictionaryArray:
    """The collection of each row by the folder of its file, as a dictionary of names.

    ``what`` begins the error for a task with files of several folders whose rows no longer have their places.
    """
    found = {collection_of(path, bases) for path, _ in task._metadata.get("source_files", ())} or {""}
    if len(found) == 1:
        index = np.zeros(task.num_rows, np.int32)
        return pa.DictionaryArray.from_arrays(array(index), array([found.pop()], pa.string()))
    places = places_of(task)
    if places is None:
        raise UsageError(
            f"{what}, but one task holds files of several ({', '.join(sorted(found)[:3])}), and a stage after the reader has "
            "made new tables, so its rows have no places: read each file in a task of its own (files_per_partition: 1), or "
            "give a column with the collection"
        )
    files = [file for file, _ in places.of(range(task.num_rows))]
    names = {file: collection_of(file, bases) for file in set(files)}
    return array([names[file] for file in files], pa.string()).dictionary_encode().cast(_NAMES)


def bases_of(paths: Sequence[str]) -> list[str]:
    """The folders that contain a reader's ``paths``."""
    found = []
    for entry in paths:
        if is_pattern(entry):
            found.append(storage.fixed_base(entry))
        elif storage.is_folder(entry):
            found.append(entry)
        else:
            found.append(storage.parent(entry))
    return list(dict.fromkeys(found))
