"""How many threads may numpy use for products of matrices in this process?"""

from __future__ import annotations

import ctypes
import os
import sys

_SETTINGS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
# The function of OpenBLAS, as numpy's wheels and other builds name it.
_NAMES = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)
_MODULES = ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath")


def limit_blas_threads(threads: int) -> bool:
    """Let numpy use this many threads; return whether that is possible.

    Without a limit, each of several workers starts a thread for each core, and the threads wait for one another in
    loops that take processor time. Nothing is changed if the environment sets the number, or if numpy is not loaded or
    uses another library than OpenBLAS.
    """
    if any(os.environ.get(name) for name in _SETTINGS):
        return False
    return _set_blas_threads(threads)


def obey_environment() -> bool:
    """Let numpy use the number of threads that the environment sets, although it was loaded in another environment;
    return whether one is set and that is possible.
    """
    for name in _SETTINGS:
        value = os.environ.get(name, "").strip()
        if value.isdigit() and int(value):
            return _set_blas_threads(int(value))
    return False


def _set_blas_threads(threads: int) -> bool:
    module = next((sys.modules[name] for name in _MODULES if name in sys.modules), None)
    path = getattr(module, "__file__", None)
    if path is None:
        return False
    try:
        library = ctypes.CDLL(path)  # it is loaded already; names are also looked up in the libraries that it uses
    except OSError:
        return False
    for name in _NAMES:
        call = getattr(library, name, None)
        if call is not None:
            call(ctypes.c_int(threads))
            return True
    return False
