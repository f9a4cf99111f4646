"""The labels of the deduplication corpus are right, and the checking script finds violations."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

# All of these tests share one slow set-up, which one worker makes for all of them.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dedup-truth")]

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
DOCUMENTS = 200


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def truth() -> ModuleType:
    return loaded("dedup_truth")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text that is on every machine: some of Python's own files, used as if they were a package."""
    folder = tmp_path_factory.mktemp("sources") / "library"
    root = Path(sysconfig.get_path("stdlib"))
    # Enough for the documents below, since reading sources takes most of the time.
    for path in sorted([*root.glob("[a-q]*.py"), *root.glob("email/*.py")]):
        if path.stat().st_size > 8000:
            target = folder / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return folder.parent


def make(folder: Path, sources: Path, *options: str, seed: str = "0") -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / "make_dedup.py"), str(folder), "--sources", str(sources), *options]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONHASHSEED": seed}
    )
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, sources: Path) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    make(folder, sources, "--documents", str(DOCUMENTS))
    return folder


def rows_of(corpus: Path) -> dict[str, dict[str, Any]]:
    """Every document with its labels."""
    lines = [
        json.loads(line) | {"file": path.relative_to(corpus / "jsonl").as_posix(), "row": row}
        for path in sorted((corpus / "jsonl").rglob("*.jsonl"))
        for row, line in enumerate(path.read_text(encoding="utf-8").splitlines())
    ]
    assert all(line.keys() == {"id", "text", "url", "file", "row"} for line in lines), (
        "labels are nowhere in the documents"
    )
    labels = {one["id"]: one for one in pq.read_table(corpus / "labels.parquet").to_pylist()}
    assert len(lines) == len(labels)
    for line in lines:
        assert (line["file"], line["row"]) == (labels[line["id"]]["file"], labels[line["id"]]["row"])
    return {line["id"]: labels[line["id"]] | line for line in lines}


def test_the_corpus_depends_only_on_its_options(tmp_path: Path, sources: Path, corpus: Path) -> None:
    assert make(tmp_path, sources, "--documents", str(DOCUMENTS), seed="7") == json.loads(
        (corpus / "corpus.json").read_text()
    )
    assert pq.read_table(tmp_path / "labels.parquet").equals(pq.read_table(corpus / "labels.parquet"))


def test_copies_match_their_labels(corpus: Path) -> None:
    rows = rows_of(corpus)
    kinds = Counter(row["kind"] for row in rows.values())
    assert kinds["exact"] == kinds["near"] == DOCUMENTS // 10
    for row in rows.values():
        text = row["text"]
        if row["original"] is None:
            assert row["kind"] == "base" or row["kind"].startswith("trap_")
            continue
        original = rows[row["original"]]["text"]
        assert rows[row["original"]]["kind"] == "base"
        if row["kind"] == "exact":
            assert text == original
        elif row["kind"] == "near":
            changed = Counter(original.split()) - Counter(text.split())
            count = len(original.split())
            assert text != original
            assert changed.total() <= max(1, round(count * row["rate"]))
        elif row["kind"] == "contained":
            assert original in text
            assert abs(math.log2(len(text) / len(original) / row["ratio"])) < 0.55, (
                "the nearest of those that there are"
            )
        elif row["form"] == "nfd":
            assert text != original
            assert unicodedata.normalize("NFC", text) == unicodedata.normalize("NFC", original)
        elif row["form"] != "punctuation":
            assert text.lower().split() == original.lower().split()


def test_the_trap_consists_of_different_documents_with_shared_text(corpus: Path) -> None:
    rows = [row for row in rows_of(corpus).values() if row["kind"].startswith("trap_")]
    assert len(rows) == DOCUMENTS * 20 // 100
    assert {row["kind"] for row in rows} == {"trap_prose", "trap_code", "trap_dialogue"}
    words = [re.findall(r"[^\W_]+", row["text"].lower()) for row in rows]
    shingles = [set(zip(one, one[1:], one[2:], strict=False)) for one in words]
    for index, row in enumerate(rows):
        assert 20 <= row["own_words"] <= 82
        if row["kind"] == "trap_prose":
            assert 0.58 <= 1 - row["own_words"] / len(words[index]) <= 0.91
        for other in range(index):
            own = len(shingles[index] - shingles[other])
            assert own >= row["own_words"] / 2, "no two have the same words of their own"


