"""Text becomes token shards: ``.bin`` and ``.idx`` that Megatron reads, or packed rows."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curator_core.arrays import array, to_numpy
from curator_core.errors import MissingDependency, UsageError
from curator_core.stages import ProcessingStage, WorkerMetadata
from curator_core.storage import join, write_atomic
from curator_core.task import DocumentBatch, FileGroupTask

_MAGIC = b"MMIDIDX\x00\x00"
# Megatron's numbers for what an array holds.
_CODES = {np.dtype(np.uint16): 8, np.dtype(np.int32): 4}


@dataclass(kw_only=True)
class Tokenize(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Adds the tokens of each text as a list column, and how many there are.

    ``tokenizer`` is a folder or a ``tokenizer.json``, or a name on the hub. ``end_token`` (such as ``</s>``) is put behind
    every text. A null text has null tokens.
    """

    tokenizer: str
    column: str = "text"
    tokens_column: str = "tokens"
    count_column: str | None = "num_tokens"
    end_token: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.tokenizer, str) or not self.tokenizer:
            raise UsageError(
                f"Tokenize.tokenizer must be a folder, a file or a name on the hub, not {self.tokenizer!r}"
            )
        self._inner: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_inner": None}

    def inputs(self) -> list[str]:
        return [self.column]

    def outputs(self) -> list[str]:
        return [self.tokens_column, *([self.count_column] if self.count_column else [])]

    def setup(self, worker: WorkerMetadata) -> None:
        self._inner = load_tokenizer(self.tokenizer)
        self._end: list[int] = []
        if self.end_token is not None:
            number = self._inner.token_to_id(self.end_token)
            if number is None:
                raise UsageError(
                    f"Tokenize.end_token {self.end_token!r} is not in the vocabulary of {self.tokenizer!r}"
                )
            self._end = [number]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self._inner is None:
            self.setup(WorkerMetadata())
        texts = task.to_pyarrow()[self.column].to_pylist()
        rows = [row for row, text in enumerate(texts) if text is not None]
        tokens: list[list[int] | None] = [None] * len(texts)
        encoded = self._inner.encode_batch([texts[row] for row in rows], add_special_tokens=False)
        for row, found in zip(rows, encoded, strict=True):
            tokens[row] = found.ids + self._end
        counts = [None if found is None else len(found) for found in tokens]
        self.record_metric("tokens", sum(count or 0 for count in counts))
        task = task.append_column(self.tokens_column, array(tokens, pa.list_(pa.int32())))
        return task.append_column(self.count_column, array(counts, pa.int64())) if self.count_column else task


