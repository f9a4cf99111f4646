"""Downloads: one client for all packages, which reports the outcome of each address; needs ``curator-core[download]``."""

from __future__ import annotations

from curator_core.download.client import Client, Head, Outcome, Sink, import_aiohttp
from curator_core.download.files import FileSink, fetch_file
from curator_core.download.memory import InOrder, MemorySink
from curator_core.download.networks import allowed
from curator_core.download.rules import OPT_OUT_IMAGES, PASSING, Failed, FetchRules, Reason, Refused

__all__ = [
    "OPT_OUT_IMAGES",
    "PASSING",
    "Client",
    "Failed",
    "FetchRules",
    "FileSink",
    "Head",
    "InOrder",
    "MemorySink",
    "Outcome",
    "Reason",
    "Refused",
    "Sink",
    "allowed",
    "fetch_file",
    "import_aiohttp",
]
