"""Which steps do torch stages do differently on a GPU?

Copies run beside the computation, answers are fetched late, and memory is measured. Core does not import torch: callers
pass it in. Names with ``cuda`` in them are for GPUs only; the others work on both.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Late(Protocol):
    """An answer that may not have arrived yet."""

    def result(self) -> NDArray[np.float32]:
        """Return the numbers; wait for them if necessary."""


class Here:
    """An answer that has arrived. It has the same interface as one that is still on its way."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer.float().numpy()

    def result(self) -> NDArray[np.float32]:
        return self._answer  # type: ignore[no-any-return]


class OnItsWayFromCuda:
    """An answer that a GPU may still be computing: it is copied to pinned memory, and `result` waits for it."""

    def __init__(self, answer: Any, torch: Any) -> None:
        answer = answer.float()
        self._host = torch.empty(answer.shape, dtype=answer.dtype, pin_memory=True)
        self._host.copy_(answer, non_blocking=True)
        self._done = torch.cuda.Event()
        self._done.record()

    def result(self) -> NDArray[np.float32]:
        self._done.synchronize()
        return self._host.numpy()  # type: ignore[no-any-return]


def fetch(answer: Any, device: str, torch: Any) -> Late:
    """Fetch an answer, without waiting for a GPU; `result` returns its numbers."""
    return OnItsWayFromCuda(answer, torch) if device.startswith("cuda") else Here(answer.cpu())


class SendToCuda:
    """Sends tensors to a GPU on a separate stream, so that they arrive while earlier ones are processed.

    Only later computation on the current stream waits for the copy.
    """

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._stream = torch.cuda.Stream()

    def __call__(self, tensor: Any) -> Any:
        """The tensor on the GPU. The pinned memory comes from torch's cache, which does not reuse it before the copy
        ends.
        """
        cuda = self._torch.cuda
        pinned = tensor.pin_memory()
        with cuda.stream(self._stream):
            there = pinned.to("cuda", non_blocking=True)
        computing = cuda.current_stream()
        computing.wait_stream(self._stream)
        there.record_stream(computing)  # its memory is freed after the computation, not after the copy
        return there


def sender(device: str, torch: Any) -> Callable[[Any], Any]:
    """A function that sends a tensor from this process's memory to the device."""
    return SendToCuda(torch) if device.startswith("cuda") else lambda tensor: tensor.to(device)


def copied_cuda(parts: Sequence[Any], torch: Any) -> Any:
    """Copy tensors of another library on this GPU into one torch tensor; when this returns, their memory may be reused.

    The copy has a stream of its own, so that waiting for it does not wait for other computation.
    """
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        whole = torch.cat(list(parts))
    stream.synchronize()
    whole.record_stream(torch.cuda.current_stream())
    return whole


def joined(parts: Sequence[Any], torch: Any) -> Any:
    """Join tensors of another library in one torch tensor."""
    return copied_cuda(parts, torch) if parts[0].is_cuda else torch.cat(list(parts))


def seconds_cuda(work: Callable[[], Any], times: int, torch: Any) -> float:
    """The seconds that the GPU takes to run ``work`` ``times`` times, after one run to warm up."""
    work()
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(times):
        work()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1000


def items_that_fit_cuda(work: Callable[[int], Any], memory_gb: float, share: float, torch: Any) -> float:
    """The number of items that fit in the memory of a GPU, from the measured memory of ``work(count)``.

    ``memory_gb`` is the memory that a worker may use, 0 for all of it. Only ``share`` of the free memory is used, to
    allow for fragmentation.
    """
    peaks = []
    # The first round does not count, because libraries allocate their workspaces in it.
    for count in (8, 8, 16):
        torch.cuda.reset_peak_memory_stats()
        work(count)
        torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated())
    each = max(1, (peaks[2] - peaks[1]) // 8)
    resident = torch.cuda.memory_allocated()
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0]
    room = min(free, memory_gb * 1e9 - resident) if memory_gb else free
    return float(max(room, 0) * share / each)


def is_out_of_memory(error: BaseException, torch: Any) -> bool:
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or any(
        sign in str(error).lower() for sign in ("out of memory", "can't allocate memory", "not enough memory")
    )


def free_memory(torch: Any) -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
