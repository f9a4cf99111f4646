"""Checks measurements against the gates of the entries, without side effects."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from benching.suite import Entry, Value

# Metrics that the runner measures for every command.
OWN_METRICS = ("seconds", "peak_memory_gb", "processes_left")

Number = int | float


@dataclass
class Measured:
    """The measurements of one entry: the values of each metric in all repeats, or the reason why there are none."""

    entry: Entry
    values: dict[str, list[Value]] = field(default_factory=dict)
    skipped: str = ""
    failed: str = ""

    def median(self, metric: str) -> float | None:
        """The median of a metric, or None if it was not measured or is not a number."""
        numbers = self.numbers(metric)
        return statistics.median(numbers) if numbers else None

    def numbers(self, metric: str) -> list[Number]:
        """The values of a metric if they are numbers."""
        values = self.values.get(metric, [])
        return [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]

    def spread(self, metric: str) -> float | None:
        """The spread, (largest - smallest) / median, which shows how reliable the median is."""
        numbers, middle = self.numbers(metric), self.median(metric)
        return (max(numbers) - min(numbers)) / abs(middle) if middle and len(numbers) > 1 else None


@dataclass(frozen=True)
class Gate:
    """One gate and its result; ``held`` is None if it could not be checked on this machine."""

    entry: str
    metric: str
    rule: str
    found: str
    held: bool | None


def judge(results: list[Measured]) -> list[Gate]:
    """All gates of all entries. If the command did not print a metric, its gate is missed."""
    by_name = {one.entry.name: one for one in results}
    return [gate for one in results for gate in _gates_of(one, by_name)]


def _gates_of(one: Measured, by_name: dict[str, Measured]) -> Iterator[Gate]:
    entry = one.entry
    if one.skipped:
        return
    if one.failed:
        yield Gate(entry.name, "command", "runs", "failed", False)
        return
    for metric, wanted in entry.exact.items():
        values = one.values.get(metric, [])
        # Check every repeat, not the median: a count that is sometimes wrong is wrong.
        held = bool(values) and all(isinstance(v, bool) is isinstance(wanted, bool) and v == wanted for v in values)
        found = ", ".join(sorted({show(v) for v in values})) or "not printed"
        yield Gate(entry.name, metric, f"= {show(wanted)}", found, held)
    for metric, least in entry.min.items():
        yield _compare(entry.name, metric, one.median(metric), ">=", least)
    for metric, most in entry.max.items():
        yield _compare(entry.name, metric, one.median(metric), "<=", most)
    for ratio in entry.ratio:
        name, _, metric = ratio.to.partition(".")
        other = by_name[name]
        label = f"{ratio.metric} / {ratio.to}"
        above, below = one.median(ratio.metric), other.median(metric)
        for limit, sign in ((ratio.min, ">="), (ratio.max, "<=")):
            if limit is None:
                continue
            if other.skipped:
                yield Gate(entry.name, label, f"{sign} {limit:g}", f"{name} was skipped", None)
            else:
                yield _compare(entry.name, label, above / below if above is not None and below else None, sign, limit)


def _compare(entry: str, metric: str, value: float | None, sign: str, limit: float) -> Gate:
    rule = f"{sign} {show(limit)}"
    if value is None:
        return Gate(entry, metric, rule, "not measured" if metric in OWN_METRICS else "not printed", False)
    return Gate(entry, metric, rule, show(value), value >= limit if sign == ">=" else value <= limit)


def show(value: Value) -> str:
    """A value as it is shown in tables and gates."""
    if isinstance(value, float):
        return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"
    return str(value)
