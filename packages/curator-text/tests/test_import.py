"""Importing the package starts nothing and loads nothing heavy."""

from __future__ import annotations

import pytest

from curator_core.testing import ImportCheck, import_checks


@pytest.mark.slow
@pytest.mark.parametrize("check", import_checks("curator_text"), ids=lambda check: check.name)
def test_importing(check: ImportCheck) -> None:
    check.run()
