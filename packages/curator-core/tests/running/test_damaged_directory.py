"""A run directory with a damaged file: the error names the file and the remedy, and no wrong content is used."""

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
from curator_core.running.verify import verify
from curator_core.testing.faults import WriteLines


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
def test_every_command_names_the_damaged_file_and_a_remedy(
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


@pytest.mark.slow
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
    assert refused > 25, "a flip in the words that stand before the checksum changes nothing"


def test_a_damaged_success_file_without_a_recorded_checksum_is_reported(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    record = json.loads((run_dir / "run.json").read_text())
    record |= {"outputs": {"Writer": {"folder": str(tmp_path / "out"), "files": 0}}, "marks": {}}
    del record["fingerprint"]
    (run_dir / "run.json").write_text(json.dumps(record))
    for content in ('{"files": [', "{}", '{"files": [1]}', "[]"):
        (tmp_path / "out" / "_SUCCESS").write_text(content)
        assert "_SUCCESS' is damaged" in verify(str(run_dir))[0]


@pytest.mark.parametrize("folder", ["ledger", "sources"])
def test_a_resume_refused_because_of_damage_does_not_change_finished_output(tmp_path: Path, folder: str) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / "in" / f"{name}.txt").write_text("1\n2\n")
    writing = Pipeline([FilePartitioning(paths=str(tmp_path / "in")), ReadNumbers(), WriteLines(str(tmp_path / "out"))])
    run_dir = tmp_path / "run"
    writing.run(LocalExecutor(workers=0), run_dir=str(run_dir))
    finished = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert "_SUCCESS" in finished
    path = one_of(run_dir, folder)
    data = path.read_bytes()
    refused = 0
    for at in range(0, len(data), max(1, len(data) // 20)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        try:
            writing.run(LocalExecutor(workers=0), run_dir=str(run_dir), resume=True)
        except RunRefused:
            refused += 1
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == finished, f"byte {at}"
    assert refused > 10


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
def test_a_changed_plan_is_reported_as_damaged(run_dir: Path, tmp_path: Path, change: Callable[[str], str]) -> None:
    plan = run_dir / "plan.json"
    plan.write_text(change(plan.read_text()))
    with pytest.raises(RunRefused, match=r"plan.json' is damaged \(its fingerprint does not match its steps"):
        pipeline(tmp_path).run(LocalExecutor(workers=0), run_dir=str(run_dir), resume=True)
    kept = run_dir / "plans" / "0000.json"
    kept.write_text(change(kept.read_text()))
    with pytest.raises(RunRefused, match=r"plans/0000.json' is damaged \(its fingerprint does not match its steps"):
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
def test_a_changed_record_is_reported_as_damaged(
    run_dir: Path, tmp_path: Path, change: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    record = run_dir / "run.json"
    record.write_text(change(record.read_text()))
    for command in ("report", "verify"):
        assert run_command([command, str(run_dir)]) == 2, command
        said = capfd.readouterr().err
        assert f"{record}' is damaged (its fingerprint does not match its content)" in said
        assert "`curate rejects` reads them" in said
    with pytest.raises(RunRefused, match=r"run.json' is damaged \(its fingerprint does not match its content"):
        pipeline(tmp_path).run(LocalExecutor(workers=0), run_dir=str(run_dir), resume=True)
    assert run_command(["rejects", str(run_dir)]) == 0


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all values in a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield (*path, key)
        yield from places(item, (*path, key))


def changed(record: object, path: tuple[str | int, ...], value: object) -> str:
    """The record with this value in one place; without that place, where the value is ``...``."""
    twin = json.loads(json.dumps(record))
    holder = twin
    for key in path[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return json.dumps(twin)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run.json", "command.json"])
def test_a_record_without_a_fingerprint_is_checked_for_all_that_its_readers_need(
    run_dir: Path, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((run_dir / "run.json").read_text())
    record["outputs"] = {"Writer": {"folder": "nowhere", "files": 1}}
    if name == "command.json":
        record = {"file": str(tmp_path / "gone.yaml"), "settings": ["a=1"], "folder": "", "flags": {"retries": 2}}
    record.pop("fingerprint", None)  # as earlier versions wrote it, or as written by hand
    commands = ["report", "verify"] if name == "run.json" else ["retry"]
    refused = 0
    for path in places(record):
        for value in (..., None, "text", [1], {"a": []}):
            (run_dir / name).write_text(changed(record, path, value))
            for command in commands:
                code = run_command([command, str(run_dir)])
                said = capfd.readouterr().err
                assert code in (0, 1, 2), (path, value)
                assert "Traceback" not in said, (path, value)
                assert "should not have happened" not in said, (path, value)
                refused += f"{name}' is damaged (" in said
    assert refused > 8


def test_a_changed_command_is_detected_and_one_of_an_earlier_version_is_read(run_dir: Path) -> None:
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
