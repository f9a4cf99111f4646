"""What must an executor do? Run one segment of a plan, and nothing else.

Core calls an executor in this order: `expect` and `open` once, `machine` once, `run_segment` for each segment, `close`
always. In a worker the executor passes tasks to a `GroupRunner`, which does the rest (see
`curator_core.worker.adapter`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from curator_core.accounts.events import Event
from curator_core.accounts.metrics import MetricSample
from curator_core.errors import UsageError, nearest
from curator_core.model.machine import Machine, this_machine
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import StagePerfStats, Task
from curator_core.planning.plan import Group, PlannedStage, Segment
from curator_core.registry import EXECUTORS, load
from curator_core.worker.context import Ending, RunContext


@dataclass
class SegmentRun:
    """One segment with everything needed to run it.

    ``tasks`` yields its sources lazily; consume it as workers become free. Pass events that workers did not write
    themselves (in a run without a run directory) to ``collect``, finished sources and counts to ``progress``, and the
    number of workers that are set up to ``staffed`` when it changes.
    """

    segment: Segment
    tasks: Iterator[Task[Any]]
    context: RunContext
    ending: Ending
    folder: str = ""
    collect: Callable[[Iterable[Event]], None] = field(default=lambda _events: None)
    progress: Callable[[int, Iterable[StagePerfStats]], None] = field(default=lambda _sources, _counts: None)
    staffed: Callable[[int], None] = field(default=lambda _workers: None)

    @property
    def groups(self) -> list[Group]:
        """The groups to run; the merge at the start of the segment is a group of its own."""
        groups = list(self.segment.groups)
        if self.segment.merge is not None:
            stage = self.segment.merge.stage
            groups.insert(0, Group((self.segment.merge,), stage.resources, stage.num_workers()))
        return groups

    @property
    def stages(self) -> list[PlannedStage]:
        """All stages of the segment in order."""
        return [planned for group in self.groups for planned in group.stages]

    def ending_of(self, index: int) -> Ending:
        """What happens to tasks that leave group ``index``."""
        return self.ending if index == len(self.groups) - 1 else "pass"


class BaseExecutor(ABC):
    """Runs segments. ``config`` holds its options; an unknown one is an error."""

    # Whether all groups of a segment have workers at the same time, so that their needs add up.
    simultaneous: ClassVar[bool] = False
    # Whether the executor provides a stage's runtime_env.
    environments: ClassVar[bool] = True
    # Whether `open` takes no time, so that a command may open the executor before it has read the pipeline.
    opens_at_once: ClassVar[bool] = False
    options: ClassVar[Sequence[str]] = ()

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.config = dict(config or {})
        for key in self.config:
            if self.options and key not in self.options:
                raise UsageError(
                    f"{type(self).__name__} has no option {key!r}{nearest(key, self.options) or '.'} "
                    f"It takes: {', '.join(self.options)}"
                )

    def machine(self) -> Machine:
        """The machine that the plan must fit on."""
        return this_machine()

    def expect(self, stages: Sequence[ProcessingStage[Any, Any]]) -> None:  # noqa: B027 - optional likewise
        """Announce the stages of the run before `open`, so that the modules of their workers can be loaded meanwhile."""

    def open(self) -> None:  # noqa: B027 - optional: an executor may have nothing to open
        """Connect or start whatever the executor needs; called before planning."""

    def get_ready(self) -> None:  # noqa: B027 - optional likewise
        """Start what every run needs, unless it has started. A command calls this before it reads the pipeline, if
        `open` takes no time; a workflow calls it before its steps are planned.
        """

    @property
    def opening(self) -> str:
        """A text for displays that says what `open` waits for; empty if it takes no time."""
        return ""

    def close(self) -> None:  # noqa: B027 - optional likewise
        """Stop what `open` started; called on success, failure and interruption."""

    def publish(self, samples: Sequence[MetricSample]) -> None:  # noqa: B027 - optional likewise
        """Add the numbers of a run to the engine's own metrics, if it has any; called now and then while the executor
        is open.
        """

    def set_verbose(self) -> None:  # noqa: B027 - optional likewise
        """Let the engine write its messages to the terminal; `curate run -v` calls this before `open`."""

    @abstractmethod
    def run_segment(self, run: SegmentRun) -> Iterator[Task[Any]]:
        """Run a segment; yield each task that leaves it, in any order."""

    def execute(
        self, stages: Sequence[ProcessingStage[Any, Any]], initial_tasks: Sequence[Task[Any]] | None = None
    ) -> list[Task[Any]]:
        """Run stages over tasks and return the resulting tasks, in lineage order; see `Pipeline.run` for more."""
        from curator_core.running.run import Order, run_stages  # deferred: `running` imports executors

        return list(run_stages(Order(stages, self, initial_tasks=initial_tasks)).tasks)


def executor_class(name: str) -> type[BaseExecutor]:
    """The executor class of a registered name or a dotted path."""
    found = load(EXECUTORS, name)
    if not (isinstance(found, type) and issubclass(found, BaseExecutor)):
        raise UsageError(f"{name!r} is not an executor but {found!r}")
    return found
