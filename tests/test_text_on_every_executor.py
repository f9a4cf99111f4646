"""English heuristics, a shuffle and packing give the same files and the same counts on every executor."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

pytest.importorskip("curator_text")

from curator_core import AddId, LocalExecutor, Pipeline
from curator_core.accounts import seen
from curator_core.executors.base import BaseExecutor
from curator_text import JsonlReader, JsonlWriter, ShuffleReader, ShuffleWriter, SplitByHash, WebEnglish

CORPUS = Path(__file__).parent.parent / "packages/curator-text/tests/filters/data/corpus.parquet"
FILES, ROWS = 4, 1500


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Every fourth document of the parity corpus, and two broken lines."""
    folder = tmp_path_factory.mktemp("in")
    texts = pq.read_table(CORPUS, columns=["text"])["text"].to_pylist()[::4]
    assert len(texts) == ROWS
    for number in range(FILES):
        lines = [json.dumps({"text": text}) + "\n" for text in texts[number::FILES]]
        if number < 2:
            lines.insert(7, '{"text": \n')
        (folder / f"{number}.jsonl").write_text("".join(lines))
    return str(folder)


def run(executor: BaseExecutor, data: str, out: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """The written files, and the rows of each stage: read, kept, dropped by reason, and set aside."""
    scatter = [
        JsonlReader(paths=data, batch_bytes="200kB"),
        AddId(),
        WebEnglish(),
        ShuffleWriter(path=str(out / "parts"), partitions=5, seed=3),
    ]
    gather = [
        ShuffleReader(path=str(out / "parts")),
        SplitByHash(parts={"train": 0.9, "test": 0.1}),
        JsonlWriter(path=str(out / "files"), target_size="150kB"),
    ]
    records = []
    for name, stages in (("scatter", scatter), ("gather", gather)):
        summary = Pipeline(stages, name=name).run(executor, run_dir=str(out / name)).summary
        records += [
            {
                "stage": totals.name,
                "in": totals.rows_in,
                "out": totals.rows_out,
                "dropped": dict(sorted(totals.dropped.items())),
                "rejected": dict(sorted(totals.rejected.items())),
            }
            for totals in summary.stages
        ]
        records.append({"stage": name, "shares": summary.shares, "rows_written": summary.rows_written})
    records.append(what_is_seen(out / "scatter"))
    files = {
        path.relative_to(out).as_posix(): path.read_bytes()
        for folder in ("parts", "files")
        for path in sorted((out / folder).iterdir())
        if path.name not in ("_SUCCESS", ".packed.json")
    }
    return files, records


def what_is_seen(run_dir: Path) -> dict[str, Any]:
    """The histograms, samples and counts by source of a run."""
    found: dict[str, Any] = json.loads(json.dumps(seen.read_seen(str(run_dir)).to_json(), default=str))
    for stage in found["stages"].values():
        del stage["settings"]  # they name the folder of the output
    return found


@pytest.fixture
def summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The driver of the run in `tmp_path` adds up the counts that its workers have kept by task."""
    monkeypatch.setattr(seen, "SUM_BYTES", 0)
    monkeypatch.setattr(seen, "_WORTH", 1.0)
    yield
    for name in ("scatter", "gather"):
        assert [path.name for path in (tmp_path / name / "seen").iterdir()] == ["0001-sums.parquet"]


@pytest.fixture(scope="module")
def local(data: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """The result of one process, with which the others are compared."""
    return run(LocalExecutor(workers=0), data, tmp_path_factory.mktemp("local"))


@pytest.mark.slow
def test_every_row_is_accounted_for(local: tuple[dict[str, bytes], list[dict[str, Any]]]) -> None:
    files, records = local
    stages = [entry for entry in records if "dropped" in entry]
    filters = [entry for entry in stages if entry["stage"].partition("#")[0].endswith("Filter")]
    assert len(filters) == 28
    for entry in filters:
        assert entry["in"] == entry["out"] + sum(entry["dropped"].values())
    assert all(before["out"] == after["in"] for before, after in itertools.pairwise(filters))
    assert filters[0]["in"] == ROWS
    assert sum(len(entry["dropped"]) > 0 for entry in filters) > 10
    (read,) = (entry for entry in stages if entry["stage"] == "JsonlRead")
    assert sum(read["rejected"].values()) == 2
    rows = [json.loads(line) for name, body in files.items() if name.startswith("files") for line in body.splitlines()]
    assert len(rows) == filters[-1]["out"] > 100
    assert {row["split"] for row in rows} == {"train", "test"}


@pytest.mark.slow
def test_several_processes_give_the_same_as_one(
    data: str, local: tuple[dict[str, bytes], list[dict[str, Any]]], tmp_path: Path
) -> None:
    assert run(LocalExecutor(workers=2), data, tmp_path) == local


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_ray_data_gives_the_same_as_one_process(
    data: str, local: tuple[dict[str, bytes], list[dict[str, Any]]], tmp_path: Path, summed: None
) -> None:
    from curator_backends import RayDataExecutor

    assert run(RayDataExecutor(num_cpus=2), data, tmp_path) == local


@pytest.mark.xenna
@pytest.mark.timeout(400)
def test_xenna_gives_the_same_as_one_process(
    data: str, local: tuple[dict[str, bytes], list[dict[str, Any]]], tmp_path: Path, summed: None
) -> None:
    from curator_backends import XennaExecutor

    assert run(XennaExecutor(num_cpus=2), data, tmp_path) == local
