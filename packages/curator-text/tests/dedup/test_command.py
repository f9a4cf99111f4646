"""`curate dedup`: its output, and its errors about unusable input."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from curator_core import DocumentBatch
from curator_core.across.copies import ExactKeys
from curator_core.across.decisions import Decisions
from curator_core.cli import run_command


def write(folder: Path, texts: dict[str, str], name: str = "a.jsonl") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps({"id": k, "text": v}) + "\n" for k, v in texts.items()))
    return str(folder)


TEXT = " ".join(f"word{number}" for number in range(60))


@pytest.mark.slow
def test_a_folder_is_deduplicated_and_a_removal_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited = TEXT.replace("word7 ", "changed ")
    data = write(tmp_path / "in" / "web", {"one": TEXT + " the end", "two": edited, "three": edited, "four": "else"})
    with Path(data, "a.jsonl").open("a") as file:
        file.write('{"broken"\n')
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    command = ["dedup", "fuzzy", str(tmp_path / "in"), out, "--run-dir", run, "--workers", "0", "--quiet"]
    assert run_command(command) == 3  # a fifth of the rows is set aside
    said = capsys.readouterr().out
    assert "near duplicate" in said
    assert "web" in said.splitlines()[-1]
    assert "50.0 %" in said
    assert run_command(["dedup", "show", run, "two"]) == 0
    said = capsys.readouterr().out
    assert f"removed: 'two' in {data}/a.jsonl, row 2" in said
    assert f"stays:   'one' in {data}/a.jsonl, row 1" in said
    assert "word6 [changed] word8" in said
    assert "word6 [word7] word8" in said
    # Three steps read the broken line.
    assert run_command(["rejects", run]) == 0
    heading, _ = capsys.readouterr().out.splitlines()
    assert heading.startswith("1 rejected by JsonlRead of steps 'keys', 'texts' and 'apply': ")
    assert run_command(["rejects", run, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["position"], row["steps"]) == ("line 5", ["keys", "texts", "apply"])
    assert run_command(["report", run, "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["rejects"]
    assert (group["rows"], group["steps"], len(group["examples"])) == (1, ["keys", "texts", "apply"], 1)
    assert "of steps" in Path(run, "report.html").read_text()
    assert run_command(["dedup", "show", run, "three", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["document"]["id"], shown["witness"]["id"]) == ("three", "one")
    assert run_command(["dedup", "rethreshold", run, str(tmp_path / "strict"), "--threshold", "0.999"]) == 0
    # The document that was removed for the longer text now stays, and its exact copy is removed for it.
    assert "strict: 1 document goes, for 1 that stays" in capsys.readouterr().out


@pytest.mark.slow
def test_a_workflow_that_fails_on_a_batch_does_not_recommend_setting_rows_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its later steps read the same rows again, and would refuse to work without some of them."""
    rows = [{"id": "a", "text": "x", "v": [1.0, 0.5]}, {"id": "b", "text": "y", "v": [1.0, 0.5, 0.2]}]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = [str(tmp_path / "in"), str(tmp_path / "out"), "--run-dir", str(tmp_path / "run")]
    assert run_command(["dedup", "semantic", *places, "--column", "v", "--workers", "0", "--quiet"]) == 1
    said = capsys.readouterr().err
    assert "vectors of one length" in said
    assert "fix the cause, and continue with --resume" in said
    assert "quarantine" not in said


