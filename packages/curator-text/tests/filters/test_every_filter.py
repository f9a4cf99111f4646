"""Properties of every filter of the package, whatever it measures."""

from __future__ import annotations

import pickle
import random
import time
from collections import Counter
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curator_core import DocumentBatch, UsageError
from curator_core.model.engine_facts import WorkerMetadata
from curator_text import filters, modifiers, presets
from curator_text.features import batch as feature_batch
from curator_text.features import features_of
from curator_text.features.grams import top_gram_removed
from curator_text.filters import code
from curator_text.filters.recipes import LineStage, RecipeFilter
from curator_text.language import LanguageFilter

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
    filters.UrlBlocklistFilter(
        ["example.com"], words=["casino"], soft_words=["free", "win"], subwords=["xx"], column="text"
    ),
    filters.BadWordsFilter(["darn", "oh no"]),
    filters.GopherQualityFilter(),
    filters.GopherRepetitionFilter(),
    filters.FineWebQualityFilter(),
    filters.FineWebQualityFilter(stop_chars=[".", "。"]),
    filters.C4ParagraphFilter(),
]
LINE_STAGES: list[Any] = [
    filters.C4QualityFilter(),
    filters.C4QualityFilter(filter_no_terminal_punct=False, min_num_sentences=1, min_words_per_line=1),
    filters.RefinedWebLineFilter(),
    filters.RefinedWebLineFilter(max_removed_ratio=0.5),
]
MODIFIERS: list[Any] = [
    modifiers.UnicodeRepair(),
    modifiers.UnicodeRepair(everything=True),
    modifiers.NewlineNormalizer(),
    modifiers.WhitespaceNormalizer(),
    modifiers.BoilerplateLineRemover(),
    modifiers.LineRemover(patterns=["line", "a b c"]),
    modifiers.UrlRemover(),
    modifiers.UrlRemover(output_column="clean"),
    modifiers.MarkdownRemover(),
    modifiers.QuotationRemover(),
    modifiers.Slicer(left=1, right=-1),
    modifiers.PiiRedactor(),
    modifiers.PiiRedactor(replace="hash", salt="s"),
    modifiers.DocumentSplitter(separator="\n"),
]
# Filters with models are tested in test_model_filters.py, and stages that join rows in test_modifiers.py.
ELSEWHERE = {
    LanguageFilter,
    filters.FastTextLangId,
    filters.FastTextQualityFilter,
    filters.KenLMPerplexityFilter,
    filters.TokenCountFilter,
    filters.TokenizerFertilityFilter,
    modifiers.DocumentJoiner,
}

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


@pytest.mark.slow
@pytest.mark.parametrize("stage", FILTERS, ids=names)
def test_a_text_has_the_same_score_alone_and_among_others_and_a_second_time(stage: Any) -> None:
    together = plain(stage.score(AWKWARD))
    assert together == plain(stage.score(AWKWARD))
    assert together == [plain(stage.score([text]))[0] for text in AWKWARD]
    assert together == plain(stage.score(AWKWARD[::-1]))[::-1]


@pytest.mark.parametrize("stage", FILTERS, ids=names)
def test_null_has_the_score_of_the_empty_text(stage: Any) -> None:
    assert plain(stage.score([None])) == plain(stage.score([""]))


@pytest.mark.parametrize("stage", FILTERS, ids=names)
def test_no_documents_have_no_scores(stage: Any) -> None:
    assert len(stage.keep(stage.score([]))) == 0
    assert stage.process(batch([])).num_rows == 0


@pytest.mark.slow
@pytest.mark.parametrize("stage", FILTERS, ids=names)
def test_dropped_rows_are_counted_and_kept_rows_are_unchanged(stage: Any) -> None:
    stage = stage.with_()
    before = batch(AWKWARD)
    after = stage.process(before)
    kept = stage.keep(stage.score(AWKWARD))
    assert after.to_pyarrow().equals(before.to_pyarrow().filter(kept))
    assert sum(stage.recorder.dropped.values()) == len(AWKWARD) - after.num_rows
    assert before.num_rows == len(AWKWARD)


