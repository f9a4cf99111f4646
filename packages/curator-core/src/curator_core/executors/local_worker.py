"""A worker process of LocalExecutor: reads tasks from a socket, runs them, and answers; ends when its driver does."""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

_STOP = b"stop"
_FLUSH = b"flush"


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    marker = int(sys.argv[2])
    _end_with(int(sys.argv[3]))
    # Ctrl-C reaches the whole process group; the driver decides what happens. SystemExit unwinds half-written files.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        start = json.loads(connection.recv_bytes())
        sys.path[:] = start["path"]
        _work(connection, marker, start)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _work(connection: Connection, marker: int, start: dict[str, Any]) -> None:
    import cloudpickle  # after sys.path is that of the driver
    import pyarrow as pa

    from curator_core.accounts.ledger import LedgerWriter, MemorySink
    from curator_core.model.codec import decode_task
    from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
    from curator_core.model.machine import gpu_numbers
    from curator_core.worker.group import GroupRunner

    pa.set_cpu_count(start["threads"])

    def answer(kind: str, value: Any = None) -> None:
        connection.send_bytes(cloudpickle.dumps((kind, value)))

    def fail(index: int, error: BaseException) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the driver will end us for it; teardown comes first
        try:
            answer("error", (index, error))
        except Exception:  # an exception that cannot be pickled travels as its text
            from curator_core.errors import CuratorError

            answer("error", (index, CuratorError(f"{type(error).__name__}: {error}")))

    runner = None
    try:
        payload, node_first, worker_id = cloudpickle.loads(connection.recv_bytes())
        stages, context, ending, folder = cloudpickle.loads(payload)
        worker = WorkerMetadata(worker_id, gpu_numbers((start["card"] or "").split(",")))
        runner = GroupRunner(stages, context, ending=ending, folder=folder)
        if node_first:
            runner.setup_on_node(NodeInfo(), worker)
            answer("node ready")
        runner.setup(worker)
        sink = runner.sink
        answer("ready")
        while True:
            message = connection.recv_bytes()
            if message == _STOP:
                break
            if message == _FLUSH:
                sink.flush()
                answer("durable")
                continue
            began = time.perf_counter()
            for index, data in cloudpickle.loads(message):
                os.pwrite(marker, struct.pack("<q", index), 0)
                try:
                    for result in runner.run([decode_task(data)]):
                        result._pending, result._outputs = [], []
                        answer("result", _encoded(result))
                except Exception as error:
                    sink.flush()
                    fail(index, error)
                    return
                os.pwrite(marker, struct.pack("<q", -1), 0)
            seconds = time.perf_counter() - began
            if isinstance(sink, MemorySink):
                events = sink.take()
                counts = [count for event in events for count in event.counts]
                answer("chunk", (seconds, counts, events, True))
            else:
                assert isinstance(sink, LedgerWriter)
                durable = sink.due()
                if durable:
                    sink.flush()
                answer("chunk", (seconds, sink.take_counts(), None, durable))
    except Exception as error:
        fail(-1, error)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one that hangs here is killed after a few seconds
        if runner is not None:
            try:
                runner.teardown()
            except Exception as error:
                fail(-1, error)
            runner.flush()
    answer("stopped")


def _encoded(result: Any) -> bytes:
    from curator_core.errors import UsageError
    from curator_core.model.codec import encode_task

    try:
        return memoryview(encode_task(result)).tobytes()
    except Exception as error:
        raise UsageError(
            f"the result {result.task_id!r} cannot be sent from its worker process to the driver: {error}. End the "
            "pipeline with a table or a writer, or run with workers=0"
        ) from error


def _end_with(driver: int) -> None:
    """Leave when the driver is gone: a worker that writes on beside a resumed run would be a second hand."""
    if sys.platform == "linux":
        import ctypes

        # The kernel kills this process with the thread that started it: at once, and even inside native code.
        pr_set_pdeathsig = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, int(signal.SIGKILL))

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="driver-watch").start()


if __name__ == "__main__":
    main()
