"""Read, decode and resize to 224: our stages against bare decoders fed from memory, in one run, on the same images.

    python benchmarks/image_decode.py FOLDER_OF_TARS

Every contender works in one process per core, one thread each. The bare ones hold a list of JPEGs in memory and
only decode and resize; ours read tars from disk, check headers, decode, resize, and make tables of it. Rates are images
per second of all processes together, from the moment when all are warm; the median of several rounds, taken in turns.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS = 5


def memory(paths: list[str]) -> list[bytes]:
    from curator_core.task import FileGroupTask
    from curator_image.reader import ImageRead

    return [
        data
        for batch in ImageRead().process(FileGroupTask(data=paths))
        for data in batch.to_pyarrow().column("bytes").to_pylist()
    ]


def ours(paths: list[str]) -> Callable[[], int]:
    from curator_core.stages import WorkerMetadata
    from curator_core.task import FileGroupTask
    from curator_image.decode import ImageDecode
    from curator_image.reader import ImageRead

    decode = ImageDecode(columns=["pixels"], size=224, mode="squash", resample="bilinear")
    decode.setup(WorkerMetadata())

    def work() -> int:
        made = (decode.process(batch) for batch in ImageRead().process(FileGroupTask(data=paths)))
        return sum(batch.num_rows for batch in made if batch is not None)

    return work


def turbo_pillow(paths: list[str]) -> Callable[[], int]:
    """libjpeg-turbo, then Pillow's resize: what most loaders do."""
    import simplejpeg
    from PIL import Image

    images = memory(paths)

    def work() -> int:
        done = 0
        for data in images:
            try:
                pixels = simplejpeg.decode_jpeg(data, "RGB")
            except ValueError:
                continue
            Image.fromarray(pixels).resize((224, 224), Image.Resampling.BILINEAR)
            done += 1
        return done

    return work


def turbo_simd(paths: list[str]) -> Callable[[], int]:
    """libjpeg-turbo, then the SIMD resizer that we use too: the fastest that can be put together here."""
    import cykooz_resizer as library
    import simplejpeg

    images = memory(paths)
    options = library.ResizeOptions(library.ResizeAlg.convolution(library.FilterType.bilinear), use_alpha=False)
    resizer = library.Resizer()

    def work() -> int:
        done = 0
        for data in images:
            try:
                pixels = simplejpeg.decode_jpeg(data, "RGB")
            except ValueError:
                continue
            source = library.ImageData(pixels.shape[1], pixels.shape[0], library.PixelType.U8x3, pixels.tobytes())
            target = library.ImageData(224, 224, library.PixelType.U8x3)
            resizer.resize(source, target, options)
            target.get_buffer()
            done += 1
        return done

    return work


def turbo_decode_only(paths: list[str]) -> Callable[[], int]:
    """libjpeg-turbo alone, at full size, nothing resized."""
    import simplejpeg

    images = memory(paths)

    def work() -> int:
        done = 0
        for data in images:
            try:
                simplejpeg.decode_jpeg(data, "RGB")
            except ValueError:
                continue
            done += 1
        return done

    return work


def dali(paths: list[str]) -> Callable[[], int]:
    """DALI's CPU operators, decode and antialiased resize in one pipeline, on images that it can take."""
    import numpy as np
    import simplejpeg
    from nvidia import dali
    from nvidia.dali import fn, types

    good = []
    for data in memory(paths):
        try:
            simplejpeg.decode_jpeg(data)
        except ValueError:
            continue
        good.append(np.frombuffer(data, np.uint8))
    size = 128

    @dali.pipeline_def(  # type: ignore[misc,unused-ignore]
        batch_size=size, num_threads=1, device_id=None, prefetch_queue_depth=1, exec_async=False, exec_pipelined=False
    )
    def decode() -> Any:
        data = fn.external_source(name="encoded", device="cpu", dtype=types.UINT8)
        pixels = fn.decoders.image(data, device="cpu", output_type=types.RGB)
        return fn.resize(pixels, resize_x=224, resize_y=224, interp_type=types.INTERP_TRIANGULAR, antialias=True)

    pipeline = decode()
    pipeline.build()

    def work() -> int:
        for start in range(0, len(good), size):
            pipeline.feed_input("encoded", good[start : start + size])
            pipeline.run()
        return len(good)

    return work


CONTENDERS: dict[str, Callable[[list[str]], Callable[[], int]]] = {
    "ours": ours,
    "turbo_pillow": turbo_pillow,
    "turbo_simd": turbo_simd,
    "dali": dali,
    "turbo_decode_only": turbo_decode_only,
}


def member(name: str, paths: list[str], pipe: Any) -> None:
    try:
        work = CONTENDERS[name](paths)
        work()
    except ImportError:
        pipe.send(None)
        return
    pipe.send("warm")
    while pipe.recv():
        started = time.perf_counter()
        done = work()
        pipe.send((done, started, time.perf_counter()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    tars = sorted(str(path) for path in arguments.folder.glob("*.tar"))
    context = mp.get_context("spawn")
    crews: dict[str, list[Any]] = {}
    for name in CONTENDERS:
        crew = []
        for number in range(arguments.processes):
            here, there = context.Pipe()
            share = tars[number :: arguments.processes]
            context.Process(target=member, args=(name, share, there), daemon=True).start()
            crew.append(here)
        answers = [pipe.recv() for pipe in crew]
        if all(answers):
            crews[name] = crew
    rates: dict[str, list[float]] = {name: [] for name in crews}
    for _ in range(ROUNDS):
        for name, crew in crews.items():
            for pipe in crew:
                pipe.send(True)
            answers = [pipe.recv() for pipe in crew]
            seconds = max(end for _, _, end in answers) - min(start for _, start, _ in answers)
            rates[name].append(sum(done for done, _, _ in answers) / seconds)
    for crew in crews.values():
        for pipe in crew:
            pipe.send(False)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    bare = max(medians[name] for name in ("turbo_pillow", "turbo_simd", "dali") if name in medians)
    ratios = [
        o / max(rates[n][i] for n in ("turbo_pillow", "turbo_simd", "dali") if n in rates)
        for i, o in enumerate(rates["ours"])
    ]
    metrics = {f"{name}_images_s": round(rate, 1) for name, rate in medians.items()}
    metrics["ratio_to_fastest_bare"] = round(statistics.median(ratios), 3)
    metrics["ratio_to_decode_only"] = round(medians["ours"] / medians["turbo_decode_only"], 3)
    metrics["fastest_bare_images_s"] = round(bare, 1)
    print("BENCH " + json.dumps(metrics))


if __name__ == "__main__":
    main()
