from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from curator_core.config.pipeline_file import load_pipeline
from curator_core.errors import UsageError
from curator_core.executors.local import LocalExecutor
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.task import EmptyTask, FileGroupTask
from curator_core.running.verify import verify
from curator_core.testing.loopback import loopback_only
from curator_text.download import CommonCrawlDownload, UrlDownload
from curator_text.download.stages import Fetch

pytest.importorskip("aiohttp")

BODY = bytes(range(256)) * 4000
HERE = ["127.0.0.0/8"]


@pytest.fixture(autouse=True)
def _loopback():
    with loopback_only():
        yield


class Server(ThreadingHTTPServer):
    """Misbehaves by path, and records requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []
        self.etag = '"one"'
        self.body = BODY
        self.go_on = threading.Event()

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        name = self.path.strip("/")
        server.asked.append((name, self.headers.get("Range")))
        times = sum(asked == name for asked, _ in server.asked)
        if name == "gone":
            return self.answer(404, b"no such file")
        if name == "busy" and times < 3:
            return self.answer(503, b"later")
        if name == "reset" and times < 3:
            self.connection.close()
            self.close_connection = True
            return None
        if name == "nonsense":
            self.close_connection = True
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + server.body)
            return None
        if name == "halfway":
            server.go_on.wait(60)
        if name.endswith("paths.gz"):
            return self.answer(200, gzip.compress(b"crawl-data/a.warc.gz\ncrawl-data/b.warc.gz\n"))
        body, status, headers = server.body, 200, {"ETag": server.etag}
        wanted = self.headers.get("Range")
        if name == "norange":
            wanted = None
        if wanted and self.headers.get("If-Range") == server.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body, status = body[start:], 206
        if name in ("short", "norange") and times < 3:
            return self.answer(status, body, headers, cut=len(body) // 2)
        return self.answer(status, body, headers)

    def answer(self, status, body, headers=None, cut=None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def run(stage, task):
    stage.setup(WorkerMetadata())
    try:
        return stage.process(task)
    finally:
        stage.teardown()


def fetch(server, path, *names, **params):
    stage = Fetch(path=str(path), backoff_s=0, allow_private=HERE, **params)
    return stage, run(stage, FileGroupTask(data=[server.url(name) for name in names], task_id="t"))


def test_a_file_is_fetched_completely_and_only_once(server, tmp_path):
    stage, out = fetch(server, tmp_path, "file.bin")
    (record,) = stage.recorder.outputs
    assert out.data == [str(tmp_path / "t.file.bin")]
    assert (tmp_path / "t.file.bin").read_bytes() == BODY
    assert (record.bytes, record.sha256) == (len(BODY), hashlib.sha256(BODY).hexdigest())
    stage, _ = fetch(server, tmp_path, "file.bin")
    assert stage.recorder.metrics == {"already_there": 1}
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", ["busy", "reset", "short", "norange"])
def test_a_download_from_a_misbehaving_server_is_retried_and_the_file_is_correct(server, tmp_path, name):
    stage, _ = fetch(server, tmp_path, name)
    assert (tmp_path / f"t.{name}").read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == [f"t.{name}"]
    # aiohttp itself retries once when a connection breaks
    assert stage.recorder.metrics["tried_again"] == (1 if name == "reset" else 2)
    if name == "short":
        # Half, then half of the rest, then the rest: never the same bytes twice.
        half = len(BODY) // 2
        assert [asked for _, asked in server.asked] == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]


def test_a_length_that_is_not_a_number_is_a_failure_that_says_so(server, tmp_path):
    stage, _ = fetch(server, tmp_path, "nonsense", retries=0)
    (reject,) = stage.recorder.rejects
    assert (reject.reason, "Content-Length" in reject.message) == ("connection", True)


def test_private_addresses_are_refused_unless_they_are_listed(server, tmp_path):
    stage = Fetch(path=str(tmp_path))
    assert run(stage, FileGroupTask(data=[server.url("file.bin")], task_id="t")) is None
    (reject,) = stage.recorder.rejects
    assert (reject.reason, "allow_private" in reject.message) == ("private address", True)
    source, _ = CommonCrawlDownload(snapshot="CC-MAIN-2024-10", path="x", base_url=server.url("")).decompose()
    with pytest.raises(UsageError, match="private address"):
        list(source.process(EmptyTask()))
    assert server.asked == []


def test_a_download_of_another_run_is_continued_unless_the_file_has_changed(server, tmp_path):
    stage, out = fetch(server, tmp_path, "short", retries=0)
    assert out is None
    assert [reject.reason for reject in stage.recorder.rejects] == ["cut off"]
    assert not (tmp_path / "t.short").exists()
    server.etag, server.body = '"two"', BODY[::-1]
    stage, _ = fetch(server, tmp_path, "short", retries=2)
    assert (tmp_path / "t.short").read_bytes() == BODY[::-1]


def test_two_runs_that_fetch_the_same_file_take_turns(server, tmp_path, monkeypatch):
    found, asked, both_ask = [], [], threading.Event()
    real = fcntl.flock

    def flock(file, how):
        asked.append(file)
        if len(asked) == 2:
            both_ask.set()
        return real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    runs = [threading.Thread(target=lambda: found.append(fetch(server, tmp_path, "halfway"))) for _ in range(2)]
    for run in runs:
        run.start()
    assert both_ask.wait(60)
    server.go_on.set()
    for run in runs:
        run.join()
    assert [out.data for _, out in found] == [[str(tmp_path / "t.halfway")]] * 2
    assert sum(stage.recorder.metrics.get("already_there", 0) for stage, _ in found) == 1
    assert [name for name, _ in server.asked] == ["halfway"]
    assert [path.name for path in tmp_path.iterdir()] == ["t.halfway"]
    assert (tmp_path / "t.halfway").read_bytes() == BODY


def test_downloads_also_work_on_a_file_system_without_locks(server, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    fetch(server, tmp_path, "file.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["t.file.bin"]
    assert (tmp_path / "t.file.bin").read_bytes() == BODY


def test_a_file_that_cannot_be_fetched_is_a_reject_with_its_url(server, tmp_path):
    stage, out = fetch(server, tmp_path, "gone", "file.bin")
    assert out.data == [str(tmp_path / "t.file.bin")]
    assert [(r.reason, r.source) for r in stage.recorder.rejects] == [("http 404", server.url("gone"))]
    assert sum(name == "gone" for name, _ in server.asked) == 1
    stage, _ = fetch(server, tmp_path, "other", max_bytes="1KB")
    assert [reject.reason for reject in stage.recorder.rejects] == ["too large"]
    stage = Fetch(path=str(tmp_path), backoff_s=0, retries=1, allow_private=HERE)
    run(stage, FileGroupTask(data=["http://127.0.0.1:9/x"], task_id="t"))
    assert [reject.reason for reject in stage.recorder.rejects] == ["connection"]
    assert [path.name for path in tmp_path.iterdir()] == ["t.file.bin"]


def test_common_crawl_names_its_files(server, tmp_path):
    download = CommonCrawlDownload(
        snapshot="CC-MAIN-2024-10", path=str(tmp_path), base_url=server.url(""), limit=1, allow_private=HERE
    )
    source, stage = download.decompose()
    (task,) = source.process(EmptyTask())
    assert task.data == [server.url("crawl-data/a.warc.gz")]
    assert run(stage, task).data[0].endswith(".a.warc.gz")


def test_a_pipeline_file_reads_what_it_downloads(server, tmp_path):
    server.body = gzip.compress(b'{"a": 1}\n{"a": 2}\n')
    (tmp_path / "p.yaml").write_text(
        f"""
