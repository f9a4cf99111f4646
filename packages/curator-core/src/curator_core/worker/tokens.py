"""How many tokens does a text have? They are counted by words, or by a tokenizer from an installed package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from curator_core.errors import MissingDependency
from curator_core.model.seen_options import SeenOptions

COUNTERS = "curator.token_counters"

CountTokens = Callable[[Sequence[str]], Sequence[int]]


def token_counter(options: SeenOptions) -> CountTokens | None:
    """The counter that the options name; None if tokens are estimated from bytes.

    A package registers under ``curator.token_counters`` a function that takes the name of a tokenizer, a file or a
    model, and returns a function that counts the tokens of texts.
    """
    if options.tokens == "bytes":
        return None
    if options.tokens == "words":
        return _words
    from importlib.metadata import entry_points  # deferred: the import takes 20 ms, and few runs use a tokenizer

    for point in entry_points(group=COUNTERS):
        load: Any = point.load()
        counter: CountTokens = load(options.tokens)
        return counter
    raise MissingDependency(
        f"seen.tokens={options.tokens!r} is a tokenizer, and no installed package can load one: pip install "
        "\"curator-text[tokenizers]\", or use 'words' or 'bytes'"
    )


def _words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]
