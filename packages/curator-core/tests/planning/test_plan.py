"""Plans are pure and explained, and refuse wrong pipelines before anything runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import (
    ANY_COLUMNS,
    AddId,
    ColumnNeed,
    CompositeStage,
    DocumentBatch,
    DropColumns,
    EmptyTask,
    FanOut,
    FileGroupTask,
    FilePartitioning,
    LocalExecutor,
    Machine,
    MadeFor,
    Merge,
    Pipeline,
    Plan,
    PlanError,
    ProcessingStage,
    Resources,
    StageError,
    UsageError,
)
from curator_core.planning.make import make_plan

SMALL = Machine(cpus=2, memory_gb=8, name="this machine")
ONE_GPU = Machine(cpus=8, gpus=1, gpu_memory_gb=80, name="the cluster")


@dataclass
class Read(ProcessingStage[FileGroupTask, DocumentBatch]):
    columns: Sequence[str] = ("text", "url")

    def outputs(self) -> list[str]:
        return list(self.columns)

    def process(self, task: FileGroupTask) -> DocumentBatch:
        return DocumentBatch(data=pa.table({name: task.data for name in self.columns if name != ANY_COLUMNS}))


@dataclass
class Add(ProcessingStage[DocumentBatch, DocumentBatch]):
    column: str = "score"
    reads: str = "text"

    def inputs(self) -> list[str]:
        return [self.reads]

    def outputs(self) -> list[str]:
        return [self.column]

    def replaces(self) -> list[str]:
        return [self.column]  # the plans here have it more than once

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.append_column(self.column, task.to_pyarrow()[self.reads])


class AddNew(Add):
    def replaces(self) -> list[str]:
        return []


class Split(FanOut[DocumentBatch, DocumentBatch]):
    def process(self, task: DocumentBatch) -> Iterator[DocumentBatch]:
        for row in range(task.num_rows):
            yield task.with_data(task.to_pyarrow().slice(row, 1))


class Join(Merge[DocumentBatch, DocumentBatch]):
    def process(self, tasks: Sequence[DocumentBatch]) -> DocumentBatch:  # type: ignore[override]
        return DocumentBatch(data=pa.concat_tables([task.to_pyarrow() for task in tasks]))


@dataclass
class Pixels(ProcessingStage[DocumentBatch, DocumentBatch]):
    make: bool = False

    def outputs(self) -> list[str]:
        return ["pixels"] if self.make else [ANY_COLUMNS]

    def needed_by(self, columns: frozenset[str]) -> ProcessingStage[Any, Any]:
        return self.with_(make="pixels" in columns)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.append_column("pixels", pa.nulls(task.num_rows)) if self.make else task.with_data(task.data)


@dataclass
class Remembers(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Keeps state that it made in its constructor."""

    log: list[str] | None = None

    def __post_init__(self) -> None:
        self._seen: set[str] = set()

    def process(self, task: DocumentBatch) -> DocumentBatch:
        keep = [text not in self._seen for text in task.to_pyarrow()["text"].to_pylist()]
        self._seen.update(task.to_pyarrow()["text"].to_pylist())
        self.record_dropped("seen", keep.count(False))
        if self.log is not None:
            self.log.append(self.name)
        return task.filter(pa.array(keep))


FILES = FilePartitioning(paths=["a.txt"])


def plan(*stages: ProcessingStage[Any, Any], machine: Machine = SMALL, **options: Any) -> Plan:
    return make_plan(list(stages), machine, **options)


def refused(*stages: ProcessingStage[Any, Any], machine: Machine = SMALL, **options: Any) -> str:
    with pytest.raises(PlanError) as caught:
        plan(*stages, machine=machine, **options)
    return str(caught.value)


def groups(of: Plan) -> list[str]:
    return [group.name for segment in of.segments for group in segment.groups]


# Columns and types


