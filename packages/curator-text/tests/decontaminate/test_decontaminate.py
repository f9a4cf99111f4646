"""Documents with parts of test sets are dropped, cut or marked, and every row and n-gram is accounted for."""

from __future__ import annotations

import bz2
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core.config.pipeline_file import load_pipeline
from curator_core.errors import StageError, UsageError
from curator_core.executors.local import LocalExecutor
from curator_core.model.task import DocumentBatch
from curator_core.pipeline import Pipeline
from curator_text.decontaminate import CountTestNgrams, Decontaminate, Decontamination
from curator_text.decontaminate.index import Runs
from curator_text.decontaminate.overlaps import without
from curator_text.decontaminate.report import REPORT, report_table
from curator_text.readers import JsonlReader
from curator_text.writers import JsonlWriter

from ..dedup import naive

HERE = LocalExecutor(workers=0)
CLIPS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did "
    "Natalia sell altogether in April and May?"
)
PLANET = "Which is the largest of all planets in our solar system?"
KING = "在一个遥远的国家里\uff0c有一位年轻的国王\uff0c他每天都要去森林里打猎\uff0c并且寻找那只传说中的金色小鸟。"
ITEMS = [
    {
        "id": "clips",
        "question": CLIPS,
        "choices": {"text": ["72", "Natalia sold seventy two clips in these two months"]},
    },
    {"id": "planet", "question": PLANET, "choices": None},
    {"id": "yes", "question": "Is it so?", "choices": None},
    {"id": "king", "question": KING, "choices": None},
]
FILLER = "The weather was fine that day and nobody thought of what would come of it in the years after. "


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    path = tmp_path / "tests" / "school.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    return path


def school(path: Path, **more: Any) -> dict[str, Any]:
    return {"school": {"paths": str(path), "fields": ["question", "choices.text"], **more}}


def batch(*texts: str | None, task_id: str = "s-1.00000") -> DocumentBatch:
    return DocumentBatch(data=pa.table({"text": pa.array(texts, pa.string())}), task_id=task_id)


def marked(path: Path, *texts: str | None, **options: Any) -> list[dict[str, Any]]:
    stage = Decontaminate(test_sets=school(path), mode="annotate", **options)
    rows: list[dict[str, Any]] = stage.process(batch(*texts)).to_pyarrow().to_pylist()
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "item", "share"),
    [
        (FILLER + CLIPS + " " + FILLER, "clips", 31 / 40),
        (FILLER + CLIPS.upper().replace(",", " —").replace("?", "…\n") + FILLER, "clips", 31 / 40),
        (FILLER + " ".join(CLIPS.split()[:13]) + ". " + FILLER, "clips", 13 / 40),
        ("NATALIA sold *seventy-two* clips, in these two months!", "clips", 9 / 40),
        (f"“{PLANET.lower()}” " + FILLER, "planet", 1.0),
        (FILLER + KING.replace("\uff0c", "").replace("。", "") + FILLER, "king", 1.0),
        ("他说\uff1a" + KING[:28], "king", 26 / 42),
    ],
)
def test_an_item_is_found_with_other_case_and_punctuation_at_the_reported_place(
    tests: Path, text: str, item: str, share: float
) -> None:
    (row,) = marked(tests, text)
    (found,) = row["overlaps"]
    assert (found["test_set"], found["item"]) == ("school", item)
    assert found["share"] == row["overlap_share"] == pytest.approx(share)
    ((start, end),) = found["offsets"]
    texts = [ITEMS[0]["question"], *ITEMS[0]["choices"]["text"], PLANET, KING]
    there = [word for word, _ in naive.words(text[start:end])]
    assert any(" ".join(there) in " ".join(word for word, _ in naive.words(other)) for other in texts)
    # The span is no longer than the shared words, and has no punctuation around it.
    assert naive.folded(text[start:end]).startswith(there[0])
    assert naive.folded(text[start:end]).endswith(there[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        FILLER,
        "Is it so? " + FILLER,  # too short to be searched for
        " ".join(CLIPS.split()[:12]),  # not a whole n-gram
        PLANET.rsplit(" ", 1)[0],  # a short text is found only as a whole
        CLIPS.replace("April", "June").replace("she", "he").replace("How", "And how").replace("sell", "sold"),
        KING[:23],  # 20 characters count as 12 words
    ],
)
def test_only_a_whole_ngram_is_an_overlap(tests: Path, text: str | None) -> None:
    assert marked(tests, text) == [{"text": text, "overlap_share": 0.0, "overlaps": []}]


