"""Reading: samples with their sidecars, every kind of damage with a record, nothing lost."""

from __future__ import annotations

import gzip
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
from curator_image.decode.probe import probe
from curator_image.reading.read import ImageRead
from curator_image.reading.sources import ImageSources


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
            ("g.jp2", b"\x00\x00\x00\x0cjP  \r\n\x87\n" + b"\0" * 40),
            ("h.txt", b"a caption without its picture"),
            ("i.jpg", jpeg),
        ],
    )
    stage = ImageRead(reject_odd=["wrong extension"])
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


def test_a_misnamed_image_is_read_and_marked_as_odd(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("d.jpg", picture(3, kind="PNG")), ("e.png", picture(3, kind="PNG"))])
    stage = ImageRead()
    _, rows = read(stage, path)
    assert [(row["ext"], row["format"], row["odd"]) for row in rows] == [
        ("jpg", "png", "wrong extension"),
        ("png", "png", None),
    ]
    assert not stage.recorder.rejects


def test_missing_and_repeated_keys_and_members_are_recorded(tmp_path: Path) -> None:
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
    # The name of the last member is reported where it is found, before the previous sample is complete.
    assert sorted(rejects(stage)) == sorted(
        [
            ("missing key", ".jpg"),
            ("missing key", "README"),
            ("duplicate member", "a.jpg"),
            ("duplicate key", "a"),
            ("unsafe name", "../x.jpg"),
        ]
    )
    # A README is never a row, but it is still recorded.
    assert stage.recorder.read == 6


ODD_SAMPLES = [
    ("a.jpg", "café".encode("latin-1"), "txt", "café", "text not UTF-8"),
    ("b.jpg", "\ufeffcafé".encode(), "txt", "café", "byte order mark"),
    ("c.jpg", "\ufeffcafé".encode("utf-16-le"), "txt", "café", "byte order mark"),
    ("d.jpg", "\ufeffcafé".encode("utf-16-be"), "txt", "café", "byte order mark"),
    ("e.jpg", b"\x93hi\x94 \x81", "txt", "\u201chi\u201d \x81", "text not UTF-8"),
    ("f.jpg", b"{oops", "json", "{oops", "broken json"),
    ("g.jpg", '\ufeff{"n": 3}'.encode(), "json", '{"n": 3}', "byte order mark"),
    ("h.jpg", b"{oops\xe9", "json", "{oops\xe9", "text not UTF-8, broken json"),
    ("i.jpg", b"fine", "txt", "fine", None),
]


def test_an_odd_sidecar_costs_no_picture_and_is_marked(tmp_path: Path) -> None:
    jpeg = picture(1)
    entries = [
        item
        for name, data, ext, *_ in ODD_SAMPLES
        for item in ((name, jpeg), (f"{name.partition('.')[0]}.{ext}", data))
    ]
    stage = ImageRead(json_fields={"n": "int"})
    _, rows = read(stage, write_tar(tmp_path / "s.tar", entries))
    assert not stage.recorder.rejects
    got = [(f"{row['key']}.jpg", row["caption"] or row["json"], row["odd"]) for row in rows]
    assert got == [(name, text, odd) for name, _, _, text, odd in ODD_SAMPLES]
    assert [row["n"] for row in rows if row["key"] == "g"] == [3]


def test_odd_samples_are_rejected_if_the_user_chooses_this(tmp_path: Path) -> None:
    entries = [
        ("a.jpg", picture()),
        ("a.txt", b"caf\xe9"),
        ("b.jpg", picture()),
        ("b.json", b"{oops"),
        ("c.jpg", picture()),
    ]
    stage = ImageRead(reject_odd=["text not UTF-8", "broken json"])
    _, rows = read(stage, write_tar(tmp_path / "s.tar", entries))
    assert [row["key"] for row in rows] == ["c"]
    assert rejects(stage) == [("text not UTF-8", "a"), ("broken json", "b")]


def test_a_truncated_tar_gives_its_complete_samples_and_a_record_of_its_end(tmp_path: Path) -> None:
    path = Path(write_tar(tmp_path / "s.tar", [(f"{n}.jpg", picture(n)) for n in range(6)]))
    path.write_bytes(path.read_bytes()[:5000])
    stage = ImageRead()
    _, rows = read(stage, str(path))
    assert 0 < len(rows) < 6
    assert rejects(stage)[-1][0] == "truncated tar"
    assert stage.recorder.read == len(rows) + 1


def test_columns_with_names_that_are_taken_get_other_names(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("a.jpg", picture()), ("a.key", b"k"), ("a.caption", b"c"), ("a.txt", b"t")])
    _, (row,) = read(ImageRead(), path)
    assert (row["key"], row["member_key"], row["caption"], row["member_caption"]) == ("a", b"k", "t", "c")


