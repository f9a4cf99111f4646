"""Documents of earlier runs in an index: they stay, and new documents are removed for them as for any other
document."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator_core import LocalExecutor, RunRefused, UsageError, storage
from curator_core.across import compact_index as compacting
from curator_core.across.compact_index import compact_index
from curator_core.across.index import Index, OldDocuments
from curator_core.config.pipeline_file import load_pipeline
from curator_core.workflows.exact import ExactDedup
from curator_text.dedup.fuzzy import FuzzyDedup
from curator_text.dedup.verdicts import DecideGroups

HERE = LocalExecutor(workers=0)
WORDS = [f"w{number}" for number in range(900)]


def documents(seed: int, count: int = 60) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Two halves of a corpus with copies and near copies within each and across both."""
    rng = random.Random(seed)
    halves: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])

    def add(half: int, kind: str, text: str | None) -> None:
        rows = halves[half]
        rows.append({"id": f"{'ab'[half]}{len(rows)}-{kind}", "text": text})

    for _ in range(count):
        words = [rng.choice(WORDS) for _ in range(rng.randint(20, 150))]
        add(rng.randint(0, 1), "base", " ".join(words))
        for _ in range(rng.choice([0, 0, 1, 2])):
            add(rng.randint(0, 1), "copy", " ".join(words))
        for _ in range(rng.choice([0, 0, 1])):
            edited = [word if rng.random() > 0.02 else rng.choice(WORDS) for word in words]
            add(rng.randint(0, 1), "near", " ".join(edited))
    for half in (0, 1):
        for text in (None, "", "...", "one", "今天天气很好我们一起去公园散步然后回家吃饭"):
            add(half, "odd", text)
    return halves


def write(folder: Path, rows: Sequence[dict[str, Any]], files: int = 3) -> str:
    folder.mkdir(parents=True)
    for number in range(files):
        text = "".join(json.dumps(row) + "\n" for row in rows[number::files])
        (folder / f"{number:03d}.jsonl").write_text(text)
    return str(folder)


def table(run: Path) -> list[dict[str, Any]]:
    found = [pq.read_table(path) for path in sorted((run / "decisions").glob("*.parquet"))]
    return pa.concat_tables(found).sort_by("number").to_pylist() if found else []


def removed(run: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in table(run) if row["decision"] == "removed"}


def kept(out: Path) -> set[str]:
    return {json.loads(line)["id"] for path in sorted(out.rglob("*.jsonl")) for line in path.read_text().splitlines()}


def dedup(make: type, place: Path, data: str, *, partitions: int = 4, **more: Any) -> set[str]:
    """What stays. Half of the default partitions are enough for a hundred documents."""
    workers = more.pop("workers", 0)
    options = {key: more.pop(key) for key in ("resume", "fresh") if key in more}
    work = make(paths=data, path=str(place / "out"), partitions=partitions, **more)
    work.run(LocalExecutor(workers=workers), run_dir=str(place / "run"), **options)
    return kept(place / "out")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(("_SUCCESS", "."))
    }


