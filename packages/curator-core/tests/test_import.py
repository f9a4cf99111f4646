"""Importing the package starts nothing and loads nothing heavy, and the checks of that can fail."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import curator_core
from curator_core.testing import ImportCheck, import_checks


@pytest.mark.slow
@pytest.mark.parametrize("check", import_checks("curator_core"), ids=lambda check: check.name)
def test_importing(check: ImportCheck) -> None:
    check.run()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "failing", "complaint"),
    [
        ({"__init__.py": "import ray"}, "starts nothing", "import mine loads ray"),
        ({"__init__.py": "import curator_text"}, "starts nothing", "loads curator_text"),
        ({"__init__.py": "import os; os.environ['X'] = '1'"}, "starts nothing", "changed environment variables"),
        (
            {
                "__init__.py": "import threading, time; threading.Thread(target=time.sleep, args=(5,), daemon=True).start()"
            },
            "starts nothing",
            "started threads",
        ),
        ({"__init__.py": "import time; time.sleep(0.6)"}, "less than half a second", "takes 0.6"),
        ({"__init__.py": "", "deep.py": "import torch"}, "every module", "importing every module of mine loads torch"),
    ],
)
def test_a_heavy_import_is_found(
    files: dict[str, str], failing: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    for name, text in files.items():
        (tmp_path / "mine" / name).write_text(text)
    for heavy in ("ray", "torch", "curator_text"):  # the real ones need not be here
        (tmp_path / f"{heavy}.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (check,) = [one for one in import_checks("mine") if failing in one.name]
    with pytest.raises(AssertionError, match=complaint):
        check.run()


@pytest.mark.slow
def test_no_module_imports_a_private_name_of_another() -> None:
    folder = Path(curator_core.__file__).parent
    taken = [
        f"{path.relative_to(folder)} takes {alias.name} from {node.module}"
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert taken == []
