"""Every file is a source exactly once, with its own id, whatever is beside it."""

from __future__ import annotations

import gzip
import itertools
import os
import re
import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core import LocalExecutor, Pipeline, storage
from curator_core.errors import PlanError, UsageError
from curator_core.model.task import EmptyTask, FileGroupTask
from curator_core.stages.files import FilePartitioning, parse_bytes
from curator_core.testing.faults import ReadLines, WriteLines


def partition(earlier: dict[str, Any] | None = None, **params: Any) -> list[FileGroupTask]:
    start = EmptyTask(dataset_name="d", _metadata={"earlier_members": earlier} if earlier else {})
    return list(FilePartitioning(**params).process(start))


def put(folder: Path, *names: str, size: int = 1) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)


def names(tasks: list[FileGroupTask], folder: Path) -> list[list[str]]:
    return [[storage.relative(path, folder) for path in task.data] for task in tasks]


def members(tasks: list[FileGroupTask]) -> dict[str, list[Any]]:
    """A run's record of its groups, after a round trip through JSON."""
    return {task.task_id: [[path, None if span is None else list(span)] for path, span in task.parts] for task in tasks}


def test_a_folder_is_read_in_natural_order_without_files_that_are_no_data(tmp_path: Path) -> None:
    put(tmp_path, "p-10", "p-9", "sub/p-1", ".hidden", "_SUCCESS", ".p-9.tmp-12-3")
    assert names(partition(paths=str(tmp_path)), tmp_path) == [["p-9"], ["p-10"], ["sub/p-1"]]
    assert names(partition(paths=str(tmp_path), recursive=False), tmp_path) == [["p-9"], ["p-10"]]


def test_the_record_of_a_packing_writer_is_read_only_if_it_is_named(tmp_path: Path) -> None:
    put(tmp_path, "out/0.json", "out/.packed.json", "out/_parts/a.json", "out/k=1/_parts.json")
    for paths in (tmp_path / "out", tmp_path, f"{tmp_path}/**/*.json"):
        assert names(partition(paths=str(paths)), tmp_path) == [["out/0.json"], ["out/k=1/_parts.json"]]
    assert names(partition(paths=f"{tmp_path}/out/_parts"), tmp_path) == [["out/_parts/a.json"]]


