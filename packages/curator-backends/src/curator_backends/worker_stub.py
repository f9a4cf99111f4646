"""Stands in for the script that Ray runs for each worker: has the worker forked, and waits until it ends.

    python -S worker_stub.py ARGUMENTS...

A process that has imported Ray forks the worker (see `curator_backends.worker_template`). If there is none, or if the
worker needs an environment of its own, this process becomes Ray's script. It runs without site-packages and imports
only what it needs, because it is started for every worker.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import sys

# The variables with the name of the template's socket, and with the path of Ray's script.
SOCKET, SCRIPT = "CURATOR_WORKER_SOCKET", "CURATOR_WORKER_SCRIPT"
FORKED = b"f"
LENGTH_BYTES = 8


def main() -> None:
    arguments = sys.argv[1:]
    if "--runtime-env-hash=0" in arguments and _forked(arguments):
        return
    os.execv(sys.executable, [sys.executable, os.environ[SCRIPT], *arguments])  # noqa: S606


def _forked(arguments: list[str]) -> bool:
    """Have the worker forked, and wait until it has ended; return False if it was not forked."""
    request = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),  # noqa: PTH109 - importing pathlib would cost time
        "group": os.getpgrp(),
        "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "interrupted": signal.getsignal(signal.SIGINT) is not signal.SIG_IGN,
    }
    text = json.dumps(request).encode()
    template = socket.socket(socket.AF_UNIX)
    try:
        template.connect("\0" + os.environ[SOCKET])
        streams = array.array("i", [0, 1, 2])
        template.sendmsg([len(text).to_bytes(LENGTH_BYTES, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        template.sendall(text)
        if template.recv(1) != FORKED:
            return False
    except OSError:
        return False
    # The worker holds the other end as long as it lives, and ends when this process is ended.
    template.recv(1)
    return True


if __name__ == "__main__":
    main()