stages:
  - UrlDownload: {{urls: ["{server.url("x.jsonl.gz")}", "{server.url("gone")}"], path: raw, backoff_s: 0, allow_private: true}}
  - JsonlRead: {{path_column: file}}
  - JsonlWriter: {{path: out, target_size: 1MB}}
"""
    )
    result = load_pipeline(tmp_path / "p.yaml").pipeline().run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    rows = [json.loads(line) for line in (tmp_path / "out" / "00000.jsonl").read_text().splitlines()]
    assert [row["a"] for row in rows] == [1, 2]
    assert {row["file"] for row in rows} == {str(path) for path in (tmp_path / "raw").glob("*.gz")}
    assert verify(result.run_dir) == []


def test_urls_come_from_a_list_or_a_file_each_once(tmp_path):
    (tmp_path / "urls.txt").write_text("http://a.org/x.gz\n\nhttp://a.org/y.gz\nhttp://a.org/x.gz\n")
    source, _ = UrlDownload(urls=str(tmp_path / "urls.txt"), path=str(tmp_path)).decompose()
    tasks = list(source.process(EmptyTask()))
    assert [task.data for task in tasks] == [["http://a.org/x.gz"], ["http://a.org/y.gz"]]
    assert len({task.task_id for task in tasks}) == 2
    source, _ = UrlDownload(urls=str(tmp_path / "url.txt"), path=str(tmp_path)).decompose()
    with pytest.raises(UsageError, match=r"did you mean 'urls\.txt'"):
        list(source.process(EmptyTask()))


def test_lines_that_are_not_urls_cost_only_themselves(server, tmp_path):
    wrong = ["file:///etc/passwd", "http://[::1/x", "http://", "www.a.org/x", "http://exa mple/", "/etc/passwd"]
    (tmp_path / "urls.txt").write_text("\ufeff" + "\n".join([*wrong, server.url("a b"), server.url("ü?q=é#x")]))
    source, stage = UrlDownload(
        urls=str(tmp_path / "urls.txt"), path=str(tmp_path / "out"), allow_private=HERE
    ).decompose()
    found = [run(stage, task) for task in source.process(EmptyTask())]
    assert [reject.source for reject in stage.recorder.rejects] == wrong
    assert {reject.reason for reject in stage.recorder.rejects} == {"bad url"}
    assert [task is not None for task in found] == [False] * len(wrong) + [True, True]
    assert [name for name, _ in server.asked] == ["a%20b", "%C3%BC?q=%C3%A9"]
    assert stage.recorder.metrics.get("tried_again", 0) == 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"urls": []}, "must be a list of URLs"),
        ({"urls": "https://a.org/x"}, r"such as \['https://a.org/x'\]"),
        ({"urls": ["file:///etc/passwd"]}, "not an http"),
        ({"urls": [5]}, "5 is not an http"),
        ({"limit": 0}, "limit must be a whole number of 1 or more"),
        ({"path": "s3://b"}, "local folder"),
        ({"retries": -1}, "retries must be a whole number of 0 or more"),
        ({"timeout_s": "5"}, "a number of seconds, not '5'"),
        ({"backoff_s": float("nan")}, "backoff_s must be 0 seconds or more, not nan"),
        ({"allow_private": "10.0.0.0/8"}, "a list of networks"),
        ({"max_bytes": "1 parsec"}, "max_bytes must be a number of bytes"),
        ({"snapshot": "2024"}, "CC-MAIN"),
        ({"snapshot": 2024}, "CC-MAIN"),
        ({"snapshot": "CC-MAIN-2024-10", "kind": "arc"}, "warc, wet or wat"),
        ({"snapshot": "CC-MAIN-2024-10", "base_url": "s3://commoncrawl/"}, "not an http"),
    ],
    ids=str,
)
def test_wrong_parameters_are_refused(params, message):
    stage = CommonCrawlDownload if "snapshot" in params else UrlDownload
    given = {"path": "x", **({} if "snapshot" in params else {"urls": ["http://a"]}), **params}
    with pytest.raises(UsageError, match=message):
        stage(**given)
