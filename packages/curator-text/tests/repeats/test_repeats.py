"""Repeated spans and lines equal those of a naive script, nothing unique is cut, and the result does not depend on how
it is computed."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator_core.errors import UsageError
from curator_core.executors.local import LocalExecutor
from curator_core.running.progress import RunProgress
from curator_core.workflows import pieces
from curator_text.dedup.fuzzy import FuzzyDedup
from curator_text.repeats.bloom import BloomFilter
from curator_text.repeats.units import spans_of_lines, units_of
from curator_text.repeats.windows import Measured, anchor_length, anchors
from curator_text.repeats.workflows import LineDedup, SubstringDedup

HERE = LocalExecutor(workers=0)


@pytest.fixture(autouse=True)
def _few_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nearly empty piece takes as long as a full one; the decisions do not depend on the number of pieces."""
    monkeypatch.setattr(pieces, "LEAST_PIECES", 4)


def documents(seed: int, count: int = 60) -> list[str]:
    """Texts of few words, made of passages that other texts may share."""
    rng = random.Random(seed)
    vocabulary = [f"w{n}" for n in range(400)]
    passages = [[rng.choice(vocabulary) for _ in range(rng.randint(5, 40))] for _ in range(12)]
    made = []
    for _ in range(count):
        words: list[str] = []
        for _ in range(rng.randint(0, 6)):
            words += rng.choice(passages) if rng.random() < 0.4 else [rng.choice(vocabulary) for _ in range(25)]
        made.append("".join(word + rng.choice([" ", ", ", ".\n", " "]) for word in words))
    return made


def write(folder: Path, texts: Sequence[str], files: int = 2, first: int = 0) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"d{number + first}", "text": text} for number, text in enumerate(texts)]
    edges = np.linspace(0, len(rows), files + 1).astype(int)
    for number in range(files):
        lines = [json.dumps(row) + "\n" for row in rows[edges[number] : edges[number + 1]]]
        (folder / f"{number}.jsonl").write_text("".join(lines))
    return str(folder)


