"""Filters of whole published recipes: Gopher, C4, FineWeb, RefinedWeb, each with its limits and its reasons.

A recipe has several measures. Its score is a struct of them, so that ``mode="annotate"`` writes all the numbers into
one column, and a dropped document is counted under the first limit that it breaks, with datatrove's name of that limit.
Words are separated by white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator_core.arrow.arrays import array, to_numpy
from curator_core.errors import UsageError, check_free, check_whole
from curator_core.formatting import count, number
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_text import _unicode
from curator_text._columns import with_text
from curator_text.features.batch import TextFeatures, features_of
from curator_text.features.block import DIGIT, LETTER, Block
from curator_text.features.grams import skipped_gram_chars, top_gram_counts, top_gram_sizes
from curator_text.features.lines import (
    Pieces,
    between_newlines,
    count_pieces,
    distinct_sentence_chars,
    inner_words,
    line_counts,
    lines_of,
    printed_lines_of,
    repeats,
    sentence_chars,
    sentence_counts,
    sentences_of,
    sum_pieces,
)
from curator_text.features.words import (
    count_words,
    distinct_known_words,
    having,
    word_counts,
    word_lengths,
    word_rows,
    words_having,
    words_of,
)
from curator_text.filters.base import TextFilter, check_number, ratio, share
from curator_text.filters.faults import MOST_SPANS, at_fault
from curator_text.filters.heuristic import COMMON_ENGLISH_WORDS
from curator_text.filters.repetition import MOST_WORDS

Broken = tuple[str, npt.NDArray[np.bool_]]


@dataclass(kw_only=True)
class RecipeFilter(TextFilter):
    """Base of filters with several measures and several limits."""

    def metrics(self, text: TextFeatures) -> dict[str, npt.NDArray[Any]]:
        """The measures, by name."""
        raise NotImplementedError(f"{type(self).__name__} needs metrics(text)")

    def broken(self, scores: dict[str, npt.NDArray[Any]]) -> Iterator[Broken]:
        """The reason for every limit and the rows that break it, in the order in which limits are checked."""
        raise NotImplementedError(f"{type(self).__name__} needs broken(scores)")

    def scores_of(self, text: TextFeatures) -> pa.Array:
        found = self.metrics(text)
        return pa.StructArray.from_arrays([array(values) for values in found.values()], list(found))

    def tests(self, scores: pa.Array) -> dict[str, pa.Array]:
        return {reason: array(np.asarray(rows, np.bool_)) for reason, rows in self.broken(_columns(scores))}

    def scores_with(self, part: str, values: Sequence[float]) -> pa.Array:
        # Measure an empty document to get the names and types of the measures.
        measures = {
            name: np.zeros(len(values), found.dtype) for name, found in self.metrics(TextFeatures.of([""])).items()
        }
        if part in measures:
            measures[part] = np.asarray(values).astype(measures[part].dtype)
        return pa.StructArray.from_arrays([array(found) for found in measures.values()], list(measures))

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pa.compute.is_null(self._first_broken(scores))

    def reasons(self, scores: pa.Array) -> pa.Array:
        return self._first_broken(scores)

    def _first_broken(self, scores: pa.Array) -> pa.Array:
        which = np.full(len(scores), -1)
        reasons: list[str] = []
        if isinstance(scores, pa.StructArray):
            for reason, rows in self.broken(_columns(scores)):
                which[(which < 0) & rows] = len(reasons)
                reasons.append(reason)
        indices = array([None if at < 0 else at for at in which.tolist()], pa.int32())
        return pa.DictionaryArray.from_arrays(indices, array(reasons, pa.string())).cast(pa.string())


def _columns(scores: pa.StructArray) -> dict[str, npt.NDArray[Any]]:
    names = [field.name for field in scores.type]
    return {name: to_numpy(values) for name, values in zip(names, scores.flatten(), strict=True)}


@dataclass
class GopherQualityFilter(RecipeFilter):
    """The quality rules of Gopher (MassiveText): length, mean word length, symbols, bullets, ellipses, letters, stop
    words.

    A limit of None or 0 is not checked. Words that consist of punctuation alone do not count towards length and mean.
    """

    min_doc_words: int | None = 50
    max_doc_words: int | None = 100000
    min_avg_word_length: float | None = 3
    max_avg_word_length: float | None = 10
    max_symbol_word_ratio: float | None = 0.1
    max_bullet_lines_ratio: float | None = 0.9
    max_ellipsis_lines_ratio: float | None = 0.3
    max_non_alpha_words_ratio: float | None = 0.8
    min_stop_words: int | None = 2
    stop_words: Sequence[str] = COMMON_ENGLISH_WORDS

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_limits(self, except_for=("stop_words",))
        words = self.stop_words
        if (
            isinstance(words, str)
            or not isinstance(words, Iterable)
            or not all(isinstance(word, str) for word in words)
        ):
            raise UsageError(f"GopherQualityFilter.stop_words must be a list of words, not {words!r}")
        self.stop_words = tuple(words)

    def metrics(self, text: TextFeatures) -> dict[str, npt.NDArray[Any]]:
        words = text.per_row(word_counts)
        real, lines = text.per_row(_real_words), text.per_row(_printed_lines)
        return {
            "words": real,
            "mean_word_length": ratio(text.per_row(_real_word_chars), real, empty=0.0),
            "hash_ratio": ratio(text.per_row(Block.byte_occurrences, ord("#")), words, empty=1.0),
            "ellipsis_ratio": ratio(text.per_row(_ellipses), words, empty=1.0),
            "bullet_lines": ratio(text.per_row(_dashed_lines), lines, empty=1.0),
            "ellipsis_lines": ratio(text.per_row(_trailing_off_lines), lines, empty=1.0),
            "alpha_words": ratio(text.per_row(words_having, LETTER, _unicode.LETTER), words, empty=0.0),
            "stop_words": text.per_row(distinct_known_words, self.stop_words),
        }

    def limits(self) -> str:
        rules = (
            (self.min_doc_words, "at least {} words", number),
            (self.max_doc_words, "at most {} words", number),
            (self.min_avg_word_length, "a mean word length of at least {} characters", number),
            (self.max_avg_word_length, "a mean word length of at most {} characters", number),
            (self.max_symbol_word_ratio, "at most {} hashes and ellipses per word", share),
            (self.max_bullet_lines_ratio, "at most {} lines with a bullet", share),
            (self.max_ellipsis_lines_ratio, "at most {} lines that end with an ellipsis", share),
            (self.max_non_alpha_words_ratio, "at least {} words that have a letter", share),
            (self.min_stop_words, f"at least {{}} of the words {', '.join(self.stop_words)}", number),
        )
        return _documents_with(text.format(shown(limit)) for limit, text, shown in rules if limit)

    def broken(self, scores: dict[str, npt.NDArray[Any]]) -> Iterator[Broken]:
        if self.min_doc_words:
            yield "gopher_short_doc", scores["words"] < self.min_doc_words
        if self.max_doc_words:
            yield "gopher_long_doc", scores["words"] > self.max_doc_words
        if self.min_avg_word_length:
            yield "gopher_below_avg_threshold", scores["mean_word_length"] < self.min_avg_word_length
        if self.max_avg_word_length:
            yield "gopher_above_avg_threshold", scores["mean_word_length"] > self.max_avg_word_length
        if self.max_symbol_word_ratio:
            yield "gopher_too_many_hashes", scores["hash_ratio"] > self.max_symbol_word_ratio
            yield "gopher_too_many_ellipsis", scores["ellipsis_ratio"] > self.max_symbol_word_ratio
        if self.max_bullet_lines_ratio:
            yield "gopher_too_many_bullets", scores["bullet_lines"] > self.max_bullet_lines_ratio
        if self.max_ellipsis_lines_ratio:
            yield "gopher_too_many_end_ellipsis", scores["ellipsis_lines"] > self.max_ellipsis_lines_ratio
        if self.max_non_alpha_words_ratio:
            yield "gopher_below_alpha_threshold", scores["alpha_words"] < self.max_non_alpha_words_ratio
        if self.min_stop_words:
            yield "gopher_enough_stop_words", scores["stop_words"] < self.min_stop_words


@dataclass
class GopherRepetitionFilter(RecipeFilter):
    """The repetition rules of Gopher: repeated paragraphs, lines and n-grams of words.

    A limit of None or 0 is not checked; ``top_n_grams`` and ``dup_n_grams`` are pairs of n and limit.
    """

    dup_line_frac: float | None = 0.3
    dup_para_frac: float | None = 0.3
    dup_line_char_frac: float | None = 0.2
    dup_para_char_frac: float | None = 0.2
    top_n_grams: Sequence[Sequence[float]] = ((2, 0.2), (3, 0.18), (4, 0.16))
    dup_n_grams: Sequence[Sequence[float]] = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_limits(self, except_for=("top_n_grams", "dup_n_grams"))
        self.top_n_grams = _pairs(self, "top_n_grams")
        self.dup_n_grams = _pairs(self, "dup_n_grams")

    def metrics(self, text: TextFeatures) -> dict[str, npt.NDArray[Any]]:
        chars = text.per_row(Block.char_counts)
        found: dict[str, npt.NDArray[Any]] = {
            "dup_para_frac": ratio(*_parts(text, _paragraph_repeats), empty=0.0),
            "dup_para_char_frac": ratio(text.per_row(_repeated_chars, True), chars, empty=0.0),
            "dup_line_frac": ratio(*_parts(text, _line_repeats), empty=0.0),
            "dup_line_char_frac": ratio(text.per_row(_repeated_chars, False), chars, empty=0.0),
        }
        for n, _ in self.top_n_grams:
            top = text.per_row(top_gram_counts, n) * text.per_row(top_gram_sizes, n)
            found[f"top_{n}_gram"] = ratio(top, chars, empty=0.0)
        for n, _ in self.dup_n_grams:
            found[f"dup_{n}_gram"] = ratio(text.per_row(skipped_gram_chars, n), chars, empty=0.0)
        found["empty"] = chars == 0
        return found

    def limits(self) -> str:
        rules = [
            (self.dup_para_frac, "paragraphs that repeat another"),
            (self.dup_para_char_frac, "characters in repeated paragraphs"),
            (self.dup_line_frac, "lines that repeat another"),
            (self.dup_line_char_frac, "characters in repeated lines"),
            *(
                (limit, f"characters in their most frequent run of {count(int(n), 'word')}")
                for n, limit in self.top_n_grams
            ),
            *((limit, f"characters in repeated runs of {count(int(n), 'word')}") for n, limit in self.dup_n_grams),
        ]
        return _documents_with(f"at most {share(limit)} of {what}" for limit, what in rules if limit)

    def broken(self, scores: dict[str, npt.NDArray[Any]]) -> Iterator[Broken]:
        yield "empty", scores["empty"]
        for name in ("dup_para_frac", "dup_para_char_frac", "dup_line_frac", "dup_line_char_frac"):
            if limit := getattr(self, name):
                yield name, scores[name] > limit
        for n, limit in self.top_n_grams:
            yield f"top_{n}_gram", scores[f"top_{n}_gram"] > limit
        for n, limit in self.dup_n_grams:
            yield f"duplicated_{n}_n_grams", scores[f"dup_{n}_gram"] > limit


@dataclass
class FineWebQualityFilter(RecipeFilter):
    """The rules that FineWeb adds: ends of lines, short lines, repeated lines, newlines per word.

    ``stop_chars`` replaces the default set of marks that end a sentence, which covers all scripts.
    """

    line_punct_thr: float = 0.12
    line_punct_exclude_zero: bool = False
    stop_chars: Sequence[str] | None = None
    short_line_thr: float = 0.67
    short_line_length: int = 30
    char_duplicates_ratio: float = 0.01
    new_line_ratio: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_limits(self, except_for=("stop_chars",))
        marks = self.stop_chars
        if marks is not None:
            if not isinstance(marks, Iterable) or not all(isinstance(mark, str) and mark for mark in marks):
                raise UsageError(f"FineWebQualityFilter.stop_chars must be a list of marks such as '.', not {marks!r}")
            self.stop_chars = tuple(marks)

    def metrics(self, text: TextFeatures) -> dict[str, npt.NDArray[Any]]:
        lines, newlines = text.per_row(sentence_counts), text.per_row(line_counts) - 1
        repeated = text.per_row(sentence_chars) - text.per_row(distinct_sentence_chars)
        return {
            "lines": lines,
            "line_punct_ratio": ratio(text.per_row(_ended_lines, self.stop_chars), lines, empty=0.0),
            "short_line_ratio": ratio(text.per_row(_short_lines, self.short_line_length), lines, empty=1.0),
            "char_dup_ratio": ratio(repeated, text.per_row(Block.char_counts) - newlines, empty=0.0),
            "list_ratio": ratio(newlines, text.per_row(word_counts), empty=1.0),
        }

    def limits(self) -> str:
        marks = "a mark of punctuation" if self.stop_chars is None else " ".join(self.stop_chars)
        none = " (or none)" if self.line_punct_exclude_zero else ""
        return _documents_with(
            (
                f"at least {share(self.line_punct_thr)} of lines{none} that end with {marks}",
                f"at most {share(self.short_line_thr)} of lines of at most {number(self.short_line_length)} characters",
                f"at most {share(self.char_duplicates_ratio)} of characters in repeated lines",
                f"at most {number(self.new_line_ratio)} newlines per word",
            )
        )

    def broken(self, scores: dict[str, npt.NDArray[Any]]) -> Iterator[Broken]:
        ended = scores["line_punct_ratio"]
        yield "empty", scores["lines"] == 0
        spared = (ended == 0) & self.line_punct_exclude_zero
        yield "line_punct_ratio", (ended < self.line_punct_thr) & ~spared
        yield "short_line_ratio", scores["short_line_ratio"] > self.short_line_thr
        yield "char_dup_ratio", scores["char_dup_ratio"] > self.char_duplicates_ratio
        yield "list_ratio", scores["list_ratio"] > self.new_line_ratio


@dataclass
class C4ParagraphFilter(TextFilter):
    """Keep documents with enough long lines (mC4): the score is the length of the third longest line."""

    min_paragraphs: int = 3
    min_paragraph_len: int = 200
    score_type: ClassVar[pa.DataType] = pa.int64()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_limits(self)
        check_whole("C4ParagraphFilter.min_paragraphs", self.min_paragraphs)

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return text.per_row(_nth_longest_lines, self.min_paragraphs)

    def limits(self) -> str:
        return f"documents with {number(self.min_paragraphs)} lines of at least {number(self.min_paragraph_len)} characters"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pa.compute.greater_equal(scores, self.min_paragraph_len)


POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")


@dataclass(kw_only=True)
class LineStage(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Base of recipes that remove lines from documents, and drop documents if too little is left.

    They change the text of their column; ``rewrite=False`` drops the same documents and leaves the text of the others
    unchanged. ``mode="annotate"`` drops and changes nothing, and adds a column such as ``c4_quality_keep``, which says
    whether the document would stay.
    """

    column: str = "text"
    rewrite: bool = True
    mode: Literal["filter", "annotate"] = "filter"

    def __post_init__(self) -> None:
        if self.mode not in ("filter", "annotate"):
            raise UsageError(f"{type(self).__name__}.mode must be 'filter' or 'annotate', not {self.mode!r}")
        if not isinstance(self.column, str) or not self.column:
            raise UsageError(f"{type(self).__name__}.column must be the name of a column, not {self.column!r}")
        _check_limits(self)
        self.shows_kept = self.mode == "filter"

    def inputs(self) -> list[str]:
        return [self.column]

    def outputs(self) -> list[str]:
        if self.mode != "annotate":
            return []
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__.removesuffix("Filter")).lower()
        return [f"{name}_keep"]

    def edit(self, text: TextFeatures) -> tuple[list[str | None], list[str]]:
        """The remaining text of every document (None if it is dropped), and the reason for each dropped document."""
        raise NotImplementedError

    def at_fault(self, text: str, reason: str) -> Iterable[tuple[int, int]]:
        """The parts of a text for which it was dropped; see `ColumnFilter.at_fault`."""
        return islice(at_fault(self, text, reason), MOST_SPANS)

    def edits(self, lines: str, documents: str) -> str:
        """The text of `describe`: the lines that are removed, and the documents that are dropped."""
        if self.mode == "annotate":
            return f"drops nothing; marks documents {documents or 'as kept'}"
        removes = f"removes {lines}" if self.rewrite else f"finds {lines}, leaving the text as it is"
        return f"{removes}; drops documents {documents}" if documents else removes

    def process(self, task: DocumentBatch) -> DocumentBatch:
        task = with_text(self, task, self.column)
        texts, reasons = self.edit(features_of(task, self.column))
        if self.mode == "annotate":
            (verdict,) = self.outputs()
            check_free(type(self).__name__, task.column_names, [verdict])
            return task.append_column(verdict, array([text is not None for text in texts], pa.bool_()))
        gone = [row for row, text in enumerate(texts) if text is None]
        for row, reason in zip(gone, reasons, strict=True):
            self.record_dropped(reason, which=row, of=task)
        kept = [text for text in texts if text is not None]
        if len(kept) < len(texts):
            task = task.filter(array([text is not None for text in texts], pa.bool_()))
        if not self.rewrite:
            return task
        kind = task.to_pyarrow().schema.field(self.column).type
        return task.append_column(self.column, array(kept, pa.string() if pa.types.is_null(kind) else kind))


