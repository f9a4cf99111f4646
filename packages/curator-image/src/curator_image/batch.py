"""A batch of images: an Arrow table with one row per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core.arrow.arrays import array, to_numpy
from curator_core.model.task import DocumentBatch

# The columns that a reader makes for every image. Other columns hold the sidecar members of a sample (caption, json)
# and scores.
KEY = "key"
SHARD = "shard"
EXT = "ext"
BYTES = "bytes"
WIDTH = "width"
HEIGHT = "height"
FORMAT = "format"
MEMBERS = "members"
ODD = "odd"
CAPTION = "caption"
# The columns that decoding adds: the picture that a model needs, and a small picture of the whole image for measures.
PIXELS = "pixels"
THUMB = "thumb"
PICTURES = (PIXELS, THUMB)


@dataclass(kw_only=True)
class ImageBatch(DocumentBatch):
    """Images as rows: ``key``, ``shard``, ``ext``, the original ``bytes``, ``width``, ``height``, and a column for
    every sidecar member, score and embedding. Text filters work on captions.

    ``members`` lists the extensions of the sample's members in their order (``["jpg", "txt"]``), so that a writer can
    restore all of them.
    """

    picture_column: ClassVar[str | None] = BYTES
    picture_maker: ClassVar[str] = "curator_image.thumbnail:jpeg_thumbnail"

    def validate(self) -> bool:
        return super().validate() and KEY in self.column_names

    def pictures(self, column: str = PIXELS) -> NDArray[np.uint8]:
        """A decoded column as an array ``(rows, height, width, 3)`` that shares the table's memory where possible."""
        return tensor_to_numpy(self.to_pyarrow().column(column))


def tensor_column(values: NDArray[Any]) -> pa.ExtensionArray:
    """An array ``(rows, …)`` as an Arrow column of fixed-shape tensors, without a copy."""
    values = np.ascontiguousarray(values)
    shape = values.shape[1:]
    size = int(np.prod(shape))
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(values.dtype), shape)
    flat = array(values.reshape(-1))
    return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(flat, size))


def tensor_to_numpy(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """The array from which `tensor_column` made a column."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    arrays = [
        to_numpy(chunk.storage.flatten()).reshape(len(chunk), *chunk.type.shape) for chunk in chunks if len(chunk)
    ]
    if len(arrays) == 1:
        return np.asarray(arrays[0])
    kind = column.type
    if not arrays:
        return np.zeros((0, *kind.shape), kind.value_type.to_pandas_dtype())
    return np.concatenate(arrays)
