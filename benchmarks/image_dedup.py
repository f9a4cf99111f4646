"""Measures which copies of pictures `ImageDedup` finds, what it removes wrongly, and how long it takes.

    python benchmarks/image_dedup.py kinds FOLDER SCRATCH      recall and precision by kind of change
    python benchmarks/image_dedup.py rate FOLDER SCRATCH       the time of a run compared with a chain without it
    python benchmarks/image_dedup.py hashes SCRATCH --hashes 1000000 [--crops]     the search alone

FOLDER contains the output of make_image_copies.py. A pair is right if both images show the same picture; a copy is
found if it is in a right pair. The chain of ``rate`` reads the pictures, decodes them to 224 x 224 and writes them;
``copy`` only reads and writes them. ``hashes`` makes random hashes: a tenth of them differ from another one in up to
ten bits, a tenth are all equal, and a twentieth differ from one hash in up to five bits, so that all of these are near
one another.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from processor_time import processor_seconds

RADIUS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kinds", "rate", "hashes"])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--hashes", type=int, default=1_000_000)
    parser.add_argument("--crops", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    work = {"kinds": kinds, "rate": rate, "hashes": hashes}[options.what]
    print("BENCH", json.dumps(work(options)))


def kinds(options: argparse.Namespace) -> dict[str, Any]:
    import pyarrow.parquet as pq

    folder, scratch = options.folders
    dedup(folder, scratch / "dedup", options.workers, mirror=True)
    parts = sorted((scratch / "dedup/run/decisions").glob("*.parquet"))
    rows = [row for path in parts for row in pq.read_table(path).to_pylist() if row["decision"] == "removed"]
    return judged(folder, [(row["id"], row["witness_id"]) for row in rows])


def judged(folder: Path, found: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Recall by kind of change, and how many of the pairs that were ``found`` show different pictures."""
    labels: dict[str, list[Any]] = json.loads((folder / "labels.json").read_text())
    pairs = {tuple(sorted(pair)) for pair in found}
    metrics: dict[str, Any] = {"pairs": len(pairs)}
    wrong = [pair for pair in pairs if labels[pair[0]][0] != labels[pair[1]][0]]
    metrics["wrong_pairs"] = len(wrong)
    metrics["precision"] = round(1 - len(wrong) / max(1, len(pairs)), 4)
    right = {name for pair in pairs - set(wrong) for name in pair}
    by_kind: dict[str, list[bool]] = {}
    for name, (_, kind) in labels.items():
        if kind != "original":
            by_kind.setdefault(kind, []).append(name in right)
    for kind, hits in sorted(by_kind.items()):
        metrics[f"recall_{kind}"] = round(sum(hits) / len(hits), 4)
    metrics["copies"] = sum(map(len, by_kind.values()))
    metrics["recall"] = round(sum(sum(hits) for hits in by_kind.values()) / metrics["copies"], 4)
    return metrics


def dedup(folder: Path, place: Path, workers: int, **how: Any) -> Any:
    from curator_core import LocalExecutor
    from curator_image.dedup.perceptual import ImageDedup

    shutil.rmtree(place, ignore_errors=True)
    work = ImageDedup(paths=f"{folder}/*.tar", path=str(place / "out"), **how)
    return work.run(LocalExecutor(workers=workers), run_dir=str(place / "run"))


def rate(options: argparse.Namespace) -> dict[str, Any]:
    """Run the chain without and with deduplication, in turns; returns the medians of three runs."""
    from needs_pixels import NeedsPixels

    from curator_core import LocalExecutor, Pipeline
    from curator_image import ImageReader, ImageWriter

    def without(place: Path, *between: Any) -> None:
        shutil.rmtree(place, ignore_errors=True)
        stages = [ImageReader(f"{folder}/*.tar", size=224), *between, ImageWriter(path=str(place / "out"))]
        Pipeline(stages).run(LocalExecutor(workers=options.workers), run_dir=str(place / "run"))

    folder, scratch = options.folders
    works: dict[str, Callable[[], Any]] = {
        "copy": lambda: without(scratch / "copy"),
        "chain": lambda: without(scratch / "chain", NeedsPixels()),
        "dedup": lambda: dedup(folder, scratch / "dedup", options.workers),
    }
    taken: dict[str, list[tuple[float, float]]] = {what: [] for what in works}
    for _ in range(3):
        for what, work in works.items():
            start, before = time.perf_counter(), processor_seconds()
            work()
            taken[what].append((time.perf_counter() - start, processor_seconds() - before))
    metrics: dict[str, float] = {}
    for what, times in taken.items():
        wall, cpu = (sorted(values)[1] for values in zip(*times, strict=True))
        metrics |= {f"{what}_s": round(wall, 2), f"{what}_cpu_s": round(cpu, 2)}
    return metrics | {
        "rate_to_chain": round(metrics["chain_s"] / metrics["dedup_s"], 3),
        "cpu_rate_to_chain": round(metrics["chain_cpu_s"] / metrics["dedup_cpu_s"], 3),
    }