def test_json_that_arrow_cannot_hold_is_null_or_replaced(tmp_path: Path) -> None:
    facts = b'{"a": "\\ud800", "b": 1e400, "c": 123456789012345678901234567890, "d": "x"}'
    path = write_tar(tmp_path / "s.tar", [("a.jpg", picture()), ("a.json", facts)])
    stage = ImageRead(json_fields={"a": "string", "b": "float", "c": "int", "d": "float"})
    _, (row,) = read(stage, path)
    assert (row["a"], row["b"], row["c"], row["d"]) == ("?", float("inf"), None, None)


def test_image_files_are_read_with_their_sidecars(tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/a.jpg").write_bytes(picture(1))
    (tmp_path / "in/a.txt").write_text("first")
    (tmp_path / "in/sub/b.png").write_bytes(picture(2, kind="PNG"))
    (tmp_path / "in/sub/b.json").write_text("{}")
    (tmp_path / "in/notes.md").write_text("no image")
    sources, reader = ImageReader(str(tmp_path / "in"), decode=False).decompose()
    (task,) = sources.process(EmptyTask())
    rows = [row for batch in reader.process(task) for row in batch.to_pyarrow().to_pylist()]
    assert [(row["key"], row["caption"], row["json"]) for row in rows] == [("a", "first", None), ("sub/b", None, "{}")]
    assert [row["members"] for row in rows] == [["jpg", "txt"], ["png", "json"]]
    assert rejects(reader) == [("no image", "notes.md")]
    assert reader.recorder.read == 2


def in_a_folder(folder: Path, **options: Any) -> tuple[list[dict[str, Any]], ImageRead]:
    sources, reader = ImageReader(str(folder), decode=False, **options).decompose()
    assert isinstance(reader, ImageRead)
    tasks = list(sources.process(EmptyTask()))
    return [row for task in tasks for batch in reader.process(task) for row in batch.to_pyarrow().to_pylist()], reader


ODD_FILES = {
    "a.jpg": picture(1),
    "b.avif": picture(2, kind="AVIF"),
    "c.jp2": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + b"\0" * 40,
    "d.ppm": b"P6\n1 1 255\nabc",
    "e": picture(5),
    "f.bin": picture(6, kind="PNG"),
    "g.svg": b"<svg/>",
    "h.txt": b"a caption without its picture",
    "README": b"about these",
    "i.jpg": b"",
}


def test_a_folder_and_a_tar_of_the_same_files_have_the_same_accounts(tmp_path: Path) -> None:
    for name, data in ODD_FILES.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    rows, folder = in_a_folder(tmp_path / "in")
    tar = ImageRead()
    _, others = read(tar, write_tar(tmp_path / "s.tar", list(ODD_FILES.items())))
    facts = [(row["key"], row["ext"], row["format"], row["bytes"]) for row in others]
    assert sorted((row["key"], row["ext"], row["format"], row["bytes"]) for row in rows) == sorted(facts)
    assert [key for key, *_ in facts] == ["a", "b", "e", "f"]
    assert [(row["key"], row["ext"]) for row in others if row["key"] in "ef"] == [("e", "jpg"), ("f", "bin")]
    assert folder.recorder.read == tar.recorder.read == 9  # all but the README
    assert {Path(position).stem: reason for reason, position in rejects(folder)} == {
        "c": "unsupported format",
        "d": "unsupported format",
        "g": "unsupported format",
        "h": "no image",
        "README": "no image",
        "i": "empty",
    }
    both = {position: reason for reason, position in rejects(tar)}
    assert both.pop("README") == "missing key"
    assert both == {Path(p).stem: r for r, p in rejects(folder) if p != "README"}


def test_the_key_of_a_file_in_a_folder_is_its_name_up_to_the_last_dot(tmp_path: Path) -> None:
    (tmp_path / "photo.v2.jpg").write_bytes(picture(1))
    (tmp_path / "photo.v2.txt").write_text("the second")
    (tmp_path / "photo.v3.JPG").write_bytes(picture(2))
    (tmp_path / "photo.v3.TXT").write_text("the third")
    rows, stage = in_a_folder(tmp_path)
    assert [(row["key"], row["ext"], row["caption"]) for row in rows] == [
        ("photo.v2", "jpg", "the second"),
        ("photo.v3", "JPG", "the third"),
    ]
    assert not stage.recorder.rejects


def test_files_that_belong_to_a_picture_or_a_tar_are_not_separate_sources(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.txt", "a.seg.npy", "00000.tar", "00000.parquet", "00000_stats.json", "b.md", "c.tar.bz2"):
        (tmp_path / name).touch()
    (task,) = [t for t in ImageSources(paths=str(tmp_path)).process(EmptyTask()) if len(t.data) > 1]
    assert [Path(path).name for path in task.data] == ["a.jpg", "b.md", "c.tar.bz2"]
    rows, stage = in_a_folder(tmp_path)
    assert not rows
    assert ("unsupported format", "c.tar.bz2") in rejects(stage)


def test_a_changed_caption_changes_the_source_of_its_picture(tmp_path: Path) -> None:
    def generation() -> str:
        (task,) = ImageSources(paths=str(tmp_path)).process(EmptyTask())
        return task._generation

    (tmp_path / "a.jpg").write_bytes(picture(1))
    alone = generation()
    (tmp_path / "a.txt").write_text("one")
    first = generation()
    (tmp_path / "a.txt").write_text("another")
    assert len({alone, first, generation()}) == 3


def test_a_sidecar_that_is_too_large_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture(1))
    (tmp_path / "a.txt").write_bytes(b"x" * 20_000)
    rows, stage = in_a_folder(tmp_path, max_member_bytes=10_000)
    assert [row["caption"] for row in rows] == [None]
    assert [reason for reason, _ in rejects(stage)] == ["member too large"]


def test_a_mixed_folder_is_read_in_few_tasks(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("x.jpg", picture())])
    for number in range(300):
        (tmp_path / f"b{number}.jpg").touch()
    assert sorted(len(task.data) for task in ImageSources(paths=str(tmp_path)).process(EmptyTask())) == [1, 44, 256]


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


