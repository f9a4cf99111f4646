"""Stands in for the two Python agents of a local Ray's node until one of them is needed.

    python -I -S node_agent.py PATH_OF_RAYS_AGENT ARGUMENTS...

A Ray node joins only when both agents have written their ports to files, and each agent imports Ray first: on two CPUs,
that adds more than a second to the start. The first agent serves the dashboard; its stand-in reports that there is
none. The second agent makes environments for workers; at the first connection to its port, the stand-in becomes Ray's
own agent in the same process. The stand-in runs without site-packages and imports only what it needs, so it is ready at
once.
"""

from __future__ import annotations

import os
import socket
import sys
import time

NO_SERVICE = -1
DASHBOARD_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
ENVIRONMENTS_PORT = "runtime_env_agent_port"
# Passes the listening socket of this process on to the agent that takes over.
SOCKET = "CURATOR_AGENT_SOCKET"


def main() -> None:
    agent, arguments = sys.argv[1], sys.argv[2:]
    given = dict(argument.partition("=")[::2] for argument in arguments)
    folder, node = given["--session-dir"], given["--node-id"]
    _end_with_parent()
    if os.path.basename(agent) != "main.py":  # noqa: PTH119 - importing pathlib would cost time
        for name in DASHBOARD_PORTS:
            _write_port(folder, name, node, NO_SERVICE)
        _wait_for_parent()
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((given["--node-ip-address"], int(given["--runtime-env-agent-port"] or 0)))
    listening.listen(128)
    _write_port(folder, ENVIRONMENTS_PORT, node, listening.getsockname()[1])
    _wait_for_connection(listening)
    # The connection waits in the socket's queue until the agent accepts it.
    os.set_inheritable(listening.fileno(), True)
    os.environ[SOCKET] = str(listening.fileno())
    os.execv(sys.executable, [sys.executable, "-u", os.path.abspath(__file__), "--take-over", agent, *arguments])  # noqa: PTH100, S606


def take_over(agent: str, arguments: list[str]) -> None:
    """Run Ray's own agent on the socket on which this process has been listening."""
    import runpy

    inherited = int(os.environ.pop(SOCKET))
    address = socket.socket(fileno=os.dup(inherited)).getsockname()

    class Inherited(socket.socket):
        def bind(self, where: object) -> None:
            if isinstance(where, tuple) and where[0] == address[0] and where[1] in (0, address[1]):
                os.dup2(inherited, self.fileno())
            else:
                super().bind(where)  # type: ignore[arg-type]

    socket.socket = Inherited  # type: ignore[misc]
    sys.argv = [agent, *arguments]
    sys.path[0] = os.path.dirname(agent)  # noqa: PTH120
    runpy.run_path(agent, run_name="__main__")


def _write_port(folder: str, name: str, node: str, port: int) -> None:
    path = f"{folder}/{name}_{node}"
    with open(f"{path}.new", "w") as file:  # noqa: PTH123
        file.write(str(port))
    os.replace(f"{path}.new", path)  # noqa: PTH105


def _end_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL


def _wait_for_parent() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def _wait_for_connection(listening: socket.socket) -> None:
    import select

    parent = os.getppid()
    while not select.select([listening], [], [], 0.5)[0]:
        if os.getppid() != parent:
            os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "--take-over":
        take_over(sys.argv[2], sys.argv[3:])
    else:
        main()
