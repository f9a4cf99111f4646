"""A process that leaves loses nothing: threads end, what is registered runs, what was printed is there."""

from __future__ import annotations

import subprocess
import sys

LEAVES = """\
import atexit, sys, threading
from curator_core.leave import leave

class Freed:
    def __del__(self):
        print("freed")

kept = Freed()
kept.itself = kept
begun = threading.Event()

def last():
    begun.set()
    threading.main_thread().join(0.05)
    print("thread")

atexit.register(print, "registered")
thread = threading.Thread(target=last)
thread.start()
begun.wait()
print("error", file=sys.stderr)
leave(3)
"""


def test_a_process_that_leaves_ends_as_usual_but_does_not_free_memory() -> None:
    done = subprocess.run([sys.executable, "-c", LEAVES], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("thread\nregistered\n", "error\n", 3)
    usual = LEAVES.replace("leave(3)", "sys.exit(3)")
    done = subprocess.run([sys.executable, "-c", usual], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("thread\nregistered\nfreed\n", "error\n", 3)


def test_streams_that_the_caller_has_closed_are_no_error() -> None:
    code = "import os, sys; from curator_core.leave import leave; sys.stdout = None; os.close(2); leave(4)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 4
