"""Fuzzy and exact deduplication from files to files: nothing is removed without a witness that stays, in any way of
running."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator_core import EmptyTask, LocalExecutor, RunRefused, StageError, UsageError
from curator_core.across.copies import ExactKeys
from curator_core.across.decisions import Decisions
from curator_core.across.rethreshold import rethreshold
from curator_core.config.pipeline_file import load_pipeline
from curator_core.workflows.exact import ExactDedup
from curator_core.workflows.pairs import removed_pair
from curator_text import JsonlReader, JsonlWriter, TextFilesReader
from curator_text.dedup import verdicts
from curator_text.dedup.fuzzy import FuzzyDedup

HERE = LocalExecutor(workers=0)
WORDS = [f"w{number}" for number in range(900)]
THAI = "การทดสอบระบบสำหรับภาษาไทยที่ไม่มีช่องว่างระหว่างคำ"
CHINESE = "今天天气很好我们一起去公园散步然后回家吃饭"


def documents(seed: int = 1, count: int = 120) -> list[dict[str, Any]]:
    """Documents: some are exact copies, near copies, or made from one template, and some are awkward."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []

    def add(kind: str, text: str | None, **more: Any) -> None:
        rows.append({"id": f"{kind}-{len(rows)}", "text": text, **more})

    template = [rng.choice(WORDS) for _ in range(90)]
    for _ in range(count):
        words = [rng.choice(WORDS) for _ in range(rng.randint(3, 200))]
        add("base", " ".join(words))
        chance = rng.random()
        if chance < 0.15:
            for _ in range(rng.randint(1, 3)):
                add("copy", " ".join(words))
        elif chance < 0.4:
            edited = [word if rng.random() > 0.03 else rng.choice(WORDS) for word in words]
            add("near", " ".join(edited).upper() + "!")
        elif chance < 0.6:
            own = [rng.choice(WORDS) for _ in range(40)]
            add("trap", " ".join(template[:45] + own + template[45:]))
    for text in (
        None,
        "",
        " ",
        "one",
        "One!",
        "caf\u00e9 au lait",
        "cafe\u0301 au lait",
        THAI,
        THAI + "ครับ",
        CHINESE,
        CHINESE,
    ):
        add("odd", text)
    rng.shuffle(rows)
    return rows


def write(folder: Path, rows: Sequence[dict[str, Any]], files: int = 4) -> str:
    for number in range(files):
        place = folder / f"part{number % 2}" / f"{number:03d}.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(json.dumps(row) + "\n" for row in rows[number::files]))
    return str(folder)


def table(run: Path) -> list[dict[str, Any]]:
    found = [pq.read_table(path) for path in sorted((run / "decisions").glob("*.parquet"))]
    return pa.concat_tables(found).sort_by("number").to_pylist() if found else []


def told(run: Path) -> set[tuple[str, str, str | None]]:
    return {(row["id"], row["decision"], row["witness_id"]) for row in table(run)}


def kept(out: Path) -> list[str]:
    return [json.loads(line)["id"] for path in sorted(out.rglob("*.jsonl")) for line in path.read_text().splitlines()]


def files_of(*folders: Path) -> dict[str, bytes]:
    """The output, without the marks that name the folder."""
    return {
        f"{folder.name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(("_SUCCESS", "."))
    }


# An independent reading of the rule, with sets and loops ---------------------------------------------------------------


def plain_words(text: str | None) -> list[str]:
    """Words of texts in scripts with spaces."""
    folded = unicodedata.normalize("NFC", text or "").casefold()
    return "".join(letter if letter.isalnum() or unicodedata.combining(letter) else " " for letter in folded).split()


def shingles(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + 3]) for at in range(max(1, len(words) - 2))] if words else []


def nothing_new(text: str, witness: str) -> tuple[float, int]:
    """The share of the text's distinct shingles that the witness has, and the most new words in a window of 25."""
    words, theirs = plain_words(text), set(shingles(plain_words(witness)))
    mine = shingles(words)
    covered = [False] * len(words)
    for at, shingle in enumerate(mine):
        if shingle in theirs:
            for place in range(at, at + len(shingle)):
                covered[place] = True
    new = [0 if known else 1 for known in covered]
    most = max(sum(new[at : at + 25]) for at in range(max(1, len(new) - 24)))
    return len(set(mine) & theirs) / len(set(mine)), most


