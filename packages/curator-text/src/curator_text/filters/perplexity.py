"""A filter by perplexity, which measures how much a text surprises a KenLM model of good text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from curator_core.errors import UsageError
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.parameters import paths_as_text
from curator_text._exact import power_of_ten
from curator_text.filters.base import DocumentFilter, between, check_range, optional, spread


@dataclass
class KenLMPerplexityFilter(DocumentFilter):
    """Keep documents whose perplexity under a KenLM model (``.arpa`` or ``.bin``) is in a range.

    Every line that is not blank is a sentence; words are separated by white space, or are the pieces of
    ``sentencepiece_model``. A document without words has an infinite perplexity.
    """

    maybe_paths = ("sentencepiece_model",)

    model_path: str
    max_perplexity: float = 1500.0
    min_perplexity: float = 0.0
    lowercase: bool = False
    sentencepiece_model: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        paths_as_text(self, "model_path", "sentencepiece_model")
        check_range(self, "min_perplexity", "max_perplexity")

    def setup(self, worker: WorkerMetadata) -> None:
        self._scorer()

    def score_one(self, text: str) -> float:
        score = self._scorer()
        total, size = 0.0, 0
        for line in (text.lower() if self.lowercase else text).split("\n"):
            if line.strip():
                log10, words = score(line)
                total, size = total + log10, size + words
        return power_of_ten(min(-total / size, 300.0)) if size else float("inf")

    def limits(self) -> str:
        return (
            f"documents with a perplexity of {spread(self.min_perplexity, self.max_perplexity)} under {self.model_path}"
        )

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return between(scores, self.min_perplexity, self.max_perplexity)

    def short_name(self) -> str:
        return "perplexity"

    def _scorer(self) -> Callable[[str], tuple[float, int]]:
        return self.loaded(self._load)

    def _load(self) -> Callable[[str], tuple[float, int]]:
        kenlm = optional("kenlm", "kenlm")
        if not Path(self.model_path).is_file():
            raise UsageError(f"there is no KenLM model {self.model_path!r}")
        try:
            model = kenlm.Model(self.model_path)
        except OSError as error:
            raise UsageError(f"{self.model_path!r} is not a KenLM model: {error}") from error
        pieces = None
        if self.sentencepiece_model is not None:
            sentencepiece = optional("sentencepiece", "tokenizers")
            pieces = sentencepiece.SentencePieceProcessor(model_file=self.sentencepiece_model)

        def score(line: str) -> tuple[float, int]:
            words = pieces.encode(line, out_type=str) if pieces else line.split()
            # One more than the number of words, because the model also predicts the end of the sentence.
            return model.score(" ".join(words).replace("\0", " "), bos=True, eos=True), len(words) + 1

        return score