@pytest.mark.slow
@pytest.mark.parametrize("stage", FILTERS, ids=names)
def test_annotate_keeps_all_rows_and_invert_keeps_the_dropped_ones(stage: Any) -> None:
    annotated = stage.with_(mode="annotate").process(batch(AWKWARD)).to_pyarrow()
    score, verdict = stage.with_(mode="annotate").columns_added()
    assert annotated.num_rows == len(AWKWARD)
    assert plain(annotated.column(score).combine_chunks()) == plain(stage.score(AWKWARD))
    others = stage.with_(mode="invert").process(batch(AWKWARD)).to_pyarrow()
    dropped = [i for i, keep in enumerate(annotated.column(verdict).to_pylist()) if not keep]
    assert others.column("id").to_pylist() == dropped


@pytest.mark.slow
@pytest.mark.parametrize("stage", [*FILTERS, *LINE_STAGES], ids=names)
def test_a_stage_used_by_hand_can_be_sent_to_a_worker(stage: Any) -> None:
    stage.process(batch(AWKWARD[:3]))
    twin = pickle.loads(pickle.dumps(stage))
    assert twin == stage
    twin.setup(WorkerMetadata())
    assert twin.process(batch(AWKWARD)).to_pyarrow().equals(stage.process(batch(AWKWARD)).to_pyarrow())


def test_a_score_does_not_replace_an_existing_column() -> None:
    first = filters.WordCountFilter(mode="annotate")
    once = first.process(batch(["a b"]))
    with pytest.raises(UsageError, match="adds a column 'word_count', and there is one already"):
        first.with_(min_words=1).process(once)
    with pytest.raises(UsageError, match="adds a column 'id'"):
        filters.WordCountFilter(score_column="id").process(once)
    second = first.with_(min_words=1, score_column="short").process(once).to_pyarrow()
    assert second.drop_columns(["id"]).to_pylist() == [
        {"text": "a b", "word_count": 2, "word_count_keep": False, "short": 2, "short_keep": True}
    ]


def test_a_sequence_of_filters_drops_what_each_drops_alone() -> None:
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
def test_line_stages_count_what_they_drop_and_can_leave_the_text_unchanged(stage: Any) -> None:
    stage, quiet = stage.with_(), stage.with_(rewrite=False)
    edited, left = stage.process(batch(AWKWARD)), quiet.process(batch(AWKWARD))
    assert edited.to_pyarrow().column("id").equals(left.to_pyarrow().column("id"))
    assert left.to_pyarrow().column("text").to_pylist() == [
        AWKWARD[i] for i in left.to_pyarrow().column("id").to_pylist()
    ]
    assert sum(stage.recorder.dropped.values()) == len(AWKWARD) - edited.num_rows
    assert edited.to_pyarrow().schema == left.to_pyarrow().schema


def some_texts(random_: random.Random, number: int) -> list[str | None]:
    """Short and long texts made of repeated words, lines and marks and of every awkward text, and nulls."""
    short = [text for text in AWKWARD if text is None or len(text) < 10_000]
    words = ["a", "the", "be", "that", "1", "12,345", "#", "...", "…", "•", "-", "é", "日本語", "😀", "x\0y", "\u3000"]
    words += [
        "long-enough-to-be-hashed",
        "Home",
        "casino",
        "darn",
        "https://example.com/a_(b)",
        "jane@x.org",
        "sch\u00c3\u00b6n",
        '"so."',
        "*so*",
        "`so`",
        "use cookies",
        "3 likes",
    ]
    texts: list[str | None] = []
    for _ in range(number):
        lines = [" ".join(random_.choices(words, k=random_.randint(0, 9))) for _ in range(random_.randint(1, 8))]
        lines += random_.choices([SENTENCE, "line", "", "\r", 'He said "so."'], k=random_.randint(0, 9))
        random_.shuffle(lines)
        texts.append(random_.choice(short) if random_.random() < 0.2 else random_.choice("\n \x85")[:1].join(lines))
    return texts


