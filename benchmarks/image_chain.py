"""The chain without models, end to end: read → measures → write, in images per second after start-up.

    python benchmarks/image_chain.py FOLDER_OF_TARS OUT --executor local|ray_data|xenna [--workers 2] [--no-fanout]

The chain runs twice: over a few samples of every tar, and over all. What the first takes is start-up, so
``images_s`` is the rate of the images that only the second has. ``images_s_total`` counts everything. Peak memory is
the sum of the proportional set sizes of all processes of the run, sampled four times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

FEW = 16


def stages(tars: str, out: str, fanout: bool) -> list[Any]:
    from curator_core.stages import RayStageSpecKeys
    from curator_image import (
        AspectRatioFilter,
        BlurFilter,
        BorderFilter,
        BrightnessFilter,
        BytesPerPixelFilter,
        CaptionLengthFilter,
        ColorfulnessFilter,
        ContrastFilter,
        EntropyFilter,
        ImageReader,
        ImageWriter,
        ResolutionFilter,
        UniformFilter,
    )

    reader: list[Any] = [ImageReader(tars)]
    if not fanout:  # what the fact is worth: without it one worker gets everything of a tar
        source, read, decode = reader[0].decompose()
        reader = [source, read.with_(ray_stage_spec={RayStageSpecKeys.IS_FANOUT_STAGE: False}), decode]
    return [
        *reader,
        ResolutionFilter(min_width=64, min_height=64, score_column="resolution"),
        AspectRatioFilter(score_column="ratio"),
        BytesPerPixelFilter(score_column="bytes_per_pixel"),
        BlurFilter(score_column="sharpness"),
        EntropyFilter(score_column="entropy"),
        BrightnessFilter(score_column="brightness"),
        ContrastFilter(score_column="contrast"),
        UniformFilter(score_column="uniform"),
        ColorfulnessFilter(score_column="colorfulness"),
        BorderFilter(score_column="border"),
        CaptionLengthFilter(score_column="caption_length"),
        ImageWriter(path=out),
    ]


def executor(name: str, workers: int | None) -> Any:
    if name == "local":
        from curator_core import LocalExecutor

        return LocalExecutor(workers=workers)
    if name == "ray_data":
        from curator_backends import RayDataExecutor

        return RayDataExecutor()
    from curator_backends import XennaExecutor

    return XennaExecutor()


class PeakMemory:
    """The most that this process and its descendants held together, in bytes, each shared page counted once."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self.peak = max(self.peak, sum(map(self._pss, self._family())))

    def _family(self) -> list[int]:
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except (OSError, IndexError, ValueError):
                    continue
                parents.setdefault(parent, []).append(int(entry.name))
        family, todo = [], [os.getpid()]
        while todo:
            process = todo.pop()
            family.append(process)
            todo += parents.get(process, [])
        return family

    def _pss(self, process: int) -> int:
        try:
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
        return 0


def few_of_each(tars: list[Path], folder: Path) -> None:
    """The first samples of every tar, as tars."""
    from curator_image.tar import END, Member, padding, read_tar, tar_header

    folder.mkdir(parents=True, exist_ok=True)
    for tar in tars:
        keys: set[str] = set()
        with tar.open("rb") as source, (folder / tar.name).open("wb") as target:
            for item in read_tar(source):
                assert isinstance(item, Member)
                keys.add(item.name.partition(".")[0])
                if len(keys) > FEW:
                    break
                target.write(tar_header(item.name, len(item.data)) + item.data + padding(len(item.data)))
            target.write(END)


def run(tars: Path, out: Path, options: argparse.Namespace) -> tuple[Any, float, float]:
    from curator_core import Pipeline

    shutil.rmtree(out, ignore_errors=True)
    pipeline = Pipeline(stages(f"{tars}/*.tar", str(out), not options.no_fanout))
    before = os.times()
    started = time.perf_counter()
    result = pipeline.run(executor(options.executor, options.workers))
    seconds = time.perf_counter() - started
    after = os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    return result.summary, seconds, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--executor", choices=["local", "ray_data", "xenna"], default="local")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--no-fanout", action="store_true")
    options = parser.parse_args()
    few = options.out / "few"
    few_of_each(sorted(options.folder.glob("*.tar")), few)
    with PeakMemory() as memory:
        small, start_seconds, start_cpu = run(few, options.out / "small", options)
        whole, seconds, cpu = run(options.folder, options.out / "whole", options)
    rows = [next(stage.rows_in for stage in summary.stages if stage.name == "ImageRead") for summary in (small, whole)]
    metrics = {
        "rows_in": rows[1],
        "rows_out": whole.rows_written,
        "rows_dropped": whole.rows_dropped,
        "rows_rejected": whole.rows_rejected,
        "rows_lost": rows[1] - whole.rows_written - whole.rows_dropped - whole.rows_rejected,
        "startup_s": round(start_seconds, 2),
        "images_s": round((rows[1] - rows[0]) / (seconds - start_seconds), 1),
        "images_s_total": round(rows[1] / seconds, 1),
        "cpu_ms_per_image": round((cpu - start_cpu) / (rows[1] - rows[0]) * 1000, 3),
        "peak_pss_gb": round(memory.peak / 1e9, 3),
    }
    print("BENCH " + json.dumps(metrics))


if __name__ == "__main__":
    main()
