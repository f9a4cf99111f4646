"""How are large messages sent between processes of this machine? Their bytes are in shared memory, and only its
descriptor is sent.

The memory has no name: it is freed with the last process that holds it, however that process ends, so nothing is left
behind.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
import struct
import tempfile
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

# Smaller messages are faster to send than to map, and several of them fit into a socket whose other end is busy.
INLINE_BYTES = 8 << 10
_ALIGN = 64
_HEAD = struct.Struct("<IQ")  # bytes of the pickled part, bytes of the block (0: none)


class Channel:
    """One end of a socket pair. A message consists of a value and buffers. Only one thread at a time may use each
    direction.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def close(self) -> None:
        self._end.close()

    def shut(self) -> None:
        """Wake the threads that wait at either end."""
        self._end.shutdown(socket.SHUT_RDWR)

    def send(self, value: Any, buffers: Sequence[pa.Buffer] = ()) -> None:
        """Send a value and buffers; raise `OSError` if the other end is gone."""
        sizes = [buffer.size for buffer in buffers]
        starts, total = _laid_out(sizes)
        if total <= INLINE_BYTES:
            data = pickle.dumps((value, [buffer.to_pybytes() for buffer in buffers], None), pickle.HIGHEST_PROTOCOL)
            self._end.sendall(_HEAD.pack(len(data), 0) + data)
            return
        descriptor = _new_memory()
        try:
            os.truncate(descriptor, total)
            for start, buffer in zip(starts, buffers, strict=True):
                _write(descriptor, buffer, start)
            data = pickle.dumps((value, starts, sizes), pickle.HIGHEST_PROTOCOL)
            head = _HEAD.pack(len(data), total)
            sent = socket.send_fds(self._end, [head], [descriptor])
            self._end.sendall(head[sent:] + data)
        finally:
            os.close(descriptor)

    def receive(self) -> tuple[Any, list[pa.Buffer]]:
        """The next message; its buffers are views of the shared memory. Raise `EOFError` or `OSError` if the other end
        is gone.
        """
        head, descriptors, *_ = socket.recv_fds(self._end, _HEAD.size, 1)
        try:
            if not head:
                raise EOFError
            head += self._exactly(_HEAD.size - len(head))
            length, total = _HEAD.unpack(head)
            value, starts, sizes = pickle.loads(self._exactly(length))  # noqa: S301 - from a process of this run
            if sizes is None:
                return value, [pa.py_buffer(data) for data in starts]
            memory = pa.py_buffer(mmap.mmap(descriptors[0], total, prot=mmap.PROT_READ))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return value, [memory.slice(start, size) for start, size in zip(starts, sizes, strict=True)]

    def _exactly(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            part = self._end.recv(min(length - len(parts), 1 << 20))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)


def _laid_out(sizes: Sequence[int]) -> tuple[list[int], int]:
    """The offset of each buffer, aligned for arrays, and the total number of bytes."""
    starts, total = [], 0
    for size in sizes:
        starts.append(total)
        total += size + -size % _ALIGN
    return starts, total


def _new_memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("curator", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(descriptor: int, buffer: pa.Buffer, start: int) -> None:
    view = memoryview(buffer).cast("B")
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done : done + (64 << 20)], start + done)
