"""``curate whatif`` predicts the result of real runs with the changed limits."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from curator_core import LocalExecutor, Pipeline, RunSummary
from curator_core.accounts.seen import read_seen
from curator_core.cli import BAD_USAGE, DONE, run_command
from curator_text import (
    GopherQualityFilter,
    JsonlReader,
    JsonlWriter,
    LanguageFilter,
    SymbolsToWordsFilter,
    WordCountFilter,
)

WORDS = [
    "the",
    "a",
    "house",
    "tree",
    "of",
    "to",
    "and",
    "sees",
    "green",
    "old",
    "man",
    "river",
    "#",
    "…",
    "supercalifragilistic",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    chosen = random.Random(0)
    for part in range(2):
        rows = [
            {"id": f"{part}-{n}", "text": " ".join(chosen.choices(WORDS, k=chosen.randint(1, 150)))} for n in range(400)
        ]
        (folder / f"part-{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(
    data: Path, place: Path, words: dict[str, Any] | None = None, quality: dict[str, Any] | None = None, **more: Any
) -> RunSummary:
    stages = [
        JsonlReader(paths=str(data)),
        WordCountFilter(**{"min_words": 40, "max_words": 120, **(words or {})}),
        SymbolsToWordsFilter(max_symbol_to_word_ratio=0.14),
        GopherQualityFilter(**{"min_doc_words": 10, "max_symbol_word_ratio": 0.2, **(quality or {})}),
        JsonlWriter(path=str(place / "out")),
    ]
    return Pipeline(stages, name="clean").run(LocalExecutor(workers=0), run_dir=str(place / "run"), **more).summary


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("base")
    run(data, place)
    return place / "run"


def answer(capsys: pytest.CaptureFixture[str], run_dir: Path, *settings: str, code: int = DONE) -> Any:
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert run_command(["whatif", str(run_dir), *arguments, "--json"]) == code
    out, err = capsys.readouterr()
    return json.loads(out) if code == DONE else err


def then(found: Any, stage: str) -> dict[str, Any]:
    return next(entry["then"] for entry in found["stages"] if entry["name"] == stage)


@pytest.mark.slow
@pytest.mark.parametrize("words", [{"min_words": 50}, {"min_words": 32}, {"min_words": 44, "max_words": 108}])
def test_at_edges_the_number_is_exactly_that_of_a_run_with_the_limit(data, base, tmp_path, capsys, words):
    real = {stage.name: stage for stage in run(data, tmp_path, words).stages}
    found = answer(capsys, base, *(f"WordCountFilter.{key}={value}" for key, value in words.items()))
    kept = then(found, "WordCountFilter")["rows_out"]
    assert kept["exact"]
    assert kept["low"] == real["WordCountFilter"].rows_out
    assert then(found, "SymbolsToWordsFilter")["rows_in"]["low"] == real["WordCountFilter"].rows_out
    for name, stage in real.items():
        for key in ("rows_in", "rows_out"):
            span = then(found, name)[key]
            assert span["low"] <= getattr(stage, key) <= span["high"], (name, key)
            assert span["low"] <= span["about"] <= span["high"]
    last = then(found, "JsonlWriter")["rows_out"]
    assert not last["exact"]
    assert abs(last["about"] - real["JsonlWriter"].rows_out) < 0.1 * real["JsonlWriter"].rows_out
    others = [line for line in found["unknown"] if "would see other rows" in line]
    assert [line.partition(" would")[0] for line in others] == ["SymbolsToWordsFilter and GopherQualityFilter"]


@pytest.mark.slow
def test_a_limit_that_changes_nothing_is_reported_as_such(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["whatif", str(base), "--set", "WordCountFilter.min_words=40"]) == DONE
    assert capsys.readouterr().out.endswith("\n\nevery stage would keep as many rows as it did\n")


@pytest.mark.slow
def test_inside_a_bin_the_real_number_is_between_the_bounds_and_the_edges_are_named(data, base, tmp_path, capsys):
    real = run(data, tmp_path, {"min_words": 71}).stages[1].rows_out
    found = answer(capsys, base, "WordCountFilter.min_words=71")
    kept = then(found, "WordCountFilter")["rows_out"]
    assert not kept["exact"]
    assert kept["low"] <= real <= kept["high"]
    note = next(line for line in found["unknown"] if "inside a bin" in line)
    for value in note.rpartition("exact at ")[2].split(" and at "):
        assert then(answer(capsys, base, f"WordCountFilter.min_words={value}"), "WordCountFilter")["rows_out"]["exact"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "quality", [{"max_avg_word_length": 5.0}, {"min_doc_words": 50}, {"min_stop_words": 4}, {"min_stop_words": 1}]
)
def test_one_limit_of_a_filter_with_several_tests_is_also_exact(data, base, tmp_path, capsys, quality):
    real = {stage.name: stage for stage in run(data, tmp_path, quality=quality).stages}["GopherQualityFilter"].rows_out
    found = answer(capsys, base, *(f"GopherQualityFilter.{key}={value}" for key, value in quality.items()))
    kept = then(found, "GopherQualityFilter")["rows_out"]
    assert (kept["exact"], kept["low"]) == (True, real)
    assert (
        then(found, "JsonlWriter")["rows_out"] == kept
    )  # a writer drops nothing, so the number after it is also exact


@pytest.mark.slow
def test_limits_of_several_scores_together_give_bounds(data, base, tmp_path, capsys):
    quality = {"max_symbol_word_ratio": 0.1, "min_stop_words": 1}
    real = {stage.name: stage for stage in run(data, tmp_path, quality=quality).stages}["GopherQualityFilter"].rows_out
    found = answer(capsys, base, *(f"GopherQualityFilter.{key}={value}" for key, value in quality.items()))
    kept = then(found, "GopherQualityFilter")["rows_out"]
    assert kept["low"] <= real <= kept["high"]
    assert any("change together" in line for line in found["unknown"])


@pytest.mark.slow
def test_limits_of_several_filters_are_followed_down_the_funnel(data, base, tmp_path, capsys):
    real = run(data, tmp_path, {"min_words": 60}, {"max_symbol_word_ratio": 0.3})
    found = answer(capsys, base, "WordCountFilter.min_words=60", "GopherQualityFilter.max_symbol_word_ratio=0.3")
    for stage in real.stages:
        for key in ("rows_in", "rows_out"):
            span = then(found, stage.name)[key]
            assert span["low"] <= getattr(stage, key) <= span["high"], (stage.name, key)


@pytest.mark.slow
def test_with_a_test_that_is_not_numeric_a_loosened_limit_gives_bounds(tmp_path, capsys):
    chosen = random.Random(0)
    english = ["the", "house", "stands", "behind", "old", "trees", "and", "nobody", "lives", "there", "now"]
    german = ["das", "Haus", "steht", "hinter", "alten", "Bäumen", "und", "niemand", "wohnt", "jetzt", "dort"]
    shares = [chosen.random() for _ in range(200)]
    texts = [
        " ".join(chosen.choice(english if chosen.random() < share else german) for _ in range(8)) for share in shares
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    kept = {}
    for score in (0.65, 0.4, 0.8):
        stages = [JsonlReader(paths=str(tmp_path / "a.jsonl")), LanguageFilter(languages="en", min_score=score)]
        ran = Pipeline(stages).run(LocalExecutor(workers=0), run_dir=str(tmp_path / f"{score}"))
        kept[score] = ran.summary.stages[1].rows_out
    looser = then(answer(capsys, tmp_path / "0.65", "LanguageFilter.min_score=0.4"), "LanguageFilter")["rows_out"]
    assert not looser["exact"]  # no German rows in these bins would be kept
    assert looser["low"] <= kept[0.4] < looser["high"]
    stricter = answer(capsys, tmp_path / "0.65", "LanguageFilter.min_score=0.8")
    assert then(stricter, "LanguageFilter")["rows_out"] == {
        "low": kept[0.8],
        "high": kept[0.8],
        "about": kept[0.8],
        "exact": True,
    }
    assert not any("tests besides limits" in line for line in stricter["unknown"])


@pytest.mark.slow
def test_an_inverted_filter_is_also_recomputed(data, tmp_path, capsys):
    run(data, tmp_path / "a", {"mode": "invert"})
    real = run(data, tmp_path / "b", {"mode": "invert", "min_words": 50}).stages[1].rows_out
    kept = then(answer(capsys, tmp_path / "a/run", "WordCountFilter.min_words=50"), "WordCountFilter")["rows_out"]
    assert (kept["exact"], kept["low"]) == (True, real)


@pytest.mark.slow
def test_samples_shown_as_kept_or_dropped_are_so_in_a_real_run(data, base, tmp_path, capsys):
    run(data, tmp_path, {"min_words": 50})
    files = (tmp_path / "out").rglob("*.jsonl")
    kept = {json.loads(line)["id"] for file in files for line in file.read_text().splitlines()}
    rows = answer(capsys, base, "WordCountFilter.min_words=50")["rows"]
    assert len(rows) > 5
    for row in rows:
        assert (row["was"], row["then"]) == ("kept", "dropped")
        assert 40 <= row["score"] < 50
        assert row["id"] not in kept
    assert run_command(["whatif", str(base), "--set", "WordCountFilter.min_words=50"]) == DONE
    out = capsys.readouterr().out
    assert "WordCountFilter.min_words=50 in place of 40" in out
    assert "would change side" in out


@pytest.mark.slow
def test_every_sample_has_its_place_and_show_finds_it_there(data, tmp_path, capsys):
    run(data, tmp_path)
    samples = [sample for stage in read_seen(str(tmp_path / "run")).stages.values() for sample in stage.samples]
    assert {sample.side for sample in samples} == {"kept", "dropped"}
    for sample in samples:
        line = int(sample.position.removeprefix("line "))
        assert json.loads(Path(sample.source).read_text().splitlines()[line - 1])["id"] == sample.id
    one = samples[0]
    assert run_command(["show", f"{one.source}:{one.position}", "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["rows"][0]["columns"]["id"] == one.id


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("WordCountFilter.min_word=5", "did you mean 'min_words'?"),
        ("WordCountFiltr.min_words=5", "did you mean 'WordCountFilter'?"),
        ("WordCountFilter.lang=de", "is not a limit of its scores"),
        ("WordCountFilter.min_words=many", "must be int"),
        ("WordCountFilter.min_words=500", "max_words"),
        ("WordCountFilter.mode=invert", "run the pipeline with the other value"),
        ("JsonlWriter.path=x", "is not a filter"),
        ("min_words=5", "--set takes STAGE.PARAM=VALUE"),
    ],
)
def test_impossible_questions_are_refused_with_a_remedy(base, capsys, setting, said):
    assert said in answer(capsys, base, setting, code=BAD_USAGE)


def test_a_run_that_kept_no_histograms_says_so(data, tmp_path, capsys):
    run(data, tmp_path, seen=False)
    assert "`seen: false`" in answer(capsys, tmp_path / "run", "WordCountFilter.min_words=5", code=BAD_USAGE)