@pytest.mark.slow
@pytest.mark.parametrize("make", [FuzzyDedup, ExactDedup])
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (2, 3))])
def test_two_halves_one_after_the_other_give_the_result_of_one_run_that_prefers_the_first(
    tmp_path: Path, make: type, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = documents(seed)
    first, second = write(tmp_path / "both" / "a", old), write(tmp_path / "both" / "b", new)
    index = str(tmp_path / "index")
    stays = dedup(make, tmp_path / "first", first, index=index)
    assert Index.read(index).documents == len(stays)
    with monkeypatch.context() as little:
        little.setattr(DecideGroups, "memory_words", 1000)  # less than the words of a partition
        also = dedup(make, tmp_path / "second", second, index=index)
    assert Index.read(index).documents == len(stays) + len(also)
    assert [run.documents for run in Index.read(index).runs] == [len(stays), len(also)]
    at_once = dedup(make, tmp_path / "whole", str(tmp_path / "both"), keep=[{"rank": ["a", "b"]}, "longest", "first"])
    assert stays | also == at_once
    gone = removed(tmp_path / "second" / "run")
    assert gone.keys() | also == {row["id"] for row in new}
    run = Index.read(index).runs[0].name
    for row in gone.values():
        if row["witness_source"] == f"index:{run}":
            assert row["witness_id"] in stays
            assert row["witness_number"] == row["cluster"] >= 1 << 63
        else:
            assert row["witness_id"] in also
            assert row["witness_number"] == row["cluster"] < 1 << 63
    assert any(row["witness_id"] in stays for row in gone.values())
    assert any(row["witness_id"] in also for row in gone.values())
    # If the witness is the same, the figures equal those of one run over both.
    whole = removed(tmp_path / "whole" / "run")
    same = [name for name in gone if whole[name]["witness_id"] == gone[name]["witness_id"]]
    assert len(same) > len(gone) // 2
    for name in same:
        figures = ("jaccard", "containment", "new_words", "shared_bands", "rule")
        assert [gone[name][figure] for figure in figures] == [whole[name][figure] for figure in figures]


@pytest.mark.slow
@pytest.mark.parametrize("make", [FuzzyDedup, ExactDedup])
def test_against_the_index_alone_duplicates_among_new_documents_stay(tmp_path: Path, make: type) -> None:
    text, other = " ".join(WORDS[:50]), " ".join(WORDS[100:150])
    old = write(tmp_path / "a", [{"id": "a0", "text": text}, {"id": "a1", "text": text}], files=1)
    rows = [{"id": f"b{at}", "text": each} for at, each in enumerate([text, text, other, other])]
    new = write(tmp_path / "b", rows, files=1)
    index = str(tmp_path / "index")
    assert dedup(make, tmp_path / "first", old, index=index) == {"a0"}
    before = bytes_of(tmp_path / "index")
    only = {"index": index, "index_add": False}
    assert dedup(make, tmp_path / "index-only", new, against="index", **only) == {"b2", "b3"}
    assert dedup(make, tmp_path / "both", new, against="both", **only) == {"b2"}
    assert bytes_of(tmp_path / "index") == before
    # Documents of the index do not count, and the index does not change.
    assert dedup(make, tmp_path / "self", new, against="self", index=index) == {"b0", "b2"}
    after = bytes_of(tmp_path / "index")
    assert {name: after[name] for name in before if name != "_index.json"} == {
        name: content for name, content in before.items() if name != "_index.json"
    }
    assert Index.read(index).documents == 3
    # Documents in two runs of the index are never removed for one another.
    assert dedup(make, tmp_path / "again", write(tmp_path / "c", [{"id": "c", "text": text}]), index=index) == set()
    assert removed(tmp_path / "again" / "run")["c"]["witness_id"] == "a0"


@pytest.mark.slow
@pytest.mark.parametrize("make", [FuzzyDedup, ExactDedup])
@pytest.mark.parametrize("numbers", [(0, 2), pytest.param((0, 1, 2), marks=pytest.mark.thorough)], ids=str)
def test_index_and_output_have_the_same_bytes_with_any_number_of_workers(
    tmp_path: Path, make: type, numbers: tuple[int, ...]
) -> None:
    old, new = documents(4, 25)
    first, second = write(tmp_path / "a", old), write(tmp_path / "b", new)
    found = []
    for workers in numbers:
        place = tmp_path / str(workers)
        index = str(place / "index")
        dedup(make, place / "first", first, index=index, workers=workers)
        dedup(make, place / "second", second, index=index, workers=workers)
        found.append([bytes_of(place / name) for name in ("index", "first/out", "second/out", "second/run/decisions")])
    assert all(each == found[0] for each in found[1:])


KILLED = """
import os, signal, sys
from curator_core import LocalExecutor
from curator_core.across import index
from curator_text.dedup import fuzzy
data, place, folder, when = sys.argv[1:]
before, write = index.add_run, index.storage.write_bytes_atomic
def progress(state):
    if when == "files" and state.step_name.startswith("index") and state.finished_sources:
        os.kill(os.getpid(), signal.SIGKILL)
def cut_off(path, content, **more):
    if path.endswith("index/_index.json") and when == "before":
        open(os.path.join(folder, "._index.json.tmp-12-3"), "w").close()  # as a kill amid the writing leaves it
        os.kill(os.getpid(), signal.SIGKILL)
    made = write(path, content, **more)
    if path.endswith("index/_index.json") and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return made
index.storage.write_bytes_atomic = cut_off
fuzzy.FuzzyDedup(paths=data, path=place + "/out", partitions=4, index=folder).run(
    LocalExecutor(workers=0), run_dir=place + "/run", resume=os.path.exists(place + "/run/run.json"), progress=progress
)
"""


@pytest.mark.slow
def test_a_run_killed_while_adding_and_resumed_adds_once(tmp_path: Path) -> None:
    old, new = documents(5, 20)
    first, second = write(tmp_path / "a", old), write(tmp_path / "b", new)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for place in (whole, cut):
        dedup(FuzzyDedup, place / "first", first, index=str(place / "index"))
    expected = dedup(FuzzyDedup, whole / "second", second, index=str(whole / "index"))
    for when in ("files", "before", "after"):
        command = [sys.executable, "-c", KILLED, second, str(cut / "second"), str(cut / "index"), when]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert len(Index.read(str(cut / "index")).runs) == (2 if when == "after" else 1)
    again = dedup(FuzzyDedup, cut / "second", second, index=str(cut / "index"), resume=True)
    assert again == expected
    assert bytes_of(cut / "index") == bytes_of(whole / "index")
    assert not [path for path in (cut / "index").rglob("*") if storage.is_temporary(str(path))]


@pytest.mark.slow
@pytest.mark.parametrize("make", [FuzzyDedup, ExactDedup])
def test_a_repeated_run_does_not_find_itself_and_is_not_added_twice(tmp_path: Path, make: type) -> None:
    old, new = documents(6, 20)
    first, second = write(tmp_path / "a", old), write(tmp_path / "b", new)
    index = str(tmp_path / "index")
    found = [dedup(make, tmp_path / str(at), data, index=index) for at, data in enumerate((first, second))]
    before = bytes_of(tmp_path / "index")
    for at, data in enumerate((first, second)):
        assert dedup(make, tmp_path / str(at), data, index=index, fresh=True) == found[at]
        assert dedup(make, tmp_path / f"{at}-elsewhere", data, index=index) == found[at]
    assert bytes_of(tmp_path / "index") == before
    # Other settings would keep other documents than those in the index.
    with pytest.raises(RunRefused, match="holds these documents already, as run-"):
        dedup(make, tmp_path / "other", first, index=index, keep=["shortest", "first"])
    assert not (tmp_path / "other" / "out").exists()
    # A run that only compares finds all documents in the index.
    assert dedup(make, tmp_path / "only", first, index=index, against="index", index_add=False) <= {
        row["id"] for row in old if not row["text"]
    }


@pytest.mark.slow
def test_adding_is_refused_if_another_run_was_added_meanwhile(tmp_path: Path) -> None:
    old, new = documents(7, 20)
    first, second = write(tmp_path / "a", old), write(tmp_path / "b", new)
    index = str(tmp_path / "index")
    between: list[set[str]] = []

    def add_another(state: Any) -> None:
        if state.step == 4 and not between:
            between.append(dedup(FuzzyDedup, tmp_path / "first", first, index=index))

    work = FuzzyDedup(paths=second, path=str(tmp_path / "second" / "out"), index=index)
    with pytest.raises(RunRefused, match=r"gained run-.* since this run was compared with it"):
        work.run(HERE, run_dir=str(tmp_path / "second" / "run"), progress=add_another)
    assert [run.documents for run in Index.read(index).runs] == [len(between[0])]
    work.run(HERE, run_dir=str(tmp_path / "second" / "run"), fresh=True)
    assert len(Index.read(index).runs) == 2


@pytest.mark.slow
def test_an_addition_does_not_wait_for_another_one_and_says_so(tmp_path: Path) -> None:
    from curator_core.running.directory import RunDirectory

    old, _ = documents(8, 10)
    first = write(tmp_path / "a", old)
    index = tmp_path / "index"
    held = RunDirectory(str(index))
    held.lock()
    try:
        with pytest.raises(RunRefused, match="another run is being added to the index"):
            dedup(FuzzyDedup, tmp_path / "first", first, index=str(index))
    finally:
        held.unlock()
    assert not (index / "_index.json").exists()
    stays = dedup(FuzzyDedup, tmp_path / "first", first, index=str(index), resume=True)
    assert Index.read(str(index)).documents == len(stays)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"ngram": 4}, "was made with ngram 3, and this run has 4"),
        ({"unit": "characters", "ngram": 3}, "was made with unit 'words'"),
        ({"bands": 13}, "was made with bands 26, and this run has 13"),
        ({"rows": 4}, "was made with rows 5"),
        ({"seed": 1}, "was made with seed 0"),
        ({"scope": "per_collection"}, "was made with scope 'global'"),
    ],
)
def test_keys_with_different_parameters_are_not_compared(tmp_path: Path, other: dict[str, Any], says: str) -> None:
    old, _ = documents(9, 5)
    first = write(tmp_path / "a", old)
    index = str(tmp_path / "index")
    dedup(FuzzyDedup, tmp_path / "first", first, index=index)
    with pytest.raises(UsageError, match=says):
        dedup(FuzzyDedup, tmp_path / "second", first, index=index, **other)
    with pytest.raises(UsageError, match="index of fuzzy deduplication, and this one is exact"):
        dedup(ExactDedup, tmp_path / "second", first, index=index)


