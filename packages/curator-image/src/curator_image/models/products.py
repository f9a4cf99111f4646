"""Gives core access to torch for products of vectors on a GPU. Core does not import torch; it finds this module by its
entry point.
"""

from __future__ import annotations

from importlib.util import find_spec

from curator_core.across.products import TorchProducts


def installed() -> bool:
    """Whether torch is installed; this function does not import it."""
    return find_spec("torch") is not None


def make(device: str) -> TorchProducts:
    """Matrix products on a torch device."""
    import torch

    return TorchProducts(torch, device)