def test_json_fields_are_also_filled_from_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "bytes": [picture(1), picture(2), picture(3)],
            "json": ['{"n": 1, "url": "in json"}', "{oops", None],
            "url": ["u1", "u2", "u3"],
            "score": [1, 2, 3],
        }
    )
    path = str(tmp_path / "t.parquet")
    pq.write_table(table, path)
    fields = {"n": "int", "url": "string", "score": "float", "none": "bool"}
    tar = write_tar(tmp_path / "s.tar", [("a.jpg", picture(4)), ("a.json", b'{"n": 9, "score": 0.5}')])
    batches, rows = read(ImageRead(json_fields=fields), path, tar)
    assert [(row["n"], row["url"], row["score"], row["none"]) for row in rows] == [
        (1, "u1", 1.0, None),
        (None, "u2", 2.0, None),
        (None, "u3", 3.0, None),
        (9, None, 0.5, None),
    ]
    first, second = (batch.to_pyarrow().schema for batch in batches)
    assert all(first.field(name).type == second.field(name).type for name in fields)
    assert rows[0]["members"] == ["jpg", "json"]


@pytest.mark.slow
def test_json_in_parquet_is_odd_only_if_it_is_broken(tmp_path: Path) -> None:
    texts = ['{"a": 1}', "{broken", None, "7"]
    table = pa.table({"key": list("abcd"), "image": [picture(seed) for seed in range(4)], "json": texts})
    pq.write_table(table, tmp_path / "a.parquet")
    (batch,), _ = read(ImageRead(), str(tmp_path / "a.parquet"))
    rows = batch.to_pyarrow().to_pylist()
    assert [row["odd"] for row in rows] == [None, "broken json", None, None]
    assert [row["json"] for row in rows] == texts
    structs = table.set_column(2, "json", pa.array([{"a": 1}] * 4))
    pq.write_table(structs, tmp_path / "b.parquet")
    _, rows = read(ImageRead(reject_odd=["broken json"]), str(tmp_path / "b.parquet"))
    assert [row["odd"] for row in rows] == [None] * 4


@pytest.mark.slow
def test_parquet_with_a_broken_footer_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"bytes": [picture()], "a column with a long name": [1]}), path)
    data = path.read_bytes()
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    broken = 0
    for at in range(end, len(data), 3):
        path.write_bytes(data[:at] + b"\xa4\x00\xff"[: len(data) - at] + data[at + 3 :])
        stage = ImageRead()
        try:
            _, rows = read(stage, str(path))
        except UsageError:  # the columns have other names now
            continue
        assert stage.recorder.read == len(rows) + sum(reject.rows for reject in stage.recorder.rejects)
        broken += bool(stage.recorder.rejects)
    assert broken > 10


