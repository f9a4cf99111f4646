"""Measures the size of a ledger, and the cost of opening it.

    python benchmarks/ledger_size.py [--leaves 10000000] [--leaves-per-source 1000]

Writes the ledger of a run in which sources fork into leaves, and each leaf writes a file. Then it opens the ledger as a
resumed run does, checks whether every source is complete, and adds up shares and rows. Prints ``BENCH {json}``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.accounts.events import DONE, EVENT_SCHEMA, FORK
from curator_core.accounts.ledger import open_accounts
from curator_core.accounts.source_list import Listed, SourceList
from curator_core.accounts.table_files import write_parquet
from curator_core.accounts.tally import Tally

LEAVES_PER_FILE = 200_000


def write_ledger(run_dir: str, leaves: int, per_source: int) -> list[str]:
    """Write a ledger in the form of LedgerWriter: complete sources, with the leaves of each before the fork that made
    them.
    """
    sources: list[str] = []
    number = 0
    while leaves > 0:
        count = max(1, min(LEAVES_PER_FILE, leaves) // per_source)
        names = [f"part-{len(sources) + index:07d}-0123456789ab" for index in range(count)]
        write_parquet(f"{run_dir}/ledger/0001-bench-{number:06d}.parquet", events(names, per_source))
        sources += names
        leaves -= count * per_source
        number += 1
    SourceList(run_dir).note(Listed(source, "g") for source in sources)
    return sources


def events(names: list[str], per_source: int) -> pa.Table:
    each = per_source + 1
    total = len(names) * each
    place = np.tile(np.arange(each), len(names))
    leaf = place < per_source
    words = [f".{index:05d}" for index in range(per_source)] + [""]
    source = pa.DictionaryArray.from_arrays(np.repeat(np.arange(len(names), dtype=np.int32), each), names)
    path = pa.DictionaryArray.from_arrays(place.astype(np.int32), words)
    stages = np.where(np.repeat(leaf, 2), np.tile([1, 2], total), np.tile([0, 3], total))
    counts = pa.StructArray.from_arrays(
        [
            pa.DictionaryArray.from_arrays(stages.astype(np.int32), ["Read", "Score", "Write", "Split"]).cast("string"),
            pa.array(np.random.default_rng(1).random(2 * total), pa.float32()),
            pa.array(np.ones(2 * total), pa.int32()),
            pa.array(np.full(2 * total, 1000)),
            pa.array(np.full(2 * total, 990)),
            pa.array(np.zeros(2 * total), pa.int64()),
            pa.nulls(2 * total, pa.string()),
            pa.nulls(2 * total, pa.string()),
            pa.nulls(2 * total, pa.string()),
        ],
        fields=list(EVENT_SCHEMA.field("counts").type.value_type),
    )
    written = int(leaf.sum())
    tasks = pc.binary_join_element_wise(source.cast("string"), path.cast("string"), "").filter(pa.array(leaf))
    digests = os.urandom(32 * written).hex()
    outputs = pa.StructArray.from_arrays(
        [
            pa.array(["Write"] * written),
            pc.binary_join_element_wise("/data/out/", tasks, ".jsonl", ""),
            pa.array(np.full(written, 990)),
            pa.array(np.random.default_rng(2).integers(1_000_000, 2_000_000, written)),
            pa.array([digests[at : at + 64] for at in range(0, len(digests), 64)]),
        ],
        fields=list(EVENT_SCHEMA.field("outputs").type.value_type),
    )
    ends = np.r_[0, np.cumsum(leaf)].astype(np.int32)

    def word(text: str) -> pa.Array:
        return pa.DictionaryArray.from_arrays(np.zeros(total, np.int32), [text])

    kind = pa.DictionaryArray.from_arrays((~leaf).astype(np.int32), [DONE, FORK])
    arrays = [
        kind,
        source,
        path,
        word("g"),
        pa.array(np.ones(total), pa.int32()),
        pa.array(np.where(leaf, 0, per_source), pa.int32()),
        pa.array(np.zeros(total), pa.int64()),
        pa.DictionaryArray.from_arrays((~leaf).astype(np.int32), ["Write", "Split"]),
        word(""),
        pa.ListArray.from_arrays(pa.array(np.arange(0, 2 * total + 1, 2), pa.int32()), counts),
        pa.ListArray.from_arrays(pa.array(ends), outputs),
        pa.ListArray.from_arrays(pa.array(np.zeros(total + 1), pa.int32()), pa.array([], pa.string())),
        pa.array(np.where(leaf, "outputs", "")),
    ]
    arrays = [array.cast(field.type) for array, field in zip(arrays, EVENT_SCHEMA, strict=True)]
    return pa.table(arrays, schema=EVENT_SCHEMA)


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=10_000_000)
    parser.add_argument("--leaves-per-source", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sources = write_ledger(folder, options.leaves, options.leaves_per_source)
        size = sum(path.stat().st_size for path in Path(folder, "ledger").iterdir())
        before = peak_gb()
        started, cpu = time.perf_counter(), time.process_time()
        accounts = open_accounts(folder)
        complete = sum(accounts.is_complete(source) for source in sources)
        opened, opened_cpu = time.perf_counter() - started, time.process_time() - cpu
        opened_gb = peak_gb()
        started = time.perf_counter()
        shares = accounts.shares(sources)
        tally = Tally()
        rows = accounts.rows(sources)
        for _, table in accounts.tables(rows, ["counts"]):
            tally.add_table(table["counts"])
        totals = time.perf_counter() - started
    leaves = len(sources) * options.leaves_per_source
    assert complete == len(sources)
    assert shares["done"] == len(sources)
    print(
        "BENCH "
        + json.dumps(
            {
                "leaves": leaves,
                "sources": len(sources),
                "bytes_per_leaf": round(size / leaves, 1),
                "open_s": round(opened, 2),
                "open_cpu_s": round(opened_cpu, 2),
                "open_us_per_leaf": round(opened_cpu / leaves * 1e6, 3),
                "open_peak_gb": round(opened_gb, 2),
                "peak_before_gb": round(before, 2),
                "totals_s": round(totals, 2),
                "peak_gb": round(peak_gb(), 2),
                "rows_out": tally.stages["Write"].rows_out,
            }
        )
    )


if __name__ == "__main__":
    main()