@dataclass(kw_only=True)
class PackTokens(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Lays the tokens of a batch end to end and cuts them into rows of exactly ``length``; other columns go.

    The last row is filled up with ``pad_token_id``, or left out without one; how many tokens that costs is counted.
    """

    length: int
    tokens_column: str = "tokens"
    pad_token_id: int | None = None
    creates_rows = True

    def __post_init__(self) -> None:
        if isinstance(self.length, bool) or not isinstance(self.length, int) or self.length < 1:
            raise UsageError(f"PackTokens.length must be a whole number of 1 or more, not {self.length!r}")

    def inputs(self) -> list[str]:
        return [self.tokens_column]

    def outputs(self) -> list[str]:
        return [self.tokens_column]

    def removes(self) -> list[str]:
        return ["*"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        rows = task.num_rows
        tokens = _flat(task.to_pyarrow()[self.tokens_column])
        rest = -len(tokens) % self.length
        if rest and self.pad_token_id is not None:
            tokens = np.concatenate([tokens, np.full(rest, self.pad_token_id, np.int32)])
            self.record_metric("tokens_padded", rest)
        elif rest:
            left = len(tokens) % self.length
            self.record_metric("tokens_left_out", left)
            tokens = tokens[: len(tokens) - left]
        packed = tokens.reshape(-1, self.length)
        self.record_dropped("packed into others", max(0, rows - len(packed)))
        offsets = array(np.arange(0, len(tokens) + 1, self.length, dtype=np.int32))
        column = pa.ListArray.from_arrays(offsets, array(tokens, pa.int32()))
        return task.with_data(pa.table({self.tokens_column: column}))


@dataclass(kw_only=True)
class MegatronWriter(ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes the tokens of each batch as ``NAME.bin`` and ``NAME.idx``, an indexed data set of Megatron's: a document a row.

    ``vocab_size`` says how wide a token is: 16 bits below 65,500, otherwise 32.
    """

    path: str
    vocab_size: int
    tokens_column: str = "tokens"

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise UsageError(f"MegatronWriter.path must be a folder or URL to write to, not {self.path!r}")
        if isinstance(self.vocab_size, bool) or not isinstance(self.vocab_size, int) or self.vocab_size < 1:
            raise UsageError(
                f"MegatronWriter.vocab_size must be the number of tokens there are, not {self.vocab_size!r}"
            )

    def inputs(self) -> list[str]:
        return [self.tokens_column]

    def output_folder(self) -> str:
        return self.path

    def process(self, task: DocumentBatch) -> FileGroupTask:
        column = task.to_pyarrow()[self.tokens_column].combine_chunks()
        tokens = _flat(column)
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocab_size:
            raise UsageError(f"a token is {int(tokens.max())}, and MegatronWriter.vocab_size is {self.vocab_size}")
        kind = np.dtype(np.uint16 if self.vocab_size < 65_500 else np.int32)
        # A null document is one of no tokens: rows and documents stay the same.
        lengths = np.array([0 if row is None else len(row) for row in column.to_pylist()], np.int32)
        name = task.task_id or "batch"
        with write_atomic(join(self.path, f"{name}.bin")) as out:
            out.write(tokens.astype(kind).tobytes())
        records = [out.record(rows=task.num_rows)]
        with write_atomic(join(self.path, f"{name}.idx")) as out:
            out.write(_index(lengths, kind))
        records.append(out.record())
        for record in records:
            self.record_output(record)
        self.record_metric("tokens", len(tokens))
        return FileGroupTask(data=[record.path for record in records], records=records, dataset_name=task.dataset_name)


def load_tokenizer(name: str) -> Any:
    """A fast tokenizer from a folder, a ``tokenizer.json``, or the hub."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingDependency('tokenizing needs tokenizers: pip install "curator-text[tokenizers]"') from error
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / "tokenizer.json"
    if path.exists():
        tokenizer = Tokenizer.from_file(str(path))
    elif name.startswith((".", "/", "~")):
        raise UsageError(f"there is no tokenizer.json at {name!r}")
    else:
        try:
            tokenizer = Tokenizer.from_pretrained(name)
        except Exception as error:  # whatever went wrong on the way, the remedy is the same
            raise UsageError(
                f"the tokenizer {name!r} could not be fetched ({error}): give a folder with its tokenizer.json"
            ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _flat(column: Any) -> np.ndarray[Any, Any]:
    chunks: Sequence[Any] = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [to_numpy(chunk.flatten()) for chunk in chunks]
    return np.concatenate(parts).astype(np.int32, copy=False) if parts else np.empty(0, np.int32)


def _index(lengths: np.ndarray[Any, Any], kind: np.dtype[Any]) -> bytes:
    """Magic, version, token type, counts, then lengths (32 bits), where each begins, and where documents begin (64)."""
    starts = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1].astype(np.int64) * kind.itemsize, out=starts[1:])
    documents = np.arange(len(lengths) + 1, dtype=np.int64)
    head = _MAGIC + struct.pack("<QBQQ", 1, _CODES[kind], len(lengths), len(documents))
    return head + lengths.astype("<i4").tobytes() + starts.astype("<i8").tobytes() + documents.astype("<i8").tobytes()