@pytest.mark.slow
def test_an_exact_index_holds_values_of_one_kind_and_all_folded_or_none(tmp_path: Path) -> None:
    first = write(tmp_path / "a", [{"id": "a", "text": "one", "number": 1}])
    index = str(tmp_path / "index")
    dedup(ExactDedup, tmp_path / "first", first, index=index)
    with pytest.raises(UsageError, match="was made with normalize False, and this run has True"):
        dedup(ExactDedup, tmp_path / "second", first, index=index, normalize=True)
    with pytest.raises(UsageError, match="was made with values 'text', and this run has 'other'"):
        dedup(ExactDedup, tmp_path / "third", first, index=index, column="number")
    # A column of the same kind under another name is accepted.
    assert dedup(ExactDedup, tmp_path / "fourth", first, index=index, column="id") == {"a"}


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"against": "all"}, "against must be 'self', 'index' or 'both', not 'all'"),
        ({"against": "index"}, "needs an index"),
        ({"index": ""}, "index must be a folder or URL, not ''"),
        ({"index": "i", "against": "self", "index_add": False}, "neither compared with .* nor added to"),
        ({"index": "out/i"}, "is inside path 'out'"),
        ({"index": "gone", "removed": "gone"}, "is inside removed 'gone'"),
    ],
)
def test_meaningless_parameters_of_an_index_are_refused(parameters: dict[str, Any], says: str) -> None:
    for make in (FuzzyDedup, ExactDedup):
        with pytest.raises(UsageError, match=says):
            make(paths="in", path="out", **parameters)


