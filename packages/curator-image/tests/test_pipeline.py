"""Whole pipelines on the local executor: accounts add up, rejects are listed by key, and the result is the same with any number of workers."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curator_core.cli import main
from curator_core.executors.local import LocalExecutor
from curator_core.model.machine import Machine
from curator_core.model.resources import Resources
from curator_core.pipeline import Pipeline
from curator_core.planning.make import make_plan
from curator_image import (
    AestheticFilter,
    BlurFilter,
    BrightnessFilter,
    CaptionLengthFilter,
    CaptionScoreFilter,
    ImageDecode,
    ImageEmbedding,
    ImageReader,
    ImageWriter,
    NSFWFilter,
    ResolutionFilter,
)


def picture(seed: int, width: int, height: int) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (25, 25, 3), dtype=np.uint8))
    out = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, bytes], set[str]]:
    """240 samples in 4 tars; every 20th image is broken in one of four ways. Returns the folder, the images and the bad
    keys."""
    folder = tmp_path_factory.mktemp("corpus")
    images: dict[str, bytes] = {}
    bad = set()
    for shard in range(4):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(60):
                key = f"{shard:02d}{number:04d}"
                data = picture(shard * 60 + number, 120 - number % 3 * 40, 90)
                if number % 20 == 10:
                    bad.add(key)
                    middle = len(data) // 2
                    how = (shard + number // 20) % 4
                    noise = bytearray(data)
                    noise[middle : middle + 60] = b"\xff\xd3" * 30
                    data = (b"", data[:middle], b"<html>", bytes(noise))[how]
                images[key] = data
                for ext, body in (("jpg", data), ("txt", b"x" * (number % 7))):
                    info = tarfile.TarInfo(f"{key}.{ext}")
                    info.size = len(body)
                    tar.addfile(info, io.BytesIO(body))
    return str(folder), images, bad


def stages(source: str, out: Path, **options: Any) -> list[Any]:
    return [
        ImageReader(f"{source}/*.tar", images_per_batch=16),
        ResolutionFilter(min_width=50),
        CaptionLengthFilter(min_chars=1),
        BlurFilter(min_variance=1.0, score_column="sharpness"),
        BrightnessFilter(mode="annotate"),
        ImageWriter(path=str(out), images_per_tar=50, **options),
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "_SUCCESS"}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_input_is_kept_plus_dropped_by_reason_plus_rejected_by_key(
    corpus: tuple[str, dict[str, bytes], set[str]], tmp_path: Path, workers: int
) -> None:
    source, images, bad = corpus
    pipeline = Pipeline(stages(source, tmp_path / "out"))
    result = pipeline.run(LocalExecutor(workers=workers), run_dir=str(tmp_path / "run"))
    summary = result.summary
    by_name = {stage.name: stage for stage in summary.stages}
    rejected = sum(stage.rows_rejected for stage in summary.stages)
    dropped = sum(stage.rows_dropped for stage in summary.stages)
    assert by_name["ImageRead"].rows_in == len(images) == summary.rows_written + dropped + rejected
    assert by_name["ResolutionFilter"].dropped == {"width too low": by_name["ResolutionFilter"].rows_dropped}
    assert set(by_name["CaptionLengthFilter"].dropped) == {"caption too short"}
    listed = [row for path in (tmp_path / "run/rejects").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {row["position"] for row in listed} == bad
    assert len(listed) == len(bad)
    assert {row["reason"] for row in listed} == {"empty", "truncated", "not an image", "corrupt"}
    kept: dict[str, bytes] = {}
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                if info.name.endswith(".jpg"):
                    kept[info.name.removesuffix(".jpg")] = tar.extractfile(info).read()  # type: ignore[union-attr]
    assert len(kept) == summary.rows_written
    assert all(images[key] == data for key, data in kept.items())
    index = pq.read_table(sorted((tmp_path / "out").glob("*.parquet")))
    assert index.column("key").to_pylist() == list(kept)
    assert {"sharpness", "brightness", "brightness_keep", "caption"} <= set(index.column_names)
    assert not {"bytes", "pixels", "thumb"} & set(index.column_names)


@pytest.mark.slow
def test_any_number_of_workers_writes_the_same_bytes(
    corpus: tuple[str, dict[str, bytes], set[str]], tmp_path: Path
) -> None:
    for workers in (0, 2):
        Pipeline(stages(corpus[0], tmp_path / str(workers))).run(LocalExecutor(workers=workers))
    assert files(tmp_path / "0") == files(tmp_path / "2")


@pytest.mark.slow
def test_a_finished_run_that_is_resumed_changes_nothing(
    corpus: tuple[str, dict[str, bytes], set[str]], tmp_path: Path
) -> None:
    pipeline = Pipeline(stages(corpus[0], tmp_path / "out"))
    first = pipeline.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    before = files(tmp_path / "out")
    again = pipeline.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"), resume=True)
    assert files(tmp_path / "out") == before
    assert again.summary.rows_written == first.summary.rows_written


def test_nothing_is_decoded_for_a_pipeline_that_reads_no_pixels(
    corpus: tuple[str, dict[str, bytes], set[str]], tmp_path: Path
) -> None:
    def columns(*middle: Any) -> list[str]:
        plan = make_plan(
            [ImageReader(corpus[0]), *middle, ImageWriter(path=str(tmp_path))], Machine(cpus=2, memory_gb=8)
        )
        (decode,) = [planned.stage for planned in plan.stages if isinstance(planned.stage, ImageDecode)]
        return list(decode.outputs())

    assert columns(ResolutionFilter(min_width=1)) == []
    assert columns(BlurFilter()) == ["thumb"]


GPU = Machine(cpus=8, gpus=1, gpu_memory_gb=80, memory_gb=64, name="the cluster")


def gpu_groups(reader: ImageReader) -> list[tuple[str, float]]:
    chain: list[Any] = [
        reader,
        ResolutionFilter(min_width=1),
        ImageEmbedding(gpu_memory_gb=8),
        AestheticFilter(),
        NSFWFilter(),
        CaptionScoreFilter(gpu_memory_gb=2),
        ImageWriter(path="out"),
    ]
    plan = make_plan(chain, GPU, simultaneous=True)
    return [(group.name, group.resources.gpu_memory_gb) for group in plan.segments[0].groups]


def test_heads_share_the_gpu_worker_of_the_embedding_but_the_writer_does_not() -> None:
    assert gpu_groups(ImageReader("in/*.tar")) == [
        ("ImageRead", 0),
        ("ImageDecode+ResolutionFilter", 0),
        ("ImageEmbedding+AestheticFilter+NSFWFilter+CaptionScoreFilter", 10),
        ("ImageWriter", 0),
    ]


def test_a_reader_with_a_gpu_decodes_in_the_worker_of_the_embedding_and_reads_without() -> None:
    assert gpu_groups(ImageReader("in/*.tar").with_(resources=Resources(gpu_memory_gb=4))) == [
        ("ImageRead", 0),
        ("ImageDecode+ResolutionFilter+ImageEmbedding+AestheticFilter+NSFWFilter+CaptionScoreFilter", 14),
        ("ImageWriter", 0),
    ]


def test_pictures_are_dropped_after_the_last_stage_that_reads_them() -> None:
    chain: list[Any] = [
        ImageReader("in/*.tar"),
        BlurFilter(),
        BrightnessFilter(),
        ImageEmbedding(gpu_memory_gb=8),
        ImageWriter(path="out"),
    ]
    plan = make_plan(chain, GPU)
    gone = {planned.name: list(planned.stage.removes()) for planned in plan.stages if planned.stage.removes()}
    assert gone == {"BrightnessFilter": ["thumb"], "ImageEmbedding": ["pixels"]}


LARGE = """
import resource, sys, tarfile, io
from curator_core.model.task import FileGroupTask
from curator_image import ImageWriter
from curator_image.reading.read import ImageRead

