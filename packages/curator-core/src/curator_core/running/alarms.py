"""What should the user check before using the output of a run? One sentence for each finding, with advice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from curator_core.formatting import duration, percent, printable

# A collection that loses more than this share is named, unless it has only a few rows.
MOST_LOST = 0.95
LEAST_ROWS = 10
# Rejects above this share of a stage's rows are named, if the run sets no limit.
MOST_REJECTED = 0.05
# A stage that takes more than this share of the workers' time is named, if the time is worth saving.
MOST_TIME = 0.5
LEAST_SECONDS = 10.0
# At most this many alarms of one kind are shown: nobody reads a page with a hundred.
_MOST_ALIKE = 10


def alarms_of(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The alarms of a run from its numbers, the most serious kind first."""
    found: list[dict[str, Any]] = []
    for kind in (_collections, _stages, _rejects, _columns, _time):
        alarms = list(kind(numbers))
        found += alarms[:_MOST_ALIKE]
        if len(alarms) > _MOST_ALIKE:
            left = len(alarms) - _MOST_ALIKE
            found.append(_alarm(alarms[0]["kind"], f"{left:,} more of the same kind.", "They are in the tables below."))
    return found


def _alarm(kind: str, sentence: str, advice: str, **about: str) -> dict[str, Any]:
    return {"kind": kind, **about, "sentence": sentence, "advice": advice}


def _collections(numbers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in numbers["collections"]:
        rows_in, rows_out = entry["rows_in"], entry["rows_out"]
        # The output of a merge has another name than its input.
        if rows_in < LEAST_ROWS or (rows_in - rows_out) / rows_in <= MOST_LOST or entry["value"] == "(merged)":
            continue
        lost = sum(entry["dropped"].values()) + entry["rejected"]
        if lost < rows_in - rows_out and any(other["value"] == "(merged)" for other in numbers["collections"]):
            continue
        blame = max(entry["dropped"], key=lambda stage: (entry["dropped"][stage], stage), default="")
        by = f", most of it to {printable(blame)}" if blame else ""
        name = printable(entry["value"])
        yield _alarm(
            "collection lost",
            f"Collection {name!r} lost {percent(rows_in - rows_out, rows_in)} of its {rows_in:,} rows{by}.",
            "Read some of its dropped rows below: a collection of another kind, language or layout may need "
            "other limits.",
            collection=entry["value"],
        )


def _stages(numbers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for stage in numbers["stages"]:
        if stage["kind"] != "filter" or stage["mode"] == "annotate" or stage["rows_in"] < LEAST_ROWS:
            continue
        dropped = sum(stage["dropped"].values())
        name = printable(stage["name"])
        if dropped == stage["rows_in"]:
            yield _alarm(
                "dropped all",
                f"{name} dropped all of its {dropped:,} rows.",
                "Compare its limits with the histogram below, and its column with the columns of the input.",
                stage=stage["name"],
            )
        elif not dropped:
            yield _alarm(
                "dropped nothing",
                f"{name} dropped none of its {stage['rows_in']:,} rows.",
                "If you expected that, remove the filter to save its time; otherwise check its limits below.",
                stage=stage["name"],
            )


def _rejects(numbers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    most = numbers["options"].get("max_reject_fraction")
    most = MOST_REJECTED if most is None else most
    for stage in numbers["stages"]:
        aside = sum(stage["rejected"].values()) + stage["quarantined"]
        if aside and aside > most * stage["rows_in"]:
            name = printable(stage["name"])
            yield _alarm(
                "rejects",
                f"{name} set aside {aside:,} of {stage['rows_in']:,} rows ({percent(aside, stage['rows_in'])}).",
                "Their places and reasons are under Set aside. The usual cause is files of another kind or a wrong "
                "encoding.",
                stage=stage["name"],
            )


def _columns(numbers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    named = set()
    for stage in numbers["stages"]:
        for score in stage["scores"]:
            if score["rows"] and score["nulls"] + score["nans"] == score["rows"]:
                column, name = printable(score["column"] or score["name"]), printable(stage["name"])
                named.add(score["column"] or score["name"])
                yield _alarm(
                    "empty column",
                    f"{name} found no value of {column!r} in any of {score['rows']:,} rows.",
                    "Check whether the input has a column of this name; `curate inspect` on the input shows its columns.",
                    stage=stage["name"],
                    column=score["column"] or score["name"],
                )
        for column in stage["empty"]:
            # A filter may be named after a score, which is a column of the output too.
            if column not in named:
                yield _alarm(
                    "empty column",
                    f"Column {printable(column)!r} of the output of {printable(stage['name'])} has no value in any of "
                    f"{stage['rows_in']:,} rows.",
                    "Check the stage that makes it, or remove the column; `curate inspect` on the input shows whether it "
                    "is empty there.",
                    stage=stage["name"],
                    column=column,
                )


def _time(numbers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    time = numbers["time"]
    if len(time["stages"]) < 2:
        return
    for stage in time["stages"]:
        if stage["share"] > MOST_TIME and stage["seconds"] >= LEAST_SECONDS:
            yield _alarm(
                "time",
                f"{printable(stage['name'])} takes {percent(stage['share'], 1)} of the time of all workers "
                f"({duration(stage['seconds'])}).",
                "Put cheap filters before it, so that it gets fewer rows, or give it more workers.",
                stage=stage["name"],
            )