def test_a_folder_that_is_not_an_index_is_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a", [{"id": "a", "text": "one"}])
    with pytest.raises(UsageError, match="holds files but no index"):
        dedup(FuzzyDedup, tmp_path / "first", first, index=first)
    for more in ({"against": "index"}, {"index_add": False}):
        with pytest.raises(UsageError, match=r"holds no index .* correct the path"):
            dedup(FuzzyDedup, tmp_path / "first", first, index=str(tmp_path / "none"), **more)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "_index.json").write_text('{"version": 2}')
    with pytest.raises(UsageError, match="is damaged"):
        dedup(FuzzyDedup, tmp_path / "first", first, index=str(tmp_path / "bad"))
    (tmp_path / "bad" / "_index.json").write_text('{"version": 7}')
    with pytest.raises(UsageError, match="has format 7"):
        dedup(FuzzyDedup, tmp_path / "first", first, index=str(tmp_path / "bad"))
    with pytest.raises(UsageError, match="is inside the run directory"):
        dedup(FuzzyDedup, tmp_path / "first", first, index=str(tmp_path / "first" / "run" / "index"))


def curate(*arguments: str) -> str:
    command = [sys.executable, "-c", "from curator_core.cli import main; main()", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_the_command_compares_with_an_index_adds_to_it_and_shows_it(tmp_path: Path) -> None:
    text, other = " ".join(WORDS[:50]), " ".join(WORDS[100:150])
    first = write(tmp_path / "a", [{"id": "a0", "text": text}], files=1)
    second = write(tmp_path / "b", [{"id": "b0", "text": text.upper()}, {"id": "b1", "text": other}], files=1)
    index = str(tmp_path / "index")

    def run(name: str, data: str, *more: str) -> set[str]:
        place = tmp_path / name
        curate("dedup", "fuzzy", data, str(place), "--index", index, "--run-dir", str(tmp_path / f"{name}-run"), *more)
        return kept(place)

    assert run("first", first, "--workers", "0") == {"a0"}
    assert run("only", second, "--against", "index", "--no-index-add", "--workers", "0") == {"b1"}
    assert run("second", second, "--workers", "0") == {"b1"}
    held = Index.read(index)
    shown = curate("dedup", "index", index)
    assert "an index of fuzzy deduplication" in shown
    assert "ngram 3" in shown
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("run-")] == [
        run.name for run in held.runs
    ]
    assert "2 runs" in shown
    assert json.loads(curate("dedup", "index", index, "--json"))["parameters"] == held.parameters
    pair = curate("dedup", "show", str(tmp_path / "second-run"), "b0")
    assert f"stays:   'a0' of the index, from {held.runs[0].name}" in pair
    assert text.upper() in pair
    assert "2 files are as they were written" in curate("verify", str(tmp_path / "second-run"))


