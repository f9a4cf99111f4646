"""Compares the transport of image batches between processes with that of bare arrays, through Ray's object store in the
same run.

    python benchmarks/transport.py [--megabytes 40] [--rounds 20]

A batch is a table of encoded images, like ImageBatch. Our batch is encoded as a task, put, fetched and decoded; the
bare one is put and fetched as numpy arrays; the two alternate. Prints ``BENCH {json}`` with the ratio of the two
speeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

import numpy as np
import pyarrow as pa

from curator_backends.cluster import connect, import_ray
from curator_backends.options import RayOptions
from curator_backends.transport import decode, encode
from curator_core import DocumentBatch

IMAGE_BYTES = 100_000


def batch(megabytes: int) -> tuple[DocumentBatch, list[np.ndarray]]:
    """A task of images and the same bytes as arrays, one for each image."""
    count = megabytes * 1_000_000 // IMAGE_BYTES
    images = [os.urandom(IMAGE_BYTES) for _ in range(count)]
    table = pa.table({"key": [f"{n:09d}" for n in range(count)], "image": pa.array(images, pa.large_binary())})
    return DocumentBatch(data=table, task_id="images"), [np.frombuffer(image, np.uint8) for image in images]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    task, arrays = batch(options.megabytes)
    joined = np.concatenate(arrays)
    ours, bare, bare_list = [], [], []
    with connect(RayOptions(object_store_memory_gb=2)):
        ray = import_ray()
        for _ in range(options.rounds):
            started = time.perf_counter()
            back = decode(ray.get(ray.put(encode([task]))))[0]
            ours.append(time.perf_counter() - started)
            assert back.data["image"].nbytes >= options.megabytes * 1_000_000
            del back
            for value, times in ((joined, bare), (arrays, bare_list)):
                started = time.perf_counter()
                fetched = ray.get(ray.put(value))
                times.append(time.perf_counter() - started)
                del fetched
    mb = options.megabytes
    report = {
        "megabytes": mb,
        "task_mb_s": round(mb / statistics.median(ours)),
        "one_array_mb_s": round(mb / statistics.median(bare)),
        "array_per_image_mb_s": round(mb / statistics.median(bare_list)),
        "speed_of_bare": round(statistics.median(bare) / statistics.median(ours), 3),
        "speed_of_bare_per_image": round(statistics.median(bare_list) / statistics.median(ours), 3),
    }
    print("BENCH " + json.dumps(report))


if __name__ == "__main__":
    main()