def test_a_missing_column_is_reported_with_the_nearest_existing_one() -> None:
    message = refused(FILES, Read(), Add(reads="txt"))
    assert "stage 'Add' reads column 'txt', which no stage before it produces; did you mean 'text'?" in message
    assert "Columns at this point: text, url" in message


def test_a_column_that_would_be_added_twice_is_refused_unless_it_is_read_replaced_or_removed_before() -> None:
    message = refused(FILES, Read(), AddNew(column="url"))
    assert message.startswith(
        "stage 'AddNew' adds a column 'url', and there is one already: give the new one another name"
    )
    assert "stage 'AddNew#2' adds a column 'lang'" in refused(
        FILES, Read(), AddNew(column="lang"), AddNew(column="lang")
    )
    plan(FILES, Read(), AddNew(reads="url", column="url"))
    plan(FILES, Read(), AddId(id_column="url", overwrite=True))
    plan(FILES, Read(), DropColumns(columns=["url"]), AddNew(column="url"))


def test_a_removed_column_is_reported_with_the_stage_that_removed_it() -> None:
    message = refused(FILES, Read(), DropColumns(columns=["text"]), Add(reads="text"))
    assert "which 'DropColumns' removed: put 'Add' before it, or keep the column" in message


def test_a_column_that_comes_later_is_reported_with_the_stage_that_adds_it() -> None:
    message = refused(FILES, Read(), Add(reads="lang"), Add(column="lang"))
    assert "'Add#2' produces it: put it before 'Add'" in message


def test_a_missing_column_is_reported_with_an_installed_stage_that_adds_it() -> None:
    assert "AddId" in refused(FILES, Read(columns=["body"]), Add(reads=AddId().outputs()[0]))


def test_only_the_data_show_the_columns_of_a_reader_without_a_schema(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    stages = [FilePartitioning(paths=str(tmp_path)), Read(columns=["url", ANY_COLUMNS]), Add(reads="text")]
    assert groups(plan(*stages)) == ["Read+Add"]
    with pytest.raises(StageError, match="column 'text' is missing; the task has url"):
        Pipeline(stages).run(LocalExecutor(workers=0))


def test_tasks_of_the_wrong_type_are_reported_with_both_stages_and_a_remedy() -> None:
    assert "takes DocumentBatch, but FilePartitioning gives FileGroupTask" in refused(FILES, Add(), Read())
    assert "'Read' gives DocumentBatch: put it before 'Add'" in refused(FILES, Add(), Read())
    assert "start the pipeline with a reader, or pass initial_tasks" in refused(Add())


def test_a_source_comes_first() -> None:
    assert "'FilePartitioning' lists sources, so it can only come first; it comes after 'Read'" in refused(
        Read(), FILES
    )


def test_a_stage_that_yields_must_be_a_fan_out() -> None:
    class Yields(ProcessingStage[DocumentBatch, DocumentBatch]):
        def process(self, task: DocumentBatch) -> Any:
            yield task

    assert "derive Yields from FanOut" in refused(Yields(), first_task=DocumentBatch)


def test_an_object_that_is_no_stage_is_refused_when_it_is_added() -> None:
    with pytest.raises(UsageError, match="a class: add parentheses"):
        Pipeline([Add])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="got 'Add'"):
        Pipeline().add_stage("Add")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="no stages: add a reader"):
        Pipeline().plan()


@dataclass
class Parts(CompositeStage[DocumentBatch, DocumentBatch]):
    parts: list[Any] = field(default_factory=list)

    def decompose(self) -> list[Any]:
        return self.parts


class Endless(CompositeStage[DocumentBatch, DocumentBatch]):
    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        return [Endless()]


def test_a_composite_is_named_where_it_is_wrong() -> None:
    assert "'Parts' decomposes into no stages" in refused(Parts())
    assert "'Parts' decomposes into stages, but got <class" in refused(Parts(parts=[Add]))
    assert "'Endless' decomposes into itself" in refused(Endless())


# Names and copies


