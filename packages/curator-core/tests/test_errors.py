"""What an error says, wherever it was raised and however it has travelled."""

from __future__ import annotations

import pickle

import pytest

from curator_core import StageError, TaskTimeout, UsageError, WorkerDied
from curator_core.testing import stages as s


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (StageError("Map", "ValueError: no", "a-1.00002"), "stage 'Map' failed on task 'a-1.00002': ValueError: no"),
        (StageError("Map", "OSError: no", hook="setup"), "stage 'Map' failed in setup(): OSError: no"),
        (StageError("Map", "it is broken"), "stage 'Map' failed: it is broken"),
        (StageError("Map", "no", "(setup)"), "stage 'Map' failed on task '(setup)': no"),
        (TaskTimeout("Map", "a-1", 2.5), "stage 'Map' worked on task 'a-1' for longer than task_timeout_s=2.5"),
        (WorkerDied.of_task("a-1", 3, "Map"), "3 workers died while stage 'Map' worked on task 'a-1': a crash in"),
    ],
    ids=str,
)
def test_an_error_has_the_same_text_after_coming_from_another_process(error: Exception, text: str) -> None:
    assert str(error).startswith(text)
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), str(twin), twin.args) == (type(error), str(error), error.args)


def test_a_time_limit_is_a_setting_of_any_stage_and_does_not_change_its_output() -> None:
    stage = s.Same().with_(task_timeout_s=5)
    assert (stage.task_timeout_s, s.Same().task_timeout_s) == (5.0, None)
    assert stage.with_(task_timeout_s=None).task_timeout_s is None
    assert repr(stage) == "Same().with_(task_timeout_s=5.0)"
    assert stage.params() == s.Same().params()
    for wrong in (0, -1, float("inf"), float("nan"), "5", True):
        with pytest.raises(UsageError, match="task_timeout_s must be a number of seconds above 0"):
            s.Same().with_(task_timeout_s=wrong)  # type: ignore[arg-type]
