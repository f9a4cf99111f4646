"""Where is the report of a run? ``report.json`` contains all of its numbers, and ``report.html`` is a page that shows
them.
"""

from __future__ import annotations

import json

from curator_core import storage
from curator_core.accounts.accounts import Accounts
from curator_core.running.directory import RunDirectory
from curator_core.running.numbers import numbers_of
from curator_core.running.page.html import report_page
from curator_core.upkeep import with_small_pages, without_collection


def write_report(run_dir: str, accounts: Accounts | None = None) -> str:
    """Write both to a run directory from its records, even while the run continues or after it was killed; return the
    path of the page. ``accounts`` are the accounts of the run, if the caller has read them already.
    """
    directory = RunDirectory(run_dir)
    path = directory.path("report.html")
    # The numbers are many small objects, none of them in a cycle, and are made from small tables.
    with without_collection(), with_small_pages():
        numbers = numbers_of(run_dir, accounts)
        # They need not be durable: they are made from records that are, and `curate report` makes them again.
        content = json.dumps(numbers, ensure_ascii=False, allow_nan=False)
        storage.write_bytes_atomic(
            directory.path("report.json"), content.encode("utf-8", "backslashreplace"), durable=False
        )
        storage.write_bytes_atomic(path, report_page(numbers).encode("utf-8", "backslashreplace"), durable=False)
    return path
