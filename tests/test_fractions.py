"""Best fractions and buckets over a whole data set equal those by plain sorting, whatever the files, workers, engine
and kills."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("curator_text")

from curator_core import LocalExecutor, UsageError, storage
from curator_core.across import selection
from curator_core.across.decisions import Decisions, write_removed
from curator_core.config.pipeline_file import load_pipeline
from curator_core.executors.base import BaseExecutor
from curator_core.running.verify import verify
from curator_core.testing.waiting import wait_for
from curator_core.workflow import Workflow
from curator_core.workflows.fractions import QuantileBuckets, TopFraction
from curator_text import JsonlReader, JsonlWriter, ParquetReader

HERE = LocalExecutor(workers=0)
type Row = dict[str, Any]


def made_rows(count: int = 400, seed: int = 1, ties: bool = True) -> list[Row]:
    """Documents with weights, a language, and scores that tie or are null, NaN or infinite."""
    draw = random.Random(seed)
    odd = [None, math.nan, math.inf, -math.inf, 0.0, -0.0, 1, 0.25]
    return [
        {
            "id": f"d{number}",
            "score": draw.choice(odd) if ties and draw.random() < 0.3 else round(draw.random(), 2 if ties else 17),
            "other": draw.choice([None, 1, 2, 3]) if ties else draw.random(),
            "tokens": draw.choice([0, 1, 5, 1000, None]),
            "language": draw.choice(["en", "de", None]),
        }
        for number in range(count)
    ]


SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "score": pa.float64(),
        "other": pa.float64(),
        "tokens": pa.int64(),
        "language": pa.string(),
    }.items()
)


def write_files(folder: Path, rows: list[Row], files: int) -> str:
    folder.mkdir()
    per = -(-len(rows) // files)
    for number in range(files):
        part = rows[number * per : (number + 1) * per]
        pq.write_table(pa.Table.from_pylist(part, SCHEMA), folder / f"{number}.parquet", row_group_size=17)
    return str(folder)


def worse(value: float | None, order: str = "highest") -> tuple[bool, float]:
    missing = value is None or math.isnan(value)
    return missing, 0.0 if missing else -value if order == "highest" else value


def best(
    rows: list[Row], fraction: str, weight: str = "rows", by: str | None = None, order: str = "highest"
) -> set[str]:
    """The ids that stay, found by sorting."""
    kept = set()
    for group in {row[by] if by else None for row in rows}:
        mine = [row for row in rows if by is None or row[by] == group]
        weights = [1 if weight == "rows" else row[weight] or 0 for row in mine]
        room = Fraction(fraction) * sum(weights)
        for at in sorted(range(len(mine)), key=lambda at: (worse(mine[at]["score"], order), at)):
            room -= weights[at]
            if room < 0:
                break
            kept.add(mine[at]["id"])
    return kept


def output(folder: Path) -> list[Row]:
    paths = sorted(folder.glob("*.jsonl"), key=storage.natural_key)
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def top(data: str, out: Path, **how: Any) -> TopFraction:
    return TopFraction(
        reader=ParquetReader(paths=data), writer=JsonlWriter(path=str(out)), **{"column": "score", **how}
    )


# One machine ---------------------------------------------------------------------------------------------------------


FRACTIONS: list[tuple[float, dict[str, str]]] = [
    (0.1, {}),
    (0.3, {"by": "language"}),
    (0.5, {"weight": "tokens"}),
    (0.07, {"weight": "tokens", "by": "language", "order": "lowest"}),
    (1, {}),
    (0, {"order": "lowest"}),
]


# `make test` gathers the scores of every second one, and narrows the search for the others.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("fraction", "how", "few"),
    [
        pytest.param(*case, few, marks=() if (number + place) % 2 else pytest.mark.thorough)
        for number, case in enumerate(FRACTIONS)
        for place, few in enumerate((0, 1 << 21))
    ],
)
def test_the_kept_rows_are_those_that_sorting_keeps(tmp_path, monkeypatch, fraction, how, few):
    monkeypatch.setattr(selection, "MOST_CANDIDATES", few)
    rows = made_rows()
    workflow = top(write_files(tmp_path / "in", rows, 5), tmp_path / "out", fraction=fraction, **how)
    result = workflow.run(HERE, run_dir=str(tmp_path / "run"))
    kept = best(rows, str(fraction), **how)
    assert [row["id"] for row in output(tmp_path / "out")] == [row["id"] for row in rows if row["id"] in kept]
    assert (result.summary.stages[0].rows_in, result.summary.rows_written) == (400, len(kept))
    decisions = Decisions.open(str(tmp_path / "run/decisions"))
    removed = [n for table in decisions.tables(["id"]) for n in table["id"].to_pylist()]
    assert removed == [row["id"] for row in rows if row["id"] not in kept]
    assert decisions.settings["rule"] == "fraction"


@pytest.mark.slow
def test_a_tenth_of_thirty_rows_is_three_although_no_float_is_a_tenth(tmp_path):
    rows = made_rows(30, ties=False)
    result = top(write_files(tmp_path / "in", rows, 1), tmp_path / "out", fraction=0.1).run(HERE)
    assert result.summary.rows_written == 3
    dropped = [dict(stage.dropped) for stage in result.summary.stages if stage.dropped]
    assert dropped == [{"not in the top 10 %": 27}]


@pytest.mark.slow
def test_integer_and_float_scores_of_different_files_have_one_order(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text('{"id": 1, "score": 3}\n{"id": 2, "score": 1}\n{"id": 3, "score": null}\n')
    (tmp_path / "in/b.jsonl").write_text('{"id": 4, "score": 2.5}\n{"id": 5, "score": 0.5}\n{"id": 6, "score": 1e3}\n')
    (tmp_path / "in/c.jsonl").write_text('{"id": 7, "score": null}\n')
    reader = JsonlReader(paths=str(tmp_path / "in"))
    writer = JsonlWriter(path=str(tmp_path / "out"))
    TopFraction(reader=reader, writer=writer, column="score", fraction=0.45).run(HERE)
    kept = {json.loads(line)["id"] for path in (tmp_path / "out").glob("*.jsonl") for line in path.open()}
    assert kept == {1, 4, 6}


@pytest.mark.slow
def test_each_collection_has_its_own_limit(tmp_path):
    (tmp_path / "in").mkdir()
    rows = made_rows(200, ties=False)
    for number, name in enumerate(["web", "books"]):
        write_files(tmp_path / "in" / name, rows[number * 100 : number * 100 + 50 + 50 * number], 2)
    top(str(tmp_path / "in"), tmp_path / "out", fraction=0.2, by="collection").run(HERE, run_dir=str(tmp_path / "run"))
    expected = best(rows[:50], "0.2") | best(rows[100:], "0.2")
    assert {json.loads(line)["id"] for path in (tmp_path / "out").glob("*.jsonl") for line in path.open()} == expected
    assert len(expected) == 30
    write_removed(str(tmp_path / "run/decisions"), str(tmp_path / "removed.txt"))
    assert len((tmp_path / "removed.txt").read_text().split()) == 120


@pytest.mark.slow
def test_a_complete_run_removes_its_measurements_and_is_not_repeated(tmp_path):
    data = write_files(tmp_path / "in", made_rows(), 3)
    for workflow in both(tmp_path, data):
        run_dir = str(tmp_path / workflow.name)
        workflow.run(HERE, run_dir=run_dir)
        assert not list((tmp_path / workflow.name / "work/scores/batches").glob("*"))
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
        again = workflow.run(HERE, run_dir=run_dir, resume=True)
        assert all(step.complete_before for step in again.summary.steps)
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
        assert not list(verify(run_dir))


@pytest.mark.slow
def test_the_workflow_runs_by_name_from_a_file(tmp_path):
    data = write_files(tmp_path / "in", made_rows(), 3)
    text = f"workflow:\n  TopFraction: {{paths: {data}, path: {tmp_path}/out, column: score, fraction: 0.5, by: language}}\n"
    (tmp_path / "best.yaml").write_text(text)
    result = load_pipeline(str(tmp_path / "best.yaml")).workflow.run(HERE)
    kept = best(made_rows(), "0.5", by="language")
    assert result.summary.rows_written == len(kept)
    assert pq.read_table(tmp_path / "out").num_rows == len(kept)
    text = f"workflow:\n  QuantileBuckets: {{paths: {data}, path: {tmp_path}/b, columns: [score, other]}}\n"
    (tmp_path / "buckets.yaml").write_text(text)
    load_pipeline(str(tmp_path / "buckets.yaml")).workflow.run(HERE)
    assert set(pq.read_table(tmp_path / "b")["bucket"].to_pylist()) <= set(range(20))


@pytest.mark.slow
def test_an_input_without_rows_gives_no_rows(tmp_path):
    result = top(write_files(tmp_path / "in", [], 2), tmp_path / "out", fraction=0.5, by="language").run(HERE)
    assert result.summary.rows_written == 0
    reader, writer = ParquetReader(paths=str(tmp_path / "in")), JsonlWriter(path=str(tmp_path / "buckets"))
    result = QuantileBuckets(reader=reader, writer=writer, columns=["score"]).run(HERE)
    assert result.summary.rows_written == 0


# Buckets


def bucket(rows: list[Row], column: str, row: Row, buckets: int, order: str = "highest") -> int:
    below = sum(worse(other[column], order) > worse(row[column], order) for other in rows)
    return below * buckets // len(rows)


@pytest.mark.slow
@pytest.mark.parametrize(("buckets", "few"), [(2, 0), (7, 1 << 21), (20, 0), (1000, 1 << 21)])
def test_a_bucket_is_the_rank_as_a_part_of_all_rows_and_ties_share_it(tmp_path, monkeypatch, buckets, few):
    monkeypatch.setattr(selection, "MOST_CANDIDATES", few)
    rows = made_rows()
    reader = ParquetReader(paths=write_files(tmp_path / "in", rows, 3))
    writer = JsonlWriter(path=str(tmp_path / "out"))
    columns = {"columns": ["score", "other"], "lowest": ["other"], "by": "language", "each": True, "combine": "mean"}
    QuantileBuckets(reader=reader, writer=writer, buckets=buckets, **columns).run(HERE)
    for row, found in zip(rows, output(tmp_path / "out"), strict=True):
        mine = [other for other in rows if other["language"] == row["language"]]
        one, two = bucket(mine, "score", row, buckets), bucket(mine, "other", row, buckets, "lowest")
        assert (found["score_bucket"], found["other_bucket"], found["bucket"]) == (one, two, (one + two) // 2)


@pytest.mark.slow
def test_several_scores_are_combined_by_the_best_bucket(tmp_path):
    rows = made_rows(ties=False)
    reader = ParquetReader(paths=write_files(tmp_path / "in", rows, 3))
    writer = JsonlWriter(path=str(tmp_path / "out"))
    QuantileBuckets(reader=reader, writer=writer, columns=["score", "other"], bucket_column="quality").run(HERE)
    found = output(tmp_path / "out")
    expected = [max(bucket(rows, "score", row, 20), bucket(rows, "other", row, 20)) for row in rows]
    assert [row["quality"] for row in found] == expected
    assert "score_bucket" not in found[0]


# The result does not depend on files, workers and kills
# -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("files", [1, 7, 64])
def test_without_ties_the_result_does_not_depend_on_files(tmp_path, files):
    rows = made_rows(ties=False)
    draw = random.Random(files)
    shuffled = draw.sample(rows, len(rows))
    data = write_files(tmp_path / "in", shuffled, files)
    top(data, tmp_path / "out", fraction=0.25, weight="tokens", by="language").run(HERE)
    assert {row["id"] for row in output(tmp_path / "out")} == best(rows, "0.25", "tokens", "language")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def both(folder: Path, data: str) -> list[Workflow]:
    reader = ParquetReader(paths=data)
    return [
        top(
            data,
            folder / "out/top",
            fraction=0.3,
            by="language",
            weight="tokens",
            decisions=str(folder / "out/decisions"),
        ),
        QuantileBuckets(reader=reader, writer=JsonlWriter(path=str(folder / "out/b")), columns=["score", "other"]),
    ]


def run_both(folder: Path, data: str, executor: BaseExecutor) -> dict[str, bytes]:
    for number, workflow in enumerate(both(folder, data)):
        workflow.run(executor, run_dir=str(folder / f"run{number}"))
    return contents(folder / "out")


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "MOST_CANDIDATES", 50)
    data = write_files(tmp_path / "in", made_rows(), 6)
    expected = run_both(tmp_path / "0", data, HERE)
    assert len(expected) > 12
    for workers in (1, 2):
        assert run_both(tmp_path / str(workers), data, LocalExecutor(workers=workers)) == expected


MAIN = """
import os, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_fractions import LocalExecutor, both
from curator_core.across import selection
selection.MOST_CANDIDATES = 50
if __name__ == "__main__":
    both(Path({folder!r}), {data!r})[{which}].run(LocalExecutor(workers=2), run_dir={run!r})
