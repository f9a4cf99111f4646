from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curator_core.errors import UsageError
from curator_core.task import DocumentBatch
from curator_text.blend import Blend, SplitByHash
from curator_text.tokenize import MegatronWriter, PackTokens, Tokenize


def batch(**columns):
    return DocumentBatch(data=pa.table(columns), task_id="s-1.00000")


def test_a_split_depends_on_the_key_alone_and_has_its_shares():
    keys = [f"doc {i}" for i in range(20_000)]
    stage = SplitByHash(parts={"train": 0.9, "validation": 0.1})
    whole = dict(zip(keys, stage.process(batch(id=keys)).to_pyarrow()["split"].to_pylist(), strict=True))
    assert 1800 < sum(part == "validation" for part in whole.values()) < 2200
    some = random.Random(1).sample(keys, 50)
    assert stage.process(batch(id=some)).to_pyarrow()["split"].to_pylist() == [whole[key] for key in some]
    kept = SplitByHash(parts={"train": 0.9, "validation": 0.1}, keep="validation")
    out = kept.process(batch(id=keys)).to_pyarrow()
    assert out["id"].to_pylist() == [key for key in keys if whole[key] == "validation"]
    assert sum(kept.recorder.dropped.values()) + out.num_rows == 20_000
    assert SplitByHash(parts={"a": 0.5, "b": 0.5}, seed=1).process(batch(id=keys)) != stage.process(batch(id=keys))


def test_weights_repeat_and_drop_rows():
    keys = [str(i) for i in range(3000)]
    names = ["web", "books", "code"] * 1000
    stage = Blend(weights={"web": 0.25, "books": 2.5, "code": 0})
    out = stage.process(batch(id=keys, dataset=names)).to_pyarrow()["dataset"].to_pylist()
    assert 200 < out.count("web") < 300
    assert 2400 < out.count("books") < 2600
    assert out.count("code") == 0
    assert stage.recorder.dropped["weight of code"] == 1000
    assert len(out) == 3000 - sum(stage.recorder.dropped.values()) + stage.recorder.metrics["copies"]


@pytest.fixture
def tokenizer(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: at for at, word in enumerate(["<unk>", "</s>", "one", "two", "three"])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.save(str(tmp_path / "tokenizer.json"))
    return str(tmp_path)


def test_tokens_are_counted_and_packed_without_losing_one(tokenizer):
    task = batch(text=["one two three", None, "", "two four"], id=["a", "b", "c", "d"])
    stage = Tokenize(tokenizer=tokenizer, end_token="</s>")
    out = stage.process(task)
    assert out.to_pyarrow()["tokens"].to_pylist() == [[2, 3, 4, 1], None, [1], [3, 0, 1]]
    assert out.to_pyarrow()["num_tokens"].to_pylist() == [4, None, 1, 3]
    assert stage.recorder.metrics["tokens"] == 8
    assert PackTokens(length=3, pad_token_id=9).process(out).to_pyarrow()["tokens"].to_pylist() == [
        [2, 3, 4],
        [1, 1, 3],
        [0, 1, 9],
    ]
    short = PackTokens(length=5)
    assert short.process(out).to_pyarrow()["tokens"].to_pylist() == [[2, 3, 4, 1, 1]]
    assert short.recorder.metrics["tokens_left_out"] == 3
    with pytest.raises(UsageError, match="not in the vocabulary"):
        Tokenize(tokenizer=tokenizer, end_token="<eos>").process(task)


def read_megatron(prefix):
    """As Megatron's reader goes through the two files."""
    data = Path(f"{prefix}.idx").read_bytes()
    assert data[:9] == b"MMIDIDX\x00\x00"
    version, code, sequences, documents = struct.unpack_from("<QBQQ", data, 9)
    assert version == 1
    kind = {8: np.uint16, 4: np.int32}[code]
    at = 9 + 25
    lengths = np.frombuffer(data, np.int32, sequences, at)
    starts = np.frombuffer(data, np.int64, sequences, at + 4 * sequences)
    ends = np.frombuffer(data, np.int64, documents, at + 12 * sequences)
    assert len(data) == at + 12 * sequences + 8 * documents
    assert ends.tolist() == list(range(sequences + 1))
    tokens = Path(f"{prefix}.bin").read_bytes()
    return kind, [
        np.frombuffer(tokens, kind, length, start).tolist() for length, start in zip(lengths, starts, strict=True)
    ]


@pytest.mark.parametrize(("vocab_size", "kind"), [(50_000, np.uint16), (200_000, np.int32)])
def test_megatron_reads_what_was_written(tmp_path, vocab_size, kind):
    rows = [[1, 2, 49_999], [], [7]]
    task = batch(tokens=pa.array([*rows, None], pa.list_(pa.int32())))
    stage = MegatronWriter(path=str(tmp_path), vocab_size=vocab_size)
    out = stage.process(task)
    assert [path.rpartition("/")[2] for path in out.data] == ["s-1.00000.bin", "s-1.00000.idx"]
    assert read_megatron(tmp_path / "s-1.00000") == (kind, [*rows, []])
    assert sum(record.rows for record in stage.recorder.outputs) == 4
    empty = batch(tokens=pa.array([], pa.list_(pa.int32())))
    MegatronWriter(path=str(tmp_path / "e"), vocab_size=vocab_size).process(empty)
    assert read_megatron(tmp_path / "e" / "s-1.00000") == (kind, [])
    with pytest.raises(UsageError, match="vocab_size is 100"):
        MegatronWriter(path=str(tmp_path), vocab_size=100).process(task)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SplitByHash(parts={"a": 0.5}),
        lambda: SplitByHash(parts={"a": 1.0}, keep="b"),
        lambda: Blend(weights={"a": -1}),
        lambda: PackTokens(length=0),
        lambda: Tokenize(tokenizer=""),
        lambda: MegatronWriter(path="x", vocab_size=0),
    ],
)
def test_wrong_parameters_are_refused(make):
    with pytest.raises(UsageError):
        make()
