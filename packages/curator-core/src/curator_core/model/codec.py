"""How is a task encoded as one block of bytes? By a small JSON header and, for tables, an Arrow IPC stream that is read
without a copy.

Between Curator's own processes, tasks of other kinds may be pickled. Nothing is ever unpickled from disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import pickle
import struct
import sys
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pyarrow as pa

from curator_core.errors import UsageError, remember_code
from curator_core.model.places import Places, place_rows, places_of
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord, StagePerfStats, Task

_MAGIC = b"CTK1"
_ALIGN = 64
_ACCOUNT = ("_source", "_generation")


def encode_task(task: Task[Any], *, pickled: bool = True) -> pa.Buffer:
    """Encode a task. ``pickled=False`` is for tasks that are written to disk: it raises for a task that is neither a
    table nor a file list.
    """
    if isinstance(task, DocumentBatch):
        task = task.landed()
    extra = _extra_fields(type(task)) or not _has_address(type(task))
    header: dict[str, Any] = {
        "type": _address(type(task)),
        "task_id": task.task_id,
        "dataset_name": task.dataset_name,
        **{name: getattr(task, name) for name in _ACCOUNT if getattr(task, name)},
    }
    if task._metadata:
        header["_metadata"] = task._metadata
    if task._stage_perf:
        header["_stage_perf"] = [_perf_out(perf) for perf in task._stage_perf]
    if task._pending:
        # Entries of _pending are the newest ones of _stage_perf, unless a fork cleared that list, so positions are sent
        # instead of copies.
        header["_pending"] = [_perf_out(perf) for perf in task._pending]
    if task._outputs:
        header["_outputs"] = [(stage, dataclasses.astuple(record)) for stage, record in task._outputs]
    if isinstance(task, DocumentBatch) and not extra:
        places = places_of(task)
        if places is not None:
            header["places"] = places.packed()
        table = task.to_pyarrow()
        sink = pa.BufferOutputStream()
        prefix = _prefix(header)
        if prefix is not None:
            sink.write(prefix)
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            return sink.getvalue()
    elif isinstance(task, FileGroupTask) and not extra:
        header["data"] = task.data
        header["ranges"] = task.ranges
        header["records"] = [dataclasses.astuple(record) for record in task.records]
        prefix = _prefix(header)
        if prefix is not None:
            return pa.py_buffer(prefix)
    if not pickled:
        raise UsageError(
            f"a {type(task).__name__} cannot be stored in the run directory: only tables and file lists with plain "
            "metadata (text, numbers, lists) can; end the pipeline, or the part before a Merge, with one of these"
        )
    with by_value(*type(task).__mro__):
        return pa.py_buffer(b"PKL1" + cloudpickle.dumps(task))


def decode_task(buffer: pa.Buffer | bytes | memoryview, *, pickled: bool = True) -> Task[Any]:
    """Decode the task in a block of bytes; a table's columns point into the block."""
    if not isinstance(buffer, pa.Buffer):
        buffer = pa.py_buffer(buffer)
    view = memoryview(buffer)
    magic = bytes(view[:4])
    if magic == b"PKL1" and pickled:
        loaded = pickle.loads(view[4:])  # noqa: S301 - from one of Curator's processes; never from disk (pickled=False)
        assert isinstance(loaded, Task)
        return loaded
    if magic != _MAGIC:
        raise UsageError(f"not an encoded task: it starts with {magic!r}")
    (length,) = struct.unpack("<I", view[4:8])
    header = json.loads(bytes(view[8 : 8 + length]))
    kind = _task_class(header.pop("type"), trusted=pickled)
    perf = [_perf_in(entry) for entry in header.pop("_stage_perf", [])]
    pending = [_perf_in(entry) for entry in header.pop("_pending", [])]
    outputs = [(stage, FileRecord(*record)) for stage, record in header.pop("_outputs", [])]
    if issubclass(kind, FileGroupTask):
        ranges = header.pop("ranges")
        header["ranges"] = ranges and [part and (part[0], part[1]) for part in ranges]
        header["records"] = [FileRecord(*record) for record in header.pop("records")]
        task: Task[Any] = kind(_stage_perf=perf, _pending=pending, _outputs=outputs, **header)
    else:
        body = buffer.slice(8 + length)
        table = pa.ipc.open_stream(body).read_all()
        places = header.pop("places", None)
        task = kind(data=table, _stage_perf=perf, _pending=pending, _outputs=outputs, **header)
        if places is not None and isinstance(task, DocumentBatch):
            place_rows(task, Places.unpacked(places))
    return task


