"""``curate run`` and ``curate retry``."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curator_core.cli import FAILED, INTERRUPTED, as_options, exit_code_of, show_error
from curator_core.errors import CuratorError, StageError, TooManyErrors, UsageError
from curator_core.upkeep import without_collection

if TYPE_CHECKING:
    from curator_core.config.pipeline_file import PipelineFile
    from curator_core.executors.base import BaseExecutor
    from curator_core.running.progress import RunProgress

_COMMAND_FILE = "command.json"


@click.command("run", short_help="Run a pipeline file.")
@click.argument("file", type=click.Path())
@click.option("--executor", metavar="NAME", help="local, ray_data, xenna, or another one that is installed.")
@click.option(
    "--workers", type=click.IntRange(min=0), help="Worker processes; 0 runs in this process. [default: all cores]"
)
@click.option(
    "--run-dir", metavar="DIR", help="Where the run keeps its ledger, rejects and report. [default: runs/NAME]"
)
@click.option("--set", "settings", multiple=True, metavar="STAGE.PARAM=VALUE", help="Another value for a parameter.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N sources.")
@click.option("--dropped", metavar="DIR", help="Write the rows that stages drop to this folder, with the reason.")
@click.option(
    "--seen/--no-seen", default=None, help="Keep samples and histograms in the run directory. [default: seen]"
)
@click.option("--resume", is_flag=True, help="Continue the run in the run directory.")
@click.option("--fresh", is_flag=True, help="Discard the run in the run directory and start over.")
@click.option("--allow-changed", is_flag=True, help="Resume even if the stages have changed.")
@click.option(
    "--on-error",
    type=click.Choice(["fail", "quarantine"]),
    help="What to do if a stage raises an error. [default: fail]",
)
@click.option("--retries", type=click.IntRange(min=0), help="How often to retry a failing stage first. [default: 0]")
@click.option(
    "--max-error-fraction", type=click.FloatRange(0, 1), help="Stop if a larger share of the rows is set aside."
)
@click.option(
    "--max-reject-fraction",
    type=click.FloatRange(0, 1),
    help="Exit with code 3 if a larger share of a source's rows is rejected. [default: 0.05]",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Lowest level of stages' log messages to keep in log.txt. [default: warning]",
)
@click.option("--metrics-file", metavar="FILE.prom", help="Write the numbers of the run to a file for Prometheus.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Serve the numbers at 127.0.0.1:PORT/metrics.")
@click.option(
    "--spans", is_flag=True, default=None, help="Write OpenTelemetry spans of the run, its steps and its stages."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("-v", "--verbose", is_flag=True, help="Show the engine's own messages.")
def run_command(file: str, settings: tuple[str, ...], as_json: bool, quiet: bool, **flags: Any) -> int:
    """Run the pipeline in FILE.

    Options take precedence over the file. Paths in the file are relative to the file, paths in options to the working
    folder.

    Exit codes: 0 done; 1 failed; 2 wrong usage or a wrong file, nothing has run; 3 finished, but with work set aside;
    130 interrupted. Continue a run that failed or was interrupted with --resume.
    """
    return _run_file(file, settings, os.getcwd(), as_json, quiet, flags)  # noqa: PTH109 - paths are text here


@click.command("retry", short_help="Run the sources with quarantined work again.")
@click.argument("run_dir", type=click.Path())
@click.option("--allow-changed", is_flag=True, help="Retry even if the stages have changed, for example after a fix.")
@click.option("--workers", type=click.IntRange(min=0), help="Worker processes; 0 runs in this process.")
@click.option(
    "--on-error", type=click.Choice(["fail", "quarantine"]), help="What to do if a stage raises an error again."
)
@click.option("--retries", type=click.IntRange(min=0), help="How often to retry a failing stage first.")
@click.option(
    "--max-error-fraction", type=click.FloatRange(0, 1), help="Stop if a larger share of the rows is set aside."
)
@click.option(
    "--max-reject-fraction",
    type=click.FloatRange(0, 1),
    help="Exit with code 3 if a larger share of a source's rows is rejected. [default: 0.05]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def retry_command(run_dir: str, as_json: bool, quiet: bool, **flags: Any) -> int:
    """Run again the sources of RUN_DIR that have quarantined work, after a fix.

    It uses the pipeline file and the options that the run was started with. Files that these sources wrote before are
    replaced.
    """
    from curator_core.running.directory import RunDirectory  # imports pyarrow

    command = RunDirectory(run_dir).read_json(_COMMAND_FILE)
    if command is None:
        if RunDirectory(run_dir).read_json("run.json") is None:
            raise UsageError(f"{run_dir!r} holds no run: there is no run.json")
        raise UsageError(f"{run_dir!r} was not made by `curate run`: retry it where it was started, with retry=True")
    if "arguments" in command:
        again = _resume_line(command["arguments"], run_dir, command["flags"], "--retry")
        raise UsageError(f"{run_dir!r} was not made from a pipeline file; run the missing work by: {again}")
    flags = {**command["flags"], **{key: value for key, value in flags.items() if value is not None}}
    flags |= {"run_dir": run_dir, "retry": True, "resume": False, "fresh": False}
    return _run_file(command["file"], tuple(command["settings"]), command["folder"], as_json, quiet, flags)


def _run_file(
    path: str, settings: tuple[str, ...], folder: str, as_json: bool, quiet: bool, flags: dict[str, Any]
) -> int:
    with without_collection():
        from curator_core import storage  # these import pyarrow
        from curator_core.config.pipeline_file import load_pipeline

    def load() -> PipelineFile:
        with without_collection():  # it imports the stages
            return load_pipeline(path, settings, settings_folder=folder)

    command = {"file": storage.absolute(path), "settings": list(settings), "folder": folder}
    return run_and_report(load, ["run", path, *_set(settings)], command, as_json=as_json, quiet=quiet, flags=flags)


def run_and_report(
    load: Callable[[], PipelineFile],
    words: Sequence[str],
    command: Mapping[str, Any],
    *,
    as_json: bool,
    quiet: bool,
    flags: dict[str, Any],
    after: Callable[[str], None] | None = None,
    executor: str | None = None,
    inputs: Sequence[str] = (),
) -> int:
    """Load the pipeline or workflow, run it, and show the outcome; return the exit code.

    ``words`` are the user's command, and ``command`` is the part that a retry needs. ``after`` gets the run directory
    of a run that succeeded and prints more about it. ``executor`` is given if no file can name another executor, so
    that its workers start while the rest is loaded. ``inputs`` are paths that must exist.
    """
    run_dir: str | None = flags.get("run_dir")
    try:
        with contextlib.ExitStack() as held:
            held.enter_context(_terminable())
            ahead = None
            if executor is not None:
                from curator_core.config.build import load_executor

                ahead = load_executor(executor)(config=_workers(executor, flags))
                if not _is_refused(run_dir, flags, inputs):
                    _get_ready(ahead, held)
            file = load()
            run_dir = flags["run_dir"] = run_dir or file.run_dir or f"runs/{file.name}"
            if ahead is None:
                chosen = flags.get("executor") or file.executor
                ahead = file.make_executor(chosen, **_workers(chosen, flags))
                if not _is_refused(run_dir, flags):
                    _get_ready(ahead, held)
            summary, place = _carry_out(file, ahead, command, quiet, flags)
    except CuratorError as error:
        if as_json:
            failure = {
                "state": "failed",
                "error": as_options(str(error)),
                "exit_code": exit_code_of(error),
                "run_dir": run_dir,
            }
            click.echo(json.dumps(failure, indent=1))
        show_error(error)
        _after_failure(run_dir, error)
        return exit_code_of(error)
    except KeyboardInterrupt:
        click.echo(f"interrupted; resume with: {_resume_line(words, run_dir, flags)}", err=True)
        return INTERRUPTED
    except Exception as error:
        # The error is unexpected, so its traceback is the best explanation.
        traceback.print_exc()
        click.echo(f"this should not have happened; resume with: {_resume_line(words, run_dir, flags)}", err=True)
        if as_json:
            click.echo(json.dumps({"state": "failed", "error": repr(error), "exit_code": FAILED, "run_dir": run_dir}))
        return FAILED
    code = _report(summary, place, as_json)
    if after is not None and not as_json:
        after(place)
    return code


def _workers(chosen: str, flags: Mapping[str, Any]) -> dict[str, int]:
    """The option of the executor of this name that ``--workers`` sets."""
    if flags.get("workers") is None:
        return {}
    from curator_core.config.build import load_executor

    if "workers" not in load_executor(chosen).options:
        raise UsageError(
            f"--workers does not apply to {chosen}, which starts as many workers as the machine has room for; set "
            f"the number "
            "for one stage in the file: with: {num_workers: N}"
        )
    return {"workers": flags["workers"]}


def _is_refused(run_dir: str | None, flags: Mapping[str, Any], inputs: Sequence[str] = ()) -> bool:
    """Whether local files already show that the run will be refused, so that no worker starts for it: the run directory
    holds a run, or an input is missing. Other reasons to refuse it are found later.
    """
    continues = any(flags.get(name) for name in ("resume", "fresh", "retry"))
    if run_dir is not None and not continues and Path(run_dir, "run.json").exists():
        return True
    return any(not (Path(path).exists() or set(path) & set("*?[{:")) for path in inputs)


def _get_ready(executor: BaseExecutor, held: contextlib.ExitStack) -> None:
    """If opening the executor takes no time, open it, so that its workers begin to import modules."""
    if executor.opens_at_once:
        executor.open()
        held.callback(executor.close)
        executor.get_ready()


def _carry_out(
    file: PipelineFile, executor: BaseExecutor, command: Mapping[str, Any], quiet: bool, flags: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Run the pipeline or the workflow; return the summary and the run directory."""
    from curator_core.cli.progress import ProgressDisplay
    from curator_core.running.directory import RunDirectory

    run_dir = flags["run_dir"]
    if flags.get("verbose"):
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        executor.set_verbose()
    options = {**file.options, **{key: flags[key] for key in _OPTIONS if flags.get(key) is not None}}
    metrics = {key: flags[flag] for flag, key in _METRICS.items() if flags.get(flag) is not None}
    if metrics:
        given = options.get("metrics")
        options["metrics"] = {**(given if isinstance(given, dict) else {}), **metrics}
    kept = {key: value for key, value in flags.items() if key in _KEPT}
    command = {**command, "flags": kept}
    with ProgressDisplay(quiet=quiet) as display:
        begun = False

        def progress(state: RunProgress) -> None:
            nonlocal begun
            if not begun and state.state not in ("starting", "failed"):
                # The run has begun, so this process owns the run directory.
                begun = True
                RunDirectory(run_dir).write_json(_COMMAND_FILE, command)
            display(state)

        work = file.workflow or file.pipeline()
        result = work.run(executor, run_dir=run_dir, progress=progress, **options)
    return result.summary.as_dict(), result.run_dir or run_dir


