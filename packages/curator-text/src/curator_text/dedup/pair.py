"""Finds the pieces that two texts have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from curator_core.arrow.arrays import array, distinct
from curator_text.dedup.compare import Rule
from curator_text.dedup.places import places_of
from curator_text.dedup.words import CHARACTERS_IN_SHINGLE, WORDS_IN_SHINGLE, Bools, Kind, shingles_of, words_of


class Span(NamedTuple):
    """A piece of a text, in characters, whose words the other text either has or lacks."""

    start: int
    end: int
    shared: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """A document and a witness: whether they meet the rule, the figures, and the pieces of both texts in order.

    If one of the texts has no words, ``jaccard`` and ``containment`` are NaN, and ``new_words`` is -1.
    """

    meets: bool
    jaccard: float
    containment: float
    new_words: int
    words: int
    witness_words: int
    text: list[Span]
    witness: list[Span]


def compare_pair(
    text: str,
    witness: str,
    rule: Rule | None = None,
    *,
    kind: Kind = "words",
    size: int = WORDS_IN_SHINGLE,
    characters: int = CHARACTERS_IN_SHINGLE,
) -> Pair:
    """Compare a document with a witness, as `compare.decide` does, and find the pieces that both contain."""
    rule = rule or Rule()
    words = words_of(array([text, witness], pa.large_string()), kind=kind)
    shingles = shingles_of(words, size=size, characters=characters)
    begins = np.ones(len(words.hashes), np.bool_) if words.joins is None else ~words.joins
    all_words, own_words = int(begins.sum()), int(begins[: words.offsets[1]].sum())
    middle, split = int(words.offsets[1]), int(shingles.offsets[1])
    own, others = shingles.hashes[:split], shingles.hashes[split:]
    hits = np.append(np.isin(own, others), np.isin(others, own))
    edges = np.bincount(shingles.first[hits], minlength=len(words.hashes) + 1)
    edges -= np.bincount(shingles.last[hits], minlength=len(words.hashes) + 1)
    covered = np.cumsum(edges)[:-1] > 0
    jaccard, containment, new_words, meets = float("nan"), float("nan"), -1, False
    if len(own) and len(others):
        mine, theirs = len(distinct(own)), len(distinct(others))
        shared = len(distinct(own[hits[:split]]))
        jaccard, containment = shared / (mine + theirs - shared), shared / mine
        new = ~covered if words.joins is None else np.logical_or.reduceat(~covered, np.flatnonzero(~words.joins))
        before = np.append(0, np.cumsum(new[:own_words]))
        window = min(rule.window, own_words)
        new_words = int((before[window:] - before[: own_words - window + 1]).max())
        meets = rule.met(jaccard, containment, new_words)
    return Pair(
        meets=meets,
        jaccard=jaccard,
        containment=containment,
        new_words=new_words,
        words=own_words,
        witness_words=all_words - own_words,
        text=_spans(text, covered[:middle], kind),
        witness=_spans(witness, covered[middle:], kind),
    )


def _spans(text: str, covered: Bools, kind: Kind) -> list[Span]:
    """The whole text as a list of pieces; characters between words belong to the piece before them."""
    made: list[Span] = []
    start, shared = 0, None
    for first, is_covered in zip(places_of(text, kind=kind).starts.tolist(), covered.tolist(), strict=True):
        if shared is not None and is_covered != shared:
            made.append(Span(start, first, shared))
            start = first
        shared = is_covered
    if text:
        made.append(Span(start, len(text), bool(shared)))
    return made
