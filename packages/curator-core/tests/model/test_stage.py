"""Stages: plain parameters, copies with other settings, functions as stages, composites."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from curator_core import (
    CompositeStage,
    DocumentBatch,
    FanOut,
    FileGroupTask,
    LocalExecutor,
    Pipeline,
    ProcessingStage,
    RayStageSpecKeys,
    Resources,
    Task,
    UsageError,
    stage,
)
from curator_core.model.stage import accepted_tasks, is_fanout, needed_columns


@dataclass
class Repeat(ProcessingStage[DocumentBatch, DocumentBatch]):
    times: int = 2
    column: str = "text"
    words: list[str] = field(default_factory=list)

    def inputs(self) -> list[str]:
        return [self.column]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        values = [value * self.times for value in task.to_pyarrow()[self.column].to_pylist()]
        return task.append_column(self.column, pa.array(values))


def batch(*texts: str) -> DocumentBatch:
    return DocumentBatch(data=pa.table({"text": list(texts)}))


def run(*stages: ProcessingStage[Any, Any], tasks: Sequence[Task[Any]] | None = None) -> list[dict[str, Any]]:
    result = Pipeline(stages).run(LocalExecutor(workers=0), initial_tasks=tasks or [batch("a", "b")])
    return [row for task in result.tasks for row in task.to_pyarrow().to_pylist()]


# Parameters and copies


def test_with_gives_a_copy_and_does_not_change_the_original() -> None:
    original = Repeat(times=3, words=["x"])
    before = copy.deepcopy(vars(original))
    twin = original.with_(
        times=5, name="five", resources=Resources(cpus=2), batch_size=4, num_workers=1, runtime_env={"pip": ["x"]}
    )
    assert vars(original) == before
    assert original.name == "Repeat"
    assert (twin.times, twin.name, twin.resources.cpus, twin.batch_size, twin.num_workers()) == (5, "five", 2, 4, 1)
    assert twin.words == ["x"]
    assert (Repeat.name, Repeat.batch_size) == ("Repeat", 1)


def test_settings_stay_when_parameters_change_later() -> None:
    twin = Repeat().with_(name="mine", num_workers=2).with_(times=7)
    assert (twin.name, twin.num_workers(), twin.times) == ("mine", 2, 7)


def test_keys_for_engines_are_merged() -> None:
    twin = Repeat().with_(ray_stage_spec={RayStageSpecKeys.MIN_WORKERS: 1}).with_(ray_stage_spec={"max_workers": 2})
    assert twin.ray_stage_spec() == {"min_workers": 1, "max_workers": 2}
    assert Repeat().ray_stage_spec() == {}


@pytest.mark.parametrize("call", [lambda: Repeat(tims=3), lambda: Repeat().with_(tims=3)])
def test_a_misspelled_parameter_names_the_nearest(call: Any) -> None:
    with pytest.raises(UsageError, match=r"no parameter 'tims'; did you mean 'times'\?"):
        call()


def test_a_misspelled_setting_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'resources'"):
        Repeat().with_(resource=Resources())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of 1 or more, not 0"),
        ({"num_workers": -1}, "num_workers"),
        ({"name": "a/b"}, "no slash"),
        ({"name": ""}, "non-empty"),
        ({"resources": 2}, "must be a Resources"),
    ],
)
def test_an_invalid_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Repeat().with_(**settings)


def test_stages_compare_and_copy_as_values() -> None:
    assert Repeat(times=3) == Repeat(times=3) != Repeat(times=4)
    assert Repeat().with_(name="x", batch_size=2).settings() == {"name": "x", "batch_size": 2}
    assert copy.copy(Repeat(times=3)) == pickle.loads(pickle.dumps(Repeat(times=3))) == Repeat(times=3)
    assert Repeat(times=3).params() == {"times": 3, "column": "text", "words": []}
    assert repr(Repeat(times=3)) == "Repeat(times=3)"
    assert Repeat() != Repeat().with_(batch_size=2) == Repeat().with_(batch_size=2)
    assert repr(Repeat(times=3).with_(batch_size=2, num_workers=1)) == (
        "Repeat(times=3).with_(batch_size=2, num_workers=1)"
    )


def test_a_name_that_with_cannot_set_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="plain class attribute"):

        class Named(ProcessingStage[DocumentBatch, DocumentBatch]):
            @property
            def name(self) -> str:  # type: ignore[override]
                return "x"


# Kinds of tasks


class TextOrFiles(ProcessingStage[DocumentBatch | FileGroupTask, DocumentBatch]):
    def inputs(self) -> dict[type[Task[Any]], list[str]]:
        return {DocumentBatch: ["text"], FileGroupTask: []}

    def outputs(self) -> list[str]:
        return ["text"]

    def process(self, task: Any) -> DocumentBatch:
        if isinstance(task, FileGroupTask):
            return DocumentBatch(data=pa.table({"text": task.data}))
        return task.with_data(task.data)


def test_a_stage_may_take_several_types_of_task() -> None:
    assert accepted_tasks(TextOrFiles()) == (DocumentBatch, FileGroupTask)
    assert needed_columns(TextOrFiles(), DocumentBatch) == ["text"]
    assert needed_columns(TextOrFiles(), FileGroupTask) == []
    assert run(TextOrFiles()) == [{"text": "a"}, {"text": "b"}]
    assert run(TextOrFiles(), tasks=[FileGroupTask(data=["f"])]) == [{"text": "f"}]


def test_the_types_of_a_stage_come_from_its_base() -> None:
    class Reader(ProcessingStage[FileGroupTask, DocumentBatch]):
        def process(self, task: FileGroupTask) -> DocumentBatch:
            raise NotImplementedError

    assert (Reader.task_in, Reader.task_out) == (FileGroupTask, DocumentBatch)


# Functions


@stage(inputs=["text"], outputs=["shout"])
def Shout(batch: DocumentBatch, mark: str = "!") -> DocumentBatch:  # noqa: N802 - a stage's name
    """Louder."""
    return batch.append_column("shout", pa.array([text + mark for text in batch.to_pyarrow()["text"].to_pylist()]))


@stage(removes=["text"])
def Halves(batch: DocumentBatch) -> Iterator[DocumentBatch]:  # noqa: N802 - a stage's name
    table = batch.to_pyarrow()
    yield batch.with_data(table.slice(0, 1))
    yield batch.with_data(table.slice(1))


def test_a_function_becomes_a_stage_with_its_parameters() -> None:
    assert [row["shout"] for row in run(Shout(mark="?"))] == ["a?", "b?"]
    assert (Shout.name, Shout.__doc__, Shout.task_in) == ("Shout", "Louder.", DocumentBatch)
    assert Shout(mark="?").params() == {"mark": "?"}
    assert list(Shout().outputs()) == ["shout"]
    assert Shout(mark="?") == Shout().with_(mark="?") != Shout()


def test_a_generator_function_becomes_a_fan_out() -> None:
    assert isinstance(Halves(), FanOut)
    assert is_fanout(Halves())
    assert list(Halves().removes()) == ["text"]
    result = Pipeline([Halves()]).run(LocalExecutor(workers=0), initial_tasks=[batch("a", "b")])
    assert [task.task_id for task in result] == ["task-00000.00000", "task-00000.00001"]


def test_a_function_stage_checks_its_parameters() -> None:
    @stage
    def needs(batch: DocumentBatch, level: int) -> DocumentBatch:
        return batch

    with pytest.raises(UsageError, match="needs the parameter 'level'"):
        needs()
    with pytest.raises(UsageError, match="did you mean 'level'"):
        needs(lvel=3)
    with pytest.raises(UsageError, match="takes a task"):
        stage(lambda: None)
    with pytest.raises(UsageError, match=r"parameters have names.*'\*levels' has none"):
        stage(lambda batch, *levels: batch)
    with pytest.raises(UsageError, match=r"parameters have names.*'\*\*levels' has none"):
        stage(lambda batch, **levels: batch)


def test_a_function_stage_has_the_signature_of_its_function() -> None:
    @stage
    def needs(batch: DocumentBatch, level: int, *, mark: str = "!") -> DocumentBatch:
        return batch.append_column("seen", pa.array([f"{level}{mark}"] * batch.num_rows))

    assert needs(3) == needs(level=3)
    assert repr(needs(3, mark="?")) == "needs(level=3, mark='?')"
    assert needs(3).with_(level=4) == needs(4)
    with pytest.raises(UsageError, match="too many positional arguments"):
        needs(3, "?")
    result = Pipeline([needs(3)]).run(LocalExecutor(workers=0), initial_tasks=[batch("a")])
    assert result[0].to_pyarrow()["seen"].to_pylist() == ["3!"]


# Composites


@dataclass
class Twice(CompositeStage[DocumentBatch, DocumentBatch]):
    times: int = 2

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        return [Repeat(times=self.times), Once()]


@dataclass
class Once(CompositeStage[DocumentBatch, DocumentBatch]):
    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        return [Repeat(times=2)]


def test_composites_can_be_nested_and_may_have_one_stage() -> None:
    assert [row["text"] for row in run(Twice(times=3))] == ["a" * 6, "b" * 6]
    plan = Pipeline([Twice(), Once()]).plan(initial_tasks=[batch("a")])
    assert [planned.name for planned in plan.stages] == ["Repeat", "Repeat#2", "Repeat#3"]
    assert "expanded Twice into Repeat, Repeat" in plan.decisions


def test_settings_of_a_composite_apply_to_its_stages() -> None:
    small = Resources(cpus=0.5)
    plan = Pipeline([Twice().with_(resources=small, name="t")]).plan(initial_tasks=[batch("a")])
    assert [planned.name for planned in plan.stages] == ["t.Repeat", "t.Once"]
    assert [planned.stage.resources for planned in plan.stages] == [small, small]


def test_a_composite_cannot_be_run_by_hand() -> None:
    with pytest.raises(UsageError, match="decompose"):
        Twice().process(batch("a"))