def test_large_corpora_have_copies_across_blocks_and_buckets_on_demand(tmp_path: Path, sources: Path) -> None:
    facts = make(
        tmp_path,
        sources,
        *("--documents", "600", "--block", "300", "--base", "recombined", "--words", "12"),
        *("--copies", "30", "--bucket", "20", "--trap-bucket", "10"),
    )
    assert facts["documents"] == 660
    rows = rows_of(tmp_path)
    blocks = Counter(
        int(row["id"][4:]) // 300 - int(row["original"][4:]) // 300
        for row in rows.values()
        if row["kind"] in ("exact", "near")
    )
    assert blocks[0] > 0
    assert blocks[1] > 0, "originals from an earlier block"
    assert len({row["text"] for row in rows.values() if row["kind"] == "copy"}) == 1
    bucket = [row["text"].split() for row in rows.values() if row["kind"] == "bucket"]
    assert all(sum(a != b for a, b in zip(one, bucket[0], strict=True)) == 1 for one in bucket[1:])
    assert len({row["text"] for row in rows.values() if row["kind"] == "trap_bucket"}) == 10


def test_words_and_shingles_equal_those_computed_by_hand(truth: ModuleType) -> None:
    assert truth.words_of("The CAFE\u0301's  x_1, 2") == ["the", "café", "s", "x", "1", "2"]
    assert truth.words_of("\ufb01ne \uff21\uff22 so\u00adft") == ["fine", "ab", "soft"]
    assert truth.words_of("我们 ok ที่") == ["我", "们", "ok", "ที่"]
    assert truth.words_of("a \u203e\u203e b") == ["a", "b"], "a mark without a letter"
    assert truth.shingle_bounds(list("abcd")) == [(0, 3), (1, 4)]
    assert truth.shingle_bounds(["a", "b"]) == [(0, 2)]
    assert truth.shingle_bounds(list("我们是中国人")) == [(0, 5), (1, 6)]
    assert truth.shingle_bounds(["a", "b", "c", "我"]) == [(0, 4)]
    assert truth.shingle_bounds([]) == []


def test_new_words_equal_those_of_a_plain_count(truth: ModuleType) -> None:
    rng = random.Random(5)
    shingler = truth.Shingler()
    for _ in range(200):
        one, other = (" ".join(rng.choices("abcd", k=rng.randint(1, 60))) for _ in range(2))
        document, witness = (truth.Document(name, "f", 0, text) for name, text in (("a", one), ("b", other)))
        shingler.fill(document)
        shingler.fill(witness)
        words, theirs = one.split(), other.split()
        spans = truth.shingle_bounds(words)
        has = {tuple(theirs[a:b]) for a, b in truth.shingle_bounds(theirs)}
        own = {tuple(words[a:b]) for a, b in spans}
        covered = {at for a, b in spans if tuple(words[a:b]) in has for at in range(a, b)}
        lacking = [at not in covered for at in range(len(words))]
        most = max(sum(lacking[at : at + 25]) for at in range(max(1, len(words) - 24)))
        expected = (len(own & has) / len(own | has), len(own & has) / len(own), most)
        assert truth.compare(document, witness) == pytest.approx(expected), (one, other)