reader, writer = ImageRead(bytes_per_batch=4 << 20), ImageWriter(path=sys.argv[2])
rows = 0
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for number, batch in enumerate(reader.process(FileGroupTask(data=[sys.argv[1]]))):
    batch.task_id = f"t.{number:05d}"
    rows += batch.num_rows
    if number < 2:
        writer.process(batch)
print(rows, len(reader.recorder.rejects), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024)
"""


@pytest.mark.slow
def test_a_tar_twenty_times_larger_than_the_memory_limit_is_streamed(tmp_path: Path) -> None:
    """The process may grow by 32 MiB from its start; the tar has 640 MiB."""
    data = picture(0, 300, 300)
    filler = np.random.default_rng(0).bytes((1 << 20) - len(data) - 2048)
    path = tmp_path / "large.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(640):
            for ext, body in (("jpg", data), ("bin", filler)):
                info = tarfile.TarInfo(f"{number:05d}.{ext}")
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
    assert path.stat().st_size >= 20 * (32 << 20) * 0.99
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(path), str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows, rejects, grown = map(int, done.stdout.split())
    assert (rows, rejects) == (640, 0)
    assert grown <= 32


def test_a_writer_that_no_row_reaches_still_counts_as_a_writer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(picture(1, 60, 40))
    (tmp_path / "p.yaml").write_text(
        "stages:\n  - ImageReader: {paths: in/, decode: false}\n  - ResolutionFilter: {min_width: 9000, min_height: 9000}\n"
        "  - ImageWriter: {path: out/}\nexecutor: {local: {workers: 0}}\nrun_dir: run\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["run", str(tmp_path / "p.yaml")])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "ImageWriter" in said
    assert "has no writer" not in said