"""


@pytest.fixture(scope="module")
def twenty_files(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_files(tmp_path_factory.mktemp("twenty") / "in", made_rows(600), 20)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, twenty_files: str) -> list[dict[str, bytes]]:
    """The output of each workflow."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "MOST_CANDIDATES", 50)
        for which in (0, 1):
            folder = tmp_path_factory.mktemp("whole")
            both(folder, twenty_files)[which].run(HERE, run_dir=str(folder / "run"))
            found.append(contents(folder / "out"))
    return found


@pytest.mark.slow
@pytest.mark.xdist_group("fractions-killed")
@pytest.mark.parametrize(
    ("which", "sign"),
    [
        # `make test` kills each workflow in its second half; that a step over batches resumes is shown everywhere.
        pytest.param(0, "scores/batches", marks=pytest.mark.thorough),
        (0, "count-1"),
        (0, "limits.arrow"),
        (1, "collect"),
        pytest.param(1, "scores/_SUCCESS", marks=pytest.mark.thorough),
    ],
)
def test_a_killed_and_resumed_run_has_the_same_output(tmp_path, monkeypatch, which, sign, twenty_files, undisturbed):
    monkeypatch.setattr(selection, "MOST_CANDIDATES", 50)
    data = twenty_files
    folder = tmp_path / "killed"
    folder.mkdir()
    run_dir = folder / "run"
    text = MAIN.format(tests=str(Path(__file__).parent), folder=str(folder), data=data, which=which, run=str(run_dir))
    (folder / "main.py").write_text(text)
    process = subprocess.Popen([sys.executable, str(folder / "main.py")], start_new_session=True)
    try:
        wait_for(lambda: (run_dir / "work" / sign).exists() or process.poll() is not None, "the step", 120)
    finally:
        with_group = os.getpgid(process.pid) if process.poll() is None else None
        if with_group is not None:
            os.killpg(with_group, signal.SIGKILL)
        process.wait()
    both(folder, data)[which].run(HERE, run_dir=str(run_dir), resume=True)
    assert contents(folder / "out") == undisturbed[which]


