"""What would other limits of a filter have kept? The answer comes from the histograms of scores that a run has stored,
without reading data.

Counts are exact if a limit moves from one edge of a bin to another, and bounded if it moves into a bin. After the
filter, later stages get other rows than they did. The counts tell how many rows reach them, but not which of these they
would drop, so that is given as bounds with an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curator_core.errors import UsageError, nearest
from curator_core.formatting import count
from curator_core.model.scores import Limit
from curator_core.stages.column_filter import ColumnFilter

# The ending of the name of a score whose limits were those of an earlier attempt.
EARLIER = " (earlier limits)"

# A function that builds a stage from the name of a class and parameters, as in a plan.
Build = Callable[[str, Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Span:
    """Bounds of a number of rows, with an estimate if they differ."""

    low: int
    high: int
    about: int

    @classmethod
    def of(cls, value: int) -> Span:
        return cls(value, value, value)

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def as_dict(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "about": self.about, "exact": self.exact}


NOTHING = Span(0, 0, 0)


@dataclass
class StageThen:
    """The numbers of a stage as they were, and as they would be; ``rows_in`` and ``rows_out`` are None if they are
    unknown.
    """

    name: str
    was_in: int
    was_out: int
    rows_in: Span | None = None
    rows_out: Span | None = None
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether the stage would get and keep the same number of rows."""
        spans = ((self.was_in, self.rows_in), (self.was_out, self.rows_out))
        return all(span is not None and span.exact and span.low == was for was, span in spans)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "rows_in": self.was_in,
            "rows_out": self.was_out,
            "changed": {key: {"was": was, "then": then} for key, (was, then) in self.changed.items()},
            "then": {
                "rows_in": None if self.rows_in is None else self.rows_in.as_dict(),
                "rows_out": None if self.rows_out is None else self.rows_out.as_dict(),
            },
        }


@dataclass
class WhatIf:
    """The funnel with other limits, the samples that would change side, and sentences about what cannot be known."""

    stages: list[StageThen] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    # Stages that would see other rows than they have.
    estimated: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Bin:
    """The rows with a score from ``low`` to less than ``high``: their number, how many were kept, and how many pass all
    other tests of the filter (``free``).
    """

    low: float
    high: float
    rows: int
    kept: int
    free: int


def what_if(
    steps: Sequence[Mapping[str, Any]],
    counts: Mapping[str, Mapping[str, Any]],
    seen: Mapping[str, Mapping[str, Any]],
    changes: Mapping[str, Mapping[str, Any]],
    build: Build,
) -> WhatIf:
    """The funnel with other parameters of filters.

    ``steps`` are the stages of the plan. ``counts`` and ``seen`` are the counts and the samples of each by name, as in
    ``report.json``. ``changes`` are the changed parameters by stage.
    """
    found = WhatIf()
    _check_changes(steps, changes)
    # The rows of the stage's input that would be missing, and those that would be added.
    removed: Span | None = NOTHING
    added: Span | None = NOTHING
    for step in steps:
        name = step["name"]
        if name not in counts:
            continue
        stage = StageThen(name, int(counts[name]["rows_in"]), int(counts[name]["rows_out"]))
        found.stages.append(stage)
        lost = gained = NOTHING
        if name in changes:
            lost, gained = _moved(step, stage, seen.get(name) or {}, changes[name], build, found)
        if removed is None or added is None:
            continue
        stage.rows_in = _total(stage.was_in, removed, added)
        removed, added = _behind(stage, counts[name], seen.get(name) or {}, removed, added, lost, gained, found)
        if removed is not None and added is not None:
            stage.rows_out = _total(stage.was_out, removed, added)
    if found.estimated:
        *most, last = found.estimated
        names, they, each = (f"{', '.join(most)} and {last}", "they", "each") if most else (last, "it", "it")
        found.unknown.append(
            f"{names} would see other rows: how many {they} would drop is not known, but estimated from the share that "
            f"{each} kept"
        )
    return found


