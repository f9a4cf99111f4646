"""Mixes data sets by weight and splits them by hash, with the same result for any number of workers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from curator_core.arrow.arrays import array
from curator_core.arrow.json_column import values_of
from curator_core.arrow.kinds import EXACT
from curator_core.errors import UsageError, check_free
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_text._columns import check_different

# The largest number of copies; this is more than enough, and fits into memory.
_MOST_COPIES = 10_000


def hashes(values: Sequence[Any], seed: int) -> np.ndarray[Any, Any]:
    """64 bits for each value, which depend only on the value and the seed."""
    return np.fromiter((xxhash.xxh3_64_intdigest(_bytes(value), seed) for value in values), np.uint64, len(values))


def unit_numbers(values: Sequence[Any], seed: int) -> np.ndarray[Any, Any]:
    """A number in [0, 1) for each value, which depends only on the value and the seed."""
    # Use only as many bits as a double can represent: with more, the highest values would be rounded up to 1.
    return (hashes(values, seed) >> np.uint64(11)) * 2.0**-53


@dataclass(kw_only=True)
class SplitByHash(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Assigns each row to a part of the data, named in ``split_column``, by a hash of ``key_column``.

    ``parts`` are the shares, which must add up to 1: ``{train: 0.98, validation: 0.02}``. Rows with the same key are
    always in the same part, also in other runs and with more data; all rows without a key are in one part. ``keep``
    keeps only the rows of one part and adds no column.
    """

    parts: Mapping[str, float]
    key_column: str = "id"
    split_column: str = "split"
    keep: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            not isinstance(self.parts, Mapping)
            or not self.parts
            or not all(_is_number(v) and 0 < v <= 1 for v in self.parts.values())
        ):
            raise UsageError(
                f"SplitByHash.parts must be shares between 0 and 1, such as {{train: 0.9}}, not {self.parts!r}"
            )
        if abs(sum(self.parts.values()) - 1) > 1e-9:
            raise UsageError(f"SplitByHash.parts must add up to 1, not {sum(self.parts.values()):g}")
        if self.keep is not None and self.keep not in self.parts:
            raise UsageError(f"SplitByHash.keep must be one of {', '.join(self.parts)}, not {self.keep!r}")
        check_different(self, self.key_column, None if self.keep else self.split_column)
        check_seed(self)

    def inputs(self) -> list[str]:
        return [self.key_column]

    def outputs(self) -> list[str]:
        return [] if self.keep else [self.split_column]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        table = task.to_pyarrow()
        check_free(type(self).__name__, table.column_names, self.outputs())
        numbers = unit_numbers(values_of(table[self.key_column]), self.seed)
        names = list(self.parts)
        ends = np.cumsum(list(self.parts.values()))
        ends[-1] = 1.0
        places = np.searchsorted(ends, numbers, side="right")
        if self.keep is None:
            return task.append_column(self.split_column, array([names[at] for at in places], pa.string()))
        kept = places == names.index(self.keep)
        self.record_dropped("in another part", int(len(kept) - kept.sum()), which=np.flatnonzero(~kept))
        return task.filter(array(kept))


@dataclass(kw_only=True)
class Blend(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Repeats or drops rows by weight: 0.3 keeps 30 % of them; 2.5 repeats each row twice, and half of them three
    times.

    ``weights`` maps values of ``by_column``, or patterns of values, to weights: for example the name of a data set, or
    ``"*/web/*"`` for files in the reader's ``path_column``. An exact value takes precedence, then the first pattern
    that matches, then ``default``. The selection of rows depends only on ``key_column`` and the seed: rows with the
    same key, or without a key, are selected together. Copies follow one another.
    """

    weights: Mapping[str, float]
    by_column: str = "dataset"
    key_column: str = "id"
    default: float = 1.0
    seed: int = 0
    creates_rows = True

    def __post_init__(self) -> None:
        given = dict(self.weights) if isinstance(self.weights, Mapping) else None
        if given is None or not all(_is_number(v) and 0 <= v <= _MOST_COPIES for v in given.values()):
            raise UsageError(
                f"Blend.weights must map values to numbers from 0 to {_MOST_COPIES}, such as {{web: 0.3}}, "
                f"not {self.weights!r}"
            )
        if not _is_number(self.default) or not 0 <= self.default <= _MOST_COPIES:
            raise UsageError(f"Blend.default must be a number from 0 to {_MOST_COPIES}, not {self.default!r}")
        check_seed(self)

    def inputs(self) -> list[str]:
        return list(dict.fromkeys([self.by_column, self.key_column]))

    def process(self, task: DocumentBatch) -> DocumentBatch:
        table = task.to_pyarrow()
        values = values_of(table[self.by_column])
        meant = {value: self._meant(value) for value in dict.fromkeys(values)}
        names = [meant[value] for value in values]
        weights = np.array([self.weights.get(name, self.default) for name in names], np.float64)
        numbers = unit_numbers(values_of(table[self.key_column]), self.seed)
        times = np.floor(weights).astype(np.int64) + (numbers < weights % 1)
        gone = times == 0
        for name in dict.fromkeys(name for name, none in zip(names, gone, strict=True) if none):
            rows = [at for at, (other, none) in enumerate(zip(names, gone, strict=True)) if none and other == name]
            self.record_dropped(f"weight of {name}", len(rows), which=rows)
        self.record_metric("copies", int(np.maximum(times - 1, 0).sum()))
        return task.with_data(table.take(array(np.repeat(np.arange(len(names)), times))))

    def _meant(self, value: Any) -> Any:
        """The key of ``weights`` that matches a value, or the value itself."""
        if value in self.weights or not isinstance(value, str):
            return value
        patterns = (key for key in self.weights if isinstance(key, str))
        return next((pattern for pattern in patterns if fnmatchcase(value, pattern)), value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_seed(stage: Any) -> None:
    """Raise if the hash cannot use a seed."""
    if isinstance(stage.seed, bool) or not isinstance(stage.seed, int):
        raise UsageError(f"{type(stage).__name__}.seed must be a whole number, not {stage.seed!r}")


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, float) and value.is_integer() and -EXACT <= value <= EXACT:
        value = int(value)  # a column may store whole numbers as floats because of its other values
    return hashlib.sha256(repr((type(value).__name__, value)).encode()).digest()