def run(stage: Any, batches: list[DocumentBatch]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """All rows that a stage leaves, and its counts, with a fresh copy for each batch."""
    rows: list[dict[str, Any]] = []
    counted: Counter[str] = Counter()
    for task in batches:
        stage = stage.with_()
        rows += stage.process(task).to_pyarrow().to_pylist()
        counted.update(stage.recorder.dropped)
        counted.update(stage.recorder.metrics)
    return rows, counted


def test_every_registered_filter_and_modifier_is_tested_here() -> None:
    places = ("curator_text.filters", "curator_text.modifiers", "curator_text.language")
    known = {type(stage) for stage in [*FILTERS, *LINE_STAGES, *MODIFIERS]} | ELSEWHERE
    registered = {entry.load() for entry in entry_points(group="curator.stages") if entry.value.startswith(places)}
    assert registered - known == set()
    assert len(registered) > 50


@pytest.mark.slow
@pytest.mark.parametrize("count", [50, pytest.param(150, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("stage", [*FILTERS, *LINE_STAGES, *MODIFIERS], ids=names)
def test_what_happens_to_a_document_does_not_depend_on_its_batch(
    stage: Any, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_ = random.Random(7)
    texts = some_texts(random_, count)
    table = batch(texts).to_pyarrow()
    rows, counted = run(stage, [DocumentBatch(data=table)])
    if stage in [*FILTERS, *LINE_STAGES]:
        assert counted.total() == len(texts) - len(rows)
    # One by one, in slices of any size, in chunks of any size, and among others that are dropped before.
    singles = [table.slice(row, 1) for row in range(len(texts))]
    assert run(stage, [DocumentBatch(data=part) for part in singles]) == (rows, counted)
    for block_bytes in (feature_batch.BLOCK_BYTES, 1000):
        monkeypatch.setattr(feature_batch, "BLOCK_BYTES", block_bytes)
        cuts = sorted({0, len(texts), *random_.sample(range(len(texts)), 12)})
        slices = [table.slice(a, b - a) for a, b in pairwise(cuts)]
        for parts in (slices, [pa.concat_tables(slices)]):
            assert run(stage, [DocumentBatch(data=part) for part in parts]) == (rows, counted)
        mixed = [None] * (2 * len(texts))
        mixed[1::2] = texts
        ids = np.arange(2 * len(texts)) // 2
        among = DocumentBatch(data=pa.table({"text": pa.array(mixed, pa.string()), "id": pa.array(ids)}))
        features_of(among, "text").per_row(top_gram_removed, 2)
        assert run(stage, [among.filter(pa.array(np.arange(len(mixed)) % 2 == 1))]) == (rows, counted)


@pytest.mark.parametrize("stage", [*LINE_STAGES, *MODIFIERS], ids=names)
def test_a_filter_measures_the_text_as_an_earlier_stage_changed_it(stage: Any) -> None:
    texts = some_texts(random.Random(8), 100)
    both = pa.table(
        {"text": pa.array(texts, pa.string()), "id": range(len(texts)), "body": pa.array(texts[::-1], pa.string())}
    )
    measures = [filters.WordCountFilter(1), filters.GopherRepetitionFilter(), filters.NonAlphaNumericFilter(0.5)]
    task = DocumentBatch(data=both)
    # Earlier measurements of two columns must not be used for the remaining rows.
    for measure in measures:
        task = measure.with_(column="body", mode="annotate", score_column=f"body {measure}").process(task)
        task = measure.with_(mode="annotate").process(task)
    changed = stage.process(task)
    for measure in measures:
        for column in ("text", "body"):
            fresh = DocumentBatch(data=changed.to_pyarrow())
            again = measure.with_(column=column)
            assert again.process(changed).to_pyarrow().equals(again.process(fresh).to_pyarrow())
            assert again.score_batch(changed).equals(again.score(fresh.to_pyarrow()[column]))


DICTIONARY = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        *(
            (stage, kind)
            for stage in [*FILTERS[:1], *LINE_STAGES, *MODIFIERS]
            for kind in (pa.large_string(), DICTIONARY)
        ),
        # Arrow cannot select rows of a column of string views.
        *((stage, pa.string_view()) for stage in MODIFIERS[:-1]),
    ],
    ids=str,
)
def test_a_column_of_texts_keeps_its_type_whatever_kind_of_texts_it_holds(stage: Any, kind: pa.DataType) -> None:
    texts = [
        "see https://x.org/ and a@b.org\n# *so*\nuse cookies",
        None,
        '"a b."',
        "sch\u00c3\u00b6n\r\n\r\n\r\n&amp;  x",
    ]
    column = pa.array(texts, pa.string())
    plain = stage.process(DocumentBatch(data=pa.table({"text": column}))).to_pyarrow()
    found = stage.process(DocumentBatch(data=pa.table({"text": column.cast(kind)}))).to_pyarrow()
    assert found.schema.field("text").type == kind
    assert found.to_pylist() == plain.to_pylist()


def test_recipes_count_dropped_documents_by_the_first_limit_that_they_break() -> None:
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
        (lambda: filters.UrlsFilter(url_regex="("), "not a regular expression"),
        (lambda: filters.RepeatingTopNGramsFilter(n=0), "1 or more"),
        (lambda: filters.RepeatingDuplicateNGramsFilter(n=3000), "at most 100"),
        (lambda: filters.NumbersFilter(float("nan")), "must be a number, not nan"),
        (lambda: filters.NumbersFilter(score_column="text"), "a column other than that of the text"),
        (lambda: filters.CommonEnglishWordsFilter(2.5), "whole number of 0 or more"),
        (lambda: filters.C4ParagraphFilter(min_paragraphs=0), "whole number of 1 or more"),
        (lambda: filters.C4QualityFilter(min_num_sentences="5"), "C4QualityFilter.min_num_sentences must be a number"),
        (lambda: filters.C4QualityFilter(rewrite="no"), "must be True or False"),
        (lambda: filters.C4QualityFilter(column=3), "name of a column"),
        (lambda: filters.FineWebQualityFilter(short_line_thr=None), "must be a number, not None"),
        (lambda: filters.FineWebQualityFilter(stop_chars=[1]), "a list of marks"),
        (lambda: filters.GopherRepetitionFilter(dup_n_grams=[[0, 0.2]]), "n from 1 to 100 words"),
        (lambda: filters.GopherQualityFilter(stop_words="the"), "must be a list of words"),
        (lambda: filters.HistogramFilter(threshold_char=""), "one character"),
        (filters.UrlBlocklistFilter, "blocks nothing without a list"),
        (lambda: filters.UrlBlocklistFilter(words=[1]), "must be a list of texts"),
        (lambda: filters.BadWordsFilter("none.txt").score(["a"]), "a file with one entry per line"),
        (lambda: filters.FastTextQualityFilter("m", min_score="x"), "must be a number"),
        (lambda: LanguageFilter([]), "language codes such as 'en'"),
        (lambda: filters.WordCountFilter().score("some text"), "in brackets"),
        (lambda: filters.WordCountFilter().score([1]), "not all of these values are text"),
        (lambda: filters.GeneralCommentToCodeFilter("text/x-cobol"), "text/x-java"),
        (lambda: filters.HistogramFilter(lang="de"), "cache_dir"),
        (lambda: filters.BadWordsFilter([]), "a list, or a file"),
        (lambda: filters.BadWordsFilter(["a"], keep_fraction=2), "at most 1"),
        (lambda: filters.GopherRepetitionFilter(top_n_grams=[2]), "pairs of n and limit"),
        (lambda: filters.GopherQualityFilter(min_doc_words="many"), "must be a number"),
        (filters.TokenCountFilter, "tokenizer=… or hf_model_name"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_remedy(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


PYTHON = r"""x = "# no" '# no'  # one
y = '''# no
\''' # no'''# two
z = ""  #three
r = r"\\"  # four
"""


def test_comments_equal_those_of_the_tokenizer_even_if_a_line_is_long() -> None:
    expected = ["# one", "# two", "#three", "# four"]
    assert code.python_comments(PYTHON) == expected
    table = f"data = [{'1, ' * 5000}]\n"
    assert code.python_comments(table + PYTHON) == expected
    assert code.python_comments(f"data = [{'1, ' * 400_000}]  # a table\n") == ["# a table"]
    stage = filters.GeneralCommentToCodeFilter("text/x-python")
    assert stage.score([table + end for end in ("'open", '"open', "'''open'", '"""open"')]).to_pylist() == [9999.0] * 4
    assert stage.score([table + "'''''a'b''c'''" + '"a\\\n# b"']).to_pylist() == [0.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "visible"),
    [("<!--", True), ("</", True), ("<a ", True), ("<a b='", True), ("<?", True), ("<![", False), ("<script>", False)],
)
def test_tags_and_comments_that_do_not_end_cost_no_time(part: str, visible: bool) -> None:
    started = time.process_time()
    source = "<p>text</p>" + part * (1_000_000 // len(part))
    found = code.visible_chars(source)
    assert found == (len(source) - len("<p></p>") if visible else len("text"))
    assert time.process_time() - started < 10


def test_a_character_reference_of_any_length_is_one_character() -> None:
    assert code.visible_chars(f"a&#{'9' * 5000};b&#x{'f' * 5000};c&#{'0' * 50}65;") == 6


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
    assert scores("python", "cbl") == [0, 0, 0]
    with pytest.raises(UsageError, match="no such language; did you mean 'python'"):
        filters.PerExtensionFilter("pyton", "py", table).setup(WorkerMetadata())
    with pytest.raises(UsageError, match="cannot be read"):
        filters.PerExtensionFilter("python", "py", str(tmp_path / "none.csv")).setup(WorkerMetadata())


def test_a_histogram_is_read_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "el").write_text("λ 12\nβ 3\nδ 1\n]\nz 1\n", encoding="utf-8")
    stage = filters.HistogramFilter(lang="el", cache_dir=str(tmp_path))
    assert stage.score(["λβδλ", "abcz", "λβδz", " λβ ", "λβδλβδλβδz"]).to_pylist() == [1, 0, 0, 0, 1]
    with pytest.raises(UsageError, match="no histogram file 'pl'"):
        filters.HistogramFilter(lang="pl", cache_dir=str(tmp_path)).setup(WorkerMetadata())


def test_addresses_are_blocked_by_domain_word_and_part(tmp_path: Path) -> None:
    # With a byte order mark at the start, as some editors save it.
    (tmp_path / "domains.txt").write_text("bad.example\n# a comment\nEvil.org\n", encoding="utf-8-sig")
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
        "//me:pw@EVIL.org.:80/page": "domain",
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
    assert stage.recorder.dropped["url_blocklist: domain"] == 4


def test_bad_words_are_found_as_whole_words_and_a_share_of_documents_can_be_kept() -> None:
    stage = filters.BadWordsFilter(["darn", "oh no", "f*ck"])
    texts = ["Darn!", "darned", "oh no, not", "oh nothing", "what the f*ck.", "darn oh no", ""]
    assert stage.score(texts).to_pylist() == [1, 0, 1, 0, 1, 2, 0]
    assert filters.BadWordsFilter(["#tag"]).score(["a #tag", "tag"]).to_pylist() == [1, 0]
    assert filters.BadWordsFilter(["悪"], whole_words=False).score(["最悪だ", "良い"]).to_pylist() == [1, 0]
    some = filters.BadWordsFilter(["darn"], keep_fraction=0.3)
    many = [f"darn {index}" for index in range(2000)]
    kept = some.keep(some.score(many)).true_count
    assert 500 < kept < 700
    assert kept == some.keep(some.score(many[::-1])).true_count


# Seeds that have no effect unless another parameter requests a draw.
UNSAID = {("FastTextQualityFilter", "seed"), ("BadWordsFilter", "seed")}


def other_numbers(stage: Any) -> list[tuple[str, Any]]:
    values = stage.params().items()
    return [(name, value) for name, value in values if isinstance(value, int | float) and not isinstance(value, bool)]


@pytest.mark.parametrize(
    "stage", [*FILTERS, *LINE_STAGES, LanguageFilter(), filters.KenLMPerplexityFilter("m")], ids=names
)
def test_the_description_of_a_filter_has_every_limit(stage: Any) -> None:
    said = stage.describe()
    assert said.startswith(("keeps ", "removes ")), said
    for name, value in other_numbers(stage):
        if (type(stage).__name__, name) in UNSAID:
            continue
        changed = stage.with_(**{name: value + 1 if isinstance(value, int) else value * 0.9 + 0.003})
        assert changed.describe() != said, name
    if stage in LINE_STAGES:
        assert stage.with_(rewrite=False).describe() != said
    else:
        assert stage.with_(mode="invert").describe() == "drops " + said.removeprefix("keeps ")
        assert stage.with_(mode="annotate").describe().startswith("drops nothing; marks documents") or "files" in said


def test_limits_are_described_in_plain_words() -> None:
    assert filters.WordCountFilter().describe() == "keeps documents of 50 to 100,000 words"
    assert filters.WordCountFilter(min_words=0).describe() == "keeps documents of at most 100,000 words"
    assert "at most 25 % of characters other than" in filters.NonAlphaNumericFilter().describe()
    assert "run of 3 words" in filters.RepeatingTopNGramsFilter(n=3).describe()
    assert filters.TokenCountFilter("gpt2", min_tokens=10).describe() == "keeps documents of at least 10 tokens of gpt2"
    assert filters.GopherQualityFilter(min_doc_words=None).describe().startswith("keeps documents with at most 100,000")