def _check_changes(steps: Sequence[Mapping[str, Any]], changes: Mapping[str, Mapping[str, Any]]) -> None:
    params = {step["name"]: step["params"] for step in steps}
    for name, given in changes.items():
        if name not in params:
            raise UsageError(
                f"the run has no stage {name!r}{nearest(name, params) or '.'} Its stages are: {', '.join(params) or 'none'}"
            )
        for parameter in given:
            if parameter not in params[name]:
                raise UsageError(
                    f"{name} has no parameter {parameter!r}{nearest(parameter, params[name]) or '.'} "
                    f"It has: {', '.join(params[name])}"
                )


# One filter -----------------------------------------------------------------------------------------------------------


def _moved(
    step: Mapping[str, Any],
    stage: StageThen,
    seen: Mapping[str, Any],
    given: Mapping[str, Any],
    build: Build,
    found: WhatIf,
) -> tuple[Span, Span]:
    """The number of kept rows that a filter would drop, and the number of dropped rows that it would keep."""
    stage.changed = {key: (step["params"][key], value) for key, value in given.items()}
    made = build(step["class"], {**step["params"], **given})
    if not isinstance(made, ColumnFilter):
        raise UsageError(f"{stage.name} is not a filter by one score: its result with other parameters is not known")
    if "mode" in given or "column" in given or "score_column" in given:
        raise UsageError(
            f"{stage.name}: its scores do not show the effect of {', '.join(given)}; run the pipeline with the "
            f"other value"
        )
    scores = {score["name"]: score for score in seen.get("scores") or () if not score["name"].endswith(EARLIER)}
    if not scores:
        raise UsageError(
            f"the run has stored no scores of {stage.name}: it ran with `seen: false`, or the filter has no "
            f"scores that are "
            "numbers; run the pipeline with the other value"
        )
    declared = {score.name: score.limits for score in made.declared_scores()}
    was = {name: [_limit(limit) for limit in score.get("limits") or ()] for name, score in scores.items()}
    moved = [name for name in scores if name in declared and set(was[name]) != set(declared[name])]
    unmoved = [
        key for key in given if not any(limit.parameter.partition("[")[0] == key for limit in _all(was, declared))
    ]
    if unmoved:
        limits = sorted({limit.parameter for limit in _all(was, declared)})
        raise UsageError(
            f"{stage.name}.{unmoved[0]} is not a limit of its scores, so they do not show its effect: the limits are "
            f"{', '.join(limits) or 'none'}; run the pipeline with the other value"
        )
    if made.mode == "annotate":
        found.unknown.append(f"{stage.name} marks rows and drops none: the marks would change, the rows would not")
        return NOTHING, NOTHING
    invert = made.mode == "invert"
    lost, gained = [], []
    for name in moved:
        bins = _bins(scores[name])
        alone = _tells_others(bins, was[name], invert)
        one_lost, one_gained = _changes(bins, was[name], declared[name], invert, several=len(moved) > 1 or not alone)
        if not alone and not (one_lost.exact and one_gained.exact):
            found.unknown.append(
                f"{stage.name} has tests besides limits of scores, and the run does not record which dropped rows "
                "would pass them"
            )
        lost.append(one_lost)
        gained.append(one_gained)
        _tell_bins(stage.name, bins, declared[name], was[name], found)
    if len(moved) > 1:
        found.unknown.append(
            f"{stage.name}: {', '.join(moved)} change together, and the run has counts for each score alone"
        )
    if any(score["name"].endswith(EARLIER) for score in seen["scores"]):
        found.unknown.append(
            f"{stage.name}: some rows were judged by earlier limits, and count as they were judged then"
        )
    found.rows += _changing(stage.name, seen.get("samples") or (), was, declared, invert)
    kept, dropped = stage.was_out, stage.was_in - stage.was_out
    return _union(lost, kept, mixed=any(span.high for span in gained)), _union(
        gained, dropped, mixed=any(span.high for span in lost)
    )


