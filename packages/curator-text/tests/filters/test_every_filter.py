"""What holds for every filter of the package, whatever it measures."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curator_core import DocumentBatch, UsageError
from curator_core.stages import WorkerMetadata
from curator_text import filters, presets
from curator_text.filters.recipes import LineStage, RecipeFilter

DATA = Path(__file__).parent / "data"

FILTERS: list[Any] = [
    filters.NonAlphaNumericFilter(),
    filters.SymbolsToWordsFilter(),
    filters.NumbersFilter(),
    filters.UrlsFilter(),
    filters.UrlsFilter(url_regex=r"www\.\S+"),
    filters.BulletsFilter(),
    filters.WhiteSpaceFilter(),
    filters.ParenthesesFilter(),
    filters.LongWordFilter(),
    filters.WordCountFilter(),
    filters.BoilerPlateStringFilter(),
    filters.MeanWordLengthFilter(),
    filters.PunctuationFilter(),
    filters.EllipsisFilter(),
    filters.CommonEnglishWordsFilter(),
    filters.CommonEnglishWordsFilter(stop_at_false=False),
    filters.WordsWithoutAlphabetsFilter(),
    filters.PornographicUrlsFilter(),
    filters.PornographicUrlsFilter(url_regex=r"www\.\S+"),
    filters.SubstringFilter("a", "any"),
    filters.SubstringFilter("日", "prefix"),
    filters.SubstringFilter("\n", "suffix"),
    filters.RepeatedLinesFilter(),
    filters.RepeatedParagraphsFilter(),
    filters.RepeatedLinesByCharFilter(),
    filters.RepeatedParagraphsByCharFilter(),
    *(filters.RepeatingTopNGramsFilter(n=n) for n in (1, 2, 3, 4)),
    *(filters.RepeatingDuplicateNGramsFilter(n=n) for n in (1, 2, 5, 10)),
    filters.HistogramFilter(),
    filters.PythonCommentToCodeFilter(),
    *(filters.GeneralCommentToCodeFilter(kind) for kind in ("text/x-c", "text/html", "text/x-go", "text/x-python")),
    filters.NumberOfLinesOfCodeFilter(),
    filters.AlphaFilter(),
    filters.XMLHeaderFilter(),
    filters.HTMLBoilerplateFilter(),
    filters.PerExtensionFilter("python", "py", str(DATA / "code_meta.csv")),
    filters.UrlBlocklistFilter(["example.com"], words=["casino"], subwords=["xx"], column="text"),
    filters.BadWordsFilter(["darn", "oh no"]),
    filters.GopherQualityFilter(),
    filters.GopherRepetitionFilter(),
    filters.FineWebQualityFilter(),
    filters.FineWebQualityFilter(stop_chars=[".", "。"]),
    filters.C4ParagraphFilter(),
]
LINE_STAGES: list[Any] = [filters.C4QualityFilter(), filters.RefinedWebLineFilter()]

SENTENCE = "The quick brown fox jumps over the lazy dog and that is all it has to say of it. "
AWKWARD: list[str | None] = [
    None,
    "",
    " ",
    "\n",
    " \t\r\n\x0b\x0c\x1c\x85\u2028\u3000 ",
    "x",
    "日",
    "\0",
    "\0 \0\n\0",
    "a\0b a\0b a\0b",
    "x" * 1_000_000,
    "日本語" * 100_000,
    "これは日本語の文章です。とても短いです。\n中文文本没有空格。" * 20,
    "هذا نص باللغة العربية، وفيه علامات ترقيم؟ نعم!\n" * 20,
    "😀🎉👩\u200d💻 " * 50,
    "e\u0301 \u0301 \ufeff \u200b ǅ K",
    "#" * 50,
    "... … [...] (...) […] -»",
    "• a\n‣ b\n◦ c\n- d",
    "https://example.com/a?b=%20c http://porn.example www.x.org",
    "{[(<⟨⟩>)]}" * 10,
    "\r\n".join(["line"] * 30),
    SENTENCE,
    SENTENCE * 100,
    (SENTENCE + "\n") * 30,
    (SENTENCE + "\n\n") * 30,
    "Read more\nRead more..\nREAD MORE",
    "Lorem IPSUM dolor",
    "Privacy policy\n\nTerms of use\n\nfine",
    "def f():\n    '''Doc.'''\n    return 1  # one\n",
    "/* open",
    "<?xml version='1.0'?><a>b</a>",
    "1 2 3 4 5 6 7 8 9 10 11 12",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
]


def plain(scores: pa.Array) -> list[Any]:
    # NaN is not equal to itself; there must be none.
    return scores.to_pylist()


def names(stage: Any) -> str:
    return repr(stage)


def batch(texts: list[str | None]) -> DocumentBatch:
    return DocumentBatch(data=pa.table({"text": pa.array(texts, pa.string()), "id": range(len(texts))}))


@pytest.mark.parametrize("stage", FILTERS, ids=names)
def test_every_text_has_a_score_and_a_verdict(stage: Any) -> None:
    scores = stage.score(AWKWARD)
    assert len(scores) == len(AWKWARD)
    assert scores.null_count == 0
    for column in scores.flatten() if isinstance(scores, pa.StructArray) else [scores]:
        assert column.null_count == 0
        if pa.types.is_floating(column.type):
            assert np.isfinite(column.to_numpy()).all()
    kept = stage.keep(scores)
    assert kept.type == pa.bool_()
    assert kept.null_count == 0


@pytest.mark.parametrize("stage", FILTERS, ids=names)
def test_a_text_scores_the_same_alone_and_among_others_twice(stage: Any) -> None:
    together = plain(stage.score(AWKWARD))
    assert together == plain(stage.score(AWKWARD))
    assert together == [plain(stage.score([text]))[0] for text in AWKWARD]
    assert together == plain(stage.score(AWKWARD[::-1]))[::-1]


@pytest.mark.parametrize("stage", FILTERS, ids=names)
def test_null_scores_as_the_empty_text(stage: Any) -> None:
    assert plain(stage.score([None])) == plain(stage.score([""]))


@pytest.mark.parametrize("stage", FILTERS, ids=names)
def test_no_documents_have_no_scores(stage: Any) -> None:
    assert len(stage.keep(stage.score([]))) == 0
    assert stage.process(batch([])).num_rows == 0


@pytest.mark.parametrize("stage", FILTERS, ids=names)
def test_what_leaves_is_counted_and_what_stays_is_untouched(stage: Any) -> None:
    stage = stage.with_()
    before = batch(AWKWARD)
    after = stage.process(before)
    kept = stage.keep(stage.score(AWKWARD))
    assert after.to_pyarrow().equals(before.to_pyarrow().filter(kept))
    assert sum(stage.recorder.dropped.values()) == len(AWKWARD) - after.num_rows
    assert before.num_rows == len(AWKWARD)


@pytest.mark.parametrize("stage", FILTERS, ids=names)
def test_annotate_keeps_all_and_invert_keeps_the_others(stage: Any) -> None:
    annotated = stage.with_(mode="annotate").process(batch(AWKWARD)).to_pyarrow()
    score, verdict = stage.with_(mode="annotate").columns_added()
    assert annotated.num_rows == len(AWKWARD)
    assert plain(annotated.column(score).combine_chunks()) == plain(stage.score(AWKWARD))
    others = stage.with_(mode="invert").process(batch(AWKWARD)).to_pyarrow()
    dropped = [i for i, keep in enumerate(annotated.column(verdict).to_pylist()) if not keep]
    assert others.column("id").to_pylist() == dropped


@pytest.mark.parametrize("stage", [*FILTERS, *LINE_STAGES], ids=names)
def test_a_stage_travels_to_a_worker_after_it_was_used_by_hand(stage: Any) -> None:
    stage.process(batch(AWKWARD[:3]))
    twin = pickle.loads(pickle.dumps(stage))
    assert twin == stage
    twin.setup(WorkerMetadata())
    assert twin.process(batch(AWKWARD)).to_pyarrow().equals(stage.process(batch(AWKWARD)).to_pyarrow())


def test_filters_in_a_row_drop_what_each_drops_alone() -> None:
    texts = [text for text in AWKWARD for _ in range(3)]
    stages = [stage.with_() for stage in presets.WebEnglish().decompose()]
    together = batch(texts)
    for stage in stages:
        together = stage.process(together)
    expected = batch(texts)
    for stage in stages:
        kept = stage.keep(stage.score(expected.to_pyarrow().column("text")))
        expected = DocumentBatch(data=expected.to_pyarrow().filter(kept))
    assert together.to_pyarrow().equals(expected.to_pyarrow())
    assert sum(sum(stage.recorder.dropped.values()) for stage in stages) == len(texts) - together.num_rows


@pytest.mark.parametrize("stage", LINE_STAGES, ids=names)
def test_line_stages_count_what_they_drop_and_can_leave_text_alone(stage: Any) -> None:
    stage, quiet = stage.with_(), stage.with_(rewrite=False)
    edited, left = stage.process(batch(AWKWARD)), quiet.process(batch(AWKWARD))
    assert edited.to_pyarrow().column("id").equals(left.to_pyarrow().column("id"))
    assert left.to_pyarrow().column("text").to_pylist() == [
        AWKWARD[i] for i in left.to_pyarrow().column("id").to_pylist()
    ]
    assert sum(stage.recorder.dropped.values()) == len(AWKWARD) - edited.num_rows
    assert edited.to_pyarrow().schema == left.to_pyarrow().schema


def test_recipes_count_what_leaves_by_the_limit_it_breaks_first() -> None:
    stage = filters.GopherQualityFilter()
    stage.process(batch(["a b", "日本語 " * 100, SENTENCE * 10]))
    assert stage.recorder.dropped == {"gopher_short_doc": 1, "gopher_enough_stop_words": 1}
    assert isinstance(stage, RecipeFilter)
    assert all(isinstance(line_stage, LineStage) for line_stage in LINE_STAGES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: filters.WordCountFilter(min_words=10, max_words=5), "min_words=10 is above max_words=5"),
        (lambda: filters.WordCountFilter(min_words="50"), "must be a number"),
        (lambda: filters.WordCountFilter(lang="zh"), "no white space between words"),
        (lambda: filters.WordCountFilter(min_word=3), "min_words"),
        (lambda: filters.SubstringFilter("a", "middle"), "'prefix', 'suffix' or 'any'"),
        (lambda: filters.UrlsFilter(url_regex="("), "no regular expression"),
        (lambda: filters.RepeatingTopNGramsFilter(n=0), "1 or more"),
        (lambda: filters.GeneralCommentToCodeFilter("text/x-cobol"), "text/x-java"),
        (lambda: filters.HistogramFilter(lang="de"), "cache_dir"),
        (lambda: filters.BadWordsFilter([]), "a list, or a file"),
        (lambda: filters.BadWordsFilter(["a"], keep_fraction=2), "at most 1"),
        (lambda: filters.GopherRepetitionFilter(top_n_grams=[2]), "pairs of n and limit"),
        (lambda: filters.GopherQualityFilter(min_doc_words="many"), "a number or None"),
        (filters.TokenCountFilter, "tokenizer=… or an hf_model_name"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_remedy(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_per_extension_limits_come_from_the_table(tmp_path: Path) -> None:
    table = str(DATA / "code_meta.csv")
    good, wide, numbers = "x = compute(y)\n" * 5, "x" * 1500, "0123456789\n" * 20

    def scores(lang: str, extension: str) -> list[int]:
        found: list[int] = filters.PerExtensionFilter(lang, extension, table).score([good, wide, numbers]).to_pylist()
        return found

    assert scores("Python", "py") == [1, 0, 0]
    assert scores("python", "pyi") == [1, 1, 1]
    assert scores("markdown", "md") == [0, 0, 0]
    assert scores("C#", "cs") == [1, 0, 1]
    assert scores("cobol", "cbl") == [0, 0, 0]
    with pytest.raises(UsageError, match="cannot be read"):
        filters.PerExtensionFilter("python", "py", str(tmp_path / "none.csv")).setup(WorkerMetadata())


def test_a_histogram_is_read_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "el").write_text("λ 12\nβ 3\nδ 1\n]\nz 1\n", encoding="utf-8")
    stage = filters.HistogramFilter(lang="el", cache_dir=str(tmp_path))
    assert stage.score(["λβδλ", "abcz", "λβδz", " λβ ", "λβδλβδλβδz"]).to_pylist() == [1, 0, 0, 0, 1]
    with pytest.raises(UsageError, match="no histogram file 'pl'"):
        filters.HistogramFilter(lang="pl", cache_dir=str(tmp_path)).setup(WorkerMetadata())


def test_addresses_are_blocked_by_domain_word_and_part(tmp_path: Path) -> None:
    (tmp_path / "domains.txt").write_text("# a comment\nbad.example\nEvil.org\n", encoding="utf-8")
    stage = filters.UrlBlocklistFilter(
        str(tmp_path / "domains.txt"),
        urls=["https://fine.example/page"],
        words=["casino"],
        soft_words=["free", "win"],
        subwords=["hotxx"],
    )
    urls = {
        "https://bad.example/x": "domain",
        "http://www.sub.bad.example:80/": "domain",
        "evil.org/page": "domain",
        "https://notbad.example/": "",
        "https://fine.example/page": "url",
        "https://fine.example/page2": "",
        "https://x.example/Casino-night": "word",
        "https://x.example/casinos": "",
        "https://x.example/free-lunch": "",
        "https://x.example/free/win": "soft words",
        "https://x.example/hot-xx": "subword",
        "http://[broken": "",
        "": "",
    }
    assert stage.score(list(urls)).to_pylist() == list(urls.values())
    stage.process(DocumentBatch(data=pa.table({"url": list(urls)})))
    assert stage.recorder.dropped["url_blocklist: domain"] == 3


def test_bad_words_are_found_as_words_and_a_share_can_be_kept() -> None:
    stage = filters.BadWordsFilter(["darn", "oh no", "f*ck"])
    texts = ["Darn!", "darned", "oh no, not", "oh nothing", "what the f*ck.", "darn oh no", ""]
    assert stage.score(texts).to_pylist() == [1, 0, 1, 0, 1, 2, 0]
    assert filters.BadWordsFilter(["悪"], whole_words=False).score(["最悪だ", "良い"]).to_pylist() == [1, 0]
    some = filters.BadWordsFilter(["darn"], keep_fraction=0.3)
    many = [f"darn {index}" for index in range(2000)]
    kept = some.keep(some.score(many)).true_count
    assert 500 < kept < 700
    assert kept == some.keep(some.score(many[::-1])).true_count
