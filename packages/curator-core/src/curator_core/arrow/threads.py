"""How many threads may Arrow and the BLAS of numpy use in this process?"""

from __future__ import annotations

import ctypes
import os
import sys

import pyarrow as pa

# The variables by which users limit OpenBLAS.
_VARIABLES = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
# The function that sets the number, by the names that it has in builds of numpy.
_SETTERS = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)


def use_threads(number: int) -> None:
    """Let Arrow and BLAS use this many threads. Without a limit, the BLAS of each worker starts a thread for every CPU,
    and the threads of all workers wait for one another.

    A limit for BLAS that is set in the environment stays. Another BLAS than OpenBLAS is left as it is.
    """
    pa.set_cpu_count(number)
    if any(os.environ.get(name) for name in _VARIABLES):
        return
    setter = openblas(_SETTERS)
    if setter is not None:
        setter(number)


def openblas(names: tuple[str, ...]) -> ctypes._NamedFuncPointer | None:
    """The first of these functions that the OpenBLAS of numpy has; None if numpy has another BLAS."""
    # Arrow imports numpy.
    module = sys.modules.get("numpy._core._multiarray_umath") or sys.modules.get("numpy.core._multiarray_umath")
    if module is None or module.__file__ is None:
        return None
    try:
        library = ctypes.CDLL(module.__file__)  # a name is also looked up in the libraries that this one has loaded
    except OSError:
        return None
    return next((getattr(library, name) for name in names if hasattr(library, name)), None)