def _all(*sides: Mapping[str, Sequence[Limit]]) -> list[Limit]:
    return [limit for side in sides for limits in side.values() for limit in limits]


def _limit(content: Mapping[str, Any]) -> Limit:
    names = ("parameter", "value", "keeps", "inclusive", "reason")
    return Limit(**{name: content[name] for name in names if name in content})


def _bins(score: Mapping[str, Any]) -> list[_Bin]:
    edges = [-math.inf, *score["edges"], math.inf]
    columns = [
        [score["below"], *score["counts"], score["above"]],
        [score["kept_below"], *score["kept"], score["kept_above"]],
        [score["free_below"], *score["free"], score["free_above"]],
    ]
    return [_Bin(edges[at], edges[at + 1], *values) for at, values in enumerate(zip(*columns, strict=True))]


def _share(each: _Bin, limits: Sequence[Limit]) -> float:
    """The part of a bin that is within all limits: 1, 0, or a number between them for a bin that a limit cuts."""
    low, high = each.low, each.high
    for limit in limits:
        edge = limit.edge()
        low, high = (max(low, edge), high) if limit.keeps == "at least" else (low, min(high, edge))
    if (low, high) == (each.low, each.high):
        return 1.0
    if low >= high:
        return 0.0
    width = each.high - each.low
    return min(0.99, max(0.01, (high - low) / width)) if math.isfinite(width) else 0.5


def _tells_others(bins: Sequence[_Bin], was: Sequence[Limit], invert: bool) -> bool:
    """Whether the counts show which rows pass all other tests: exactly the rows within the limits that were kept."""
    return all(
        each.free == (each.rows - each.kept if invert else each.kept) for each in bins if _share(each, was) == 1.0
    )


def _changes(
    bins: Sequence[_Bin], was: Sequence[Limit], then: Sequence[Limit], invert: bool, *, several: bool
) -> tuple[Span, Span]:
    """The numbers of kept rows that would be dropped and of dropped rows that would stay if the limits of one score
    moved.

    ``several`` says that other tests change as well, so the counts of rows that pass them do not apply.
    """
    fails, passes = _Ends(), _Ends()  # rows that passed and would fail the filter, and the other way round
    for each in bins:
        before, after = _share(each, was), _share(each, then)
        passed = each.rows - each.kept if invert else each.kept
        if before > after:
            fails.add(passed, (before - after) / before, sure=after == 0.0 and before == 1.0)
        elif after > before:
            most = each.rows - passed if several else each.free
            passes.add(most, (after - before) / (1 - before), sure=not several and after == 1.0 and before == 0.0)
    lost, gained = (passes, fails) if invert else (fails, passes)
    return lost.span(), gained.span()


@dataclass
class _Ends:
    """A sum of rows, of which some are certain and others estimated."""

    low: int = 0
    high: int = 0
    about: float = 0.0

    def add(self, rows: int, share: float, *, sure: bool) -> None:
        self.low += rows if sure else 0
        self.high += rows
        self.about += rows * share

    def span(self) -> Span:
        return Span(self.low, self.high, max(self.low, min(self.high, round(self.about))))


def _union(spans: Sequence[Span], most: int, *, mixed: bool) -> Span:
    """The number of rows in at least one of several sets; ``mixed`` says that one change may undo the effect of
    another.
    """
    if not spans:
        return NOTHING
    low = 0 if mixed and len(spans) > 1 else max(span.low for span in spans)
    high = min(most, sum(span.high for span in spans))
    return Span(min(low, high), high, max(min(low, high), min(high, sum(span.about for span in spans))))