@pytest.mark.slow
def test_each_removal_has_a_witness_that_stays_and_meets_the_rule(tmp_path: Path) -> None:
    rows = documents()
    data = write(tmp_path / "in", rows)
    result = FuzzyDedup(paths=data, path=str(tmp_path / "out"), removed=str(tmp_path / "gone")).run(
        HERE, run_dir=str(tmp_path / "run")
    )
    texts = {row["id"]: row["text"] for row in rows}
    removed = {row["id"]: row for row in table(tmp_path / "run") if row["decision"] == "removed"}
    stays = kept(tmp_path / "out")
    assert len(removed) > 40
    assert sorted([*stays, *removed]) == sorted(texts)
    assert sorted(kept(tmp_path / "gone")) == sorted(removed)
    for name, row in removed.items():
        assert row["witness_id"] in stays
        if any(ord(letter) > 0x0E00 for letter in texts[name]):
            continue  # of scripts without spaces, which have a separate test
        share, most = nothing_new(texts[name], texts[row["witness_id"]])
        if row["rule"] == "exact":
            same = [unicodedata.normalize("NFC", texts[one]) for one in (name, row["witness_id"])]
            assert same[0] == same[1]
        else:
            assert row["containment"] == pytest.approx(share)
            assert row["new_words"] == most <= 12
            assert share >= 0.8
    # Copies and near copies are removed; documents with a paragraph of their own stay.
    kinds = [name.partition("-")[0] for name in removed]
    assert "trap" not in kinds
    assert kinds.count("copy") + kinds.count("base") >= sum(row["id"].startswith("copy") for row in rows)
    counted = {totals.name: dict(totals.dropped) for totals in result.summary.stages}["ApplyDecisions"]
    assert sum(counted.values()) == len(removed)
    assert set(counted) == {"exact duplicate", "near duplicate"}
    shown = json.loads((tmp_path / "run" / "report.json").read_text())["duplicates"]
    assert shown["removed"] == len(removed)
    assert shown["rules"] == {"exact": counted["exact duplicate"], "nothing_new": counted["near duplicate"]}
    assert sum((int(size) - 1) * clusters for size, clusters in shown["sizes"].items()) == len(removed)
    by_size = sorted(
        (row["cluster_size"] for row in table(tmp_path / "run") if row["decision"] == "kept"), reverse=True
    )
    assert [entry["cluster_size"] for entry in shown["largest"]] == by_size[:10]
    alike = sorted(row["containment"] for row in removed.values() if row["containment"] is not None)
    assert [entry["alike"] for entry in shown["least_alike"]] == alike[:10]
    for pair in shown["least_alike"][:3]:
        assert pair["text"] == texts[pair["id"]][:2000]
        assert pair["witness_text"] == texts[pair["witness_id"]][:2000]


@pytest.mark.slow
def test_a_text_without_words_is_no_near_copy_and_the_empty_text_no_copy(tmp_path: Path) -> None:
    rows = [
        {"id": str(number), "text": text}
        for number, text in enumerate([None, None, "", "", "...", "...", "?!", "a", "A"])
    ]
    data = write(tmp_path / "in", rows, files=1)
    FuzzyDedup(paths=data, path=str(tmp_path / "out")).run(HERE, run_dir=str(tmp_path / "run"))
    # "..." twice is an exact copy; "a" and "A" are one shingle of one word.
    assert told(tmp_path / "run") == {
        ("5", "removed", "4"),
        ("4", "kept", None),
        ("8", "removed", "7"),
        ("7", "kept", None),
    } or told(tmp_path / "run") == {
        ("5", "removed", "4"),
        ("4", "kept", None),
        ("7", "removed", "8"),
        ("8", "kept", None),
    }


