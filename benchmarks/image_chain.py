"""Measures a chain of image stages in images per second after its start, and checks that every image is accounted for.

    python benchmarks/image_chain.py FOLDER_OF_TARS OUT --chain measures|curation --executor local|ray_data|xenna
                                     [--workers 2] [--no-fanout]

- ``measures``: read → eleven measures → write, without a model.
- ``curation``: read → embed → aesthetic → NSFW → write, with a small CLIP and heads made here in the published formats.

The chain runs over a few samples of every tar, and then over all samples. Both runs are timed from the first finished
task to the end. ``images_s`` is the difference of their images divided by the difference of their times, so the start
and end of processes do not count, however long they take on a busy machine. ``startup_s`` is the time to the first
result, and ``images_s_total`` counts everything. Peak memory is the sum of the proportional set sizes of all processes
of the run, sampled four times a second.

Afterwards, the output is compared with the input, sample by sample: ``kept_as_they_were`` counts the samples whose
members have the same bytes; ``rejects_listed`` says whether the run's rejects are exactly the bad images, by tar and
key; ``rows_lost`` counts rows that are neither kept, nor dropped for a reason, nor rejected.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processor_time import processes, processor_seconds

FEW = 16
ROOT = Path(__file__).resolve().parent.parent
# Each limit is in a wide gap between two scores of these images, so the last bits of a sum do not matter.
MIN_AESTHETIC, MAX_NSFW = 4.764225, 0.625943


def stages(tars: str, out: str, options: argparse.Namespace) -> list[Any]:
    from curator_core.model.engine_facts import RayStageSpecKeys
    from curator_image import ImageReader, ImageWriter

    reader: list[Any] = [
        ImageReader(tars, size=32 if options.chain == "curation" else 224, reject_odd=["wrong extension"])
    ]
    if options.no_fanout:  # measures the value of the fan-out: without it, one worker gets a whole tar
        source, read, decode = reader[0].decompose()
        reader = [source, read.with_(ray_stage_spec={RayStageSpecKeys.IS_FANOUT_STAGE: False}), decode]
    middle = curation(options.out / "models") if options.chain == "curation" else measures()
    return [*reader, *middle, ImageWriter(path=out)]


def measures() -> list[Any]:
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
        ResolutionFilter,
        UniformFilter,
    )

    return [
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
    ]


def curation(models: Path) -> list[Any]:
    from curator_image import AestheticFilter, ImageEmbedding, NSFWFilter

    heads = models / "heads"
    return [
        ImageEmbedding(model=str(models / "clip")),
        AestheticFilter(model=str(heads), min_score=MIN_AESTHETIC, score_column="aesthetic"),
        NSFWFilter(
            model=str(heads / "clip_ViT-L-14_openai_binary_nsfw_head.pth"), max_score=MAX_NSFW, score_column="nsfw"
        ),
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


class FirstResult:
    """The time when the first task had passed the whole chain, and the share of tasks that had passed it by then."""

    def __init__(self, out: Path) -> None:
        self.parts = out / "_parts"  # where the writer puts the tar of a task
        self.time, self.done, self.tasks = 0.0, 0, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> FirstResult:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def share(self) -> float:
        return self.done / self.tasks

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            done = len(list(self.parts.glob("*.tar")))
            if done and not self.done:
                self.time, self.done = time.perf_counter(), done
            self.tasks = max(self.tasks, done)


class PeakMemory:
    """The peak memory of this process and its descendants together, in bytes, with each shared page counted once."""

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
            self.peak = max(self.peak, sum(map(self._pss, processes())))

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
    from curator_image.tar.read import Member, read_tar
    from curator_image.tar.write import END, padding, tar_header

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


@dataclass(frozen=True)
class Run:
    """Run the chain once. Returns its report, and seconds and images by the clock of this process."""

    summary: Any
    seconds: float
    first_result_s: float
    images_after_it: float
    cpu_s: float

    @property
    def seconds_after_it(self) -> float:
        return self.seconds - self.first_result_s


def run(tars: Path, out: Path, options: argparse.Namespace) -> Run:
    from curator_core import Pipeline

    pipeline = Pipeline(stages(f"{tars}/*.tar", str(out), options))
    before = processor_seconds()
    started = time.perf_counter()
    with FirstResult(out) as first:
        result = pipeline.run(executor(options.executor, options.workers), run_dir=str(run_folder(out)))
        seconds = time.perf_counter() - started
    cpu = processor_seconds() - before
    images = rows_in(result.summary) * (1 - first.share)
    return Run(result.summary, seconds, first.time - started, images, cpu)


def run_folder(out: Path) -> Path:
    return out.with_name(f"{out.name}-run")


def samples(tars: list[Path]) -> dict[str, dict[str, bytes]]:
    """Every sample by key, with the checksums of its members by extension. It uses Python's own tar reader, not the
    measured one.
    """
    found: dict[str, dict[str, bytes]] = {}
    for path in tars:
        with tarfile.open(path) as tar:
            for entry in tar:
                key, _, ext = entry.name.partition(".")
                body = tar.extractfile(entry)
                assert body is not None
                found.setdefault(key, {})[ext] = hashlib.sha256(body.read()).digest()
    return found


def compared(folder: Path, out: Path) -> dict[str, int]:
    """Compare the output with the input, by key."""
    import pyarrow.parquet as pq

    given, kept = samples(sorted(folder.glob("*.tar"))), samples(sorted(out.glob("*.tar")))
    bad = {(tar, key) for tar, keys in json.loads((folder / "corrupt.json").read_text()).items() for key in keys}
    rejects = run_folder(out) / "rejects"
    rows = [row for path in rejects.rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    told = [(Path(row["source"]).name, row["position"]) for row in rows]
    return {
        "kept_as_they_were": sum(given.get(key) == members for key, members in kept.items()),
        "rejects_listed": int(len(told) == len(bad) and set(told) == bad),
    }


def counts(summary: Any) -> dict[str, int]:
    """The run's counts: rows in, written, dropped and rejected by reason, and missing."""
    rows = {"rows_in": rows_in(summary), "rows_out": summary.rows_written}
    for stage in summary.stages:
        for what, reasons in (("dropped", stage.dropped), ("rejected", stage.rejected)):
            for reason, number in reasons.items():
                name = f"{what}_{reason.replace(' ', '_')}"
                rows[name] = rows.get(name, 0) + number
    rows["rows_lost"] = rows["rows_in"] - sum(number for name, number in rows.items() if name != "rows_in")
    return rows


