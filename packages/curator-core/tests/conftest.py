"""Fixtures for all tests: an object store on this machine, the rights of an ordinary user, and processes that do not
outlive a failing test.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process in its own group; the rest of the group is killed when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def start(command: list[str], **how: Any) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(command, start_new_session=True, **how))
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def as_anyone() -> Iterator[None]:
    """Root may write everywhere; here it has only the rights of a file's owner."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the call, this thread
    rights = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice 32 of each
    assert libc.capget(header, rights) == 0, os.strerror(ctypes.get_errno())
    had = rights[0]
    rights[0] = had & ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, rights) == 0, os.strerror(ctypes.get_errno())
    yield
    rights[0] = had
    assert libc.capset(header, rights) == 0, os.strerror(ctypes.get_errno())


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """The URL of an empty bucket; the environment says where its server is, to child processes too."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    kept = dict(os.environ)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield "s3://bucket"
    s3fs.S3FileSystem.clear_instance_cache()
    os.environ.clear()
    os.environ.update(kept)
    server.stop()
