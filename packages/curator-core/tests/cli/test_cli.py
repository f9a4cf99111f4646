"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from curator_core import registry, storage
from curator_core.cli import BAD_USAGE, DONE, FAILED, INTERRUPTED, QUARANTINED, as_options, doctor, run_command
from curator_core.cli.init import template_names, template_text
from curator_core.config.dump import dump_pipeline
from curator_core.config.pipeline_file import load_pipeline
from curator_core.testing.waiting import wait_for

CURATE = [sys.executable, "-c", "from curator_core.cli import main; main()"]

STAGES = '''
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from curator_core import CompositeStage, DocumentBatch, EmptyTask, FanOut, FileGroupTask, FilePartitioning
from curator_core import LocalExecutor, Pipeline, ProcessingStage, UsageError
from curator_core.storage import join, open_input, write_atomic
from curator_core.testing.waiting import wait_for
from curator_core.workflow import Workflow


@dataclass
class Read(FanOut[FileGroupTask, DocumentBatch]):
    """A number in each line; other lines are rejected."""

    def outputs(self) -> list[str]:
        return ["n"]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        for path in task.data:
            with open_input(path) as file:
                lines = file.read().splitlines()
            self.record_read(len(lines))
            numbers = []
            for place, line in enumerate(lines, 1):
                if line.isdigit():
                    numbers.append(int(line))
                else:
                    self.record_rejected("no number", source=path, position=place, message="not digits", raw=line)
            yield DocumentBatch(data=pa.table({"n": pa.array(numbers, pa.int64())}))


@dataclass
class Check(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Raises for one number."""

    poison: int = -1
    fixed_by: str = ""

    def inputs(self) -> list[str]:
        return ["n"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self.poison in task.to_pyarrow()["n"].to_pylist() and not (self.fixed_by and Path(self.fixed_by).exists()):
            raise ValueError(f"{self.poison} is poison\\nfor people")
        return task


@dataclass
class Slow(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Works on a task until there is a file ``go``."""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        Path(f"started-{task.task_id}").touch()
        wait_for(Path("go").exists, "nobody has let it go on", seconds=60.0)
        return task


@dataclass
class Write(ProcessingStage[DocumentBatch, FileGroupTask]):
    path: str

    def inputs(self) -> list[str]:
        return ["n"]

    def output_folder(self) -> str:
        return self.path

    def process(self, task: DocumentBatch) -> FileGroupTask:
        place = join(self.path, f"{task.task_id}.txt")
        with write_atomic(place) as out:
            out.write("".join(f"{n}\\n" for n in task.to_pyarrow()["n"].to_pylist()).encode())
        record = out.record(rows=task.num_rows)
        self.record_output(record)
        return FileGroupTask(data=[place], records=[record])


@dataclass
class ReadChecked(CompositeStage[EmptyTask, DocumentBatch]):
    paths: str

    def decompose(self) -> list[ProcessingStage]:
        return [FilePartitioning(paths=self.paths), Read(), Check(), Check()]


@dataclass
class OneOf(Check):
    choice: str = field(kw_only=True)

    def __post_init__(self) -> None:
        raise UsageError("choice is not one of those that there are")


class Elsewhere(LocalExecutor):
    options = ("address",)


class Talkative(LocalExecutor):
    def set_verbose(self) -> None:
        print("the engine talks")


@dataclass
class Twice(Workflow):
    """Read and write, and then again from what was written."""

    paths: str
    path: str

    def steps(self, work_dir: str) -> Iterator[Pipeline]:
        between = join(work_dir, "between")
        first = [FilePartitioning(paths=self.paths), Read(), Write(path=between)]
        second = [FilePartitioning(paths=between, extensions=["txt"]), Read(), Write(path=self.path)]
        yield Pipeline(first, name="first")
        yield Pipeline(second, name="second")


@dataclass
class Filtered(Workflow):
    """What a stage keeps."""

    reader: ProcessingStage[Any, Any]
    keep: ProcessingStage[Any, Any] | None = None
    path: str = ""

    def steps(self, work_dir: str) -> Iterator[Pipeline]:
        yield Pipeline([self.reader, Read(), *([self.keep] if self.keep else []), Write(path=self.path)], name="all")
'''

PIPELINE = """
name: numbers
stages:
  - FilePartitioning: {paths: "in/*.txt"}
  - MODULE.Read
  - Where: {column: n, op: ">=", value: 10}
  - MODULE.Check: {}
  - MODULE.Write: {path: out/}
executor: {local: {workers: 0}}
run_dir: run
max_reject_fraction: 1
"""