# The start of processes does not matter in a shorter run, which gets no hint.
_SLOW_SECONDS = 2.0
_LIMITS = ("on_error", "retries", "max_error_fraction", "max_reject_fraction", "limit", "dropped", "seen", "log_level")
_OPTIONS = ("resume", "fresh", "allow_changed", "retry", *_LIMITS)
_METRICS = {"metrics_file": "file", "metrics_port": "port", "spans": "spans"}
# The options that a retry of the run uses again.
_KEPT = ("executor", "workers", *_LIMITS)


def _report(summary: dict[str, Any], place: str, as_json: bool) -> int:
    from curator_core.cli.summary import summary_text  # see _run
    from curator_core.model.bytecode import bytecode_hint
    from curator_core.running.directory import RunDirectory
    from curator_core.running.steps import counting_folder

    code = int(summary["exit_code"])
    if as_json:
        click.echo(json.dumps({**summary, "run_dir": place}, indent=1))
        return code
    click.echo(summary_text(summary))
    if summary["seconds"] >= _SLOW_SECONDS and (hint := bytecode_hint()):
        click.echo(f"slow start: {hint}")
    click.echo(f"report: {place}/report.html")
    # If no rows were left, the writer has written no file, but the record still names it.
    if summary["results"] and not summary["files"] and not RunDirectory(place).read_json("run.json").get("outputs"):
        what, kind = ("the workflow", "Workflow") if summary["steps"] else ("the pipeline", "Pipeline")
        click.echo(
            f"nothing was written: {what} has no writer. {summary['results']:,} results are kept in "
            f"{counting_folder(place) or place}/results for {kind}.run(…, resume=True) in Python; for files, end {what} with "
            "a writer"
        )
    set_aside = sum(stage["quarantined"] + sum(stage["rejected"].values()) for stage in summary["stages"])
    if set_aside:
        click.echo(f"what was set aside: curate rejects {place}")
    return code