def test_equal_names_are_distinguished() -> None:
    made = plan(Add(), Add(column="b"), Add(column="c").with_(name="Add#2"), first_task=DocumentBatch)
    assert [planned.name for planned in made.stages] == ["Add", "Add#3", "Add#2"]
    assert [planned.stage.name for planned in made.stages] == ["Add", "Add#3", "Add#2"]


def test_planning_changes_nothing_and_always_gives_the_same_plan() -> None:
    stages = [FILES, Pixels(), Add(reads="pixels"), Add()]
    before = [copy.deepcopy(vars(stage)) for stage in stages]
    first, second = (make_plan([FILES, Read(), *stages[1:]], SMALL) for _ in range(2))
    assert [vars(stage) for stage in stages] == before
    assert (first.describe(), first.fingerprint()) == (second.describe(), second.fingerprint())
    assert first.segments is not second.segments


def test_a_stage_gets_the_columns_that_later_stages_read() -> None:
    made = plan(Pixels(), Add(reads="pixels"), first_task=DocumentBatch)
    assert ProcessingStage.__repr__(made.stages[0].stage) == "Pixels(make=True)"
    made = plan(Pixels(), Add(), first_task=DocumentBatch)
    assert made.stages[0].stage.params() == {"make": False}


def test_one_stage_object_may_be_used_twice_and_in_two_pipelines() -> None:
    log: list[str] = []
    stage = Remembers(log=log)
    task = DocumentBatch(data=pa.table({"text": ["a", "b"]}))
    for _ in range(2):
        result = Pipeline([stage, stage]).run(LocalExecutor(workers=0), initial_tasks=[task])
        assert [row["text"] for row in result[0].to_pyarrow().to_pylist()] == ["a", "b"]
        assert [totals.name for totals in result.summary.stages] == ["Remembers", "Remembers#2"]
    assert log == ["Remembers", "Remembers#2"] * 2
    assert stage._seen == set()
    assert stage.name == "Remembers"


def test_the_fingerprint_changes_with_a_parameter_and_not_with_a_machine() -> None:
    base = plan(FILES, Read(), Add())
    assert base.fingerprint() == plan(FILES, Read(), Add(), machine=ONE_GPU).fingerprint()
    assert base.fingerprint() != plan(FILES, Read(), Add(column="other")).fingerprint()


# Groups


GPU = Resources(gpu_memory_gb=8)


def test_neighbours_share_a_worker() -> None:
    made = plan(FILES, Read(), Add(), Add(column="b"))
    assert groups(made) == ["Read+Add+Add#2"]
    assert "fused Read + Add + Add#2: they can share a worker" in made.describe()


@pytest.mark.parametrize(
    ("stages", "expected", "why"),
    [
        ([Split(), Add()], ["Split", "Add"], "Split fans out, and its children may go to several workers"),
        ([Add(), Add().with_(resources=GPU)], ["Add", "Add#2"], "it uses a GPU"),
        ([Add().with_(resources=GPU), Add()], ["Add", "Add#2"], "it needs no GPU, Add does"),
        ([Add(), Add().with_(runtime_env={"pip": ["x"]})], ["Add", "Add#2"], "it has its own environment"),
        ([Add(), Add().with_(num_workers=3)], ["Add", "Add#2"], "it wants 3 workers"),
        ([Add().with_(num_workers=1), Add()], ["Add", "Add#2"], "Add wants 1 worker"),
        ([Add(), Add().with_(ray_stage_spec={"max_workers": 2})], ["Add", "Add#2"], "its own scheduling settings"),
    ],
    ids=["fan-out", "to-gpu", "from-gpu", "environment", "workers", "from-workers", "facts"],
)
def test_a_group_ends_for_a_reason_that_is_reported(
    stages: list[ProcessingStage[Any, Any]], expected: list[str], why: str
) -> None:
    made = plan(*stages, machine=ONE_GPU, first_task=DocumentBatch)
    assert groups(made) == expected
    assert f"new group at {expected[1]}: " in made.describe()
    assert why in made.describe()


