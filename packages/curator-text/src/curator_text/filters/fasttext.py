"""Filters by a fastText model: quality and language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curator_core.arrow.arrays import array, scalar
from curator_core.errors import UsageError, check_whole
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.parameters import paths_as_text
from curator_text._exact import power
from curator_text.features.batch import TextFeatures
from curator_text.filters.base import TextFilter, check_number, optional, share

Predict = Callable[[str], tuple[str, float]]


@dataclass
class FastTextQualityFilter(TextFilter):
    """Keep documents by a random draw that favours those that a fastText model rates as good.

    The score is the probability of ``label`` and a draw from a Pareto distribution; a document is kept when the draw is
    above one minus the probability. The draw depends on the text and ``seed``, so it is the same on every worker and in
    every order. ``min_score`` is a fixed limit, which replaces the draw.
    """

    model_path: str
    label: str = "__label__hq"
    alpha: float = 3.0
    seed: int = 42
    min_score: float | None = None
    score_type: ClassVar[pa.DataType] = pa.struct([("score", pa.float64()), ("draw", pa.float64())])

    def __post_init__(self) -> None:
        super().__post_init__()
        paths_as_text(self, "model_path")
        check_number(self, "alpha")
        check_whole("FastTextQualityFilter.seed", self.seed, least=0)
        if self.min_score is not None:
            check_number(self, "min_score")
        if self.alpha <= 0:
            raise UsageError(f"FastTextQualityFilter.alpha must be above 0, not {self.alpha!r}")

    def setup(self, worker: WorkerMetadata) -> None:
        self._predictor()

    def scores_of(self, text: TextFeatures) -> pa.Array:
        predict = self._predictor()
        scores, draws = [], []
        for document in text.texts():
            label, probability = predict(document.replace("\n", " ").replace("__label__", " "))
            scores.append(probability if label == self.label else 1 - probability)
            uniform = xxhash.xxh3_64_intdigest(document.encode(), seed=self.seed) / 2**64
            draws.append(power(1 - uniform, -1 / self.alpha) - 1)
        return pa.StructArray.from_arrays([array(scores, pa.float64()), array(draws, pa.float64())], ["score", "draw"])

    def limits(self) -> str:
        if self.min_score is not None:
            return f"documents with a probability of at least {share(self.min_score)} for {self.label} by "
            f"{self.model_path}"
        return (
            f"documents by a draw (Pareto, alpha {self.alpha:g}, seed {self.seed}) that favours those with "
            f"{self.label} by {self.model_path}"
        )

    def keep_array(self, scores: pa.Array) -> pa.Array:
        probability = pc.struct_field(scores, "score")
        if self.min_score is not None:
            return pc.greater_equal(probability, scalar(self.min_score))
        return pc.greater(pc.struct_field(scores, "draw"), pc.subtract(scalar(1.0), probability))

    def short_name(self) -> str:
        return "fasttext_quality"

    def _predictor(self) -> Predict:
        return self.loaded(lambda: load_model(self.model_path))


@dataclass
class FastTextLangId(TextFilter):
    """Keep documents whose language a fastText model detects with enough certainty, and if ``lang`` is given, only
    those in that language.

    ``lang`` without a script ("eng") matches every script if the model distinguishes scripts ("eng_Latn").
    """

    model_path: str
    min_langid_score: float = 0.3
    lang: str | None = None
    score_type: ClassVar[pa.DataType] = pa.struct([("language", pa.string()), ("score", pa.float64())])

    def __post_init__(self) -> None:
        super().__post_init__()
        paths_as_text(self, "model_path")
        check_number(self, "min_langid_score")

    def setup(self, worker: WorkerMetadata) -> None:
        self._predictor()

    def scores_of(self, text: TextFeatures) -> pa.Array:
        return language_scores(self._predictor(), text)

    def limits(self) -> str:
        language = self.lang or "any language"
        return f"documents in {language} with a probability of at least {share(self.min_langid_score)} by {self.model_path}"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        keep = pc.greater_equal(pc.struct_field(scores, "score"), scalar(self.min_langid_score))
        return pc.and_(keep, self._of_language(scores)) if self.lang else keep

    def tests(self, scores: pa.Array) -> dict[str, pa.Array]:
        unsure = pc.less(pc.struct_field(scores, "score"), scalar(self.min_langid_score))
        other = {"another language": pc.invert(self._of_language(scores))} if self.lang else {}
        return {"lang_id": unsure, **other}

    def _of_language(self, scores: pa.Array) -> pa.Array:
        assert self.lang
        wanted = self.lang.casefold()
        languages = pc.utf8_lower(pc.struct_field(scores, "language"))
        if "_" not in wanted:
            languages = pc.replace_substring_regex(languages, "_.*", "")
        return pc.equal(languages, wanted)

    def short_name(self) -> str:
        return "lang_id"

    def _predictor(self) -> Predict:
        return self.loaded(lambda: load_model(self.model_path))


def language_scores(predict: Predict, text: TextFeatures, max_chars: int | None = None) -> pa.Array:
    """The most likely language of every document and its probability; an empty document has no language and probability
    0.
    """
    languages: list[str | None] = []
    scores: list[float] = []
    for document in text.texts():
        line = document[:max_chars].strip().replace("\n", " ")
        label, score = predict(line) if line else ("", 0.0)
        languages.append(label.removeprefix("__label__") or None)
        scores.append(score)
    return pa.StructArray.from_arrays(
        [array(languages, pa.string()), array(scores, pa.float64())], ["language", "score"]
    )


def load_model(path: str) -> Predict:
    """A function that returns the most likely label of a line and its probability."""
    fasttext = optional("fasttext", "fasttext")
    if not Path(path).is_file():
        raise UsageError(f"there is no fastText model {path!r}: give the path of a .bin or .ftz file")
    try:
        model = fasttext.load_model(path)
    except ValueError as error:
        raise UsageError(f"{path!r} is not a fastText model: {error}") from error

    def predict(line: str) -> tuple[str, float]:
        # A lone surrogate cannot occur here, but a NUL can, and it would end the line in C++.
        labels, probabilities = model.predict(line.replace("\0", " "), k=1)
        return (labels[0], float(np.float64(probabilities[0]))) if len(labels) else ("", 0.0)

    return predict