def decided(truth: ModuleType, corpus: Path) -> list[dict[str, Any]]:
    """A correct table, made by comparing each document with all earlier ones."""
    rows = rows_of(corpus)
    shingler, rule = truth.Shingler(), truth.Rule("nothing_new", 0.8, 12)
    documents = list(truth.read(corpus).values())
    for document in documents:
        shingler.fill(document)
    documents.sort(key=lambda one: (-len(one.text), one.file, one.row))
    stay: list[Any] = []
    table = []
    for document in documents:
        equal = [one for one in stay if truth.equal(one, document)]
        near = (one for one in stay if rule.meets(*truth.compare(document, one)))
        witness = equal[0] if equal else next(near, None)
        if witness is None:
            stay.append(document)
            continue
        jaccard, containment, new = truth.compare(document, witness)
        table.append(
            {"id": document.id, "decision": "removed", "witness_id": witness.id, "jaccard": jaccard}
            | {"containment": containment, "new_words": new, "rule": "exact" if equal else "nothing_new"}
        )
    sizes = Counter(one["witness_id"] for one in table)
    table += [{"id": name, "decision": "kept", "witness_id": None, "rule": None} for name in sizes]
    for one in table:
        one["source"] = f"/somewhere/{rows[one['id']]['file']}"
        one["row"] = rows[one["id"]]["row"]
        one["cluster_size"] = 1 + sizes[one["witness_id"] or one["id"]]
        for figure in ("jaccard", "containment", "new_words"):
            one.setdefault(figure, None)
    return table


@pytest.fixture(scope="module")
def right(truth: ModuleType, corpus: Path) -> list[dict[str, Any]]:
    return decided(truth, corpus)


@dataclass
class Judge:
    """Calls the script's `main`: as a process, it needs more than a second for its tables of characters alone."""

    truth: ModuleType
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, corpus: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
        self.monkeypatch.setattr(sys, "argv", ["dedup_truth.py", str(corpus), *options])
        code = self.truth.main()
        return with_metrics(code, self.capsys.readouterr().out)

    def of_table(
        self, folder: Path, corpus: Path, table: list[dict[str, Any]], *options: str
    ) -> tuple[int, str, dict[str, Any]]:
        return self(corpus, "--run", str(run_of(folder, table)), *options)


@pytest.fixture
def judged(truth: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Judge:
    return Judge(truth, monkeypatch, capsys)


def run_of(folder: Path, table: list[dict[str, Any]]) -> Path:
    (folder / "run" / "decisions").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table), folder / "run" / "decisions" / "part-0.parquet")
    return folder / "run"


def with_metrics(code: int, said: str) -> tuple[int, str, dict[str, Any]]:
    metrics = [line.removeprefix("BENCH ") for line in said.splitlines() if line.startswith("BENCH ")]
    assert metrics, said
    return code, said, json.loads(metrics[0])