@dataclass
class Project:
    """A folder with input, stages and a pipeline file, and `curate` run in it."""

    folder: Path
    module: str
    capsys: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def __call__(self, *arguments: str) -> int:
        code = run_command(arguments)
        self.out, self.err = self.capsys.readouterr()
        return code

    def written(self) -> list[int]:
        return sorted(int(line) for path in (self.folder / "out").glob("*.txt") for line in path.read_text().split())

    def edit(self, old: str, new: str) -> None:
        path = self.folder / "p.yaml"
        path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def curate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    # A name of its own, because a module is imported once.
    module = f"stages_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(STAGES)
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("MODULE", module))
    (tmp_path / "in").mkdir()
    for number in range(4):
        (tmp_path / "in" / f"f{number}.txt").write_text("\n".join(["9", f"1{number}", "x\x1b[31m", f"2{number}"]))
    return Project(tmp_path, module, capsys)


# Running


@pytest.mark.slow
def test_a_run_ends_with_a_table_and_a_report(curate: Project) -> None:
    assert curate("run", "p.yaml", "--quiet") == DONE
    assert curate.written() == [10, 11, 12, 13, 20, 21, 22, 23]
    assert curate.out.startswith("numbers: done in ")
    assert "4 sources, 25.0 % of its rows rejected (4 of 16), 4 files written (8 rows, " in curate.out
    table = {line.split()[0]: line.split()[1:] for line in curate.out.splitlines()[2:8]}
    assert table["Read"][:3] == ["16", "12", "4"]
    assert table["Where"][:3] == ["12", "8", "4"]
    assert "  not n >= 10" in curate.out
    assert "what was set aside: curate rejects" in curate.out
    assert f"report: {curate.folder}/run/report.html" in curate.out
    assert (curate.folder / "run/report.html").exists()
    assert not curate.err


def test_with_json_nothing_else_is_printed(curate: Project) -> None:
    assert curate("run", "p.yaml", "--json") == DONE
    summary = json.loads(curate.out)
    assert summary["state"] == "done"
    assert summary["exit_code"] == 0
    assert summary["rows_written"] == 8
    assert summary["run_dir"] == str(curate.folder / "run")
    assert curate("run", "p.yaml", "--json") == BAD_USAGE
    failure = json.loads(curate.out)
    assert failure["exit_code"] == 2
    assert "already holds a run" in failure["error"]
    assert "continue it with --resume, start over with --fresh" in failure["error"]


def test_flags_take_precedence_over_the_file(curate: Project) -> None:
    settings = ["--set", "Where.value=20", "--set", "Write.path=elsewhere"]
    assert curate("run", "p.yaml", "--run-dir", "other", "--limit", "2", "--workers", "0", *settings) == DONE
    assert len(list((curate.folder / "elsewhere").glob("*.txt"))) == 2
    assert (curate.folder / "other/run.json").exists()
    assert not (curate.folder / "run").exists()


@pytest.mark.slow
def test_an_engine_prints_messages_only_if_asked_to(curate: Project) -> None:
    curate.edit("local: {workers: 0}", f"{curate.module}:Talkative: {{workers: 0}}")
    assert curate("run", "p.yaml", "--quiet") == DONE
    assert "the engine talks" not in curate.out
    assert curate("run", "p.yaml", "--quiet", "--fresh", "-v") == DONE
    assert "the engine talks" in curate.out


def test_the_option_workers_is_refused_by_executors_without_it(curate: Project) -> None:
    assert curate("run", "p.yaml", "--executor", f"{curate.module}.Elsewhere", "--workers", "2") == BAD_USAGE
    assert "--workers does not apply to" in curate.err
    assert "num_workers: N" in curate.err


def test_without_a_run_directory_the_run_is_kept_under_its_name(curate: Project) -> None:
    curate.edit("run_dir: run", "")
    assert curate("run", "p.yaml", "--quiet") == DONE
    assert (curate.folder / "runs/numbers/run.json").exists()


@pytest.mark.slow
def test_a_second_run_is_refused_or_resumed_or_started_over(curate: Project) -> None:
    assert curate("run", "p.yaml") == DONE
    assert curate("run", "p.yaml") == BAD_USAGE
    assert "--resume" in curate.err
    assert "--fresh" in curate.err
    assert curate("run", "p.yaml", "--resume") == DONE
    assert "4 of them complete before" in curate.out
    assert curate("run", "p.yaml", "--resume", "--set", "Where.value=20") == BAD_USAGE
    assert "value was 10, is 20" in curate.err
    assert curate("run", "p.yaml", "--fresh", "--set", "Where.value=20") == DONE
    assert curate.written() == [20, 21, 22, 23]


