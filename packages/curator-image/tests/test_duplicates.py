"""Images that are the same by bytes or by pixels, and those that a table of decisions or a list removes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin

from curator_core.across.apply import ApplyDecisions
from curator_core.across.listed import DecisionsFromList
from curator_core.cli import run_command
from curator_core.config.build import build_stage
from curator_core.config.pipeline_file import load_pipeline
from curator_core.errors import UsageError
from curator_core.executors.local import LocalExecutor
from curator_core.pipeline import Pipeline
from curator_image import ImageBatch, ImageDuplicateRemoval, ImageReader, ImageWriter, PixelHash

HERE = LocalExecutor(workers=0)


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], len(mode)), dtype=np.uint8)
    return Image.fromarray(values[:, :, 0] if mode == "L" else values, mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noted(image: Image.Image, text: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", text)
    return encoded(image, "PNG", pnginfo=info)


def shard(path: Path, images: dict[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in images.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def batch(*images: bytes) -> ImageBatch:
    keys = [f"k{number}" for number in range(len(images))]
    return ImageBatch(data=pa.table({"key": keys, "bytes": pa.array(images, pa.binary())}), task_id="s-1.00000")


def hashes(*images: bytes, **options: Any) -> list[str]:
    found: list[str] = PixelHash(**options).process(batch(*images)).to_pyarrow()["pixel_hash"].to_pylist()
    return found


# Pixels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_the_same_pixels_in_different_files_have_the_same_hash(mode: str) -> None:
    image = picture(1, mode)
    # Where alpha is 0 a lossless WebP may lose the colour, which is invisible.
    files = [
        encoded(image, "PNG"),
        encoded(image, "PNG", compress_level=0),
        noted(image, "another file of the same picture"),
        encoded(image, "WEBP", lossless=True),
        encoded(image, "TIFF"),
    ]
    assert len(set(files)) == len(files)
    assert len(set(hashes(*files))) == 1


def test_a_rotated_file_has_the_hash_of_the_upright_picture() -> None:
    image = picture(2)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by a quarter clockwise
    turned = encoded(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    assert hashes(turned) == hashes(encoded(image, "PNG"))


def test_different_pixels_sizes_and_lossy_files_have_different_hashes() -> None:
    image = picture(3)
    one_level = np.asarray(image).copy()
    one_level[5, 7, 1] ^= 1
    tall = Image.fromarray(np.zeros((8, 2, 3), np.uint8))
    files = [
        encoded(image, "PNG"),
        encoded(Image.fromarray(one_level), "PNG"),
        encoded(image, "JPEG"),
        encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG"),
        encoded(tall, "PNG"),
        encoded(tall.transpose(Image.Transpose.ROTATE_90), "PNG"),
    ]
    assert len(set(hashes(*files))) == len(files)


def test_a_hash_depends_only_on_the_pixels_and_does_not_change() -> None:
    black = Image.fromarray(np.zeros((2, 3, 3), np.uint8))
    assert hashes(encoded(black, "PNG")) == [hashlib.blake2b(b"3x2:" + bytes(18), digest_size=16).hexdigest()]


def test_images_that_cannot_be_decoded_are_set_aside() -> None:
    good = encoded(picture(4), "PNG")
    cut = encoded(picture(5, size=(200, 200)), "PNG")[:5000]
    stage = PixelHash()
    done = stage.process(batch(good, cut, b"", good))
    assert done.to_pyarrow()["key"].to_pylist() == ["k0", "k3"]
    assert [(reject.position, bool(reject.reason)) for reject in stage.recorder.rejects] == [("k1", True), ("k2", True)]
    too_large = PixelHash(max_pixels=100)
    assert too_large.process(batch(good)).num_rows == 0
    assert [reject.reason for reject in too_large.recorder.rejects] == ["too many pixels"]


def test_wrong_parameters_of_the_hash_are_refused() -> None:
    with pytest.raises(UsageError, match="decoder must be"):
        build_stage("PixelHash", {"decoder": "dali"})
    with pytest.raises(UsageError, match="output_column must be the name of a column, not ''"):
        PixelHash(output_column="")
    with pytest.raises(UsageError, match="a column 'bytes', and there is one already"):
        PixelHash(output_column="bytes").process(batch(b""))
    with pytest.raises(UsageError, match="pixel_hash must be true or false, not 1"):
        ImageReader(paths="in", pixel_hash=1)  # type: ignore[arg-type]


# The table, and lists ------------------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path) -> str:
    image = picture(6)
    same = {"a.png": encoded(image, "PNG"), "b.webp": encoded(image, "WEBP", lossless=True)}
    shard(tmp_path / "in" / "0.tar", {**same, "c.png": encoded(picture(7), "PNG")})
    shard(tmp_path / "in" / "1.tar", {"a.png": encoded(image, "PNG"), "d.jpg": encoded(picture(8), "JPEG")})
    return str(tmp_path / "in" / "*.tar")


def written(folder: Path) -> list[str]:
    index = pq.read_table(sorted(folder.glob("*.parquet")))
    return [f"{row['source_shard'].rsplit('/', 1)[-1]}:{row['key']}" for row in index.to_pylist()]


def test_a_table_of_decisions_identifies_images_by_their_place(shards: str, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("a\nd\n")
    decided = str(tmp_path / "decided")
    by_key = DecisionsFromList(ids=str(tmp_path / "ids.txt"), path=decided, id_column="key")
    Pipeline([ImageReader(paths=shards, decode=False), by_key]).run(HERE)
    for keep, left in ((False, ["0.tar:b", "0.tar:c"]), (True, ["0.tar:a", "1.tar:a", "1.tar:d"])):
        out = tmp_path / f"out-{keep}"
        stages = [
            ImageReader(paths=shards),
            ImageDuplicateRemoval(decisions_path=decided, keep=keep),
            ImageWriter(path=str(out)),
        ]
        summary = Pipeline(stages).run(HERE).summary
        assert summary.rows_in == 5
        assert summary.rows_dropped == 5 - len(left)
        assert written(out) == left
    assert {reason for stage in summary.stages for reason in stage.dropped} == {"kept"}


def test_images_in_a_list_are_dropped_or_are_the_only_ones_kept(shards: str, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("c\nnothere\n")
    pq.write_table(pa.table({"picture": ["c"]}), tmp_path / "ids.parquet")
    (tmp_path / "ids.jsonl").write_text(json.dumps({"id": "c"}) + "\n")
    for number, (name, options) in enumerate(
        [("ids.txt", {}), ("ids.jsonl", {}), ("ids.parquet", {"ids_column": "picture"}), ("ids.txt", {"keep": True})]
    ):
        out = tmp_path / f"out-{number}"
        removal = ImageDuplicateRemoval(ids_path=str(tmp_path / name), **options)  # type: ignore[arg-type]
        summary = Pipeline([ImageReader(paths=shards), removal, ImageWriter(path=str(out))]).run(HERE).summary
        kept = ["0.tar:c"] if options.get("keep") else ["0.tar:a", "0.tar:b", "1.tar:a", "1.tar:d"]
        assert written(out) == kept
        assert summary.rows_dropped == 5 - len(kept)


def test_a_removal_needs_a_table_or_a_list() -> None:
    for options in ({}, {"ids_path": "a", "decisions_path": "b"}):
        with pytest.raises(UsageError, match="give one of the two"):
            ImageDuplicateRemoval(**options)
    with pytest.raises(UsageError, match="ids_path must be some text, not ''"):
        ImageDuplicateRemoval(ids_path="")
    (stage,) = ImageDuplicateRemoval(decisions_path="b").decompose()
    assert isinstance(stage, ApplyDecisions)


# Deduplication -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "left", "removed"),
    [
        ("bytes", ["0.tar:a", "0.tar:b", "0.tar:c", "1.tar:d"], [("a", "a")]),
        ("pixel_hash", ["0.tar:a", "0.tar:c", "1.tar:d"], [("a", "a"), ("b", "a")]),
    ],
)
def test_exact_deduplication_by_bytes_and_by_pixels_keeps_one_of_equal_images(
    shards: str, tmp_path: Path, column: str, left: list[str], removed: list[tuple[str, str]]
) -> None:
    file = tmp_path / "dedup.yaml"
    file.write_text(
        f"""