@pytest.mark.slow
def test_a_text_does_not_continue_in_the_next_document(tests: Path) -> None:
    begun, rest = PLANET[: PLANET.index("solar")], "solar system? " + FILLER
    assert [row["overlaps"] for row in marked(tests, begun, rest, FILLER)] == [[], [], []]


def test_the_words_decide_and_not_their_numbers(tests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = marked(tests, FILLER, CLIPS, PLANET, KING, FILLER + PLANET)
    # All runs of words have the same number.
    monkeypatch.setattr(Runs, "numbers", lambda self, first, last: np.full(len(first), 7, np.uint64))
    assert marked(tests, FILLER, CLIPS, PLANET, KING, FILLER + PLANET) == wanted


def test_an_item_counts_if_it_has_the_requested_share_of_words(tests: Path) -> None:
    half = " ".join(CLIPS.split()[:14])
    assert marked(tests, half, min_share=0.35)[0]["overlap_share"] == pytest.approx(14 / 40)
    assert marked(tests, half, min_share=0.36)[0]["overlaps"] == []


# Modes -------------------------------------------------------------------------------------------------------------


def test_a_document_is_dropped_for_the_test_set_with_the_largest_share(tests: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(f"{CLIPS}\n\nNothing else is in here\n")
    stage = Decontaminate(test_sets={**school(tests), "other": str(other)})
    kept = stage.process(batch(FILLER, CLIPS, f"{PLANET} {FILLER}", None))
    assert kept.to_pyarrow()["text"].to_pylist() == [FILLER, None]
    assert stage.recorder.dropped == {"test set other": 1, "test set school": 1}


def test_a_cut_removes_the_overlap_its_margin_and_whole_words(tests: Path) -> None:
    stage = Decontaminate(test_sets=school(tests), mode="cut", margin=5, replacement="[…]")
    text = f"Before that, somebody asked: {CLIPS} Remarkably, nobody knew."
    cut, kept = "Before that, somebody […], nobody knew.", FILLER
    table = stage.process(batch(text, kept, PLANET)).to_pyarrow()
    assert table["text"].to_pylist() == [cut, kept]
    assert stage.recorder.dropped == {"nothing left of it": 1}


def test_values_that_are_not_text_stay_and_are_not_searched(tests: Path, tmp_path: Path) -> None:
    values = [FILLER, 5, None, [PLANET], f"{PLANET} {FILLER}"]
    kind = pa.json_(pa.utf8())
    spelled = [None if value is None else json.dumps(value) for value in values]
    column = pa.ExtensionArray.from_storage(kind, pa.array(spelled, pa.string()))
    given = DocumentBatch(data=pa.table({"text": column}), task_id="s-1.00000")
    left = {}
    for mode in ("drop", "cut", "annotate"):
        stage = Decontaminate(test_sets=school(tests), mode=mode, margin=0, replacement="")
        left[mode] = stage.process(given).to_pyarrow()
        assert left[mode]["text"].type == kind
    assert [json.loads(value) if value else None for value in left["drop"]["text"].to_pylist()] == values[:4]
    assert [json.loads(value) if value else None for value in left["cut"]["text"].to_pylist()] == [
        *values[:4],
        f"? {FILLER}",
    ]
    assert left["annotate"]["overlap_share"].to_pylist() == [0, 0, 0, 0, 1]
    count = CountTestNgrams(test_sets=school(tests), path=str(tmp_path / "counts"))
    count.process(given)
    assert not stage.recorder.rejects
    assert not count.recorder.rejects


def test_a_cut_at_an_end_leaves_no_replacement_and_too_many_cuts_drop_the_document(tests: Path) -> None:
    options: dict[str, Any] = {"test_sets": school(tests), "mode": "cut", "margin": 0}
    stage = Decontaminate(**options, max_cuts=2)
    twice = f"{PLANET}{FILLER}{PLANET}"
    table = stage.process(batch(twice, f"{PLANET}{FILLER}" * 3)).to_pyarrow()
    assert table["text"].to_pylist() == [f"?{FILLER}\n\n?"]
    assert stage.recorder.dropped == {"too many cuts": 1}
    assert Decontaminate(**options, max_cuts=None).process(batch(f"{PLANET}{FILLER}" * 3)).num_rows == 1


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    words=st.lists(st.sampled_from(["red", "Zürich", "fi\ufb01", "中", "国", "e\u0301", "a", "กำ"]), max_size=25),
    gaps=st.lists(st.sampled_from([" ", "", ", ", "\n\n", "…"]), min_size=25, max_size=25),
    margin=st.integers(0, 12),
    item=st.lists(st.sampled_from(["red", "Zürich", "中", "国", "a"]), min_size=2, max_size=4),
)
def test_a_cut_leaves_the_rest_of_the_words_in_their_order(words, gaps, margin, item, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "items.txt"
    path.write_text(" ".join(item))
    text = "".join(word + gap for word, gap in zip(words, gaps, strict=False))
    stage = Decontaminate(test_sets={"test": str(path)}, words=2, min_words=1, mode="cut")
    for overlap in stage.overlaps(pa.array([text])):
        left, cuts = without(text, overlap, margin, " | ")
        spelt = [word for word, _ in naive.words(text)]
        rest = [word for word, _ in naive.words(left or "")]
        assert 1 <= cuts <= len(overlap.spans)
        remaining = iter(spelt)
        assert all(word in remaining for word in rest)
        assert len(rest) < len(spelt)
        pieces = (left or "").split(" | ")
        at = 0
        for piece in pieces:  # each is in the text, after the one before
            at = text.index(piece, at) + len(piece)
        # No word that is closer to an overlap than the margin is left.
        removed = len(text) - sum(map(len, pieces)) if left is not None else len(text)
        assert removed >= sum(end - start for start, end in overlap.spans)


# Frequent n-grams --------------------------------------------------------------------------------------------------


def counted(path: Path, sets: dict[str, Any], batches: list[DocumentBatch]) -> str:
    stage = CountTestNgrams(test_sets=sets, path=str(path / "counts"))
    for task in batches:
        stage.process(task)
    stage.finish(stage.recorder.outputs)
    return str(path / "counts")


def test_ngrams_of_many_documents_do_not_count_unless_a_longer_item_is_nearly_complete(
    tests: Path, tmp_path: Path
) -> None:
    start = " ".join(CLIPS.split()[:16])
    batches = [
        batch(*[f"{start} number {number}" for number in range(3)], CLIPS, PLANET, task_id="s-1.00000"),
        batch(*[f"{PLANET} {PLANET}"] * 2, task_id="s-1.00001"),
    ]
    counts = counted(tmp_path, school(tests), batches)
    rows = [row for task in batches for row in noted(tests, task, counts_path=counts, max_documents=3)]
    # The beginning is in four documents, the planets are in three: only the fourth has more of the item.
    assert [round(row["overlap_share"] * 40) for row in rows[:3]] == [0, 0, 0]
    assert rows[3]["overlap_share"] == pytest.approx(15 / 40 + 12 / 40)
    assert [row["overlap_share"] for row in rows[4:]] == [1.0, 1.0, 1.0]
    rows = [
        row for task in batches for row in noted(tests, task, counts_path=counts, max_documents=3, certain_share=0.7)
    ]
    assert rows[3]["overlap_share"] == pytest.approx(31 / 40)
    assert rows[0]["overlaps"] == []
    # A short text is not longer than two n-grams, so it does not count even if all of it is found.
    rows = [row for task in batches for row in noted(tests, task, counts_path=counts, max_documents=2)]
    assert [row["overlap_share"] for row in rows[4:]] == [0.0, 0.0, 0.0]


def noted(path: Path, task: DocumentBatch, **options: Any) -> list[dict[str, Any]]:
    stage = Decontaminate(test_sets=school(path), mode="annotate", **options)
    rows: list[dict[str, Any]] = stage.process(task).to_pyarrow().to_pylist()
    return rows


def test_counts_of_other_test_sets_are_refused(tests: Path, tmp_path: Path) -> None:
    counts = counted(tmp_path, school(tests), [batch(CLIPS)])
    with pytest.raises(UsageError, match="belong to other test sets, or to n-grams of other lengths"):
        marked(tests, CLIPS, counts_path=counts, words=12)
    tests.write_text(json.dumps(ITEMS[0]))
    with pytest.raises(UsageError, match="count again with CountTestNgrams"):
        Decontaminate(test_sets={"school": {"paths": str(tests), "fields": "question"}}, counts_path=counts).rule()
    with pytest.raises(UsageError, match="contains no complete counts"):
        marked(tests, CLIPS, counts_path=str(tmp_path))


# Test files --------------------------------------------------------------------------------------------------------


def test_items_come_from_parquet_lists_compressed_files_and_folders(tests: Path, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    rows = [{"question": item["question"], "n": number} for number, item in enumerate(ITEMS)]
    pq.write_table(pa.Table.from_pylist(rows[:1]), folder / "a.parquet")
    (folder / "b.json").write_text(json.dumps(rows[1:2], indent=1))
    (folder / "c.jsonl.bz2").write_bytes(bz2.compress(b"\xef\xbb\xbf" + json.dumps(rows[3]).encode() + b"\n\n"))
    stage = Decontaminate(test_sets={"all": {"paths": str(folder), "fields": "question"}}, mode="annotate")
    found = stage.process(batch(CLIPS, PLANET, KING)).to_pyarrow()["overlaps"].to_pylist()
    assert [[item["item"] for item in row] for row in found] == [["a.parquet:1"], ["b.json:1"], ["c.jsonl.bz2:1"]]
    assert stage.index().items == ("a.parquet:1", "b.json:1", "c.jsonl.bz2:1")
    by_number = {"all": {"paths": [str(folder / "a.parquet")], "fields": ["question"], "id": "n"}}
    assert Decontaminate(test_sets=by_number).index().items == ("0",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "must be a mapping from the name of each test set to its files"),
        ({"a": {}}, r"test_sets\['a'\] needs paths"),
        ({"a": {"paths": "x", "field": "q"}}, "takes paths, fields, id, not 'field'; did you mean 'fields'"),
        ({"a": {"paths": "x", "fields": []}}, r"fields must be a list of names, such as \['question'\], not \[\]"),
        ({"a": {"paths": "x", "id": 3}}, "id must be the name of a field, not 3"),
        ({"a": 3}, r"test_sets\['a'\] must be a path, a pattern, a folder, or a list of these, not 3"),
        ({"": "x"}, "the name of a test set is a line of text, not ''"),
    ],
)
def test_meaningless_test_sets_are_refused_when_the_stage_is_made(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Decontaminate(test_sets=given)


@pytest.mark.parametrize(
    ("name", "content", "more", "message"),
    [
        (
            "a.jsonl",
            b'{"question": "a"}\n{"question": \n',
            {},
            r"test set 'bad': a.jsonl:2 is not JSON: .*It begins b'",
        ),
        ("a.jsonl", b'"only text"', {}, "a.jsonl:1 must be an object with fields, not 'only text'"),
        ("a.json", b'[{"question": "a"}, 3]', {}, "a.json, item 2, must be an object with fields, not 3"),
        (
            "a.jsonl",
            b'{"questoin": "a"}',
            {},
            "has no field 'question'; did you mean 'questoin'.*It has questoin: name",
        ),
        ("a.jsonl", b"\n", {}, "its files hold no item: "),
        (
            "a.jsonl",
            b'{"question": {"b": null}}',
            {"fields": ["question.b.c"]},
            "'question.b.c' contains no text in any row",
        ),
        ("a.jsonl", b'{"question": 3}', {}, "the field 'question' contains no text in any row of .*a.jsonl"),
        ("a.jsonl", b'{"question": "a"}', {"id": "key"}, "a.jsonl:1 has no field 'key', which is declared as the id"),
        ("a.parquet", b"PAR1 and no more", {}, "cannot be read as Parquet"),
        ("a.jsonl.gz", b"\x1f\x8b\x08\x00damaged", {}, "cannot be read"),
        ("a.csv", b"question\na", {}, "a.csv' is not a file that test sets can be read from. They are JSON lines"),
        ("a.txt", b"a", {}, "is text and has no fields: leave out fields and id"),
        ("a.txt", b"\xff\xfe", {"fields": None}, "a.txt:1 is not UTF-8"),
    ],
)
def test_an_unusable_test_file_is_named_with_its_line(
    tmp_path: Path, name: str, content: bytes, more: dict[str, Any], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    given = {"bad": {"paths": str(tmp_path / name), "fields": ["question"], **more}}
    with pytest.raises(UsageError, match=message):
        Decontaminate(test_sets=given).index()


def test_test_sets_without_files_or_beyond_the_memory_limit_are_refused(tests: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="test set 'none': "):
        Decontaminate(test_sets={"none": str(tmp_path / "none" / "*.jsonl")}).index()
    (tmp_path / "long.txt").write_text("word " * 200_000)
    with pytest.raises(
        UsageError, match=r"the test sets are too large.*does not cover all of test set 'long'.*raise memory"
    ):
        Decontaminate(test_sets={"long": str(tmp_path / "long.txt")}, memory="10MB").index()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"words": 0}, "Decontaminate.words must be a whole number of 1 or more, not 0"),
        ({"min_words": 14}, "min_words is 14, which is more than the 13 words of an n-gram"),
        ({"mode": "remove"}, "mode must be one of drop, cut, annotate, not 'remove'"),
        ({"min_share": 2}, "min_share must be a number from 0 to 1, not 2"),
        ({"margin": -1}, "margin must be a whole number of 0 or more, not -1"),
        ({"score_column": "overlaps"}, "are both 'overlaps'"),
        ({"memory": "much"}, "Decontaminate.memory must be a number of bytes"),
        ({"counts_path": ""}, "counts_path must be the folder of CountTestNgrams, not ''"),
    ],
)
def test_parameters_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Decontaminate(test_sets={"a": "a.txt"}, **options)


