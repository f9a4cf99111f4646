"""How does a process end when the process that started it ends?"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time


def end_with_parent(parent: int) -> None:
    """End this process when ``parent`` is gone, and so the driver: a worker that outlives its driver would write alongside
    the resumed run.
    """
    if sys.platform == "linux":
        die_with_parent()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="driver-watch").start()


def die_with_parent() -> None:
    """On Linux, let the kernel kill this process when the thread that started it ends: at once, and even inside native
    code.
    """
    pr_set_pdeathsig = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, int(signal.SIGKILL))