def hashes(options: argparse.Namespace) -> dict[str, Any]:
    """The search steps of a workflow, from the hashes of earlier steps to the groups of pictures."""
    import numpy as np
    import pyarrow as pa

    from curator_core import LocalExecutor, Pipeline
    from curator_core.across.alike import EDGES
    from curator_core.across.roll import Roll
    from curator_core.across.shuffle import finish_partitioned
    from curator_core.arrow.arrays import array
    from curator_core.workflow import Steps
    from curator_core.workflows.groups import Groups
    from curator_image.dedup.hashes import WINDOWS
    from curator_image.dedup.keys import HASHES, KIND_BITS, PARTS_OF_KIND, SetCopiesAside
    from curator_image.dedup.pairs import Searches, SearchPictures

    (scratch,) = options.folders
    place, count = scratch / "search", options.hashes
    shutil.rmtree(place, ignore_errors=True)
    rng = np.random.default_rng(16)
    columns = np.zeros((count, 2 + len(WINDOWS)), np.uint64)
    for kind in range(1 + len(WINDOWS) if options.crops else 1):
        columns[:, kind] = rng.integers(0, 1 << 63, count, dtype=np.uint64) << np.uint64(1) | np.uint64(2)
    near, plain, alike = count // 10, count // 10, count // 20
    columns[count - near :, 0] = flipped(rng, columns[:near, 0], RADIUS)
    columns[near : near + plain, 0] = columns[0, 0]
    columns[near + plain : near + plain + alike, 0] = flipped(rng, np.repeat(columns[1, 0], alike), 5)
    aside = SetCopiesAside(path=str(place / "aside"), keys=str(place / "keys"))
    files, records = 32, []
    batch = -(-count // files)
    (place / "keys").mkdir(parents=True)
    rows = [min(batch, count - number * batch) for number in range(files)]
    Roll(array([f"{number:05d}" for number in range(files)], pa.string()), np.array(rows)).write(
        str(place / "keys/roll.arrow")
    )
    for number in range(files):
        some = columns[number * batch : number * batch + batch]
        names = (np.uint64(number) << np.uint64(32)) + np.arange(len(some), dtype=np.uint64)
        lengths = rng.integers(0, 1 << 20, len(some), dtype=np.uint64)
        table = pa.table({"number": names, "hash_high": rng.integers(0, 1 << 63, len(some), dtype=np.uint64)})
        table = table.append_column("hash_low", array(names))
        for name in aside.preference().names:
            table = table.append_column(name, array(lengths))
        flat = pa.FixedSizeListArray.from_arrays(array(some.ravel()), some.shape[1])
        table = table.append_column(HASHES, flat)
        records.append(aside.write_hashes(table, str(place / f"aside/{HASHES}/{number:05d}.arrow")))
    finish_partitioned(str(place / f"aside/{HASHES}"), records, partitions=PARTS_OF_KIND << KIND_BITS)
    (place / "aside/_SUCCESS").touch()
    del columns
    named = Searches(path=str(place / f"aside/{HASHES}"), crops=options.crops)
    search = SearchPictures(path=str(place / "pairs"), keys=str(place / "keys"), radius=RADIUS)
    groups = Groups(edges=str(place / f"pairs/{EDGES}"), path=str(place / "groups"))
    start, before = time.perf_counter(), processor_seconds()
    Steps([Pipeline([named, search], name="search"), groups]).run(
        LocalExecutor(workers=options.workers), run_dir=str(place / "run")
    )
    metrics = {
        "hashes": count,
        "search_s": round(time.perf_counter() - start, 1),
        "search_cpu_s": round(processor_seconds() - before, 1),
    }
    edges = 0
    for path in (place / f"pairs/{EDGES}").glob("*.arrow"):
        with pa.ipc.open_file(str(path)) as file:
            edges += sum(file.get_batch(number).num_rows for number in range(file.num_record_batches))
    shutil.rmtree(place)
    return metrics | {"pairs": edges}


def flipped(rng: Any, values: Any, most: int) -> Any:
    """Hashes with up to ``most`` of 63 bits changed, but never the lowest two."""
    import numpy as np

    made = values.copy()
    for turn in range(most):
        change = np.uint64(1) << rng.integers(2, 64, len(made), dtype=np.uint64)
        made ^= np.where(rng.integers(0, most, len(made)) >= turn, change, np.uint64(0))
    return made


if __name__ == "__main__":
    main()