def _after_failure(run_dir: str | None, error: CuratorError) -> None:
    """Write a report on the progress of the run and say how to continue; do nothing if the run never began."""
    if run_dir is None or exit_code_of(error) != FAILED:
        return
    from curator_core.running.directory import RunDirectory
    from curator_core.running.report import write_report  # see _run
    from curator_core.running.steps import step_folders

    with contextlib.suppress(CuratorError):  # if the disk failed, the error that is shown already says so
        if not RunDirectory(run_dir).exists():
            return
        write_report(run_dir)
    if not isinstance(error, TooManyErrors):  # this one names the ways out
        click.echo(f"complete work is kept in {run_dir}: fix the cause, and continue with --resume", err=True)
    # A later step of a workflow may read the same rows again, and would refuse to work without those that failed.
    if isinstance(error, StageError) and error.task_id is not None and not step_folders(run_dir):
        click.echo("or set the failing rows aside and keep the others: --resume --on-error quarantine", err=True)


def _resume_line(words: Sequence[str], run_dir: str | None, flags: Mapping[str, Any], how: str = "--resume") -> str:
    given = [("run-dir", run_dir), ("executor", flags.get("executor"))]
    more = [word for name, value in given if value for word in (f"--{name}", value)]
    return shlex.join(["curate", *words, *more, how])


def _set(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, without leaving workers or partial files behind."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
