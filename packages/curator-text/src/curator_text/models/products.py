"""How does core come by torch, to multiply vectors on a GPU? It imports none, and asks for this module by entry point."""

from __future__ import annotations

from importlib.util import find_spec

from curator_core.across.products import TorchProducts


def installed() -> bool:
    """Whether torch is installed; this function does not import it."""
    return find_spec("torch") is not None


def make(device: str) -> TorchProducts:
    """Products on a device of torch."""
    import torch

    return TorchProducts(torch, device)
