"""Writing: original bytes and every member survive; packing is the same whichever worker wrote first and however
often."""

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

from curator_core.errors import CuratorError, UsageError
from curator_core.model.task import FileGroupTask, FileRecord
from curator_image import CaptionToText, ImageBatch, ImagesToDocuments, ImageWriter
from curator_image.batch import tensor_column
from curator_image.reading.read import ImageRead


def picture(seed: int, kind: str = "JPEG", size: tuple[int, int] = (24, 16)) -> bytes:
    rng = np.random.default_rng(seed)
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(out, kind)
    return out.getvalue()


def source(folder: Path, name: str, keys: list[str], seed: int = 0) -> str:
    folder.mkdir(exist_ok=True)
    path = folder / name
    with tarfile.open(path, "w") as tar:
        for number, key in enumerate(keys):
            members = {"jpg": picture(seed + number), "txt": f"caption of {key}".encode(), "json": b'{"n": 1}'}
            if number % 2:
                members = {"npy": b"\x00" * number, **members}
            for ext, data in members.items():
                info = tarfile.TarInfo(f"{key}.{ext}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return str(path)


def batches(path: str, size: int = 3) -> list[ImageBatch]:
    stem = Path(path).stem
    made = list(ImageRead(images_per_batch=size).process(FileGroupTask(data=[path])))
    for number, batch in enumerate(made):
        batch.task_id = f"{stem}.{number:05d}"
    return made


def contents(path: str | Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        names = tar.getnames()
        assert len(names) == len(set(names))
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


def write(stage: ImageWriter, tasks: list[ImageBatch]) -> list[FileRecord]:
    records = []
    for task in tasks:
        done = stage.process(task)
        assert done is not None
        assert sum(record.rows for record in done.records) + len(stage.recorder.rejects) == task.num_rows
        object.__setattr__(stage, "_recorder", None)
        records += done.records
    return records


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_member_is_written_unchanged_and_in_order(tmp_path: Path) -> None:
    path = source(tmp_path / "in", "s.tar", [f"d/{n:03d}" for n in range(7)])
    stage = ImageWriter(path=str(tmp_path / "out"))
    standing = stage.finish(write(stage, batches(path)))
    assert [Path(record.path).name for record in standing] == ["00000.tar", "00000.parquet"]
    assert contents(tmp_path / "out/00000.tar") == contents(path)
    assert list(contents(tmp_path / "out/00000.tar")) == list(contents(path))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".packed.json", "00000.parquet", "00000.tar"]


def test_the_index_says_where_each_image_is_and_keeps_every_column_but_bytes_and_pixels(tmp_path: Path) -> None:
    path = source(tmp_path / "in", "s.tar", [f"{n:03d}" for n in range(5)])
    stage = ImageWriter(path=str(tmp_path / "out"), images_per_tar=2)
    tasks = []
    for task in batches(path):
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(4 * task.num_rows, np.float32)), 4)
        grown = task.append_column("score", pa.array([0.5] * task.num_rows)).append_column("embedding", vectors)
        grown = grown.append_column("pixels", tensor_column(np.zeros((task.num_rows, 2, 2, 3), np.uint8)))
        tasks.append(grown)
    standing = stage.finish(write(stage, tasks))
    tars = [record for record in standing if record.path.endswith(".tar")]
    assert [record.rows for record in tars] == [2, 2, 1]
    originals = {row["key"]: row for task in batches(path) for row in task.to_pyarrow().to_pylist()}
    seen = []
    for record in tars:
        data = Path(record.path).read_bytes()
        index = pq.read_table(record.path.replace(".tar", ".parquet"))
        assert not {"bytes", "pixels", "_sample_start", "_sample_end"} & set(index.column_names)
        assert index.schema.field("embedding").type == pa.list_(pa.float32(), 4)
        for row in index.to_pylist():
            assert row["shard"] == Path(record.path).name
            assert row["source_shard"] == path
            assert row["member"] == f"{row['key']}.jpg"
            assert data[row["offset"] : row["offset"] + row["length"]] == originals[row["key"]]["bytes"]
            assert (row["score"], row["caption"]) == (0.5, f"caption of {row['key']}")
            seen.append(row["key"])
    assert seen == list(originals)


