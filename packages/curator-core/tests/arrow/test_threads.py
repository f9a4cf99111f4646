"""Arrow and BLAS use the number of threads that is set, unless the environment sets another one."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curator_core.arrow import threads


def test_arrow_and_blas_use_this_many_threads_unless_the_environment_limits_blas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in threads._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    setter = threads.openblas(threads._SETTERS)
    getter = threads.openblas(tuple(name.replace("_set_", "_get_") for name in threads._SETTERS))
    if setter is None or getter is None:
        pytest.skip("numpy has another BLAS than OpenBLAS")
    before = pa.cpu_count(), getter()
    try:
        setter(2)
        threads.use_threads(1)
        assert (pa.cpu_count(), getter()) == (1, 1)
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
        threads.use_threads(2)
        assert (pa.cpu_count(), getter()) == (2, 1)
    finally:
        pa.set_cpu_count(before[0])
        setter(before[1])
