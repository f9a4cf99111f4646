"""Runs on Cosmos-Xenna through its public interface only; all that is specific to it is in this folder.

Xenna is in maintenance upstream, so start with Ray Data. A cluster that is tuned for Xenna can stay on it.
"""

from __future__ import annotations

from curator_backends.xenna.executor import XennaExecutor, XennaOptions

__all__ = ["XennaExecutor", "XennaOptions"]
