"""Decision records: one form, and an index that names them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "decisions"
RECORDS = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_decision_has_title_status_context_decision_and_consequences(path: Path) -> None:
    text = path.read_text()
    number = path.name[:4]
    assert re.match(rf"# {number}: \S", text), f"the title of {path.name} must begin with '# {number}: '"
    assert re.search(r"^\*\*Status:\*\* (accepted|superseded by \[\d{4}\]\(\d{4}-[\w-]+\.md\))", text, re.MULTILINE)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [heading for heading in headings if heading in ("Context", "Decision", "Consequences")] == [
        "Context",
        "Decision",
        "Consequences",
    ]


def test_no_number_is_taken_twice() -> None:
    numbers = [path.name[:4] for path in RECORDS]
    assert sorted(set(numbers)) == numbers


def test_the_index_names_each_decision_with_its_title_and_status() -> None:
    expected = []
    for path in RECORDS:
        text = path.read_text()
        title = text.splitlines()[0].removeprefix("# ")
        status = re.search(r"^\*\*Status:\*\* (.+)$", text, re.MULTILINE)
        assert status is not None
        note = "" if status[1] == "accepted" else f" ({status[1]})"
        expected.append(f"- [{title}]({path.name}){note}")
    listed = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("- ")]
    assert listed == expected
