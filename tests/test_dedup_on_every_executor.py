"""Deduplication decides and writes the same bytes on every executor, also when it was killed there."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("curator_text")

from curator_core import LocalExecutor, SemanticDedup
from curator_core.executors.base import BaseExecutor
from curator_text import FuzzyDedup

WORDS = [f"w{number}" for number in range(900)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Documents of which some are copies, and some nearly."""
    folder = tmp_path_factory.mktemp("in")
    rng = random.Random(5)
    rows = []
    for number in range(80):
        words = [rng.choice(WORDS) for _ in range(rng.randint(20, 120))]
        rows.append((f"d{number}", " ".join(words)))
        if number % 4 == 0:
            rows.append((f"c{number}", " ".join(words)))
        if number % 4 == 1:
            words[3] = "another"
            rows.append((f"n{number}", " ".join(words)))
    rng.shuffle(rows)
    for file in range(3):
        lines = [json.dumps({"id": name, "text": text}) + "\n" for name, text in rows[file::3]]
        (folder / f"{file}.jsonl").write_text("".join(lines))
    return str(folder)


@pytest.fixture(scope="module")
def expected(data: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process decides and writes."""
    return written(LocalExecutor(workers=0), data, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray for both engines."""
    pytest.importorskip("ray")
    from curator_backends.cluster import connect
    from curator_backends.options import RayOptions
    from curator_backends.xenna.executor import CLUSTER_ENVIRONMENT

    with connect(RayOptions(num_cpus=2, dashboard=True), extra_environment=CLUSTER_ENVIRONMENT):
        yield


def written(executor: BaseExecutor, data: str, place: Path, *, resume: bool = False) -> dict[str, bytes]:
    work = FuzzyDedup(paths=data, path=str(place / "out"), partitions=3)
    summary = work.run(executor, run_dir=str(place / "run"), resume=resume).summary
    assert summary.rows_dropped == 40
    return contents(place)


def contents(place: Path) -> dict[str, bytes]:
    """The files of the output and of the table of decisions."""
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for folder in ("out", "run/decisions")
        for path in sorted((place / folder).iterdir())
        if path.name != "_SUCCESS"
    }


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Vectors of which some point nearly the same way."""
    folder = tmp_path_factory.mktemp("vectors")
    rng = random.Random(7)
    made = [[rng.gauss(0, 1) for _ in range(8)] for _ in range(60)]
    made += [[value + rng.gauss(0, 0.05) for value in made[number]] for number in range(0, 60, 2)]
    for file in range(2):
        rows = [{"id": f"d{n}", "embedding": vector} for n, vector in enumerate(made) if n % 2 == file]
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def written_by_vectors(executor: BaseExecutor, data: str, place: Path, *, resume: bool = False) -> dict[str, bytes]:
    work = SemanticDedup(paths=data, path=str(place / "out"), clusters=4, partitions=2)
    summary = work.run(executor, run_dir=str(place / "run"), resume=resume).summary
    assert summary.rows_dropped == 30
    return contents(place)


@pytest.fixture(scope="module")
def expected_by_vectors(vectors: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process decides and writes."""
    return written_by_vectors(LocalExecutor(workers=0), vectors, tmp_path_factory.mktemp("one-by-vectors"))


@pytest.mark.slow
def test_a_killed_run_by_vectors_ends_the_same(
    vectors: str, expected_by_vectors: dict[str, bytes], tmp_path: Path
) -> None:
    code = (
        "import os, signal, sys\n"
        "from curator_core import LocalExecutor, SemanticDedup\n"
        "def progress(state):\n"
        "    if state.step == 4 and state.finished_sources:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "work = SemanticDedup(paths=sys.argv[1], path=sys.argv[2] + '/out', clusters=4, partitions=2)\n"
        "work.run(LocalExecutor(workers=2), run_dir=sys.argv[2] + '/run', progress=progress)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, vectors, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert written_by_vectors(LocalExecutor(workers=2), vectors, tmp_path, resume=True) == expected_by_vectors


@pytest.mark.slow
def test_a_killed_run_ends_the_same(data: str, expected: dict[str, bytes], tmp_path: Path) -> None:
    """On Ray Data and Xenna this is a matter of the run, which is the same code; their workers have tests of their own."""
    code = (
        "import os, signal, sys\n"
        "from curator_core import LocalExecutor\n"
        "from curator_text import FuzzyDedup\n"
        "def progress(state):\n"
        "    if state.step == 4 and state.finished_sources:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "work = FuzzyDedup(paths=sys.argv[1], path=sys.argv[2] + '/out', partitions=3)\n"
        "work.run(LocalExecutor(workers=2), run_dir=sys.argv[2] + '/run', progress=progress)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, data, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert written(LocalExecutor(workers=2), data, tmp_path, resume=True) == expected


@pytest.mark.ray
def test_ray_data_decides_what_one_process_does(
    data: str, expected: dict[str, bytes], cluster: None, tmp_path: Path
) -> None:
    from curator_backends import RayDataExecutor

    assert written(RayDataExecutor(), data, tmp_path) == expected


@pytest.mark.thorough
@pytest.mark.ray
def test_ray_data_decides_by_vectors_what_one_process_does(
    vectors: str, expected_by_vectors: dict[str, bytes], cluster: None, tmp_path: Path
) -> None:
    from curator_backends import RayDataExecutor

    assert written_by_vectors(RayDataExecutor(), vectors, tmp_path) == expected_by_vectors


@pytest.mark.xenna
def test_xenna_decides_what_one_process_does(
    data: str, expected: dict[str, bytes], cluster: None, tmp_path: Path
) -> None:
    from curator_backends import XennaExecutor

    assert written(XennaExecutor(), data, tmp_path) == expected


@pytest.mark.thorough
@pytest.mark.xenna
def test_xenna_decides_by_vectors_what_one_process_does(
    vectors: str, expected_by_vectors: dict[str, bytes], cluster: None, tmp_path: Path
) -> None:
    from curator_backends import XennaExecutor

    assert written_by_vectors(XennaExecutor(), vectors, tmp_path) == expected_by_vectors