@pytest.mark.slow
def test_a_step_that_sets_rows_aside_stops_the_workflow_with_the_ways_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later steps find rows by their places, so they need all of them; after a fix, a retry continues."""
    write(tmp_path / "in", {"one": "a text", "two": "another", "three": "a text"})
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    command = ["dedup", "exact", str(tmp_path / "in"), out, "--run-dir", run, "--workers", "0", "--quiet"]
    process = ExactKeys.process

    def fails(self: ExactKeys, task: DocumentBatch) -> Any:
        if "another" in task.to_pyarrow()["text"].to_pylist():
            raise ValueError("too little memory")
        return process(self, task)

    monkeypatch.setattr(ExactKeys, "process", fails)
    assert run_command([*command, "--on-error", "quarantine"]) == 1
    said = capsys.readouterr().err
    assert "step 'keys' has set 1 row aside" in said
    assert f"curate rejects {run}" in said
    assert "curate retry" in said
    assert run_command(["rejects", run]) == 0
    assert "1 quarantined by ExactKeys of step 'keys': ValueError" in capsys.readouterr().out
    monkeypatch.setattr(ExactKeys, "process", process)
    assert run_command(["retry", run]) == 2
    _, _, again = capsys.readouterr().err.strip().partition("run the missing work by: curate ")
    assert run_command(shlex.split(again)) == 0
    found = [json.loads(line)["id"] for path in sorted(Path(out).glob("*.jsonl")) for line in path.open()]
    assert found == ["one", "two"]


@pytest.mark.slow
def test_a_plan_names_the_type_of_mixed_ids_as_in_a_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "a"}\n{"id": "b", "text": "b"}\n')
    (tmp_path / "dedup.yaml").write_text("workflow:\n  ExactDedup: {paths: a.jsonl, path: out/}\n")
    assert run_command(["plan", str(tmp_path / "dedup.yaml")]) == 0
    assert "columns: id (json), text (string)" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "says"), [("one", "it stays, and others were removed for it"), ("nobody", "does not mention 'nobody'")]
)
def test_a_document_that_was_not_removed_cannot_be_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    write(tmp_path / "in", {"one": TEXT, "two": TEXT})
    run = str(tmp_path / "run")
    arguments = ["--run-dir", run, "--workers", "0", "--quiet", "--keep", "first"]
    assert run_command(["dedup", "exact", str(tmp_path / "in"), str(tmp_path / "out"), *arguments]) == 0
    assert run_command(["dedup", "show", run, name]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_a_document_without_an_id_is_named_as_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        lines = [json.dumps({"text": text}) + "\n" for text in (f"only in {name}", TEXT)]
        (tmp_path / "in" / f"{name}.jsonl").write_text("".join(lines))
    run = tmp_path / "run"
    arguments = ["--run-dir", str(run), "--workers", "0", "--quiet", "--keep", "first"]
    assert run_command(["dedup", "exact", str(tmp_path / "in"), str(tmp_path / "out"), *arguments]) == 0
    tables = Decisions.open(str(run / "decisions")).tables()
    (row,) = [row for table in tables for row in table.to_pylist() if row["decision"] == "removed"]
    assert row["row"] == 1
    capsys.readouterr()
    assert run_command(["dedup", "show", str(run), f"{row['source']}:1"]) == 0
    assert "b.jsonl, row 2\n" in capsys.readouterr().out


@pytest.mark.slow
def test_a_collection_that_loses_nearly_everything_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in" / "good", {str(number): f"{TEXT} {number} {'x' * number}" for number in range(40)})
    write(tmp_path / "in" / "bad", {f"b{number}": "the same" for number in range(40)})
    arguments = ["--run-dir", str(tmp_path / "run"), "--workers", "0", "--quiet"]
    assert run_command(["dedup", "exact", str(tmp_path / "in"), str(tmp_path / "out"), *arguments]) == 0
    assert "warning: collection 'bad' loses 97.5 % of its documents" in capsys.readouterr().out


@pytest.mark.slow
def test_an_id_column_that_no_document_has_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in", {"one": TEXT, "two": TEXT})
    for column in ("id", "name"):
        place = tmp_path / column
        arguments = ["--run-dir", str(place / "run"), "--workers", "0", "--quiet", "--id-column", column]
        assert run_command(["dedup", "exact", str(tmp_path / "in"), str(place / "out"), *arguments]) == 0
        said = capsys.readouterr().out
        assert ("warning: no document in the table has a value in the column 'name'" in said) == (column == "name")


@pytest.mark.parametrize("kind", ["exact", "fuzzy"])
def test_a_dry_run_estimates_its_cost_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    for number in range(5):
        write(tmp_path / "in", {f"{number}-{row}": f"{TEXT} {row}" for row in range(100)}, f"{number}.jsonl")
    before = sorted(tmp_path.rglob("*"))
    command = [
        "dedup",
        kind,
        str(tmp_path / "in"),
        str(tmp_path / "out"),
        "--run-dir",
        str(tmp_path / "run"),
        "--dry-run",
    ]
    assert run_command([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sources"] == 5
    assert found["documents"] == pytest.approx(500, rel=0.05)
    assert found["seconds"] > 0
    assert found["disk"] > 500 * 20
    assert run_command(command) == 0
    said = capsys.readouterr().out
    assert "worker" in said
    curve = (
        "  Jaccard    0.3   0.4   0.5   0.6   0.7   0.8   0.9\n  compared  0.06  0.23  0.56  0.88  0.99  1.00  1.00\n"
    )
    assert (curve in said) == (kind == "fuzzy")
    if kind == "fuzzy":  # eight bytes for each character in place of each word
        assert run_command([*command, "--json", "--unit", "characters"]) == 0
        assert json.loads(capsys.readouterr().out)["disk"] > 2 * found["disk"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_the_line_that_resumes_a_run_has_its_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in", {"one": TEXT})
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    command = ["dedup", "exact", str(tmp_path / "in"), out, "--keep", "shortest", "--normalize", "--workers", "0"]
    assert run_command([*command, "--run-dir", run, "--quiet"]) == 0
    capsys.readouterr()
    assert run_command(["retry", run]) == 2
    said = capsys.readouterr().err
    assert f"{out} --keep shortest --workers 0 --normalize --run-dir {run} --retry" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{in}", "{out}", "--keep", "best"], "not 'best'"),
        (["{in}", "{out}", "--keep", "highest:score"], "score"),
        (["{in}", "{out}", "--column", "body"], "body"),
        (["{in}", "{out}", "--format", "xml"], "ExactDedup.format must be one of"),
        (
            ["{mixed}", "{out}"],
            "there are files of several formats (1 of csv, 1 of jsonl). Choose one as format (--format)",
        ),
        (["{nothing}", "{out}"], "no file has an ending that an installed reader reads"),
        (["{out}/not-there", "{out}"], "there is no file or folder"),
    ],
)
def test_impossible_requests_are_refused_with_a_clear_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    write(tmp_path / "in", {"one": TEXT})
    write(tmp_path / "mixed", {"one": TEXT})
    (tmp_path / "mixed" / "b.csv").write_text("id,text\n1,a\n")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "note.md").write_text("hello")
    places = {name: str(tmp_path / name) for name in ("in", "out", "mixed", "nothing")}
    given = [argument.format(**places) for argument in arguments]
    code = run_command(["dedup", "exact", *given, "--run-dir", str(tmp_path / "run"), "--workers", "0", "--quiet"])
    assert code in (1, 2)
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_repeated_parts_are_counted_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in", {"one": TEXT + " the end", "two": "before " + TEXT, "three": "else"})
    run = str(tmp_path / "run")
    arguments = ["--run-dir", run, "--workers", "0", "--quiet", "--keep", "first"]
    assert run_command(["dedup", "substring", str(tmp_path / "in"), str(tmp_path / "out"), *arguments]) == 0
    assert f"1 repeated part, {len(TEXT)} characters, in 1 document\n" in capsys.readouterr().out
    assert run_command(["dedup", "show", run, "two"]) == 0
    said = capsys.readouterr().out
    assert f"--- characters 7 to {7 + len(TEXT)}, begins as a part of 'one' ---" in said
    assert "word0 word1" in said
    assert run_command(["dedup", "show", run, "two", "--json"]) == 0
    assert [part["witness_id"] for part in json.loads(capsys.readouterr().out)] == ["one"]
    page = tmp_path / "parts.html"
    assert run_command(["dedup", "show", run, "two", "--html", str(page)]) == 0
    # Both documents, read again, with the part marked where it is cut and where it stays.
    assert f"<pre>before <mark>{TEXT}</mark></pre>" in page.read_text()
    assert f"<pre><mark>{TEXT}</mark> the end</pre>" in page.read_text()
    capsys.readouterr()
    assert run_command(["dedup", "show", run, "one"]) == 2
    assert "has none of 'one': nothing in it is repeated" in capsys.readouterr().err
