"""Scores how well a caption describes its image, by the CLIP similarity of the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array, scalar, to_numpy
from curator_core.errors import UsageError
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.parameters import paths_as_text
from curator_core.model.resources import Resources
from curator_core.model.task import DocumentBatch
from curator_core.stages.column_filter import ColumnFilter
from curator_image.batch import CAPTION
from curator_image.embedding import (
    DEFAULT_MODEL,
    check_batch,
    check_choice,
    check_number,
    embedding_matrix,
    embedding_origin,
)
from curator_image.exact import row_sums
from curator_image.models.needs import ParameterResources
from curator_image.models.source import check_model, locate_folder, split_model
from curator_image.models.towers import DEVICES, PRECISIONS, TextTower, choose_device, threads


@dataclass(kw_only=True)
class CaptionScoreFilter(ColumnFilter):
    """Keeps images whose caption has a cosine similarity of ``min_score`` or more to the picture.

    ``column`` is the caption; ``embedding_column`` is the output of ImageEmbedding with the same ``model``. The scale
    depends on the model: LAION's 0.28 and 0.3 are for ViT-B/32. ViT-L/14, the default here, gives lower values, and 0.2
    drops captions that have nothing to do with their picture. An image without a caption is dropped as ``no caption``.
    """

    tried_by_plan = False

    maybe_paths = ("model",)

    column: str = CAPTION
    embedding_column: str = "embedding"
    min_score: float = 0.2
    model: str = DEFAULT_MODEL
    revision: str | None = None
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    model_batch_size: int | None = None
    gpu_memory_gb: float = 0.0
    cpus: float = 1.0

    score_type: ClassVar[pa.DataType] = pa.float32()

    resources = ParameterResources()

    def __post_init__(self) -> None:
        super().__post_init__()
        paths_as_text(self, "model")
        check_model("CaptionScoreFilter", self.model, self.revision)
        split_model(self.model, self.revision)
        check_choice("CaptionScoreFilter.precision", self.precision, PRECISIONS)
        check_choice("CaptionScoreFilter.device", self.device, DEVICES)
        check_batch("CaptionScoreFilter.model_batch_size", self.model_batch_size)
        check_number("CaptionScoreFilter.min_score", self.min_score)
        Resources(cpus=self.cpus, gpu_memory_gb=self.gpu_memory_gb)
        self._tower: TextTower | None = None

    def inputs(self) -> list[str]:
        return [self.column, self.embedding_column]

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        """Download the model, once per machine."""
        locate_folder(self.model, self.revision)

    def setup(self, worker: WorkerMetadata) -> None:
        """Load the text model onto its device."""
        self._tower = TextTower.load(
            locate_folder(self.model, self.revision),
            device=choose_device(self.device, self.resources.requires_gpu),
            precision=self.precision,
            batch_size=self.model_batch_size,
        )

    def teardown(self) -> None:
        """Release the memory."""
        self._tower = None

    def score_batch(self, batch: DocumentBatch) -> pa.Array:
        """Cosine similarities; null where a caption is missing or blank."""
        if self._tower is None:
            self.setup(WorkerMetadata())
        assert self._tower is not None
        table = batch.to_pyarrow()
        made_by, _ = embedding_origin(table, self.embedding_column)
        mine = split_model(self.model)[0]
        if made_by and made_by != mine:
            raise UsageError(
                f"CaptionScoreFilter compares captions with {mine!r}, but column {self.embedding_column!r} was made by "
                f"{made_by!r}: give both stages the same model"
            )
        captions = [(text or "").strip() for text in table.column(self.column).to_pylist()]
        images, embedded = embedding_matrix(table, self.embedding_column)
        there = np.array([bool(text) for text in captions], bool) & to_numpy(embedded)
        scores = np.zeros(len(captions), np.float32)
        if there.any():
            with threads(max(1, int(self.cpus))):
                texts = self._tower.embed([text for text, has in zip(captions, there, strict=True) if has])
            if images.shape[1] != texts.shape[1]:
                raise UsageError(
                    f"column {self.embedding_column!r} has {images.shape[1]} numbers, but texts of {mine!r} have "
                    f"{texts.shape[1]}: make the embedding with the same model"
                )
            scores[there] = row_sums(images[there].astype(np.float64) * texts)
        return array(scores) if there.all() else pa.array(scores, mask=~there)

    def keep_array(self, scores: pa.Array) -> Any:
        return pc.greater_equal(scores, scalar(self.min_score))

    def reasons(self, scores: pa.Array) -> pa.Array:
        return pc.if_else(pc.is_null(scores), "no caption", self.short_name())

    def limits(self) -> str:
        return f"images whose caption has a similarity of {self.min_score:g} or more to the picture"
