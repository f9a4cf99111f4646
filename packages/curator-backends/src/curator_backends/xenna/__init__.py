"""Cosmos-Xenna, by its public interface only, and all of it in this folder.

Xenna is in maintenance upstream: Ray Data is the engine to start with. A cluster that is tuned for Xenna can stay on it.
"""

from __future__ import annotations

from curator_backends.xenna.executor import XennaExecutor, XennaOptions

__all__ = ["XennaExecutor", "XennaOptions"]