def test_in_a_pipeline_file_the_folders_are_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "clean.yaml"
    file.write_text(
        "workflow:\n  FuzzyDedup: {paths: in, path: out, format: jsonl, index: kept/index, removed: gone, decisions: table}\n"
    )
    workflow = load_pipeline(file).workflow
    assert isinstance(workflow, FuzzyDedup)
    for value, name in ((workflow.index, "kept/index"), (workflow.removed, "gone"), (workflow.decisions, "table")):
        assert value == str(tmp_path / name)


@pytest.mark.slow
def test_files_that_changed_before_they_are_added_are_refused(tmp_path: Path) -> None:
    old, _ = documents(10, 10)
    data = write(tmp_path / "a", old, files=1)

    def change(state: Any) -> None:
        if state.step_name.startswith("apply") and state.state == "done":
            path = next(Path(data).rglob("*.jsonl"))
            path.write_text(path.read_text().replace("w1", "w2"))

    work = FuzzyDedup(paths=data, path=str(tmp_path / "out"), index=str(tmp_path / "index"))
    with pytest.raises(RunRefused, match="has changed since"):
        work.run(HERE, run_dir=str(tmp_path / "run"), progress=change)
    assert not (tmp_path / "index" / "_index.json").exists()


@pytest.mark.slow
def test_if_no_document_stays_or_the_input_is_empty_no_run_is_added(tmp_path: Path) -> None:
    text = " ".join(WORDS[:50])
    first = write(tmp_path / "a", [{"id": "a0", "text": text}], files=1)
    copies = write(tmp_path / "b", [{"id": "b0", "text": text}, {"id": "b1", "text": text}], files=2)
    index = str(tmp_path / "index")
    for make in (FuzzyDedup, ExactDedup):
        index = str(tmp_path / f"index-{make.__name__}")
        assert dedup(make, tmp_path / f"{make.__name__}-1", first, index=index) == {"a0"}
        assert dedup(make, tmp_path / f"{make.__name__}-2", copies, index=index) == set()
        assert len(Index.read(index).runs) == 1


@pytest.mark.slow
@pytest.mark.parametrize("make", [FuzzyDedup, ExactDedup])
def test_an_index_can_be_made_without_an_output(tmp_path: Path, make: type) -> None:
    old, new = documents(11, 15)
    first, second = write(tmp_path / "a", old), write(tmp_path / "b", new)
    make(paths=first, index=str(tmp_path / "index")).run(HERE, run_dir=str(tmp_path / "run"))
    stays = {row["id"] for row in old} - removed(tmp_path / "run").keys()
    assert Index.read(str(tmp_path / "index")).documents == len(stays)
    left = dedup(make, tmp_path / "left", second, index=str(tmp_path / "index"), against="index", index_add=False)
    gone = removed(tmp_path / "left" / "run")
    assert gone
    assert {row["witness_id"] for row in gone.values()} <= stays
    assert left == {row["id"] for row in new} - gone.keys()


