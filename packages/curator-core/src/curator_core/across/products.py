"""Where are the products of vectors computed? By numpy and BLAS on the CPU, or by torch on the GPU of the stage, with
the same result to the byte.

The factors are whole numbers whose products and sums are exact in float32 (see `curator_core.across.vectors`), so the
order of sums does not change a result. `Products.at_least` also takes vectors of length one: its caller leaves room for
the errors of sums, and checks all pairs that are found.

Core does not import torch: a package that uses it registers a module under ``curator.products`` with two functions,
``installed()``, which imports nothing, and ``make(device)``, which returns a `TorchProducts`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from curator_core.across.vectors import Memory, Vectors
from curator_core.errors import UsageError
from curator_core.model.machine import Machine
from curator_core.model.resources import Resources
from curator_core.model.stage import ColumnReader, MadeFor, ProcessingStage
from curator_core.model.task import FileGroupTask

GROUP = "curator.products"

type Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


class Products(Protocol):
    """Products of the rows of two matrices. A matrix that `put` returns can be sliced and indexed by
    rows.
    """

    # The number of products that one call of `nearest` should compute.
    block: int

    def put(self, numbers: Vectors) -> Any:
        """Put a matrix on the device that computes its products."""

    def nearest(self, vectors: Vectors, across: Any, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """For each vector, the columns of ``across`` with the ``count`` largest products, and these products. The
        largest comes first; equal ones keep their order.
        """

    def at_least(self, mine: Any, theirs: Any, limit: float) -> Pairs:
        """The pairs of rows of ``mine`` and ``theirs`` with a product of ``limit`` or more, in order."""

    def near(self, mine: Any, theirs: Any, limits: NDArray[np.float64], enough: int, wrong: float) -> Pairs:
        """Like `at_least`, with a limit for each row of ``mine``. If ``enough`` is not zero, each limit is raised to
        the product of rank ``enough`` in its row, minus ``wrong``.
        """


class NumpyProducts:
    """Products by numpy. The memory of blocks is used again: allocating it for each block takes a tenth of the time."""

    # The products of a block stay in the cache until the nearest are found.
    block = 1 << 20

    def __init__(self) -> None:
        self._memory = Memory()
        self._large = np.empty(0, np.bool_)

    def put(self, numbers: Vectors) -> Vectors:
        return numbers

    def nearest(self, vectors: Vectors, across: Any, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        made = self._memory.matrix(len(vectors), across.shape[1])
        np.matmul(vectors, across, out=made)
        at = np.arange(len(made))
        found, products = np.empty((len(made), count), np.int64), np.empty((len(made), count), np.float32)
        for turn in range(count):
            best = made.argmax(axis=1)
            found[:, turn], products[:, turn] = best, made[at, best]
            if turn + 1 < count:
                made[at, best] = -np.inf
        return found, products

    def at_least(self, mine: Any, theirs: Any, limit: float) -> Pairs:
        products, large = self._multiplied(mine, theirs)
        np.greater_equal(products, limit, out=large)
        rows = np.flatnonzero(large.any(axis=1))
        row, column = _places(large[rows])
        return rows[row], column

    def near(self, mine: Any, theirs: Any, limits: NDArray[np.float64], enough: int, wrong: float) -> Pairs:
        products, large = self._multiplied(mine, theirs)
        if enough:
            nearest = np.partition(products, products.shape[1] - enough, axis=1)[:, products.shape[1] - enough]
            limits = np.maximum(limits, nearest - wrong)
        np.greater_equal(products, limits[:, None], out=large)
        return _places(large)

    def _multiplied(self, mine: Any, theirs: Any) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The products of a block, and memory for the mask of large ones."""
        products = self._memory.matrix(len(mine), len(theirs))
        np.matmul(mine, theirs.T, out=products)
        if products.size > len(self._large):
            self._large = np.empty(products.size, np.bool_)
        return products, self._large[: products.size].reshape(products.shape)


def _places(large: NDArray[np.bool_]) -> Pairs:
    row, column = np.divmod(np.flatnonzero(large), large.shape[1])
    return row, column


