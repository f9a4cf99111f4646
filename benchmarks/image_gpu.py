"""Measures image embeddings on a GPU: the bare model, the stage from memory, decoding, and whole runs from tars to
tars.

    python benchmarks/image_gpu.py SCRATCH [--parts bare,memory,agree,ray_data,local,dali,compiled,decode] [--part-seconds 75]
    python benchmarks/image_gpu.py SCRATCH --size tiny --cpu --images 200 --rows 20 --seconds 1     # only to see that it runs

The model is CLIP ViT-L/14 at full size with random weights, which is as fast as the published one and needs no
download. Before the first part, ``benchmarks/make_images.py`` draws the pictures in as many processes as there are
cores. Every part runs in its own process, is stopped after ``--part-seconds``, and prints a line ``PART {...}`` when it
is done. The most important parts come first, so ten minutes on a GPU give complete results. The last line, ``BENCH``,
has all results, and ratios to the bare model.

- ``bare_images_s``: forward passes over pixels that are already on the device, with preprocessing.
- ``memory_images_s``: `ImageEmbedding` in a group of stages, as a worker runs it, over batches of uint8 pixels in
  memory.
- ``agree_…``: by how many levels DALI's pixels differ from those of the CPU decoder (``mean_levels``, ``max_levels``),
  and the least cosine between vectors of 16 images and those of the CPU: for DALI's pixels on their device (``dali``),
  and for this precision (``precision``).
- ``ray_data_…``, ``local_…``: read, decode, embed, score, annotate and write, from tars to tars. ``…_images_s`` is the
  rate of the last three quarters of the images, ``…_first_s`` the time from the start of the run until the first 2,000
  images (or a quarter) were written, and ``…_total_s`` the total time.
- ``dali_…``: the same on LocalExecutor, with DALI decoding in the model's worker, on ``--dali-cpus`` cores.
- ``compiled_images_s``: like ``bare_images_s`` with a compiled model; ``compile_s`` is the time to compile.
- ``decode_cpu_images_s``: the rate of one core; ``decode_dali_images_s``: the rate of DALI from memory, with pixels
  left on its device.
- ``…_busy``: the share of the time that the GPU was busy, from nvidia-smi five times a second.

Without a GPU, the script says so, measures nothing, and exits with 0; ``--cpu`` runs everything on the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import gpu_parts
import make_images
import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import image_models

PARTS = ("bare", "memory", "agree", "ray_data", "local", "dali", "compiled", "decode")
FIRST = 2_000


class Busy:
    """How busy the GPU was while a block ran, in percent; no result without nvidia-smi."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        command = shutil.which("nvidia-smi")
        if command is None:
            yield
            return
        query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200"]
        process = subprocess.Popen([command, *query], stdout=subprocess.PIPE, text=True)
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()
        try:
            yield
        finally:
            process.terminate()
            process.wait()
            reader.join(timeout=2)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                self.shares.append(float(line) / 100)

    def share(self) -> float | None:
        return round(statistics.mean(self.shares), 3) if self.shares else None


def _bare(tower: Any, options: argparse.Namespace) -> float:
    """The images per second of the model alone."""
    import torch

    from curator_image.models.towers import threads

    height, width = tower.preprocessing.target
    pixels = torch.randint(0, 256, (tower.batcher.size, height, width, 3), dtype=torch.uint8, device=tower.device)
    wait = torch.cuda.synchronize if tower.device == "cuda" else lambda: None
    with threads(1), torch.inference_mode():  # in the same way as the stage
        for _ in range(3):
            tower.forward(pixels)
        wait()
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < options.seconds:
            for _ in range(4):
                tower.forward(pixels)
            wait()
            done += 4 * len(pixels)
        return done / (time.perf_counter() - started)