@dataclass
class C4QualityFilter(LineStage):
    """The rules of C4: lines must end like sentences, have enough words and no boilerplate, and a document must have
    enough sentences.

    Lines that fail are removed from the text. A line with ``{`` or "lorem ipsum" drops the whole document. A limit of
    -1 is
    not checked.
    """

    remove_citations: bool = True
    filter_no_terminal_punct: bool = True
    min_num_sentences: int = 5
    min_words_per_line: int = 3
    max_word_length: int = 1000
    filter_lorem_ipsum: bool = True
    filter_javascript: bool = True
    filter_curly_bracket: bool = True
    filter_policy: bool = True

    def edit(self, text: TextFeatures) -> tuple[list[str | None], list[str]]:
        texts: list[str | None] = []
        reasons: list[str] = []
        for document in text.texts():
            edited, reason = self.edit_one(document)
            texts.append(edited)
            if reason:
                reasons.append(reason)
        return texts, reasons

    def edit_one(self, document: str) -> tuple[str | None, str]:
        """The remaining text of one document, or None and the reason."""
        kept: list[str] = []
        sentences = 0
        for raw in document.splitlines():
            line = raw.strip()
            words = line.split()
            if -1 < self.max_word_length < len(line) and max(map(len, words)) > self.max_word_length:
                continue
            if self.remove_citations and "[" in line:
                line = _CITATION.sub("", line)
            if self.filter_no_terminal_punct and (not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...")):
                continue
            if len(words) < self.min_words_per_line:
                continue
            lowered = line.lower()
            if self.filter_lorem_ipsum and "lorem ipsum" in lowered:
                return None, "lorem_ipsum"
            if self.filter_javascript and "javascript" in lowered:
                continue
            if self.filter_curly_bracket and "{" in line:
                return None, "curly_bracket"
            if self.filter_policy and any(part in lowered for part in POLICIES):
                continue
            if self.min_num_sentences != -1:
                sentences += count_sentences(line)
            kept.append(line)
        if sentences < self.min_num_sentences:
            return None, "too_few_sentences"
        return "\n".join(kept).strip(), ""

    def describe(self) -> str:
        lines = [f"that have a word of more than {number(self.max_word_length)} characters"] * (
            self.max_word_length > -1
        )
        lines += ["that do not end like a sentence"] * self.filter_no_terminal_punct
        lines += [f"of fewer than {number(self.min_words_per_line)} words"] * (self.min_words_per_line > 0)
        lines += ['with "javascript"'] * self.filter_javascript + ["about policies and cookies"] * self.filter_policy
        parts = ["lorem ipsum"] * self.filter_lorem_ipsum + ["{"] * self.filter_curly_bracket
        drops = [f"with {' or '.join(parts)}"] if parts else []
        drops += [f"of fewer than {number(self.min_num_sentences)} sentences"] * (self.min_num_sentences > 0)
        return self.edits("lines " + ", ".join(lines) if lines else "no lines", " or ".join(drops))


@dataclass
class RefinedWebLineFilter(LineStage):
    """The line rules of RefinedWeb: remove menus, counters and shouting, and drop the page if these were a large part
    of it.

    Removes lines that are mostly upper case, consist only of numbers, are a counter ("3 likes"), are a single word, or
    are short and invite a click ("sign in", "read more…"). A document is dropped if more than ``max_removed_ratio`` of
    its words were in such lines.
    """

    max_removed_ratio: float = 0.05
    max_uppercase_ratio: float = 0.5
    max_short_words: int = 10

    def edit(self, text: TextFeatures) -> tuple[list[str | None], list[str]]:
        texts: list[str | None] = []
        reasons: list[str] = []
        for document in text.texts():
            words = lost = 0
            kept = []
            for line in document.split("\n"):
                size = len(line.split())
                words += size
                if size and self.is_clutter(line, size):
                    lost += size
                else:
                    kept.append(line)
            left = None if not words or lost / words > self.max_removed_ratio else "\n".join(kept)
            texts.append(left)
            if left is None:
                reasons.append("removed_lines")
        return texts, reasons

    def describe(self) -> str:
        return self.edits(
            f"counters, lines of one word, lines with more than {share(self.max_uppercase_ratio)} capitals, and "
            f"lines of at most {number(self.max_short_words)} words that invite a click",
            f"that lose more than {share(self.max_removed_ratio)} of their words",
        )

    def is_clutter(self, line: str, words: int) -> bool:
        """Whether a line that is not blank is removed."""
        line = line.strip()
        if words == 1 or _NUMBERS_ALONE.fullmatch(line) or _COUNTER.fullmatch(line):
            return True
        letters, capitals = _letters(line)
        if letters and capitals > self.max_uppercase_ratio * letters:
            return True
        return words <= self.max_short_words and _INVITATION.search(line) is not None


def _letters(line: str) -> tuple[int, int]:
    """How many letters a line has, and how many of them are capitals."""
    if not line.isascii():
        return sum(map(str.isalpha, line)), sum(map(str.isupper, line))
    data = line.encode()
    rest = data.translate(None, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return len(data) - len(rest.translate(None, b"abcdefghijklmnopqrstuvwxyz")), len(data) - len(rest)


_NUMBERS_ALONE = re.compile(r"[\d\s.,:;/+\-()%]+")
# Two repeats cannot share a run of spaces or dots, so each text matches in only one way.
_COUNTER = re.compile(
    r"\W*\d[\d.,]*+(?:\s*+(?:[km]\+?|\+))?\s++(likes?|shares?|comments?|retweets?|reposts?|quotes?|bookmarks?|upvotes?|downvotes?|"
    r"downloads?|views?|followers?|replies|reply)\W*",
    re.IGNORECASE,
)
_INVITATION = re.compile(
    r"^\W*(sign[ -]?in|log[ -]?in|sign[ -]?up)\b|\b(read more|items in (your )?cart)\W*$", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"(?<![.?!])[.?!]++[\"'”’)\]]*+(?=\s|$)")  # noqa: RUF001


def count_sentences(line: str) -> int:
    """The number of sentences in a line: pieces that end in ``. ? !`` before white space, and the rest."""
    ends = [match.end() for match in _SENTENCE_END.finditer(line)]
    rest = line[ends[-1] :].strip() if ends else line.strip()
    return len(ends) + bool(rest)


def _documents_with(rules: Iterable[str]) -> str:
    return f"documents with {'; '.join(rules) or 'anything in them'}"


# Measures of a block ----------------------------------------------------------------------------------------------


def _real_word_mask(block: Block) -> npt.NDArray[np.bool_]:
    return having(block, LETTER | DIGIT, _unicode.NO_SYMBOL)


def _real_words(block: Block) -> npt.NDArray[np.int64]:
    return count_words(block, _real_word_mask(block))


def _real_word_chars(block: Block) -> npt.NDArray[np.int64]:
    chosen = _real_word_mask(block)
    return np.bincount(word_rows(block)[chosen], word_lengths(block)[chosen], block.rows).astype(np.int64)


def _ellipses(block: Block) -> npt.NDArray[np.int64]:
    dots = np.flatnonzero(block.data == ord("."))
    heads = np.flatnonzero(np.diff(dots, prepend=-2) != 1)
    threes = np.diff(heads, append=len(dots)) // 3
    found = np.bincount(block.rows_of(dots[heads[threes > 0]]), threes[threes > 0], block.rows).astype(np.int64)
    return found if block.is_ascii else found + block.count_at(block.find("…".encode()))


def _printed_lines(block: Block) -> npt.NDArray[np.int64]:
    return count_pieces(block, printed_lines_of(block))


def _dashed_lines(block: Block) -> npt.NDArray[np.int64]:
    lines = printed_lines_of(block)
    first, after = inner_words(block, lines)
    some = np.flatnonzero(after > first)
    at, data = words_of(block).starts[first[some]], block.data
    bullet = (data[at] == 0xE2) & (data[at + 1] == 0x80) & (data[at + 2] == 0xA2)
    return np.bincount(lines.rows[some[(data[at] == ord("-")) | bullet]], minlength=block.rows)


def _trailing_off_lines(block: Block) -> npt.NDArray[np.int64]:
    lines = printed_lines_of(block)
    first, after = inner_words(block, lines)
    some = np.flatnonzero(after > first)
    data, end = block.data, words_of(block).ends[after[some] - 1]
    a, b, c = data[end - 3], data[end - 2], data[end - 1]
    # The three dots are in this line, and not partly in the one before.
    begun = end - 3 >= lines.starts[some]
    marks = begun & ((a == 46) & (b == 46) & (c == 46) | (a == 0xE2) & (b == 0x80) & (c == 0xA6))
    return np.bincount(lines.rows[some[marks]], minlength=block.rows)


def _recipe_pieces(block: Block, paragraphs: bool) -> Pieces:
    return between_newlines(block, 2, strip=True) if paragraphs else between_newlines(block, 1, strip=False)


def _paragraph_repeats(block: Block) -> npt.NDArray[np.int64]:
    return _repeat_counts(block, True)


def _line_repeats(block: Block) -> npt.NDArray[np.int64]:
    return _repeat_counts(block, False)


def _repeat_counts(block: Block, paragraphs: bool) -> npt.NDArray[np.int64]:
    # Three columns: repeated pieces, all pieces, and characters of repeated pieces. One search finds all of them.
    pieces = _recipe_pieces(block, paragraphs)
    again = repeats(block, pieces)
    return np.stack(
        (count_pieces(block, pieces, again), count_pieces(block, pieces), sum_pieces(block, pieces, again)), axis=1
    )


def _repeated_chars(block: Block, paragraphs: bool) -> npt.NDArray[np.int64]:
    return block.per_row(_paragraph_repeats if paragraphs else _line_repeats)[:, 2]


def _parts(text: TextFeatures, measure: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    found = text.per_row(measure)
    return found[:, 0], found[:, 1]


def _ended_lines(block: Block, stop_chars: tuple[str, ...] | None) -> npt.NDArray[np.int64]:
    lines, data = sentences_of(block), block.data
    if stop_chars is not None:
        marks = tuple(mark.encode() for mark in stop_chars)
        raw = block.raw
        spans = zip(lines.starts.tolist(), lines.ends.tolist(), strict=True)
        chosen = np.fromiter((raw.endswith(marks, start, end) for start, end in spans), np.bool_, len(lines.starts))
        return count_pieces(block, lines, chosen)
    last = (data == ord(".")) | (data == ord("!")) | (data == ord("?"))
    if len(at := block.wide_positions(_unicode.TERMINAL)):
        last[at + 1 + (data[at] >= 0xE0) + (data[at] >= 0xF0)] = True
    return count_pieces(block, lines, last[lines.ends - 1])


def _short_lines(block: Block, limit: int) -> npt.NDArray[np.int64]:
    lines = sentences_of(block)
    return count_pieces(block, lines, block.lengths(lines.starts, lines.ends) <= limit)


def _nth_longest_lines(block: Block, n: int) -> npt.NDArray[np.int64]:
    lines = lines_of(block)
    order = np.lexsort((-block.lengths(lines.starts, lines.ends), lines.rows))
    counts = line_counts(block)
    first = np.cumsum(counts) - counts
    found = np.zeros(block.rows, np.int64)
    some = np.flatnonzero(counts >= n)
    at = order[first[some] + n - 1]
    found[some] = block.lengths(lines.starts[at], lines.ends[at])
    return found


def _check_limits(stage: Any, *, except_for: tuple[str, ...] = ()) -> None:
    # The default of a parameter decides which values are allowed: a boolean, a number, or None if its type includes
    # None.
    for field in fields(stage):
        name, value = field.name, getattr(stage, field.name)
        if name in (*except_for, "column", "mode", "score_column"):
            continue
        if isinstance(field.default, bool):
            if not isinstance(value, bool):
                raise UsageError(f"{type(stage).__name__}.{name} must be True or False, not {value!r}")
        elif not ("None" in str(field.type) and value is None):
            check_number(stage, name)


def _pairs(stage: Any, name: str) -> tuple[tuple[int, float], ...]:
    try:
        pairs = tuple((int(n), float(limit)) for n, limit in getattr(stage, name))
        if all(
            n == given and 1 <= n <= MOST_WORDS for (n, _), (given, _) in zip(pairs, getattr(stage, name), strict=True)
        ):
            return pairs
    except (TypeError, ValueError):
        pass
    raise UsageError(
        f"{type(stage).__name__}.{name} must be pairs of n and limit such as [[2, 0.2]], n from 1 to {MOST_WORDS} "
        f"words, not {getattr(stage, name)!r}"
    )
