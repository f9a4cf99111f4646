"""Turns text into token shards: ``.bin`` and ``.idx`` files for Megatron, or packed rows."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curator_core.arrow.arrays import array, to_numpy
from curator_core.errors import MissingDependency, UsageError, check_free, check_whole
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.parameters import paths_as_text
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord
from curator_core.stages.files import parse_bytes
from curator_core.storage import join, read_bytes, write_atomic
from curator_core.storage.packing import pack, parts_folder
from curator_text._columns import check_different, texts_of, with_text
from curator_text.packing import copy_bytes, groups

_MAGIC = b"MMIDIDX\x00\x00"
# Version, token type, number of sequences, number of document boundaries.
_HEAD = struct.Struct("<QBQQ")
# Tokens are signed 32-bit numbers.
_MOST_TOKENS = (1 << 31) - 1
# Megatron's codes for the element type of an array.
_CODES = {np.dtype(np.uint16): 8, np.dtype(np.int32): 4}


@dataclass(kw_only=True)
class Tokenize(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Adds the tokens of each text as a list column, and their number.

    ``tokenizer`` is a folder or a ``tokenizer.json``, or a name on the hub at ``revision`` (ideally a commit; by
    default the newest). ``end_token`` (such as ``</s>``) is added after every text; without it, nothing separates texts
    that are packed into one row. A null text has null tokens.
    """

    maybe_paths = ("tokenizer",)

    tokenizer: str
    column: str = "text"
    tokens_column: str = "tokens"
    count_column: str | None = "num_tokens"
    end_token: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        paths_as_text(self, "tokenizer")
        if not isinstance(self.tokenizer, str) or not self.tokenizer:
            raise UsageError(
                f"Tokenize.tokenizer must be a folder, a file or a name on the hub, not {self.tokenizer!r}"
            )
        if self.end_token is not None and (not isinstance(self.end_token, str) or not self.end_token):
            raise UsageError(
                f"Tokenize.end_token must be a token such as '</s>', or left out for none, not {self.end_token!r}"
            )
        check_different(self, self.column, self.tokens_column, self.count_column)
        self._inner: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_inner": None}

    def inputs(self) -> list[str]:
        return [self.column]

    def outputs(self) -> list[str]:
        return [self.tokens_column, *([self.count_column] if self.count_column else [])]

    def setup(self, worker: WorkerMetadata) -> None:
        self._inner = load_tokenizer(self.tokenizer, self.revision)
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
        task = with_text(self, task, self.column)
        table = task.to_pyarrow()
        check_free(type(self).__name__, table.column_names, self.outputs())
        texts = texts_of(self, table, self.column)
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
    """Joins the tokens of a batch and splits them into rows of exactly ``length`` tokens; other columns are dropped.

    The last row is padded with ``pad_token_id``, or left out if there is none; a metric counts the tokens that are left
    out.
    """

    length: int
    tokens_column: str = "tokens"
    pad_token_id: int | None = None
    creates_rows = True

    def __post_init__(self) -> None:
        check_whole("PackTokens.length", self.length)
        pad = self.pad_token_id
        if pad is not None and (isinstance(pad, bool) or not isinstance(pad, int) or not 0 <= pad < _MOST_TOKENS):
            raise UsageError(f"PackTokens.pad_token_id must be the number of a token, not {pad!r}")

    def inputs(self) -> list[str]:
        return [self.tokens_column]

    def outputs(self) -> list[str]:
        return [self.tokens_column]

    def removes(self) -> list[str]:
        return ["*"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        rows = task.num_rows
        tokens = _flat(task.to_pyarrow()[self.tokens_column], self.tokens_column)
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
    """Writes the tokens of each batch as ``NAME.bin`` and ``NAME.idx``, an indexed Megatron data set with one document
    per row.

    ``vocab_size`` determines the width of a token: 16 bits below 65,500, otherwise 32. A batch without tokens has no
    files, since Megatron cannot open an empty data set.

    With ``target_size`` (such as ``"1GB"``), the data sets of all tasks are packed at the end of the run into
    ``00000.bin`` and ``00000.idx``, ``00001.bin`` and so on, of at most that size each, in the order of the input.
    """

    path: str
    vocab_size: int
    tokens_column: str = "tokens"
    target_size: int | str | None = None

    def __post_init__(self) -> None:
        paths_as_text(self, "path")
        if not isinstance(self.path, str) or not self.path:
            raise UsageError(f"MegatronWriter.path must be a folder or URL to write to, not {self.path!r}")
        size = self.vocab_size
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _MOST_TOKENS:
            raise UsageError(
                f"MegatronWriter.vocab_size must be the number of tokens in the vocabulary, not {self.vocab_size!r}"
            )
        given = self.target_size
        self._target_size = None if given is None else parse_bytes(given, "MegatronWriter.target_size")

    def inputs(self) -> list[str]:
        return [self.tokens_column]

    def output_folder(self) -> str:
        return self.path

    def process(self, task: DocumentBatch) -> FileGroupTask:
        column = task.to_pyarrow()[self.tokens_column].combine_chunks()
        tokens = _flat(column, self.tokens_column)
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocab_size:
            wrong = int(tokens.min()) if tokens.min() < 0 else int(tokens.max())
            raise UsageError(f"a token is {wrong}, but MegatronWriter.vocab_size is {self.vocab_size}")
        self.record_metric("tokens", len(tokens))
        if not len(tokens):
            return FileGroupTask(data=[], records=[], dataset_name=task.dataset_name)
        kind = np.dtype(np.uint16 if self.vocab_size < 65_500 else np.int32)
        # A null becomes a document without tokens, so rows and documents correspond.
        lengths = np.array([0 if row is None else len(row) for row in column.to_pylist()], np.int32)
        name = task.task_id or "batch"
        folder = self.path if self._target_size is None else parts_folder(self.path)
        with write_atomic(join(folder, f"{name}.bin")) as out:
            out.write(tokens.astype(kind).tobytes())
        records = [out.record(rows=task.num_rows)]
        with write_atomic(join(folder, f"{name}.idx")) as out:
            out.write(_index(lengths, kind))
        records.append(out.record())
        for record in records:
            self.record_output(record)
        return FileGroupTask(data=[record.path for record in records], records=records, dataset_name=task.dataset_name)

    def repacks(self) -> bool:
        return self._target_size is not None

    def finish(self, outputs: Sequence[FileRecord]) -> list[FileRecord] | None:
        """Pack the data sets of all tasks: concatenate their tokens and make an index."""
        if self._target_size is None:
            return None
        limit = self._target_size

        def make(fresh: Sequence[FileRecord], standing: Sequence[FileRecord]) -> list[FileRecord]:
            made: list[FileRecord] = []
            shards = groups([record for record in fresh if record.path.endswith(".bin")], limit)
            for number, members in enumerate(shards, len(standing) // 2):
                made += self._packed(number, members)
            return made

        return pack(self.path, outputs, make, {"target_size": limit, "format": "megatron"})

    def _packed(self, number: int, members: Sequence[FileRecord]) -> list[FileRecord]:
        name = join(self.path, f"{number:05d}")
        with write_atomic(f"{name}.bin") as out:
            copy_bytes([record.path for record in members], out)
        made = [out.record(rows=sum(record.rows for record in members))]
        heads = [read_bytes(f"{record.path.removesuffix('.bin')}.idx") for record in members]
        lengths = np.concatenate([_lengths(head) for head in heads])
        with write_atomic(f"{name}.idx") as out:
            out.write(_index(lengths, np.dtype(np.uint16 if self.vocab_size < 65_500 else np.int32)))
        return [*made, out.record()]


def load_tokenizer(name: str, revision: str | None = None) -> Any:
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
            tokenizer = Tokenizer.from_pretrained(name, revision=revision or "main")
        except Exception as error:  # whatever went wrong on the way, the remedy is the same
            raise UsageError(
                f"the tokenizer {name!r} could not be downloaded ({error}): give a folder with its tokenizer.json"
            ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _flat(column: pa.ChunkedArray | pa.Array, name: str) -> np.ndarray[Any, Any]:
    """The concatenated tokens of all rows."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = []
    for chunk in chunks:
        if pa.types.is_null(chunk.type):
            continue
        value = getattr(chunk.type, "value_type", None)
        if value is None or not pa.types.is_integer(value) or pa.types.is_dictionary(chunk.type):
            raise UsageError(f"tokens must be lists of whole numbers, but the column {name!r} is {chunk.type}")
        tokens = chunk.flatten()
        try:
            parts.append(to_numpy(tokens.cast(pa.int32())))
        except pa.ArrowInvalid as error:
            raise UsageError(f"the column {name!r} contains a number that is not a token: {error}") from error
        if tokens.null_count:
            raise UsageError(f"the column {name!r} contains a null among the tokens of a row")
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def _lengths(index: bytes) -> np.ndarray[Any, Any]:
    """The number of tokens in each document of an index."""
    _, _, count, _ = _HEAD.unpack_from(index, len(_MAGIC))
    return np.frombuffer(index, "<i4", count, len(_MAGIC) + _HEAD.size)


def _index(lengths: np.ndarray[Any, Any], kind: np.dtype[Any]) -> bytes:
    """Magic, version, token type and counts, followed by lengths (32 bits), the start of each sequence, and the starts
    of documents (64 bits).
    """
    starts = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1].astype(np.int64) * kind.itemsize, out=starts[1:])
    documents = np.arange(len(lengths) + 1, dtype=np.int64)
    head = _MAGIC + _HEAD.pack(1, _CODES[kind], len(lengths), len(documents))
    return head + lengths.astype("<i4").tobytes() + starts.astype("<i8").tobytes() + documents.astype("<i8").tobytes()