class TorchProducts:
    """Products by torch on ``device``. Only the pairs that are found are copied back."""

    block = 1 << 24

    def __init__(self, torch: Any, device: str) -> None:
        self._torch, self._device = torch, device

    def put(self, numbers: Vectors) -> Any:
        return self._torch.from_numpy(np.ascontiguousarray(numbers)).to(self._device)

    def nearest(self, vectors: Vectors, across: Any, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        torch = self._torch
        with self._exact():
            made = self.put(vectors) @ across
        # The column number is appended to each product as its last digits. No two values are then equal, so nothing
        # depends on how torch sorts.
        width = made.shape[1]
        keys = made.to(torch.int64) * width + torch.arange(width - 1, -1, -1, device=self._device)
        best = torch.topk(keys, count, dim=1).values
        found = width - 1 - torch.remainder(best, width)
        return found.cpu().numpy(), torch.gather(made, 1, found).cpu().numpy()

    def at_least(self, mine: Any, theirs: Any, limit: float) -> Pairs:
        with self._exact():
            products = mine @ theirs.T
        return self._pairs(products >= limit)

    def near(self, mine: Any, theirs: Any, limits: NDArray[np.float64], enough: int, wrong: float) -> Pairs:
        torch = self._torch
        with self._exact():
            products = mine @ theirs.T
        least = torch.from_numpy(limits).to(self._device)
        if enough:
            # In float64, like the limits.
            nearest = torch.topk(products, enough, dim=1).values[:, -1].to(torch.float64)
            least = torch.maximum(least, nearest - wrong)
        return self._pairs(products.to(torch.float64) >= least[:, None])

    def _pairs(self, large: Any) -> Pairs:
        found = self._torch.nonzero(large).cpu().numpy()
        return found[:, 0], found[:, 1]

    @contextlib.contextmanager
    def _exact(self) -> Iterator[None]:
        """Compute in full float32: TF32 and bfloat16, which other stages of this process may have enabled, have too few
        digits.
        """
        torch = self._torch
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.autocast(self._device.split(":")[0], enabled=False), torch.inference_mode():
                yield
        finally:
            torch.set_float32_matmul_precision(before)


def products_for(resources: Resources, owner: str) -> Products:
    """The products for a stage with these resources."""
    if not resources.requires_gpu:
        return NumpyProducts()
    for module in _registered():
        if module.installed():
            made: Products = module.make("cuda")
            return made
    raise UsageError(f"{owner} has a GPU, but no installed package provides torch for it: {_REMEDY}")


class MultipliesVectors(ProcessingStage[FileGroupTask, Any]):
    """Base of stages that multiply vectors: on a GPU if there is one and torch is installed, otherwise with numpy."""

    def suited_to(self, machine: Machine, readers: Mapping[str, Sequence[ColumnReader]]) -> MadeFor:
        if self.resources.requires_gpu:
            return MadeFor(self, [f"{self.name} multiplies on the GPU, with torch"])
        if not machine.gpus:
            return MadeFor(self, [f"{self.name} multiplies with numpy: {machine.name} has no GPU"])
        if machine.gpu_memory_gb is None:  # a simulated GPU, which a scheduler counts and torch does not find
            return MadeFor(self, [f"{self.name} multiplies with numpy: the GPUs of {machine.name} report no memory"])
        if not any(module.installed() for module in _registered()):
            return MadeFor(self, [f"{self.name} multiplies with numpy"], [f"a GPU is not used: {_REMEDY}"])
        twin = self.with_(resources=Resources(cpus=self.resources.cpus, gpus=1))
        return MadeFor(twin, [f"{self.name} multiplies on the GPU, with torch"])


_REMEDY = (
    'pip install "curator-text[models]" or "curator-image[models]", here and on the workers, to multiply vectors on it'
)


def _registered() -> list[Any]:
    from importlib.metadata import entry_points  # deferred: the import takes 20 ms, and only plans with a GPU need it

    return [point.load() for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)]
