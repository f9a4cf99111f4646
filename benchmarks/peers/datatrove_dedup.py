"""Deduplicates the labelled corpus with datatrove, from JSON lines to JSON lines.

    sh benchmarks/peers/datatrove.sh
    benchmarks/peers/envs/datatrove/bin/python benchmarks/peers/datatrove_dedup.py exact|fuzzy FOLDER SCRATCH [--words spacy|space]

It runs datatrove's documented steps with their defaults (word 5-grams, 14 buckets of 8 hashes), two workers, and a task
for each file. By default for English, spaCy finds the words; `space` splits at white space, which is four times as fast
and finds as many duplicates.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.exact_dedup import ExactDedupConfig
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.word_tokenizers import WordTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dedup_truth import report_kept

WORKERS = 2


class WhiteSpace(WordTokenizer):
    """A word tokenizer that splits at white space."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        return text.split("\n")

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        raise NotImplementedError


def text_of(document: Any) -> str:
    return str(document.text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["exact", "fuzzy"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--words", choices=["spacy", "space"], default="spacy")
    options = parser.parse_args()
    scratch = options.scratch / "datatrove"
    shutil.rmtree(scratch, ignore_errors=True)
    source, target = options.folder / "jsonl", scratch / "out"
    tasks = len(list(source.rglob("*.jsonl")))
    started = time.perf_counter()

    def run(name: str, steps: list[Any], count: int) -> None:
        LocalPipelineExecutor(
            pipeline=steps, tasks=count, workers=min(WORKERS, count), logging_dir=str(scratch / "logs" / name)
        ).run()

    def read() -> JsonlReader:
        return JsonlReader(str(source))

    def write() -> JsonlWriter:
        return JsonlWriter(str(target), compression=None)

    signatures, found = str(scratch / "signatures"), str(scratch / "found")
    if options.kind == "exact":
        exact = ExactDedupConfig(content_getter=text_of)
        run(
            "sign", [read(), ExactDedupSignature(output_folder=signatures, config=exact, finder_workers=WORKERS)], tasks
        )
        run("find", [ExactFindDedups(data_folder=signatures, output_folder=found, config=exact)], WORKERS)
        run("drop", [read(), ExactDedupFilter(data_folder=found, config=exact), write()], tasks)
    else:
        config = MinhashConfig()
        language: Any = "eng" if options.words == "spacy" else WhiteSpace()
        sign = MinhashDedupSignature(output_folder=signatures, config=config, language=language)
        run("sign", [read(), sign], tasks)
        buckets = str(scratch / "buckets")
        join = MinhashDedupBuckets(input_folder=signatures, output_folder=buckets, config=config)
        run("buckets", [join], config.num_buckets)
        run("clusters", [MinhashDedupCluster(input_folder=buckets, output_folder=found, config=config)], 1)
        run("drop", [read(), MinhashDedupFilter(input_folder=found), write()], tasks)
    wall = time.perf_counter() - started
    metrics = report_kept(options.folder, target)
    print("BENCH", json.dumps({"pipeline_s": round(wall, 2), "rows_in": metrics.pop("documents"), **metrics}))


if __name__ == "__main__":
    main()
