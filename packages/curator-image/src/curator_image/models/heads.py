"""Small networks on top of an image embedding, in NumPy, so that they need neither torch nor a GPU.

Scores have the same bits on every machine and in every batch; `curator_image.exact` explains how.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator_core.errors import CuratorError
from curator_image.exact import Matrix, logistic, row_sums

Floats = NDArray[np.float32]

# The positions of the Linear layers in the published aesthetic heads. Between them are Dropout layers, but no
# activations.
_LINEAR_MSE = (0, 2, 4, 6, 7)
_MIN_SPREAD = 1e-10


class WrongWeights(CuratorError):
    """The tensors of a file are not those of the requested head."""


@dataclass(frozen=True)
class LinearHead:
    """A stack of linear layers with nothing between them, which is equal to one linear map: ``x · weight + bias``.

    The layers are multiplied once, in float64 and from the last to the first, so a score costs one dot product.
    """

    weight: NDArray[np.float64]
    bias: float

    @property
    def dimension(self) -> int:
        """The length of the embeddings that the head takes."""
        return len(self.weight)

    @classmethod
    def from_weights(cls, weights: Mapping[str, NDArray[Any]], where: str = "the weights") -> LinearHead:
        """The head that is described by ``layers.0.weight`` … (or by one ``weight`` and ``bias``)."""
        layers = _linear_layers(weights, where)
        numbers = tuple(number for number, _, _ in layers)
        if len(layers) > 1 and numbers != _LINEAR_MSE:
            raise WrongWeights(
                f"{where} has linear layers at {list(numbers)}, but a linear-MSE head has them at {list(_LINEAR_MSE)}: "
                "a head with activations between its layers is not linear and its scores would be wrong"
            )
        outputs = len(layers[-1][1])
        if outputs != 1:
            raise WrongWeights(f"{where} ends in {outputs} numbers, but a score is one number")
        row, offset = np.ones(1), 0.0
        for _, weight, bias in reversed(layers):
            offset += float(row_sums((row * bias)[None, :])[0])
            row = row_sums(row * weight.T)
        return cls(row, offset)

    def __call__(self, embeddings: Floats) -> Floats:
        return (row_sums(embeddings * self.weight) + self.bias).astype(np.float32)


@dataclass(frozen=True)
class NSFWHead:
    """LAION's detector: normalise each number, then dense layers with ReLU between them, then a sigmoid."""

    mean: Floats
    variance: Floats
    layers: tuple[tuple[Matrix, NDArray[np.float64]], ...]

    @property
    def dimension(self) -> int:
        """The length of the embeddings that the head takes."""
        return len(self.mean)

    @classmethod
    def from_weights(cls, weights: Mapping[str, NDArray[Any]], where: str = "the weights") -> NSFWHead:
        """The head that is described by ``norm.mean``, ``norm.variance``, ``linear_1.weight`` and so on."""
        missing = {"norm.mean", "norm.variance", "linear_1.weight", "linear_1.bias"} - weights.keys()
        if missing:
            raise WrongWeights(
                f"{where} is not LAION's NSFW head: it lacks {', '.join(sorted(missing))}. It contains: "
                f"{', '.join(sorted(weights)[:8])}"
            )
        layers = _linear_layers(weights, where)
        if layers[-1][1].shape[0] != 1 or layers[0][1].shape[1] != len(weights["norm.mean"]):
            raise WrongWeights(
                f"{where} is not LAION's NSFW head: its layers do not lead from an embedding to one number"
            )
        return cls(
            np.asarray(weights["norm.mean"], np.float32),
            np.asarray(weights["norm.variance"], np.float32),
            tuple((Matrix.of(weight), bias) for _, weight, bias in layers),
        )

    def __call__(self, embeddings: Floats) -> Floats:
        spread = np.sqrt(self.variance) + np.float32(_MIN_SPREAD)
        x: NDArray[Any] = (np.asarray(embeddings, np.float32) - self.mean) / spread
        for index, (weight, bias) in enumerate(self.layers):
            x = weight.times(x) + bias
            if index + 1 < len(self.layers):
                np.maximum(x, 0, out=x)
        return logistic(x[:, 0]).astype(np.float32)


def _linear_layers(
    weights: Mapping[str, NDArray[Any]], where: str
) -> list[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
    """The two-dimensional weights in the order of the number in their names, each with its bias, as float64."""
    found = []
    for name, value in weights.items():
        if (name == "weight" or name.endswith(".weight")) and value.ndim == 2:
            numbers = re.findall(r"\d+", name)
            bias = weights.get(f"{name.removesuffix('weight')}bias", np.zeros(value.shape[0]))
            found.append((int(numbers[-1]) if numbers else 0, value.astype(np.float64), bias.astype(np.float64)))
    found.sort(key=lambda layer: layer[0])
    if not found:
        raise WrongWeights(
            f"{where} contains no linear layers. It contains: {', '.join(sorted(weights)[:8]) or 'nothing'}"
        )
    for (_, before, _), (number, weight, bias) in itertools.pairwise(found):
        if weight.shape[1] != before.shape[0] or bias.shape != (weight.shape[0],):
            raise WrongWeights(f"{where}: layer {number} takes {weight.shape[1]} numbers and gets {before.shape[0]}")
    return found
