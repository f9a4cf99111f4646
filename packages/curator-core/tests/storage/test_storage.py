"""Files appear whole or not at all on every store, and errors name the remedy."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.server
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curator_core import storage
from curator_core.errors import CuratorError, MissingDependency, OutputError, UsageError
from curator_core.model.task import EmptyTask
from curator_core.stages.files import FilePartitioning
from curator_core.storage import write_atomic, write_bytes_atomic
from curator_core.storage.write import _temporary_name


@pytest.fixture(params=["local", "file_url", "memory", pytest.param("s3", marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new folder on each kind of store."""
    match request.param:
        case "local":
            return str(tmp_path)
        case "file_url":
            return f"file://{tmp_path}"
        case "memory":
            return f"memory://{uuid.uuid4().hex}"
    return f"{request.getfixturevalue('s3_bucket')}/{uuid.uuid4().hex}"


def names_in(folder: str) -> list[str]:
    return [storage.relative(path, folder) for path in storage.list_files(folder, hidden=True)]


def fail_while_writing(path: str, data: bytes) -> None:
    with write_atomic(path) as out:
        out.write(data)
        out.write(data)
        raise ZeroDivisionError


@pytest.mark.slow
def test_written_files_are_read_and_recorded(folder: str) -> None:
    path = storage.join(folder, "deep", "er", "part.bin")
    with write_atomic(path) as out:
        out.write(b"first ")
        out.write(memoryview(b"second"))
    record = out.record(rows=2)
    assert storage.read_bytes(path) == b"first second"
    assert (record.path, record.rows, record.bytes) == (path, 2, 12)
    assert record.sha256 == hashlib.sha256(b"first second").hexdigest()
    assert names_in(folder) == ["deep/er/part.bin"]


def test_a_file_is_replaced_as_a_whole(folder: str) -> None:
    path = storage.join(folder, "a")
    write_bytes_atomic(path, b"old and long")
    before = storage.fingerprint(path)
    write_bytes_atomic(path, b"new")
    assert storage.read_bytes(path) == b"new"
    assert storage.fingerprint(path) != before


@pytest.mark.slow
@pytest.mark.parametrize("size", [10, 26 << 20], ids=["small", "of several parts"])
def test_nothing_appears_when_the_writer_raises(folder: str, size: int) -> None:
    write_bytes_atomic(storage.join(folder, "kept"), b"1")
    path = storage.join(folder, "a")
    with pytest.raises(ZeroDivisionError):
        fail_while_writing(path, bytes(size))
    assert names_in(folder) == ["kept"]
    assert not storage.exists(path)


@pytest.mark.slow
def test_a_discarded_upload_leaves_no_parts_that_cost_money(s3_bucket: str) -> None:
    import s3fs

    with pytest.raises(ZeroDivisionError):
        fail_while_writing(f"{s3_bucket}/big", bytes(52 << 20))
    assert not s3fs.S3FileSystem().call_s3("list_multipart_uploads", Bucket="bucket").get("Uploads")


def test_the_old_file_stays_when_the_writer_raises(folder: str) -> None:
    path = storage.join(folder, "a")
    write_bytes_atomic(path, b"old")
    with pytest.raises(ZeroDivisionError):
        fail_while_writing(path, b"new")
    assert storage.read_bytes(path) == b"old"
    assert names_in(folder) == ["a"]


def test_a_file_that_is_forgotten_without_a_with_block_does_not_appear(folder: str) -> None:
    write_bytes_atomic(storage.join(folder, "kept"), b"1")
    out = write_atomic(storage.join(folder, "a"))
    out.write(b"half")
    del out
    assert names_in(folder) == ["kept"]


def test_a_file_has_no_record_before_it_is_complete(tmp_path: Path) -> None:
    with write_atomic(tmp_path / "a") as out, pytest.raises(UsageError, match="not committed"):
        out.record()