@pytest.mark.slow
def test_only_changed_files_are_processed_again_in_a_resumed_run(curate: Project) -> None:
    curate.edit('"in/*.txt"', '"in/*.txt", files_per_partition: 2')
    assert curate("run", "p.yaml") == DONE
    (curate.folder / "in/f0a.txt").write_text("50\n51")  # between f0 and f1, which share a group
    assert curate("run", "p.yaml", "--resume", "--json") == DONE
    summary = json.loads(curate.out)
    assert (summary["sources"], summary["sources_skipped"]) == (3, 2)
    assert curate.written() == [10, 11, 12, 13, 20, 21, 22, 23, 50, 51]
    (curate.folder / "in/f3.txt").unlink()
    (curate.folder / "in/f0.txt").write_text("60")
    assert curate("run", "p.yaml", "--resume", "--json") == DONE
    summary = json.loads(curate.out)
    assert summary["inputs"]["changed"] == 1
    assert curate.written() == [11, 12, 21, 22, 50, 51, 60]
    assert curate("verify", "run") == DONE


def test_a_stage_that_raises_fails_the_run_and_the_message_says_how_to_resume(curate: Project) -> None:
    curate.edit("Check: {}", "Check: {poison: 22, fixed_by: fixed}")
    assert curate("run", "p.yaml") == FAILED
    assert "error: stage 'Check' failed on task 'f2-" in curate.err
    assert f", made of '{curate.folder}/in/f2.txt': " in curate.err
    assert "set the failing rows aside and keep the others: --resume --on-error quarantine" in curate.err
    assert "22 is poison" in curate.err
    assert curate.err.count("Traceback") == 1
    assert "cli/run.py" not in curate.err
    assert "continue with --resume" in curate.err
    assert "failed" in (curate.folder / "run/report.html").read_text()
    (curate.folder / "fixed").touch()
    assert curate("run", "p.yaml", "--resume") == DONE
    assert curate.written() == [10, 11, 12, 13, 20, 21, 22, 23]


@pytest.mark.slow
def test_quarantined_work_is_reported_by_the_exit_code_and_can_be_retried(curate: Project) -> None:
    curate.edit("Check: {}", "Check: {poison: 22, fixed_by: fixed}")
    assert curate("run", "p.yaml", "--on-error", "quarantine") == QUARANTINED
    assert "done, with work set aside" in curate.out
    assert curate.written() == [10, 11, 12, 13, 20, 21, 23]
    assert curate("rejects", "run") == DONE
    assert "1 quarantined by Check: " in curate.out
    assert "  ValueError: 22 is poison" in curate.out, "and not the last line of it"
    assert curate("retry", "run") == QUARANTINED
    (curate.folder / "fixed").touch()
    assert curate("retry", "run") == DONE
    assert "3 of them complete before" in curate.out
    assert curate.written() == [10, 11, 12, 13, 20, 21, 22, 23]
    assert curate("rejects", "run") == DONE
    assert "quarantined by" not in curate.out


@pytest.mark.slow
def test_a_run_that_failed_on_its_first_source_can_be_retried(curate: Project) -> None:
    curate.edit("Check: {}", "Check: {poison: 10, fixed_by: fixed}")
    assert curate("run", "p.yaml") == FAILED
    (curate.folder / "fixed").touch()
    assert curate("retry", "run") == DONE
    assert curate.written() == [10, 11, 12, 13, 20, 21, 22, 23]


