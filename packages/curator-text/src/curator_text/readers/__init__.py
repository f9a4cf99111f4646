"""Readers turn files into batches of documents. Names load on first use, so a worker imports only the libraries of its
reader.
"""

from __future__ import annotations

from curator_core.lazy import lazy_names

_HOME = {
    "CsvRead": "csv",
    "CsvReader": "csv",
    "JsonlRead": "jsonl",
    "JsonlReader": "jsonl",
    "ParquetPartitioning": "parquet",
    "ParquetRead": "parquet",
    "ParquetReader": "parquet",
    "TextFilesRead": "text_files",
    "TextFilesReader": "text_files",
    "WarcRead": "warc",
    "WarcReader": "warc",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the one place that lists names

__getattr__, __dir__ = lazy_names(__name__, _HOME)