@pytest.mark.slow
@pytest.mark.parametrize("make", [FuzzyDedup, ExactDedup])
def test_values_that_are_not_text_do_not_affect_the_texts_beside_them(tmp_path: Path, make: type) -> None:
    text, near = " ".join(WORDS[:40]), " ".join(WORDS[:40]).upper()
    (tmp_path / "in").mkdir()
    files = [
        [{"id": "a1", "text": text}, {"id": 7, "text": 5}, {"id": "a3", "text": {"x": 1}}],
        [{"id": "b1", "text": text}, {"id": "b2", "text": "5"}, {"id": "b3", "text": 5}],
        [{"id": "c1", "text": text}, {"id": "c2", "text": near}],
    ]
    for name, rows in zip("abc", files, strict=True):
        (tmp_path / "in" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    work = make(paths=str(tmp_path / "in"), path=str(tmp_path / "out"), index=str(tmp_path / "index"))
    work.run(HERE, run_dir=str(tmp_path / "run"))
    gone = {(row["id"], row["witness_id"]) for row in table(tmp_path / "run") if row["decision"] == "removed"}
    copies = {("b1", "a1"), ("c1", "a1"), ("b3", "7")}
    assert gone == copies | ({("c2", "a1")} if make is FuzzyDedup else set())
    assert set(kept(tmp_path / "out")) == {"a1", 7, "a3", "b2"} | (set() if make is FuzzyDedup else {"c2"})
    for name in ("c1", "b1"):
        pair = removed_pair(str(tmp_path / "run" / "decisions"), name)
        assert pair.document["text"] == text
        assert pair.witness is not None
        assert pair.witness["text"] == text


@pytest.mark.slow
def test_a_file_of_numbers_beside_files_of_text_stays_except_for_copies(tmp_path: Path) -> None:
    text = " ".join(WORDS[:40])
    (tmp_path / "in").mkdir()
    for name, values in (("a", [text, 5]), ("b", [5, 6]), ("c", [f"{text}!"])):
        rows = [{"id": f"{name}{number}", "text": value} for number, value in enumerate(values)]
        (tmp_path / "in" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    FuzzyDedup(paths=str(tmp_path / "in"), path=str(tmp_path / "out")).run(HERE, run_dir=str(tmp_path / "run"))
    assert set(kept(tmp_path / "out")) == {"c0", "a1", "b1"}


@pytest.mark.slow
@pytest.mark.parametrize("make", [FuzzyDedup, ExactDedup])
def test_ids_that_cannot_be_are_refused_by_the_first_step(tmp_path: Path, make: type) -> None:
    data = write(tmp_path / "in", [{"id": ["a"], "text": "one"}], files=1)
    with pytest.raises(StageError, match=r"Keys' failed.*id_column 'id' must hold text or numbers, not list"):
        make(paths=data, path=str(tmp_path / "out")).run(HERE, run_dir=str(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("make", [FuzzyDedup, ExactDedup])
@pytest.mark.parametrize("numbers", [(0, 2), pytest.param((0, 1, 2), marks=pytest.mark.thorough)], ids=str)
def test_the_output_has_the_same_bytes_with_any_number_of_workers(
    tmp_path: Path, make: type, numbers: tuple[int, ...]
) -> None:
    data = write(tmp_path / "in", documents(2, 60))
    found = []
    for workers in numbers:
        place = tmp_path / str(workers)
        make(paths=data, path=str(place / "out")).run(LocalExecutor(workers=workers), run_dir=str(place / "run"))
        found.append(files_of(place / "out", place / "run" / "decisions"))
    assert all(each == found[0] for each in found[1:])
    assert any(name.startswith("decisions/part") for name in found[0])


@pytest.mark.slow
def test_the_distribution_of_rows_over_files_does_not_matter_for_an_order_without_first(tmp_path: Path) -> None:
    rows = [{**row, "score": len(row["text"] or "") % 7} for row in documents(3, 60)]
    found = []
    for files in (1, 7, 20):
        place = tmp_path / str(files)
        data = write(place / "in", sorted(rows, key=lambda row: hash_of(row["id"], files)), files)
        FuzzyDedup(paths=data, path=str(place / "out"), keep=[{"highest": "score"}, "longest"]).run(
            HERE, run_dir=str(place / "run")
        )
        found.append(
            {
                (texts_of(rows, name), decision, texts_of(rows, witness))
                for name, decision, witness in told(place / "run")
            }
        )
    assert found[0] == found[1] == found[2]


def texts_of(rows: Sequence[dict[str, Any]], name: str | None) -> str | None:
    """For two rows with the same text, only their places decide which one stays."""
    return next((unicodedata.normalize("NFC", row["text"]) for row in rows if row["id"] == name), None)


def hash_of(name: str, seed: int) -> float:
    return random.Random(f"{name}/{seed}").random()


KILLED = """
import os, signal, sys
from curator_core import LocalExecutor
from curator_text.dedup import verdicts
from curator_text.dedup.fuzzy import FuzzyDedup
step, data, place, workers = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
def progress(state):
    if state.step == step and (state.finished_sources or state.state == "done"):
        os.kill(os.getpid(), signal.SIGKILL)
FuzzyDedup(paths=data, path=place + "/out").run(
    LocalExecutor(workers=workers), run_dir=place + "/run", resume=os.path.exists(place + "/run/run.json"), progress=progress
)
"""


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(1, 4, 6), pytest.param((1, 2, 4, 5, 6, 7), marks=pytest.mark.thorough)], ids=str)
def test_a_run_killed_at_any_step_and_resumed_gives_the_same_output(tmp_path: Path, steps: tuple[int, ...]) -> None:
    data = write(tmp_path / "in", documents(4, 40))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    FuzzyDedup(paths=data, path=str(whole / "out")).run(HERE, run_dir=str(whole / "run"))
    for step in steps:
        command = [sys.executable, "-c", KILLED, str(step), data, str(cut), "0"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert ended.returncode == -9, ended.stderr
    result = FuzzyDedup(paths=data, path=str(cut / "out")).run(HERE, run_dir=str(cut / "run"), resume=True)
    assert result.summary.state == "done"
    expected = files_of(whole / "out", whole / "run" / "decisions")
    assert files_of(cut / "out", cut / "run" / "decisions") == expected


@pytest.mark.parametrize(
    ("size", "pieces"),
    [(1 << 20, 8), (1 << 28, 8), (1 << 28 | 1, 32), (1 << 30, 64), (1 << 30 | 1, 128), (1 << 38, 16384)],
)
def test_a_larger_input_is_divided_into_more_pieces_of_the_same_size(tmp_path: Path, size: int, pieces: int) -> None:
    """A worker holds one piece, so the size of pieces bounds its memory."""
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.truncate(size)
    for make in (FuzzyDedup, ExactDedup):
        assert make(paths=str(tmp_path), path="out").pieces() == pieces
        assert make(paths=str(tmp_path), path="out", partitions=7).pieces() == 7
        assert make(paths=str(tmp_path / "not-yet"), format="jsonl", path="out").pieces() == 8


@pytest.mark.slow
def test_the_number_of_pieces_makes_no_difference(tmp_path: Path) -> None:
    data = write(tmp_path / "in", documents(9, 40))
    found = []
    for count in (1, 5, 64):
        place = tmp_path / str(count)
        FuzzyDedup(paths=data, path=str(place / "out"), partitions=count).run(HERE, run_dir=str(place / "run"))
        found.append((files_of(place / "out"), table(place / "run")))
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_words_that_exceed_the_memory_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All documents are in one partition, compared in blocks of a few documents, and decisions are written a few at a
    time."""
    data = write(tmp_path / "in", documents(9, 60))
    text = " ".join(WORDS[:60])
    large = [{"id": f"large-{number}", "text": text.replace("w30 ", f"x{number} ")} for number in range(300)]
    large += [{"id": f"chinese-{number}", "text": f"{CHINESE * 3} x{number}"} for number in range(300)]
    write(tmp_path / "in" / "more", large)
    found = []
    for name in ("at-once", "in-blocks"):
        place = tmp_path / name
        FuzzyDedup(paths=data, path=str(place / "out"), partitions=1).run(HERE, run_dir=str(place / "run"))
        found.append((files_of(place / "out", place / "run" / "decisions"), table(place / "run")))
        monkeypatch.setattr(verdicts.DecideGroups, "memory_words", 500)
        monkeypatch.setattr(verdicts, "decided_rows", partial(verdicts.decided_rows, most=100))
    assert found[0] == found[1]
    assert {row["component_size"] for row in found[0][1]} > {300}


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "ngram"), [("words", None), ("characters", None), ("characters", 5)])
def test_shingles_of_words_or_of_characters_in_any_script(tmp_path: Path, unit: str, ngram: int | None) -> None:
    """A copy with line breaks inside words has the same characters but other words."""
    english = (
        "The committee met on Monday and agreed to publish the report about harvests in the northern valleys, although "
        "several members asked for another year of measurements before anything was printed or sent to the ministry."
    )
    broken = "\n".join(english[at : at + 17] for at in range(0, len(english), 17))
    edited = english.replace("Monday", "Friday")
    chinese, thai = (
        CHINESE + "\u4ed6\u5728\u8def\u4e0a\u770b\u89c1\u4e00\u53ea\u5c0f\u732b" * 2,
        f"{THAI} {THAI[::2]} {THAI[::3]}",
    )
    texts = {
        "english": english,
        "english-edited": edited,
        "english-broken": broken,
        "english-other": " ".join(reversed(english.split())),
        "chinese": chinese,
        "chinese-edited": f"{chinese}\u5440",
        "chinese-other": chinese[::-1],
        "thai": thai,
        "thai-edited": f"{thai} \u0e14\u0e35",
        "thai-other": f"{THAI[::-3]} {THAI[::-2]}",
    }
    write(tmp_path / "in", [{"id": name, "text": text} for name, text in texts.items()], files=1)
    length = "" if ngram is None else f"    ngram: {ngram}\n"
    file = tmp_path / "dedup.yaml"
    file.write_text(
        "name: units\nworkflow:\n  FuzzyDedup:\n    paths: in/\n    path: out/\n    keep: [first]\n    partitions: 2\n"
        f"    unit: {unit}\n    threshold: 0.7\n{length}run_dir: run\n"
    )
    workflow = load_pipeline(file).workflow
    assert workflow is not None
    workflow.run(HERE, run_dir=str(tmp_path / "run"))
    gone = {(row["id"], row["witness_id"]) for row in table(tmp_path / "run") if row["decision"] == "removed"}
    expected = {(f"{script}-edited", script) for script in ("english", "chinese", "thai")}
    assert gone == expected | ({("english-broken", "english")} if unit == "characters" else set())
    decided_by = Decisions.open(str(tmp_path / "run" / "decisions")).settings
    spans, _ = FuzzyDedup.spans(english, edited, decided_by)
    only = [english[start:stop] for start, stop, shared in spans if not shared]
    assert only == ["Monday " if unit == "words" else "Mon"]


@pytest.mark.slow
def test_with_scope_per_collection_only_documents_of_one_collection_are_compared(tmp_path: Path) -> None:
    text = " ".join(WORDS[:50])
    rows = [{"id": str(number), "text": text} for number in range(4)]
    data = write(tmp_path / "in", rows, files=4)  # 0 and 2 in part0, 1 and 3 in part1
    for make in (FuzzyDedup, ExactDedup):
        place = tmp_path / make.__name__
        make(paths=data, path=str(place / "out"), scope="per_collection").run(HERE, run_dir=str(place / "run"))
        assert {
            (row["id"], row["witness_id"], row["collection"])
            for row in table(place / "run")
            if row["decision"] == "removed"
        } == {
            ("2", "0", "part0"),
            ("3", "1", "part1"),
        }


def test_the_collection_of_a_row_is_the_folder_of_its_file_whatever_else_its_task_holds(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_text("x")
    source, read = TextFilesReader(paths=str(tmp_path), files_per_partition=9).decompose()
    (task,) = source.process(EmptyTask())
    (found,) = read.process(task)
    found._metadata = task._metadata
    keys = ExactKeys(path="keys", bases=[str(tmp_path)])
    assert keys.collections(found).to_pylist() == ["a", "b"]
    assert keys.collections(found.filter(pa.array([False, True]))).to_pylist() == ["b"]
    with pytest.raises(UsageError, match=r"files of several \(a, b\).*files_per_partition: 1"):
        keys.collections(found.with_data(found.to_pyarrow().take([1, 0])))


@pytest.mark.slow
def test_the_rank_of_collections_decides_which_document_stays(tmp_path: Path) -> None:
    text = " ".join(WORDS[:50])
    data = write(tmp_path / "in", [{"id": "0", "text": text + " longer"}, {"id": "1", "text": text}], files=2)
    FuzzyDedup(paths=data, path=str(tmp_path / "out"), keep=[{"rank": ["part1"]}, "longest"]).run(
        HERE, run_dir=str(tmp_path / "run")
    )
    assert told(tmp_path / "run") == {("0", "removed", "1"), ("1", "kept", None)}


@pytest.mark.slow
def test_with_annotate_all_documents_stay_and_have_the_decisions(tmp_path: Path) -> None:
    rows = documents(5, 30)
    data = write(tmp_path / "in", rows)
    FuzzyDedup(paths=data, path=str(tmp_path / "out"), mode="annotate").run(HERE, run_dir=str(tmp_path / "run"))
    lines = [json.loads(line) for path in (tmp_path / "out").rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(lines) == len(rows)
    removed = {row["id"]: row for row in table(tmp_path / "run") if row["decision"] == "removed"}
    assert {line["id"]: line["duplicate_of"] for line in lines if line["duplicate_of"]} == {
        name: row["witness_id"] for name, row in removed.items()
    }


@pytest.mark.slow
def test_stricter_limits_undo_removals_and_keep_the_witnesses(tmp_path: Path) -> None:
    data = write(tmp_path / "in", documents(6, 60))
    FuzzyDedup(paths=data, path=str(tmp_path / "out")).run(HERE, run_dir=str(tmp_path / "run"))
    before = {row["id"]: row for row in table(tmp_path / "run") if row["decision"] == "removed"}
    made = rethreshold(str(tmp_path / "run" / "decisions"), str(tmp_path / "strict" / "decisions"), threshold=0.95)
    after = {row["id"]: row for row in table(tmp_path / "strict") if row["decision"] == "removed"}
    assert made.removed == len(after) < len(before)
    assert after.keys() == {name for name, row in before.items() if row["containment"] >= 0.95}
    assert all(row["witness_id"] == before[name]["witness_id"] for name, row in after.items())


@pytest.mark.slow
def test_readers_and_writers_can_be_given(tmp_path: Path) -> None:
    data = write(tmp_path / "in", documents(7, 20))
    work = ExactDedup(
        reader=JsonlReader(paths=data), writer=JsonlWriter(path=str(tmp_path / "out"), compression="gzip")
    )
    work.run(HERE, run_dir=str(tmp_path / "run"))
    assert list((tmp_path / "out").glob("*.jsonl.gz"))


@pytest.mark.slow
def test_exact_deduplication_compares_any_column(tmp_path: Path) -> None:
    rows = [
        {"id": str(number), "url": url, "text": str(number)} for number, url in enumerate(["a", "b", "a", None, None])
    ]
    data = write(tmp_path / "in", rows, files=1)
    ExactDedup(paths=data, path=str(tmp_path / "out"), column="url", keep=["first"]).run(
        HERE, run_dir=str(tmp_path / "run")
    )
    assert kept(tmp_path / "out") == ["0", "1", "3", "4"]


def test_texts_that_differ_only_before_normalization_are_equal(tmp_path: Path) -> None:
    rows = [
        {"id": str(number), "text": text}
        for number, text in enumerate(["Hello, World", "hello   world!", "hello worlds"])
    ]
    data = write(tmp_path / "in", rows, files=1)
    ExactDedup(paths=data, path=str(tmp_path / "out"), normalize=True).run(HERE, run_dir=str(tmp_path / "run"))
    assert kept(tmp_path / "out") == ["1", "2"] or kept(tmp_path / "out") == ["0", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 5])
@pytest.mark.parametrize("how", ["a row more", "another text"])
def test_files_that_changed_between_two_steps_are_refused(tmp_path: Path, step: int, how: str) -> None:
    data = write(tmp_path / "in", documents(8, 20), files=1)
    path = next(Path(data).rglob("*.jsonl"))

    def change(state: Any) -> None:
        if state.step == step and state.state == "done":
            row = json.dumps({"id": "late", "text": "one more"}) + "\n"
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join([*lines, row] if how == "a row more" else [row, *lines[1:]]))

    with pytest.raises(RunRefused, match="has changed since"):
        FuzzyDedup(paths=data, path=str(tmp_path / "out")).run(HERE, run_dir=str(tmp_path / "run"), progress=change)
    assert not list((tmp_path / "out").glob("*.jsonl"))


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({}, "reads paths, or uses a reader"),
        ({"paths": "in", "keep": "longest"}, "FuzzyDedup.keep must be a list"),
        ({"paths": "in", "rule": "near"}, "rule 'near' does not exist"),
        ({"paths": "in", "threshold": 1.5}, "threshold must be .* not 1.5"),
        ({"paths": "in", "normalize": True}, "and always ignores case"),
        ({"paths": "in", "scope": "all"}, "scope must be 'global' or 'per_collection'"),
        ({"paths": "in", "column": ""}, "column must be the name of a column"),
    ],
)
def test_meaningless_parameters_are_refused(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        FuzzyDedup(**parameters)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ExactDedup, FuzzyDedup])
def test_a_source_that_disappears_during_deduplication_is_detected(tmp_path: Path, kind: type[ExactDedup]) -> None:
    """Documents of other files may have been removed for a document in it."""
    source = write(tmp_path / "in", documents(count=10))
    lost = sorted((tmp_path / "in").rglob("*.jsonl"))[1]

    class Losing(kind):  # type: ignore[misc, valid-type]
        def steps(self, work_dir: str) -> Any:
            for step in super().steps(work_dir):
                if getattr(step, "of", step).name == "table" and (Path(work_dir) / "decided").exists():
                    lost.unlink(missing_ok=True)
                yield step

    with pytest.raises(RunRefused, match=rf"{lost.name}'? no longer exists, and its documents were compared.*--fresh"):
        Losing(paths=source, path=str(tmp_path / "out")).run(HERE, run_dir=tmp_path / "run")
    assert not list((tmp_path / "out").rglob("*.jsonl"))
