"""Checks for executors and packages of stages, which you can run on your own ones.

::

    from curator_core.testing import Subject, checks

    SUBJECT = Subject("my_package.executor:MyExecutor", {"workers": 2}, can={"processes", "spread"})

    @pytest.mark.parametrize("check", checks(SUBJECT), ids=lambda check: check.name)
    def test_my_executor_conforms(check, tmp_path):
        check.run(SUBJECT, tmp_path)

`import_checks` are the checks for a package: importing it starts nothing and loads nothing heavy.

The checks do not need pytest: a check raises an `AssertionError` that says what went wrong.
"""

from __future__ import annotations

from curator_core.testing.conformance import ABILITIES, CHECKS, Check, Subject, checks
from curator_core.testing.imports import ImportCheck, import_checks

__all__ = ["ABILITIES", "CHECKS", "Check", "ImportCheck", "Subject", "checks", "import_checks"]