def test_gpu_stages_side_by_side_share_one_gpu_worker() -> None:
    made = plan(Add().with_(resources=GPU), Add().with_(resources=GPU), machine=ONE_GPU, first_task=DocumentBatch)
    (group,) = made.segments[0].groups
    assert group.resources == Resources(gpu_memory_gb=16)


class Threshold(Add):
    light = True


def test_a_light_stage_joins_the_gpu_worker_before_it_and_other_stages_end_the_group() -> None:
    embed = Add().with_(resources=GPU, name="Embed")
    made = plan(embed, Threshold(), Threshold(), embed, Add(), Threshold(), machine=ONE_GPU, first_task=DocumentBatch)
    assert groups(made) == ["Embed+Threshold+Threshold#2+Embed#2", "Add+Threshold#3"]
    assert made.segments[0].groups[0].resources == Resources(gpu_memory_gb=16)
    assert "new group at Add: it needs no GPU, Embed#2 does" in made.describe()


def test_a_light_stage_with_its_own_requests_does_not_join() -> None:
    stages = [Add().with_(resources=GPU), Threshold().with_(num_workers=2)]
    assert groups(plan(*stages, machine=ONE_GPU, first_task=DocumentBatch)) == ["Add", "Threshold"]


def test_a_light_stage_before_a_gpu_stage_does_not_hold_the_gpu() -> None:
    stages = [Threshold(), Add().with_(resources=GPU)]
    assert groups(plan(*stages, machine=ONE_GPU, first_task=DocumentBatch)) == ["Threshold", "Add"]


def test_a_merge_starts_a_segment_and_is_shown_as_a_barrier() -> None:
    made = plan(FILES, Read(), Join(), Add())
    assert len(made.segments) == 2
    assert "barrier: Join waits for everything before it" in made.describe()


# Resources


def test_law_7_requests_for_too_many_cpus_are_scaled_down_and_reported() -> None:
    made = plan(FILES, Read(), Add().with_(resources=Resources(cpus=64)))
    assert made.segments[0].groups[0].resources.cpus == 2
    assert "asks for 64 CPUs a worker, this machine has 2; it gets 2" in made.describe()


def test_law_7_groups_that_run_at_the_same_time_fit_together() -> None:
    stages = [Add().with_(num_workers=1 + number % 2) for number in range(8)]
    made = plan(*stages, simultaneous=True, first_task=DocumentBatch)
    needs = [group.resources.cpus * (group.num_workers or 1) for group in made.segments[0].groups]
    assert sum(needs) <= 2
    assert min(needs) > 0
    assert "8 groups ask for 12 CPUs together, this machine has 2: CPU requests scaled by 0.167" in made.describe()


def test_law_7_impossible_requests_are_refused_before_anything_starts() -> None:
    message = refused(FILES, Read(), Add().with_(resources=Resources(gpus=1)))
    assert "stage 'Add' asks for gpus=1, but this machine has no GPU: give the stage" in message
    message = refused(FILES, Read(), Add().with_(resources=Resources(gpu_memory_gb=100)), machine=ONE_GPU)
    assert "stage 'Add'" in message
    assert "lower gpu_memory_gb" in message
    assert "has 1 GPU" in refused(FILES, Read(), Add().with_(resources=Resources(gpus=4)), machine=ONE_GPU)


def test_gpu_stages_that_run_at_the_same_time_must_fit_together() -> None:
    half = Resources(gpu_memory_gb=50)
    stages = [FILES, Read(), Add().with_(resources=half), Add(), Add().with_(resources=half)]
    assert "put GPU stages next to one another" in refused(*stages, machine=ONE_GPU, simultaneous=True)
    assert len(groups(plan(*stages, machine=ONE_GPU))) == 4


