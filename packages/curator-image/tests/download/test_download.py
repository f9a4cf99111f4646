"""Lists of addresses become tars with a status row for every address; finished tars are not downloaded again."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("aiohttp")

from curator_core import DocumentBatch, FileGroupTask, UsageError, WorkerMetadata
from curator_core.executors.local import LocalExecutor
from curator_core.pipeline import Pipeline
from curator_image.download import ImageDownload, ImageFetch, UrlListRead

MIXED = ["ok1", "missing", "ok2", "html", "torn", "reset", "ok3", "big-picture"]
REASONS = ["ok", "http 404", "ok", "wrong type", "truncated", "connection", "ok", "ok"]


@pytest.fixture
def fetched(tmp_path: Path, quick: dict[str, Any]) -> Iterator[Any]:
    """Runs an ImageFetch over a list of addresses as one shard."""
    opened: list[ImageFetch] = []

    def run(urls: list[str | None], **parameters: Any) -> tuple[Any, ImageFetch]:
        columns = parameters.pop("columns", {})
        stage = ImageFetch(path=str(tmp_path / "out"), **{**quick, **parameters})
        stage.setup(WorkerMetadata())
        opened.append(stage)
        table = pa.table({"url": pa.array(urls, pa.string()), **columns})
        return stage.process(DocumentBatch(data=table, task_id="list-1.00000")), stage

    yield run
    for stage in opened:
        stage.teardown()


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]


def test_every_address_has_a_status_row_and_every_image_its_sidecars(server: Any, fetched: Any, tmp_path: Path) -> None:
    captions = [f"caption {i}" if i != 2 else None for i in range(8)]
    batch, stage = fetched(
        [server.url(path) for path in MIXED],
        caption_column="text",
        columns={"text": captions, "id": list(range(8))},
    )
    status = pq.read_table(tmp_path / "out" / "list-1.00000.status.parquet").to_pylist()
    assert [row["reason"] for row in status] == REASONS
    assert [row["key"] for row in status] == [f"list-1_00000_{i:05d}" for i in range(8)]
    assert status[0]["width"], status[0]["height"] == (40, 30)
    assert status[1]["http_status"] == 404
    stored = members(tmp_path / "out" / "list-1.00000.tar")
    assert list(stored)[:3] == [f"list-1_00000_00000.{ext}" for ext in ("jpg", "txt", "json")]
    assert "list-1_00000_00002.txt" not in stored
    assert stored["list-1_00000_00006.txt"] == b"caption 6"
    about = json.loads(stored["list-1_00000_00000.json"])
    assert about["id"] == 0
    assert about["sha256"] == hashlib.sha256(stored["list-1_00000_00000.jpg"]).hexdigest() == status[0]["sha256"]
    table = batch.to_pyarrow()
    assert table["id"].to_pylist() == [0, 2, 6, 7]
    assert table["bytes"].to_pylist()[0] == stored["list-1_00000_00000.jpg"]
    assert table["members"].to_pylist()[:2] == [["jpg", "txt", "json"], ["jpg", "json"]]
    assert stage.recorder.dropped == {"http 404": 1, "wrong type": 1, "truncated": 1, "connection": 1}
    assert [record.rows for record in stage.recorder.outputs] == [4, 0]


def test_columns_of_the_list_are_not_replaced_by_those_that_a_download_adds(
    server: Any, fetched: Any, tmp_path: Path
) -> None:
    columns = {"width": [1024], "key": ["mine"], "sha256": ["?"], "caption": ["other"], "text": ["a cat"]}
    batch, _ = fetched([server.url("ok1")], caption_column="text", columns=columns)
    (row,) = batch.to_pyarrow().drop_columns(["bytes"]).to_pylist()
    assert (row["list_width"], row["list_key"], row["list_sha256"], row["list_caption"]) == (1024, "mine", "?", "other")
    assert (row["width"], row["key"], row["caption"], row["text"]) == (40, "list-1_00000_00000", "a cat", "a cat")
    about = json.loads(members(tmp_path / "out" / "list-1.00000.tar")["list-1_00000_00000.json"])
    assert (about["width"], about["list_width"], about["list_key"]) == (40, 1024, "mine")
    with pytest.raises(UsageError, match="two columns that would be called 'list_width'"):
        fetched([server.url("ok1")], columns={"width": [1], "list_width": [2]})


def test_a_finished_shard_is_not_downloaded_again(server: Any, fetched: Any, tmp_path: Path) -> None:
    urls = [server.url(path) for path in MIXED]
    first, stage = fetched(urls)
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    asked = sum(server.seen.values())
    second, again = fetched(urls)
    assert sum(server.seen.values()) == asked
    assert second.to_pyarrow().equals(first.to_pyarrow())
    assert again.recorder.dropped == stage.recorder.dropped
    assert again.recorder.outputs == stage.recorder.outputs
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files


def test_a_changed_list_is_downloaded_again(server: Any, fetched: Any) -> None:
    fetched([server.url("ok1")])
    fetched([server.url("ok2")])
    assert server.seen == {"/ok1": 1, "/ok2": 1}
    fetched([server.url("ok2")], reencode="png")
    assert server.seen["/ok2"] == 2


def test_a_tar_that_does_not_match_its_status_is_made_again(server: Any, fetched: Any, tmp_path: Path) -> None:
    fetched([server.url("ok1")])
    tar = tmp_path / "out" / "list-1.00000.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:700])
    fetched([server.url("ok1")])
    assert server.seen["/ok1"] == 2
    assert tar.read_bytes() == whole


def test_only_temporary_failures_are_tried_again_and_only_if_asked(server: Any, fetched: Any, tmp_path: Path) -> None:
    urls = [server.url(path) for path in ("ok1", "flaky-503", "missing", "ok2")]
    fetched(urls, retries=0)
    seen = dict(server.seen)
    server.flaky_left = 0
    fetched(urls, retry_failed=True)
    assert server.seen["/flaky-503"] == seen["/flaky-503"] + 1
    assert all(server.seen[path] == seen[path] for path in ("/ok1", "/ok2", "/missing"))
    status = pq.read_table(tmp_path / "out" / "list-1.00000.status.parquet")["reason"].to_pylist()
    assert status == ["ok", "ok", "http 404", "ok"]
    assert [name for name in members(tmp_path / "out" / "list-1.00000.tar") if name.endswith("jpg")] == [
        f"list-1_00000_{i:05d}.jpg" for i in (0, 1, 3)
    ]


def test_a_missing_address_is_also_a_row(server: Any, fetched: Any) -> None:
    batch, stage = fetched([None, server.url("ok1"), ""])
    assert batch.num_rows == 1
    assert stage.recorder.dropped == {"no url": 2}


def test_a_shard_with_no_image_gives_no_batch_and_keeps_its_status(server: Any, fetched: Any, tmp_path: Path) -> None:
    batch, stage = fetched([server.url("missing")])
    assert batch is None
    assert stage.recorder.dropped == {"http 404": 1}
    assert (tmp_path / "out" / "list-1.00000.status.parquet").exists()


def test_a_different_checksum_is_detected(server: Any, fetched: Any, jpeg: Any) -> None:
    right = hashlib.md5(jpeg()).hexdigest()
    batch, stage = fetched(
        [server.url("gzip"), server.url("gzip")], checksum_column="md5", columns={"md5": [right, "0" * 32]}
    )
    assert batch.num_rows == 1
    assert stage.recorder.dropped == {"checksum differs": 1}


def test_images_are_made_smaller_if_asked(server: Any, fetched: Any, tmp_path: Path) -> None:
    from PIL import Image

    batch, _ = fetched([server.url("big-picture"), server.url("png")], reencode="webp", max_side=100)
    assert batch.to_pyarrow().select(["ext", "width", "height"]).to_pylist() == [
        {"ext": "webp", "width": 100, "height": 50},
        {"ext": "webp", "width": 40, "height": 30},
    ]
    stored = members(tmp_path / "out" / "list-1.00000.tar")
    assert Image.open(io.BytesIO(stored["list-1_00000_00000.webp"])).size == (100, 50)


def test_an_image_of_absurd_size_is_a_failure_and_is_not_decoded(server: Any, fetched: Any) -> None:
    batch, stage = fetched([server.url("bomb")], reencode="jpeg")
    assert batch is None
    assert stage.recorder.dropped == {"too many pixels": 1}


ROWS = [{"url": f"http://h/{i}", "text": f"t{i}, with a comma", "n": i} for i in range(25)]


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "tsv", "jsonl", "jsonl.gz"])
def test_lists_in_every_format_are_read_in_shards(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"list.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        mark = "\t" if kind == "tsv" else ","
        if kind.startswith("jsonl"):
            text = "".join(json.dumps(row) + "\n" for row in ROWS)
        else:
            text = mark.join(["url", "text", "n"]) + "\n"
            text += "".join(f'{row["url"]}{mark}"{row["text"]}"{mark}{row["n"]}\n' for row in ROWS)
        data = text.encode()
        path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    stage = UrlListRead(caption_column="text", urls_per_shard=10)
    batches = list(stage.process(FileGroupTask(data=[str(path)])))
    assert [batch.num_rows for batch in batches] == [10, 10, 5]
    rows = [row for batch in batches for row in batch.to_pyarrow().to_pylist()]
    assert [(row["url"], row["text"]) for row in rows] == [(row["url"], row["text"]) for row in ROWS]
    assert stage.recorder.read == 25


def test_a_plain_list_has_one_address_per_line(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("http://h/1\n\n  http://h/2  \n")
    (batch,) = UrlListRead().process(FileGroupTask(data=[str(path)]))
    assert batch.to_pyarrow()["url"].to_pylist() == ["http://h/1", "http://h/2"]


def test_broken_lines_and_rows_are_rejected_with_their_place(tmp_path: Path) -> None:
    lines, table = tmp_path / "a.jsonl", tmp_path / "b.csv"
    lines.write_bytes(b'{"url": "http://h/1"}\n{"url": \n[1]\n{"url": "http://h/2"}\n')
    table.write_text("url,text\nhttp://h/1,a\nhttp://h/2,b,too many\nhttp://h/3,c\n")
    stage = UrlListRead()
    rows = [
        row
        for batch in stage.process(FileGroupTask(data=[str(lines), str(table)]))
        for row in batch.to_pyarrow()["url"].to_pylist()
    ]
    assert rows == ["http://h/1", "http://h/2", "http://h/1", "http://h/3"]
    rejects = [(reject.reason, reject.position) for reject in stage.recorder.rejects]
    assert rejects == [("broken json", "line 2"), ("broken json", "line 3"), ("broken row", "row 3")]
    assert stage.recorder.read == 7


def test_a_missing_column_is_named_together_with_the_existing_ones(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("URL,TEXT\nhttp://h/1,a\n")
    with pytest.raises(UsageError, match="no column 'url': it has URL, TEXT"):
        list(UrlListRead().process(FileGroupTask(data=[str(path)])))


@pytest.mark.slow
def test_a_whole_download_runs_resumes_and_counts_its_results(
    server: Any, quick: dict[str, Any], tmp_path: Path
) -> None:
    rows = [{"url": server.url(MIXED[i % 8] + (f"?{i}" if MIXED[i % 8].startswith("ok") else ""))} for i in range(24)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "list.parquet")
    download = ImageDownload(
        paths=str(tmp_path / "list.parquet"), path=str(tmp_path / "out"), urls_per_shard=10, **quick
    )
    Pipeline([download], name="download").run(LocalExecutor(), run_dir=str(tmp_path / "run"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["urls"] == 24
    assert summary["downloaded"] == 12
    assert summary["by_reason"]["http 404"] == 3
    tars = sorted((tmp_path / "out").glob("*.tar"))
    assert len(tars) == 3
    asked = sum(server.seen.values())
    before = {path.name: path.read_bytes() for path in tars}
    Pipeline([download], name="download").run(LocalExecutor(), run_dir=str(tmp_path / "second"), fresh=True)
    assert sum(server.seen.values()) == asked
    assert {path.name: path.read_bytes() for path in sorted((tmp_path / "out").glob("*.tar"))} == before


def test_wrong_parameters_are_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs reencode"):
        ImageDownload(paths="a.csv", path="out", max_side=256)
    with pytest.raises(UsageError, match="1 or more"):
        ImageDownload(paths="a.csv", path="out", urls_per_shard=0)
    with pytest.raises(UsageError, match="did you mean 'per_host'"):
        ImageDownload(paths="a.csv", path="out", per_hots=3)  # type: ignore[call-arg]
