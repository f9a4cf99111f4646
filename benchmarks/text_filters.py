"""Measures how many documents per second text filters process on one core.

    python benchmarks/text_filters.py FOLDER [--set web-english] [--chars 4000] [--profile]

FOLDER is the output of make_text.py. Documents of at least ``--chars`` characters are cut to that length, so all
documents have the same size. It measures only the CPU time of the filters, without reading, in one process over batches
of four megabytes. `docs_per_s` drops documents as a pipeline does; `docs_per_s_all` computes every score of every
document.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curator_core import DocumentBatch
from curator_text import filters, presets

BATCH_BYTES = 4 << 20


def sets() -> dict[str, list[Any]]:
    # NeMo Curator, datatrove and Data-Juicer were timed with these eight.
    eight = [
        filters.WordCountFilter(50, 100000),
        filters.NonAlphaNumericFilter(0.25),
        filters.SymbolsToWordsFilter(0.1),
        filters.BulletsFilter(0.9),
        filters.EllipsisFilter(0.3),
        filters.MeanWordLengthFilter(3, 10),
        filters.RepeatedLinesFilter(0.7),
        filters.RepeatingTopNGramsFilter(n=2, max_repeating_ngram_ratio=0.2),
    ]
    return {
        "eight": eight,
        "web-english": presets.WebEnglish().decompose(),
        "gopher": presets.Gopher().decompose(),
        "c4": presets.C4().decompose(),
        "fineweb": presets.FineWeb(language=None).decompose(),
        "refinedweb": presets.RefinedWeb(language=None).decompose(),
    }


def main() -> None:
    known = sets()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", choices=known, default="web-english", dest="name")
    parser.add_argument("--chars", type=int, default=4000, help="0 means whole documents")
    parser.add_argument("--documents", type=int, default=6000)
    parser.add_argument("--profile", action="store_true", help="print the time of each filter")
    options = parser.parse_args()
    stages = known[options.name]
    batches = list(batched(texts(options.folder, options.chars, options.documents)))
    documents = sum(batch.num_rows for batch in batches)
    run(stages, batches[:1])  # tables of Unicode and the like are made once in a process
    spent, kept, by_stage = run(stages, batches)
    metrics: dict[str, Any] = {
        "filters": len(stages),
        "documents": documents,
        "kept": kept,
        "docs_per_s": round(documents / spent, 1),
    }
    if all(hasattr(stage, "mode") for stage in stages):
        everything = [stage.with_(mode="annotate") for stage in stages]
        spent_all, _, by_stage = run(everything, batches)
        metrics["docs_per_s_all"] = round(documents / spent_all, 1)
    if options.profile:
        for name, seconds in sorted(by_stage.items(), key=lambda item: -item[1]):
            print(f"{seconds / documents * 1e6:8.2f} us per document {name}")
    print("BENCH", json.dumps(metrics))


def texts(folder: Path, chars: int, limit: int) -> Iterator[str]:
    found = 0
    for path in sorted((folder / "parquet").glob("*.parquet")):
        for text in pq.read_table(path, columns=["text"]).column("text").to_pylist():
            if found < limit and len(text) >= chars:
                found += 1
                yield text[:chars] if chars else text


def batched(documents: Iterator[str]) -> Iterator[DocumentBatch]:
    batch: list[str] = []
    size = 0
    for text in documents:
        batch.append(text)
        size += len(text)
        if size > BATCH_BYTES:
            yield DocumentBatch(data=pa.table({"text": batch}))
            batch, size = [], 0
    if batch:
        yield DocumentBatch(data=pa.table({"text": batch}))


def run(stages: list[Any], batches: list[DocumentBatch]) -> tuple[float, int, dict[str, float]]:
    """The CPU seconds, the number of documents kept, and the CPU seconds by filter."""
    by_stage = dict.fromkeys(map(repr, stages), 0.0)
    kept = 0
    for batch in batches:
        current = DocumentBatch(data=batch.data)  # without cached features
        for stage in stages:
            started = time.process_time()
            current = stage.process(current)
            by_stage[repr(stage)] += time.process_time() - started
        kept += current.num_rows
    return sum(by_stage.values()), kept, by_stage


if __name__ == "__main__":
    main()
