from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator_core.errors import UsageError
from curator_core.executors.local import LocalExecutor
from curator_core.model.task import DocumentBatch
from curator_core.pipeline import Pipeline
from curator_core.running.verify import verify
from curator_text import blend
from curator_text.blend import Blend, SplitByHash
from curator_text.readers import ParquetReader
from curator_text.tokenize import MegatronWriter, PackTokens, Tokenize


def batch(**columns):
    return DocumentBatch(data=pa.table(columns), task_id="s-1.00000")


def test_a_split_depends_only_on_the_key_and_has_the_given_shares():
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
    with pytest.raises(UsageError, match="Tokenize reads text, but the column 'id' is list"):
        Tokenize(tokenizer=tokenizer, column="id").process(batch(id=[["a"]]))
    with pytest.raises(UsageError, match="not in the vocabulary"):
        Tokenize(tokenizer=tokenizer, end_token="<eos>").process(task)


def test_a_tokenizer_is_searched_for_by_its_name_and_reported_if_missing(tokenizer, monkeypatch):
    tokenizers = pytest.importorskip("tokenizers")
    asked = []

    class Hub:
        @staticmethod
        def from_pretrained(name, revision):
            asked.append((name, revision))
            raise OSError("no network")

        from_file = tokenizers.Tokenizer.from_file

    monkeypatch.setattr(tokenizers, "Tokenizer", Hub)
    task = batch(text=["one"])
    for name in (tokenizer, f"{tokenizer}/tokenizer.json"):
        assert Tokenize(tokenizer=name).process(task).to_pyarrow()["tokens"].to_pylist() == [[2]]
    assert asked == []
    for revision in (None, "abc"):
        with pytest.raises(UsageError, match=r"'org/name' could not be downloaded \(no network\): give a folder"):
            Tokenize(tokenizer="org/name", revision=revision).process(task)
    assert asked == [("org/name", "main"), ("org/name", "abc")]
    with pytest.raises(UsageError, match=r"no tokenizer\.json at"):
        Tokenize(tokenizer=f"{tokenizer}/none").process(task)


def read_megatron(prefix):
    """Reads the two files in the way of Megatron's reader."""
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
    # Megatron maps the file of tokens into memory, and no system maps an empty file.
    for none in ([], [[]], [None]):
        empty = batch(tokens=pa.array(none, pa.list_(pa.int32())))
        assert MegatronWriter(path=str(tmp_path / "e"), vocab_size=vocab_size).process(empty).data == []
    assert not (tmp_path / "e").exists()
    with pytest.raises(UsageError, match=r"a token is 49999, but MegatronWriter\.vocab_size is 100"):
        MegatronWriter(path=str(tmp_path), vocab_size=100).process(task)
    with pytest.raises(UsageError, match="a token is -1,"):
        MegatronWriter(path=str(tmp_path), vocab_size=100).process(batch(tokens=[[-1, 2]]))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_shards_of_tokens_are_packed_in_the_order_of_the_input(tmp_path, workers):
    # A batch without tokens in the middle, and a document that is longer than a shard.
    documents = [[[at * 100 + row] * row for row in range(9)] for at in range(6)]
    documents[2], documents[4] = [[], [], []], [[7] * 600]
    for at, rows in enumerate(documents):
        pq.write_table(pa.table({"tokens": pa.array(rows, pa.list_(pa.int32()))}), tmp_path / f"{at}.parquet")
    out = tmp_path / "out"
    stages = [
        ParquetReader(paths=f"{tmp_path}/*.parquet"),
        MegatronWriter(path=str(out), vocab_size=1000, target_size=200),
    ]
    result = Pipeline(stages).run(LocalExecutor(workers=workers), run_dir=str(tmp_path / "run"))
    assert verify(result.run_dir) == []
    names = sorted(path.name for path in out.glob("0*"))
    assert names == [f"{number:05d}.{end}" for number in range(4) for end in ("bin", "idx")]
    found = [row for name in names[::2] for row in read_megatron(out / name.removesuffix(".bin"))[1]]
    assert found == [row for rows in documents if any(rows) for row in rows]
    assert [(out / name).stat().st_size for name in names[::2]] == [144, 72, 1200, 72]


@pytest.mark.parametrize(
    "stage", [PackTokens(length=2), MegatronWriter(path="never", vocab_size=100)], ids=["pack", "file"]
)
@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (pa.array([[2**32 + 5]], pa.list_(pa.int64())), "contains a number that is not a token"),
        (pa.array([[1, None]], pa.list_(pa.int32())), "a null among the tokens"),
        (pa.array(["a"]), "the column 'tokens' is string"),
        (pa.array([["a"]]), "the column 'tokens' is list<item: string>"),
    ],
    ids=["large", "null", "text", "texts"],
)
def test_a_value_that_is_not_a_token_is_reported(stage, tokens, message):
    with pytest.raises(UsageError, match=message):
        stage.process(batch(tokens=tokens))


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.large_list(pa.uint16()), pa.list_(pa.int32(), 2)], ids=str)
def test_tokens_may_be_lists_of_any_kind(tmp_path, kind):
    task = batch(tokens=pa.array([[1, 2], None, [3, 4]], kind))
    assert PackTokens(length=3, pad_token_id=0).process(task).to_pyarrow()["tokens"].to_pylist() == [
        [1, 2, 3],
        [4, 0, 0],
    ]
    MegatronWriter(path=str(tmp_path), vocab_size=9).process(task)
    assert read_megatron(tmp_path / "s-1.00000")[1] == [[1, 2], [], [3, 4]]
    assert PackTokens(length=3).process(batch(tokens=pa.nulls(2))).num_rows == 0


