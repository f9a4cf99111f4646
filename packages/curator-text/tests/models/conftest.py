"""A small model for tests, in the real format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

WORDS = [f"word{number}" for number in range(200)]


@pytest.fixture(scope="session")
def save_model() -> Callable[..., str]:
    return _save_model


def _save_model(folder: Path, labels: list[str] | None, *, headed: bool = False) -> str:
    """A small BERT of random weights, big enough that kernels divide its matrices differently."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

    folder.mkdir()
    torch.manual_seed(len(folder.name))
    vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_max_length=128
    ).save_pretrained(folder)
    extra = {} if labels is None else {"id2label": dict(enumerate(labels)), "num_labels": len(labels)}
    config = BertConfig(
        vocab_size=202, hidden_size=192, num_hidden_layers=3, num_attention_heads=4, intermediate_size=384,
        max_position_embeddings=128, initializer_range=0.2, **({} if headed else extra),
    )  # fmt: skip
    if labels is None:
        BertModel(config).save_pretrained(folder)
    elif not headed:
        BertForSequenceClassification(config).save_pretrained(folder)
    else:  # as NVIDIA's classifiers are stored
        BertModel(config).save_pretrained(folder / "base")
        weights = {f"model.{key}": value for key, value in BertModel(config).state_dict().items()}
        save_file(
            {**weights, "fc.weight": torch.randn(len(labels), 192), "fc.bias": torch.zeros(len(labels))},
            folder / "model.safetensors",
        )
        settings = {"base_model": "base", "id2label": {str(at): label for at, label in enumerate(labels)}}
        (folder / "config.json").write_text(json.dumps(settings))
    return str(folder)
