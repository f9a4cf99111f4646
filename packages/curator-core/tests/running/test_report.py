"""The report is one page that shows everything and trusts no text from the data; numbers have a readable form."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core import DocumentBatch, FanOut, FileGroupTask, FilePartitioning, Pipeline, UsageError, formatting
from curator_core.accounts.rejects import RejectGroup, group_rejects, rejects_of
from curator_core.accounts.tally import StageTotals
from curator_core.cli.summary import summary_text
from curator_core.executors.local import LocalExecutor
from curator_core.running.numbers import make_numbers
from curator_core.running.page.html import report_page
from curator_core.running.page.script import SCRIPT
from curator_core.running.report import write_report
from curator_core.running.result import RunSummary

EVIL = "<script>alert('x')</script>&\"<img src=x onerror=alert(1)>"


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if (
            self.tags
            and self.tags[-1][0] == "script"
            and len(self.scripts) < sum(tag == "script" for tag, _ in self.tags)
        ):
            self.scripts.append(data)
        else:
            self.text += data


def record(name: str = "clean", **changes: Any) -> dict[str, Any]:
    stages = [
        StageTotals("Read", 4, 1000, 990, rejected={"broken": 10}, seconds=2.0),
        StageTotals(name, 4, 990, 400, dropped={"short": 500, f"odd {name}": 90}, seconds=1.0),
    ]
    summary = RunSummary(name, sources=4, stages=stages, files=4, bytes=10_000, rows_written=400, seconds=3.0)
    summary.warnings.append(f"beware of {name}")
    return {"state": "done", "attempt": 1, "executor": "LocalExecutor", "summary": summary.as_dict(), **changes}


def test_the_page_shows_the_funnel_and_the_reasons() -> None:
    page = _Page(report_page(make_numbers(record(), {"text": "the plan"}, [])))
    for wanted in (
        "clean",
        "1,000",
        "400",
        "40.0 %",
        "short",
        "500",
        "50.5 %",
        "broken",
        "the plan",
        "beware of clean",
    ):
        assert wanted in page.text


def test_the_page_loads_nothing_and_runs_nothing_from_the_data() -> None:
    example = {"task": EVIL, "source": EVIL, "position": EVIL, "message": EVIL, "raw": EVIL.encode() + b"\xff"}
    rejects = [RejectGroup("reject", EVIL, EVIL, 1, [example])]
    page = _Page(report_page(make_numbers(record(EVIL, machine={"system": EVIL}), {"text": EVIL}, rejects)))
    names = {tag for tag, _ in page.tags}
    assert not names & {"img", "link", "iframe", "object", "embed", "base", "form"}
    attributes = {key for _, attributes in page.tags for key in attributes}
    assert not any(key.startswith("on") for key in attributes)
    assert "src" not in attributes
    assert all(str(given["href"]).startswith("#") for _, given in page.tags if "href" in given)
    assert page.scripts == [SCRIPT]
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = next(given["content"] for _, given in page.tags if given.get("http-equiv") == "Content-Security-Policy")
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}';" in str(policy)
    assert page.text.count("alert('x')") >= 8
    assert "url(" not in report_page(make_numbers(record(), {}, []))


def test_an_unfinished_run_also_has_a_page() -> None:
    page = _Page(report_page(make_numbers({"state": "running", "attempt": 1}, {"name": "x", "text": "plan"}, [])))
    assert "not finished" in page.text


@pytest.mark.slow
@given(st.text(), st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_page_is_made_for_any_name_and_any_numbers(name: str, rows_in: int, rows_out: int) -> None:
    content = record(name)
    content["summary"]["stages"][0] |= {"rows_in": rows_in, "rows_out": rows_out}
    page = report_page(make_numbers(content, {}, []))
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", page)]
    assert all(0 < width <= 100 for width in widths)


class ReadNumbers(FanOut[FileGroupTask, DocumentBatch]):
    def outputs(self) -> list[str]:
        return ["n"]

    def process(self, task: FileGroupTask) -> Any:
        for place, word in enumerate(Path(task.data[0]).read_text().split()):
            self.record_read(1)
            if word.isdigit():
                yield DocumentBatch(data=pa.table({"n": [int(word)]}))
            else:
                self.record_rejected("no number", position=place, raw=word.encode())


@pytest.mark.slow
def test_a_report_and_the_rejects_come_from_the_run_directory(tmp_path: Path) -> None:
    for number, text in enumerate(["1 a 2", "b b 3", "4"]):
        (tmp_path / f"{number}.txt").write_text(text)
    pipeline = Pipeline([FilePartitioning(paths=f"{tmp_path}/*.txt"), ReadNumbers()], name="numbers")
    run_dir = str(tmp_path / "run")
    pipeline.run(LocalExecutor(workers=0), run_dir=run_dir)
    groups = group_rejects(run_dir, examples=2)
    assert [(group.kind, group.stage, group.reason, group.rows) for group in groups] == [
        ("reject", "ReadNumbers", "no number", 3)
    ]
    assert len(groups[0].examples) == 2
    assert sorted((row["position"], row["raw"]) for row in rejects_of(run_dir)) == [
        ("0", b"b"),
        ("1", b"a"),
        ("1", b"b"),
    ]
    page = _Page(Path(write_report(run_dir)).read_text())
    assert "numbers" in page.text
    assert "3 rejected by ReadNumbers: no number" in page.text


@pytest.mark.slow
def test_rejects_of_an_input_that_has_changed_since_no_longer_count(tmp_path: Path) -> None:
    path = tmp_path / "0.txt"
    path.write_text("1 a b")
    pipeline = Pipeline([FilePartitioning(paths=f"{tmp_path}/*.txt"), ReadNumbers()], name="numbers")
    run_dir = str(tmp_path / "run")
    pipeline.run(LocalExecutor(workers=0), run_dir=run_dir)
    path.write_text("1 2 c 3 4")
    pipeline.run(LocalExecutor(workers=0), run_dir=run_dir, resume=True)
    assert [row["raw"] for row in rejects_of(run_dir)] == [b"c"]


def test_a_folder_without_a_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run"):
        write_report(str(tmp_path))


def test_the_summary_is_a_table_without_empty_columns() -> None:
    lines = summary_text(record()["summary"]).splitlines()
    assert (
        lines[0]
        == "clean: done in 3.00 s: 4 sources, 1.0 % of its rows rejected (10 of 1,000), 4 files written (400 rows, 10 kB)"
    )
    assert lines[1] == "warning: beware of clean"
    assert lines[3].split() == ["stage", "rows", "in", "kept", "dropped", "rejected", "time"]
    assert lines[4].split() == ["Read", "1,000", "990", "10", "2.00", "s"]
    assert lines[5].split() == ["broken", "10"]
    assert [row.split() for row in lines[7:9]] == [["short", "500"], ["odd", "clean", "90"]]
    ends = {len(row) for row in lines[3:5]}
    assert len(ends) == 1


def test_the_start_of_a_cluster_is_reported_if_it_takes_time() -> None:
    recorded = record()
    recorded["summary"] |= {"executor": "RayDataExecutor", "opened_after": 4.12, "worked_after": 9.8}
    line = "RayDataExecutor was ready after 4.12 s, the first work done after 9.80 s"
    assert summary_text(recorded["summary"]).splitlines()[2] == line
    assert "first work was done after9.8 s" in _Page(report_page(make_numbers(recorded, {}, []))).text
    recorded["summary"]["opened_after"] = 0.01
    assert "ready after" not in summary_text(recorded["summary"])


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (formatting.number(1234567), "1,234,567"),
        (formatting.number(0.12345), "0.123"),
        (formatting.count(1, "file"), "1 file"),
        (formatting.count(2000, "entry", "entries"), "2,000 entries"),
        (formatting.size(999), "999 bytes"),
        (formatting.size(1000), "1 kB"),
        (formatting.size(12_345_678), "12.3 MB"),
        (formatting.size(999_000_000), "999 MB"),
        (formatting.size(5e15), "5,000 TB".replace(",", "")),
        (formatting.duration(0.2), "0.20 s"),
        (formatting.duration(59.99), "1 min 00 s"),
        (formatting.duration(3725), "1 h 02 min"),
        (formatting.duration(200_000), "2 d 7 h"),
        (formatting.percent(1, 3), "33.3 %"),
        (formatting.percent(0, 3), "0.0 %"),
        (formatting.percent(1, 100_000), "<0.1 %"),
        (formatting.percent(99_999, 100_000), ">99.9 %"),
        (formatting.percent(3, 3), "100.0 %"),
        (formatting.percent(0, 0), ""),
        (formatting.beginning("grün".encode() + b"\xff\n", 20), "grün\\xff\n"),
        (formatting.beginning(b"0123456789", 4), "0123…"),
        (formatting.beginning(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(1990), 160), "(2 kB of binary data)"),
    ],
)
def test_numbers_and_bytes_are_written_in_a_readable_form(said: str, wanted: str) -> None:
    assert said == wanted
