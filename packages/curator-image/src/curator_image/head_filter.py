"""Filters over an image embedding: a published head computes the score, and a threshold decides."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curator_core.arrow.arrays import array, to_numpy
from curator_core.errors import UsageError
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.parameters import paths_as_text
from curator_core.model.task import DocumentBatch
from curator_core.stages.column_filter import ColumnFilter
from curator_image.embedding import embedding_matrix, embedding_origin
from curator_image.models.source import HubFile, check_model, locate_file, split_model

Score = Callable[[Any], Any]


@dataclass(kw_only=True)
class EmbeddingHeadFilter(ColumnFilter):
    """Base of filters whose score is a small network over an embedding column from ImageEmbedding.

    The network runs in NumPy and takes microseconds for each image. It needs no GPU and runs in the same worker as the
    ImageEmbedding before it, so dropped rows never leave that process.
    """

    tried_by_plan = False

    maybe_paths = ("model",)

    column: str = "embedding"
    model: str = ""
    revision: str | None = None
    sha256: str | None = None

    score_type: ClassVar[pa.DataType] = pa.float32()
    trained_on: ClassVar[str] = "openai/clip-vit-large-patch14"
    trained_kinds: ClassVar[tuple[str, ...]] = ("clip", "clip_vision_model")

    light = True

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        paths_as_text(self, "model")
        check_model(name, self.model, self.revision)
        if "://" not in self.model:
            split_model(self.model, self.revision)
        if self.sha256 is not None and len(self.sha256) != 64:
            raise UsageError(f"{name}.sha256 must be the 64 hex digits of the file's SHA-256, not {self.sha256!r}")
        self._head: Any = None

    @abstractmethod
    def weights_file(self) -> HubFile:
        """The location of the head's weights."""

    @abstractmethod
    def load_head(self, path: Any) -> Any:
        """The head, read from its file: it can be called with a matrix and has a ``dimension``."""

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        """Download the head, once per machine."""
        locate_file(self.weights_file())

    def setup(self, worker: WorkerMetadata) -> None:
        """Load the head."""
        self._head = self.load_head(locate_file(self.weights_file()))

    def teardown(self) -> None:
        """Release the head."""
        self._head = None

    def score_batch(self, batch: DocumentBatch) -> pa.Array:
        """The head's score of every row, null where there is no embedding."""
        table = batch.to_pyarrow()
        self._check_origin(*embedding_origin(table, self.column))
        return self._scores(*embedding_matrix(table, self.column))

    def score_array(self, values: pa.Array) -> pa.Array:
        """Scores of an array of embeddings."""
        return self._scores(*embedding_matrix(pa.table({self.column: values}), self.column))

    def _scores(self, matrix: Any, valid: pa.Array) -> pa.Array:
        if self._head is None:
            self.setup(WorkerMetadata())
        name = type(self).__name__
        if len(matrix) and matrix.shape[1] != self._head.dimension:
            raise UsageError(
                f"{name} reads embeddings of {self._head.dimension} numbers, but column {self.column!r} has "
                f"{matrix.shape[1]}: its head was trained on {self.trained_on}, so use ImageEmbedding with that model, "
                "or give a head that fits yours"
            )
        scores = self._head(matrix) if len(matrix) else np.zeros(0, np.float32)
        there = to_numpy(valid)
        return array(scores) if there.all() else pa.array(scores, mask=~there)

    def _check_origin(self, model: str, kind: str) -> None:
        if kind and kind not in self.trained_kinds:
            raise UsageError(
                f"{type(self).__name__} reads embeddings of CLIP, but column {self.column!r} was made by {model!r}, "
                f"which is a {kind} model; its scores would be meaningless. Add a second ImageEmbedding with "
                f"model={self.trained_on!r} and another embedding_column, and set column to it here"
            )