def test_a_report_has_the_largest_shares_and_refuses_parts_of_other_test_sets(tests: Path, tmp_path: Path) -> None:
    words = CLIPS.split()
    texts = [f"{' '.join(words[: 14 + number])} {FILLER}" for number in range(14)]
    stage = Decontaminate(test_sets=school(tests), report_path=str(tmp_path / "report"))
    for number in range(0, 14, 7):
        stage.process(batch(*texts[number : number + 7], task_id=f"s-1.{number:05d}"))
    parts = stage.recorder.outputs
    stage.finish(parts)
    (about,) = json.loads((tmp_path / "report" / REPORT).read_text())["test_sets"]
    assert [round(example["share"] * 40) for example in about["examples"]] == [*range(27, 17, -1)]
    assert (about["documents"], about["found"], about["examples"][0]["batch"]) == (14, 1, "s-1.00007")
    tests.write_text(json.dumps(ITEMS[0]))
    with pytest.raises(UsageError, match="belongs to other versions of the test sets"):
        Decontaminate(test_sets=school(tests), report_path=str(tmp_path / "report")).finish(parts)


# Runs --------------------------------------------------------------------------------------------------------------


def data(folder: Path, files: int = 3) -> dict[str, list[dict[str, Any]]]:
    folder.mkdir()
    rows: dict[str, list[dict[str, Any]]] = {}
    for number in range(files):
        texts = [FILLER, f"{FILLER}{CLIPS}", f"{PLANET} {FILLER}", f"{KING}{number}", None]
        rows[f"{number}.jsonl"] = [{"id": f"{number}-{at}", "text": text} for at, text in enumerate(texts)]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[f"{number}.jsonl"]))
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["drop", "cut", "annotate"])
def test_a_pipeline_file_gives_the_same_files_and_report_with_one_worker_and_with_two(
    tests: Path, tmp_path: Path, mode: str
) -> None:
    rows = data(tmp_path / "in")
    file = tmp_path / "clean.yaml"
    file.write_text(
        f"""
stages:
  - JsonlReader: {{paths: in/*.jsonl}}
  - Decontaminate:
      test_sets: {{school: {{paths: tests/school.jsonl, fields: [question]}}}}
      mode: {mode}
      margin: 0
      report_path: report
  - JsonlWriter: {{path: out}}
"""
    )
    found = []
    for workers in (0, 1, 2):
        result = load_pipeline(file).pipeline().run(LocalExecutor(workers=workers), fresh=True)
        stages = {stage.name: stage for stage in result.summary.stages}
        stage = stages["Decontaminate"]
        assert stage.rows_in == 15 == stage.rows_out + stage.rows_dropped
        found.append({p.name: p.read_bytes() for p in sorted((tmp_path / "out").glob("*.jsonl"))})
        report = (tmp_path / "report" / REPORT).read_bytes()
        found[-1][REPORT] = report
    assert found[0] == found[1] == found[2]
    (about,) = json.loads(report)["test_sets"]
    assert {key: about[key] for key in ("name", "items", "too_short", "found", "documents")} == {
        "name": "school",
        "items": 4,
        "too_short": 1,
        "found": 3,
        "documents": 9,
    }
    first = about["examples"][0]
    assert (first["item"], first["share"], first["id"]) == ("clips", 1.0, "0-1")
    assert rows["0.jsonl"][1]["text"][slice(*first["offsets"][0])] == first["text"] == CLIPS.rstrip("?")
    assert "school" in report_table(json.loads(report))
    assert stage.dropped == (
        {"test set school": 9} if mode == "drop" else {"nothing left of it": 0} if False else stage.dropped
    )


