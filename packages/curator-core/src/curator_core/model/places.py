"""Where did each row of a batch stand: which file, and which line, row, byte or key in it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from curator_core.model.task import DocumentBatch

if TYPE_CHECKING:
    import pyarrow as pa

# The key under which a batch has them among what is derived from it.
_PLACES = "places"


@dataclass(frozen=True, slots=True)
class Places:
    """The place of each row of a batch, named as the rejects of a run name it.

    A reader attaches them to the batches that it makes, and they follow filters and journeys to other processes. They
    are gone where a stage makes a new table. ``sources``: one file, or the file of each row. ``unit`` is
    ``line``, ``row`` or ``byte``, and empty where ``found`` holds names.
    """

    of_rows: ClassVar[bool] = True  # they stay true when a column is replaced

    sources: str | Sequence[str]
    unit: str
    found: Sequence[int] | Sequence[str] | npt.NDArray[np.int64]
    # What filters have kept, the newest last: they are applied when a place is asked for.
    masks: tuple[pa.BooleanArray, ...] = ()

    def filter(self, mask: pa.BooleanArray) -> Places:
        return Places(self.sources, self.unit, self.found, (*self.masks, mask))

    def resolved(self) -> Places:
        """The same with what the filters have dropped left out: what is sent to another process."""
        if not self.masks:
            return self
        rows = np.arange(len(self.found))
        for mask in self.masks:
            rows = rows[mask.to_numpy(zero_copy_only=False)]
        chosen = rows.tolist()
        sources = self.sources if isinstance(self.sources, str) else [self.sources[row] for row in chosen]
        return Places(sources, self.unit, [self.found[row] for row in chosen])  # type: ignore[arg-type]

    def __reduce__(self) -> tuple[type[Places], tuple[object, ...]]:
        plain = self.resolved()
        return Places, (plain.sources, plain.unit, plain.found)

    def at(self, row: int) -> tuple[str, str]:
        """The file that a row of the batch stood in, and its place there: ``("a.jsonl", "line 12")``."""
        for mask in reversed(self.masks):
            row = int(np.flatnonzero(mask.to_numpy(zero_copy_only=False))[row])
        source = self.sources if isinstance(self.sources, str) else self.sources[row]
        place = self.found[row]
        return source, f"{self.unit} {place}" if self.unit else str(place)


def place_rows[B: DocumentBatch](batch: B, places: Places) -> B:
    """The batch, which now says where its rows stood."""
    batch._derived[_PLACES] = places
    return batch


def places_of(batch: DocumentBatch) -> Places | None:
    """Where the rows of a batch stood, if that is still there."""
    found = batch._derived.get(_PLACES)
    return found if isinstance(found, Places) else None


def places_header(batch: DocumentBatch) -> list[object] | None:
    """The places of a batch as plain values, for the header of an encoded task; rows that follow one another as two numbers."""
    places = places_of(batch)
    if places is None:
        return None
    plain = places.resolved()
    found = [value if isinstance(value, str) else int(value) for value in plain.found]
    sources = plain.sources if isinstance(plain.sources, str) else list(plain.sources)
    if not isinstance(sources, str) and len(set(sources)) == 1:
        sources = sources[0]
    numbers = [value for value in found if isinstance(value, int)]
    if len(numbers) == len(found) > 2 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return [sources, plain.unit, numbers[0], len(numbers)]
    return [sources, plain.unit, found]


def places_from(header: list[object]) -> Places:
    """The places in a header made by `places_header`."""
    sources, unit, found, *more = header
    if more:
        assert isinstance(found, int)
        found = range(found, found + int(str(more[0])))
    return Places(sources, str(unit), found)  # type: ignore[arg-type]