def test_writing_after_the_commit_is_an_error(tmp_path: Path) -> None:
    with write_atomic(tmp_path / "a") as out:
        out.write(b"1")
    with pytest.raises(ValueError, match="closed"):
        out.write(b"2")
    assert (tmp_path / "a").read_bytes() == b"1"


def test_libraries_that_close_the_file_that_they_write_work(folder: str) -> None:
    table = pa.table({"x": list(range(1000))})
    with write_atomic(storage.join(folder, "t.parquet")) as out:
        pq.write_table(table, out)
    data = storage.read_bytes(storage.join(folder, "t.parquet"))
    assert pq.read_table(pa.BufferReader(data)).equals(table)
    assert out.sha256 == hashlib.sha256(data).hexdigest()
    with write_atomic(storage.join(folder, "t.gz")) as out, gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as zipped:
        zipped.write(b"text")
    with storage.open_input(storage.join(folder, "t.gz")) as raw:
        assert gzip.decompress(raw.read()) == b"text"


def test_a_killed_writer_leaves_only_a_temporary_name(tmp_path: Path) -> None:
    code = f"""
from curator_core.stages.files import FilePartitioning
from curator_core.storage import write_atomic
import os, signal
with write_atomic({str(tmp_path / "a")!r}) as out:
    out.write(bytes(5 << 20))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    assert storage.is_temporary(left[0])
    assert storage.list_files(tmp_path) == []
    write_bytes_atomic(tmp_path / "a", b"whole")
    assert storage.list_files(tmp_path) == [str(tmp_path / "a")]


def test_law_2_a_file_and_every_new_name_on_its_path_survive_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a loss of power the disk holds what was synced: the bytes of a file, the names in a folder."""
    bytes_synced: dict[str, int] = {}  # by name, if one was given
    file_sizes: dict[tuple[int, int], int] = {}
    names_synced: dict[tuple[int, int], set[str]] = {}
    sync, replace = os.fsync, os.replace

    def identity(status: os.stat_result) -> tuple[int, int]:
        return status.st_dev, status.st_ino

    def noting_sync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            names_synced.setdefault(identity(status), set()).update(os.listdir(descriptor))
        else:
            file_sizes[identity(status)] = status.st_size
        sync(descriptor)

    def noting_replace(source: Path, target: Path) -> None:
        bytes_synced[Path(target).name] = file_sizes.get(identity(Path(source).stat()), -1)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "replace", noting_replace)
    path = tmp_path / "new" / "newer" / "file"
    for data in (b"first", b"the second is longer"):  # the same holds for a replaced file
        names_synced.pop(identity(path.parent.stat()) if path.parent.exists() else (0, 0), None)
        write_bytes_atomic(path, data)
        assert bytes_synced.pop("file") == len(data), "a name was given to bytes that a loss of power would take"
        assert "file" in names_synced.get(identity(path.parent.stat()), set()), "its name would be lost"
    for folder in (path.parent, path.parent.parent):
        above = names_synced.get(identity(folder.parent.stat()), set())
        assert folder.name in above, f"the name of the folder {folder.name!r} would be lost, with all that is in it"


