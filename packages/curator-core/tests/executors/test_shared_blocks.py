"""Messages in memory that two processes share: they arrive unchanged and uncopied, and nothing of them is left
behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core.executors.shared_blocks import INLINE_BYTES, Channel


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    left, right = (Channel(end) for end in socket.socketpair())
    yield left, right
    left.close()
    right.close()


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 3 * INLINE_BYTES), max_size=5), text=st.text())
def test_sent_messages_arrive(sizes: list[int], text: str) -> None:
    left, right = (Channel(end) for end in socket.socketpair())
    buffers = [pa.py_buffer(bytes([index + 1]) * size) for index, size in enumerate(sizes)]
    sender = threading.Thread(target=left.send, args=(text, buffers))
    sender.start()
    value, received = right.receive()
    sender.join()
    assert value == text
    assert [buffer.to_pybytes() for buffer in received] == [buffer.to_pybytes() for buffer in buffers]
    left.close()
    with pytest.raises(EOFError):
        right.receive()
    right.close()


def mapped() -> int:
    """How many blocks this process holds."""
    return sum("memfd:curator" in line for line in Path("/proc/self/maps").read_text().splitlines())


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def shared_files() -> set[str]:
    folder = Path("/dev/shm")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="looks for blocks of Linux in /proc")
def test_a_block_is_freed_with_its_last_reader(ends: tuple[Channel, Channel]) -> None:
    before, open_before = mapped(), descriptors()
    data = pa.table({"pixels": [bytes(INLINE_BYTES)] * 4})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, data.schema) as writer:
        writer.write_table(data)
    ends[0].send("a table", [sink.getvalue()])
    assert mapped() == before, "the sender keeps nothing"
    _, (buffer,) = ends[1].receive()
    table = pa.ipc.open_stream(buffer).read_all()
    del buffer
    assert table.equals(data)
    assert mapped() == before + 1, "the table points into the block"
    del table
    assert mapped() == before
    assert descriptors() == open_before


SENDER = """
import socket, sys
import pyarrow as pa
from curator_core.executors.shared_blocks import Channel
channel = Channel(socket.socket(fileno=int(sys.argv[1])))
while True:
    channel.send("a block", [pa.py_buffer(bytes(8 << 20))])
"""


def receive_all(channel: Channel) -> None:
    while True:
        channel.receive()


@pytest.mark.slow
def test_a_process_killed_while_sending_leaves_nothing_behind(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = socket.socketpair()
    before = shared_files()
    sender = subprocess.Popen([sys.executable, "-c", SENDER, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    channel = Channel(ours)
    for _ in range(3):
        channel.receive()
    sender.send_signal(signal.SIGKILL)
    sender.wait()
    with pytest.raises((EOFError, OSError)):
        receive_all(channel)
    channel.close()
    assert not [name for name in shared_files() - before if "curator" in name]