def test_without_a_run_directory_a_plan_does_not_refuse_an_index_for_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path / "a", [{"id": "a", "text": "one"}])
    monkeypatch.chdir(tmp_path)
    work = FuzzyDedup(paths=first, path=str(tmp_path / "out"), index="run/index")
    text = work.plan().describe()
    assert "adds the documents that stay to the index 'run/index'" in text
    with pytest.raises(UsageError, match="is inside the run directory"):
        work.run(HERE, run_dir="run")


# Merged runs ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def four_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[type, str], Path]:
    """The folder of four runs, which add to one index with keys in different numbers of partitions: their data in
    `data/0` and so on, what they wrote in `0` and so on. The index is in a place of the caller's own.
    """
    made: dict[type, Path] = {}

    def copied(make: type, index: str) -> Path:
        if make not in made:
            place = tmp_path_factory.mktemp(make.__name__)
            for at in range(4):
                data = write(place / "data" / str(at), documents(at, 12 if make is FuzzyDedup else 4)[0], files=2)
                dedup(make, place / str(at), data, index=str(place / "index"), partitions=(32, 7, 40, 1)[at])
            made[make] = place
        shutil.copytree(made[make] / "index", index)
        return made[make]

    return copied


@pytest.mark.slow
@pytest.mark.parametrize("make", [FuzzyDedup, ExactDedup])
def test_compacted_runs_decide_the_same_bytes(
    tmp_path: Path, make: type, four_runs: Callable[[type, str], Path]
) -> None:
    index = str(tmp_path / "index")
    runs_place = four_runs(make, index)
    count = 12 if make is FuzzyDedup else 4
    new = write(tmp_path / "new", [row for seed in range(4) for row in documents(seed, count)[1]])
    only = {"index": index, "index_add": False}
    dedup(make, tmp_path / "before", new, **only)
    runs = Index.read(index).runs
    folders = []
    # Compact twice, so that files that already contain several runs are also compacted.
    for most in (2, 1):
        compact_index(index, folders=most, lot_bytes=20_000)
        folders.append([path.name for path in (tmp_path / "index" / "runs").iterdir()])
        assert Index.read(index).runs == runs
        dedup(make, tmp_path / f"now-{most}", new, **only)
        for name in ("out", "run/decisions"):
            assert bytes_of(tmp_path / f"now-{most}" / name) == bytes_of(tmp_path / "before" / name)
    assert [len(found) for found in folders] == [2, 1]
    assert any(row["witness_source"] == f"index:{runs[2].name}" for row in table(tmp_path / "before" / "run"))
    # A run in the compacted folder is repeated: it finds earlier documents, but not its own or later ones.
    held = bytes_of(tmp_path / "index")
    dedup(make, tmp_path / "again", str(runs_place / "data" / "2"), index=index, partitions=40)
    assert bytes_of(tmp_path / "again" / "out") == bytes_of(runs_place / "2" / "out")
    assert bytes_of(tmp_path / "again" / "run/decisions") == bytes_of(runs_place / "2" / "run/decisions")
    assert bytes_of(tmp_path / "index") == held
    # Another run is added after it.
    dedup(make, tmp_path / "added", new, index=index)
    assert len(Index.read(index).runs) == 5
    assert len(Index.read(index).folders) == 2


class Killed(BaseException):
    """The state that a killed process leaves."""


