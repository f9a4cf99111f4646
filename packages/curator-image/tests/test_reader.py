"""Reading: samples with their sidecars, every kind of trouble with a record, nothing lost."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curator_core.errors import UsageError
from curator_core.model.engine_facts import RayStageSpecKeys
from curator_core.model.stage import is_fanout
from curator_core.model.task import EmptyTask, FileGroupTask
from curator_image import ImageReader
from curator_image.batch import ImageBatch
from curator_image.decode import ImageDecode
from curator_image.reader import ImageRead, ImageSources


def picture(seed: int = 0, width: int = 40, height: int = 30, kind: str = "JPEG", **options: Any) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    out = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(out, kind, **options)
    return out.getvalue()


def write_tar(path: Path, entries: list[tuple[str, bytes]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def read(stage: ImageRead, *paths: str) -> tuple[list[ImageBatch], list[dict[str, Any]]]:
    batches = list(stage.process(FileGroupTask(data=list(paths))))
    return batches, [row for batch in batches for row in batch.to_pyarrow().to_pylist()]


def rejects(stage: ImageRead) -> list[tuple[str, str]]:
    return [(reject.reason, reject.position) for reject in stage.recorder.rejects]


def test_the_reader_is_a_fan_out_for_every_scheduler() -> None:
    reader = ImageReader("x/*.tar")
    assert reader.ray_stage_spec()[RayStageSpecKeys.IS_FANOUT_STAGE] is True
    assert reader.ray_stage_spec()["is_fanout_stage"] is True
    assert is_fanout(reader.decompose()[1])
    assert [type(stage) for stage in reader.decompose()] == [ImageSources, ImageRead, ImageDecode]


def test_a_sample_is_a_row_with_its_original_bytes_and_all_its_members(tmp_path: Path) -> None:
    first, second = picture(1), picture(2, kind="PNG")
    facts = {"url": "http://x/1", "similarity": 0.25, "n": 3, "ok": True, "tags": ["a"]}
    path = write_tar(
        tmp_path / "s.tar",
        [
            ("d/001.jpg", first),
            ("d/001.txt", "ein Bild für dich".encode()),
            ("d/001.json", json.dumps(facts).encode()),
            ("d/001.seg.npy", b"\x00\x01"),
            ("d/002.cls", b"7"),
            ("d/002.png", second),
        ],
    )
    stage = ImageRead(json_fields={"url": "string", "similarity": "float", "n": "int", "ok": "bool", "tags": "string"})
    batches, rows = read(stage, path)
    assert all(isinstance(batch, ImageBatch) and batch.validate() for batch in batches)
    one, two = rows
    assert one["bytes"] == first
    assert (one["key"], one["shard"], one["ext"], one["format"]) == ("d/001", path, "jpg", "jpeg")
    assert (one["width"], one["height"]) == (40, 30)
    assert one["caption"] == "ein Bild für dich"
    assert json.loads(one["json"]) == facts
    assert (one["url"], one["similarity"], one["n"], one["ok"], one["tags"]) == ("http://x/1", 0.25, 3, True, '["a"]')
    assert one["seg.npy"] == b"\x00\x01"
    assert one["members"] == ["jpg", "txt", "json", "seg.npy"]
    assert (two["key"], two["ext"], two["cls"], two["caption"], two["url"]) == ("d/002", "png", "7", None, None)
    assert two["members"] == ["cls", "png"]
    assert stage.recorder.read == 2


def test_batches_close_at_a_number_of_images_or_of_bytes(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [(f"{n:03d}.jpg", picture(n)) for n in range(10)])
    assert [batch.num_rows for batch in read(ImageRead(images_per_batch=4), path)[0]] == [4, 4, 2]
    assert [batch.num_rows for batch in read(ImageRead(bytes_per_batch=1), path)[0]] == [1] * 10


def test_every_bad_image_is_listed_by_key_and_the_others_stay(tmp_path: Path) -> None:
    jpeg = picture(1, 120, 90)
    bomb = bytearray(picture(2, kind="PNG"))
    bomb[16:24] = (50_000).to_bytes(4, "big") * 2
    path = write_tar(
        tmp_path / "s.tar",
        [
            ("a.jpg", jpeg),
            ("b.jpg", b""),
            ("c.jpg", jpeg[: len(jpeg) // 2]),
            ("d.jpg", picture(3, kind="PNG")),
            ("e.png", bytes(bomb)),
            ("f.jpg", b"<html>gone</html>"),
            ("g.avif", b"\x00\x00\x00\x1cftypavif" + b"\0" * 40),
            ("h.txt", b"a caption without its picture"),
            ("i.jpg", jpeg),
        ],
    )
    stage = ImageRead()
    _, rows = read(stage, path)
    assert [row["key"] for row in rows] == ["a", "i"]
    assert rejects(stage) == [
        ("empty", "b"),
        ("truncated", "c"),
        ("wrong extension", "d"),
        ("too many pixels", "e"),
        ("not an image", "f"),
        ("unsupported format", "g"),
        ("no image", "h"),
    ]
    assert all(reject.source == path for reject in stage.recorder.rejects)
    assert stage.recorder.read == 9


def test_a_misnamed_image_is_read_where_that_is_wanted(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("d.jpg", picture(3, kind="PNG"))])
    _, rows = read(ImageRead(check_extension=False), path)
    assert [(row["ext"], row["format"]) for row in rows] == [("jpg", "png")]


def test_missing_and_repeated_keys_and_members_are_told(tmp_path: Path) -> None:
    jpeg = picture(1)
    path = write_tar(
        tmp_path / "s.tar",
        [
            (".jpg", jpeg),
            ("README", b"hello"),
            ("a.jpg", jpeg),
            ("a.jpg", picture(2)),
            ("b.jpg", jpeg),
            ("a.txt", b"too late"),
            ("../x.jpg", jpeg),
        ],
    )
    stage = ImageRead()
    _, rows = read(stage, path)
    assert [(row["key"], row["bytes"]) for row in rows] == [("a", jpeg), ("b", jpeg)]
    # The name of the last is told when it is met, before the sample that it follows is complete.
    assert sorted(rejects(stage)) == sorted(
        [
            ("missing key", ".jpg"),
            ("missing key", "README"),
            ("duplicate member", "a.jpg"),
            ("duplicate key", "a"),
            ("unsafe name", "../x.jpg"),
        ]
    )
    assert stage.recorder.read == 7


def test_broken_sidecars_cost_their_sample(tmp_path: Path) -> None:
    jpeg = picture(1)
    entries = [("a.jpg", jpeg), ("a.txt", b"caf\xe9"), ("b.jpg", jpeg), ("b.json", b"{oops"), ("c.jpg", jpeg)]
    stage = ImageRead()
    _, rows = read(stage, write_tar(tmp_path / "s.tar", entries))
    assert [row["key"] for row in rows] == ["c"]
    assert rejects(stage) == [("undecodable text", "a"), ("broken json", "b")]


def test_a_cut_tar_gives_what_is_whole_and_a_record_of_its_end(tmp_path: Path) -> None:
    path = Path(write_tar(tmp_path / "s.tar", [(f"{n}.jpg", picture(n)) for n in range(6)]))
    path.write_bytes(path.read_bytes()[:5000])
    stage = ImageRead()
    _, rows = read(stage, str(path))
    assert 0 < len(rows) < 6
    assert rejects(stage)[-1][0] == "truncated tar"
    assert stage.recorder.read == len(rows) + 1


def test_columns_that_would_be_taken_get_a_name_of_their_own(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("a.jpg", picture()), ("a.key", b"k"), ("a.caption", b"c"), ("a.txt", b"t")])
    _, (row,) = read(ImageRead(), path)
    assert (row["key"], row["member_key"], row["caption"], row["member_caption"]) == ("a", b"k", "t", "c")


def test_json_that_arrow_cannot_hold_is_null_or_replaced(tmp_path: Path) -> None:
    facts = b'{"a": "\\ud800", "b": 1e400, "c": 123456789012345678901234567890, "d": "x"}'
    path = write_tar(tmp_path / "s.tar", [("a.jpg", picture()), ("a.json", facts)])
    stage = ImageRead(json_fields={"a": "string", "b": "float", "c": "int", "d": "float"})
    _, (row,) = read(stage, path)
    assert (row["a"], row["b"], row["c"], row["d"]) == ("?", float("inf"), None, None)


def test_image_files_are_read_with_what_stands_beside_them(tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/a.jpg").write_bytes(picture(1))
    (tmp_path / "in/a.txt").write_text("first")
    (tmp_path / "in/sub/b.png").write_bytes(picture(2, kind="PNG"))
    (tmp_path / "in/sub/b.json").write_text("{}")
    (tmp_path / "in/notes.md").write_text("no image")
    sources, reader = ImageReader(str(tmp_path / "in"), decode=False).decompose()
    (task,) = sources.process(EmptyTask())
    assert len(task.data) == 2
    rows = [row for batch in reader.process(task) for row in batch.to_pyarrow().to_pylist()]
    assert [(row["key"], row["caption"], row["json"]) for row in rows] == [("a", "first", None), ("sub/b", None, "{}")]
    assert [row["members"] for row in rows] == [["jpg", "txt"], ["png", "json"]]


def test_parquet_with_bytes_is_read_row_by_row(tmp_path: Path) -> None:
    images = [picture(1), b"junk", picture(2, kind="WEBP"), None]
    table = pa.table(
        {
            "id": ["x", "y", "z", "w"],
            "image": [{"bytes": data, "path": "p"} for data in images],
            "caption": ["1", "2", None, "4"],
        }
    )
    path = str(tmp_path / "t.parquet")
    pq.write_table(table, path, row_group_size=2)
    stage = ImageRead(key_column="id")
    _, rows = read(stage, path)
    assert [(row["key"], row["format"], row["caption"], row["members"]) for row in rows] == [
        ("x", "jpeg", "1", ["jpg", "txt"]),
        ("z", "webp", None, ["webp"]),
    ]
    assert rows[0]["bytes"] == images[0]
    assert rejects(stage) == [("not an image", "y"), ("empty", "w")]
    assert stage.recorder.read == 4


def test_a_folder_that_a_writer_or_a_downloader_filled_is_read_without_its_indexes(tmp_path: Path) -> None:
    def sources(paths: str, *names: str) -> list[str]:
        for name in names:
            (tmp_path / name).touch()
        stage = ImageSources(paths=paths, extensions=[".tar", ".tar.gz", ".parquet"])
        return [Path(path).name for task in stage.process(EmptyTask()) for path in task.data]

    names = (
        "00000.parquet",
        "00000.tar",
        "a.1.status.parquet",
        "a.1.tar",
        "b.parquet",
        "c.TAR.GZ",
        "c.parquet",
        "a.2.parquet",
    )
    assert sources(str(tmp_path), *names) == ["00000.tar", "a.1.tar", "a.2.parquet", "b.parquet", "c.TAR.GZ"]
    assert sources(f"{tmp_path}/*.parquet")[0] == "00000.parquet"  # asked for by name they are read
    assert sources(f"{tmp_path}/c.parquet") == ["c.parquet"]


def test_parquet_without_a_column_of_images_is_a_wrong_parameter(tmp_path: Path) -> None:
    path = str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(UsageError, match="bytes_column"):
        read(ImageRead(), path)


def test_wrong_parameters_are_told_when_the_pipeline_is_written() -> None:
    for wrong in ({"images_per_batch": 0}, {"json_fields": "url"}, {"json_fields": {"a": "date"}}, {"mode": "x"}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            ImageReader("x.tar", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="imags_per_batch"):
        ImageReader("x.tar", imags_per_batch=3)  # type: ignore[call-arg]
