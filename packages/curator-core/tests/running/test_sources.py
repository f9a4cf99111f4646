"""Whether a source must run, as a table; and a generation never mixes two contents, attempts or pipelines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core.accounts.source_list import GONE
from curator_core.running.attempt import plan_of
from curator_core.running.sources import Decision, decide

# content now | noted before | complete, intact | attempt, that of the pipeline | decision
TABLE = [
    ("a", None, (False, False), (1, 0), Decision(True, "a", "new")),
    ("a", None, (False, False), (3, 0), Decision(True, "a", "new")),
    ("a", None, (False, False), (3, 2), Decision(True, "a+2", "new")),
    ("a", GONE, (False, False), (3, 2), Decision(True, "a+3", "new")),
    ("a", GONE, (False, False), (3, 0), Decision(True, "a+3", "new")),
    ("b", "a", (False, False), (2, 0), Decision(True, "b+2", "changed")),
    ("b", "a+2", (True, True), (3, 0), Decision(True, "b+3", "changed")),
    ("a", "a", (True, True), (2, 0), Decision(False, "a", "unchanged")),
    ("a", "a", (True, True), (2, 2), Decision(False, "a", "unchanged")),
    ("a", "a+2", (True, True), (5, 2), Decision(False, "a+2", "unchanged")),
    ("a", "a", (True, False), (2, 0), Decision(True, "a+2", "unfinished")),
    ("a", "a", (False, False), (2, 0), Decision(True, "a", "unfinished")),
    ("a", "a", (False, False), (2, 2), Decision(True, "a+2", "unfinished")),
    ("a", "a+2", (False, False), (4, 3), Decision(True, "a+3", "unfinished")),
    ("a", "a+3", (False, False), (4, 3), Decision(True, "a+3", "unfinished")),
]


@pytest.mark.parametrize(("content", "known", "state", "attempts", "expected"), TABLE)
def test_the_rules_decide_whether_a_source_has_to_run(
    content: str, known: str | None, state: tuple[bool, bool], attempts: tuple[int, int], expected: Decision
) -> None:
    complete, intact = state
    attempt, pipeline_attempt = attempts
    decision = decide(
        content, known, complete=complete, intact=intact, attempt=attempt, pipeline_attempt=pipeline_attempt
    )
    assert decision == expected


@given(st.data())
def test_only_a_complete_unchanged_source_is_skipped_and_no_old_output_is_mixed_in(data: st.DataObject) -> None:
    attempt = data.draw(st.integers(2, 9))
    pipeline_attempt = data.draw(st.integers(0, attempt))
    content = data.draw(st.sampled_from(["a", "b"]))
    begun = data.draw(st.integers(0, attempt - 1))
    known = data.draw(st.sampled_from([None, GONE, "a", f"a+{begun}" if begun else "a"]))
    complete = data.draw(st.booleans())
    intact = complete and data.draw(st.booleans())
    decision = decide(
        content, known, complete=complete, intact=intact, attempt=attempt, pipeline_attempt=pipeline_attempt
    )
    same = known is not None and known.partition("+")[0] == content
    assert decision.run == (not (same and complete and intact))
    assert decision.generation.partition("+")[0] == content
    if not decision.run:
        assert decision.generation == known
    else:  # results made now belong to the present pipeline
        since = sorted({0, pipeline_attempt})
        assert since[plan_of(decision.generation, since)] == pipeline_attempt
    if known not in (None, GONE) and (not same or (complete and decision.run)):
        assert decision.generation == f"{content}+{attempt}"