def written(folder: Path, corpus: Path, table: list[dict[str, Any]]) -> Path:
    gone = {one["id"] for one in table if one["decision"] == "removed"}
    lines = [
        line for path in (corpus / "jsonl").rglob("*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()
    ]
    (folder / "out").mkdir()
    (folder / "out" / "all.jsonl").write_text(
        "".join(f"{line}\n" for line in lines if json.loads(line)["id"] not in gone), encoding="utf-8"
    )
    return folder / "out"


def test_a_correct_table_has_no_violation_and_full_recall(
    tmp_path: Path, corpus: Path, right: list[dict[str, Any]], judged: Judge
) -> None:
    output = written(tmp_path, corpus, right)
    code, said, metrics = judged.of_table(tmp_path, corpus, right, "--recall", "--output", str(output))
    assert code == 0, said
    assert metrics["violations"] == 0
    assert metrics["exact_recall"] == metrics["exact_precision"] == metrics["recall"] == 1
    assert metrics["recall_of"] > 30
    assert metrics["count_removed_trap_prose_40_or_more"] == 0
    assert metrics["label_exact"] == 1
    assert max(share for name, share in metrics.items() if name.startswith("label_near_0.0")) == 1


def test_the_script_ends_with_its_verdict(
    tmp_path: Path, corpus: Path, right: list[dict[str, Any]], judged: Judge
) -> None:
    for number, table in enumerate((right, broken("equal texts stay", right, rows_of(corpus)))):
        options = [str(corpus), "--run", str(run_of(tmp_path / str(number), table))]
        command = [sys.executable, str(BENCHMARKS / "dedup_truth.py"), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == number, done.stderr
        _, _, metrics = with_metrics(done.returncode, done.stdout)
        _, _, expected = judged(corpus, *options[1:])
        assert metrics | {"truth_s": 0} == expected | {"truth_s": 0}


def broken(name: str, table: list[dict[str, Any]], rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    table = [dict(one) for one in table]
    removed = [one for one in table if one["decision"] == "removed"]
    near = next(one for one in removed if one["rule"] == "nothing_new")
    match name:
        case "the witness does not stay":
            table = [one for one in table if one["id"] != near["witness_id"]]
            table.append(dict(removed[-1], id=near["witness_id"], **{k: rows[near["witness_id"]][k] for k in ("row",)}))
        case "the rule is not met":
            trap = [row for row in rows.values() if row["kind"] == "trap_prose" and row["own_words"] >= 40]
            trap.sort(key=lambda row: len(row["text"]))
            near |= {"id": trap[0]["id"], "witness_id": trap[-1]["id"]}
        case "jaccard is wrong for these texts":
            near["jaccard"] -= 0.001
        case "new_words is wrong for these texts":
            near["new_words"] += 1
        case "equal texts stay":
            table.remove(next(one for one in removed if one["rule"] == "exact"))
        case "removed as exact, but the texts differ":
            near["rule"] = "exact"
        case "source and row belong to another document":
            near["row"] += 1
        case "the size of the cluster is wrong":
            near["cluster_size"] += 1
        case "a row says kept, but its document is not a witness":
            names = {one["id"] for one in table}
            table.append(dict(table[-1], id=next(name for name in rows if name not in names)))
        case "a document has several rows":
            table.append(near)
        case "the witness is shorter":
            near["id"], near["witness_id"] = near["witness_id"], near["id"]
    return table


@pytest.mark.parametrize(
    "name",
    [
        "the witness does not stay",
        "the rule is not met",
        "jaccard is wrong for these texts",
        "new_words is wrong for these texts",
        "equal texts stay",
        "removed as exact, but the texts differ",
        "source and row belong to another document",
        "the size of the cluster is wrong",
        "a row says kept, but its document is not a witness",
        "a document has several rows",
        "the witness is shorter",
    ],
)
def test_errors_in_a_table_are_named(
    tmp_path: Path, corpus: Path, right: list[dict[str, Any]], judged: Judge, name: str
) -> None:
    code, said, metrics = judged.of_table(tmp_path, corpus, broken(name, right, rows_of(corpus)))
    assert code == 1
    assert metrics["violations"] > 0
    assert f"VIOLATION {name}" in said


def test_near_copies_that_stay_reduce_recall(
    tmp_path: Path, corpus: Path, right: list[dict[str, Any]], judged: Judge
) -> None:
    removed = [
        one for one in right if one["decision"] == "removed" and one["rule"] == "nothing_new" and one["jaccard"] >= 0.7
    ]
    left = [one for one in right if one not in removed[:5]]
    _, _, metrics = judged.of_table(tmp_path, corpus, left, "--recall")
    assert metrics["recall"] == pytest.approx(1 - 5 / metrics["recall_of"], abs=1e-4)
    assert metrics["recall_low"] < metrics["recall"]


def test_output_that_lacks_or_changes_a_document_is_a_violation(
    tmp_path: Path, corpus: Path, right: list[dict[str, Any]], judged: Judge
) -> None:
    file = written(tmp_path, corpus, right) / "all.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    changed = json.dumps(json.loads(lines[1]) | {"text": "another"})
    file.write_text("\n".join([changed, *lines[2:]]) + "\n", encoding="utf-8")
    _, said, _ = judged.of_table(tmp_path, corpus, right, "--output", str(file.parent))
    assert "VIOLATION a document that stays was not written once" in said
    assert "VIOLATION a document was written that is not in the input" in said


def test_ids_from_another_tool_are_judged_by_the_labels(tmp_path: Path, corpus: Path, judged: Judge) -> None:
    rows = rows_of(corpus)
    kept = tmp_path / "kept.txt"
    kept.write_text("\n".join(name for name, row in rows.items() if row["kind"] not in ("exact", "trap_prose")))
    code, _, metrics = judged(corpus, "--kept", str(kept))
    assert code == 0
    assert metrics["label_exact"] == 1
    assert metrics["label_removed_trap_prose_40_or_more"] == 1
    assert metrics["label_removed_base_alone"] == 0
    assert metrics["families_lost"] == 0