def test_a_broken_test_file_ends_the_run_and_is_named(tests: Path, tmp_path: Path) -> None:
    data(tmp_path / "in", 1)
    tests.write_text("{")
    pipeline = Pipeline(
        [
            JsonlReader(paths=str(tmp_path / "in")),
            Decontaminate(test_sets=school(tests)),
            JsonlWriter(path=str(tmp_path / "out")),
        ]
    )
    with pytest.raises((StageError, UsageError), match=r"school.jsonl:1 is not JSON"):
        pipeline.run(HERE)


def workflow_file(tmp_path: Path, **more: Any) -> Path:
    file = tmp_path / "workflow.yaml"
    given = {
        "paths": "in/*.jsonl",
        "path": "out",
        "test_sets": {"school": {"paths": "tests/school.jsonl", "fields": ["question"]}},
        "max_documents": 3,
        **more,
    }
    file.write_text(json.dumps({"workflow": {"Decontamination": given}}))
    return file


@pytest.mark.slow
def test_the_workflow_counts_first_and_gives_the_same_files_whatever_the_workers(tests: Path, tmp_path: Path) -> None:
    data(tmp_path / "in")
    start = " ".join(CLIPS.split()[:16])
    common = [{"id": f"c{number}", "text": f"{start} {FILLER}{number}"} for number in range(5)]
    (tmp_path / "in" / "3.jsonl").write_text("".join(json.dumps(row) + "\n" for row in common))
    found = []
    for workers in (0, 1, 2):
        run = tmp_path / f"run-{workers}"
        workflow = load_pipeline(workflow_file(tmp_path)).workflow
        assert workflow is not None
        summary = workflow.run(LocalExecutor(workers=workers), run_dir=str(run), fresh=True).summary
        # The whole items are removed, although their beginnings are in eight documents; the beginning alone is common.
        assert (summary.rows_in, summary.rows_dropped) == (20, 9)
        assert {"test set school": 9} in [stage.dropped for stage in summary.stages]
        found.append({p.name: p.read_bytes() for p in sorted((tmp_path / "out").glob("*.jsonl"))})
        found[-1] |= {p.name: p.read_bytes() for p in sorted((run / "decontamination").glob("*.json"))}
    assert found[0] == found[1] == found[2]
    about = json.loads(found[0][REPORT])
    (school_report,) = about["test_sets"]
    assert (school_report["frequent_ngrams"], school_report["found"], school_report["documents"]) == (4, 3, 9)
    assert about["max_documents"] == 3
    (note,) = summary.notes
    assert note.startswith("test set  items  too short  found  documents  n-grams  too frequent\nschool        4")
    assert summary.warnings == []
    # Without the rule for whole items, they stay: each of their n-grams is in three documents or more.
    workflow = load_pipeline(workflow_file(tmp_path, certain_share=None, max_documents=2)).workflow
    assert workflow is not None
    assert workflow.run(HERE, run_dir=str(tmp_path / "run"), fresh=True).summary.rows_dropped == 0


