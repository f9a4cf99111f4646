# Made from _HOME in __init__.py; not for editing: `make generate` renews it.

from curator_text.readers.csv import CsvRead as CsvRead
from curator_text.readers.csv import CsvReader as CsvReader
from curator_text.readers.jsonl import JsonlRead as JsonlRead
from curator_text.readers.jsonl import JsonlReader as JsonlReader
from curator_text.readers.parquet import ParquetPartitioning as ParquetPartitioning
from curator_text.readers.parquet import ParquetRead as ParquetRead
from curator_text.readers.parquet import ParquetReader as ParquetReader
from curator_text.readers.text_files import TextFilesRead as TextFilesRead
from curator_text.readers.text_files import TextFilesReader as TextFilesReader
from curator_text.readers.warc import WarcRead as WarcRead
from curator_text.readers.warc import WarcReader as WarcReader

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