def test_a_temporary_name_that_a_killed_process_left_is_not_an_obstacle(tmp_path: Path) -> None:
    number = int(_temporary_name("a").rpartition("-")[2])
    (tmp_path / f".a.tmp-{os.getpid()}-{number + 1}").write_bytes(b"left")
    write_bytes_atomic(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_the_longest_possible_name_can_be_written(tmp_path: Path) -> None:
    name = "ä" * 127
    write_bytes_atomic(tmp_path / name, b"1")
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_a_file_gets_the_mode_that_the_user_asked_for(tmp_path: Path) -> None:
    kept = os.umask(0o027)
    try:
        write_bytes_atomic(tmp_path / "a", b"1")
    finally:
        os.umask(kept)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.slow
def test_many_writers_may_be_the_first_in_a_new_folder(tmp_path: Path) -> None:
    writers, rounds = 8, 200
    gate = threading.Barrier(writers)
    errors: list[Exception] = []

    def write(number: int) -> None:
        for turn in range(rounds):
            gate.wait()
            try:
                write_bytes_atomic(tmp_path / f"{turn}/deep/{number}", b"x", durable=False)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(storage.list_files(tmp_path)) == writers * rounds


def test_a_folder_may_be_listed_written_into_and_removed_by_several_at_once(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    errors: list[Exception] = []

    def repeat(act: Callable[[], object]) -> None:
        for _ in range(400):
            try:
                act()
            except Exception as error:
                errors.append(error)
                return

    def write() -> None:
        # The file may vanish before it is complete, and so may its folder; then there is no place for it.
        with contextlib.suppress(OutputError):
            write_bytes_atomic(shared / "a/b/file", b"x", durable=False)

    acts = [write, write, *[lambda: storage.remove(shared / "a")] * 2, *[lambda: storage.list_files(shared)] * 2]
    threads = [threading.Thread(target=repeat, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_listing_is_in_natural_order_and_leaves_out_hidden_names(folder: str) -> None:
    for name in ("part-10", "part-9", "b/part-1", ".hidden", ".cache/x", "part-009"):
        write_bytes_atomic(storage.join(folder, name), b"1")
    seen = [storage.relative(path, folder) for path in storage.list_files(folder)]
    assert seen == ["b/part-1", "part-009", "part-9", "part-10"]
    flat = [storage.relative(path, folder) for path in storage.list_files(folder, recursive=False)]
    assert flat == ["part-009", "part-9", "part-10"]


def test_patterns_match_files_at_any_depth(folder: str) -> None:
    for name in ("a.txt", "b.md", "x/c.txt", "x/y/d.txt", ".hidden.txt"):
        write_bytes_atomic(storage.join(folder, name), b"1")

    def matched(pattern: str) -> list[str]:
        return [storage.relative(found.path, folder) for found in storage.match_files(storage.join(folder, pattern))]

    assert matched("*.txt") == ["a.txt"]
    assert matched("**/*.txt") == ["a.txt", "x/c.txt", "x/y/d.txt"]
    assert matched("?/*.txt") == ["x/c.txt"]
    assert matched("[ab].*") == ["a.txt", "b.md"]
    assert matched("none*") == []


def test_patterns_relative_to_the_working_folder_stay_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bytes_atomic("in/a.txt", b"1")
    write_bytes_atomic("b.txt", b"1")
    assert [found.path for found in storage.match_files("in/*.txt")] == ["in/a.txt"]
    assert [found.path for found in storage.match_files("*.txt")] == ["b.txt"]
    assert [found.path for found in storage.match_files("./*.txt")] == ["./b.txt"]
    assert [found.path for found in storage.match_files("**/*.txt")] == ["b.txt", "in/a.txt"]


def test_circular_links_do_not_hang(tmp_path: Path) -> None:
    write_bytes_atomic(tmp_path / "a" / "b" / "file", b"1")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "gone").symlink_to(tmp_path / "nowhere")
    assert storage.list_files(tmp_path) == [str(tmp_path / "a" / "b" / "file")]


def test_removing_is_repeatable(folder: str) -> None:
    path = storage.join(folder, "sub", "a")
    write_bytes_atomic(path, b"1")
    write_bytes_atomic(storage.join(folder, "b"), b"1")
    storage.remove(path)
    storage.remove(path)
    assert names_in(folder) == ["b"]
    write_bytes_atomic(path, b"1")
    storage.remove(storage.join(folder, "sub"))
    assert names_in(folder) == ["b"]


def test_moving_replaces_the_target(folder: str) -> None:
    write_bytes_atomic(storage.join(folder, "a"), b"new")
    write_bytes_atomic(storage.join(folder, "b"), b"old")
    storage.move(storage.join(folder, "a"), storage.join(folder, "b"))
    assert names_in(folder) == ["b"]
    assert storage.read_bytes(storage.join(folder, "b")) == b"new"


def test_a_folder_can_be_made_and_found(tmp_path: Path) -> None:
    storage.make_folder(tmp_path / "x" / "y")
    storage.make_folder(tmp_path / "x" / "y")
    assert storage.is_folder(tmp_path / "x" / "y")
    assert not storage.is_folder(tmp_path / "z")


@pytest.mark.slow
def test_files_of_a_web_server_can_be_read(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "a.txt").write_bytes(b"from the web")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.txt"
        found = list(FilePartitioning(paths=url).process(EmptyTask()))
        assert [task.data for task in found] == [[url]]
        assert storage.info(url).size == 12
        assert storage.read_bytes(url) == b"from the web"
        server.shutdown()


def test_names_of_paths_and_urls_are_found() -> None:
    assert storage.join("a/", "b", "c") == "a/b/c"
    assert storage.join("s3://bucket", "b") == "s3://bucket/b"
    assert storage.join("memory://", "b") == "memory://b"
    assert storage.relative("s3://bucket/a/b", "s3://bucket/a/") == "b"
    assert storage.relative("./x/y", "x") == "y"
    assert [storage.parent(path) for path in ("a", "a/b", "/a", "s3://b/x", "memory://x")] == [
        ".",
        "a",
        "/",
        "s3://b",
        "memory://",
    ]
    assert storage.file_name("s3://b/x.txt") == "x.txt"
    assert storage.is_local("/a/b:c")
    assert storage.is_local("file:///a")
    assert not storage.is_local("simplecache::s3://b/x")
    assert storage.absolute("x", "/base") == "/base/x"
    assert storage.absolute("x", "s3://b/base") == "s3://b/base/x"
    assert storage.absolute("s3://b/x", "/base") == "s3://b/x"
    with pytest.raises(UsageError, match="not inside"):
        storage.relative("s3://bucket/ab", "s3://bucket/a")


PARTS = st.lists(st.sampled_from(["a", "b.c", ".d", "..e", "...", "", ".", ".."]), max_size=5).map("/".join)


@given(PARTS, PARTS, st.sampled_from(["", "/r/", "./"]), st.booleans())
@example("/", "a", "", False)
def test_a_relative_name_equals_that_of_the_absolute_paths(
    above: str, below: str, root: str, spelled_out: bool
) -> None:
    base = f"{root}{above}" or "."
    path = f"{base}/{below}"
    expected = os.path.relpath(os.path.abspath(path), os.path.abspath(base))  # noqa: PTH100
    given_base = os.path.abspath(base) if spelled_out else base  # noqa: PTH100
    if expected.startswith("..") and expected not in ("..e", "...") and not expected.startswith(("..e/", ".../")):
        with pytest.raises(UsageError, match="not inside"):
            storage.relative(path, given_base)
    elif expected != ".":
        assert storage.relative(path, given_base) == expected


@pytest.mark.parametrize(
    ("pattern", "base"),
    [
        ("in/*.x", "in"),
        ("*.x", "."),
        ("/*.x", "/"),
        ("/a/b*/c/*.x", "/a"),
        ("s3://b/in/**/x", "s3://b/in"),
        ("memory://*.x", "memory://"),
        ("simplecache::s3://b/*.x", "simplecache::s3://b"),
    ],
)
def test_the_fixed_base_of_a_pattern_is_found(pattern: str, base: str) -> None:
    assert storage.fixed_base(pattern) == base


@given(st.lists(st.text(alphabet="ab/0123456789٣²", max_size=12)))
def test_natural_order_is_an_order_of_all_names(names: list[str]) -> None:
    ordered = sorted(set(names), key=storage.natural_key)
    ordered.reverse()
    assert sorted(ordered, key=storage.natural_key) == ordered[::-1]


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_natural_order_follows_the_numbers(left: int, right: int) -> None:
    assert (storage.natural_key(f"p-{left}.x") < storage.natural_key(f"p-{right}.x")) == (left < right)


def test_a_missing_file_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "pages.jsonl").write_bytes(b"")
    with pytest.raises(UsageError, match=r"no such file.*did you mean 'pages.jsonl'"):
        storage.open_input(tmp_path / "page.jsonl")
    with pytest.raises(UsageError, match="'inn' in it does not"):
        storage.read_bytes(tmp_path / "inn" / "page.jsonl")


def test_a_missing_remote_file_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no such file"):
        storage.read_bytes("memory://nowhere/x")


def test_a_folder_is_not_a_file_and_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="it is a folder"):
        storage.read_bytes(tmp_path)
    with pytest.raises(CuratorError, match="it is a folder"):
        write_bytes_atomic(tmp_path, b"")
    with pytest.raises(CuratorError, match="a folder is needed"):
        write_bytes_atomic(tmp_path / "file" / "x", b"")


def test_an_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown protocol 'memry'; did you mean 'memory'"):
        storage.read_bytes("memry://x")


def test_a_missing_package_for_a_protocol_is_named() -> None:
    pytest.importorskip("fsspec")
    try:
        import gcsfs  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependency, match="gcsfs"):
            storage.read_bytes("gs://bucket/x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open
    # The kernel's own full device stands in for the temporary file, so the error is a real one.
    monkeypatch.setattr(os, "open", lambda path, *rest: opened("/dev/full", os.O_WRONLY))
    with pytest.raises(CuratorError, match=r"no space is left.*free some space"), write_atomic(tmp_path / "a") as out:
        out.write(bytes(5 << 20))
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that refuses writes")
def test_a_folder_that_refuses_files_is_one_clear_error() -> None:
    with pytest.raises(CuratorError, match=r"cannot write '/proc/self/x'"):
        write_bytes_atomic("/proc/self/x", b"1")


@pytest.mark.usefixtures("as_anyone")
def test_a_folder_without_permission_is_one_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CuratorError, match="no permission"):
        write_bytes_atomic(tmp_path / "x", b"1")


