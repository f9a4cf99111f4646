"""Readers: files become batches of documents."""

from __future__ import annotations

from curator_text.readers.csv import CsvRead, CsvReader
from curator_text.readers.jsonl import JsonlRead, JsonlReader
from curator_text.readers.parquet import ParquetPartitioning, ParquetRead, ParquetReader
from curator_text.readers.text_files import TextFilesRead, TextFilesReader
from curator_text.readers.warc import WarcRead, WarcReader

__all__ = [
    "CsvRead",
    "CsvReader",
    "JsonlRead",
    "JsonlReader",
    "ParquetPartitioning",
    "ParquetRead",
    "ParquetReader",
    "TextFilesRead",
    "TextFilesReader",
    "WarcRead",
    "WarcReader",
]
