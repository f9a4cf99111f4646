"""The suite that every executor must pass, over LocalExecutor: in this process, and with two workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from curator_core.errors import UsageError
from curator_core.testing import Check, Subject, checks

HERE = Subject("local", {"workers": 0}, name="in process")
TWO = Subject("local", {"workers": 2}, frozenset({"processes"}), name="two workers")


CASES = [
    *(pytest.param(HERE, check) for check in checks(HERE)),
    *(pytest.param(TWO, check, marks=pytest.mark.slow) for check in checks(TWO)),  # all of them together
]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("subject", "check"), CASES, ids=str)
def test_the_executor_conforms(subject: Subject, check: Check, tmp_path: Path) -> None:
    check.run(subject, tmp_path)


def test_an_unknown_ability_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no such ability: flying\. Known: processes"):
        Subject("local", can=frozenset({"flying"}))


def test_an_executor_that_survives_the_loss_of_a_node_says_how_to_lose_one() -> None:
    with pytest.raises(UsageError, match="requires lose_node"):
        Subject("local", can=frozenset({"nodes"}))
