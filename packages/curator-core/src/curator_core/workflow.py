"""A workflow: pipelines in a row that hand files to one another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from curator_core import storage
from curator_core.errors import UsageError
from curator_core.executors.base import BaseExecutor
from curator_core.pipeline import Pipeline
from curator_core.running.result import RunResult


class Workflow(ABC):
    """Several pipelines as one piece of work. Subclasses have plain parameters, like stages, and list their steps."""

    @property
    def name(self) -> str:
        return type(self).__name__

    @abstractmethod
    def pipelines(self, work_dir: str) -> Sequence[Pipeline]:
        """The steps in order; what one leaves for the next lies under ``work_dir``."""

    def run(
        self, executor: BaseExecutor | None = None, *, run_dir: str, resume: bool = False, **options: Any
    ) -> list[RunResult]:
        """Run the steps in order, each in a run directory of its own under ``run_dir``.

        With ``resume``, steps that are complete do nothing, and the first that is not goes on where it was.
        """
        steps = list(self.pipelines(storage.join(run_dir, "work")))
        if not steps:
            raise UsageError(f"workflow {self.name!r} has no pipelines")
        names = [pipeline.name for pipeline in steps]
        if len(set(names)) != len(names):
            raise UsageError(f"workflow {self.name!r}: its pipelines need names of their own, not {', '.join(names)}")
        results = []
        for number, pipeline in enumerate(steps, 1):
            place = storage.join(run_dir, f"{number:02d}-{pipeline.name}")
            begun = storage.exists(storage.join(place, "plan.json"))
            results.append(pipeline.run(executor, run_dir=place, resume=resume and begun, **options))
        return results
