"""An image batch is a table of documents, so text filters work on captions unchanged."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("curator_text")
pytest.importorskip("curator_image")

from PIL import Image

from curator_core import LocalExecutor, Pipeline
from curator_image import CaptionToText, ImageReader, ImagesToDocuments, ImageWriter, ResolutionFilter
from curator_text import JsonlWriter
from curator_text.filters import NonAlphaNumericFilter, WordCountFilter

CAPTIONS = {
    "a": "a red house on a green hill",
    "b": "house",
    "c": "!!! ??? ### $$$ %%% &&&",
    "d": "two boats on a quiet lake in autumn",
    "e": None,
}


@pytest.fixture
def shard(tmp_path: Path) -> str:
    path = tmp_path / "in.tar"
    with tarfile.open(path, "w") as tar:
        for number, (key, caption) in enumerate(CAPTIONS.items()):
            out = io.BytesIO()
            Image.new("RGB", (64, 48), (40 * number, 90, 120)).save(out, "JPEG")
            members = {"jpg": out.getvalue()}
            if caption is not None:
                members["txt"] = caption.encode()
            for ext, data in members.items():
                info = tarfile.TarInfo(f"{key}.{ext}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return str(path)


def test_text_filters_keep_images_by_their_captions(shard: str, tmp_path: Path) -> None:
    result = Pipeline(
        [
            ImageReader(shard),
            ResolutionFilter(min_width=32),
            WordCountFilter(3, 100, column="caption", score_column="words"),
            NonAlphaNumericFilter(0.25, column="caption"),
            ImageWriter(path=str(tmp_path / "out")),
        ]
    ).run(LocalExecutor(workers=0))
    index = pq.read_table(tmp_path / "out/00000.parquet")
    assert index.column("key").to_pylist() == ["a", "d"]
    assert index.column("words").to_pylist() == [7, 8]
    with tarfile.open(tmp_path / "out/00000.tar") as tar:
        assert tar.getnames() == ["a.jpg", "a.txt", "d.jpg", "d.txt"]
    dropped = {stage.name: stage.rows_dropped for stage in result.summary.stages if stage.rows_dropped}
    assert dropped == {"WordCountFilter": 2, "NonAlphaNumericFilter": 1}


def test_captions_can_be_processed_further_as_documents(shard: str, tmp_path: Path) -> None:
    Pipeline(
        [
            ImageReader(shard),
            CaptionToText(),
            ImagesToDocuments(),
            WordCountFilter(3, 100),
            JsonlWriter(path=str(tmp_path / "out")),
        ]
    ).run(LocalExecutor(workers=0))
    (written,) = (tmp_path / "out").glob("*.jsonl")
    text = written.read_text()
    assert [text.count(word) for word in ('"key":"a"', '"key":"c"', '"key":"d"', "bytes")] == [1, 1, 1, 0]
