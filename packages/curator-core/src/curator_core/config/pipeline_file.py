"""How is a pipeline read from a YAML file? Strictly, with all checks before anything runs, and the same for every
executor.

name: clean
stages:
  - JsonlReader: {paths: "in/*.jsonl"}
  - WordCountFilter: {min_words: 50}
    with: {batch_size: 4}
  - JsonlWriter: {path: out/}
executor: local
run_dir: runs/clean

Instead of `stages:` there may be `workflow:`, which is a registered workflow with its parameters, or a list of steps.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from curator_core import storage
from curator_core.config.build import (
    SETTINGS,
    ParameterError,
    build_stage,
    build_workflow,
    checked,
    is_stage_type,
    load_executor,
    load_stage,
    load_workflow,
    setting_value,
)
from curator_core.config.yaml_file import FileError, Where, YamlFile, colon_missing, parse_value, read_yaml
from curator_core.errors import CuratorError, UsageError, nearest
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
    "dropped": str,
    "seen": dict[str, Any] | bool,
    "metrics": dict[str, Any] | bool,
    "log_level": Literal["debug", "info", "warning", "error"],
}
_OPTIONS = ("on_error", "retries", "max_error_fraction", "max_reject_fraction", "limit", "dropped", "seen", "log_level")
_NAME = re.compile(r"(?!\.{1,2}\Z)[^/\\\0]+")
# Parameters with one of these names, or with a name that ends in an underscore and one of them, contain paths.
_PATH_WORDS = frozenset({"path", "paths", "folder", "dir", "file"})


@dataclass(frozen=True)
class PipelineFile:
    """The content of a file: stages or a workflow, and how to run them. Keys that the file leaves out are not in
    ``options``.
    """

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
        from curator_core.pipeline import Pipeline  # a syntax check needs no pyarrow

        return Pipeline(self.stages, name=self.name)

    def make_executor(self, name: str | None = None, **options: Any) -> BaseExecutor:
        """The executor of the file with its options, or another one by name; ``options`` are added."""
        chosen = name or self.executor
        given = {**(self.executor_options if chosen == self.executor else {}), **options}
        return load_executor(chosen)(config=given)


def load_pipeline(
    path: str | os.PathLike[str], settings: Sequence[str] = (), *, settings_folder: str | None = None
) -> PipelineFile:
    """Read and check a pipeline file; all errors in its stages are reported together.

    ``settings`` are ``stage.parameter=value`` and override the file. Paths in the file are relative to it, paths in
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
            self.wrong("name must have no slash: the run directory is named after it", ("name",), at_value=True)
        executor, executor_options = self.executor(content.get("executor", "local"))
        stem = storage.file_name(self.file.path).partition(".")[0]
        name = simple.pop("name", None) or stem
        workflow = self.workflow(content["workflow"], ("workflow",), name) if "workflow" in content else None
        stages = self.stages(content["stages"]) if "stages" in content else ()
        if self.errors:
            raise FileError("\n".join(self.errors))
        run_dir = simple.pop("run_dir", None)
        return PipelineFile(
            self.file.path,
            name,
            stages,
            workflow,
            executor,
            executor_options,
            None if run_dir is None else _located(run_dir, self.folder),
            {key: self.located_option(key, value) for key, value in simple.items() if value is not None},
        )

    def located_option(self, key: str, value: Any) -> Any:
        if key == "dropped":
            return _located(value, self.folder)
        if key == "metrics" and isinstance(value, dict) and value.get("file"):
            return {**value, "file": _located(value["file"], self.folder)}
        return value

    def wrong(self, message: str, where: Where, *, at_value: bool = False) -> None:
        self.errors.append(str(self.file.error(message, where, at_value=at_value)))

    def simple(self, key: str, value: Any) -> Any:
        if value is None:
            return None
        try:
            found = checked("", key, _KEYS[key], value)
            if key == "metrics":
                from curator_core.running.telemetry import metrics_options  # only a file with metrics needs the import

                metrics_options(found)
            elif key in _OPTIONS:
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
        entries = self.entries(items, ("stages",))
        self.apply_settings(entries)
        return self.built(entries)

    def entries(self, items: Any, where: Where) -> list[_Entry]:
        """The items of `stages:`."""
        if not isinstance(items, list) or not items:
            self.wrong("`stages:` is a list; each item is `- StageName: {parameter: value}`", where)
            return []
        found = [self.entry(item, (*where, number)) for number, item in enumerate(items)]
        return [entry for entry in found if entry is not None]

    def built(self, entries: Sequence[_Entry]) -> tuple[ProcessingStage[Any, Any], ...]:
        return tuple(stage for entry in entries for stage in self.stage(entry))

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
            self.wrong(f"one stage for each `-`, with nothing beside it but `with:`; found {names}", where)
            return None
        if self.lacks_colon(name, (*where, name)):
            return None
        params = {} if item[name] is None else item[name]
        extra = item.get("with") or {}
        for key, part in ((name, params), ("with", extra)):
            if not isinstance(part, dict):
                self.wrong(f"{key} takes a mapping of parameters, {{name: value}}, not {part!r}", (*where, key))
                return None
        return _Entry(name, _located_params(name, params, self.folder), extra, where)

    def lacks_colon(self, name: str, where: Where) -> bool:
        """Whether the name of a stage contains parameters: in ``- Stage {a: 1}``, YAML reads ``Stage {a`` as the key."""
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
        values: dict[str, Any] = {}
        for key, value in entry.extra.items():
            where = (*entry.where, "with", key)
            try:
                values[key] = setting_value(key, value)
                if key == "dropped" and isinstance(value, str):
                    values[key] = _located(value, self.folder)
            except UsageError as error:
                self.wrong(str(error), where, at_value=key in SETTINGS)
        try:
            return stage.with_(**values)
        except UsageError as error:
            self.wrong(str(error), (*entry.where, "with"))
            return stage

    # Workflows -------------------------------------------------------------------------------------------------------

    def workflow(self, item: Any, where: Where, name: str) -> Workflow | None:
        """A registered workflow, or a list of steps."""
        make, entries = self.unbuilt(item, where)
        self.apply_settings(entries)
        made = make() if make is not None and not self.errors else None
        return None if made is None else made.named(name)

    def unbuilt(self, item: Any, where: Where) -> tuple[Callable[[], Workflow | None] | None, list[_Entry]]:
        """A function that makes the workflow after settings have been applied to its stages, and these stages."""
        if not isinstance(item, list):
            entry = self.entry(item, where)
            if entry is None:
                return None, []
            inner = self.inner_stages(entry)
            return (lambda: self.registered(entry, inner)), [entry, *inner.values()]
        if not item:
            self.wrong("`workflow:` is a workflow, or a list of steps such as `- stages: [...]`", where)
            return None, []
        steps = [self.step(given, (*where, number)) for number, given in enumerate(item)]
        if any(make is None for make, _ in steps):
            return None, []

        def make_all() -> Workflow | None:
            from curator_core.workflow import Steps  # most files have no workflow

            made = [make() for make, _ in steps if make is not None]
            return Steps([step for step in made if step is not None]) if not self.errors else None

        return make_all, [entry for _, entries in steps for entry in entries]

    def step(self, item: Any, where: Where) -> tuple[Callable[[], Pipeline | Workflow | None] | None, list[_Entry]]:
        """One item of a list of steps: ``{stages: […]}``, ``{workflow: …}`` or a workflow by its name."""
        number = int(where[-1]) + 1
        name = item.get("name") if isinstance(item, dict) else None
        if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
            self.wrong(f"the name of a step is a text without a slash, not {name!r}", (*where, "name"))
            return None, []
        if isinstance(item, dict) and "stages" in item:
            others = [key for key in item if key not in ("stages", "name")]
            if others:
                self.wrong(f"a step has `stages:` and `name:`, and no {others[0]!r}", (*where, others[0]))
                return None, []
            entries = self.entries(item["stages"], (*where, "stages"))

            def pipeline() -> Pipeline:
                from curator_core.pipeline import Pipeline  # a syntax check needs no pyarrow

                return Pipeline(self.built(entries), name=name or f"step-{number}")

            return (pipeline if entries else None), entries
        inner = {key: value for key, value in item.items() if key != "name"} if isinstance(item, dict) else item
        place = where
        if isinstance(inner, dict) and list(inner) == ["workflow"]:
            inner, place = inner["workflow"], (*where, "workflow")
        make, entries = self.unbuilt(inner, place)
        if make is None:
            return None, entries

        def workflow() -> Workflow | None:
            made = make()
            unnamed = f"step-{number}" if isinstance(inner, list) else None
            return made if made is None or not (name or unnamed) else made.named(name or str(unnamed))

        return workflow, entries

    def registered(self, entry: _Entry, inner: Mapping[str, _Entry]) -> Workflow | None:
        """A workflow from its name and parameters; the parameters in ``inner`` are stages."""
        place = (*entry.where, entry.name)
        for key, part in inner.items():
            for stage in self.stage(part) if key not in entry.set_by else ():
                entry.params[key] = stage
        if self.errors:
            return None
        try:
            return build_workflow(entry.name, entry.params)
        except ParameterError as error:
            if error.parameter in entry.set_by:
                self.errors.append(f"{entry.set_by[error.parameter]}: {error}")
            else:
                self.wrong(str(error), (*place, error.parameter or ""))
        except CuratorError as error:
            self.wrong(str(error), place)
        return None

    def inner_stages(self, entry: _Entry) -> dict[str, _Entry]:
        """The parameters of a workflow that are stages, such as its reader, written like items of `stages:`."""
        from curator_core.model.parameters import constructor_signature  # a syntax check needs no pyarrow

        found: dict[str, _Entry] = {}
        try:
            hints = constructor_signature(load_workflow(entry.name)).parameters
        except CuratorError:  # errors in the name are reported when it is built
            return found
        for key, value in entry.params.items():
            if key in hints and is_stage_type(hints[key].annotation) and isinstance(value, str | dict):
                part = self.entry(value, (*entry.where, entry.name, key))
                if part is not None:
                    found[key] = part
        return found

    def apply_settings(self, entries: Sequence[_Entry]) -> None:
        """Put ``stage.parameter=value`` into the parameters; ``Name#2`` is the second stage with this name."""
        by_name: dict[str, _Entry] = {}
        count: dict[str, int] = {}
        for entry in entries:
            # The last word of a dotted path is enough.
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
            value = parse_value(text)
            entry.params |= _located_params(entry.name, {parameter: value}, self.settings_folder)
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


