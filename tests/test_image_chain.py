"""The full image chain gives the same files on every executor: read, embed, score, filter, write."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("curator_image")
pytest.importorskip("transformers")

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from curator_core import LocalExecutor, Pipeline
from curator_core.executors.base import BaseExecutor
from curator_image import ImageEmbedding, ImageReader, ImageWriter
from curator_image.aesthetic import AestheticFilter
from curator_image.caption_score import CaptionScoreFilter
from curator_image.nsfw import NSFWFilter

pytestmark = [pytest.mark.models, pytest.mark.slow]

TARS, IMAGES, CORRUPT = 4, 30, 3


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The images of all tars in ``folder``, by key."""
    folder = tmp_path_factory.mktemp("shards")
    random = np.random.default_rng(3)
    images: dict[str, bytes] = {"folder": str(folder).encode()}
    for number in range(TARS):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as archive:
            for row in range(IMAGES):
                key = f"{number:03d}-{row:04d}"
                small = random.integers(0, 256, (6, 8, 3)).astype(np.uint8)
                out = io.BytesIO()
                Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC).save(out, "JPEG", quality=92)
                data = out.getvalue()[:200] if row % 10 == 7 else out.getvalue()
                images[key] = data
                for ext, body in (("jpg", data), ("txt", f"picture {key}".encode()), ("json", b'{"n": %d}' % row)):
                    entry = tarfile.TarInfo(f"{key}.{ext}")
                    entry.size = len(body)
                    archive.addfile(entry, io.BytesIO(body))
    return images


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    import image_models

    folder = tmp_path_factory.mktemp("models")
    clip = image_models.save_clip(folder / "clip")
    aesthetic, nsfw = image_models.save_heads(folder / "heads", 24)
    return {"clip": str(clip), "aesthetic": str(aesthetic), "nsfw": str(nsfw)}


def run_chain(executor: BaseExecutor, out: Path, shards: dict[str, bytes], models: dict[str, str]) -> Any:
    stages = [
        ImageReader(paths=shards["folder"].decode(), size=32, images_per_batch=16),
        ImageEmbedding(model=models["clip"]),
        AestheticFilter(model=models["aesthetic"], min_score=4.5, score_column="aesthetic"),
        NSFWFilter(model=models["nsfw"], max_score=0.6, score_column="nsfw"),
        CaptionScoreFilter(model=models["clip"], mode="annotate"),
        ImageWriter(path=str(out / "images"), images_per_tar=25),
    ]
    return Pipeline(stages, name="chain").run(executor, run_dir=str(out / "run"))


def written(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "images").iterdir()) if path.is_file()}


@pytest.fixture(scope="module")
def local(
    tmp_path_factory: pytest.TempPathFactory, shards: dict[str, bytes], models: dict[str, str]
) -> tuple[Path, Any]:
    """The result of one process, for comparison."""
    out = tmp_path_factory.mktemp("local")
    return out, run_chain(LocalExecutor(workers=0), out, shards, models)


def test_kept_images_are_the_original_bytes_with_all_their_scores(
    local: tuple[Path, Any], shards: dict[str, bytes]
) -> None:
    out, result = local
    kept: dict[str, bytes] = {}
    for path in sorted((out / "images").glob("*.tar")):
        with tarfile.open(path) as archive:
            for entry in archive:
                key, _, ext = entry.name.partition(".")
                body = archive.extractfile(entry).read()  # type: ignore[union-attr]
                if ext == "jpg":
                    kept[key] = body
                elif ext == "txt":
                    assert body == f"picture {key}".encode()
    index = pq.read_table(sorted((out / "images").glob("*.parquet")))
    assert index["key"].to_pylist() == list(kept)
    assert all(shards[key] == body for key, body in kept.items())
    assert 0 < len(kept) < TARS * (IMAGES - CORRUPT)
    assert min(index["aesthetic"].to_pylist()) >= 4.5
    assert max(index["nsfw"].to_pylist()) < 0.6
    assert {"embedding", "caption_score", "caption_score_keep"} <= set(index.column_names)
    assert not {"bytes", "pixels"} & set(index.column_names)
    summary = result.summary
    assert summary.rows_rejected == TARS * CORRUPT
    assert len(kept) + summary.rows_dropped + summary.rows_rejected == TARS * IMAGES
    rejected = {key for key, body in shards.items() if len(body) == 200}
    assert len(rejected) == TARS * CORRUPT
    assert not rejected & set(kept)


def test_several_processes_write_the_same_as_one(
    local: tuple[Path, Any], tmp_path: Path, shards: dict[str, bytes], models: dict[str, str]
) -> None:
    run_chain(LocalExecutor(workers=2), tmp_path, shards, models)
    assert written(tmp_path) == written(local[0])


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_ray_data_writes_the_same_as_one_process(
    local: tuple[Path, Any], tmp_path: Path, shards: dict[str, bytes], models: dict[str, str]
) -> None:
    from curator_backends import RayDataExecutor

    result = run_chain(RayDataExecutor(num_cpus=2), tmp_path, shards, models)
    assert written(tmp_path) == written(local[0])
    assert result.summary.rows_dropped == local[1].summary.rows_dropped


# The chain is the same groups on both engines; `make test` runs it on Ray Data (above), and what Xenna does with groups
# in test_text_on_every_executor.py and in the conformance suite.
@pytest.mark.thorough
@pytest.mark.xenna
@pytest.mark.timeout(600)
def test_xenna_writes_the_same_as_one_process(
    local: tuple[Path, Any], tmp_path: Path, shards: dict[str, bytes], models: dict[str, str]
) -> None:
    from curator_backends import XennaExecutor

    result = run_chain(XennaExecutor(num_cpus=2), tmp_path, shards, models)
    assert written(tmp_path) == written(local[0])
    assert result.summary.rows_dropped == local[1].summary.rows_dropped