def rows_in(summary: Any) -> int:
    return int(next(stage.rows_in for stage in summary.stages if stage.name == "ImageRead"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--chain", choices=["measures", "curation"], default="measures")
    parser.add_argument("--executor", choices=["local", "ray_data", "xenna"], default="local")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--no-fanout", action="store_true")
    options = parser.parse_args()
    few = options.out / "few"
    few_of_each(sorted(options.folder.glob("*.tar")), few)
    if options.chain == "curation":  # in a separate process, because torch would stay loaded in this one
        command = [sys.executable, str(ROOT / "tools" / "image_models.py"), str(options.out / "models")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with PeakMemory() as memory:
        small = run(few, options.out / "small", options)
        whole = run(options.folder, options.out / "whole", options)
    total, more = rows_in(whole.summary), whole.images_after_it - small.images_after_it
    metrics = {
        **counts(whole.summary),
        **compared(options.folder, options.out / "whole"),
        "startup_s": round(whole.first_result_s, 2),
        "images_s": round(more / (whole.seconds_after_it - small.seconds_after_it), 1),
        "images_s_total": round(total / whole.seconds, 1),
        "peak_pss_gb": round(memory.peak / 1e9, 3),
    }
    if options.executor == "local":  # the workers of a cluster are not children of this process
        cpu = (whole.cpu_s - small.cpu_s) / (total - rows_in(small.summary))
        metrics["cpu_ms_per_image"] = round(cpu * 1000, 3)
    print("BENCH " + json.dumps(metrics))


if __name__ == "__main__":
    main()