@pytest.mark.slow
def test_a_retry_works_from_any_working_folder(curate: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    curate.edit("Check: {}", f"Check: {{poison: 22, fixed_by: {curate.folder}/fixed}}")
    assert curate("run", "p.yaml", "--on-error", "quarantine", "--set", "Write.path=there") == QUARANTINED
    (curate.folder / "fixed").touch()
    monkeypatch.chdir(curate.folder / "in")
    assert curate("retry", "../run") == DONE
    assert len(list((curate.folder / "there").glob("*.txt"))) == 4
    assert not (curate.folder / "in/there").exists()


def test_too_many_rejects_stop_the_run(curate: Project) -> None:
    (curate.folder / "in/f9.txt").write_text("x\n" * 200)
    assert curate("run", "p.yaml", "--max-error-fraction", "0.1") == FAILED
    assert "max_error_fraction=0.1" in curate.err


def test_rejects_show_the_place_of_a_row_and_cannot_control_the_terminal(curate: Project) -> None:
    assert curate("run", "p.yaml") == DONE
    assert curate("rejects", "run", "--examples", "2") == DONE
    lines = curate.out.splitlines()
    assert lines[0] == "4 rejected by Read: no number"
    assert len(lines) == 3
    assert f"{curate.folder}/in/f" in lines[1]
    assert ".txt:3  not digits  'x\\x1b[31m'" in lines[1]
    assert "\x1b" not in curate.out
    assert curate("rejects", "run", "--json", "--stage", "Read") == DONE
    rows = [json.loads(line) for line in curate.out.splitlines()]
    assert [row["position"] for row in rows] == ["3"] * 4
    assert curate("rejects", "run", "--reason", "other") == DONE
    assert curate.out == "nothing was set aside for that reason\n"


def test_files_without_any_readable_row_are_reported(curate: Project) -> None:
    for path in (curate.folder / "in").iterdir():
        path.write_bytes(b"\x00\x01\x02")
    assert curate("run", "p.yaml") == DONE
    assert "gave only rejects" in curate.out.splitlines()[1], "a warning stands at the top"
    assert curate("rejects", "run") == DONE
    assert ".txt:1  not digits  (3 bytes of binary data)\n" in curate.out


def test_verify_finds_changed_files(curate: Project) -> None:
    assert curate("run", "p.yaml") == DONE
    assert curate("verify", "run") == DONE
    assert curate.out == "4 files are as they were written\n"
    path = next((curate.folder / "out").glob("*.txt"))
    path.write_text(path.read_text().replace("1", "7"))
    assert curate("verify", "run") == FAILED
    assert path.name in curate.err


@pytest.mark.slow
def test_a_report_can_be_written_again(curate: Project) -> None:
    assert curate("run", "p.yaml") == DONE
    (curate.folder / "run/report.html").unlink()
    assert curate("report", "run") == DONE
    assert "numbers: done in" in curate.out
    assert (curate.folder / "run/report.html").exists()
    assert curate("report", "run", "--json") == DONE
    assert json.loads(curate.out) == json.loads((curate.folder / "run/report.json").read_text())
    stages = json.loads(curate.out)["stages"]
    assert (stages[0]["rows_in"], stages[-1]["rows_out"]) == (16, len(curate.written()))


@pytest.mark.parametrize("command", ["report", "rejects", "verify"])
def test_a_folder_without_a_run_is_one_clear_error(curate: Project, command: str) -> None:
    assert curate(command, "in") == BAD_USAGE
    assert "'in' holds no run" in curate.err
    assert curate(command, "nowhere") == BAD_USAGE
    assert "nowhere" in curate.err


@pytest.mark.slow
def test_input_output_and_the_run_itself_may_be_in_an_object_store(curate: Project, s3_bucket: str) -> None:
    place = f"{s3_bucket}/{curate.module}"
    for path in (curate.folder / "in").iterdir():
        storage.write_bytes_atomic(f"{place}/in/{path.name}", path.read_bytes())
    for text in ("in/*.txt", "out/"):
        curate.edit(text, f"{place}/{text}")
    curate.edit("run_dir: run", f"run_dir: {place}/run")
    assert curate("run", "p.yaml", "--workers", "2", "--quiet") == DONE
    outputs = storage.list_files(f"{place}/out")
    assert sorted(n for path in outputs if path.endswith(".txt") for n in storage.read_bytes(path).split()) == [
        b"%d" % n for n in (10, 11, 12, 13, 20, 21, 22, 23)
    ]
    assert curate("run", "p.yaml", "--resume") == DONE
    assert "4 of them complete before" in curate.out
    assert curate("verify", f"{place}/run") == DONE
    assert curate("rejects", f"{place}/run") == DONE
    assert curate.out.startswith("4 rejected by Read: no number")
    assert b"numbers" in storage.read_bytes(f"{place}/run/report.html")
    assert not (curate.folder / "run").exists()


@pytest.mark.slow
def test_a_workflow_runs_its_pipelines_and_resumes_where_it_stopped(curate: Project) -> None:
    text = (
        f"workflow: {{{curate.module}.Twice: {{paths: 'in/*.txt', path: out/}}}}\nexecutor: {{local: {{workers: 0}}}}\n"
        "max_reject_fraction: 1\n"
    )
    (curate.folder / "w.yaml").write_text(text)
    assert curate("plan", "w.yaml") == DONE
    assert curate.out.startswith("w: 2 steps on this machine")
    assert "\n  Twice(paths=" in curate.out
    assert "step 1  first" in curate.out
    assert "step 2  second\n  reads " in curate.out
    assert "which step 'first' leaves" in curate.out
    assert curate("run", "w.yaml", "--run-dir", "both", "--json") == DONE
    summary = json.loads(curate.out)
    assert [step["name"] for step in summary["steps"]] == ["first", "second"]
    assert [step["rows_out"] for step in summary["steps"]] == [12, 12]
    assert len(curate.written()) == 12
    assert curate("run", "w.yaml", "--run-dir", "both", "--resume") == DONE
    assert curate.out.count("4 of them complete before") == 1
    assert "1 first   complete before        4" in curate.out
    assert curate("retry", "both") == DONE
    assert curate.out.count("complete before        4") == 2
    assert curate("verify", "both") == DONE
    assert curate.out == "8 files are as they were written\n"
    assert curate("rejects", "both") == DONE
    assert curate.out.startswith("4 rejected by Read of step 'first': no number")
    assert curate("rejects", "both", "--json") == DONE
    assert all(json.loads(line)["steps"] == ["first"] for line in curate.out.splitlines())
    assert curate("report", "both") == DONE
    page = (curate.folder / "both" / "report.html").read_text()
    assert '<a href="steps/01-first/report.html">first</a>' in page
    assert (curate.folder / "both" / "steps" / "01-first" / "report.html").exists()
    text = text.replace("path: out/", "pth: out/")
    (curate.folder / "w.yaml").write_text(text)
    assert curate("plan", "w.yaml") == BAD_USAGE
    assert "w.yaml:1: " in curate.err
    assert "Twice has no parameter 'pth'; did you mean 'path'" in curate.err


STEPS = """
workflow:
  - stages:
      - FilePartitioning: {paths: "in/*.txt"}
      - MODULE.Read
      - MODULE.Write: {path: between/}
  - name: inner
    workflow:
      - MODULE.Twice: {paths: "between/*.txt", path: again/}
        name: twice
  - stages:
      - FilePartitioning: {paths: again/, extensions: [txt]}
      - MODULE.Read
      - Where: {column: n, op: ">=", value: 10}
      - MODULE.Write: {path: out/}
    name: last
executor: {local: {workers: 0}}
max_reject_fraction: 1
"""


@pytest.mark.slow
def test_a_list_of_steps_is_a_workflow(curate: Project) -> None:
    (curate.folder / "steps.yaml").write_text(STEPS.replace("MODULE", curate.module))
    assert curate("plan", "steps.yaml", "--set", "Where.value=20") == DONE
    assert curate.out.startswith("steps: 3 steps on this machine")
    for line in ("step 1  step-1", "step 2  inner", "step 2.1  twice", "step 2.1.2  second", "step 3  last"):
        assert line in curate.out
    assert f"reads '{curate.folder}/between/', which step 'step-1' leaves" in curate.out
    assert curate("plan", "steps.yaml", "--json") == DONE
    plan = json.loads(curate.out)
    assert [step["name"] for step in plan["steps"]] == ["step-1", "inner", "last"]
    assert plan["steps"][2]["takes"] == [["second", f"{curate.folder}/again/"]]
    assert curate("run", "steps.yaml", "--set", "Where.value=20") == DONE
    assert sorted(curate.written()) == [20, 21, 22, 23]
    assert curate("run", "steps.yaml", "--set", "Where.value=20", "--resume") == DONE
    assert "2.1.2 second" in curate.out
    assert curate("verify", "runs/steps") == DONE
    assert curate("report", "runs/steps", "--json") == DONE
    assert json.loads(curate.out)["state"] == "done"


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("name: last", "nam: last", "steps.yaml:15: a step has `stages:` and `name:`, and no 'nam'"),
        ("name: last", "name: step-1", "steps 1 and 3 are both called 'step-1'"),
        ("name: last", "name: a/b", "steps.yaml:15: the name of a step is a text without a slash, not 'a/b'"),
        ("path: again/}", "pth: again/}", "steps.yaml:8: MODULE.Twice has no parameter 'pth'; did you mean 'path'"),
        ("Where:", "Wher:", "steps.yaml:13: there is no stage 'Wher'"),
        ("MODULE.Twice", "Where", "steps.yaml:8: 'Where' is a stage, not a workflow"),
        ("path: out/", "path: in/", "step 'last' writes to"),
    ],
)
def test_an_error_in_a_step_is_reported_with_its_line(curate: Project, old: str, new: str, wanted: str) -> None:
    text = STEPS.replace(old, new, 1).replace('"in/*.txt"', "in/").replace("MODULE", curate.module).lstrip()
    (curate.folder / "steps.yaml").write_text(text)
    assert curate("run", "steps.yaml") == BAD_USAGE
    assert wanted.replace("MODULE", curate.module) in curate.err
    assert not (curate.folder / "between").exists()


