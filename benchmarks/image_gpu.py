"""CLIP embeddings on a GPU: the bare model, the stage fed from memory, and the whole chain from tars.

    python benchmarks/image_gpu.py SCRATCH [--tars FOLDER] [--executor local|ray_data|xenna]
    python benchmarks/image_gpu.py SCRATCH --size tiny --cpu      # only to see that it runs

The model is CLIP ViT-L/14 in full size with random weights: as fast as the published one, and nothing to download.

- ``bare_images_s``: forward passes over pixels that are on the device already, preprocessing included.
- ``memory_images_s``: `ImageEmbedding` over Arrow batches of uint8 pixels in memory; ``memory_ratio`` is against the bare rate.
- ``tars_images_s``: read, decode, embed, score, filter and write, from and to tars (``benchmarks/make_images.py`` makes
  them). It runs over one tar and over all, and the difference counts, so that start-up does not; ``tars_ratio`` likewise.
- ``…_busy``: the share of the time that the GPU was busy, from nvidia-smi five times a second.

Where there is no GPU it says so, measures nothing, and exits with 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import image_models


class Busy:
    """How busy the GPU was while a block ran, in percent; none where nvidia-smi is not there."""

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


def bare(tower: Any, seconds: float) -> float:
    """Images per second of the model alone."""
    import torch

    height, width = tower.preprocessing.target
    pixels = torch.randint(0, 256, (tower.batcher.size, height, width, 3), dtype=torch.uint8, device=tower.device)
    wait = torch.cuda.synchronize if tower.device == "cuda" else lambda: None
    from curator_image.models.towers import threads

    with threads(1), torch.inference_mode():  # as the stage runs it
        for _ in range(3):
            tower.forward(pixels)
        wait()
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            for _ in range(4):
                tower.forward(pixels)
            wait()
            done += 4 * len(pixels)
        return done / (time.perf_counter() - started)


def from_memory(stage: Any, rows: int, seconds: float, side: int) -> tuple[float, float | None]:
    """Images per second of the stage over batches that are there, and the busy share."""
    from curator_image.batch import ImageBatch, tensor_column

    random = np.random.default_rng(0)
    batches = []
    for number in range(4):
        pixels = random.integers(0, 256, (rows, side, side, 3), dtype=np.uint8)
        keys = pa.array([f"{number}-{row}" for row in range(rows)])
        batches.append(ImageBatch(data=pa.table({"key": keys, "pixels": tensor_column(pixels)}), task_id=str(number)))
    stage.process(batches[0])
    busy, done = Busy(), 0
    with busy.watch():
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            for batch in batches:
                out = stage.process(batch)
                assert out.num_rows == rows
                done += rows
        took = time.perf_counter() - started
    return done / took, busy.share()


def from_tars(options: argparse.Namespace, models: dict[str, Path], side: int) -> dict[str, Any]:
    """Images per second of the whole chain, and what came out."""
    from curator_core import Pipeline
    from curator_core.executors.local import LocalExecutor
    from curator_image import AestheticFilter, ImageReader, ImageWriter, NSFWFilter

    def executor() -> Any:
        if options.executor == "local":
            return LocalExecutor(workers=1)
        import curator_backends

        return {"ray_data": curator_backends.RayDataExecutor, "xenna": curator_backends.XennaExecutor}[
            options.executor
        ]()

    def run(limit: int | None, name: str) -> tuple[float, int, float | None]:
        out = options.scratch / name
        shutil.rmtree(out, ignore_errors=True)
        stages = [
            ImageReader(paths=str(options.tars), size=side, images_per_batch=options.rows),
            embedding(options, models),
            AestheticFilter(model=str(models["aesthetic"]), mode="annotate"),
            NSFWFilter(model=str(models["nsfw"]), mode="annotate"),
            ImageWriter(path=str(out)),
        ]
        busy = Busy()
        with busy.watch():
            started = time.perf_counter()
            Pipeline(stages, name="image-gpu").run(executor(), limit=limit)
            took = time.perf_counter() - started
        rows = json.loads((out / "_SUCCESS").read_text())["files"]
        return took, sum(file["rows"] for file in rows if file["path"].endswith(".tar")), busy.share()

    few_s, few, _ = run(1, "few")
    all_s, total, share = run(None, "all")
    if total <= few or all_s <= few_s:
        raise SystemExit("too few images to tell start-up from work: make more tars")
    rate = (total - few) / (all_s - few_s)
    return {"tars_images": total, "tars_images_s": round(rate, 1), "tars_busy": share, "tars_total_s": round(all_s, 1)}


def embedding(options: argparse.Namespace, models: dict[str, Path]) -> Any:
    from curator_image import ImageEmbedding

    return ImageEmbedding(
        model=str(models["clip"]),
        precision=options.precision,
        gpu_memory_gb=0.0 if options.cpu else options.gpu_memory_gb,
        model_batch_size=options.batch,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path, help="folder for the model and for what is written")
    parser.add_argument(
        "--tars", type=Path, help="folder of tars to read; without it only the model and memory are measured"
    )
    parser.add_argument("--executor", choices=["local", "ray_data", "xenna"], default="local")
    parser.add_argument("--size", choices=sorted(image_models.SIZES), default="vit-l-14")
    parser.add_argument("--precision", choices=["auto", "fp32", "fp16", "bf16"], default="auto")
    parser.add_argument("--gpu-memory-gb", type=float, default=16.0)
    parser.add_argument("--batch", type=int, help="images through the model at once; found by measuring without it")
    parser.add_argument("--rows", type=int, default=1024, help="images a batch")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each part is measured")
    parser.add_argument("--cpu", action="store_true", help="run on the CPU, to see that everything works")
    options = parser.parse_args()

    import torch

    from curator_core import WorkerMetadata

    if not options.cpu and not torch.cuda.is_available():
        print("no NVIDIA GPU here: nothing was measured (--size tiny --cpu only shows that it runs)")
        print("BENCH", json.dumps({"gpu": 0}))
        return 0
    models = {"clip": options.scratch / f"clip-{options.size}"}
    if not (models["clip"] / "config.json").exists():
        image_models.save_clip(models["clip"], size=options.size)
    dimension = image_models.SIZES[options.size]["projection"]
    models["aesthetic"], models["nsfw"] = image_models.save_heads(options.scratch / f"heads-{dimension}", dimension)
    stage = embedding(options, models)
    stage.setup(WorkerMetadata())
    tower = stage._tower
    side = tower.preprocessing.target[0]
    metrics: dict[str, Any] = {
        "gpu": 0 if options.cpu else 1,
        "device": "cpu" if options.cpu else torch.cuda.get_device_name(),
        "precision": str(tower.dtype).removeprefix("torch."),
        "batch": tower.batcher.size,
        "bare_images_s": round(bare(tower, options.seconds), 1),
    }
    rate, share = from_memory(stage, options.rows, options.seconds, side)
    metrics |= {"memory_images_s": round(rate, 1), "memory_busy": share, "batch_after": tower.batcher.size}
    metrics["memory_ratio"] = round(rate / metrics["bare_images_s"], 3)
    stage.teardown()
    if not options.cpu:
        torch.cuda.empty_cache()
    if options.tars:
        metrics |= from_tars(options, models, side)
        metrics["tars_ratio"] = round(metrics["tars_images_s"] / metrics["bare_images_s"], 3)
    print("BENCH", json.dumps(metrics))
    return 0


if __name__ == "__main__":
    sys.exit(main())
