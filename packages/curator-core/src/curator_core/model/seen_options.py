"""Which samples and counts does a run keep for views of its data?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from curator_core.errors import UsageError, check_whole, nearest

MOST_SAMPLES = 1000
# A map of embeddings compares all pairs of its rows, so their number is limited.
MOST_MAPPED = 2000


@dataclass(frozen=True)
class SeenOptions:
    """``samples``: how many dropped rows are kept for each stage, reason and limit, the nearest; half as many kept rows
    near each limit, and a quarter of either side from anywhere. A stage without limits keeps as many of either side.
    ``by``: columns; rows are counted for each of their values. ``tokens``: ``bytes`` (a token counts as 4 bytes),
    ``words``, or a tokenizer. ``text``: the column whose bytes and tokens are counted. ``overlap``: measure what each
    filter would drop by itself. ``map``: how many rows with an embedding are kept for a map of them. ``seed`` decides
    which rows are kept.
    """

    samples: int = 12
    by: tuple[str, ...] = ()
    tokens: str = "bytes"
    text: str = "text"
    overlap: bool = False
    map: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("seen.samples", self.samples, least=0)
        if self.samples > MOST_SAMPLES:
            raise UsageError(f"seen.samples must be at most {MOST_SAMPLES:,}, not {self.samples!r}")
        check_whole("seen.map", self.map, least=0)
        if self.map > MOST_MAPPED:
            raise UsageError(f"seen.map must be at most {MOST_MAPPED:,}, not {self.map!r}")
        check_whole("seen.seed", self.seed, least=0)
        names: Any = self.by
        if (
            isinstance(names, str)
            or not isinstance(names, Sequence)
            or not all(isinstance(n, str) and n for n in names)
        ):
            raise UsageError(f"seen.by must be a list of columns such as ['language'], not {names!r}")
        object.__setattr__(self, "by", tuple(dict.fromkeys(names)))
        for name in ("tokens", "text"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise UsageError(f"seen.{name} must be a name, not {getattr(self, name)!r}")
        if not isinstance(self.overlap, bool):
            raise UsageError(f"seen.overlap must be True or False, not {self.overlap!r}")

    def as_dict(self) -> dict[str, Any]:
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def rows_kept(samples: int, side: str, *, near: bool, limited: bool) -> int:
    """How many rows of one side (``kept`` or ``dropped``) are kept near a limit, or from anywhere. ``limited``: the stage
    is a filter with limits. Its dropped rows near a limit are asked for most; half as many kept rows are enough to
    compare, and a quarter from anywhere shows what is common.
    """
    if not limited or (near and side == "dropped"):
        return samples
    return -(-samples // (2 if near else 4))


def seen_options(given: Any) -> SeenOptions | None:
    """Make options from what a user gives: True for the defaults, False for nothing at all, a mapping, or options."""
    if given is None or given is True:
        return SeenOptions()
    if given is False:
        return None
    if isinstance(given, SeenOptions):
        return given
    if not isinstance(given, Mapping):
        raise UsageError(f"seen must be True, False, or a mapping such as {{'samples': 16}}, not {given!r}")
    known = [field.name for field in fields(SeenOptions)]
    for name in given:
        if name not in known:
            raise UsageError(f"seen has no option {name!r}{nearest(str(name), known) or '.'} It has {', '.join(known)}")
    return SeenOptions(**given)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