@pytest.mark.slow
def test_local_files_do_without_fsspec(tmp_path: Path) -> None:
    code = f"""
import sys
from curator_core import storage
storage.write_bytes_atomic({str(tmp_path / "a")!r}, b"1")
assert storage.read_bytes({str(tmp_path / "a")!r}) == b"1"
assert [f.size for f in storage.match_files({str(tmp_path / "*")!r})] == [1]
assert not {{"fsspec", "pandas"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_entry_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")  # links that lead only to one another
    with pytest.raises(CuratorError, match="cannot look at"):
        list(storage.scan(tmp_path))


def test_virtual_files_of_the_kernel_are_not_listed_and_pipes_are_not_files(tmp_path: Path) -> None:
    if not Path("/proc/self/mountinfo").exists():
        pytest.skip("this system has no /proc")
    for look in (storage.list_files, lambda folder: storage.match_files(f"{folder}/*")):
        with pytest.raises(UsageError, match=r"cannot list '/proc.*a virtual file system of the kernel \(proc\)"):
            look("/proc/self")
    # One that is found on the way is skipped, and a named file can be read.
    (tmp_path / "kernel").symlink_to("/proc/self/task")
    (tmp_path / "a.jsonl").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    assert [Path(name).name for name in storage.list_files(str(tmp_path))] == ["a.jsonl"]
    assert [Path(found.path).name for found in storage.match_files(f"{tmp_path}/*")] == ["a.jsonl"]
    assert [found.path for found in storage.match_files("/proc/self/status")] == ["/proc/self/status"]


def test_a_web_server_that_does_not_answer_is_not_called_a_missing_file() -> None:
    pytest.importorskip("aiohttp")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # it does not listen, so that every connection is refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a.txt"
        looks = [storage.exists, storage.info, storage.read_bytes, storage.match_files, storage.list_files]
        for look in looks:
            with pytest.raises(CuratorError, match=r"'http://127.*no server answers there \(.*Cannot connect"):
                look(url)
