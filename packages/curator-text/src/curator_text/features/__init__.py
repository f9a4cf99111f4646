"""What text filters measure, computed once for a batch and shared by the filters that follow one another.

Documents are laid out as UTF-8 bytes, half a megabyte at a time, each document followed by a newline that is not its
own, so that no word, line or URL can reach into the next one. Everything is then a numpy operation over the whole
block: classes of bytes by a lookup table, words from the edges of white space, lines from newlines, repeated n-grams
from the repeated (n-1)-grams that start at neighbouring words.

A filter asks for what it needs, and what it needs is computed then, for the documents that are still there::

    text = TextFeatures.of(["some text", None])
    text.per_row(word_counts)  # array([2, 0])

Nothing is decided by a hash: words, lines and n-grams that compare equal here are equal.
"""

from __future__ import annotations

from curator_text.features.batch import TextFeatures, features_of
from curator_text.features.block import Block

__all__ = ["Block", "TextFeatures", "features_of"]