def test_the_index_describes_the_images_that_were_encoded_again(tmp_path: Path) -> None:
    path = source(tmp_path / "in", "s.tar", [f"{n:03d}" for n in range(4)])
    stage = ImageWriter(
        path=str(tmp_path / "out"), reencode="webp", max_side=12, sidecars={"score.txt": "score", "npy": "npy"}
    )
    tasks = [task.append_column("score", pa.array([0.5] * task.num_rows)) for task in batches(path)]
    stage.finish(write(stage, tasks))
    index = pq.read_table(tmp_path / "out/00000.parquet").to_pylist()
    again = [row for task in batches(str(tmp_path / "out/00000.tar")) for row in task.to_pyarrow().to_pylist()]
    facts = ("key", "ext", "format", "width", "height", "members", "caption", "json")
    assert [[row[name] for name in facts] for row in index] == [[row[name] for name in facts] for row in again]
    assert {(row["format"], row["width"], row["height"]) for row in index} == {("webp", 12, 8)}
    assert index[1]["members"] == ["npy", "webp", "txt", "json", "score.txt"]


def test_the_index_does_not_repeat_binary_members(tmp_path: Path) -> None:
    path = source(tmp_path / "in", "s.tar", [f"{n:03d}" for n in range(4)])
    stage = ImageWriter(path=str(tmp_path / "out"), sidecars={"emb": "vector"})
    tasks = [
        task.append_column("vector", pa.array([b"v"] * task.num_rows)).append_column(
            "digest", pa.array([b"d"] * task.num_rows)
        )
        for task in batches(path)
    ]
    stage.finish(write(stage, tasks))
    index = pq.read_table(tmp_path / "out/00000.parquet")
    assert not {"npy", "vector"} & set(index.column_names)
    assert index.column("digest").to_pylist() == [b"d"] * 4  # which occurs nowhere else
    assert contents(tmp_path / "out/00000.tar")["001.npy"] == b"\x00"


@pytest.mark.parametrize("name", ["length", "offset", "member", "source_shard"])
def test_a_column_whose_name_the_index_needs_is_refused_and_not_lost(tmp_path: Path, name: str) -> None:
    path = source(tmp_path / "in", "s.tar", ["a"])
    (task,) = batches(path)
    with pytest.raises(UsageError, match=f"{name}.*RenameColumns"):
        ImageWriter(path=str(tmp_path / "out")).process(task.append_column(name, pa.array([1])))


