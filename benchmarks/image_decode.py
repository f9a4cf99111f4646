"""Compares reading, decoding and resizing to 224 by our stages with bare decoders fed from memory, on the same images.

    python benchmarks/image_decode.py FOLDER_OF_TARS

Every contender works in one process per core, with one thread each. Bare decoders hold a list of JPEGs in memory and
only decode and resize; our stages read tars from disk, check headers, decode, resize, and make tables. Rates are images
per second of all processes together, after all are warm; each is the median of several rounds, in which the contenders
alternate. ``fastest_bare`` is the fastest one that decodes *and* resizes, including libjpeg-turbo with our resizer;
``usual`` is the faster of DALI, and libjpeg-turbo with Pillow. The rate of decoding alone is also printed.
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

BATCH = 128  # like our reader; making pictures that are not kept would cost less


def memory(paths: list[str]) -> list[bytes]:
    from curator_core.model.task import FileGroupTask
    from curator_image.reading.read import ImageRead

    return [
        data
        for batch in ImageRead().process(FileGroupTask(data=paths))
        for data in batch.to_pyarrow().column("bytes").to_pylist()
    ]


def ours(paths: list[str]) -> Callable[[], int]:
    from curator_core.model.engine_facts import WorkerMetadata
    from curator_core.model.task import FileGroupTask
    from curator_image.decode import ImageDecode
    from curator_image.reading.read import ImageRead

    decode = ImageDecode(columns=["pixels"], size=224, mode="squash", resample="bilinear")
    decode.setup(WorkerMetadata())

    def work() -> int:
        made = (decode.process(batch) for batch in ImageRead().process(FileGroupTask(data=paths)))
        return sum(batch.num_rows for batch in made if batch is not None)

    return work


def turbo_pillow(paths: list[str]) -> Callable[[], int]:
    """libjpeg-turbo, followed by Pillow's resize, as in most loaders."""
    import numpy as np
    import simplejpeg
    from PIL import Image

    images = memory(paths)
    batch = np.empty((BATCH, 224, 224, 3), np.uint8)

    def work() -> int:
        done = 0
        for data in images:
            try:
                pixels = simplejpeg.decode_jpeg(data, "RGB")
            except ValueError:
                continue
            batch[done % BATCH] = np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BILINEAR))
            done += 1
        return done

    return work


def turbo_simd(paths: list[str]) -> Callable[[], int]:
    """libjpeg-turbo, followed by the SIMD resizer that we also use: the fastest combination available here."""
    import cykooz_resizer as library
    import numpy as np
    import simplejpeg

    images = memory(paths)
    batch = np.empty((BATCH, 224, 224, 3), np.uint8)
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
            batch[done % BATCH] = np.frombuffer(target.get_buffer(), np.uint8).reshape(224, 224, 3)
            done += 1
        return done

    return work


def turbo_decode_only(paths: list[str]) -> Callable[[], int]:
    """libjpeg-turbo alone, at full size, without resizing."""
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
    """DALI's CPU operators, decode and antialiased resize in one pipeline, on images that DALI accepts."""
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
    size = BATCH

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
        started, cpu = time.perf_counter(), time.process_time()
        done = work()
        pipe.send((done, started, time.perf_counter(), time.process_time() - cpu))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tars", type=int, help="use only this many images")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    tars = sorted(str(path) for path in arguments.folder.glob("*.tar"))[: arguments.tars]
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
    costs: dict[str, list[float]] = {name: [] for name in crews}
    for _ in range(arguments.rounds):
        for name, crew in crews.items():
            for pipe in crew:
                pipe.send(True)
            answers = [pipe.recv() for pipe in crew]
            seconds = max(answer[2] for answer in answers) - min(answer[1] for answer in answers)
            images = sum(answer[0] for answer in answers)
            rates[name].append(images / seconds)
            costs[name].append(sum(answer[3] for answer in answers) / images * 1e6)
    for crew in crews.values():
        for pipe in crew:
            pipe.send(False)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    bare_names = [name for name in ("turbo_pillow", "turbo_simd", "dali") if name in crews]
    bare = max(medians[name] for name in bare_names)
    ratios = [own / max(rates[name][turn] for name in bare_names) for turn, own in enumerate(rates["ours"])]
    cpu = {name: statistics.median(found) for name, found in costs.items()}
    metrics = {f"{name}_images_s": round(rate, 1) for name, rate in medians.items()}
    metrics["ratio_to_fastest_bare"] = round(statistics.median(ratios), 3)
    metrics["ratio_to_decode_only"] = round(medians["ours"] / medians["turbo_decode_only"], 3)
    # The same in CPU seconds, which depend less on other load.
    metrics |= {f"{name}_cpu_us": round(cost, 1) for name, cost in cpu.items()}
    usual = [name for name in ("turbo_pillow", "dali") if name in crews]
    metrics["cpu_ratio_to_usual"] = round(min(cpu[name] for name in usual) / cpu["ours"], 3)
    metrics["cpu_ratio_to_fastest_bare"] = round(min(cpu[name] for name in bare_names) / cpu["ours"], 3)
    metrics["fastest_bare_images_s"] = round(bare, 1)
    print("BENCH " + json.dumps(metrics))


if __name__ == "__main__":
    main()
