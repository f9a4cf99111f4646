"""Measures for text filters, computed once for a batch and shared by consecutive filters.

Documents are stored as UTF-8 bytes, half a megabyte at a time. An extra newline follows each document, so no word, line
or URL extends into the next one. Each measure is a numpy operation over the whole block: classes of bytes come from a
lookup table, words from the edges of white space, lines from newlines, and repeated n-grams from the repeated
(n-1)-grams that start at neighbouring words.

A filter requests its measures, and they are computed for the documents that have not been dropped::

    from curator_text.features import TextFeatures, word_counts

    text = TextFeatures.of(["some text", None])
    text.per_row(word_counts)  # array([2, 0])

Measures of characters are methods of `Block`; those of words, n-grams, lines and addresses are functions of a block.
Any function of a block that returns one value for each document can be used in the same way.
`curator_text.features.block.once` caches other results, such as the places of words.

No result depends on hashes alone: words, lines and n-grams that compare equal here are equal.
"""

from __future__ import annotations

from curator_text.features.batch import TextFeatures, features_of
from curator_text.features.block import BLANK, DIGIT, ENGLISH, LETTER, PAREN, Block
from curator_text.features.grams import (
    covered_gram_chars,
    skipped_gram_chars,
    top_gram_counts,
    top_gram_removed,
    top_gram_sizes,
)
from curator_text.features.lines import (
    boilerplate_paragraphs,
    bullet_sentences,
    distinct_paragraph_chars,
    distinct_paragraphs,
    distinct_sentence_chars,
    distinct_sentences,
    ellipsis_sentences,
    endmark_sentences,
    line_counts,
    lines_of,
    paragraph_chars,
    paragraph_counts,
    paragraphs_of,
    sentence_chars,
    sentence_counts,
    sentences_of,
)
from curator_text.features.urls import url_chars, urls_of
from curator_text.features.words import (
    distinct_known_words,
    known_word_counts,
    longest_words,
    symbol_words,
    word_chars,
    word_counts,
    words_having,
    words_of,
)

__all__ = [
    "BLANK",
    "DIGIT",
    "ENGLISH",
    "LETTER",
    "PAREN",
    "Block",
    "TextFeatures",
    "boilerplate_paragraphs",
    "bullet_sentences",
    "covered_gram_chars",
    "distinct_known_words",
    "distinct_paragraph_chars",
    "distinct_paragraphs",
    "distinct_sentence_chars",
    "distinct_sentences",
    "ellipsis_sentences",
    "endmark_sentences",
    "features_of",
    "known_word_counts",
    "line_counts",
    "lines_of",
    "longest_words",
    "paragraph_chars",
    "paragraph_counts",
    "paragraphs_of",
    "sentence_chars",
    "sentence_counts",
    "sentences_of",
    "skipped_gram_chars",
    "symbol_words",
    "top_gram_counts",
    "top_gram_removed",
    "top_gram_sizes",
    "url_chars",
    "urls_of",
    "word_chars",
    "word_counts",
    "words_having",
    "words_of",
]
