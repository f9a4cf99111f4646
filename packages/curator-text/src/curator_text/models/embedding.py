"""Embeds texts with any transformers encoder, pooled as in sentence-transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator_core.errors import UsageError, check_free
from curator_core.model.task import DocumentBatch
from curator_text._columns import check_different, texts_of, with_text
from curator_text.models.base import TextModel, import_torch, load_weights, vectors

POOLING = ("mean", "cls", "last", "max")


@dataclass(kw_only=True)
class TextEmbedding(TextModel):
    """Adds an embedding of each text, a list of 32-bit floats of fixed length.

    A model in the format of sentence-transformers specifies how to pool, whether to normalize, and how many tokens it
    takes; ``pooling`` (``mean``, ``cls``, ``last`` or ``max``) and ``normalize`` override it. Other models are pooled
    by the mean and normalized. ``prompt`` is put before each text, but only for the model.
    """

    packs = True

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    embedding_column: str = "embedding"
    pooling: str | None = None
    normalize: bool | None = None
    prompt: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling is not None and self.pooling not in POOLING:
            raise UsageError(f"TextEmbedding.pooling must be one of {', '.join(POOLING)}, not {self.pooling!r}")
        if not isinstance(self.prompt, str):
            raise UsageError(f"TextEmbedding.prompt must be text, not {self.prompt!r}")
        if self.normalize not in (None, True, False):
            raise UsageError(f"TextEmbedding.normalize must be true, false or left out, not {self.normalize!r}")
        check_different(self, self.column, self.embedding_column)

    def outputs(self) -> list[str]:
        return [self.embedding_column]

    def load(self, folder: Path, device: str, dtype: str) -> Any:
        import transformers

        found = _sentence_settings(folder)
        self._pooling = self.pooling or found.get("pooling", "mean")
        self._normalize = found.get("normalize", True) if self.normalize is None else self.normalize
        self._most = found.get("max_tokens")
        # Pooling is done in this module, so the model needs no pooler, and many encoders have none.
        return load_weights(transformers.AutoModel.from_pretrained, folder, dtype, device, unneeded=("pooler.",))

    def forward(self, inputs: dict[str, Any]) -> Any:
        torch = import_torch()
        states = self.call_model(inputs).last_hidden_state.float()
        if "bounds" in inputs:
            return self._finished_vectors(self._pooled_packs(states[0], inputs["attention_mask"][0], inputs["bounds"]))
        mask = inputs["attention_mask"].unsqueeze(-1)
        if self._pooling == "mean":
            pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        elif self._pooling == "max":
            pooled = states.masked_fill(mask == 0, float("-inf")).amax(1)
        else:
            # Padding may be on either side.
            places = torch.arange(states.shape[1], device=states.device) * inputs["attention_mask"]
            at = places.argmax(1) if self._pooling == "last" else inputs["attention_mask"].argmax(1)
            pooled = states[torch.arange(len(states), device=states.device), at]
        return self._finished_vectors(pooled)

    def _pooled_packs(self, states: Any, mask: Any, bounds: Any) -> Any:
        """Pool texts that follow one another in one row."""
        if self._pooling in ("cls", "last"):
            return states[bounds[:-1].long() if self._pooling == "cls" else bounds[1:].long() - 1]
        torch = import_torch()

        def reduced(values: Any, how: str) -> Any:
            return torch.segment_reduce(values, how, offsets=bounds.long(), axis=0, unsafe=True)

        if self._pooling == "max":
            return reduced(states.masked_fill(mask[:, None] == 0, float("-inf")), "max")
        counts = reduced(mask.float(), "sum").clamp(min=1)
        return reduced(states * mask[:, None], "sum") / counts[:, None]

    def _finished_vectors(self, pooled: Any) -> Any:
        return import_torch().nn.functional.normalize(pooled, dim=-1) if self._normalize else pooled

    def texts(self, task: DocumentBatch) -> tuple[DocumentBatch, list[str | None]]:
        task = with_text(self, task, self.column)
        table = task.to_pyarrow()
        check_free(type(self).__name__, table.column_names, self.outputs())
        texts = texts_of(self, table, self.column)
        if self.prompt:
            texts = [None if text is None else self.prompt + text for text in texts]
        return task, texts

    def add(self, task: DocumentBatch, rows: list[Any]) -> DocumentBatch:
        return task.append_column(self.embedding_column, vectors(rows, self._width()))

    def token_limits(self) -> list[int]:
        return [*super().token_limits(), *([self._most] if self._most else [])]

    def _width(self) -> int:
        return int(self._loaded.config.hidden_size)


def _sentence_settings(folder: Path) -> dict[str, Any]:
    """The settings of a sentence-transformers model, or an empty result for other models."""
    if not (folder / "modules.json").exists():
        return {}
    settings: dict[str, Any] = {"normalize": False}
    for module in json.loads((folder / "modules.json").read_text("utf-8")):
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling":
            pooling = json.loads((folder / module["path"] / "config.json").read_text("utf-8"))
            known = {
                "pooling_mode_mean_tokens": "mean",
                "pooling_mode_cls_token": "cls",
                "pooling_mode_max_tokens": "max",
                "pooling_mode_lasttoken": "last",
            }
            chosen = [name for key, name in known.items() if pooling.get(key)]
            if pooling.get("pooling_mode") in POOLING:
                chosen = [pooling["pooling_mode"]]
            if len(chosen) != 1:
                raise UsageError(f"{str(folder)!r} pools in a way that is not supported: give pooling and normalize")
            settings["pooling"] = chosen[0]
        elif kind == "Normalize":
            settings["normalize"] = True
        elif kind != "Transformer":
            raise UsageError(f"{str(folder)!r} has a module {kind} after its encoder, which is not supported")
    limits = folder / "sentence_bert_config.json"
    if limits.exists():
        settings["max_tokens"] = json.loads(limits.read_text("utf-8")).get("max_seq_length")
    return settings
