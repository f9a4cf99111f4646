"""Image embeddings: one unit vector for the pixels of every image, from CLIP, SigLIP, SigLIP 2 or DINOv2."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array, to_numpy
from curator_core.errors import UsageError, check_free, check_whole
from curator_core.model.compiling import check_compile, compile_decisions
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.parameters import paths_as_text
from curator_core.model.resources import Resources
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_image.batch import KEY, PIXELS, SHARD, tensor_to_numpy
from curator_image.decode.beside import PixelsBeside
from curator_image.decode.needs import check_made_as
from curator_image.decode.picture import Picture
from curator_image.models.cost import GPU_OPERATIONS_S, operations
from curator_image.models.needs import ParameterResources, SeveralOnGpu
from curator_image.models.preprocess import needed_picture
from curator_image.models.source import check_model, locate_folder, split_model
from curator_image.models.towers import DEVICES, PRECISIONS, ImageTower, choose_device, threads

# How many batches a GPU begins before the first result is requested.
AHEAD = 2
DEFAULT_MODEL = "openai/clip-vit-large-patch14"
# Metadata keys of the column: a head is trained on one kind of embedding, and raises on another kind of the same
# length.
ORIGIN_MODEL = b"curator.embedding.model"
ORIGIN_KIND = b"curator.embedding.kind"


@dataclass(kw_only=True)
class ImageEmbedding(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Adds an embedding of the ``pixels`` of every image: a unit vector, as a fixed-size list of float32.

    The reader makes ``pixels`` according to the model's ``preprocessor_config.json``, unless its ``size`` or ``mode``
    is given.

    ``model`` is a Hugging Face id (``org/name``, ``org/name@revision``) of a CLIP, SigLIP, SigLIP 2 or DINOv2 model, or
    a local folder. The default is read at a pinned revision. ``gpu_memory_gb`` requests part of a GPU; without it the
    model runs on ``cpus`` threads. ``precision`` is ``fp32``, ``fp16``, ``bf16``, or ``auto``: bf16 on a GPU, fp32 on
    the CPU. ``model_batch_size`` is how many images go through the model at once; by default, it is measured, and it is
    halved when memory runs out. ``compile``: ``always`` compiles the model when the worker starts, ``never`` does not,
    ``auto`` does it on a GPU once the worker has computed for half a minute. ``pixels`` are dropped afterwards unless a
    later stage reads them or ``keep_pixels`` is set.
    """

    tried_by_plan = False

    maybe_paths = ("model",)

    model: str = DEFAULT_MODEL
    revision: str | None = None
    embedding_column: str = "embedding"
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    model_batch_size: int | None = None
    gpu_memory_gb: float = 0.0
    cpus: float = 1.0
    keep_pixels: bool | None = None
    compile: Literal["auto", "always", "never"] = "auto"

    resources = ParameterResources()
    batch_size = SeveralOnGpu()
    follows_rows = True

    def __post_init__(self) -> None:
        paths_as_text(self, "model")
        check_model("ImageEmbedding", self.model, self.revision)
        split_model(self.model, self.revision)
        check_choice("ImageEmbedding.precision", self.precision, PRECISIONS)
        check_choice("ImageEmbedding.device", self.device, DEVICES)
        check_compile("ImageEmbedding.compile", self.compile)
        check_batch("ImageEmbedding.model_batch_size", self.model_batch_size)
        if not isinstance(self.embedding_column, str) or not self.embedding_column:
            raise UsageError(
                f"ImageEmbedding.embedding_column must be the name of a new column, not {self.embedding_column!r}"
            )
        Resources(cpus=self.cpus, gpu_memory_gb=self.gpu_memory_gb)
        self._tower: ImageTower | None = None
        self._drops_pixels = not self.keep_pixels and self.keep_pixels is not None

    def inputs(self) -> list[str]:
        return [PIXELS]

    def outputs(self) -> list[str]:
        return [self.embedding_column]

    def column_needs(self) -> dict[str, Picture | None]:
        """The pixels that the model's ``preprocessor_config.json`` requires; None while the model is not on this
        machine.
        """
        seen, picture = needed_picture(self.model, self.revision)
        return {PIXELS: picture} if picture is not None or not seen else {}

    def removes(self) -> list[str]:
        return [PIXELS] if self._drops_pixels else []

    def needed_by(self, columns: frozenset[str]) -> ImageEmbedding:
        """Pixels are by far the largest column, so they are dropped here unless a later stage reads them."""
        twin = self.with_()
        if self.keep_pixels is None:
            twin._drops_pixels = PIXELS not in columns
        return twin

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        """Download the model, once per machine."""
        locate_folder(self.model, self.revision)

    def takes_beside(self) -> list[str]:
        return [PIXELS]

    def rows_s(self) -> float | None:
        """Images a second on one GPU, from the model's configuration."""
        found = operations(self.model, self.revision)
        return found and GPU_OPERATIONS_S / found

    def plan_notes(self) -> Sequence[str]:
        return compile_decisions(self.name, self.compile, self.resources.requires_gpu and self.device != "cpu")

    def setup(self, worker: WorkerMetadata) -> None:
        """Load the model onto its device."""
        device = choose_device(self.device, self.resources.requires_gpu)
        self.begins_ahead = AHEAD if device == "cuda" else 0
        with threads(self._threads()):
            self._tower = ImageTower.load(
                locate_folder(self.model, self.revision),
                device=device,
                precision=self.precision,
                batch_size=self.model_batch_size,
                memory_gb=self.resources.gpu_memory_gb,
                compile=self.compile,
            )

    def teardown(self) -> None:
        """Release the memory."""
        self._tower = None

    def begin(self, task: DocumentBatch) -> Callable[[], DocumentBatch]:
        """Start computing on a GPU, so that the CPU can handle the previous and the next batch meanwhile."""
        tower = self._tower
        assert tower is not None, "setup() comes before process()"
        check_free(self.name, task.column_names, [self.embedding_column])
        beside = task.beside(PIXELS)
        table = task.to_pyarrow()
        metadata = beside.metadata if isinstance(beside, PixelsBeside) else table.schema.field(PIXELS).metadata
        check_made_as(self.name, metadata, tower.preprocessing.picture)
        pixels = beside.tensor if isinstance(beside, PixelsBeside) else tensor_to_numpy(table.column(PIXELS))
        before = tower.batcher.retries
        metrics = {"compiled": float(tower.compile_in_time())}
        with threads(self._threads()):
            finish = tower.begin(pixels)
        metrics["out_of_memory_retries"] = float(tower.batcher.retries - before)
        return lambda: self._made(task, finish(), tower, metrics)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        """The batch with one more column; a vector that is not finite is a reject."""
        return self.begin(task)()

    def _made(self, task: DocumentBatch, vectors: Any, tower: ImageTower, metrics: dict[str, float]) -> DocumentBatch:
        for name, value in metrics.items():
            if value:
                self.record_metric(name, value)
        field = pa.field(
            self.embedding_column,
            pa.list_(pa.float32(), tower.dimension),
            metadata={ORIGIN_MODEL: split_model(self.model)[0].encode(), ORIGIN_KIND: tower.kind.encode()},
        )
        values = pa.FixedSizeListArray.from_arrays(array(vectors.reshape(-1)), type=field.type)
        if self._drops_pixels:
            task = task.drop_columns([PIXELS])
        task = task.append_column(field, values)
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            self._reject(task.to_pyarrow(), finite)
            task = task.filter(array(finite))
        return task

    def _reject(self, table: pa.Table, finite: Any) -> None:
        gone = table.select([name for name in (KEY, SHARD) if name in table.column_names]).filter(array(~finite))
        for row in gone.to_pylist():
            self.record_rejected(
                "embedding not finite",
                source=str(row.get(SHARD) or ""),
                position=str(row.get(KEY) or ""),
                message=f"{self.model} in {self.precision} gave a vector with infinite or missing numbers: try fp32",
            )

    def _threads(self) -> int:
        return max(1, int(self.cpus))


