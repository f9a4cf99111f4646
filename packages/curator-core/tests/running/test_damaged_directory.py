"""A run directory with a damaged file: the file is named, what can be saved is said, and nothing wrong is believed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator_core import DocumentBatch, FanOut, FileGroupTask, FilePartitioning, LocalExecutor, Pipeline, RunRefused
from curator_core.accounts.ledger import read_events
from curator_core.accounts.rejects import rejects_of
from curator_core.cli import run_command
from curator_core.running.attempt import plans_of
from curator_core.running.directory import RunDirectory


class ReadNumbers(FanOut[FileGroupTask, DocumentBatch]):
    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        for path in task.data:
            lines = Path(path).read_text().splitlines()
            for row, line in enumerate(lines):
                if not line.isdigit():
                    self.record_rejected("no number", source=path, position=row, message=line, raw=line.encode())
            self.record_read(len(lines))
            yield DocumentBatch(data=pa.table({"number": [int(line) for line in lines if line.isdigit()]}))


def pipeline(folder: Path) -> Pipeline:
    return Pipeline([FilePartitioning(paths=str(folder / "in")), ReadNumbers()], name="numbers")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / "in" / f"{name}.txt").write_text("1\n2\nthree\n4\nfive\n")
    pipeline(tmp_path).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    return tmp_path / "run"


def one_of(run_dir: Path, folder: str) -> Path:
    return next((run_dir / folder).glob("*.parquet"))


def damages(run_dir: Path, folder: str) -> dict[str, bytes]:
    """Ways in which a file can be wrong: cut, empty, of another kind, with columns of other types."""
    path = one_of(run_dir, folder)
    data = path.read_bytes()
    other = one_of(run_dir, "sources" if folder != "sources" else "ledger").read_bytes()
    table = pq.read_table(path)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: [[1]] for name in table.column_names}), sink)
    return {
        "cut": data[: len(data) // 2],
        "empty": b"",
        "text": b"{}",
        "of another folder": other,
        "of other types": sink.getvalue().to_pybytes(),
    }


@pytest.mark.parametrize("folder", ["ledger", "sources", "rejects"])
def test_every_command_names_the_damaged_file_and_what_can_be_saved(
    run_dir: Path, folder: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = one_of(run_dir, folder)
    for kind, data in damages(run_dir, folder).items():
        path.write_bytes(data)
        for command in ("rejects", "report"):
            assert run_command([command, str(run_dir)]) == 2, (kind, command)
            said = capfd.readouterr().err
            assert f"{path}' is damaged (" in said, (kind, command)
            assert "remove it" in said
            assert "Traceback" not in said
    if folder != "sources":
        assert run_command(["verify", str(run_dir)]) == 0, "the output needs none of these"
    path.unlink()
    assert run_command(["rejects", str(run_dir)]) == 0


@pytest.mark.parametrize("folder", ["ledger", "sources", "rejects", "results"])
def test_a_flipped_bit_is_found_wherever_it_is(run_dir: Path, folder: str, tmp_path: Path) -> None:
    def read() -> object:
        result = pipeline(tmp_path).run(LocalExecutor(workers=0), run_dir=str(run_dir), resume=True)
        events = sorted(map(repr, read_events(str(run_dir))))
        return list(rejects_of(str(run_dir))), events, [task.to_pyarrow().to_pylist() for task in result]  # type: ignore[attr-defined]

    expected = read()
    path = one_of(run_dir, folder)
    data = path.read_bytes()
    refused = 0
    for at in range(0, len(data), max(1, len(data) // 30)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        try:
            found = read()
        except RunRefused as error:
            found, refused = expected, refused + (f"{path}' is damaged" in str(error))
        assert found == expected, f"a flipped bit in byte {at} changes what is read"
    # A flip in a file's unused bytes changes nothing. How many of these are used differs with the seconds recorded in it.
    assert refused > 2


@pytest.mark.parametrize("name", ["run.json", "plan.json"])
def test_a_damaged_record_leaves_the_rejects_readable(
    run_dir: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (run_dir / name).write_text('{"state": ')
    assert run_command(["report", str(run_dir)]) == 2
    said = capfd.readouterr().err
    assert f"{run_dir / name}' is damaged" in said
    assert "`curate rejects` reads them" in said
    assert run_command(["rejects", str(run_dir)]) == 0
    assert "no number" in capfd.readouterr().out


@pytest.mark.parametrize(
    "change", [lambda text: text.replace("ReadNumbers", "ReadXumbers"), lambda text: text.replace('"class"', '"clXss"')]
)
def test_a_plan_that_says_something_else_than_was_written_is_damaged(
    run_dir: Path, tmp_path: Path, change: Callable[[str], str]
) -> None:
    plan = run_dir / "plan.json"
    plan.write_text(change(plan.read_text()))
    with pytest.raises(RunRefused, match=r"plan.json' is damaged \(its fingerprint is not that of its steps"):
        pipeline(tmp_path).run(LocalExecutor(workers=0), run_dir=str(run_dir), resume=True)
    kept = run_dir / "plans" / "0000.json"
    kept.write_text(change(kept.read_text()))
    with pytest.raises(RunRefused, match=r"plans/0000.json' is damaged \(its fingerprint is not that of its steps"):
        plans_of(RunDirectory(str(run_dir)))


def without_an_inner_key(text: str) -> str:
    record = json.loads(text)
    del record["summary"]["stages"][0]["rows_in"]
    return json.dumps(record)


@pytest.mark.parametrize(
    "change",
    [
        without_an_inner_key,
        lambda text: text.replace('"marks"', '"mXrks"'),
        lambda text: text.replace('"machine"', '"machXne"'),
    ],
)
def test_a_record_that_says_something_else_than_was_written_is_damaged(
    run_dir: Path, tmp_path: Path, change: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    record = run_dir / "run.json"
    record.write_text(change(record.read_text()))
    for command in ("report", "verify"):
        assert run_command([command, str(run_dir)]) == 2, command
        said = capfd.readouterr().err
        assert f"{record}' is damaged (its fingerprint is not that of its content)" in said
        assert "`curate rejects` reads them" in said
    with pytest.raises(RunRefused, match=r"run.json' is damaged \(its fingerprint is not that of its content"):
        pipeline(tmp_path).run(LocalExecutor(workers=0), run_dir=str(run_dir), resume=True)
    assert run_command(["rejects", str(run_dir)]) == 0


def test_a_flipped_letter_in_the_kept_command_is_found_and_one_of_an_earlier_version_is_read(run_dir: Path) -> None:
    directory = RunDirectory(str(run_dir))
    command = {"file": "clean.yaml", "settings": ("a=1",), "folder": "", "flags": {"retries": 2, 7: None}}
    directory.write_json("command.json", command)
    path = run_dir / "command.json"
    text = path.read_text()
    assert directory.read_json("command.json")["flags"] == {"retries": 2, "7": None}
    path.write_text(text.replace("clean", "clXan"))
    with pytest.raises(RunRefused, match=r"command.json' is damaged \(its fingerprint"):
        directory.read_json("command.json")
    path.write_text(json.dumps(command))
    assert directory.read_json("command.json")["file"] == "clean.yaml"