def test_a_json_field_and_a_member_of_the_same_name_are_both_written(tmp_path: Path) -> None:
    members = {"jpg": picture(1), "json": b'{"cls": "from json"}', "cls": b"7"}
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for ext, data in members.items():
            info = tarfile.TarInfo(f"a.{ext}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (task,) = ImageRead(json_fields=["cls"]).process(FileGroupTask(data=[str(tmp_path / "s.tar")]))
    (row,) = task.to_pyarrow().to_pylist()
    assert (row["cls"], row["member_cls"]) == ("from json", "7")
    stage = ImageWriter(path=str(tmp_path / "out"))
    stage.finish(write(stage, [task]))
    assert contents(tmp_path / "out/00000.tar") == {f"a.{ext}": data for ext, data in members.items()}


def test_written_rows_are_read_back_unchanged(tmp_path: Path) -> None:
    path = source(tmp_path / "in", "s.tar", [f"{n:03d}" for n in range(6)])
    stage = ImageWriter(path=str(tmp_path / "out"), images_per_tar=4)
    stage.finish(write(stage, batches(path)))
    again = [
        row for tar in sorted((tmp_path / "out").glob("*.tar")) for b in batches(str(tar)) for row in b.data.to_pylist()
    ]
    before = [row for b in batches(path) for row in b.data.to_pylist()]
    for row in (*again, *before):
        row.pop("shard")
    assert again == before


def test_a_tar_is_closed_before_it_exceeds_its_limit_of_bytes(tmp_path: Path) -> None:
    path = source(tmp_path / "in", "s.tar", [f"{n:03d}" for n in range(9)])
    stage = ImageWriter(path=str(tmp_path / "out"), bytes_per_tar=12_000)
    standing = stage.finish(write(stage, batches(path)))
    sizes = [record.bytes for record in standing if record.path.endswith(".tar")]
    assert len(sizes) > 2
    assert max(sizes) <= 12_000
    assert sum(record.rows for record in standing) == 9


@pytest.mark.slow
def test_packing_depends_on_lineage_alone_and_can_be_repeated(tmp_path: Path) -> None:
    paths = [source(tmp_path / "in", f"{name}.tar", [f"{name}{n}" for n in range(7)], ord(name)) for name in "ab"]
    trees = []
    for run, order in enumerate((1, -1)):
        out = tmp_path / f"out{run}"
        stage = ImageWriter(path=str(out), images_per_tar=5)
        tasks = [task for path in paths for task in batches(path)][::order]
        records = sorted(write(stage, tasks), key=lambda record: record.path)
        first = stage.finish(records)
        trees.append(tree(out))
        assert ImageWriter(path=str(out), images_per_tar=5).finish(records) == first
        assert tree(out) == trees[-1]
    assert trees[0] == trees[1]


@pytest.mark.slow
def test_an_interrupted_packing_pass_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curator_core import storage

    path = source(tmp_path / "in", "s.tar", [f"{n:03d}" for n in range(10)])
    clean = ImageWriter(path=str(tmp_path / "clean"), images_per_tar=4)
    clean.finish(write(clean, batches(path)))
    expected = tree(tmp_path / "clean")

    class Cut(BaseException):
        pass

    calls = 0
    while True:
        out = tmp_path / f"cut{calls}"
        stage = ImageWriter(path=str(out), images_per_tar=4)
        records = write(stage, batches(path))
        left = calls
        commit, remove = storage.AtomicFile.commit, storage.remove

        def counted(real: Any) -> Any:
            def call(*arguments: Any) -> Any:
                nonlocal left
                if left == 0:
                    raise Cut
                left -= 1
                return real(*arguments)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(storage.AtomicFile, "commit", counted(commit))
            patch.setattr(storage, "remove", counted(remove))
            try:
                stage.finish(records)
            except Cut:
                done = False
            else:
                done = True
        if done:
            break
        again = ImageWriter(path=str(out), images_per_tar=4)
        standing = again.finish(records)
        assert tree(out) == expected
        assert sum(record.rows for record in standing) == 10
        calls += 1
    assert calls > 6


def test_new_sources_go_into_tars_after_the_existing_ones(tmp_path: Path) -> None:
    first, second = (source(tmp_path / "in", f"{name}.tar", [f"{name}{n}" for n in range(4)]) for name in "ab")
    stage = ImageWriter(path=str(tmp_path / "out"), images_per_tar=3)
    early = write(stage, batches(first))
    stage.finish(early)
    before = tree(tmp_path / "out")
    standing = stage.finish([*early, *write(stage, batches(second))])
    assert [(Path(r.path).name, r.rows) for r in standing if r.rows] == [
        ("00000.tar", 3),
        ("00001.tar", 1),
        ("00002.tar", 3),
        ("00003.tar", 1),
    ]
    after = tree(tmp_path / "out")
    assert all(after[name] == data for name, data in before.items() if name != ".packed.json")


def test_parts_that_are_missing_before_packing_are_an_error(tmp_path: Path) -> None:
    stage = ImageWriter(path=str(tmp_path / "out"))
    records = write(stage, batches(source(tmp_path / "in", "s.tar", ["a", "b"])))
    Path(records[0].path).unlink()
    with pytest.raises(CuratorError, match="gone"):
        stage.finish(records)


def test_equal_keys_of_different_shards_are_prefixed_with_the_shard(tmp_path: Path) -> None:
    paths = [source(tmp_path / "in", f"{name}.tar", ["000", "001"], ord(name)) for name in "ab"]
    stage = ImageWriter(path=str(tmp_path / "out"))
    stage.finish(write(stage, [task for path in paths for task in batches(path)]))
    packed = contents(tmp_path / "out/00000.tar")
    assert [name for name in packed if name.endswith(".jpg")] == ["000.jpg", "001.jpg", "b/000.jpg", "b/001.jpg"]
    index = pq.read_table(tmp_path / "out/00000.parquet")
    assert index.column("key").to_pylist() == ["000", "001", "000", "001"]
    assert packed["b/001.jpg"] == contents(paths[1])["001.jpg"]
    data = (tmp_path / "out/00000.tar").read_bytes()
    for row in index.to_pylist():
        assert data[row["offset"] : row["offset"] + row["length"]] == packed[row["member"]]


def test_schemas_that_grow_from_task_to_task_are_unified_in_the_index(tmp_path: Path) -> None:
    one, two = batches(source(tmp_path / "in", "s.tar", [f"{n}" for n in range(6)]))
    two = two.append_column("late", pa.array([1.5, 2.5, 3.5]))
    stage = ImageWriter(path=str(tmp_path / "out"))
    stage.finish(write(stage, [one, two]))
    assert pq.read_table(tmp_path / "out/00000.parquet").column("late").to_pylist() == [None, None, None, 1.5, 2.5, 3.5]


def test_rows_that_cannot_be_written_as_a_sample_are_reported(tmp_path: Path) -> None:
    rows = {"key": ["../up", "", None, "a.b", "fine"], "bytes": [picture(n) for n in range(5)]}
    task = ImageBatch(data=pa.table(rows), task_id="t")
    stage = ImageWriter(path=str(tmp_path))
    done = stage.process(task)
    assert done is not None
    assert len(stage.recorder.rejects) == 3
    assert list(contents(done.data[0])) == ["a_b.jpg", "fine.jpg"]
    assert done.records[0].rows == 2
    assert not list(tmp_path.parent.glob("up*"))


def test_chosen_columns_become_members_and_changed_captions_are_written(tmp_path: Path) -> None:
    (task,) = batches(source(tmp_path / "in", "s.tar", ["a", "b"]))
    task = task.append_column("caption", pa.array(["anew", "anew too"])).append_column("score", pa.array([0.5, None]))
    stage = ImageWriter(path=str(tmp_path / "out"), sidecars={"score.txt": "score"})
    stage.finish(write(stage, [task]))
    packed = contents(tmp_path / "out/00000.tar")
    assert (packed["a.txt"], packed["b.txt"], packed["a.score.txt"]) == (b"anew", b"anew too", b"0.5")
    assert "b.score.txt" not in packed


def test_images_are_encoded_again_only_if_asked(tmp_path: Path) -> None:
    rows = {"key": ["a", "b"], "ext": ["png", "png"], "bytes": [picture(1, "PNG", (64, 32)), b"junk"]}
    stage = ImageWriter(path=str(tmp_path), reencode="webp", quality=80, max_side=16)
    done = stage.process(ImageBatch(data=pa.table(rows), task_id="t"))
    assert done is not None
    (name, data), *rest = contents(done.data[0]).items()
    assert not rest
    with Image.open(io.BytesIO(data)) as image:
        assert (name, image.format, image.size) == ("a.webp", "WEBP", (16, 8))
    assert [reject.position for reject in stage.recorder.rejects] == ["b"]
    assert pq.read_table(done.data[1]).column("ext").to_pylist() == ["webp"]


def test_wrong_parameters_are_reported() -> None:
    for wrong in (
        {"path": ""},
        {"images_per_tar": 0},
        {"bytes_per_tar": "many"},
        {"reencode": "gif"},
        {"max_side": 10},
        {"quality": 0},
        {"sidecars": {"../x": "a"}},
    ):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            ImageWriter(**{"path": "out", **wrong})  # type: ignore[arg-type]


# Conversions ---------------------------------------------------------------------------------------------------------


def test_images_become_documents_without_their_bytes() -> None:
    task = ImageBatch(data=pa.table({"key": ["a"], "bytes": [b"1"], "caption": ["c"]}))
    done = ImagesToDocuments().process(task)
    assert type(done).__name__ == "DocumentBatch"
    assert done.column_names == ["key", "caption"]


def test_a_caption_becomes_the_text(tmp_path: Path) -> None:
    task = ImageBatch(data=pa.table({"key": ["a", "b"], "caption": ["c", None]}))
    assert CaptionToText().process(task).to_pyarrow().column("text").to_pylist() == ["c", ""]


def test_the_record_of_a_pack_is_json(tmp_path: Path) -> None:
    stage = ImageWriter(path=str(tmp_path / "out"))
    records = write(stage, batches(source(tmp_path / "in", "s.tar", ["a"])))
    standing = stage.finish(records)
    note = json.loads((tmp_path / "out/.packed.json").read_text())
    assert [entry["part"] for entry in note["parts"]] == ["s.00000.tar"]
    assert [entry["sha256"] for entry in note["files"]] == [record.sha256 for record in standing]
