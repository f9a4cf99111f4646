"""Products with torch have the same bytes as with numpy, and the plan says which of them is used. Torch computes on the
CPU here; the same code runs on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("curator_text")

from curator_core import LocalExecutor
from curator_core.across import alike, centres, negatives
from curator_core.across.alike import FindPairs
from curator_core.across.products import NumpyProducts, TorchProducts, products_for
from curator_core.across.vectors import Whole
from curator_core.errors import UsageError
from curator_core.model.machine import Machine
from curator_core.model.resources import Resources
from curator_core.workflows import pieces
from curator_core.workflows.negatives import HardNegatives
from curator_core.workflows.semantic import SemanticDedup
from curator_text.models import products as products_of_text

pytestmark = [pytest.mark.models, pytest.mark.slow]


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Torch, with which every stage computes, in a process that has allowed lower precision."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(pieces, "LEAST_PIECES", 2)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    for module in (alike, centres, negatives):
        monkeypatch.setattr(module, "products_for", lambda *_: products_of_text.make("cpu"))
    yield torch
    assert torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision(before)


def whole(count: int, seed: int) -> np.ndarray:
    """Vectors of whole numbers, each of them twice."""
    made = np.random.default_rng(seed).normal(size=(count // 2, 48))
    made /= np.linalg.norm(made, axis=1)[:, None]
    return Whole.of(np.concatenate([made, made]).astype(np.float32)).numbers


def test_torch_finds_the_same_as_numpy(by_torch: Any) -> None:
    one, other = whole(60, 1), whole(300, 2)
    numpys, torchs = NumpyProducts(), TorchProducts(by_torch, "cpu")
    put = torchs.put(other)
    for count in (1, 4):
        expected = numpys.nearest(one, np.ascontiguousarray(other.T), count)
        found = torchs.nearest(one, torchs.put(np.ascontiguousarray(other.T)), count)
        assert all(
            (mine == theirs).all() and mine.dtype == theirs.dtype for mine, theirs in zip(found, expected, strict=True)
        )
    limit = float(np.partition((one @ other.T).ravel(), -500)[-500])
    expected = numpys.at_least(one, other, limit)
    assert len(expected[0]) >= 500
    assert all(
        (mine == theirs).all()
        for mine, theirs in zip(torchs.at_least(torchs.put(one), put, limit), expected, strict=True)
    )
    limits = np.random.default_rng(3).normal(size=60) * 1e6
    for enough in (0, 7):
        expected = numpys.near(one, other, limits, enough, 1e5)
        found = torchs.near(torchs.put(one), put, limits, enough, 1e5)
        assert all((mine == theirs).all() for mine, theirs in zip(found, expected, strict=True))


def written(place: Path, data: str, pairs: str) -> dict[str, bytes]:
    work = SemanticDedup(paths=data, path=str(place / "out"), eps=0.1, visits=1)
    assert work.run(LocalExecutor(workers=0), run_dir=str(place / "run")).summary.rows_dropped > 20
    mined = HardNegatives(paths=pairs, path=str(place / "mined"), negatives=2, last_rank=9, scores=True)
    mined.run(LocalExecutor(workers=0), run_dir=str(place / "run-mined"))
    folders = ("out", "run/decisions", "mined")
    return {
        f"{folder}/{path.name}": path.read_bytes()
        for folder in folders
        for path in sorted((place / folder).glob("*.*"))
    }


@pytest.fixture
def by_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, dict[str, bytes]]:
    """Vectors, pairs, and the output with numpy."""
    monkeypatch.setattr(pieces, "LEAST_PIECES", 2)
    rng = np.random.default_rng(5)
    made = rng.normal(size=(150, 16))
    made[100:] = made[:50] + 0.1 * rng.normal(size=(50, 16))
    columns: dict[str, Any] = {"id": [f"d{n}" for n in range(150)], "embedding": list(made)}
    columns |= {"query": [f"q{n}" for n in range(150)], "passage": [f"p{n % 120}" for n in range(150)]}
    columns |= {
        "query_embedding": list(made + rng.normal(size=made.shape)),
        "passage_embedding": list(made[np.arange(150) % 120]),
    }
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "in/0.parquet")
    data = str(tmp_path / "in")
    return data, data, written(tmp_path / "numpy", data, data)


def test_output_computed_with_torch_has_the_same_bytes(
    by_numpy: tuple[str, str, dict[str, bytes]], by_torch: Any, tmp_path: Path
) -> None:
    data, pairs, expected = by_numpy
    assert written(tmp_path / "torch", data, pairs) == expected


def test_a_gpu_is_used_if_there_is_one() -> None:
    stage = FindPairs(path="out", keys="keys", least=0.9, vectors="in")
    here = stage.suited_to(Machine(), {})
    assert here.stage is stage
    assert "numpy" in here.decisions[0]
    simulated = stage.suited_to(Machine(gpus=1), {})
    assert simulated.stage is stage
    assert simulated.decisions == ["FindPairs multiplies with numpy: the GPUs of this machine report no memory"]
    there = stage.suited_to(Machine(gpus=1, gpu_memory_gb=80.0), {})
    assert there.stage.resources == Resources(gpus=1)
    assert "with torch" in there.decisions[0]


def test_without_torch_the_gpu_is_not_used_and_the_plan_says_how_to_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from curator_core.across import products

    monkeypatch.setattr(products, "_registered", list)
    stage = FindPairs(path="out", keys="keys", least=0.9, vectors="in")
    made = stage.suited_to(Machine(gpus=1, gpu_memory_gb=80.0), {})
    assert made.stage is stage
    assert "pip install" in made.warnings[0]
    with pytest.raises(UsageError, match="pip install"):
        products_for(Resources(gpus=1), "FindPairs")
