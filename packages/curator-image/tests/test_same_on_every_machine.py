"""Every number that an image stage writes has the same bits whatever the processor, threads and size of batches.

Each setting needs its own process, since NumPy and BLAS examine the processor when they are loaded.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Scores of every stage, for batches of 1, 7 and all rows, as the hex digits of their bytes.
SCORES = """
import hashlib, json, sys
import numpy as np, pyarrow as pa
from curator_core import DocumentBatch, WorkerMetadata
from curator_image import measures
from curator_image.aesthetic import AestheticFilter
from curator_image.batch import tensor_column
from curator_image.exact import unit_rows
from curator_image.nsfw import NSFWFilter

folder = sys.argv[1]
random = np.random.default_rng(5)
ROWS = 99
vectors = random.normal(size=(ROWS, 768)).astype(np.float32)
thumbs = random.integers(0, 256, (ROWS, 48, 40, 3)).astype(np.uint8)
thumbs[::3, :, :20] //= 7
stages = {
    "aesthetic": AestheticFilter(model=f"{folder}/aesthetic.safetensors"),
    "nsfw": NSFWFilter(model=f"{folder}/nsfw.safetensors"),
    **{
        name: getattr(measures, name)()
        for name in measures.__all__
        if name.endswith("Filter") and getattr(getattr(measures, name)(), "statistic", "")
    },
}
assert len(stages) >= 9, sorted(stages)
for stage in stages.values():
    stage.setup(WorkerMetadata())
found = {}
for size in (1, 7, ROWS):
    parts = {name: [] for name in (*stages, "unit")}
    for start in range(0, ROWS, size):
        unit = unit_rows(vectors[start : start + size])
        parts["unit"].append(unit.tobytes())
        kind = pa.list_(pa.float32(), 768)
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(unit.reshape(-1)), type=kind)
        table = pa.table({"embedding": embedding, "thumb": tensor_column(thumbs[start : start + size])})
        for name, stage in stages.items():
            parts[name].append(np.asarray(stage.score_batch(DocumentBatch(data=table))).tobytes())
    found[size] = {name: hashlib.sha256(b"".join(part)).hexdigest() for name, part in parts.items()}
json.dump(found, sys.stdout)
"""

# Embeddings by torch have the same bits for the same batch, whatever the number of threads outside the stage.
EMBEDDINGS = """
import gc

gc.disable()  # the process ends soon, and most of its objects are those of imported modules
import base64, json, sys
import numpy as np
import pyarrow as pa
from curator_core import WorkerMetadata
from curator_image.batch import ImageBatch, tensor_column
from curator_image.embedding import ImageEmbedding, embedding_matrix

pixels = np.random.default_rng(2).integers(0, 256, (int(sys.argv[2]), 32, 32, 3)).astype(np.uint8)
stage = ImageEmbedding(model=sys.argv[1])
stage.setup(WorkerMetadata())
found = {}
for size in (1, 7, len(pixels)):
    rows = []
    for start in range(0, len(pixels), size):
        part = pixels[start : start + size]
        table = pa.table({"key": [str(row) for row in range(len(part))], "pixels": tensor_column(part)})
        table = stage.process(ImageBatch(data=table, task_id="a")).to_pyarrow()
        rows.append(embedding_matrix(table, table.column_names[-1])[0])
    found[size] = base64.b64encode(np.concatenate(rows).tobytes()).decode()
json.dump(found, sys.stdout)
"""


def features() -> str:
    """The processor features beyond NumPy's baseline that NumPy has found and would use."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))


def answer(code: str, *arguments: object, **environment: str) -> dict[str, Any]:
    """The output of the code in a separate process with these variables."""
    found = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return dict(json.loads(found.stdout))


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image_models = pytest.importorskip("image_models")
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = tmp_path_factory.mktemp("heads")
    safetensors.save_file(image_models.aesthetic_tensors(), str(folder / "aesthetic.safetensors"))
    safetensors.save_file(image_models.nsfw_tensors(), str(folder / "nsfw.safetensors"))
    return folder


@pytest.mark.slow
def test_scores_do_not_depend_on_threads_processor_or_batches(heads: Path) -> None:
    settings = [
        {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
        {"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4"},
        {"OMP_NUM_THREADS": "2", "NPY_DISABLE_CPU_FEATURES": features()},
        {"OMP_NUM_THREADS": "2", "OPENBLAS_CORETYPE": "Haswell"},
        {"OMP_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": features()},
    ]
    seen: dict[str, dict[str, str]] = {}
    for setting in settings:
        for size, digests in answer(SCORES, heads, **setting).items():
            for name, digest in digests.items():
                seen.setdefault(name, {}).setdefault(digest, f"{setting}, batches of {size}")
    assert {name: list(found.values()) for name, found in seen.items() if len(found) > 1} == {}


@pytest.mark.slow
@pytest.mark.models
# A process for each number takes eight seconds, most of them to import torch and transformers.
@pytest.mark.parametrize(
    ("count", "threads"), [(20, ("1", "4")), pytest.param(60, ("1", "2", "4"), marks=pytest.mark.thorough)]
)
def test_embeddings_do_not_depend_on_threads_and_only_slightly_on_batches(
    tmp_path: Path, count: int, threads: tuple[str, ...]
) -> None:
    pytest.importorskip("transformers")
    import image_models

    folder = image_models.save_clip(tmp_path / "clip")
    found = [answer(EMBEDDINGS, folder, count, OMP_NUM_THREADS=number) for number in threads]
    assert all(answers == found[0] for answers in found[1:])
    one, seven, all_rows = (
        np.frombuffer(base64.b64decode(found[0][size]), np.float32) for size in ("1", "7", str(count))
    )
    np.testing.assert_allclose(one, all_rows, atol=1e-6)
    np.testing.assert_allclose(seven, all_rows, atol=1e-6)