@pytest.mark.slow
def test_a_parameter_of_a_workflow_may_be_a_stage(curate: Project) -> None:
    text = """
workflow:
  MODULE.Filtered:
    reader: {FilePartitioning: {paths: "in/*.txt"}}
    keep: {Where: {column: n, op: ">=", value: 20}, with: {batch_size: 2}}
    path: out/
executor: {local: {workers: 0}}
max_reject_fraction: 1
""".replace("MODULE", curate.module).lstrip()
    (curate.folder / "f.yaml").write_text(text)
    assert curate("plan", "f.yaml") == DONE
    assert f"FilePartitioning(paths='{curate.folder}/in/*.txt')" in curate.out
    assert curate("run", "f.yaml") == DONE
    assert sorted(curate.written()) == [20, 21, 22, 23]
    assert curate("plan", "f.yaml", "--set", "Where.value=30") == DONE
    assert "Where(column='n', op='>=', value=30)" in curate.out
    workflow = load_pipeline("f.yaml").workflow
    assert workflow is not None
    dumped = dump_pipeline(workflow)
    (curate.folder / "g.yaml").write_text(dumped)
    again = load_pipeline("g.yaml").workflow
    assert again is not None
    assert again.params() == workflow.params()
    for old, new, wanted in (
        ("{paths:", "{pahs:", "f.yaml:3: FilePartitioning has no parameter 'pahs'"),
        ("batch_size", "batch_siz", "f.yaml:4: with takes no 'batch_siz'; did you mean 'batch_size'"),
        ("{Where: {", "{Wher: {", "f.yaml:4: there is no stage 'Wher'"),
        ('reader: {FilePartitioning: {paths: "in/*.txt"}}', "reader: 3", "f.yaml:3: MODULE.Filtered.reader is a stage"),
    ):
        (curate.folder / "f.yaml").write_text(text.replace(old, new))
        assert curate("plan", "f.yaml") == BAD_USAGE
        assert wanted.replace("MODULE", curate.module) in curate.err


