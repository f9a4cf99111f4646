"""The replacement for the Python agents of a local Ray's node, tested with our own agent instead of Ray's."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from curator_backends import node_agent
from curator_core.testing.waiting import wait_for

AGENT = """
import os, socket, sys
from pathlib import Path
given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
listening = socket.socket()
listening.bind((given["--node-ip-address"], int(given["--runtime-env-agent-port"])))
listening.listen()
connection, _ = listening.accept()
connection.sendall(b"agent " + str(os.getpid()).encode() + b" got " + connection.recv(100))
connection.close()
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def start(agent: Path, folder: Path) -> subprocess.Popen[bytes]:
    arguments = [
        f"--session-dir={folder}",
        "--node-id=abc",
        "--node-ip-address=127.0.0.1",
        "--runtime-env-agent-port=0",
    ]
    return subprocess.Popen([sys.executable, "-I", "-S", node_agent.__file__, str(agent), *arguments])


def test_the_agent_of_environments_starts_with_the_first_connection_and_answers_it(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    agent = tmp_path / "main.py"
    agent.write_text(AGENT)
    processes.append(start(agent, tmp_path))
    port = tmp_path / "runtime_env_agent_port_abc"
    wait_for(port.exists, "the port")
    with socket.create_connection(("127.0.0.1", int(port.read_text()))) as connection:
        connection.sendall(b"a question")
        assert connection.recv(100).decode() == f"agent {processes[0].pid} got a question"
    assert processes[0].wait(timeout=60) == 0


def test_the_agent_of_the_dashboard_reports_that_it_serves_nothing(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    processes.append(start(tmp_path / "agent.py", tmp_path))
    ports = [tmp_path / f"{name}_abc" for name in node_agent.DASHBOARD_PORTS]
    wait_for(lambda: all(port.exists() for port in ports), "the ports")
    assert [port.read_text() for port in ports] == ["-1"] * 3
    assert processes[0].poll() is None, "a node whose agent ends, ends"


@pytest.mark.ray
def test_the_port_files_have_the_names_that_the_installed_ray_uses(tmp_path: Path) -> None:
    raylet = pytest.importorskip("ray._raylet")
    names = (raylet.METRICS_AGENT_PORT_NAME, raylet.METRICS_EXPORT_PORT_NAME, raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME)
    assert names == node_agent.DASHBOARD_PORTS
    assert raylet.RUNTIME_ENV_AGENT_PORT_NAME == node_agent.ENVIRONMENTS_PORT
    node = "0123" * 14
    raylet.persist_port(str(tmp_path), node, node_agent.ENVIRONMENTS_PORT, 1234)
    assert (tmp_path / f"{node_agent.ENVIRONMENTS_PORT}_{node}").read_text() == "1234"