def _located_params(name: str, params: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The parameters of a stage or workflow, with relative paths joined to ``folder``, including those of inner stages."""
    cls: Any = None
    with contextlib.suppress(CuratorError):  # errors in the name are reported when it is built
        cls = load_stage(name)
    if cls is None:
        with contextlib.suppress(CuratorError):
            cls = load_workflow(name)
    if cls is None:
        return {key: _relocated(key, value, folder) for key, value in params.items()}
    from curator_core.model.parameters import constructor_signature  # loading the class has imported it

    hints = constructor_signature(cls).parameters
    found = {}
    for key, value in params.items():
        if key in hints and isinstance(value, dict) and is_stage_type(hints[key].annotation):
            inner = (each for each in value if each != "with" and isinstance(value[each], dict))
            found[key] = {**value, **{each: _located_params(each, value[each], folder) for each in inner}}
        else:
            maybe, sure = (getattr(cls, each, ()) for each in ("maybe_paths", "sure_paths"))
            found[key] = _relocated(key, value, folder, maybe, sure)
    return found


def _relocated(key: Any, value: Any, folder: str, maybe: Sequence[str] = (), sure: Sequence[str] = ()) -> Any:
    """The value of a parameter, with its relative paths joined to ``folder``."""
    if key in maybe and isinstance(value, str) and value:
        there = _located(value, folder)
        with contextlib.suppress(CuratorError):  # no file could have this name
            return there if there != value and storage.exists(there) else value
        return value
    if key in maybe and isinstance(value, dict):
        return {name: _relocated_entry(entry, folder) for name, entry in value.items()}
    if not isinstance(key, str) or (key not in sure and key.rpartition("_")[2] not in _PATH_WORDS):
        return value
    if isinstance(value, str) and value:
        return _located(value, folder)
    if isinstance(value, list):
        return [_located(item, folder) if isinstance(item, str) and item else item for item in value]
    return value


def _relocated_entry(entry: Any, folder: str) -> Any:
    """An entry of a mapping by names: paths, or a mapping that contains paths."""
    if isinstance(entry, dict):
        return {key: _relocated(key, value, folder) for key, value in entry.items()}
    return _relocated("paths", entry, folder)


def _located(path: str, folder: str) -> str:
    slash = "/" if path.endswith("/") and path != "/" else ""
    return storage.absolute(os.path.expanduser(path), folder).rstrip("/") + slash  # noqa: PTH111 - paths are text
