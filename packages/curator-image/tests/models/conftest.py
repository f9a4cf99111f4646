"""Models that the tests make, in the formats of published models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curator_image.batch import ImageBatch, tensor_column

Pictures = Callable[..., np.ndarray[Any, Any]]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP: embeddings of 24 numbers from pictures of 32 by 32."""
    import image_models

    return image_models.save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="session")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import image_models

    return image_models.save_siglip(tmp_path_factory.mktemp("models") / "siglip")


@pytest.fixture(scope="session")
def siglip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import image_models

    return image_models.save_siglip2(tmp_path_factory.mktemp("models") / "siglip2")


@pytest.fixture(scope="session")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import image_models

    return image_models.save_dinov2(tmp_path_factory.mktemp("models") / "dinov2")


def pictures(count: int, height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray[Any, Any]:
    """Pictures with soft shapes, as photographs have, and some noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = random.uniform(1, 12, (count, 3, 2))
    phase = random.uniform(0, 6, (count, 3))
    values = np.sin(waves[..., 0, None, None] * x + waves[..., 1, None, None] * y + phase[..., None, None])
    noisy = 127 + 110 * values + random.normal(0, 6, values.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1).copy()


@pytest.fixture
def image_batch() -> Callable[..., ImageBatch]:
    """A batch of images with ``pixels``, as a reader gives it."""

    def make(pixels: np.ndarray[Any, Any] | int, **columns: Any) -> ImageBatch:
        array = pictures(pixels) if isinstance(pixels, int) else pixels
        table = pa.table(
            {
                "key": [f"k{index:03d}" for index in range(len(array))],
                "shard": ["a.tar"] * len(array),
                "pixels": tensor_column(array),
                **columns,
            }
        )
        return ImageBatch(data=table, task_id="a")

    return make


@pytest.fixture(name="pictures", scope="session")
def pictures_fixture() -> Pictures:
    return pictures
