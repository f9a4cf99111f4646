"""Filters by lists of blocked addresses and unwanted words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curator_core.arrow.arrays import scalar
from curator_core.errors import UsageError, check_whole
from curator_core.formatting import number
from curator_core.model.engine_facts import WorkerMetadata
from curator_text.filters.base import DocumentFilter, check_number, share

_NO_WORD = re.compile(r"[^a-z0-9]+")


@dataclass
class UrlBlocklistFilter(DocumentFilter):
    """Drop documents by the address in their column; the score is the reason why it is blocked, or "".

    ``domains`` blocks hosts and their subdomains; ``urls`` blocks exact addresses; ``words`` blocks addresses with one
    of these words; ``soft_words`` blocks addresses with ``soft_word_threshold`` of these words; ``subwords`` blocks
    addresses that contain one of them anywhere, ignoring everything except letters and digits. Each is a list, or the
    path of a file with one entry per line. A document without an address is kept.
    """

    maybe_paths = ("domains", "urls", "words", "soft_words", "subwords")

    domains: str | Sequence[str] | None = None
    urls: str | Sequence[str] | None = None
    words: str | Sequence[str] | None = None
    soft_words: str | Sequence[str] | None = None
    subwords: str | Sequence[str] | None = None
    soft_word_threshold: int = 2
    _: KW_ONLY
    column: str = "url"
    score_type: ClassVar[pa.DataType] = pa.string()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "soft_word_threshold", low=1)
        names = ("domains", "urls", "words", "soft_words", "subwords")
        for name in names:
            _check_list(self, name)
        if all(getattr(self, name) is None for name in names):
            raise UsageError(f"UrlBlocklistFilter blocks nothing without a list: give one of {', '.join(names)}")

    def setup(self, worker: WorkerMetadata) -> None:
        self._lists()

    def score_one(self, url: str) -> str:
        if not url:
            return ""
        domains, urls, words, soft, subwords = self._lists()
        if domains and any(part in domains for part in _parents(_host(url))):
            return "domain"
        if url in urls:
            return "url"
        lowered = url.lower()
        if words or soft:
            parts = set(_NO_WORD.split(lowered))
            if parts & words:
                return "word"
            if len(parts & soft) >= self.soft_word_threshold:
                return "soft words"
        if subwords is not None and subwords.search(_NO_WORD.sub("", lowered)):
            return "subword"
        return ""

    def limits(self) -> str:
        given = {
            "domains": self.domains,
            "addresses": self.urls,
            "words": self.words,
            f"{number(self.soft_word_threshold)} of the soft words": self.soft_words,
            "parts of words": self.subwords,
        }
        lists = (f"{name} of {_shown(entries)}" for name, entries in given.items() if entries is not None)
        return f"documents whose address has none of the {', '.join(lists)}"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.equal(scores, scalar(""))

    def reasons(self, scores: pa.Array) -> pa.Array | str:
        return pc.binary_join_element_wise(self.short_name(), scores, ": ")

    def _lists(self) -> tuple[frozenset[str], frozenset[str], frozenset[str], frozenset[str], re.Pattern[str] | None]:
        return self.loaded(self._read)

    def _read(self) -> tuple[frozenset[str], frozenset[str], frozenset[str], frozenset[str], re.Pattern[str] | None]:
        subwords = sorted(filter(None, (_NO_WORD.sub("", entry.lower()) for entry in _entries(self, "subwords"))))
        return (
            frozenset(entry.lower().rstrip(".") for entry in _entries(self, "domains")),
            frozenset(_entries(self, "urls")),
            frozenset(entry.lower() for entry in _entries(self, "words")),
            frozenset(entry.lower() for entry in _entries(self, "soft_words")),
            re.compile("|".join(subwords)) if subwords else None,
        )


@dataclass
class BadWordsFilter(DocumentFilter):
    """Drop documents that contain a word of a list, in upper or lower case; the score is the number of words of the
    list that occur.

    ``words`` is a list, or the path of a file with one entry per line; an entry may have several words. Entries match
    whole words, or any part of the text if ``whole_words`` is False, for languages written without spaces.
    ``keep_fraction`` keeps that share of the matching documents, selected by their text and ``seed``, as C4 does; these
    score 0. No list is included: purposes and licences of lists differ.
    """

    maybe_paths = ("words",)

    words: str | Sequence[str]
    whole_words: bool = True
    keep_fraction: float = 0.0
    seed: int = 0
    score_type: ClassVar[pa.DataType] = pa.int64()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "keep_fraction", low=0, high=1)
        check_whole("BadWordsFilter.seed", self.seed, least=0)
        if not self.words:
            raise UsageError("BadWordsFilter needs words=…: a list, or a file with one entry per line")
        _check_list(self, "words")

    def setup(self, worker: WorkerMetadata) -> None:
        self._list()

    def score_one(self, text: str) -> int:
        single, others = self._list()
        lowered = text.lower()
        found = len(single & set(_WORD.findall(lowered))) if single else 0
        found += sum(1 for part, pattern in others if part in lowered and (not pattern or pattern.search(lowered)))
        if found and self.keep_fraction:
            draw = xxhash.xxh3_64_intdigest(text.encode(), seed=self.seed) / 2**64
            return 0 if draw < self.keep_fraction else found
        return found

    def limits(self) -> str:
        some = f", and {share(self.keep_fraction)} of the others (seed {self.seed})" if self.keep_fraction else ""
        return f"documents with none of the words of {_shown(self.words)}{some}"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.equal(scores, scalar(0))

    def _list(self) -> tuple[frozenset[str], list[tuple[str, re.Pattern[str] | None]]]:
        return self.loaded(self._read)

    def _read(self) -> tuple[frozenset[str], list[tuple[str, re.Pattern[str] | None]]]:
        entries = sorted({entry.lower() for entry in _entries(self, "words")})
        if not self.whole_words:
            return frozenset(), [(entry, None) for entry in entries]
        single = frozenset(entry for entry in entries if _WORD.fullmatch(entry))
        return single, [(e, re.compile(rf"(?:\W|^){re.escape(e)}(?:\W|$)")) for e in entries if e not in single]


_WORD = re.compile(r"\w+")


def _host(url: str) -> str:
    try:
        host = urlsplit(url if "://" in url else f"//{url.lstrip('/')}").hostname
    except ValueError:
        return ""
    return (host or "").rstrip(".")


def _parents(host: str) -> Iterable[str]:
    labels = host.split(".")
    return (".".join(labels[start:]) for start in range(len(labels)))


def _check_list(stage: Any, name: str) -> None:
    given = getattr(stage, name)
    if given is None or isinstance(given, str):
        return
    if not isinstance(given, Iterable) or not all(isinstance(entry, str) for entry in given):
        raise UsageError(
            f"{type(stage).__name__}.{name} must be a list of texts, or the path of a file with one text per line, not "
            f"{given!r}"
        )


def _shown(given: str | Sequence[str]) -> str:
    return repr(given) if isinstance(given, str) else f"a list of {number(len(given))}"


def _entries(stage: Any, name: str) -> list[str]:
    given = getattr(stage, name)
    if given is None:
        return []
    if isinstance(given, str):
        try:
            lines = Path(given).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(
                f"{type(stage).__name__}.{name}={given!r} cannot be read, as {str(Path(given).absolute())!r}: "
                f"{reason}. Give a file with one entry per line, or a list of entries"
            ) from error
        lines = [line for line in lines if not line.startswith("#")]
    else:
        lines = list(given)
    return [line.strip() for line in lines if line.strip()]