def test_curate_stages_explains_a_workflow(curate: Project) -> None:
    assert curate("stages", f"{curate.module}.Twice") == DONE
    assert "Kind       a workflow: several pipelines as one" in curate.out
    assert "Step       first: FilePartitioning, Read, Write" in curate.out
    assert "  paths  str, required" in curate.out
    assert curate("stages", f"{curate.module}.Filtered", "--json") == DONE
    assert json.loads(curate.out)["parameters"][1]["type"] == "a stage or None"


# Bad input


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("FilePartitioning", "FilePartitionin", "p.yaml:4: there is no stage 'FilePartitionin'; did you mean"),
        ("in/*.txt", "in/*.text", "no file matches"),
        ("in/*.txt", "nothing/*.txt", "there is no folder"),
        ("column: n", "column: m", "stage 'Where' reads column 'm', which no stage before it produces"),
        ("local:", "ray_dat:", "no executor 'ray_dat'"),
        ("workers: 0", "workrs: 0", "no option 'workrs'; did you mean 'workers'"),
        ("name: numbers", "name: ../numbers", "p.yaml:2: name must have no slash"),
        ("name: numbers", "nme: numbers", "p.yaml:2: unknown key 'nme'; did you mean 'name'"),
    ],
)
def test_errors_are_reported_before_anything_runs(curate: Project, old: str, new: str, wanted: str) -> None:
    curate.edit(old, new)
    assert curate("run", "p.yaml") == BAD_USAGE
    assert wanted in curate.err
    assert "Traceback" not in curate.err
    assert not (curate.folder / "out").exists()
    curate.edit(new, old)
    assert curate("run", "p.yaml") == DONE, "what was refused is not in the way of what was meant"


def test_an_output_folder_that_cannot_be_written_is_one_clear_error(curate: Project) -> None:
    (curate.folder / "out").write_text("a file is in the way")
    assert curate("run", "p.yaml") == FAILED
    assert "a part of the path is a file" in curate.err
    assert "Traceback" not in curate.err


