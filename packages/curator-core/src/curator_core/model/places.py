"""Where does each row of a batch come from: which file, and which line, row, byte or key in it?"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from curator_core.arrow.arrays import to_numpy
from curator_core.model.task import DocumentBatch

if TYPE_CHECKING:
    import pyarrow as pa

# The key of places among the derived values of a batch.
_PLACES = "places"


class Mask:
    """A filter's mask. The rows that it keeps are found once, since several later filters may look up places."""

    __slots__ = ("_kept", "_rows")

    def __init__(self, kept: pa.BooleanArray) -> None:
        self._kept = kept
        self._rows: npt.NDArray[np.int64] | None = None

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        if self._rows is None:
            self._rows = np.flatnonzero(to_numpy(self._kept))
        return self._rows


@dataclass(frozen=True, slots=True)
class Places:
    """The place of each row of a batch, named as in the rejects of a run.

    A reader attaches them to the batches that it makes, and they survive filters and transfers to other processes. They
    are lost when a stage makes a new table. ``sources`` is one file, or the file of each row. ``unit`` is ``line``,
    ``row`` or ``byte``, or empty if ``found`` contains names.
    """

    of_rows: ClassVar[bool] = True  # they stay valid when a column is replaced

    sources: str | Sequence[str]
    unit: str
    found: Sequence[int] | Sequence[str] | npt.NDArray[np.int64]
    # The masks of filters, the newest last; they are applied when a place is read.
    masks: tuple[Mask, ...] = ()

    def filter(self, mask: pa.BooleanArray) -> Places:
        return Places(self.sources, self.unit, self.found, (*self.masks, Mask(mask)))

    def packed(self) -> list[Any]:
        """The places as JSON values, after all filters."""
        found, sources = self.found, self.sources
        if self.masks:
            rows = np.arange(len(found))
            for mask in self.masks:
                rows = rows[mask.rows]
            if not isinstance(sources, str):
                sources = [sources[row] for row in rows.tolist()]
            found = [str(found[row]) for row in rows.tolist()] if not self.unit else np.asarray(found, np.int64)[rows]
        if not isinstance(sources, str):
            sources = sources[0] if len(set(sources)) == 1 else list(sources)
        if not self.unit:
            return [sources, self.unit, list(found)]
        if isinstance(found, range) and found.step == 1:
            return [sources, self.unit, found.start, found.stop]
        return [sources, self.unit, base64.b64encode(np.asarray(found, "<i8").tobytes()).decode()]

    @classmethod
    def unpacked(cls, packed: Sequence[Any]) -> Places:
        """The places from the values that `packed` returned."""
        sources, unit, *found = packed
        if not unit:
            return cls(sources, unit, found[0])
        if len(found) == 2:
            return cls(sources, unit, range(*found))
        return cls(sources, unit, np.frombuffer(base64.b64decode(found[0]), "<i8"))

    def at(self, row: int) -> tuple[str, str]:
        """The file of a row of the batch, and its place there: ``("a.jsonl", "line 12")``."""
        return self.of([row])[0]

    def of(self, rows: Sequence[int]) -> list[tuple[str, str]]:
        """The files and the places of several rows."""
        found = np.asarray(rows, np.int64)
        for mask in reversed(self.masks):
            found = mask.rows[found]
        places = []
        for row in found.tolist():
            source = self.sources if isinstance(self.sources, str) else self.sources[row]
            place = self.found[row]
            places.append((source, f"{self.unit} {place}" if self.unit else str(place)))
        return places


def place_rows[B: DocumentBatch](batch: B, places: Places) -> B:
    """Attach places to a batch and return it."""
    batch._derived[_PLACES] = places
    return batch


def places_of(batch: DocumentBatch) -> Places | None:
    """The places of the rows of a batch, if they are still known."""
    found = batch._derived.get(_PLACES)
    return found if isinstance(found, Places) else None
