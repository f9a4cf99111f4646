"""A pipeline as a YAML file: read strictly, checked before anything runs, the same on every executor.

name: clean
stages:
  - JsonlReader: {paths: "in/*.jsonl"}
  - WordCountFilter: {min_words: 50}
    with: {batch_size: 4}
  - JsonlWriter: {path: out/}
executor: local
run_dir: runs/clean
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from curator_core import storage
from curator_core.config.build import ParameterError, build, build_stage, checked, load_executor, load_stage
from curator_core.config.yaml_file import FileError, Where, YamlFile, colon_missing, parse_value, read_yaml
from curator_core.errors import CuratorError, UsageError, nearest
from curator_core.registry import WORKFLOWS, load
from curator_core.running.options import RunOptions

if TYPE_CHECKING:
    from curator_core.executors.base import BaseExecutor
    from curator_core.model.stage import ProcessingStage
    from curator_core.pipeline import Pipeline
    from curator_core.workflow import Workflow

_KEYS: dict[str, Any] = {
    "name": str,
    "stages": None,
    "workflow": None,
    "executor": None,
    "run_dir": str,
    "on_error": Literal["fail", "quarantine"],
    "retries": int,
    "max_error_fraction": float,
    "max_reject_fraction": float,
    "limit": int,
    "log_level": Literal["debug", "info", "warning", "error"],
}
_OPTIONS = ("on_error", "retries", "max_error_fraction", "max_reject_fraction", "limit", "log_level")
_WITH = {
    "name": str,
    "resources": dict[str, float],
    "batch_size": int,
    "num_workers": int,
    "runtime_env": dict[str, Any],
    "task_timeout_s": float,
    "ray_stage_spec": dict[str, Any],
    "xenna_stage_spec": dict[str, Any],
}
_NAME = re.compile(r"(?!\.{1,2}\Z)[^/\\\0]+")
# Parameters with these names, or names that end in one of them after an underscore, hold paths.
_PATH_WORDS = frozenset({"path", "paths", "folder", "dir", "file"})


@dataclass(frozen=True)
class PipelineFile:
    """What a file says: stages or a workflow, and how to run them. Keys that it leaves out are not in ``options``."""

    path: str
    name: str
    stages: tuple[ProcessingStage[Any, Any], ...] = ()
    workflow: Workflow | None = None
    executor: str = "local"
    executor_options: Mapping[str, Any] = field(default_factory=dict)
    run_dir: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def pipeline(self) -> Pipeline:
        """The stages as a pipeline."""
        from curator_core.pipeline import Pipeline  # a syntax check does without pyarrow

        return Pipeline(self.stages, name=self.name)

    def make_executor(self, name: str | None = None, **options: Any) -> BaseExecutor:
        """The executor of the file, or another one by name, with its options and more."""
        chosen = name or self.executor
        given = {**(self.executor_options if chosen == self.executor else {}), **options}
        return load_executor(chosen)(config=given)


def load_pipeline(
    path: str | os.PathLike[str], settings: Sequence[str] = (), *, settings_folder: str | None = None
) -> PipelineFile:
    """Read and check a pipeline file; everything that is wrong with its stages is reported at once.

    ``settings`` are ``stage.parameter=value`` and win over the file. Paths in the file are relative to it, paths in
    settings to ``settings_folder``, the working folder if it is None. Modules beside the file can be named as stages.
    """
    text = os.fspath(path)
    content = storage.read_bytes(text)
    try:
        source = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{text}: a pipeline file is UTF-8 text; byte {error.start} is not") from None
    folder = storage.absolute(storage.parent(text))
    if storage.is_local(folder) and folder not in sys.path:
        sys.path.insert(0, folder)
    return _Build(read_yaml(source, text), folder, settings, settings_folder or os.getcwd()).build()  # noqa: PTH109


class _Build:
    def __init__(self, file: YamlFile, folder: str, settings: Sequence[str], settings_folder: str) -> None:
        self.file = file
        self.folder = folder
        self.settings = settings
        self.settings_folder = settings_folder
        self.errors: list[str] = []

    def build(self) -> PipelineFile:
        content = self.file.value
        if not isinstance(content, dict):
            raise self.file.error("a pipeline file is a mapping that begins with `stages:`; see `curate init`")
        for key in content:
            if key not in _KEYS:
                self.wrong(f"unknown key {key!r}{_hint(key, _KEYS)} The keys are: {', '.join(_KEYS)}", (key,))
        simple = {key: self.simple(key, content[key]) for key in _KEYS if key in content and _KEYS[key] is not None}
        if ("stages" in content) == ("workflow" in content):
            self.wrong("a pipeline file has either `stages:` or `workflow:`", ("workflow",))
        if not _NAME.fullmatch(simple.get("name") or "a"):
            self.wrong("name must have no slash: the run directory is called after it", ("name",), at_value=True)
        executor, executor_options = self.executor(content.get("executor", "local"))
        stem = storage.file_name(self.file.path).partition(".")[0]
        workflow = self.workflow(content["workflow"]) if "workflow" in content else None
        stages = self.stages(content["stages"]) if "stages" in content else ()
        if self.errors:
            raise FileError("\n".join(self.errors))
        run_dir = simple.pop("run_dir", None)
        return PipelineFile(
            self.file.path,
            simple.pop("name", None) or stem,
            stages,
            workflow,
            executor,
            executor_options,
            None if run_dir is None else _located(run_dir, self.folder),
            {key: value for key, value in simple.items() if value is not None},
        )

    def wrong(self, message: str, where: Where, *, at_value: bool = False) -> None:
        self.errors.append(str(self.file.error(message, where, at_value=at_value)))

    def simple(self, key: str, value: Any) -> Any:
        if value is None:
            return None
        try:
            found = checked("", key, _KEYS[key], value)
            if key in _OPTIONS:
                RunOptions(**{key: found})
        except UsageError as error:
            self.wrong(str(error).lstrip("."), (key,), at_value=True)
            return None
        return found

    def executor(self, value: Any) -> tuple[str, dict[str, Any]]:
        if isinstance(value, str):
            return value, {}
        if isinstance(value, dict) and len(value) == 1:
            name, options = next(iter(value.items()))
            if isinstance(name, str) and (options is None or isinstance(options, dict)):
                return name, options or {}
        self.wrong("executor is a name, such as local, or {name: {option: value}}", ("executor",))
        return "local", {}

    # Stages ----------------------------------------------------------------------------------------------------------

    def stages(self, items: Any) -> tuple[ProcessingStage[Any, Any], ...]:
        if not isinstance(items, list) or not items:
            self.wrong("`stages:` is a list; each item is `- StageName: {parameter: value}`", ("stages",))
            return ()
        entries = [self.entry(item, ("stages", number)) for number, item in enumerate(items)]
        self.apply_settings([entry for entry in entries if entry is not None])
        return tuple(stage for entry in entries if entry is not None for stage in self.stage(entry))

    def entry(self, item: Any, where: Where) -> _Entry | None:
        """A list item as name, parameters and settings."""
        if isinstance(item, str):
            return None if self.lacks_colon(item, where) else _Entry(item, {}, {}, where)
        if not isinstance(item, dict) or not item:
            self.wrong("a stage is written `- StageName: {parameter: value}`", where)
            return None
        names = [key for key in item if key != "with"]
        name = names[0] if names else None
        if len(names) > 1 and item[name] is None:
            self.wrong(f"indent {names[1]!r} further than {name!r}: it is one of its parameters", (*where, names[1]))
            return None
        if len(names) != 1 or not isinstance(name, str):
            self.wrong(f"one stage for each `-`, with nothing beside it but `with:`; here are {names}", where)
            return None
        if self.lacks_colon(name, (*where, name)):
            return None
        params = {} if item[name] is None else item[name]
        extra = item.get("with") or {}
        for key, part in ((name, params), ("with", extra)):
            if not isinstance(part, dict):
                self.wrong(f"{key} takes a mapping of parameters, {{name: value}}, not {part!r}", (*where, key))
                return None
        maybe = _maybe_paths(name)
        params = {key: _relocated(key, value, self.folder, maybe) for key, value in params.items()}
        return _Entry(name, params, extra, where)

    def lacks_colon(self, name: str, where: Where) -> bool:
        """Whether the name of a stage has parameters in it: in ``- Stage {a: 1}``, YAML takes ``Stage {a`` for the key."""
        word, *rest = name.replace("{", " { ").split() or [name]
        if rest:
            self.wrong(colon_missing(word), where)
        return bool(rest)

    def stage(self, entry: _Entry) -> list[ProcessingStage[Any, Any]]:
        place = (*entry.where, entry.name)
        try:
            stage = build_stage(entry.name, entry.params)
        except ParameterError as error:
            if error.parameter in entry.set_by:
                self.errors.append(f"{entry.set_by[error.parameter]}: {error}")
            elif error.parameter is None:
                self.wrong(str(error), place)
            else:
                known = (*place, error.parameter) in self.file.keys
                self.wrong(str(error), (*place, error.parameter), at_value=known and " must be " in str(error))
            return []
        except CuratorError as error:
            self.wrong(str(error), place)
            return []
        return [self.with_settings(stage, entry)] if entry.extra else [stage]

    def with_settings(self, stage: ProcessingStage[Any, Any], entry: _Entry) -> ProcessingStage[Any, Any]:
        from curator_core.model.resources import Resources  # beside the stage, which has loaded more

        values: dict[str, Any] = {}
        for key, value in entry.extra.items():
            where = (*entry.where, "with", key)
            if key not in _WITH:
                self.wrong(f"with takes no {key!r}{_hint(key, _WITH)} It takes: {', '.join(_WITH)}", where)
                continue
            try:
                value = checked("with", key, _WITH[key], value)  # noqa: PLW2901 - the same value, checked
                values[key] = build(Resources, "resources", value) if key == "resources" else value
            except UsageError as error:
                self.wrong(str(error), where, at_value=True)
        try:
            return stage.with_(**values)
        except UsageError as error:
            self.wrong(str(error), (*entry.where, "with"))
            return stage

    def workflow(self, item: Any) -> Workflow | None:
        from curator_core.workflow import Workflow  # most files have none

        entry = self.entry(item, ("workflow",))
        if entry is None:
            return None
        try:
            cls = load(WORKFLOWS, entry.name)
            if not (isinstance(cls, type) and issubclass(cls, Workflow)):
                raise UsageError(f"{entry.name!r} is no workflow but {cls!r}")
            inner = self.inner_stages(cls, entry)
            self.apply_settings([entry, *inner.values()])
            entry.params |= {key: stage for key, part in inner.items() for stage in self.stage(part)}
            if self.errors:
                return None
            made = build(cls, entry.name, entry.params)
        except ParameterError as error:
            self.wrong(str(error), ("workflow", entry.name, error.parameter or ""))
            return None
        except CuratorError as error:
            self.wrong(str(error), ("workflow", entry.name))
            return None
        assert isinstance(made, Workflow)
        return made

    def inner_stages(self, workflow: type[Workflow], entry: _Entry) -> dict[str, _Entry]:
        """The parameters of a workflow that are stages, such as its reader, written as items of `stages:` are."""
        found = {}
        for key, parameter in inspect.signature(workflow).parameters.items():
            if "ProcessingStage" in str(parameter.annotation) and entry.params.get(key) is not None:
                part = self.entry(entry.params[key], ("workflow", entry.name, key))
                if part is not None:
                    found[key] = part
        return found

    def apply_settings(self, entries: Sequence[_Entry]) -> None:
        """Put ``stage.parameter=value`` into the parameters; ``Name#2`` is the second stage of a name."""
        by_name: dict[str, _Entry] = {}
        count: dict[str, int] = {}
        for entry in entries:
            # A dotted path may be given by its last word.
            for name in {entry.name, entry.name.replace(":", ".").rpartition(".")[2]}:
                count[name] = count.get(name, 0) + 1
                by_name[name if count[name] == 1 else f"{name}#{count[name]}"] = entry
        for setting in self.settings:
            target, equals, text = setting.partition("=")
            name, _, parameter = target.rpartition(".")
            if not equals or not name or not parameter:
                raise UsageError(f"--set takes stage.parameter=value, not {setting!r}")
            if name not in by_name:
                raise UsageError(
                    f"--set {setting}: the file has no stage {name!r}{_hint(name, by_name)} "
                    f"Its stages are: {', '.join(by_name) or 'none'}"
                )
            entry = by_name[name]
            value = _relocated(parameter, parse_value(text), self.settings_folder, _maybe_paths(entry.name))
            entry.params[parameter] = value
            entry.set_by[parameter] = f"--set {setting}"


@dataclass
class _Entry:
    name: str
    params: dict[str, Any]
    extra: dict[str, Any]
    where: Where
    set_by: dict[str | None, str] = field(default_factory=dict)


def _hint(word: Any, known: Mapping[str, Any]) -> str:
    return nearest(str(word), known) or "."


def _maybe_paths(name: str) -> tuple[str, ...]:
    with contextlib.suppress(CuratorError):
        return load_stage(name).maybe_paths
    with contextlib.suppress(CuratorError):  # what is wrong with the name is reported when it is built
        found: tuple[str, ...] = getattr(load(WORKFLOWS, name), "maybe_paths", ())
        return found
    return ()


def _relocated(key: Any, value: Any, folder: str, maybe: Sequence[str]) -> Any:
    """A value of a parameter that holds paths, with relative paths joined to ``folder``."""
    if key in maybe and isinstance(value, str) and value:
        there = _located(value, folder)
        with contextlib.suppress(CuratorError):  # no name that a file could have
            return there if there != value and storage.exists(there) else value
        return value
    if key in maybe and isinstance(value, dict):
        return {name: _relocated_entry(entry, folder) for name, entry in value.items()}
    if not isinstance(key, str) or key.rpartition("_")[2] not in _PATH_WORDS:
        return value
    if isinstance(value, str) and value:
        return _located(value, folder)
    if isinstance(value, list):
        return [_located(item, folder) if isinstance(item, str) and item else item for item in value]
    return value


def _relocated_entry(entry: Any, folder: str) -> Any:
    """A value of a mapping by names: paths, or a mapping that has them among others."""
    if isinstance(entry, dict):
        return {key: _relocated(key, value, folder, ()) for key, value in entry.items()}
    return _relocated("paths", entry, folder, ())


def _located(path: str, folder: str) -> str:
    slash = "/" if path.endswith("/") and path != "/" else ""
    return storage.absolute(os.path.expanduser(path), folder).rstrip("/") + slash  # noqa: PTH111 - text, as paths are
