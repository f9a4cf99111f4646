"""Classifies texts with any sequence classifier in Hugging Face's formats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.errors import UsageError, check_free, check_whole
from curator_core.model.task import DocumentBatch
from curator_text._columns import check_different, texts_of, with_text
from curator_text.models.base import TextModel, import_torch, load_weights, vectors


@dataclass(kw_only=True)
class TextClassifier(TextModel):
    """Adds the label and the score that a classifier gives each text.

    With several classes, ``label_column`` is the most likely class and ``score_column`` its probability;
    ``scores_column``, if given, contains all probabilities in the order of the model's labels. A model with one output
    is a regression: its score is the output, and its label is the score, rounded and limited to the range from 0 to
    ``top_score``. ``keep`` drops texts with other labels.
    """

    label_column: str = "label"
    score_column: str | None = "score"
    scores_column: str | None = None
    keep: Sequence[str] | None = None
    top_score: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if isinstance(self.keep, str):
            raise UsageError(f"{name}.keep must be a list of labels, such as [{self.keep!r}]")
        if self.keep is not None and not self.keep:
            raise UsageError(f"{name}.keep is empty, so every text would be dropped: name labels, or leave it out")
        check_whole(f"{name}.top_score", self.top_score)
        self.shows_kept = self.keep is not None
        check_different(self, self.column, self.label_column, self.score_column, self.scores_column)

    def describe(self) -> str:
        return f"keeps texts with the label {' or '.join(self.keep)}" if self.keep else ""

    def outputs(self) -> list[str]:
        return [name for name in (self.label_column, self.score_column, self.scores_column) if name]

    def load(self, folder: Path, device: str, dtype: str) -> Any:
        import transformers

        config = json.loads((folder / "config.json").read_text("utf-8"))
        if "base_model" in config and "id2label" in config:
            model = _headed(folder, config, dtype, device)
            labels = config["id2label"]
        else:
            model = load_weights(transformers.AutoModelForSequenceClassification.from_pretrained, folder, dtype, device)
            labels = model.config.id2label
        self._labels = [labels[key] for key in sorted(labels, key=int)]
        # A regression has one name, that of its output, and its label is the rounded score.
        given = self._labels if len(self._labels) > 1 else [str(level) for level in range(self.top_score + 1)]
        if self.keep is not None and (unknown := set(self.keep) - set(given)):
            raise UsageError(
                f"{type(self).__name__}.keep contains {sorted(unknown)}, but the model's labels are: {', '.join(given)}"
            )
        return model

    def forward(self, inputs: dict[str, Any]) -> Any:
        answer = self.call_model(inputs)
        logits = getattr(answer, "logits", answer).float()
        return logits if len(self._labels) == 1 else logits.softmax(-1)

    def texts(self, task: DocumentBatch) -> tuple[DocumentBatch, list[str | None]]:
        task = with_text(self, task, self.column)
        table = task.to_pyarrow()
        check_free(type(self).__name__, table.column_names, self.outputs())
        return task, texts_of(self, table, self.column)

    def add(self, task: DocumentBatch, rows: list[Any]) -> DocumentBatch:
        labels: list[str | None]
        if self._width() == 1:
            scores = [None if row is None else float(row[0]) for row in rows]
            labels = [None if s is None else str(int(np.clip(np.rint(s), 0, self.top_score))) for s in scores]
        else:
            best = [None if row is None else int(row.argmax()) for row in rows]
            scores = [None if at is None else float(row[at]) for at, row in zip(best, rows, strict=True)]
            labels = [None if at is None else self._labels[at] for at in best]
        task = task.append_column(self.label_column, array(labels, pa.string()))
        if self.score_column:
            task = task.append_column(self.score_column, array(scores, pa.float64()))
        if self.scores_column:
            task = task.append_column(self.scores_column, vectors(rows, self._width()))
        if self.keep is None:
            return task
        for row, label in enumerate(labels):
            if label not in self.keep:
                self.record_dropped(f"label {label}", which=row, of=task)
        values = np.array([np.nan if score is None else score for score in scores], float)
        self.record_scored(self.score_column or "score", "keep", values, self._margins(rows), of=task)
        return task.filter(array([label in self.keep for label in labels], pa.bool_()))

    def _margins(self, rows: list[Any]) -> np.ndarray[Any, Any]:
        """How far each row is from the other verdict: the difference between the highest probabilities of a kept and of
        a dropped label, or between a score and the nearest limit of the kept ones.
        """
        assert self.keep is not None
        if self._width() == 1:
            stays = [str(level) in self.keep for level in range(self.top_score + 1)]
            limits = np.array([level + 0.5 for level in range(self.top_score) if stays[level] != stays[level + 1]])
            far = [np.nan if row is None else np.min(np.abs(limits - float(row[0])), initial=np.inf) for row in rows]
            return np.array(far, float)
        stay = np.array([label in self.keep for label in self._labels])
        if stay.all():
            return np.full(len(rows), np.nan)
        return np.array([np.nan if row is None else abs(row[stay].max() - row[~stay].max()) for row in rows], float)

    def _width(self) -> int:
        return len(self._labels) if self._loaded is not None else 2


@dataclass(kw_only=True)
class DomainClassifier(TextClassifier):
    """Labels each text with one of 26 subjects, using nvidia/domain-classifier (English)."""

    model: str = "nvidia/domain-classifier"
    label_column: str = "domain"
    score_column: str | None = "domain_score"
    max_tokens: int | None = 512
    max_chars: int | None = 2000


@dataclass(kw_only=True)
class QualityClassifier(TextClassifier):
    """Labels each text High, Medium or Low, using nvidia/quality-classifier-deberta (English)."""

    model: str = "nvidia/quality-classifier-deberta"
    label_column: str = "quality"
    score_column: str | None = "quality_score"
    max_tokens: int | None = 1024
    max_chars: int | None = 6000


@dataclass(kw_only=True)
class ContentTypeClassifier(TextClassifier):
    """Labels each text with one of 11 kinds of documents, using nvidia/content-type-classifier-deberta (English)."""

    model: str = "nvidia/content-type-classifier-deberta"
    label_column: str = "content_type"
    score_column: str | None = "content_type_score"
    max_tokens: int | None = 1024
    max_chars: int | None = 6000


@dataclass(kw_only=True)
class FineWebEduClassifier(TextClassifier):
    """Scores how educational a page is, from 0 to 5, using HuggingFaceFW/fineweb-edu-classifier (English)."""

    model: str = "HuggingFaceFW/fineweb-edu-classifier"
    label_column: str = "edu_level"
    score_column: str | None = "edu_score"
    max_tokens: int | None = 512


def _headed(folder: Path, config: dict[str, Any], dtype: str, device: str) -> Any:
    """A base model with one linear layer over its first token, which is the form of NVIDIA's classifiers."""
    torch = import_torch()
    import transformers
    from safetensors.torch import load_file

    from curator_text.models.base import model_folder

    inner = folder / "base"
    base = inner if (inner / "config.json").exists() else model_folder(config["base_model"], None)
    body = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(str(base), local_files_only=True))

    nn: Any = torch.nn

    class Headed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = body
            self.fc = torch.nn.Linear(body.config.hidden_size, len(config["id2label"]))
            self.config = body.config

        def forward(self, **inputs: Any) -> Any:
            return self.fc(self.model(**inputs).last_hidden_state[:, 0, :])

    model = Headed()
    weights = load_file(str(folder / "model.safetensors"))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [key for key in missing if "position_ids" not in key]
    if missing or unexpected:
        raise UsageError(f"the weights in {str(folder)!r} do not fit the model: {[*missing, *unexpected][:4]}")
    return model.eval().to(device, getattr(torch, dtype))
