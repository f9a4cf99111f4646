"""Measures on one core how fast keys for deduplication are computed from texts, and how fast groups are decided.

    python benchmarks/dedup_keys.py FOLDER [--documents 50000]

FOLDER is the output of make_text.py. It measures CPU time in one process, for texts in memory. `keys_to_split` compares
the speed with pyarrow, which lower-cases the same texts and splits them at white space in the same run. `near_with_key`
counts the edited copies that share a key with their original; `decided` measures clusters of the corpus, each as one
group; `template` measures one group of 10,000 pages that share most of their words.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curator_text.dedup.compare import decide
from curator_text.dedup.sketch import near_keys
from curator_text.dedup.words import Words, words_of

REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=50_000)
    options = parser.parse_args()
    table = pq.read_table(options.folder / "parquet", columns=["id", "text"]).slice(0, options.documents)
    labels = pq.read_table(options.folder / "labels.parquet", columns=["id", "kind", "cluster"])
    table = table.join(labels, "id").sort_by("id").combine_chunks()
    texts = table["text"]
    size = pc.sum(pc.binary_length(texts)).as_py()
    keys, _ = near_keys(texts)  # tables, such as those of Unicode, are made once per process
    ours = spent(lambda: near_keys(texts))
    theirs = spent(lambda: [split(chunk) for chunk in pieces(texts)])
    metrics: dict[str, Any] = {
        "documents": len(texts),
        "keys_mb_per_s": round(size / ours / 1e6, 1),
        "split_mb_per_s": round(size / theirs / 1e6, 1),
        "keys_to_split": round(theirs / ours, 3),
    }
    kinds, clusters = table["kind"].to_numpy(), table["cluster"].to_numpy()
    metrics |= recall(keys, kinds, clusters)
    words = words_of(texts)
    group = np.where(clusters >= 0, clusters, np.iinfo(np.int64).max - np.arange(len(clusters)))
    order = -np.diff(words.offsets)
    made = decide(words, group, order)
    decided = spent(lambda: decide(words, group, order))
    metrics |= {
        "removed": int((made.witness >= 0).sum()),
        "compared": int(made.compared.sum()),
        "decided_documents_per_s": round(len(texts) / decided),
    }
    pages = template(words, 10_000)
    one = np.zeros(len(pages), np.int64)
    made = decide(pages, one, np.arange(len(pages)))
    seconds = spent(lambda: decide(pages, one, np.arange(len(pages))), 1)
    metrics |= {"template_removed": int((made.witness >= 0).sum()), "template_s": round(seconds, 3)}
    print("BENCH", json.dumps(metrics))


def spent(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """The CPU seconds of the fastest of several runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
    return best


def pieces(texts: pa.ChunkedArray) -> list[pa.Array]:
    # Process as many texts at once as fit into the cache, as our own code does.
    return [texts.slice(start, 100).combine_chunks() for start in range(0, len(texts), 100)]


def split(texts: pa.Array) -> pa.Array:
    return pc.utf8_split_whitespace(pc.utf8_lower(texts))


def recall(keys: np.ndarray[Any, Any], kinds: np.ndarray[Any, Any], clusters: np.ndarray[Any, Any]) -> dict[str, int]:
    """The number of edited copies, and how many of them share a key with their original."""
    base = {cluster: row for row, (kind, cluster) in enumerate(zip(kinds, clusters, strict=True)) if kind == "base"}
    near = [row for row in np.flatnonzero(kinds == "near").tolist() if clusters[row] in base]
    origins = [base[clusters[row]] for row in near]
    shared = (keys[near] == keys[origins]).any(axis=1)
    return {"near": len(near), "near_with_key": int(shared.sum())}


def template(words: Words, count: int) -> Words:
    """Pages that consist of a common template of 120 words and 20 to 80 words of their own."""
    chance = np.random.default_rng(0)
    own = chance.integers(20, 80, count)
    shared = np.minimum((own * chance.uniform(1.5, 9, count)).astype(np.int64), 120)
    frame, parts = words.hashes[:120], []
    for mine, of_all in zip(own.tolist(), shared.tolist(), strict=True):
        cut = of_all // 2
        parts += [frame[:cut], chance.choice(words.hashes, mine), frame[cut:of_all]]
    return Words(np.concatenate(parts), np.append(0, np.cumsum(own + shared)))


if __name__ == "__main__":
    main()