workflow:
  ExactDedup:
    reader:
      ImageReader: {{paths: in/*.tar, pixel_hash: {str(column == "pixel_hash").lower()}, decode: false}}
    column: {column}
    id_column: key
    writer:
      ImageWriter: {{path: out}}
"""
    )
    workflow = load_pipeline(file).workflow
    assert workflow is not None
    summary = workflow.run(HERE, run_dir=str(tmp_path / "run")).summary
    assert written(tmp_path / "out") == left
    assert (summary.rows_in, summary.rows_dropped) == (5, 5 - len(left))
    decisions = pq.read_table(tmp_path / "run" / "decisions").to_pylist()
    pairs = [(row["id"], row["witness_id"]) for row in decisions if row["decision"] == "removed"]
    assert sorted(pairs) == removed
    # The table can be applied again, in a pipeline that does more.
    again = [
        ImageReader(paths=shards, decode=False),
        ImageDuplicateRemoval(decisions_path=str(tmp_path / "run" / "decisions")),
        ImageWriter(path=str(tmp_path / "again")),
    ]
    assert Pipeline(again).run(HERE).summary.rows_dropped == 5 - len(left)
    assert written(tmp_path / "again") == left


@pytest.mark.slow
def test_the_command_recognises_tars_of_images_by_their_names(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["dedup", "exact", str(tmp_path / "in"), str(tmp_path / "out"), "--column", "bytes", "--id-column", "key"]
    assert run_command([*words, "--run-dir", str(tmp_path / "run"), "--workers", "0", "--quiet"]) == 0
    assert written(tmp_path / "out") == ["0.tar:a", "0.tar:b", "0.tar:c", "1.tar:d"]
    assert "exact duplicate" in capsys.readouterr().out
