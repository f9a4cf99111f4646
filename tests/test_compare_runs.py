"""``curate diff`` on real runs: its output is checked against the files that the runs wrote."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator_core import LocalExecutor, Pipeline, Workflow
from curator_core.accounts.seen import Seen
from curator_core.cli import BAD_USAGE, DONE, FAILED, run_command
from curator_core.data.fates import fates_of
from curator_core.data.sides import compare_rows, key_numbers
from curator_core.errors import StageError
from curator_core.testing.stages import Raise
from curator_text import JsonlReader, JsonlWriter, SymbolsToWordsFilter, WordCountFilter

WORDS = ["the", "a", "house", "tree", "of", "to", "and", "sees", "green", "old", "man", "river"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    chosen = random.Random(0)
    for part in range(3):
        rows = [
            {
                "id": f"{part}-{row}",
                "text": " ".join(chosen.choices([*WORDS, "#"], k=chosen.randint(1, 60 + 30 * part))),
            }
            for row in range(200)
        ]
        (folder / f"part-{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(data: Path, place: Path, min_words: int = 20, **more: Any) -> Path:
    stages = [
        JsonlReader(paths=str(data)),
        WordCountFilter(min_words=min_words),
        SymbolsToWordsFilter(max_symbol_to_word_ratio=0.1),
        JsonlWriter(path=str(place / "out")),
    ]
    Pipeline(stages, name="clean").run(LocalExecutor(workers=0), run_dir=str(place / "run"), **more)
    return place / "run"


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("runs")
    return {name: run(data, place / name, words) for name, words in (("a", 20), ("same", 20), ("b", 40))}


def ids(run_dir: Path) -> set[str]:
    files = (run_dir.parent / "out").rglob("*.jsonl")
    return {json.loads(line)["id"] for file in files for line in file.read_text().splitlines()}


def differences(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = FAILED) -> Any:
    assert run_command(["diff", *map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_runs_with_the_same_result_are_equal_wherever_they_wrote(runs, capsys):
    found = differences(capsys, runs["a"], runs["same"], code=DONE)
    assert found["differs"] is False
    assert not any(stage["differs"] for stage in found["stages"])
    assert found["steps"][0]["outputs"]["JsonlWriter"]["same"] == len(ids(runs["a"]))
    assert run_command(["diff", str(runs["a"]), str(runs["same"])]) == DONE
    assert "the runs are equal" in capsys.readouterr().out


@pytest.mark.slow
def test_configuration_counts_and_rows_that_only_one_run_kept_are_exact(runs, capsys):
    found = differences(capsys, runs["a"], runs["b"], "--examples", 1000)
    (step,) = found["steps"]
    assert step["configuration"] == ["stage 'WordCountFilter': min_words was 20, is 40"]
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert not stages["JsonlRead"]["differs"]
    for side, name in (("a", "a"), ("b", "b")):
        assert stages["JsonlWriter"][side]["rows_out"] == len(ids(runs[name]))
    lost = ids(runs["a"]) - ids(runs["b"])
    assert lost
    assert {row["columns"]["id"] for row in found["rows"]} == lost
    assert {row["side"] for row in found["rows"]} == {"a"}
    outputs = step["outputs"]["JsonlWriter"]
    assert (outputs["by"], outputs["only_a"], outputs["only_b"], outputs["changed"]) == ("id", len(lost), 0, 0)
    assert outputs["same"] == len(ids(runs["a"]) & ids(runs["b"]))
    assert sum(source["a"]["rows_out"] for source in step["sources"]) - sum(
        source["b"]["rows_out"] for source in step["sources"]
    ) == len(lost)
    assert step["differing_sources"] == 3


@pytest.mark.slow
def test_the_output_folder_that_a_failed_run_never_filled_is_no_difference(data, tmp_path, capsys):
    for name, bad in (("a", "1-3"), ("b", "none")):
        stages = [JsonlReader(paths=str(data)), Raise(bad=bad), JsonlWriter(path=str(tmp_path / name / "out"))]
        with contextlib.suppress(StageError):
            Pipeline(stages, name="clean").run(LocalExecutor(workers=0), run_dir=str(tmp_path / name / "run"))
    (step,) = differences(capsys, tmp_path / "a" / "run", tmp_path / "b" / "run")["steps"]
    assert step["configuration"] == ["stage 'Raise': bad was '1-3', is 'none'"]


def test_the_output_names_stage_reason_and_rows(runs, capsys):
    assert run_command(["diff", str(runs["a"]), str(runs["b"])]) == FAILED
    out = capsys.readouterr().out
    assert "min_words was 20, is 40" in out
    assert "word_count" in out
    assert "only in a, 3 of" in out
    assert "the runs differ" in out
    assert run_command(["diff", str(runs["a"]), str(runs["b"]), "--no-rows"]) == FAILED
    assert "only in a" not in capsys.readouterr().out


def test_folders_scores_and_samples_are_compared(runs, capsys):
    (step,) = differences(capsys, runs["a"], runs["b"])["steps"]
    (folder,) = step["by"]["collection"]
    assert (folder["a"]["rows_out"], folder["b"]["rows_out"]) == (len(ids(runs["a"])), len(ids(runs["b"])))
    assert all(source["source"].endswith(".jsonl") for source in step["sources"])
    moved = {(score["stage"], score["score"]): score for score in step["scores"]}
    assert ("WordCountFilter", "word_count") not in moved  # it got the same rows despite its different limit
    symbols = moved["SymbolsToWordsFilter", "symbols_to_words"]
    assert sum(entry["b"] for entry in symbols["bins"]) == symbols["rows_b"] < symbols["rows_a"]
    became = step["outputs"]["JsonlWriter"]["became"]["only_a"]
    lost = ids(runs["a"]) - ids(runs["b"])
    assert (became["rows"], became["written"]) == (len(lost), False)
    assert [(entry["stage"], entry["reason"]) for entry in became["dropped"]] == [("WordCountFilter", "word_count")]
    assert 0 < became["known"] < len(lost)


def test_writing_dropped_rows_is_no_difference_and_explains_every_row(data, runs, tmp_path, capsys):
    run(data, tmp_path, 40, dropped=str(tmp_path / "dropped"))
    (step,) = differences(capsys, runs["a"], tmp_path / "run")["steps"]
    became = step["outputs"]["JsonlWriter"]["became"]["only_a"]
    lost = ids(runs["a"]) - ids(tmp_path / "run")
    assert became["written"]
    assert became["dropped"] == [{"stage": "WordCountFilter", "reason": "word_count", "rows": len(lost)}]
    assert run_command(["diff", str(runs["a"]), str(tmp_path / "run")]) == FAILED
    assert f"dropped in b by WordCountFilter (word_count) {len(lost)}" in capsys.readouterr().out
    assert differences(capsys, runs["b"], tmp_path / "run", code=DONE)["differs"] is False


@dataclass
class TwoSteps(Workflow):
    """Filters in two pipelines."""

    data: str
    out: str
    min_words: int = 20

    def steps(self, work_dir: str) -> Iterator[Pipeline]:
        between = f"{work_dir}/between"
        yield Pipeline([JsonlReader(paths=self.data), JsonlWriter(path=between)], name="copy")
        stages = [JsonlReader(paths=between), WordCountFilter(min_words=self.min_words), JsonlWriter(path=self.out)]
        yield Pipeline(stages, name="clean")


def test_workflows_are_compared_step_by_step_and_their_own_folders_make_no_difference(data, tmp_path, capsys):
    for name, words in (("a", 20), ("same", 20), ("b", 40)):
        flow = TwoSteps(str(data), str(tmp_path / name / "out"), words)
        flow.run(LocalExecutor(workers=0), run_dir=str(tmp_path / name / "run"))
    places = {name: tmp_path / name / "run" for name in ("a", "same", "b")}
    found = differences(capsys, places["a"], places["same"], code=DONE)
    assert [step["step"] for step in found["steps"]] == ["copy", "clean"]
    copy, clean = differences(capsys, places["a"], places["b"])["steps"]
    assert not copy["differs"]
    assert clean["configuration"] == ["stage 'WordCountFilter': min_words was 20, is 40"]
    assert clean["outputs"]["JsonlWriter"]["only_a"] == len(ids(places["a"]) - ids(places["b"]))


def test_written_dropped_rows_explain_every_missing_row(tmp_path):
    (tmp_path / "drops").mkdir()
    rows = [{"id": n, "text": "x", "dropped_by": "F", "dropped_for": "odd" if n % 2 else "even"} for n in range(10)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "drops/task.parquet")
    keys = key_numbers(pa.table({"id": [1, 2, 3, 77]}), "id")
    found = fates_of(keys, "id", True, {"F: dropped rows": str(tmp_path / "drops")}, Seen())
    assert found.as_dict() == {
        "rows": 4,
        "known": 3,
        "written": True,
        "dropped": [{"stage": "F", "reason": "odd", "rows": 2}, {"stage": "F", "reason": "even", "rows": 1}],
    }
    assert [found.of.get(int(key)) for key in keys] == [("F", "odd"), ("F", "even"), ("F", "odd"), None]


def test_if_an_output_is_gone_all_but_the_rows_is_compared(data, runs, tmp_path, capsys):
    gone = run(data, tmp_path, 40)
    for file in (tmp_path / "out").rglob("*"):
        file.unlink()
    (tmp_path / "out").rmdir()
    (step,) = differences(capsys, runs["a"], gone)["steps"]
    assert step["configuration"]
    assert "no longer exists" in step["unknown"][0]


def test_a_folder_that_is_no_run_is_wrong_usage(runs, tmp_path, capsys):
    assert run_command(["diff", str(runs["a"]), str(tmp_path)]) == BAD_USAGE
    assert "holds no run" in capsys.readouterr().err


def write(folder: Path, *rows: dict[str, Any]) -> str:
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_rows_with_the_same_id_and_other_values_count_as_changed(tmp_path):
    a = write(tmp_path / "a", {"id": 1, "text": "x"}, {"id": 2, "text": "y"}, {"id": 3, "text": "z"})
    b = write(tmp_path / "b", {"id": 3, "text": "z"}, {"id": 2, "text": "Y"}, {"id": 4, "text": "z"})
    found = compare_rows(a, b)
    assert (found.only_a, found.only_b, found.changed, found.same) == (1, 1, 1, 1)
    sides = {row["side"]: row["columns"] for row in found.examples}
    assert sides["before"] == {"id": 2, "text": "y"}
    assert sides["after"] == {"id": 2, "text": "Y"}


def test_rows_without_ids_are_compared_by_their_text_with_repetitions(tmp_path):
    a = write(tmp_path / "a", *[{"text": "x"}] * 3, {"text": "y"})
    b = write(tmp_path / "b", *[{"text": "x"}] * 1, {"text": "z"})
    found = compare_rows(a, b)
    assert (found.by, found.named) == ("text", False)
    assert (found.only_a, found.only_b, found.same) == (3, 1, 1)


def test_a_column_that_only_one_side_has_is_a_difference(tmp_path):
    a = write(tmp_path / "a", {"id": 1, "score": 2})
    b = write(tmp_path / "b", {"id": 1})
    found = compare_rows(a, b)
    assert found.differs
    assert (found.columns_a, found.changed) == (["score"], 0)
    assert not compare_rows(write(tmp_path / "c"), write(tmp_path / "d")).differs


@pytest.mark.slow
@pytest.mark.parametrize("part_rows", [60, 10_000])
def test_comparing_in_parts_finds_the_same_differences(tmp_path, part_rows):
    chosen = random.Random(1)
    rows = [{"id": f"{chosen.randint(0, 400)}", "text": chosen.choice("xyz")} for _ in range(500)]
    a, b = write(tmp_path / "a", *rows[:400]), write(tmp_path / "b", *rows[100:])
    whole = compare_rows(a, b)
    parts = compare_rows(a, b, rows=400, part_rows=part_rows)
    assert parts.as_dict() == whole.as_dict()
    assert parts.examples == whole.examples
    assert whole.same + whole.only_a + whole.changed == 400
    assert whole.same + whole.only_b + whole.changed == 400
