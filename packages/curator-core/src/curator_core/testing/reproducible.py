"""Do stages write the same bytes with any number of threads, in any batch, and on any processor?

::

    from curator_core.testing.reproducible import PROCESSORS, THREADS, Case, differences

    def test_scores_do_not_depend_on_threads_or_batches(tmp_path):
        cases = [Case("word count", [WordCountFilter(mode="annotate")], batch)]
        assert differences(cases, tmp_path, {**THREADS, **PROCESSORS}) == []

Each setting runs in its own process, since libraries read their environment only once, at the start. A chain of several
stages is one case: `Case("nsfw", [ImageEmbedding(…), NSFWFilter(…)], images)`. If numbers cannot be the same on another
processor (torch has other kernels there), ``tolerance`` gives the allowed difference under that environment.

`run_cases` returns the rows themselves, and `compare` compares them. The task of a case can also be a subclass of
`DocumentBatch`.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa

from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch

Environment = Mapping[str, str]
# The rows of each case, by environment and size of batches.
Found = dict[str, dict[tuple[str, int | None], pa.Table]]

THREADS: Mapping[str, Environment] = {
    f"{number} threads": {"OMP_NUM_THREADS": str(number), "OPENBLAS_NUM_THREADS": str(number)} for number in (1, 2, 4)
}


def _without_vectors() -> dict[str, str]:
    # Only the features that numpy chooses at run time and this processor has: numpy cannot disable those that it was
    # built for.
    umath: Any = importlib.import_module("numpy._core._multiarray_umath")  # numpy lists them only here

    chosen = [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__.get(name)]
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(chosen)} if chosen else {}


# Older processors, as far as libraries can imitate them: numpy's kernels, and those of the C library (pow, exp, log).
PROCESSORS: Mapping[str, Environment] = {
    "numpy without vector kernels": _without_vectors(),
    "C library without AVX and FMA": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA,-FMA4"},
}
# Older processors for torch, whose kernels are not the same on every processor.
TORCH_PROCESSORS: Mapping[str, Environment] = {
    "torch for any x86-64": {
        "ATEN_CPU_CAPABILITY": "default",
        "DNNL_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
}
_READ_BY_LIBRARIES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ATEN_CPU_CAPABILITY",
    "GLIBC_TUNABLES",
)


@dataclass(frozen=True)
class Case:
    """A chain of stages and its input. ``batches`` are the sizes of batches in rows; None stands for all rows at once."""

    name: str
    stages: Sequence[ProcessingStage[Any, Any]]
    task: DocumentBatch
    batches: Sequence[int | None] = (1, 7, None)


def differences(
    cases: Sequence[Case],
    folder: Path,
    environments: Mapping[str, Environment] = THREADS,
    tolerance: Mapping[str, float] | None = None,
) -> list[str]:
    """The differences, a line for each column; an empty list if there are none.

    ``tolerance`` gives, for environments by name, how far their numbers may be from those of the first environment.
    Differences between the batches of one environment are always reported.
    """
    return compare(run_cases(cases, folder, environments), tolerance)


def compare(found: Found, tolerance: Mapping[str, float] | None = None) -> list[str]:
    """Like `differences`, for rows that `run_cases` returned."""
    lines: list[str] = []
    for name, tables in found.items():
        (first, rows), *_ = tables.items()
        heads: dict[str, tuple[str, int | None]] = {}
        if not rows.num_rows:
            lines.append(f"{name}: no rows came out, so nothing was compared")
        for key, table in tables.items():
            head = heads.setdefault(key[0], key)
            # The first run of an environment is compared with the first run of all, and its other runs with its first.
            against, allowed = (first, (tolerance or {}).get(key[0], 0.0)) if head == key else (head, 0.0)
            what = f"{name}: {_label(against)} against {_label(key)}"
            lines += [f"{what}: {line}" for line in _compared(tables[against], table, allowed)]
    return lines


def run_cases(cases: Sequence[Case], folder: Path, environments: Mapping[str, Environment]) -> Found:
    """The rows of every case, in a new process for each of the environments."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.pickle").write_bytes(cloudpickle.dumps(list(cases)))
    found: Found = {case.name: {} for case in cases}
    if len(found) < len(cases):
        raise ValueError("two cases have the same name")
    plain = {key: value for key, value in os.environ.items() if key not in _READ_BY_LIBRARIES}
    for number, (label, environment) in enumerate(environments.items()):
        place = folder / f"{number:02d}"
        place.mkdir()
        paths = os.pathsep.join(path for path in sys.path if path)
        done = subprocess.run(
            [sys.executable, "-m", "curator_core.testing.reproducible", str(folder / "cases.pickle"), str(place)],
            env={**plain, "PYTHONPATH": paths, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if done.returncode:
            raise AssertionError(f"the cases failed under {label} ({dict(environment)}):\n{done.stderr[-4000:]}")
        for index, case in enumerate(cases):
            for size in case.batches:
                with pa.ipc.open_file(place / f"{index}-{size or 'all'}.arrow") as file:
                    found[case.name][label, size] = file.read_all()
    return found


def largest_difference(one: pa.Table, other: pa.Table) -> float:
    """The largest difference between the numbers of two tables; infinite if anything else differs."""
    gaps = [_gap(one[name], other[name]) for name in one.column_names if not _same(one[name], other[name])]
    return max(gaps, default=0.0)


def _label(key: tuple[str, int | None]) -> str:
    label, size = key
    return f"{label}, {'all rows at once' if size is None else f'{size} at a time'}"


def _compared(one: pa.Table, other: pa.Table, allowed: float) -> list[str]:
    if one.schema != other.schema or one.num_rows != other.num_rows:
        return [
            f"{one.num_rows} rows of {one.schema.names} became {other.num_rows} of {other.schema.names}, or types differ"
        ]
    lines = []
    for name in one.column_names:
        cells = zip(one[name].to_pylist(), other[name].to_pylist(), strict=True)
        apart = sum(repr(a) != repr(b) for a, b in cells)
        if apart and not (gap := _gap(one[name], other[name])) <= allowed:
            lines.append(f"column {name!r} differs in {apart} of {one.num_rows} rows, by {gap:.3g} at most")
    return lines


def _same(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    # Texts are compared, so that -0.0 differs from 0.0, and NaN equals itself.
    return repr(one.to_pylist()) == repr(other.to_pylist())


def _gap(one: pa.ChunkedArray, other: pa.ChunkedArray) -> float:
    a, b = (np.array(list(_numbers(column.to_pylist())), np.float64) for column in (one, other))
    if len(a) != len(b) or not len(a):
        return float("inf")
    with np.errstate(invalid="ignore"):
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.nan_to_num(gap, nan=np.inf).max())


def _numbers(value: Any) -> Iterable[float]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield float(value)


def _parts(task: DocumentBatch, size: int | None) -> Iterable[DocumentBatch]:
    if size is None:
        yield task
        return
    rows = np.arange(task.num_rows)
    for start in range(0, task.num_rows, size):
        yield task.filter(pa.array((rows >= start) & (rows < start + size)))


def _outputs(stages: Sequence[ProcessingStage[Any, Any]], task: Any) -> Iterable[DocumentBatch]:
    if not stages:
        yield task
        return
    result = stages[0].process(task)
    if result is None:
        return
    for piece in [result] if hasattr(result, "num_items") else result:
        yield from _outputs(stages[1:], piece)


def _main(pickled: Path, place: Path) -> None:
    # The process ends soon, and most of its objects are those of imported modules: stages that collect garbage when they
    # end need not visit them.
    gc.disable()
    cases: list[Case] = pickle.loads(pickled.read_bytes())  # noqa: S301 - written by the process that started this one
    for index, case in enumerate(cases):
        try:
            for stage in case.stages:
                stage.setup(WorkerMetadata())
            gc.freeze()
            for size in case.batches:
                table = _rows(case, size)
                with pa.ipc.new_file(place / f"{index}-{size or 'all'}.arrow", table.schema) as file:
                    file.write_table(table)
        except Exception as error:
            gc.unfreeze()  # else extensions may fill the end of the report with objects that nobody freed
            error.add_note(f"in the case {case.name!r}")
            raise
        finally:
            for stage in case.stages:
                stage.teardown()


def _rows(case: Case, size: int | None) -> pa.Table:
    parts = _parts(case.task, size)
    return pa.concat_tables(
        [made.to_pyarrow() for part in parts for made in _outputs(case.stages, part)]
    ).combine_chunks()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
