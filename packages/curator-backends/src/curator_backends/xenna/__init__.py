"""Runs pipelines on Cosmos-Xenna; all code that is specific to Xenna is in this folder.

Xenna is in maintenance mode upstream, so new users should choose Ray Data. A cluster that is tuned for Xenna can stay
on it.
"""

from __future__ import annotations

from curator_backends.xenna.executor import XennaExecutor, XennaOptions

__all__ = ["XennaExecutor", "XennaOptions"]
