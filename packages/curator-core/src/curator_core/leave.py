"""How does a process end whose work is done, without taking itself apart first?"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End this process as the interpreter does, except that modules and objects are not freed one by one.

    Threads that are not daemons are waited for, what is registered with `atexit` runs, and the streams are flushed. After a
    run the rest of the interpreter's end takes a tenth of a second, for memory that the kernel frees anyway.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # as `multiprocessing` ends its processes
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed
                stream.flush()
    os._exit(code)
