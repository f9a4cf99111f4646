"""The top of a page says how a run ended and what deserves a look; a handle's number equals the counts behind it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core.accounts.seen import Counted, Sample, ScoreSeen, Seen, StageSeen
from curator_core.accounts.tally import StageTotals
from curator_core.executors.local import LocalExecutor
from curator_core.model.scores import Limit, whole_numbers
from curator_core.pipeline import Pipeline
from curator_core.running.directory import RunDirectory
from curator_core.running.numbers import make_numbers
from curator_core.running.page.histogram import histogram, would_stay
from curator_core.running.page.html import report_page
from curator_core.running.report import write_report
from curator_core.running.result import RunSummary
from curator_core.testing.stages import ListFiles, ReadRows


def top_of(page: str) -> str:
    """The part of the page before the funnel."""
    return page.partition('<section id="funnel">')[0]


def numbers(stages: list[StageTotals], seen: Seen | None = None, state: str = "done", **options: Any) -> dict[str, Any]:
    summary = RunSummary("x", sources=4, stages=stages, seconds=30.0)
    record = {"state": state, "attempt": 1, "summary": summary.as_dict(), "options": options}
    return make_numbers(record, {}, [], seen)


def score(values: list[int], limit: int, *, nulls: int = 0) -> ScoreSeen:
    edges = list(whole_numbers())
    counts = [sum(edges[at] <= value < edges[at + 1] for value in values) for at in range(len(edges) - 1)]
    kept = [rows if edges[at] >= limit else 0 for at, rows in enumerate(counts)]
    found = ScoreSeen(
        "words", "text", [Limit("min_words", float(limit), "at least")], edges, True, counts, kept, counts
    )
    found.rows, found.nulls = len(values) + nulls, nulls
    found.min, found.max = (min(values), max(values)) if values else (None, None)
    return found


READ = StageTotals("Read", 4, 1000, 1000, seconds=1.0)
ALARMS = {
    "dropped all": ([READ, StageTotals("Words", 4, 1000, 0, dropped={"words": 1000})], None),
    "dropped nothing": (
        [READ, StageTotals("Words", 4, 1000, 1000)],
        Seen(stages={"Words": StageSeen("Words", scores=[score([7] * 1000, 5)])}),
    ),
    "rejects": ([StageTotals("Read", 4, 1000, 900, rejected={"broken": 100}), StageTotals("Write", 4, 900, 900)], None),
    "collection lost": (
        [READ, StageTotals("Words", 4, 1000, 504, dropped={"words": 496})],
        Seen(by={"collection": [Counted("news", 500, 4, {"Words": 496}), Counted("blogs", 500, 500)]}),
    ),
    "empty column": (
        [READ, StageTotals("Words", 4, 1000, 999, dropped={"words": 1})],
        Seen(stages={"Words": StageSeen("Words", scores=[score([], 5, nulls=1000)])}),
    ),
    "time": ([READ, StageTotals("Slow", 4, 1000, 1000, seconds=11.0)], None),
}


@pytest.mark.parametrize("kind", ALARMS)
def test_an_alarm_is_at_the_top_with_advice(kind: str) -> None:
    found = numbers(*ALARMS[kind])
    assert [alarm["kind"] for alarm in found["alarms"]] == [kind]
    top = top_of(report_page(found))
    assert found["alarms"][0]["advice"] in top
    assert 'id="alarms"' in top


def test_a_run_without_anything_unusual_has_no_alarm() -> None:
    stages = [READ, StageTotals("Words", 4, 1000, 900, dropped={"words": 100}, seconds=1.0)]
    seen = Seen(stages={"Words": StageSeen("Words", scores=[score([3] * 100 + [9] * 900, 5)])})
    assert numbers(stages, seen)["alarms"] == []


def test_only_the_first_of_many_alarms_of_a_kind_are_shown_and_the_others_counted() -> None:
    lost = [Counted(f"c{number}", 100, 0, {"Words": 100}) for number in range(30)]
    found = numbers([READ, StageTotals("Words", 4, 1000, 900, dropped={"words": 100})], Seen(by={"collection": lost}))
    assert len(found["alarms"]) == 11
    assert found["alarms"][-1]["sentence"] == "20 more of the same kind."


@pytest.mark.slow
def test_the_top_says_that_a_run_was_killed_and_which_work_is_complete(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jsonl").write_text('{"id": 1, "text": "one"}\n{"id": 2, "text": "two"}\n')
    run_dir = str(tmp_path / "run")
    stages = [ListFiles([str(tmp_path / f"{number}.jsonl") for number in range(3)]), ReadRows()]
    Pipeline(stages, name="cut off").run(LocalExecutor(workers=0), run_dir=run_dir)
    directory = RunDirectory(run_dir)
    record = directory.read_json("run.json")
    # As after a killed run: there is no summary, and nobody holds the lock.
    killed = {name: record[name] for name in record if name not in ("summary", "outputs", "fingerprint")}
    directory.write_json("run.json", {**killed, "state": "running", "ended": None})
    page = Path(write_report(run_dir)).read_text()
    assert "interrupted" in top_of(page)
    assert "continue with --resume" in top_of(page)
    found = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (found["state"], found["closed"]) == ("interrupted", False)
    assert found["sources"]["complete"] == found["sources"]["total"] == record["summary"]["sources"]
    assert found["rows"]["in"] == 6


@pytest.mark.parametrize(
    ("state", "said"), [("quarantined", "done, with work set aside"), ("failed", "failed"), ("done", "accounted for")]
)
def test_the_top_of_the_page_says_how_a_run_ended(state: str, said: str) -> None:
    assert said in top_of(report_page(numbers([READ, StageTotals("Write", 4, 1000, 1000)], state=state)))


def sample(row: int, value: int, *, near: bool) -> Sample:
    side = "dropped" if value < 5 else "kept"
    scores = {"words": float(value)}
    limit = ("min_words", "words") if near else ("", "")
    return Sample(
        side,
        "words",
        near,
        *limit,
        float(value),
        scores,
        f"row-{row}",
        "/in/a.jsonl",
        f"line {row + 1}",
        "a",
        row,
        "a text",
        0,
        6,
        [],
        {},
    )


def test_a_row_that_is_in_two_samples_is_shown_and_counted_once() -> None:
    rows = [(0, 3), (1, 4), (2, 8)]
    entry = StageSeen("Words", scores=[score([3, 4, 8], 5)], of={"dropped": {"words": 2}, "kept": 1})
    entry.samples = [sample(row, value, near=near) for near in (True, False) for row, value in rows]
    stages = [StageTotals("Read", 1, 3, 3), StageTotals("Words", 1, 3, 1, dropped={"words": 2})]
    page = report_page(numbers(stages, Seen(stages={"Words": entry})))
    assert "2 of 2, nearest to the limit first" in page
    assert "1 of 1, nearest to the limit first" in page
    # Once among those that the filter was least sure about, and once on its side.
    assert page.count("curate show /in/a.jsonl:1<") == 2


@pytest.mark.slow
@given(st.lists(st.integers(0, 60), min_size=1, max_size=50), st.integers(1, 60), st.integers(0, 60))
def test_the_number_at_an_edge_equals_what_a_limit_there_keeps(values: list[int], limit: int, moved: int) -> None:
    seen = asdict(score(values, limit))
    assert would_stay(seen, {}) == sum(value >= limit for value in values)
    assert would_stay(seen, {"min_words": float(moved)}) == sum(value >= moved for value in values)
    assert would_stay(seen, {"min_words": moved + 0.5}) is None
    assert f"<output>{sum(value >= limit for value in values):,}</output>" in histogram(seen, "h")


def test_pictures_are_distributed_in_turn_until_the_page_is_full() -> None:
    stages = {}
    for name in ("A", "B"):
        rows = [sample(row, 4 if row % 2 else 6, near=True) for row in range(40)]
        for row in rows:
            row.picture = b"\xff\xd8\xff" + bytes(30_000)
        stages[name] = StageSeen(name, scores=[score([4, 6], 5)], samples=rows)
    found = numbers([READ, StageTotals("A", 4, 1000, 900), StageTotals("B", 4, 900, 800)], Seen(stages=stages))
    drawn = {stage["name"]: [s["picture"] for s in stage["samples"] if s["picture"]] for stage in found["stages"]}
    sides = [s["side"] for stage in found["stages"] for s in stage["samples"] if s["picture"]]
    assert sum(len(picture) for pictures in drawn.values() for picture in pictures) <= 1_200_000
    assert abs(len(drawn["A"]) - len(drawn["B"])) <= 2
    assert abs(sides.count("kept") - sides.count("dropped")) <= 2
    assert len(sides) > 20
    assert len(report_page(found)) < 2_000_000


def test_numbers_that_json_does_not_have_are_null() -> None:
    found = numbers([READ])
    found_again = json.loads(json.dumps(found, allow_nan=False))
    assert found_again["stages"][0]["rows_in"] == 1000


def test_a_card_says_what_a_filter_drops_alone_first_and_needlessly() -> None:
    words = StageSeen("Words", scores=[score([7] * 500, 5)], alone=62, first=45, anyway=17)
    found = numbers([READ, StageTotals("Words", 4, 1000, 955, dropped={"words": 45})], Seen(stages={"Words": words}))
    assert [found["stages"][1][name] for name in ("alone", "first", "anyway")] == [62, 45, 17]
    page = report_page(found)
    assert "On its own it would drop 62 of" in page
    assert "It drops 45; 17 of these" in page


def test_the_row_nearest_to_a_limit_is_found_in_units_that_all_limits_of_a_score_share() -> None:
    words = StageSeen("Words", scores=[score([740, 120], 50)])
    words.scores[0].limits.append(Limit("max_words", 100_000.0, "at most"))
    near = [sample(1, 740, near=True), sample(2, 120, near=True)]
    near[0].limit = "max_words"
    words.samples = near
    found = numbers([READ, StageTotals("Words", 4, 1000, 1000)], Seen(stages={"Words": words}))
    page = report_page(found)
    assert page.index("kept, words 120") < page.index("kept, words 740")


def test_rows_as_near_as_those_shown_are_mentioned() -> None:
    words = StageSeen("Words", scores=[score([6] * 4, 5)], samples=[sample(row, 6, near=True) for row in range(4)])
    found = numbers([READ, StageTotals("Words", 4, 1000, 1000)], Seen(stages={"Words": words}))
    assert "Other rows are equally near." in report_page(found)
    found["stages"][1]["samples"] = found["stages"][1]["samples"][:3]
    assert "Other rows are equally near." not in report_page(found)


def test_files_of_one_folder_are_named_by_the_parts_that_differ() -> None:
    files = ["s3://bucket/crawl/de/a.jsonl", "s3://bucket/crawl/de/b.jsonl", "s3://bucket/crawl/en/a.jsonl"]
    by = [Counted(file, rows_in=10, rows_out=place) for place, file in enumerate(files)]
    found = numbers([StageTotals("Read", 3, 30, 30)], Seen(by={"source": [*by, Counted("(others)", 1, 1)]}))
    page = report_page(found)
    assert ">de/a.jsonl</th>" in page
    assert ">en/a.jsonl</th>" in page
    assert ">(others)</th>" in page
    assert "File de/a.jsonl lost the most: 100.0 % of 10 rows. Files are in s3://bucket/crawl/" in page
    assert [entry["value"] for entry in found["by"]["source"]] == [*files, "(others)"]


def test_tokens_are_not_estimated_from_the_bytes_of_pictures() -> None:
    shown = sample(1, 5, near=False)
    for picture, tokens in ((None, 25), (b"\xff\xd8\xff", 0)):
        stage = StageSeen("Blur", samples=[replace(shown, picture=picture)])
        seen = Seen(stages={"Blur": stage}, tokens="estimated: bytes / 4", tokens_in=25, bytes_in=100)
        found = numbers([StageTotals("Blur", 1, 2, 1)], seen)
        assert (found["tokens"]["in"], found["bytes"]["in"]) == (tokens, 100)


def test_a_score_of_one_row_is_described_in_the_singular() -> None:
    one = score([7], 5)
    shown = histogram({**asdict(one), "limits": [limit.as_dict() for limit in one.limits]}, "h")
    assert "</b> of 1 row <" in shown
    assert "<title>1 row, 1 kept</title>" in shown
    assert "<output>1</output> of 1 row <span>stays</span>" in shown


def test_rows_of_a_stage_without_a_score_fill_all_places_of_the_page() -> None:
    rows = [sample(row, row, near=False) for row in range(20)]
    samples = [replace(row, side="dropped", reason="copy", score=None, scores={}) for row in rows]
    stages = [READ, StageTotals("Apply", 4, 1000, 900, dropped={"copy": 100})]
    seen = Seen(stages={"Apply": StageSeen("Apply", samples=samples, of={"dropped": {"copy": 100}, "kept": 0})})
    page = report_page(numbers(stages, seen))
    assert "12 of 100, chosen evenly<" in page
    assert page.count('class="example"') == 12
    assert "Drag a handle" not in page


def test_the_page_of_a_workflow_draws_its_steps_and_names_the_slowest() -> None:
    read, embed = {"name": "Read", "params": {}}, {"name": "Embed", "params": {"model": "m.bin", "model_sha256": "ab"}}
    plan = {
        "kind": "workflow",
        "text": "group of words",
        "steps": [
            {"name": "vectors", "steps": [read, embed]},
            {"name": "Groups", "steps": [{"name": "solve", "steps": [{"name": "Solve", "params": {}}]}]},
            {"name": "apply", "steps": [read]},
        ],
    }
    ended = [("vectors", 20.0), ("Groups", 3.0), ("apply", 1.0)]
    steps = [
        {"name": name, "state": "done", "folder": f"steps/{name}", "complete_before": False, "steps": [], "sources": 1}
        | {"rows_in": 1, "rows_out": 1, "seconds": seconds}
        for name, seconds in ended
    ]
    summary = {**RunSummary("x", sources=4, stages=[READ], seconds=25.0).as_dict(), "steps": steps}
    found = make_numbers({"state": "done", "attempt": 1, "summary": summary, "options": {}}, plan)
    assert [(group["title"], group["stages"]) for group in found["plan"]["groups"]] == [
        ("step 1 · vectors", ["Read", "Embed"]),
        ("step 2.1 · solve", ["Solve"]),
        ("step 3 · apply", ["Read"]),
    ]
    assert found["models"] == [{"stage": "Embed", "model": "m.bin", "model_sha256": "ab"}]
    assert found["time"]["bottleneck"].startswith("Step vectors takes the most time: 20.0 s of 25.0 s (80.0 %).")
    page = report_page(found)
    assert page.count("<li><div><small>step ") == 3
    assert "vectors: Embed: " in page


def test_a_stage_that_marks_rows_says_which_pass_and_drops_none() -> None:
    entry = StageSeen("Words", mode="annotate", scores=[score([3, 4, 8], 5)], of={"dropped": {"words": 2}, "kept": 1})
    entry.samples = [sample(row, value, near=True) for row, value in enumerate((3, 4, 8))]
    stages = [StageTotals("Read", 1, 3, 3), StageTotals("Words", 1, 3, 3)]
    page = report_page(numbers(stages, Seen(stages={"Words": entry})))
    assert "marked 3 rows, dropped none" in page
    assert "<output>1</output> of 3 rows <span>passes</span></b> this filter" in page
    assert "Failed <span>2 of 2, " in page
    assert "Passed <span>1 of 1, " in page


def test_kept_rows_are_ordered_by_the_nearest_limit_of_their_score() -> None:
    one = score([50, 51, 700], 50)
    one.limits = [*one.limits, Limit("max_words", 100_000.0, "at most")]
    entry = StageSeen("Words", scores=[one], of={"dropped": {}, "kept": 3})
    near = [("min_words", 50), ("min_words", 51), ("max_words", 700)]
    entry.samples = [
        replace(sample(row, value, near=True), side="kept", limit=limit) for row, (limit, value) in enumerate(near)
    ]
    page = report_page(numbers([READ, StageTotals("Words", 4, 1000, 1000)], Seen(stages={"Words": entry})))
    examples = page.partition('class="sides')[2].partition("</article>")[0]
    assert [text.partition("<")[0] for text in examples.split("<p>words ")[1:]] == ["50", "51", "700"]


def test_a_row_from_anywhere_has_its_score_by_name() -> None:
    entry = StageSeen("Words", scores=[score([3], 5)], of={"dropped": {}, "kept": 1})
    entry.samples = [replace(sample(0, 3, near=False), side="kept", limit="", score_name="", scores={"words": 3.0})]
    made = numbers([READ, StageTotals("Words", 4, 3, 3)], Seen(stages={"Words": entry}))
    assert "<p>words 3</p>" in report_page(made)
    made["stages"][1]["samples"][0]["scores"]["lines"] = 3.0  # either may be meant
    assert "<p>score 3</p>" in report_page(made)


def test_the_folder_of_dropped_rows_is_named_and_one_file_is_in_the_singular() -> None:
    summary = RunSummary("x", sources=1, stages=[READ], seconds=1.0, files=1).as_dict()
    outputs = {"Writer": {"folder": "/out", "files": 4}, "Words: dropped rows": {"folder": "/lost", "files": 1}}
    page = report_page(make_numbers({"state": "done", "attempt": 1, "summary": summary, "outputs": outputs}, {}))
    assert "Writer wrote 4 files to " in page
    assert "The rows that Words dropped are in 1 file in " in page
    assert "<b>1</b><span>source</span>" in page
    assert "<b>1</b><span>file written</span>" in page


def removal(rule: str, containment: float) -> dict[str, Any]:
    ends = {
        f"{end}{name}": value for end in ("", "witness_") for name, value in (("id", "a"), ("source", "s"), ("row", 0))
    }
    return {**ends, "rule": rule, "containment": containment, "similarity": None, "new_words": 0, "cluster_size": 2}


@pytest.mark.parametrize(
    ("rule", "removed", "said"),
    [
        ("exact", 1, "Some of the copies</h3><ul><li>a for a: exact<br>"),
        (
            "nothing_new",
            1,
            "Least similar removals</h3><ul><li>a for a: nothing_new, 90.0% of its shingles are in the other,",
        ),
        ("exact", 0, "<h2>Duplicates</h2><p>No document is removed.</p></section>"),
    ],
)
def test_duplicates_are_described_by_what_their_rule_measures(rule: str, removed: int, said: str) -> None:
    found = numbers([READ])
    found["duplicates"] = {"run_dir": "/run", "removed": removed, "rules": {rule: removed}, "sizes": {"2": removed}}
    found["duplicates"] |= {"largest": [], "least_alike": [removal(rule, 0.9)] * removed}
    page = report_page(found)
    assert said in page
    assert ("curate dedup show /run a" in page) == bool(removed)


def test_duplicates_of_pictures_are_pictures() -> None:
    found = numbers([READ])
    one = {**removal("perceptual", 0.9), "picture": "data:image/jpeg;base64,", "witness_picture": None}
    found["duplicates"] = {"run_dir": "/run", "removed": 2, "rules": {"perceptual": 2}, "sizes": {"2": 2}}
    found["duplicates"] |= {"largest": [{**one, "removed": [one]}], "least_alike": [one]}
    page = report_page(found)
    assert "2 pictures are removed" in page
    assert "<b>2</b> pictures: a stays" in page
    assert "document" not in page.partition('id="duplicates"')[2].partition("</section>")[0]


def test_a_row_that_was_set_aside_has_a_command_that_shows_it() -> None:
    found = numbers([READ])
    places = [("/in/a b.jsonl", "line 7"), ("/in/c.tar", "000009"), ("/in/a.jsonl", "task t-1"), ("", "")]
    examples = [
        {"source": source, "position": position, "task": "t-1", "message": "odd", "raw": None}
        for source, position in places
    ]
    found["rejects"] = [
        {"kind": "reject", "stage": "Read", "reason": "odd", "rows": 4, "steps": [], "examples": examples}
    ]
    aside = report_page(found).partition('id="aside"')[2].partition("</section>")[0]
    commands = re.findall("<code>(curate [^<]*)</code><button", aside)
    assert commands == ["curate show &#x27;/in/a b.jsonl:7&#x27;", "curate show /in/c.tar:000009"]