@pytest.mark.slow
def test_a_resumed_workflow_does_the_remaining_work(
    tests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data(tmp_path / "in")
    workflow = load_pipeline(workflow_file(tmp_path)).workflow
    assert workflow is not None
    whole = workflow.run(HERE, run_dir=str(tmp_path / "whole")).summary
    wanted = {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.jsonl")}
    report = (tmp_path / "whole" / "decontamination" / REPORT).read_bytes()
    process = Decontaminate.process

    def broken(self: Decontaminate, task: DocumentBatch) -> DocumentBatch:
        if task.task_id.startswith("1-"):
            raise RuntimeError("cut off here")
        return process(self, task)

    with monkeypatch.context() as patch:
        patch.setattr(Decontaminate, "process", broken)
        with pytest.raises(StageError, match="cut off here"):
            workflow.run(HERE, run_dir=str(tmp_path / "run"), fresh=True)
    summary = workflow.run(HERE, run_dir=str(tmp_path / "run"), resume=True).summary
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.jsonl")} == wanted
    assert (tmp_path / "run" / "decontamination" / REPORT).read_bytes() == report
    assert (summary.rows_in, summary.rows_dropped) == (whole.rows_in, whole.rows_dropped)


def test_a_workflow_needs_a_folder_to_write_to(tests: Path) -> None:
    with pytest.raises(UsageError, match="Decontamination writes to a path or with a writer"):
        Decontamination(test_sets=school(tests), paths="in")