def _tell_bins(stage: str, bins: Sequence[_Bin], then: Sequence[Limit], was: Sequence[Limit], found: WhatIf) -> None:
    """Report a limit that is inside a bin, with the nearest values at which the numbers are exact."""
    for limit in then:
        edge = limit.edge()
        inside = next((each for each in bins if each.low < edge < each.high), None)
        if limit in was or inside is None or not inside.rows:
            continue
        exact = [_shown(limit.value_at(value)) for value in (inside.low, inside.high) if math.isfinite(value)]
        found.unknown.append(
            f"{stage}.{limit.parameter}={_shown(limit.value)} lies inside a bin with {count(inside.rows, 'row')}; the "
            "numbers are "
            f"exact at {' and at '.join(exact)}"
        )


def _shown(value: float) -> str:
    """The short form of a number, or all of its digits if the short form is a different number."""
    short = f"{value:.12g}"
    return short if float(short) == value else repr(value)


def _changing(
    stage: str,
    samples: Sequence[Mapping[str, Any]],
    was: Mapping[str, Sequence[Limit]],
    then: Mapping[str, Sequence[Limit]],
    invert: bool,
) -> list[dict[str, Any]]:
    """The samples that would change side."""
    found = []
    for sample in samples:
        values = sample.get("scores") or {}
        if not values or any(values.get(name) is None for name, limits in then.items() if limits):
            continue
        before, after = (
            all(_holds(values[name], limit) for name, limits in side.items() for limit in limits)
            for side in (was, then)
        )
        kept = sample["side"] == "kept"
        # If the limits do not explain what happened to the row, another test has decided.
        if before == after or (before != invert) != kept:
            continue
        found.append({"stage": stage, "was": sample["side"], "then": "dropped" if kept else "kept", **sample})
    return found


def _holds(value: float, limit: Limit) -> bool:
    edge = limit.edge()
    return value >= edge if limit.keeps == "at least" else value < edge


# The stages after it -------------------------------------------------------------------------------------------------


def _behind(
    stage: StageThen,
    counts: Mapping[str, Any],
    seen: Mapping[str, Any],
    removed: Span,
    added: Span,
    lost: Span,
    gained: Span,
    found: WhatIf,
) -> tuple[Span | None, Span | None]:
    """The numbers of rows that would be missing, and that would be added, in the output of a stage."""
    if not (removed.high or added.high):
        return lost, gained
    if stage.was_out > stage.was_in:
        found.unknown.append(f"{stage.name} makes new rows: the result of later stages is not known")
        return None, None
    filters = bool(seen.get("scores")) or any(counts.get(kind) for kind in ("dropped", "rejected", "quarantined"))
    if not filters and stage.was_in == stage.was_out:
        return _sum(removed, lost), _sum(added, gained)
    kept, dropped = stage.was_out, stage.was_in - stage.was_out
    share = kept / stage.was_in if stage.was_in else 1.0
    found.estimated.append(stage.name)
    most = min(kept, lost.high + removed.high)
    gone = _clipped(max(lost.low, removed.low - dropped), most, lost.about + share * removed.about)
    come = _clipped(max(0, gained.low - removed.high), gained.high + added.high, gained.about + share * added.about)
    return gone, come


def _clipped(low: int, high: int, about: float) -> Span:
    low = max(0, min(low, high))
    return Span(low, high, max(low, min(high, round(about))))


def _sum(one: Span, other: Span) -> Span:
    return Span(one.low + other.low, one.high + other.high, one.about + other.about)


def _total(rows: int, removed: Span, added: Span) -> Span:
    return Span(
        max(0, rows - removed.high + added.low),
        rows - removed.low + added.high,
        max(0, rows - removed.about + added.about),
    )


def set_changes(settings: Sequence[str], parse: Callable[[str], Any]) -> dict[str, dict[str, Any]]:
    """``STAGE.PARAM=VALUE`` as parameters by stage."""
    found: dict[str, dict[str, Any]] = {}
    for setting in settings:
        target, equals, text = setting.partition("=")
        stage, _, parameter = target.rpartition(".")
        if not equals or not stage or not parameter:
            raise UsageError(f"--set takes STAGE.PARAM=VALUE, such as WordCountFilter.min_words=80, not {setting!r}")
        found.setdefault(stage, {})[parameter] = parse(text)
    return found