def test_an_environment_that_an_executor_does_not_provide_is_a_warning() -> None:
    stage = Add().with_(runtime_env={"env_vars": {"A": "1"}})
    task = DocumentBatch(data=pa.table({"text": ["a"]}))
    made = Pipeline([stage]).plan(initial_tasks=[task])
    assert "warnings\n  Add asks for its own environment" in made.describe()
    assert Pipeline([stage]).run(LocalExecutor(workers=0), initial_tasks=[task]).summary.warnings == list(made.warnings)


# Needs of stages about the content of columns


@dataclass
class Paints(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Makes a column in the colour that its readers need."""

    colour: str | None = None

    def outputs(self) -> list[str]:
        return ["wall"]

    def replaces(self) -> list[str]:
        return ["wall"]

    def made_for(self, needs: Mapping[str, Sequence[ColumnNeed]]) -> MadeFor:
        wanted = {str(need.need) for need in needs["wall"]}
        if len(wanted) > 1:
            raise UsageError(f"one wall cannot be {' and '.join(sorted(wanted))}")
        twin = self.with_()
        twin.made = self.colour or wanted.pop()  # type: ignore[attr-defined]
        first = needs["wall"][0].stage
        return MadeFor(twin, [f"{self.name} paints for {first}"], [f"{self.colour}!"] if self.colour else [])

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task


@dataclass
class Looks(ProcessingStage[DocumentBatch, DocumentBatch]):
    colour: str = "red"

    def inputs(self) -> list[str]:
        return ["wall"]

    def column_needs(self) -> dict[str, object]:
        return {"wall": self.colour}

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task


def test_a_column_is_made_as_its_readers_need_it() -> None:
    made = plan(FILES, Read(), Paints(), Looks(), Looks())
    painter = made.stages[2].stage
    assert painter.made == "red"  # type: ignore[attr-defined]
    assert painter.params() == {"colour": None}
    assert "Paints paints for Looks" in made.decisions
    assert made.warnings == ()
    assert plan(FILES, Read(), Paints("blue"), Looks()).warnings == ("blue!",)
    assert not hasattr(plan(FILES, Read(), Paints()).stages[2].stage, "made")


def test_conflicting_needs_are_refused_unless_the_column_is_made_again() -> None:
    assert refused(FILES, Read(), Paints(), Looks(), Looks("green")) == "one wall cannot be green and red"
    made = plan(FILES, Read(), Paints(), Looks(), Paints(), Looks("green"))
    assert [made.stages[index].stage.made for index in (2, 4)] == ["red", "green"]  # type: ignore[attr-defined]


# The explanation


def test_the_description_shows_parameters_columns_and_needs() -> None:
    text = plan(FILES, Read(), Add(column="words").with_(num_workers=2), machine=SMALL, name="clean").describe()
    assert text.splitlines()[0] == "clean: 3 stages on this machine (2 CPUs, no GPU)"
    assert "  Add  Add(column='words')\n      reads text; adds words" in text
    assert "1 CPU, 2 workers" in text


def test_the_plan_shows_only_the_beginning_of_long_lists_and_keeps_all() -> None:
    endings = [f".{letter}" for letter in "abcdefgh"]
    made = plan(FilePartitioning(paths="in", extensions=endings), Read())
    assert "extensions=['.a', '.b', '.c', '.d', ...]" in made.describe()
    assert made.steps()[0]["params"]["extensions"] == endings
    assert made.stages[0].stage.call().endswith(f"extensions={endings!r})")


def test_a_pipeline_that_cannot_run_describes_itself_and_says_why() -> None:
    text = Pipeline([FILES, Read(), Add(reads="txt")], name="clean").describe()
    assert text.startswith("clean: cannot run as it is")
    assert "did you mean 'text'" in text


def test_planning_opens_nothing() -> None:
    assert groups(plan(FilePartitioning(paths="no/such/folder/*.txt"), Read())) == ["Read"]
    assert issubclass(EmptyTask, FILES.task_in)