def measure_bare(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    tower = _set_up(embedding(options))
    return {
        "device": "cpu" if options.cpu else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "precision": str(tower.dtype).removeprefix("torch."),
        "batch": tower.batcher.size,
        "bare_images_s": round(_bare(tower, options), 1),
    }


def measure_compiled(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    tower = _set_up(embedding(options).with_(compile="always"))
    height, width = tower.preprocessing.target
    started = time.perf_counter()
    with torch.inference_mode():
        size = (tower.batcher.size, height, width, 3)
        tower.forward(torch.zeros(size, dtype=torch.uint8, device=tower.device)).cpu()
    took = time.perf_counter() - started
    return {
        "compile_s": round(took, 1),
        "compiled_batch": tower.batcher.size,
        "compiled_images_s": round(_bare(tower, options), 1),
    }


def measure_memory(options: argparse.Namespace) -> dict[str, Any]:
    """The images per second of the stage in its group over batches in memory, and the share of time in which the GPU
    was busy.
    """
    from curator_core import WorkerMetadata
    from curator_core.accounts.ledger import MemorySink
    from curator_core.planning.plan import PlannedStage
    from curator_core.worker.context import RunContext
    from curator_core.worker.group import GroupRunner
    from curator_image.batch import ImageBatch, tensor_column

    stage = embedding(options).with_(keep_pixels=False)
    sink = MemorySink()
    runner = GroupRunner([PlannedStage(stage, stage.name)], RunContext(), sink=sink)
    runner.setup(WorkerMetadata())
    assert stage._tower is not None
    side = stage._tower.preprocessing.target[0]
    random = np.random.default_rng(0)
    batches = []
    for number in range(4):
        pixels = random.integers(0, 256, (options.rows, side, side, 3), dtype=np.uint8)
        keys = pa.array([f"{number}-{row}" for row in range(options.rows)])
        batches.append(ImageBatch(data=pa.table({"key": keys, "pixels": tensor_column(pixels)}), task_id=str(number)))

    def tasks(until: float) -> Iterator[Any]:
        while time.perf_counter() < until:
            yield from batches

    for _ in runner.run(iter(batches[:2])):
        pass
    busy, done = Busy(), 0
    with busy.watch():
        started = time.perf_counter()
        for out in runner.run(tasks(started + options.seconds)):
            done += out.num_items
            sink.take()
        took = time.perf_counter() - started
    runner.teardown()
    return {"memory_images_s": round(done / took, 1), "memory_busy": busy.share()}


def measure_agree(options: argparse.Namespace) -> dict[str, Any]:
    from curator_image.decode import CpuDecoder, Picture
    from curator_image.decode.dali import DaliDecoder, dali_installed
    from curator_image.models.towers import ImageTower

    images = [make_images.encode(make_images.picture(seed, options.side)) for seed in range(16)]
    tower = _set_up(embedding(options))
    height, width = tower.preprocessing.target
    picture = Picture(height, width, detail=8)  # both decode at full size
    pixels = CpuDecoder()(images, [picture]).pictures[0]
    vectors = tower.embed(pixels)
    reference = ImageTower.load(_model(options)).embed(pixels)
    found = {"agree_precision_cosine": round(float((vectors * reference).sum(1).min()), 6)}
    if not dali_installed():
        return found
    dali = DaliDecoder(None if options.cpu else 0)
    there = dali.begin(images, [picture], (True,)).result().pictures[0]
    cosines = (tower.embed(there) * vectors).sum(1)
    levels = np.abs(there.cpu().numpy().astype(int) - pixels.astype(int))
    rebuilt = dali.rebuilt
    dali.close()
    return {
        **found,
        "agree_dali_cosine": round(float(cosines.min()), 6),
        "agree_mean_levels": round(float(levels.mean()), 3),
        "agree_max_levels": int(levels.max()),
        "agree_pipelines_rebuilt": rebuilt,
    }


def measure_decode(options: argparse.Namespace) -> dict[str, Any]:
    from curator_image.decode import CpuDecoder, Picture
    from curator_image.decode.dali import DaliDecoder, dali_installed

    images = [make_images.encode(make_images.picture(seed, options.side)) for seed in range(256)]
    wanted = [Picture(224, 224)]
    decoder = CpuDecoder()
    decoder(images[:8], wanted)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < options.seconds / 2:
        done += len(decoder(images, wanted).pictures[0])
    found: dict[str, Any] = {"decode_cpu_images_s": round(done / (time.perf_counter() - started), 1)}
    if not dali_installed():
        return found
    dali = DaliDecoder(None if options.cpu else 0)
    dali.begin(images, wanted, (True,)).result()
    waiting, done, started = [], 0, time.perf_counter()
    while time.perf_counter() - started < options.seconds / 2:
        while len(waiting) < 3:
            waiting.append(dali.begin(images, wanted, (True,)))
        done += len(waiting.pop(0).result().pictures[0])
    found["decode_dali_images_s"] = round(done / (time.perf_counter() - started), 1)
    dali.close()
    return found


def measure_ray_data(options: argparse.Namespace) -> dict[str, Any]:
    from curator_backends import RayDataExecutor

    return _chain(options, "ray_data", RayDataExecutor())


def measure_local(options: argparse.Namespace) -> dict[str, Any]:
    from curator_core.executors.local import LocalExecutor

    return _chain(options, "local", LocalExecutor())


def measure_dali(options: argparse.Namespace) -> dict[str, Any]:
    from curator_core.executors.local import LocalExecutor
    from curator_core.model.resources import Resources

    cores = sorted(os.sched_getaffinity(0))[: options.dali_cpus]
    os.sched_setaffinity(0, cores)  # inherited by all processes of the run
    found: dict[str, Any] = {"decoder": "dali"}
    if not options.cpu:
        found["resources"] = Resources(gpu_memory_gb=8)
    return {"dali_cpus": len(cores), **_chain(options, "dali", LocalExecutor(), found)}


class Written:
    """Records when images are written. A thread watches the folder of parts, because the parts are removed at the end
    of the run.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder = folder / "_parts"
        self._rows = rows
        self._seen: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Written:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            with contextlib.suppress(OSError):
                for path in self._folder.rglob("*.tar"):
                    if path.name not in self._seen:
                        self._seen[path.name] = path.stat().st_mtime

    def rates(self, started: float) -> tuple[float, float]:
        """The images per second after the first quarter, and the seconds until the first 2,000 images or a quarter of
        all.
        """
        times = sorted(self._seen.values())
        quarter = len(times) // 4
        first = min(quarter, FIRST // self._rows)
        if len(times) < 8 or times[-1] <= times[quarter]:
            raise SystemExit("too few images to separate the start from the work: give more --images or fewer --rows")
        rate = (len(times) - 1 - quarter) * self._rows / (times[-1] - times[quarter])
        return rate, times[first] - started


def _chain(
    options: argparse.Namespace, name: str, executor: Any, reading: dict[str, Any] | None = None
) -> dict[str, Any]:
    from curator_core import Pipeline
    from curator_image import AestheticFilter, ImageReader, ImageWriter, NSFWFilter

    aesthetic, nsfw = _heads(options)
    out = options.scratch / f"out-{name}"
    shutil.rmtree(out, ignore_errors=True)
    reading = dict(reading or {})
    resources = reading.pop("resources", None)
    reader = ImageReader(paths=str(_tars(options)), images_per_batch=options.rows, **reading)
    stages = [
        reader if resources is None else reader.with_(resources=resources),
        embedding(options),
        AestheticFilter(model=str(aesthetic), mode="annotate"),
        NSFWFilter(model=str(nsfw), mode="annotate"),
        ImageWriter(path=str(out)),
    ]
    busy = Busy()
    with busy.watch(), Written(out, options.rows) as written:
        started = time.time()
        result = Pipeline(stages, name="image-gpu").run(executor)
        took = time.time() - started
    rows = json.loads((out / "_SUCCESS").read_text())["files"]
    done = sum(file["rows"] for file in rows if file["path"].endswith(".tar"))
    assert done == options.images, f"{done} of {options.images} images were written"
    rate, first = written.rates(started)
    print(*result.summary.decisions, sep="\n", file=sys.stderr)
    return {
        f"{name}_images_s": round(rate, 1),
        f"{name}_first_s": round(first, 1),
        f"{name}_total_s": round(took, 1),
        f"{name}_busy": busy.share(),
    }


def embedding(options: argparse.Namespace) -> Any:
    from curator_image import ImageEmbedding

    return ImageEmbedding(
        model=str(_model(options)),
        precision=options.precision,
        gpu_memory_gb=0.0 if options.cpu else options.gpu_memory_gb,
        model_batch_size=options.batch,
    )


def _set_up(stage: Any) -> Any:
    from curator_core import WorkerMetadata

    stage.setup(WorkerMetadata())
    return stage._tower


def _model(options: argparse.Namespace) -> Path:
    folder: Path = options.scratch / f"clip-{options.size}"
    if not (folder / "config.json").exists():
        image_models.save_clip(folder, size=options.size)
    return folder


def _heads(options: argparse.Namespace) -> tuple[Path, Path]:
    dimension = image_models.SIZES[options.size]["projection"]
    return image_models.save_heads(options.scratch / f"heads-{dimension}", dimension)


def _tars(options: argparse.Namespace) -> Path:
    """The folder of tars. Only a quarter of the pictures are drawn, and each is used four times."""
    if options.tars:
        return Path(options.tars)
    folder: Path = options.scratch / f"tars-{options.images}"
    if folder.is_dir():
        return folder
    shards, drawn = 16, options.images // 4
    making = options.scratch / f"making-{options.images}"
    with ProcessPoolExecutor() as pool:
        counts = [drawn * (n + 1) // shards - drawn * n // shards for n in range(shards)]
        places = [making / f"{n:02d}" for n in range(shards)]
        seeds = [10_000 * n for n in range(shards)]
        list(pool.map(make_images.write, places, counts, [1] * shards, [options.side] * shards, [0.0] * shards, seeds))
    for copy in range(4):
        for number, place in enumerate(places):
            shutil.copy(place / "00000.tar", making / f"{copy}-{number:02d}.tar")
    for place in places:
        shutil.rmtree(place)
    making.rename(folder)
    return folder


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path, help="folder for the model, the pictures and the output")
    gpu_parts.add_options(parser, PARTS, 75.0)
    parser.add_argument(
        "--tars", type=Path, help="a folder of tars to read instead of drawn pictures; give the number of --images"
    )
    parser.add_argument(
        "--images", type=int, default=32_000, help="number of pictures that a whole run reads; a multiple of 64"
    )
    parser.add_argument("--side", type=int, default=330, help="longer side of the drawn pictures")
    parser.add_argument("--size", choices=sorted(image_models.SIZES), default="vit-l-14")
    parser.add_argument("--precision", choices=["auto", "fp32", "fp16", "bf16"], default="auto")
    parser.add_argument("--gpu-memory-gb", type=float, default=16.0)
    parser.add_argument("--dali-cpus", type=int, default=4, help="cores for the part `dali`")
    parser.add_argument("--batch", type=int, help="images that go through the model at once; measured by default")
    parser.add_argument("--rows", type=int, default=500, help="images a task")
    parser.add_argument("--seconds", type=float, default=15.0, help="duration of parts without a whole run")
    parser.add_argument("--cpu", action="store_true", help="run on the CPU, to test that everything works")
    return parser


def main() -> int:
    parser = arguments()
    options = parser.parse_args()
    parts = gpu_parts.chosen(parser, options, PARTS)
    if not options.cpu:
        import torch

        if not torch.cuda.is_available():
            print("no NVIDIA GPU here: nothing was measured (use --cpu to test the script)")
            print("BENCH", json.dumps({"gpu": 0}))
            return 0
    if options.one:
        return gpu_parts.run_one(lambda: globals()[f"measure_{options.one}"](options))
    options.scratch.mkdir(parents=True, exist_ok=True)
    _model(options)
    if {"ray_data", "local", "dali"} & set(parts):
        _tars(options)
    parts = gpu_parts.possible(parts, {"ray_data": "ray", "dali": "nvidia.dali"})
    names = [name for name in ("memory", "ray_data", "local", "dali", "compiled") if name in parts]
    return gpu_parts.run_parts(
        __file__, parts, options, {f"{name}_ratio": (f"{name}_images_s", "bare_images_s") for name in names}
    )


if __name__ == "__main__":
    sys.exit(main())
