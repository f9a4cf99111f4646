"""Filters by the number of tokens of a tokenizer, and by the number of characters per token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator_core.errors import UsageError
from curator_core.formatting import number
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.parameters import paths_as_text
from curator_text.features.batch import TextFeatures
from curator_text.features.block import Block
from curator_text.filters.base import TextFilter, at_least, between, check_number, check_range, optional, spread

TokenCounter = Callable[[Sequence[str]], list[int]]


@dataclass
class TokenCountFilter(TextFilter):
    """Keep documents whose number of tokens is in a range; tokens that the tokenizer adds (BOS, CLS) also count.

    ``tokenizer`` is a ``tokenizer.json``, a folder that has one, a SentencePiece ``.model``, or a model on the Hugging
    Face hub, which ``hf_model_name`` may name instead.
    """

    maybe_paths = ("tokenizer",)

    tokenizer: str | None = None
    hf_model_name: str | None = None
    min_tokens: int = 0
    max_tokens: float = float("inf")
    score_type: ClassVar[pa.DataType] = pa.int64()

    def __post_init__(self) -> None:
        super().__post_init__()
        paths_as_text(self, "tokenizer")
        check_range(self, "min_tokens", "max_tokens")
        if (self.tokenizer is None) == (self.hf_model_name is None):
            raise UsageError("TokenCountFilter needs either tokenizer=… or hf_model_name=…")

    def setup(self, worker: WorkerMetadata) -> None:
        self._counter()

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return np.array(self._counter()(list(text.texts())), np.int64)

    def limits(self) -> str:
        return (
            f"documents of {spread(self.min_tokens, self.max_tokens)} tokens of {self.tokenizer or self.hf_model_name}"
        )

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return between(scores, self.min_tokens, self.max_tokens)

    def _counter(self) -> TokenCounter:
        return self.loaded(lambda: load_counter(self.tokenizer or self.hf_model_name or "", special=True))


@dataclass
class TokenizerFertilityFilter(TextFilter):
    """Keep documents with enough characters per token; other documents are in a language or script that is foreign to
    the tokenizer.

    ``path_to_tokenizer`` is a SentencePiece ``.model``, a ``tokenizer.json`` or a folder that has one. A document
    without tokens scores -1.
    """

    maybe_paths = ("path_to_tokenizer",)

    path_to_tokenizer: str
    min_char_to_token_ratio: float = 2.5

    def __post_init__(self) -> None:
        super().__post_init__()
        paths_as_text(self, "path_to_tokenizer")
        check_number(self, "min_char_to_token_ratio")

    def setup(self, worker: WorkerMetadata) -> None:
        self._counter()

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        tokens = np.array(self._counter()(list(text.texts())), np.int64)
        chars = text.per_row(Block.char_counts)
        return np.where(tokens == 0, -1.0, chars / np.maximum(tokens, 1))

    def limits(self) -> str:
        return f"documents with at least {number(self.min_char_to_token_ratio)} characters per token of "
        f"{self.path_to_tokenizer}"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_least(scores, self.min_char_to_token_ratio)

    def _counter(self) -> TokenCounter:
        return self.loaded(lambda: load_counter(self.path_to_tokenizer, special=False))


def load_counter(name: str, *, special: bool) -> TokenCounter:
    """A function that counts the tokens of texts."""
    path = Path(name)
    if path.suffix == ".model":
        return _sentencepiece_counter(path)
    tokenizers = optional("tokenizers", "tokenizers")
    if path.is_dir():
        path = path / "tokenizer.json"
    try:
        loaded = (
            tokenizers.Tokenizer.from_file(str(path)) if path.is_file() else tokenizers.Tokenizer.from_pretrained(name)
        )
    except Exception as error:  # the library raises a bare Exception for every failure
        raise UsageError(
            f"the tokenizer {name!r} cannot be loaded: {error}. Give a tokenizer.json, a folder that has one, or, if "
            "the hub is reachable, the name of a model there"
        ) from error
    loaded.no_truncation()
    loaded.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(found) for found in loaded.encode_batch_fast(list(texts), add_special_tokens=special)]

    return count


def plain_counter(name: str) -> TokenCounter:
    """A function that counts the tokens of texts, without special tokens around a text."""
    return load_counter(name, special=False)


def _sentencepiece_counter(path: Path) -> TokenCounter:
    sentencepiece = optional("sentencepiece", "tokenizers")
    if not path.is_file():
        raise UsageError(f"there is no SentencePiece model {str(path)!r}")
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))

    def count(texts: Sequence[str]) -> list[int]:
        return [len(pieces) for pieces in model.encode(list(texts), out_type=int)]

    return count
