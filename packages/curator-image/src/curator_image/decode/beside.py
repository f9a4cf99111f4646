"""Keeps pixels on the device where they were decoded until a model on that device uses them.

The pixels are a torch tensor that is kept outside the table; torch is imported only if such a tensor is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curator_core.model.cuda import joined
from curator_image.batch import tensor_column


class PixelsBeside:
    """Pixels ``(rows, height, width, 3)`` on a device; ``metadata`` is their column's metadata."""

    def __init__(self, tensor: Any, metadata: dict[bytes, bytes]) -> None:
        self.tensor = tensor
        self.metadata = metadata

    def filter(self, mask: pa.BooleanArray) -> PixelsBeside:
        import torch

        kept = torch.from_numpy(np.flatnonzero(mask.to_numpy(zero_copy_only=False)))
        return PixelsBeside(self.tensor.index_select(0, kept.to(self.tensor.device)), self.metadata)

    def landed(self) -> tuple[pa.Field, pa.Array]:
        column = tensor_column(self.tensor.cpu().numpy())
        return pa.field("", column.type, metadata=self.metadata), column


def whole_batch(
    pieces: Sequence[tuple[Sequence[int], Any]], rows: int, shape: tuple[int, int, int], device: str
) -> Any:
    """The pictures of a batch as one tensor on the device. Each piece is a list of rows with a tensor or an array; all
    other rows are black.
    """
    import torch

    here = [(at, piece) for at, piece in pieces if isinstance(piece, torch.Tensor)]
    there = [(at, torch.from_numpy(piece).to(device)) for at, piece in pieces if not isinstance(piece, torch.Tensor)]
    if here:
        copied = joined([piece for _, piece in here], torch)
        if len(copied) == rows:  # the usual case: DALI has decoded all of them, in order
            return copied
        there.append(([row for at, _ in here for row in at], copied))
    whole = torch.zeros((rows, *shape), dtype=torch.uint8, device=device)
    for at, values in there:
        whole[torch.tensor(list(at), device=device)] = values
    return whole
