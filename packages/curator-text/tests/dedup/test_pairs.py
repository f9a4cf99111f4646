"""A document of a table of decisions is found again: by its line if that is certain, otherwise by reading the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curator_core.workflows.pairs import Place, _Documents
from curator_text import JsonlReader
from curator_text.readers._blocks import LineParser


def lines(names: list[str]) -> str:
    return "".join(f"{json.dumps({'id': name, 'text': f'text of {name}'})}\n" for name in names)


@pytest.mark.parametrize(
    ("content", "names", "parsed"),
    [
        (lines(["a", "b", "c"]), "abc", 3),
        # Every row before the last is read with all following ones, since rows and lines do not agree.
        (f"\n{lines(['a'])}not a row\n{lines(['b', 'c'])}", "abc", None),
    ],
)
def test_the_document_of_a_row_is_the_one_with_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, names: str, parsed: int | None
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    documents = _Documents(JsonlReader(paths=str(path)))
    (source,) = documents._sources
    rows: list[int] = []
    real = LineParser.parse

    def counted(self: LineParser, *given: object) -> object:
        found = real(self, *given)  # type: ignore[arg-type]
        rows.append(found.rows)
        return found

    monkeypatch.setattr(LineParser, "parse", counted)
    for row, name in enumerate(names):
        document, picture = documents.read(Place(name, [str(path)], source, row))
        assert (document["id"], document["text"], picture) == (name, f"text of {name}", None)
    assert parsed in (None, sum(rows))


def test_a_document_without_an_id_is_found_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"\n{lines(['a', 'b'])}")
    documents = _Documents(JsonlReader(paths=str(path)))
    (source,) = documents._sources
    document, _ = documents.read(Place(None, [str(path)], source, 1))
    assert document["id"] == "b"
