"""A cheap test of the language of a document, by the language's characters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import scalar
from curator_core.errors import UsageError
from curator_core.model.engine_facts import WorkerMetadata
from curator_text.features.batch import TextFeatures
from curator_text.features.block import Block
from curator_text.features.words import stripped_of
from curator_text.filters.base import TextFilter, check_number, ratio, share

# The path of the files in the NLLB project's published archive of histograms.
_ARCHIVE = Path("histograms/checkpoint/edunov/cc60_multilingual/clean_hists")
_ENGLISH = frozenset(map(chr, range(0x20, 0x7F))) | frozenset("\t\n£©®°·éñü–—‘’“”•…€™")  # noqa: RUF001


@dataclass
class HistogramFilter(TextFilter):
    """Keep documents if the share of their characters in a language's histogram is above ``threshold``.

    ``cache_dir`` is a folder with a file for each language: each line starts with a character, and a line that starts
    with ``threshold_char`` ends the list. The folder may be the unpacked archive of the NLLB project. English needs no
    file: without a folder, its characters are those of an English keyboard and typesetting. Nothing is downloaded.
    """

    lang: str = "en"
    threshold: float = 0.8
    cache_dir: str = ""
    threshold_char: str = "]"
    score_type: ClassVar[pa.DataType] = pa.int64()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "threshold")
        if not isinstance(self.threshold_char, str) or len(self.threshold_char) != 1:
            raise UsageError(f"HistogramFilter.threshold_char must be one character, not {self.threshold_char!r}")
        if not self.cache_dir and self.lang != "en":
            raise UsageError(
                f"HistogramFilter(lang={self.lang!r}) needs cache_dir=…, a folder with a histogram file named {self.lang!r}"
            )

    def setup(self, worker: WorkerMetadata) -> None:
        self._characters()

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        inside = text.per_row(_members, self._characters())
        share = ratio(inside, text.per_row(Block.char_counts), empty=0.0)
        return (share > self.threshold).astype(np.int64)

    def limits(self) -> str:
        return f"documents with more than {share(self.threshold)} of their characters in the histogram of {self.lang}"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.equal(scores, scalar(1))

    def _characters(self) -> frozenset[str]:
        return self.loaded(self._read) if self.cache_dir else _ENGLISH

    def _read(self) -> frozenset[str]:
        folder = Path(self.cache_dir)
        for path in (folder / self.lang, folder / _ARCHIVE / self.lang):
            if path.is_file():
                lines = path.read_text(encoding="utf-8").split("\n")
                break
        else:
            raise UsageError(
                f"HistogramFilter: there is no histogram file {self.lang!r} in cache_dir={self.cache_dir!r}"
            )
        found = set()
        for line in lines:
            if line[:1] == self.threshold_char:
                break
            found.add(line[:1])
        return frozenset(found - {""})


def _members(block: Block, characters: frozenset[str]) -> npt.NDArray[np.int64]:
    codes = np.array(sorted(map(ord, characters)))
    table = np.zeros(256, np.uint8)
    table[codes[codes < 128]] = 1
    mask = np.frombuffer(bytearray(block.raw.translate(table.tobytes())), np.bool_)
    if not block.is_ascii:
        at, points = block.wide_points
        mask[at[np.isin(points, codes)]] = True
    return block.count_between(mask, *stripped_of(block))