def read(folder: Path) -> dict[str, str]:
    rows = [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return {row["id"]: row["text"] for row in rows}


def naive(texts: Sequence[str], size: int, *, characters: bool = False) -> dict[str, str]:
    """Every run of ``size`` words or characters that occurred before is cut, as a loop over all of them finds it."""
    words = [[match.span() for match in re.finditer(r"\w+", text)] for text in texts]
    seen: set[tuple[str, ...]] = set()
    left = {}
    for number, (text, spans) in enumerate(zip(texts, words, strict=True)):
        gone = np.zeros(len(spans), np.bool_)
        tokens = [text[start:end].lower() for start, end in spans]
        for at in range(len(spans)):
            count = size
            if characters:
                lengths = np.cumsum([len(token) + 1 for token in tokens[at:]]) - 1
                count = int(np.searchsorted(lengths, size)) + 1
            if at + count > len(spans):
                break
            run = tuple(tokens[at : at + count])
            if run in seen:
                gone[at : at + count] = True
            seen.add(run)
        pieces, done = [], 0
        for at in np.flatnonzero(gone).tolist():
            pieces.append(text[done : spans[at][0]] if not (at and gone[at - 1]) else "")
            done = spans[at + 1][0] if at + 1 < len(spans) else len(text)
        rest = "".join([*pieces, text[done:]])
        if rest.strip() or not text.strip():
            left[f"d{number}"] = rest
    return left


@pytest.mark.slow
@pytest.mark.parametrize(("size", "unit"), [(3, "words"), (20, "words"), (12, "characters"), (70, "characters")])
def test_the_same_parts_are_cut_as_by_a_naive_script(tmp_path: Path, size: int, unit: str) -> None:
    texts = documents(size)
    work = SubstringDedup(
        paths=write(tmp_path / "in", texts), path=str(tmp_path / "out"), keep=["first"], partitions=3, **{unit: size}
    )
    work.run(HERE, run_dir=str(tmp_path / "run"))
    expected = naive(texts, size, characters=unit == "characters")
    assert read(tmp_path / "out") == expected
    assert expected != {f"d{n}": text for n, text in enumerate(texts)}


@pytest.mark.slow
def test_the_table_says_what_was_cut_and_where_it_stays(tmp_path: Path) -> None:
    passage = " ".join(f"p{n}" for n in range(12))
    texts = [f"one two {passage} three", f"Other, words: {passage.upper()}! And more.", "nothing of it"]
    work = SubstringDedup(paths=write(tmp_path / "in", texts), path=str(tmp_path / "out"), words=10, keep=["first"])
    work.run(HERE, run_dir=str(tmp_path / "run"))
    assert read(tmp_path / "out")["d1"] == "Other, words: And more."
    (row,) = [row for path in (tmp_path / "run/spans").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert (row["id"], row["witness_id"]) == ("d1", "d0")
    assert texts[1][row["start"] : row["end"]] == f"{passage.upper()}! " == row["text"]
    found = json.loads((tmp_path / "run/report.json").read_text())["repeats"]
    size = row["end"] - row["start"]
    assert (found["spans"], found["documents"], found["characters"]) == (1, 1, size)
    assert found["most"] == [{"text": row["text"], "times": 1}]
    assert found["longest"] == [row]
    page = (tmp_path / "run/report.html").read_text()
    assert f"d1, {size} characters from {row['start']} on, as in d0" in page


@pytest.mark.slow
def test_the_result_does_not_depend_on_files_pieces_or_workers(tmp_path: Path) -> None:
    texts = documents(3, 40)
    found = []
    for number, (files, partitions, workers) in enumerate([(1, 1, 0), (5, 7, 2)]):
        place = tmp_path / str(number)
        work = SubstringDedup(
            paths=write(place / "in", texts, files), path=str(place / "out"), words=8, partitions=partitions
        )
        work.run(LocalExecutor(workers=workers), run_dir=str(place / "run"))
        found.append(read(place / "out"))
    assert found[0] == found[1]


@pytest.mark.slow
def test_documents_are_dropped_or_marked_by_their_share(tmp_path: Path) -> None:
    passage = " ".join(f"p{n}" for n in range(20))
    texts = [passage, f"{passage} and a few words of its own", "a b c " * 3 + passage, "x y z"]
    data = write(tmp_path / "in", texts)
    drop = SubstringDedup(paths=data, path=str(tmp_path / "a"), words=10, mode="drop", max_share=0.7, keep=["first"])
    assert drop.run(HERE, run_dir=str(tmp_path / "ra")).summary.rows_dropped == 2
    assert set(read(tmp_path / "a")) == {"d0", "d3"}
    mark = SubstringDedup(paths=data, path=str(tmp_path / "b"), words=10, mode="annotate", keep=["first"])
    mark.run(HERE, run_dir=str(tmp_path / "rb"))
    rows = [json.loads(line) for path in (tmp_path / "b").glob("*.jsonl") for line in path.read_text().splitlines()]
    shares = {row["id"]: row["repeated_share"] for row in rows}
    assert shares["d0"] == shares["d3"] == 0
    assert shares["d1"] == pytest.approx((len(passage) + 1) / len(texts[1]))
    assert next(row["repeated_spans"] for row in rows if row["id"] == "d1") == [[0, len(passage) + 1]]


@pytest.mark.parametrize("characters", [False, True])
def test_equal_runs_have_equal_anchors(characters: bool) -> None:
    texts = pa.chunked_array(
        [documents(1) + documents(1, 20) + ["a b a b a b a b a b", "東京都に住む東京都に住む", ""]]
    )
    measured = Measured.of(texts, characters=characters)
    for size in (1, 2, 7, 16, 60):
        chosen = set(anchors(measured, size)[1].tolist())
        runs, short = measured.runs(size), measured.runs(anchor_length(size))
        ends = dict(zip(short.first.tolist(), short.last.tolist(), strict=True))
        offsets: dict[int, set[int]] = {}
        found = zip(runs.hashes(measured.words).tolist(), runs.first.tolist(), runs.last.tolist(), strict=True)
        for key, first, last in found:
            mine = {at - first for at in range(first, last) if at in chosen and ends[at] <= last}
            offsets[key] = offsets[key] & mine if key in offsets else mine
        assert all(offsets.values())
        assert len(offsets) > (20 if characters or size < 60 else -1)


def test_characters_are_counted_in_the_compared_form_of_words() -> None:
    texts = pa.chunked_array([["One,  TWO -- three", "東京 x", "Straße e\u0301te"]])
    measured = Measured.of(texts, characters=True)
    words = np.split(measured.ends - measured.starts, measured.words.offsets[1:-1])
    assert [found.tolist() for found in words] == [[3, 3, 5], [1, 1, 1], [7, 3]]
    assert (measured.starts[1:3] - measured.ends[:2]).tolist() == [1, 1]
    assert (measured.starts[4:6] - measured.ends[3:5]).tolist() == [0, 1]
    runs = measured.runs(7)
    assert list(zip(runs.first.tolist(), runs.last.tolist(), strict=True)) == [(0, 2), (1, 3), (6, 7)]


TEXT = "First line here.\nSecond line there.\n\n  Third line, indented.  \nLast. And more! Then this? End"


def test_a_text_is_divided_into_units() -> None:
    def pieces(unit: str) -> list[str]:
        return [TEXT[start:end] for start, end in units_of(TEXT, unit, 1)]  # type: ignore[arg-type]

    assert pieces("line") == [
        "First line here.", "Second line there.", "Third line, indented.", "Last. And more! Then this? End",
    ]  # fmt: skip
    assert pieces("paragraph") == [
        "First line here.\nSecond line there.",
        "Third line, indented.  \nLast. And more! Then this? End",
    ]
    sentences = pieces("three_sentences")
    assert sentences[0] == "First line here.\nSecond line there.\n\n  Third line, indented."
    assert sentences[-1] == "And more! Then this? End"
    assert [TEXT[a:b] for a, b in spans_of_lines(TEXT, np.array([0, 2]), "line", 1)] == [
        "First line here.\n", "Third line, indented.  \n",
    ]  # fmt: skip


@pytest.mark.slow
def test_lines_that_stay_elsewhere_are_cut(tmp_path: Path) -> None:
    footer = "All rights reserved by the publisher of this page."
    texts = [f"Page {n} says this and that, at some length.\n{footer}\nshort\n" for n in range(4)]
    texts.append(footer)
    work = LineDedup(paths=write(tmp_path / "in", texts), path=str(tmp_path / "out"), keep=["first"])
    counts = work.run(HERE, run_dir=str(tmp_path / "run")).summary
    left = read(tmp_path / "out")
    assert left["d0"] == texts[0]
    assert left["d2"] == "Page 2 says this and that, at some length.\nshort\n"
    assert "d4" not in left
    assert counts.stages[-2].dropped == {"nothing new in it": 1}


def of_a_pool(documents: int) -> list[str]:
    """Texts made of lines; a fifth of the lines come from a common pool."""
    rng = random.Random(1)
    pool = [f"This is line number {n} of the pool" for n in range(150)]
    return [
        "\n".join(
            rng.choice(pool) if rng.random() < 0.2 else f"Line {line} of document {number} is its own."
            for line in range(rng.randint(0, 40))
        )
        for number in range(documents)
    ]


def once(run: Path, step: str) -> int:
    """How many units occurred once in a step's input."""
    (path,) = (run / "steps").glob(f"*-{step}/run.json")
    stages = json.loads(path.read_text())["summary"]["stages"]
    return round(sum(stage["metrics"].get("once", 0) for stage in stages))


@pytest.mark.slow
def test_a_filter_changes_only_what_is_compared(tmp_path: Path) -> None:
    data = write(tmp_path / "in", of_a_pool(200), 4)
    found = []
    for number, (rate, partitions) in enumerate([(None, 3), (0.05, 3), (0.5, 1)]):
        work = LineDedup(paths=data, path=str(tmp_path / f"{number}"), false_rate=rate, partitions=partitions)
        work.run(HERE, run_dir=str(tmp_path / f"run{number}"))
        found.append(read(tmp_path / f"{number}"))
    assert found[0] == found[1] == found[2]
    single = once(tmp_path / "run0", "repeats")
    assert single == once(tmp_path / "run1", "filter") > 2000
    assert 0.03 < once(tmp_path / "run1", "repeats") / single < 0.07
    assert 0.4 < once(tmp_path / "run2", "repeats") / single < 0.6


def test_a_bloom_filter_contains_its_keys_and_the_stated_share_of_others() -> None:
    rng = np.random.default_rng(0)
    keys = np.unique(rng.integers(0, 1 << 64, 20_000, dtype=np.uint64)) >> np.uint64(3)  # as in one partition of eight
    others = rng.integers(0, 1 << 61, 200_000, dtype=np.uint64)
    for rate in (0.3, 0.05, 0.001):
        made = BloomFilter.of(keys, rate)
        assert made.may_hold(keys).all()
        assert made.may_hold(others).mean() == pytest.approx(rate, rel=0.2)
        assert made.size == pytest.approx(len(keys) * -np.log(rate) / np.log(2) ** 2, rel=0.01)
        again = BloomFilter.of(rng.permutation(keys), rate)
        assert again.data.tobytes() == made.data.tobytes()
    assert not BloomFilter.of(keys[:0], 0.01).may_hold(others).any()


@pytest.mark.slow
def test_lines_without_letters_are_not_copies_of_one_another(tmp_path: Path) -> None:
    texts = ["-" * 30, "=" * 30, "-" * 30]
    data = write(tmp_path / "in", texts, 1)
    for normalize, left in ((True, 3), (False, 2)):
        work = LineDedup(paths=data, path=str(tmp_path / f"{left}"), normalize=normalize)
        work.run(HERE, run_dir=str(tmp_path / f"run{left}"))
        assert len(read(tmp_path / f"{left}")) == left


@pytest.mark.slow
def test_spans_of_three_sentences_are_cut_as_one(tmp_path: Path) -> None:
    shared = "It rained all day. Nobody went out. The river rose."
    texts = [f"Before it. {shared} After it.", f"Something else here. {shared} Another end."]
    work = LineDedup(
        paths=write(tmp_path / "in", texts), path=str(tmp_path / "out"), unit="three_sentences", keep=["first"]
    )
    work.run(HERE, run_dir=str(tmp_path / "run"))
    assert read(tmp_path / "out") == {"d0": texts[0], "d1": "Something else here. Another end."}


def test_meaningless_parameters_are_refused() -> None:
    with pytest.raises(UsageError, match="mode 'drop' needs max_share"):
        SubstringDedup(paths="x", path="y", mode="drop")
    with pytest.raises(UsageError, match="unit must be one of line, paragraph, three_sentences, not 'word'"):
        LineDedup(paths="x", path="y", unit="word")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="false_rate must be a number between 0 and 1, not 1"):
        LineDedup(paths="x", path="y", false_rate=1)
    with pytest.raises(UsageError, match=r"in words \(5\) or in characters \(50\): give one"):
        SubstringDedup(paths="x", path="y", words=5, characters=50)
    with pytest.raises(UsageError, match="give a path or a writer"):
        LineDedup(paths="x")


@pytest.mark.slow
@pytest.mark.parametrize("texts", [[], ["", ""], ["one"], ["", "word", "another word"]])
def test_an_input_without_repeats_is_unchanged(tmp_path: Path, texts: list[str]) -> None:
    data = write(tmp_path / "in", texts, files=1)
    for number, kind in enumerate((SubstringDedup, LineDedup, FuzzyDedup)):
        kind(paths=data, path=str(tmp_path / f"out{number}")).run(HERE, run_dir=str(tmp_path / f"run{number}"))
        assert read(tmp_path / f"out{number}") == {f"d{at}": text for at, text in enumerate(texts)}


@pytest.mark.slow
def test_a_file_that_changes_between_two_readings_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "in", documents(2, 30), files=1)

    def progress(state: RunProgress) -> None:
        if state.step == 2:
            write(tmp_path / "in", documents(4, 30), files=1)

    work = SubstringDedup(paths=data, path=str(tmp_path / "out"), words=8)
    with pytest.raises(Exception, match="has changed since"):
        work.run(HERE, run_dir=str(tmp_path / "run"), progress=progress)
    assert not list((tmp_path / "out").glob("*.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("work", [SubstringDedup, LineDedup])
def test_texts_among_other_values_are_cut_and_other_values_stay(tmp_path: Path, work: type) -> None:
    passage = " ".join(f"p{n}" for n in range(60))
    texts = [passage, 5, [passage], {"a": passage}, None, f"{passage}\nthe end", passage]
    folder = tmp_path / "in"
    folder.mkdir()
    rows = [{"id": number if number % 2 else f"d{number}", "text": text} for number, text in enumerate(texts)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "b.jsonl").write_text('{"id": "n", "text": 5}\n')  # no text in a whole file
    done = work(paths=str(folder), path=str(tmp_path / "out"), keep=["first"])
    summary = done.run(HERE, run_dir=str(tmp_path / "run"), dropped=str(tmp_path / "dropped")).summary
    assert read(tmp_path / "out") == {row["id"]: row["text"] for row in rows[:5]} | {5: "the end", "n": 5}
    assert summary.rows_dropped == 1
    spans = [row for path in (tmp_path / "run/spans").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert [(row["id"], row["witness_id"]) for row in spans] == [("5", "d0"), ("d6", "d0")]
    # Dropped rows are written if requested.
    dropped = [json.loads(line) for path in (tmp_path / "dropped").rglob("*.jsonl") for line in path.open()]
    assert [row["id"] for row in dropped] == ["d6"]


@pytest.mark.slow
def test_a_column_without_any_text_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"id": 1, "text": 5}\n')
    for work in (SubstringDedup, LineDedup, FuzzyDedup):
        with pytest.raises(UsageError, match="the column 'text' contains no text in any file"):
            work(paths=str(folder), path=str(tmp_path / "out")).run(HERE, run_dir=str(tmp_path / work.__name__))