def engine(name: str) -> BaseExecutor:
    from curator_backends import RayDataExecutor, XennaExecutor

    # Each has a Ray of its own: on a cluster that is shared, each step takes more processes.
    return RayDataExecutor(num_cpus=2) if name == "ray_data" else XennaExecutor(num_cpus=2)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name",
    [
        # These are only steps over a shuffle, and `make test` runs such steps in deduplication on both engines, and these
        # steps with several processes (above).
        pytest.param("ray_data", marks=[pytest.mark.ray, pytest.mark.thorough]),
        pytest.param("xenna", marks=[pytest.mark.xenna, pytest.mark.thorough]),
    ],
)
def test_the_result_does_not_depend_on_the_engine(tmp_path, name):
    data = write_files(tmp_path / "in", made_rows(120), 4)
    expected = run_both(tmp_path / "here", data, HERE)
    assert run_both(tmp_path / "there", data, engine(name)) == expected


# Parameters that are refused
# -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"fraction": 10}, "fraction must be a number from 0 to 1, not 10"),
        ({"fraction": True}, "fraction must be"),
        ({"fraction": math.nan}, "fraction must be"),
        ({"column": ""}, "column must name columns"),
        ({"order": "best"}, "order must be 'highest' or 'lowest', not 'best'"),
        ({"by": ""}, "by must be the name of a column or 'collection'"),
        ({"writer": "out"}, "writer must be a stage, not 'out'"),
        ({"writer": None}, " needs a path to write to, or a writer"),
        ({"paths": "in"}, " reads paths, or uses a reader"),
    ],
)
def test_a_wrong_parameter_is_refused_when_the_workflow_is_made(tmp_path, wrong, message):
    given = {"reader": ParquetReader(paths="in"), "writer": JsonlWriter(path="out"), "column": "score", "fraction": 0.1}
    with pytest.raises(UsageError, match=f"TopFraction.?{message}"):
        TopFraction(**{**given, **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"columns": []}, "columns must name columns"),
        ({"columns": "score"}, "columns must name columns"),
        ({"columns": ["a", "a"]}, "each once"),
        ({"buckets": 1}, "buckets must be a whole number of 2 or more"),
        ({"combine": "min"}, "combine must be 'max' or 'mean', not 'min'"),
        ({"lowest": ["b"]}, "lowest names 'b', which is not among"),
    ],
)
def test_wrong_parameters_of_buckets_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        QuantileBuckets(
            **{"reader": ParquetReader(paths="in"), "writer": JsonlWriter(path="out"), "columns": ["a"], **wrong}
        )
