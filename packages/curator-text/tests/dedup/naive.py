"""The words, shingles and rule of deduplication, written from their definition with sets and loops."""

from __future__ import annotations

import unicodedata

from curator_text.dedup.characters import _IGNORABLE, _LATER, _MARKS, _NUMBERS, _SPACELESS, _bounds

IGNORABLE, LATER, MARKS, NUMBERS, SPACELESS = (
    {point for first, last in _bounds(ranges) for point in range(first, last + 1)}
    for ranges in (_IGNORABLE, _LATER, _MARKS, _NUMBERS, _SPACELESS)
)


def folded(text: str) -> str:
    text = "".join(" " if ord(c) in LATER else c for c in text if ord(c) not in IGNORABLE)
    text = unicodedata.normalize("NFD", text).casefold()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def words(text: str, kind: str = "words") -> list[tuple[str, bool]]:
    """Each word, and whether it is a character of a script without spaces; or each character, and whether it continues
    the word of the previous one.
    """
    if kind == "characters":
        return characters(text)
    found: list[tuple[str, bool]] = []
    inside = False
    for c in folded(text):
        point = ord(c)
        if point in LATER or not (unicodedata.category(c)[0] == "L" or point in MARKS or point in NUMBERS):
            inside = False
        elif point in MARKS:
            if inside:
                found[-1] = (found[-1][0] + c, found[-1][1])
        else:
            alone = point in SPACELESS
            if inside and not alone and not found[-1][1]:
                found[-1] = (found[-1][0] + c, False)
            else:
                found.append((c, alone))
            inside = True
    return found


def characters(text: str) -> list[tuple[str, bool]]:
    found: list[tuple[str, bool]] = []
    for word, alone in words(text):
        units: list[str] = []
        for c in word:
            if units and ord(c) in MARKS:
                units[-1] += c
            else:
                units.append(c)
        assert not alone or len(units) == 1
        found += [(unit, number > 0) for number, unit in enumerate(units)]
    return found


def shingles(words: list[tuple[str, bool]], size: int = 3, characters: int = 5) -> list[tuple[int, int]]:
    """The first word of each shingle, and the word after its last."""
    found = []
    for first in range(len(words)):
        total, last = 0, first
        while last < len(words) and total < size * characters:
            total += size if words[last][1] else characters
            last += 1
        if total >= size * characters:
            found.append((first, last))
    if not words:
        return []
    return [*found[:-1], (found[-1][0], len(words))] if found else [(0, len(words))]


def grams(text: str, letters: int = 0) -> list[tuple[tuple[str, ...], int, int]]:
    """Shingles of words, or of ``letters`` characters."""
    if letters:
        spelt = [unit for unit, _ in characters(text)]
        starts = range(max(len(spelt) - letters, 0) + 1) if spelt else []
        return [(tuple(spelt[a : a + letters]), a, min(a + letters, len(spelt))) for a in starts]
    own = words(text)
    return [(tuple(word for word, _ in own[a:b]), a, b) for a, b in shingles(own)]


def figures(text: str, witness: str, window: int, letters: int = 0) -> tuple[float, float, int]:
    """Jaccard, containment and the most new words in a window, for a text and its witness; both have words."""
    own, others = grams(text, letters), {gram for gram, _, _ in grams(witness, letters)}
    distinct = {gram for gram, _, _ in own}
    shared = len(distinct & others)
    covered = {word for gram, a, b in own if gram in others for word in range(a, b)}
    new = [word not in covered for word in range(len(characters(text) if letters else words(text)))]
    if letters:
        whole: list[bool] = []
        for is_new, (_, joins) in zip(new, characters(text), strict=True):
            whole = [*whole[:-1], whole[-1] or is_new] if joins else [*whole, is_new]
        new = whole
    most = max(sum(new[start : start + window]) for start in range(max(1, len(new) - window + 1)))
    return shared / len(distinct | others), shared / len(distinct), most


def meets(found: tuple[float, float, int], kind: str, threshold: float, max_new_words: int) -> bool:
    jaccard, containment, new = found
    if kind == "jaccard":
        return jaccard >= threshold
    return containment >= threshold and (kind == "containment" or new <= max_new_words)


def decide(
    texts: list[str],
    group: list[int],
    order: list[int],
    kind: str,
    threshold: float,
    max_new_words: int,
    window: int,
    old: list[bool] | None = None,
    among_new: bool = True,
) -> list[tuple[int, tuple[float, float, int] | None]]:
    """For each text, the witness, or -1, and its figures. Old texts come first and stay."""
    old = old or [False] * len(texts)
    made: list[tuple[int, tuple[float, float, int] | None]] = [(-1, None)] * len(texts)
    staying: list[int] = []
    for text in sorted(range(len(texts)), key=lambda text: (not old[text], order[text], text)):
        if not words(texts[text]):
            continue
        for witness in staying:
            if group[witness] == group[text] and not old[text] and (among_new or old[witness]):
                found = figures(texts[text], texts[witness], window)
                if meets(found, kind, threshold, max_new_words):
                    made[text] = witness, found
                    break
        else:
            staying.append(text)
    return made


__all__ = ["decide", "figures", "folded", "shingles", "words"]