def test_patterns_folders_and_files_may_be_mixed_and_each_file_counts_once(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", "b.jsonl", "sub/c.jsonl", "sub/d.txt")
    entries = [f"{tmp_path}/*.jsonl", f"file://{tmp_path}/a.jsonl", f"{tmp_path}/sub", f"{tmp_path}/sub/../b.jsonl"]
    found = partition(paths=entries)
    assert sorted(os.path.normpath(storage.local_path(task.data[0])) for task in found) == [
        str(tmp_path / name) for name in ("a.jsonl", "b.jsonl", "sub/c.jsonl", "sub/d.txt")
    ]


def test_extensions_restrict_folders_and_not_named_files(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", "b.JSONL.gz", "c.txt")
    found = partition(paths=str(tmp_path), extensions=["jsonl", ".jsonl.gz"])
    assert names(found, tmp_path) == [["a.jsonl"], ["b.JSONL.gz"]]
    assert names(partition(paths=f"{tmp_path}/c.txt", extensions=["jsonl"]), tmp_path) == [["c.txt"]]


def test_a_file_whose_name_looks_like_a_pattern_is_found(tmp_path: Path) -> None:
    put(tmp_path, "data[1].jsonl", "data1.jsonl")
    assert names(partition(paths=f"{tmp_path}/data[1].jsonl"), tmp_path) == [["data[1].jsonl"]]


def test_files_in_an_object_store_are_also_sources() -> None:
    base = f"memory://{uuid.uuid4().hex}"
    for name in ("a.txt", "b.txt", "deep/c.txt"):
        storage.write_bytes_atomic(storage.join(base, name), b"x" * 5)
    assert [task.data for task in partition(paths=f"{base}/*.txt")] == [[f"{base}/a.txt"], [f"{base}/b.txt"]]
    found = partition(paths=base, split_bytes=3)
    assert [task.parts for task in found][-1] == [(f"{base}/deep/c.txt", (3, 5))]
    assert storage.read_bytes(found[0].data[0]) == b"x" * 5


def test_an_id_does_not_depend_on_the_place_of_the_folder_or_on_other_files(tmp_path: Path) -> None:
    put(tmp_path / "one", "b.jsonl", "sub/c.jsonl")
    put(tmp_path / "two", "a.jsonl", "b.jsonl", "sub/c.jsonl", "d.jsonl")
    one = partition(paths=f"{tmp_path}/one")
    two = {task.task_id for task in partition(paths=f"{tmp_path}/two/**/*.jsonl")}
    assert {task.task_id for task in one} < two
    assert one[0].task_id.startswith("b-")


def test_files_of_one_name_in_two_folders_have_two_ids(tmp_path: Path) -> None:
    put(tmp_path, "one/x.jsonl", "two/x.jsonl", "two/y.jsonl")
    found = partition(paths=[f"{tmp_path}/one", f"{tmp_path}/two"])
    assert len({task.task_id for task in found}) == 3


def test_a_generation_changes_with_the_content_and_the_id_stays(tmp_path: Path) -> None:
    put(tmp_path, "a", "b")
    before = partition(paths=str(tmp_path))
    put(tmp_path, "b", size=2)
    after = partition(paths=str(tmp_path))
    assert [task.task_id for task in before] == [task.task_id for task in after]
    assert [one._generation == two._generation for one, two in zip(before, after, strict=True)] == [True, False]
    assert after[1]._metadata["source_files"] == [(str(tmp_path / "b"), 2)]


def test_groups_close_by_count_or_by_size_whichever_comes_first(tmp_path: Path) -> None:
    for number, size in enumerate([40, 40, 40, 500, 10, 10, 10]):
        put(tmp_path, f"f{number}", size=size)

    def sizes(**params: Any) -> list[list[int]]:
        return [[int(name[0][1:]) for name in [[n] for n in group]] for group in names(partition(**params), tmp_path)]

    paths = str(tmp_path)
    assert sizes(paths=paths, files_per_partition=3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert sizes(paths=paths, bytes_per_partition=100) == [[0, 1], [2], [3], [4, 5, 6]]
    assert sizes(paths=paths, bytes_per_partition=100, files_per_partition=2) == [[0, 1], [2], [3], [4, 5], [6]]


def test_a_resumed_run_keeps_its_groups_and_new_files_make_new_ones(tmp_path: Path) -> None:
    put(tmp_path, "a2", "a3", "a4", "a5", "a6")
    before = partition(paths=str(tmp_path), files_per_partition=2)
    put(tmp_path, "a1", "a7")
    (tmp_path / "a4").unlink()
    plain = partition(paths=str(tmp_path), files_per_partition=2)
    assert names(plain, tmp_path)[0] == ["a1", "a2"]
    after = partition(paths=str(tmp_path), files_per_partition=2, earlier=members(before))
    assert names(after, tmp_path) == [["a1", "a5"], ["a2", "a3"], ["a6"], ["a7"]]
    kept = {task.task_id for task in before} & {task.task_id for task in after}
    assert kept == {before[0].task_id, before[2].task_id}


def test_compressed_files_and_containers_are_never_split(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", "b.jsonl.gz", "c.parquet", size=100)
    (tmp_path / "gzip-in-disguise.jsonl").write_bytes(gzip.compress(os.urandom(100)))
    found = partition(paths=str(tmp_path), split_bytes=40)
    spans = [(storage.file_name(path), span) for task in found for path, span in task.parts]
    assert spans == [
        ("a.jsonl", (0, 40)),
        ("a.jsonl", (40, 80)),
        ("a.jsonl", (80, 100)),
        ("b.jsonl.gz", None),
        ("c.parquet", None),
        ("gzip-in-disguise.jsonl", None),
    ]


def test_the_limit_takes_the_first_files(tmp_path: Path) -> None:
    put(tmp_path, "f10", "f2", "f1")
    assert names(partition(paths=str(tmp_path), limit=2), tmp_path) == [["f1"], ["f2"]]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=12),
    files_per_partition=st.integers(1, 4),
    bytes_per_partition=st.none() | st.integers(1, 80),
    split_bytes=st.none() | st.integers(1, 30),
    added=st.lists(st.integers(0, 50), max_size=4),
    removed=st.sets(st.integers(0, 11)),
)
def test_partitioning_never_loses_or_repeats_a_byte(
    sizes: list[int],
    files_per_partition: int,
    bytes_per_partition: int | None,
    split_bytes: int | None,
    added: list[int],
    removed: set[int],
) -> None:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for number, size in enumerate(sizes):
            put(folder, f"{'ab'[number % 2]}/f{number}", size=size)
        params = {
            "paths": [str(folder), f"{folder}/**/f1*"] if len(sizes) > 1 else str(folder),
            "files_per_partition": files_per_partition,
            "bytes_per_partition": bytes_per_partition,
            "split_bytes": split_bytes,
        }
        first = partition(**params)
        check_cover(first, folder)
        assert [task.task_id for task in partition(**params)] == [task.task_id for task in first]

        for number, size in enumerate(added):
            put(folder, f"b/f{number}-added", size=size)
        for path in [path for path in folder.rglob("f?") if int(path.name[1:]) in removed - {1}]:
            path.unlink()
        if not any(path.is_file() for path in folder.rglob("*")):
            return
        second = partition(**params, earlier=members(first))
        check_cover(second, folder)
        then, now = members(first), members(second)
        stay = {key for key, group in then.items() if all(Path(path).exists() for path, _ in group)}
        assert {key: now.get(key) for key in stay} == {key: then[key] for key in stay}


def check_cover(tasks: list[FileGroupTask], folder: Path) -> None:
    """Every byte of every file is in exactly one task, and no two tasks share an id."""
    assert len({task.task_id for task in tasks}) == len(tasks)
    spans: dict[Path, list[tuple[int, int]]] = {}
    for path, span in itertools.chain.from_iterable(task.parts for task in tasks):
        spans.setdefault(Path(path), []).append(span or (0, Path(path).stat().st_size))
    for path in folder.rglob("*"):
        if path.is_file():
            ends = [0, *itertools.chain.from_iterable(sorted(spans.pop(path))), path.stat().st_size]
            assert ends[::2] == ends[1::2]
    assert not spans


def test_if_nothing_matches_the_error_says_what_exists(tmp_path: Path) -> None:
    put(tmp_path, "pages.json", "b.txt", "c.txt", "d.txt")
    with pytest.raises(UsageError, match=r"no file matches .*holds b.txt, c.txt, d.txt and 1 more"):
        partition(paths=f"{tmp_path}/*.jsonl")
    with pytest.raises(UsageError, match=r"holds no file that ends in jsonl: .*holds b.txt"):
        partition(paths=str(tmp_path), extensions=["jsonl"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty' is empty"):
        partition(paths=f"{tmp_path}/empty")
    with pytest.raises(UsageError, match=r"there is no folder"):
        partition(paths=f"{tmp_path}/nowhere/*.jsonl")
    with pytest.raises(UsageError, match=r"no such file or folder; did you mean 'pages.json'"):
        partition(paths=f"{tmp_path}/pages.jsonl")


def test_one_entry_of_a_list_that_matches_nothing_is_also_an_error(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl")
    with pytest.raises(UsageError, match="b\\*"):
        partition(paths=[f"{tmp_path}/a*", f"{tmp_path}/b*"])


@pytest.mark.parametrize(
    ("text", "number"), [(5, 5), ("64", 64), ("2kB", 2000), ("1 KiB", 1024), ("1.5m", 3 << 19), ("2GB", 2 * 10**9)]
)
def test_sizes_are_written_as_people_write_them(text: int | str, number: int) -> None:
    assert parse_bytes(text) == number


@pytest.mark.parametrize(
    "params",
    [
        {"paths": ""},
        {"paths": []},
        {"paths": [1]},
        {"paths": "x", "files_per_partition": 0},
        {"paths": "x", "limit": True},
        {"paths": "x", "split_bytes": "many"},
        {"paths": "x", "bytes_per_partition": 0},
        {"paths": "x", "extensions": "jsonl"},
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_touched(params: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"FilePartitioning\.\w+ must"):
        FilePartitioning(**params)


# Where a run may not write ------------------------------------------------------------------------------------------


def plan_of(paths: object, out: object, **more: object) -> None:
    stages = [FilePartitioning(paths=paths, **more), ReadLines(), WriteLines(path=str(out))]  # type: ignore[arg-type]
    Pipeline(stages).plan()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with input in two folders and a link to the whole, as the current folder."""
    for name in ("in/a.jsonl", "in/deep/b.jsonl", "in/.hidden/c.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"id": 1, "text": "x"}\n')
    (tmp_path / "link").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("paths", "out"),
    [
        ("in", "in/out"),
        ("in/", "in"),
        ("in", "in/out/deeper"),
        ("in", "link/out"),
        ("link", "in/out"),
        ("./in", "deep/../in/out"),
        (".", "out"),
        ("in/**/*.jsonl", "in/out"),
        ("in/*.jsonl", "in"),
        ("in/*/*.jsonl", "in/out"),
        ("in/d*/**/*.jsonl", "in/deep/out"),
        (["other.jsonl", "in"], "in/out"),
        ("{here}/in", "in/out"),
        ("in", "{here}/in/out"),
        ("in", "file://{here}/in/out"),
    ],
)
def test_output_inside_the_input_is_refused_before_anything_runs(data: Path, paths: object, out: str) -> None:
    paths = paths.format(here=data) if isinstance(paths, str) else paths
    with pytest.raises(PlanError, match=r"the next run would read the output of this one. Write to a folder beside"):
        plan_of(paths, out.format(here=data))


@pytest.mark.parametrize(
    ("paths", "out", "more"),
    [
        ("in", "out", {}),
        ("in", "in2", {}),
        ("in/deep", "in/out", {}),
        ("in", "in/out", {"recursive": False}),
        ("in/*.jsonl", "in/out", {}),
        ("in/d*/*.jsonl", "in/out", {}),
        ("in/**/*.jsonl", "in/.out", {}),
        ("in/a.jsonl", "in/out", {}),
    ],
)
def test_output_beside_the_input_is_not_refused(data: Path, paths: str, out: str, more: dict[str, object]) -> None:
    plan_of(paths, out, **more)


@pytest.mark.slow
@given(
    st.lists(st.sampled_from(["a", "b", ".c"]), max_size=3),
    st.lists(st.sampled_from(["*", "**", "a", "?"]), max_size=3),
)
@settings(max_examples=60)
def test_output_is_refused_if_a_listing_of_the_input_would_find_it(folder: list[str], pattern: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "in")
        (root.joinpath(*folder)).mkdir(parents=True)
        entry = "/".join([str(root), *pattern, "*.jsonl"])
        stage = FilePartitioning(paths=entry)
        refused = stage.reads_from(str(root.joinpath(*folder)))
        (root.joinpath(*folder) / "x.jsonl").touch()
        assert (refused is not None) == bool(storage.match_files(entry))


def test_a_run_directory_inside_the_input_is_refused(data: Path) -> None:
    stages = [FilePartitioning(paths="in"), ReadLines()]
    with pytest.raises(PlanError, match="choose a run directory beside the input"):
        Pipeline(stages).run(LocalExecutor(workers=0), run_dir="link/run")
    assert not (data / "in" / "run").exists()


def test_a_pattern_whose_files_have_another_ending_names_it(tmp_path):
    put(tmp_path, "in/a.jsonl", "in/b.jsonl")
    for pattern, meant in (("*.json", "*.jsonl"), ("*.jsnol", "*.jsonl"), ("**/*.json", "*.jsonl")):
        with pytest.raises(UsageError, match=r"did you mean '.*" + re.escape(meant)):
            list(FilePartitioning(paths=str(tmp_path / "in" / pattern)).process(EmptyTask()))