def test_weights_can_be_given_for_patterns_of_values():
    keys = [str(i) for i in range(400)]
    paths = ["/d/web/1.jsonl", "/d/books/1.jsonl", "/d/code/x.jsonl", None] * 100
    stage = Blend(weights={"*/web/*": 0, "/d/*": 3, "/d/code/x.jsonl": 1}, by_column="path", default=2)
    out = stage.process(batch(id=keys, path=paths)).to_pyarrow()["path"].to_pylist()
    assert [out.count(path) for path in paths[:4]] == [0, 300, 100, 200]
    assert stage.recorder.dropped == {"weight of */web/*": 100}


def test_batches_and_data_sets_without_rows_do_not_change_the_mix():
    keys, names = [str(i) for i in range(500)], ["a", "b"] * 250
    whole = Blend(weights={"a": 1.5, "b": 0.5, "none": 9}).process(batch(id=keys, dataset=names)).to_pyarrow()
    parts = [
        Blend(weights={"a": 1.5, "b": 0.5}).process(batch(id=keys[at : at + 70], dataset=names[at : at + 70]))
        for at in range(0, 500, 70)
    ]
    assert pa.concat_tables([part.to_pyarrow() for part in parts]).equals(whole.combine_chunks())
    empty = batch(id=pa.array([], pa.string()), dataset=pa.array([], pa.string()))
    for stage in (Blend(weights={"a": 1}), SplitByHash(parts={"a": 1})):
        assert stage.process(empty).num_rows == 0


def test_the_number_made_from_a_hash_is_below_one():
    class Highest:
        xxh3_64_intdigest = staticmethod(lambda _value, _seed: (1 << 64) - 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blend, "xxhash", Highest)
        assert 0.999 < blend.unit_numbers(["a"], 0)[0] < 1
        assert SplitByHash(parts={"a": 0.5, "b": 0.5}).process(batch(id=["x"])).to_pyarrow()["split"].to_pylist() == [
            "b"
        ]


def test_an_existing_column_is_not_replaced(tokenizer):
    for stage, column in (
        (SplitByHash(parts={"a": 1}), "split"),
        (Tokenize(tokenizer=tokenizer), "tokens"),
        (Tokenize(tokenizer=tokenizer), "num_tokens"),
    ):
        with pytest.raises(UsageError, match=f"adds a column '{column}', and there is one already"):
            stage.process(batch(id=["a"], text=["one"], **{column: ["mine"]}))
    assert SplitByHash(parts={"a": 1}, keep="a").process(batch(id=["a"], split=["mine"])).num_rows == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SplitByHash(parts={"a": 0.5}), "must add up to 1, not 0.5"),
        (lambda: SplitByHash(parts={"a": "1"}), "shares between 0 and 1"),
        (lambda: SplitByHash(parts={"a": True}), "shares between 0 and 1"),
        (lambda: SplitByHash(parts={"a": 1.0}, keep="b"), "keep must be one of a"),
        (lambda: SplitByHash(parts={"a": 1.0}, split_column="id"), "different names: id, id"),
        (lambda: SplitByHash(parts={"a": 1.0}, seed="x"), "seed must be a whole number, not 'x'"),
        (lambda: Blend(weights={"a": -1}), "numbers from 0"),
        (lambda: Blend(weights={"a": float("inf")}), "numbers from 0"),
        (lambda: Blend(weights={"a": "1"}), "numbers from 0"),
        (lambda: Blend(weights=["a"]), "numbers from 0"),
        (lambda: Blend(weights={"a": 1}, default=-1), "Blend.default must be a number from 0"),
        (lambda: PackTokens(length=0), "length must be"),
        (lambda: PackTokens(length=2, pad_token_id=-1), "pad_token_id must be the number of a token, not -1"),
        (lambda: Tokenize(tokenizer=""), "tokenizer must be a folder"),
        (lambda: Tokenize(tokenizer="x", end_token=""), "end_token must be a token"),
        (lambda: Tokenize(tokenizer="x", tokens_column="text"), "different names: text, text, num_tokens"),
        (lambda: MegatronWriter(path="x", vocab_size=0), "vocab_size must be the number"),
        (lambda: MegatronWriter(path="x", vocab_size=1 << 32), "vocab_size must be the number"),
        (lambda: MegatronWriter(path="x", vocab_size=9, target_size="many"), "target_size must be a number of bytes"),
    ],
)
def test_wrong_parameters_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()