def test_an_unreadable_input_is_one_clear_error(curate: Project) -> None:
    (curate.folder / "in/f1.txt").unlink()
    (curate.folder / "in/f1.txt").symlink_to(curate.folder / "in/f1.txt")
    code = curate("run", "p.yaml")
    assert code in (FAILED, BAD_USAGE)
    assert "f1.txt" in curate.err
    assert "Traceback" not in curate.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["ruin"], "no command 'ruin'; did you mean 'run'"),
        (["run"], "Missing argument 'FILE'"),
        (["run", "p.yaml", "--reume"], "--resume"),
        (["run", "none.yaml"], "no such file or folder"),
        (["run", "p.yaml", "--workers", "-1"], "--workers"),
        (["run", "p.yaml", "--resume", "--fresh"], "choose one"),
        (["run", "p.yaml", "--set", "Where"], "--set takes stage.parameter=value"),
        (["stages", "Sampel"], "no stage 'Sampel'; did you mean 'Sample'"),
        (["init", "txt"], "no template 'txt'; did you mean 'text'"),
        (["retry", "in"], "'in' holds no run: there is no run.json"),
        (["run", "p.yaml", "--run-dir", "p.yaml"], "a folder is needed; or choose another run directory"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_hint(curate: Project, arguments: list[str], wanted: str) -> None:
    assert curate(*arguments) == BAD_USAGE
    assert wanted in curate.err


# Looking


def test_the_plan_is_shown_and_nothing_runs(curate: Project) -> None:
    assert curate("plan", "p.yaml") == DONE
    assert "numbers: 5 stages on " in curate.out
    assert "fused Where + Check + Write" in curate.out
    assert curate("plan", "p.yaml", "--json", "--set", "Where.value=5") == DONE
    plan = json.loads(curate.out)
    assert [stage["name"] for stage in plan["stages"]] == ["FilePartitioning", "Read", "Where", "Check", "Write"]
    assert plan["stages"][2]["params"]["value"] == 5
    assert sorted(path.name for path in curate.folder.iterdir() if path.name != "__pycache__") == sorted(
        ["in", "p.yaml", f"{curate.module}.py"]
    )


def test_stages_are_listed_and_explained(curate: Project) -> None:
    assert curate("stages") == DONE
    assert "curator-core\n  AddId\n" in curate.out
    assert curate("stages", "Sample") == DONE
    assert "  fraction  float, required" in curate.out
    assert "  seed      int, default 0" in curate.out
    assert curate("stages", "AddId", "--json") == DONE
    facts = json.loads(curate.out)
    assert (facts["reads"], facts["adds"]) == (["text"], ["id"])
    assert curate("stages", "DropColumns") == DONE
    assert "Reads      <columns>\nRemoves    <columns>" in curate.out, "its parameter has no default"
    assert curate("stages", f"{curate.module}.ReadChecked") == DONE
    assert "EmptyTask in, DocumentBatch out\nAdds       n\nStands for FilePartitioning, Read, Check (x2)" in curate.out
    assert curate("stages", f"{curate.module}.OneOf") == DONE
    assert "Columns    depend on its parameters" in curate.out
    assert curate("stages", "--json") == DONE
    listed = {stage["name"]: stage["package"] for stage in json.loads(curate.out)}
    assert listed["Limit"] == "curator-core"


@pytest.mark.slow
def test_every_registered_stage_can_be_explained(curate: Project) -> None:
    for name, owners in registry.entries(registry.STAGES).items():
        if owners[0].owner == "curator-core":
            assert curate("stages", name) == DONE
            assert name in curate.out


def test_the_doctor_shows_what_is_installed_and_how_to_get_the_rest(curate: Project) -> None:
    assert curate("doctor") == DONE
    assert f"Python {sys.version.split()[0]}" in curate.out
    assert "curator-core" in curate.out
    assert curate("doctor", "--json") == DONE
    facts = json.loads(curate.out)
    assert facts["packages"]["curator-core"]
    assert facts["machine"]["cpus"] >= 1
    for name, version in facts["packages"].items():
        assert version or name != "curator-core"
    for extras in facts["extras"].values():
        assert all(isinstance(missing, list) for missing in extras.values())


def test_the_doctor_resolves_extras_that_consist_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "tower-1.0.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", "Name: tower", "Version: 1.0", "Provides-Extra: all", "Provides-Extra: top"]
    lines += ["Requires-Dist: pyarrow>=1; extra == 'top'", "Requires-Dist: not-installed-anywhere>=2 ; extra == 'top'"]
    lines += ["Requires-Dist: tower[all,top]; extra == 'all'"]
    (info / "METADATA").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor._extras("tower") == {"all": ["not-installed-anywhere"], "top": ["not-installed-anywhere"]}
    assert doctor._fits("0.1.3", ">=0.1,<0.2")
    assert not doctor._fits("0.2.0", ">=0.1,<0.2")
    assert not doctor._fits("0.0.9", ">=0.1")


def test_the_doctor_finds_clashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, curate: Project) -> None:
    info = tmp_path / "rival-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[curator.stages]\nSample = rival:Sample\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert curate("doctor") == FAILED
    assert "'Sample' is registered by" in curate.out
    assert curate("stages") == DONE
    assert "also in" in curate.out


# Templates


def test_a_template_is_printed_or_written_and_never_overwrites(curate: Project) -> None:
    assert curate("init", "--list") == DONE
    assert [line.split()[0] for line in curate.out.splitlines()] == template_names()
    assert curate("init", "custom") == DONE
    assert curate.out == template_text("custom")
    assert curate("init", "custom", "-o", "new.yaml") == DONE
    assert (curate.folder / "new.yaml").read_text() == template_text("custom")
    assert curate("init", "custom", "-o", "p.yaml") == BAD_USAGE
    assert "exists and was not changed" in curate.err


def test_the_template_for_your_own_stages_runs_as_its_comments_say(curate: Project) -> None:
    text = template_text("custom")
    code = [line[6:] for line in text.splitlines() if line.startswith("#     ") or line == "#"]
    (curate.folder / "my_stages.py").write_text("\n".join(code))
    (curate.folder / "custom.yaml").write_text(text)
    (curate.folder / "in/long.txt").write_text("a line of more than twenty characters\nshort\n")
    assert curate("run", "custom.yaml", "--workers", "0", "--json") == DONE
    stages = {stage["name"]: stage for stage in json.loads(curate.out)["stages"]}
    assert stages["ReadLines"]["rows_in"] == 18
    assert stages["AddId"]["rows_out"] == 1