@pytest.mark.slow
def test_decisions_are_the_same_if_compacting_is_interrupted_at_any_change_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, four_runs: Callable[[type, str], Path]
) -> None:
    whole, place = tmp_path / "whole", tmp_path / "index"
    four_runs(ExactDedup, str(whole))
    shutil.copytree(whole, place)
    new = write(tmp_path / "new", documents(1, 4)[1])
    compact_index(str(place), folders=2)
    expected = bytes_of(place)
    dedup(ExactDedup, tmp_path / "peace", new, index=str(place), index_add=False)
    decided = bytes_of(tmp_path / "peace" / "run/decisions")
    calls = 0

    def cut_at(limit: int, when: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def cut(*given: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if (calls, when) == (limit, "before"):
                raise Killed
            made = function(*given, **more)
            if (calls, when) == (limit, "after"):
                raise Killed
            return made

        return cut

    seen: set[str] = set()
    for limit in itertools.count(1):
        for when in ("before", "after"):
            calls = 0
            shutil.rmtree(place)
            shutil.copytree(whole, place)
            with monkeypatch.context() as patched:
                for name in ("write_atomic", "write_bytes_atomic", "remove"):
                    patched.setattr(storage, name, cut_at(limit, when, getattr(storage, name)))
                with contextlib.suppress(Killed):
                    compact_index(str(place), folders=2)
            # A file that no manifest names is never read.
            state = (place / "_index.json").read_text()
            if state not in seen:
                seen.add(state)
                dedup(ExactDedup, tmp_path / f"cut-{len(seen)}", new, index=str(place), index_add=False)
                assert bytes_of(tmp_path / f"cut-{len(seen)}" / "run/decisions") == decided
            compact_index(str(place), folders=2)
            assert bytes_of(place) == expected
        if calls < limit:
            break
    assert limit > 10
    assert len(seen) == 3, "as it was, with the replaced folders, and without them"


@pytest.mark.slow
def test_a_run_that_is_comparing_continues_in_the_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, four_runs: Callable[[type, str], Path]
) -> None:
    index = str(tmp_path / "index")
    four_runs(FuzzyDedup, index)
    new = write(tmp_path / "new", documents(2, 12)[1])
    only = {"index": index, "index_add": False}
    dedup(FuzzyDedup, tmp_path / "peace", new, **only)
    made = []

    def after(name: str, function: Callable[..., Any], calls: int) -> None:
        """Compact the runs while a reader has looked up their places and read a part."""
        seen = 0

        def watched(self: OldDocuments, *given: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == calls:
                before = Index.read(index).folders
                compact_index(index, folders=len(before) - 1)
                made.append(name)
            return function(self, *given)

        monkeypatch.setattr(OldDocuments, name, watched)

    after("matching", OldDocuments.matching, 3)
    after("rows_of_batch", OldDocuments.rows_of_batch, 2)
    after("places_in_table", OldDocuments.places_in_table, 1)
    dedup(FuzzyDedup, tmp_path / "meanwhile", new, **only)
    assert sorted(made) == ["matching", "places_in_table", "rows_of_batch"]
    assert len(Index.read(index).folders) == 1
    for name in ("out", "run/decisions"):
        assert bytes_of(tmp_path / "meanwhile" / name) == bytes_of(tmp_path / "peace" / name)


@pytest.mark.slow
def test_runs_that_are_added_meanwhile_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, four_runs: Callable[[type, str], Path]
) -> None:
    index = str(tmp_path / "index")
    four_runs(ExactDedup, index)
    new = write(tmp_path / "new", documents(9, 4)[1])
    write_together = compacting._written_together

    def slowly(*given: Any) -> Any:
        made = write_together(*given)
        dedup(ExactDedup, tmp_path / "meanwhile", new, index=index)
        return made

    monkeypatch.setattr(compacting, "_written_together", slowly)
    compact_index(index)
    held = Index.read(index)
    assert [folder.runs for folder in held.folders] == [4, 1]
    assert len(held.runs) == 5


@pytest.mark.slow
def test_the_command_compacts_an_index_and_says_what_it_did(
    tmp_path: Path, four_runs: Callable[[type, str], Path]
) -> None:
    index = str(tmp_path / "index")
    four_runs(ExactDedup, index)
    shown = curate("dedup", "index", index)
    said = curate("dedup", "compact", index)
    assert [line.split() for line in said.splitlines()][:2] == [["before", "now"], ["folders", "4", "1"]]
    assert curate("dedup", "index", index).splitlines()[:-1] == shown.splitlines()[:-1]
    assert curate("dedup", "compact", index) == f"{index}: nothing to do, 1 folder already\n"
    assert json.loads(curate("dedup", "compact", index, "--json"))["folders"] == [1, 1]


def test_only_an_index_is_compacted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no index"):
        compact_index(str(tmp_path))
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="folders must be"):
        compact_index(str(tmp_path), folders=0)
