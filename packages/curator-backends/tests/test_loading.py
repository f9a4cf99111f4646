"""The driver's imports on a separate thread are complete before a segment runs."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from curator_backends.cluster import Cluster
from curator_backends.executor import RayExecutor
from curator_backends.options import RayOptions

MODULE = "imported_on_a_thread_for_this_test"


class Segment:
    def results(self) -> Iterator[bool]:
        yield hasattr(sys.modules.get(MODULE), "complete")


class Executor(RayExecutor[RayOptions]):
    """Uses a cluster that runs already, so that nothing waits for Ray's processes."""

    options_type = RayOptions
    driver_modules = (MODULE,)
    go: Path

    def require_engine(self) -> None:
        pass

    def connect(self, meanwhile: Callable[[], None]) -> AbstractContextManager[Cluster]:
        return contextlib.nullcontext(Cluster((), ours=False, name="a cluster"))

    def segment(self, run: Any, cluster: Cluster) -> Any:
        threading.Timer(0.1, self.go.touch).start()
        return Segment()


def test_a_segment_waits_for_the_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise both threads import an engine's modules, and one may see modules that are half made."""
    go = tmp_path / "go"
    waits = f"import time\nfrom pathlib import Path\nwhile not Path({str(go)!r}).exists():\n    time.sleep(0.001)\n"
    (tmp_path / f"{MODULE}.py").write_text(f"{waits}complete = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    executor = Executor()
    executor.go = go
    executor.open()
    try:
        assert list(executor.run_segment(None)) == [True]  # type: ignore[arg-type]
    finally:
        executor.close()
        sys.modules.pop(MODULE, None)
