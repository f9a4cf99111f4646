"""Stages that run models (classifiers and embeddings) on a GPU or on the CPU."""

from __future__ import annotations

from curator_text.models.classifier import (
    ContentTypeClassifier,
    DomainClassifier,
    FineWebEduClassifier,
    QualityClassifier,
    TextClassifier,
)
from curator_text.models.embedding import TextEmbedding

__all__ = [
    "ContentTypeClassifier",
    "DomainClassifier",
    "FineWebEduClassifier",
    "QualityClassifier",
    "TextClassifier",
    "TextEmbedding",
]
