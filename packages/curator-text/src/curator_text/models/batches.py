"""Groups tokenized texts into batches of similar length, padded or packed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Padding:
    """How a tokenizer pads, and to which lengths: multiples of ``multiple`` up to ``limit``.

    With few lengths, there are few shapes for which to select kernels, keep memory and compile graphs. With
    ``packed_from``, nothing is padded: texts follow one another in one row, and ``packed_from`` is the number of the
    first position in each text.
    """

    fill: Mapping[str, int]
    left: bool
    multiple: int
    limit: int
    packed_from: int | None = None

    @classmethod
    def of(cls, tokenizer: Any, multiple: int, limit: int, packed_from: int | None = None) -> Padding:
        fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
        return cls(fill, tokenizer.padding_side == "left", multiple, limit, packed_from)

    def width(self, longest: int) -> int:
        """The padded length of texts if the longest has ``longest`` tokens; it is at least 1, because models need one
        token.
        """
        longest = max(1, longest)
        return max(longest, min(-(-longest // self.multiple) * self.multiple, self.limit))

    def size(self, lengths: Sequence[int]) -> int:
        """How many tokens texts of these lengths have together, including padding; the longest comes first."""
        if self.packed_from is None:
            return self.width(lengths[0]) * len(lengths)
        return sum(max(1, length) for length in lengths)

    def how_many(self, lengths: Sequence[int], most_tokens: int) -> int:
        """How many of these texts, from the first (the longest) on, have at most ``most_tokens`` tokens together; at
        least one.
        """
        if self.packed_from is None:
            return max(1, most_tokens // self.width(lengths[0]))
        ends = accumulate(max(1, length) for length in lengths)
        return max(1, sum(1 for _ in takewhile(lambda end: end <= most_tokens, ends)))


@dataclass(frozen=True)
class Batch:
    """Texts that go through the model together: their rows and their tokens, longest first."""

    rows: Sequence[int]
    tokens: Mapping[str, Sequence[Sequence[int]]]
    padding: Padding

    def width(self) -> int:
        return self.padding.width(len(self.tokens["input_ids"][0]))

    def size(self) -> int:
        """The number of tokens, including padding."""
        return self.padding.size([len(ids) for ids in self.tokens["input_ids"]])

    def halves(self) -> tuple[Batch, Batch]:
        middle = (len(self.rows) + 1) // 2
        first, second = (
            Batch(self.rows[part], {key: values[part] for key, values in self.tokens.items()}, self.padding)
            for part in (slice(0, middle), slice(middle, None))
        )
        return first, second

    def inputs(self) -> dict[str, Any]:
        """The model's inputs."""
        return self.padded() if self.padding.packed_from is None else self.packed(self.padding.packed_from)

    def packed(self, first_position: int) -> dict[str, Any]:
        """One row of all tokens, with the position of each in its text; ``bounds`` has the begin and end of each text.

        A text without tokens gets a filler token, which is masked.
        """
        lengths = [len(ids) for ids in self.tokens["input_ids"]]
        bounds = np.concatenate([[0], np.cumsum([max(1, length) for length in lengths])])
        made = {
            key: np.concatenate([ids or [self.padding.fill.get(key, 0)] for ids in values])[None].astype(np.int64)
            for key, values in self.tokens.items()
        }
        places = np.concatenate([np.arange(max(1, length)) for length in lengths])
        mask = np.concatenate([np.full(max(1, length), min(1, length)) for length in lengths])
        return {
            **made,
            "position_ids": (first_position + places)[None].astype(np.int64),
            "attention_mask": mask[None].astype(np.int64),
            "bounds": bounds.astype(np.int32),
            "longest": self.width(),
        }

    def padded(self) -> dict[str, NDArray[np.int64]]:
        """The model's inputs, with an attention mask."""
        shape = len(self.rows), self.width()
        made = {key: np.full(shape, self.padding.fill.get(key, 0), np.int64) for key in self.tokens}
        mask = np.zeros(shape, np.int64)
        for row, ids in enumerate(self.tokens["input_ids"]):
            place = slice(shape[1] - len(ids), None) if self.padding.left else slice(0, len(ids))
            mask[row, place] = 1
            for key, values in self.tokens.items():
                made[key][row, place] = values[row]
        return {**made, "attention_mask": mask}


def batches(
    texts: Sequence[str],
    tokenize: Callable[[list[str]], Mapping[str, Sequence[Sequence[int]]]],
    window: int,
    most_tokens: Callable[[], int],
    padding: Padding,
) -> Iterator[Batch]:
    """All texts in batches of at most ``most_tokens()`` tokens, sorted by length within windows of ``window`` texts.

    The longest come first, so if a batch is too large for the memory, this shows at once. A batch has at least one
    text.
    """
    for first in range(0, len(texts), window):
        tokens = tokenize(list(texts[first : first + window]))
        lengths = [len(ids) for ids in tokens["input_ids"]]
        order = sorted(range(len(lengths)), key=lambda at: (-lengths[at], at))
        start = 0
        while start < len(order):
            count = padding.how_many([lengths[at] for at in order[start:]], most_tokens())
            chosen = order[start : start + count]
            yield Batch(
                [first + at for at in chosen],
                {key: [values[at] for at in chosen] for key, values in tokens.items()},
                padding,
            )
            start += count
