"""Tasks as bytes: they decode to the same task, tables are not copied, and nothing from a disk is unpickled."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core import (
    DocumentBatch,
    EmptyTask,
    FileGroupTask,
    FileRecord,
    LocalExecutor,
    Merge,
    Pipeline,
    StagePerfStats,
    Task,
    UsageError,
)
from curator_core.model.codec import decode_task, encode_task

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
metadata = st.dictionaries(st.text(max_size=5), plain, max_size=3)


def there_and_back(task: Task[Any], pickled: bool = True) -> Task[Any]:
    return decode_task(encode_task(task, pickled=pickled), pickled=pickled)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=8)), max_size=20), metadata, st.text(max_size=8))
def test_a_table_is_unchanged_after_decoding(texts: list[str | None], facts: dict[str, Any], name: str) -> None:
    task = DocumentBatch(
        data=pa.table({"text": pa.array(texts, pa.string()), "n": range(len(texts))}), task_id="s-1.00002"
    )
    task.dataset_name, task._metadata, task._source, task._generation = name, facts, "s-1", "7"
    task._stage_perf = [StagePerfStats("Read", 0.5, 1, 4, 3, {"short": 1}, {"bad": 2}, 1, {"letters": 2.0})]
    task._outputs = [("Write", FileRecord("out/a", 3, 10, "ff"))]
    for pickled in (True, False):
        back = there_and_back(task, pickled)
        assert back == task
        assert back.data.schema == task.data.schema
        assert (back._metadata, back._source, back._generation) == (facts, "s-1", "7")
        assert back._stage_perf == task._stage_perf
        assert back._outputs == task._outputs


def test_files_are_unchanged_after_decoding() -> None:
    task = FileGroupTask(
        data=["a", "b"], ranges=[None, (5, 9)], records=[FileRecord("a", 1, 2, "x")], task_id="f", _source="f"
    )
    assert there_and_back(task, pickled=False) == task


def test_the_columns_of_a_decoded_table_point_into_the_received_bytes() -> None:
    buffer = encode_task(DocumentBatch(data=pa.table({"n": pa.array(range(1000), pa.int64())})))
    column = decode_task(buffer).data["n"].chunk(0).buffers()[1]
    assert buffer.address <= column.address < buffer.address + buffer.size
    assert column.address % 8 == 0


def test_a_slice_sends_only_its_rows_and_not_the_whole_table() -> None:
    table = pa.table({"n": pa.array(range(100_000), pa.int64())})
    assert encode_task(DocumentBatch(data=table.slice(5, 10))).size < 2_000


@dataclass(kw_only=True)
class Scored(DocumentBatch):
    scorer: str = ""


def special() -> DocumentBatch:
    @dataclass(kw_only=True)
    class Special(DocumentBatch):
        pass

    return Special(data=pa.table({"x": [1]}))


@pytest.mark.parametrize(
    "task",
    [
        EmptyTask(task_id="e"),
        Scored(data=pa.table({"x": [1]}), scorer="me"),
        special(),
        DocumentBatch(data=pa.table({"x": [1]}), _metadata={"keys": {1: 2}}),
    ],
    ids=["empty", "own-field", "own-type", "integer-keys"],
)
def test_other_tasks_keep_their_type_between_our_processes(task: Task[Any]) -> None:
    back = there_and_back(task)
    assert back == task
    assert type(back) is type(task)
    assert back._metadata == task._metadata
    with pytest.raises(UsageError, match="cannot be stored in the run directory: only tables and file lists"):
        encode_task(task, pickled=False)


# Law 9


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place / "sprung",)


def test_law_9_nothing_on_a_disk_is_unpickled(tmp_path: Path) -> None:
    for data in (b"PKL1" + pickle.dumps(Trap(tmp_path)), pickle.dumps(Trap(tmp_path))):
        with pytest.raises(UsageError, match="not an encoded task"):
            decode_task(data, pickled=False)
    assert not (tmp_path / "sprung").exists()


class Together(Merge[DocumentBatch, DocumentBatch]):
    def process(self, tasks: Sequence[DocumentBatch]) -> DocumentBatch:  # type: ignore[override]
        return DocumentBatch(data=pa.concat_tables([task.to_pyarrow() for task in tasks]))


class Fails(Together):
    def process(self, tasks: Sequence[DocumentBatch]) -> DocumentBatch:  # type: ignore[override]
        raise ValueError("not today")


def test_law_9_a_pickle_planted_in_a_run_directory_is_not_loaded(tmp_path: Path) -> None:
    tasks = [DocumentBatch(data=pa.table({"x": [n]}), task_id=f"s-{n}") for n in range(3)]
    run_dir = tmp_path / "run"
    with pytest.raises(Exception, match="not today"):
        Pipeline([Fails().with_(name="Together")]).run(
            LocalExecutor(workers=0), initial_tasks=tasks, run_dir=str(run_dir)
        )
    stored = sorted(run_dir.rglob("*.task"))
    assert len(stored) == 3
    stored[1].write_bytes(b"PKL1" + pickle.dumps(Trap(tmp_path)))
    with pytest.raises(Exception, match="not an encoded task"):
        Pipeline([Together()]).run(
            LocalExecutor(workers=0), initial_tasks=tasks, run_dir=str(run_dir), resume=True, allow_changed=True
        )
    assert not (tmp_path / "sprung").exists()


def test_law_9_data_on_a_disk_do_not_choose_the_code_that_is_loaded() -> None:
    data = bytes(memoryview(encode_task(DocumentBatch(data=pa.table({"x": [1]})))))
    for kind, message in (("antigravity:Task", "is not loaded: import it"), ("os:popen", "is not a type of task")):
        name = b"curator_core:DocumentBatch"
        # It has the same length as the original, so that the stored length remains correct.
        forged = data.replace(b'"' + name + b'"', f'"{kind}"'.encode().ljust(len(name) + 2))
        with pytest.raises(UsageError, match=message):
            decode_task(forged, pickled=False)
    assert "antigravity" not in sys.modules