def embedding_matrix(table: pa.Table, column: str) -> tuple[Any, pa.Array]:
    """A list column as a float32 matrix, and a mask of the rows that have a vector (the others are zeros)."""
    values = table.column(column)
    kind = values.type
    vectors = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    valid = pc.is_valid(vectors)
    if pa.types.is_fixed_size_list(kind):
        width = kind.list_size
        filled = vectors if not vectors.null_count else vectors.fill_null([0.0] * width)
        flat = to_numpy(filled.flatten())
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.unique(pc.list_value_length(vectors.drop_null())).to_pylist()
        if len(lengths) > 1:
            raise UsageError(f"column {column!r} holds vectors of different lengths: {sorted(lengths)[:5]}")
        width = lengths[0] if lengths else 0
        filled = vectors if not vectors.null_count else pc.fill_null(vectors, pa.scalar([0.0] * width, kind))
        flat = to_numpy(filled.flatten())
    else:
        raise UsageError(
            f"column {column!r} holds {kind}, but an embedding is a list of numbers: put ImageEmbedding before"
        )
    return np.ascontiguousarray(flat, np.float32).reshape(len(vectors), width), valid


def embedding_origin(table: pa.Table, column: str) -> tuple[str, str]:
    """The model and the kind of model that made an embedding column, or empty strings if the metadata lacks them."""
    metadata = table.schema.field(column).metadata or {}
    return metadata.get(ORIGIN_MODEL, b"").decode(), metadata.get(ORIGIN_KIND, b"").decode()


def check_choice(what: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise if a value is not among the choices."""
    if value not in choices:
        raise UsageError(f"{what} must be one of {', '.join(choices)}, not {value!r}")


def check_batch(what: str, value: object) -> None:
    """Raise if a value is not a batch size; None means that it is measured."""
    check_whole(what, value, optional=True)


def check_number(what: str, value: object) -> None:
    """Raise if a value is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise UsageError(f"{what} must be a number, not {value!r}")