def test_text_in_parquet_that_is_not_utf8_costs_no_picture(tmp_path: Path) -> None:
    captions = pa.array(["caf\xe9".encode("latin-1"), b"fine", None], pa.binary()).view(pa.string())
    path = str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"bytes": [picture(n) for n in range(3)], "caption": captions, "key": captions}), path)
    stage = ImageRead()
    _, rows = read(stage, path)
    assert [(row["key"], row["caption"], row["odd"]) for row in rows] == [
        ("caf\xe9", "caf\xe9", "text not UTF-8"),
        ("fine", "fine", None),
        ("000000002", None, None),
    ]
    strict = ImageRead(reject_odd=["text not UTF-8"])
    assert [row["key"] for row in read(strict, path)[1]] == ["fine", "000000002"]


def test_a_parquet_column_with_one_of_our_names_is_kept(tmp_path: Path) -> None:
    table = pa.table({"image": [picture(1)], "bytes": [12], "format": ["A4"], "shard": ["s"], "odd": [True]})
    path = str(tmp_path / "t.parquet")
    pq.write_table(table, path)
    _, (row,) = read(ImageRead(), path)
    kept = [row[f"parquet_{name}"] for name in ("bytes", "format", "shard", "odd")]
    assert (kept, row["format"]) == ([12, "A4", "s", True], "jpeg")


def test_large_images_in_parquet_make_small_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8))
    out = io.BytesIO()
    noise.save(out, "PNG")
    path = str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"bytes": [out.getvalue()] * 20}), path)
    stage = ImageRead(bytes_per_batch=1 << 20)
    batches, _ = read(stage, path)
    assert max(batch.to_pyarrow().nbytes for batch in batches) < 1_600_000
    assert sum(batch.num_rows for batch in batches) == 20
    small = ImageRead(max_member_bytes=1000)
    assert read(small, path)[1] == []
    assert rejects(small) == [("member too large", f"{row:09d}") for row in range(20)]


@pytest.mark.parametrize(
    ("options", "message"), [({"key_column": "no"}, "key_column"), ({"bytes_column": "id"}, "binary")]
)
def test_a_column_that_cannot_have_its_role_is_a_wrong_parameter(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    path = str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"bytes": [picture()], "id": ["x"]}), path)
    with pytest.raises(UsageError, match=message):
        read(ImageRead(**options), path)  # type: ignore[arg-type]


def test_a_folder_from_a_writer_or_a_downloader_is_read_without_its_indexes(tmp_path: Path) -> None:
    def sources(paths: str, *names: str) -> list[str]:
        for name in names:
            (tmp_path / name).touch()
        stage = ImageSources(paths=paths)
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
    assert sources(f"{tmp_path}/*.parquet")[0] == "00000.parquet"  # explicitly named ones are read
    assert sources(f"{tmp_path}/c.parquet") == ["c.parquet"]


def test_parquet_without_a_column_of_images_is_a_wrong_parameter(tmp_path: Path) -> None:
    path = str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(UsageError, match="bytes_column"):
        read(ImageRead(), path)


def test_wrong_parameters_are_refused_when_the_stage_is_made() -> None:
    for wrong in (
        *({"images_per_batch": 0}, {"json_fields": "url"}, {"json_fields": {"a": "date"}}, {"mode": "x"}),
        *({"grouping": "dots"}, {"reject_odd": ["bad"]}, {"max_member_bytes": 1 << 30}, {"max_members": True}),
    ):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            ImageReader("x.tar", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="imags_per_batch"):
        ImageReader("x.tar", imags_per_batch=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_an_image_is_found_by_its_key_without_reading_the_bytes_of_others(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [
        ("a.jpg", picture(1)),
        ("a.txt", b"the first"),
        ("broken.jpg", b"no picture"),
        ("b.1.jpg", picture(2)),
        ("b.2.jpg", picture(3)),
        ("b.txt", b"of both"),
        ("a.png", picture(4, kind="PNG")),  # its key is taken
        ("c.jpg", picture(5)),
    ]
    path = write_tar(tmp_path / "x.tar", entries)
    if ending != ".tar":
        (tmp_path / f"x{ending}").write_bytes(gzip.compress(Path(path).read_bytes()))
        path = str(tmp_path / f"x{ending}")
    stage = ImageRead()
    whole = [row for batch in stage.process(FileGroupTask(data=[path])) for row in batch.to_pyarrow().to_pylist()]
    assert len(whole) == 4
    probed = []
    monkeypatch.setattr(ImageRead, "_probe", lambda _, data: probed.append(data) or probe(data))
    for number, row in enumerate(whole):
        found = stage.row_of_key(path, row["key"])
        assert found is not None
        assert found[0] >= number
        assert found[1].to_pyarrow().to_pylist() == [row]
    assert probed == [row["bytes"] for row in whole]
    assert stage.row_of_key(path, "broken") is None
    assert stage.row_of_key(path, "nowhere") is None