def _prefix(header: dict[str, Any]) -> bytes | None:
    try:
        text = json.dumps(header, separators=(",", ":"), allow_nan=True).encode()
    except (TypeError, ValueError):
        return None
    if "_metadata" in header and json.loads(text)["_metadata"] != _plain(header["_metadata"]):
        return None  # for example, integer keys would come back as text
    text += b" " * (-(8 + len(text)) % _ALIGN)
    return _MAGIC + struct.pack("<I", len(text)) + text


def _plain(value: Any) -> Any:
    """Convert tuples to lists: metadata may contain both, and decoding returns lists."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


@functools.cache
def _extra_fields(kind: type[Task[Any]]) -> bool:
    base = FileGroupTask if issubclass(kind, FileGroupTask) else DocumentBatch
    known = {field.name for field in dataclasses.fields(base)}
    return any(field.name not in known for field in dataclasses.fields(kind))


def _perf_out(perf: StagePerfStats) -> list[Any]:
    return [
        perf.stage_name,
        perf.process_time,
        perf.calls,
        perf.rows_in,
        perf.rows_out,
        perf.dropped,
        perf.rejected,
        perf.quarantined,
        perf.custom_metrics,
    ]


def _perf_in(entry: list[Any]) -> StagePerfStats:
    return StagePerfStats(*entry)


@contextlib.contextmanager
def by_value(*kinds: type[Any]) -> Iterator[None]:
    """Pickle these classes with their code if another process cannot import them, as with those of a notebook or a
    test.
    """
    sent = [kind for kind in kinds if not can_import(kind.__module__)]
    for kind in sent:
        remember_code(kind)
    homes = {kind.__module__ for kind in sent}
    modules = [sys.modules[home] for home in homes if home in sys.modules and home != "__main__"]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


@functools.cache
def can_import(module: str) -> bool:
    """Whether a new interpreter with this ``sys.path`` would find the module, which may be loaded here all the same."""
    if module == "__main__":
        return False
    if module in sys.builtin_module_names:
        return True
    place: Any = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        found = (finder.find_spec(name, place) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((one for one in found if one is not None), None)
        if spec is None:
            return False
        place = spec.submodule_search_locations
    return True


@functools.cache
def _address(kind: type[Task[Any]]) -> str:
    """The address of a task type. Curator's own types are named by the package that exports them: its modules are
    private and may move, and a stored task must still be readable then.
    """
    package = kind.__module__.partition(".")[0]
    if _offered(package, kind.__qualname__) is kind:
        return f"{package}:{kind.__qualname__}"
    return f"{kind.__module__}:{kind.__qualname__}"


def _offered(package: str, name: str) -> Any:
    """The object that one of Curator's packages exports under a name, or None."""
    return getattr(importlib.import_module(package), name, None) if package.startswith("curator_") else None


@functools.cache
def _has_address(kind: type[Task[Any]]) -> bool:
    """Whether another process can find the type by its name."""
    return "<locals>" not in kind.__qualname__ and can_import(kind.__module__)


def _task_class(path: str, trusted: bool = True) -> type[Any]:
    module, _, name = path.partition(":")
    if not trusted and module not in sys.modules and not module.startswith("curator_"):
        # A file on disk must not choose which code is loaded.
        raise UsageError(f"{path!r} is not loaded: import it in the module of the stage that makes or reads such tasks")
    value: Any = _offered(module.partition(".")[0], name)
    if value is None:
        try:
            value = functools.reduce(getattr, name.split("."), importlib.import_module(module))
        except (ImportError, AttributeError) as error:
            raise UsageError(f"there is no {path!r}, the type of a task: {error}") from error
    if not (isinstance(value, type) and issubclass(value, Task)):
        raise UsageError(f"{path!r} is not a type of task")
    return value
