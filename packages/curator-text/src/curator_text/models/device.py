"""Where a model computes: what goes there, what comes back, and how much fits.

The functions with ``cuda`` in their names are all that differs on a GPU.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator_core.errors import UsageError

LARGEST_BATCH_TOKENS = 1 << 18


class Here:
    """An answer that is computed: what is on its way from a GPU looks the same."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer.float().numpy()

    def result(self) -> NDArray[np.float32]:
        return self._answer  # type: ignore[no-any-return]


class OnItsWayFromCuda:
    """An answer that a GPU may still be computing: it is copied into pinned memory, and waited for when it is used."""

    def __init__(self, answer: Any, torch: Any) -> None:
        answer = answer.float()
        self._host = torch.empty(answer.shape, dtype=answer.dtype, pin_memory=True)
        self._host.copy_(answer, non_blocking=True)
        self._done = torch.cuda.Event()
        self._done.record()

    def result(self) -> NDArray[np.float32]:
        self._done.synchronize()
        return self._host.numpy()  # type: ignore[no-any-return]


def choose_device(stage: str, device: str, torch: Any) -> str:
    """The device by its full name; an error where it is not there."""
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if chosen.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"{stage}.device is {chosen!r}, and torch sees no GPU here: give auto or cpu")
    return chosen


def choose_dtype(dtype: str, device: str, torch: Any) -> str:
    """The numbers to compute with: ``auto`` is bfloat16 on a GPU (float16 on one without it) and float32 elsewhere."""
    if dtype != "auto":
        return dtype
    if not device.startswith("cuda"):
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def send(inputs: Mapping[str, NDArray[np.int64]], device: str, torch: Any) -> dict[str, Any]:
    """The inputs as tensors on the device; for a GPU through pinned memory, so that nothing waits for the copy."""
    tensors = {key: torch.from_numpy(value) for key, value in inputs.items()}
    if device.startswith("cuda"):
        return {key: value.pin_memory().to(device, non_blocking=True) for key, value in tensors.items()}
    return {key: value.to(device) for key, value in tensors.items()}


def fetch(answer: Any, device: str, torch: Any) -> Here | OnItsWayFromCuda:
    """The answer, or a promise of it: `result` gives its numbers."""
    return OnItsWayFromCuda(answer, torch) if device.startswith("cuda") else Here(answer.cpu())


def tokens_that_fit_cuda(forward: Callable[[dict[str, Any]], Any], width: int, memory_gb: float, torch: Any) -> int:
    """How many tokens fit the memory of a GPU, from the measured need of a text of ``width`` tokens."""
    peaks = []
    with torch.inference_mode():
        # The first round does not count: libraries allocate their workspaces then.
        for count in (8, 8, 16):
            torch.cuda.reset_peak_memory_stats()
            ones = torch.ones((count, width), dtype=torch.int64, device="cuda")
            forward({"input_ids": ones, "attention_mask": ones})
            torch.cuda.synchronize()
            peaks.append(torch.cuda.max_memory_allocated())
    each = max(1, (peaks[2] - peaks[1]) // (8 * width))
    resident = torch.cuda.memory_allocated()
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0]
    room = min(free, memory_gb * 1e9 - resident) if memory_gb else free
    # Several batches are in flight, and the allocator has fragments: a third stays free.
    return max(width, min(LARGEST_BATCH_TOKENS, int(max(room, 0) * 0.66 / each)))


def is_out_of_memory(error: BaseException, torch: Any) -> bool:
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or any(
        sign in str(error).lower() for sign in ("out of memory", "can't allocate memory", "not enough memory")
    )


def free_memory(torch: Any) -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
