"""The examples in the documents run unchanged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[1]
DOCUMENTS = [HERE / "README.md", HERE.parents[1] / "docs" / "writing-a-stage.md"]


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_python_snippet_runs_one_after_the_other(document: Path, tmp_path: Path) -> None:
    if not document.exists():
        pytest.skip("the documents of the workspace are not here")
    snippets = re.findall(r"^```python\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    # `make docs-check` runs the examples that need other packages and files.
    snippets = [snippet for snippet in snippets if "from curator_text" not in snippet]
    assert snippets
    script = tmp_path / "script.py"
    script.write_text("\n".join(snippets))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    if document.name == "README.md":
        assert "['a line that is long enough', 'another line that is long enough']" in done.stdout
        assert "RunResult('notes' done: 2 results, 2 sources, rows dropped 1" in done.stdout