@pytest.mark.parametrize("name", template_names())
def test_every_template_is_a_valid_pipeline_file_if_its_stages_are_installed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = template_text(name)
    needs = [line.removeprefix("# Needs: pip install ") for line in text.splitlines() if line.startswith("# Needs: ")]
    owners = {entry.owner for found in registry.entries(registry.STAGES).values() for entry in found}
    for package in needs:
        if package.partition("[")[0] not in owners:
            pytest.skip(f"needs the stages of {package}")
    if name == "custom":
        pytest.skip("its stages are in its comments; another test runs them")
    (tmp_path / "t.yaml").write_text(text)
    file = load_pipeline(tmp_path / "t.yaml")
    assert file.pipeline().plan().stages


# As a process


@pytest.mark.slow
def test_help_takes_less_than_half_a_second_of_a_core_and_loads_nothing_big() -> None:
    code = (
        "import sys, time; t = time.process_time()\nfrom curator_core.cli import run_command\n"
        "assert run_command(['--help']) == 0\n"
        "assert not {'pyarrow', 'pydantic', 'pandas', 'rich', 'yaml', 'numpy'} & set(sys.modules), sys.modules\n"
        "print(time.process_time() - t, file=sys.stderr)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert min(float(done.stderr) for done in runs) < 0.5
    for command in ("run", "plan", "stages", "init", "doctor", "report", "rejects", "retry", "verify"):
        assert f"\n  {command} " in runs[0].stdout
    assert "Exit codes: 0 done; 1 failed; 2 wrong usage" in " ".join(runs[0].stdout.split())


@pytest.mark.parametrize("command", ["run", "plan", "stages", "init", "doctor", "report", "rejects", "retry", "verify"])
def test_every_command_has_help(curate: Project, command: str) -> None:
    assert curate(command, "--help") == DONE
    assert "Usage: curate" in curate.out


def test_it_is_no_error_if_the_reader_of_the_output_ends_early() -> None:
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$@" stages --json | head -c 1', "bash", *CURATE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "workers"),
    [
        (signal.SIGINT, 1),
        (signal.SIGTERM, 0),
        # `make test` has each signal and each number of workers once.
        pytest.param(signal.SIGINT, 0, marks=pytest.mark.thorough),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.thorough),
    ],
)
def test_an_interrupted_run_ends_promptly_leaves_no_process_and_can_be_resumed(
    curate: Project, name: signal.Signals, workers: int, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    curate.edit(
        "  - MODULE.Check".replace("MODULE", curate.module),
        f"  - {curate.module}.Slow\n  - {curate.module}.Check",
    )
    command = [*CURATE, "run", "p.yaml", "--executor", "local", "--workers", str(workers), "--set", "Check.poison=-2"]
    process = spawn(command, cwd=curate.folder, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: any(curate.folder.glob("started-*")) or has_ended(process), "no task has begun")
    os.kill(process.pid, name)
    _, err = process.communicate(timeout=50)  # less than the minute that its task would wait
    assert process.returncode == INTERRUPTED, err
    go_on = f"curate run p.yaml --set Check.poison=-2 --run-dir {curate.folder}/run --executor local --resume"
    assert f"interrupted; resume with: {go_on}" in err
    assert "Traceback" not in err
    wait_for(lambda: not alive_in_group(process.pid), "processes of the run are left")
    assert not list((curate.folder / "out").glob("**/*"))
    assert curate("report", "run") == DONE
    assert "numbers: failed in" in curate.out
    assert "problem: interrupted before it was done\ncomplete work is kept: continue with --resume" in curate.out
    (curate.folder / "go").touch()
    assert curate("run", "p.yaml", "--resume", "--allow-changed") == DONE
    assert curate.written() == [10, 11, 12, 13, 20, 21, 22, 23]


def has_ended(process: subprocess.Popen[str]) -> bool:
    """False while the process runs; when it has ended, an error with what it has printed."""
    if process.poll() is not None:
        raise AssertionError(process.communicate())
    return False


def alive_in_group(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "continue it with resume=True (--resume), start over with fresh=True (--fresh)",
            "continue it with --resume, start over with --fresh",
        ),
        ("begin again (fresh=True, --fresh)", "begin again (--fresh)"),
        ("continue with --resume (resume=True) and the same run_dir", "continue with --resume and the same run_dir"),
        ("or only compare (index_add=False)", "or only compare (index_add=False)"),
    ],
)
def test_a_message_names_only_the_options_of_the_command_line(message: str, shown: str) -> None:
    assert as_options(message) == shown
