"""Chooses the device of a model, sends inputs to it and measures how much fits. Code that only a GPU needs is in
`curator_core.model.cuda`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator_core.errors import UsageError
from curator_core.model.cuda import items_that_fit_cuda

LARGEST_BATCH_TOKENS = 1 << 18


def choose_device(stage: str, device: str, torch: Any) -> str:
    """The full name of the device; raises if it does not exist."""
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if chosen.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"{stage}.device is {chosen!r}, but torch sees no GPU here: give auto or cpu")
    return chosen


def choose_dtype(dtype: str, device: str, torch: Any) -> str:
    """The number type for computing: ``auto`` is bfloat16 on a GPU (float16 if the GPU lacks it) and float32 elsewhere."""
    if dtype != "auto":
        return dtype
    if not device.startswith("cuda"):
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def multiply_in_bfloat16(model: Any, torch: Any) -> None:
    """Let the linear layers of a float32 model multiply in bfloat16, with float32 before and after each of them.

    So numbers are rounded in the products alone, which take most of the time, and results are closer to those of float32
    than with all numbers in bfloat16.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)
            module.register_forward_pre_hook(lambda _, given: (given[0].to(torch.bfloat16), *given[1:]))
            module.register_forward_hook(lambda _module, _given, made: made.float())


def send(inputs: Mapping[str, Any], device: str, torch: Any) -> dict[str, Any]:
    """The inputs, with arrays as tensors on the device. For a GPU, they are copied from pinned memory, so that nothing
    waits for the copy.
    """
    on_gpu = device.startswith("cuda")

    def sent(array: NDArray[np.int64]) -> Any:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(device, non_blocking=True) if on_gpu else tensor.to(device)

    return {key: sent(value) if isinstance(value, np.ndarray) else value for key, value in inputs.items()}


def tokens_that_fit_cuda(compute: Callable[[int], Any], width: int, memory_gb: float, torch: Any) -> int:
    """How many tokens fit into the memory of a GPU. ``compute`` is called with the number of texts of ``width`` tokens
    to try.
    """
    with torch.inference_mode():
        # A third of the memory stays free for other batches in progress and for fragmentation.
        texts = items_that_fit_cuda(compute, memory_gb, 0.66, torch)
    return max(width, min(LARGEST_BATCH_TOKENS, int(texts * width)))
