"""Deduplication decides and writes the same bytes on every executor, even after a kill."""

from __future__ import annotations

import io
import json
import random
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("curator_text")

from curator_core import Clusters, HardNegatives, LocalExecutor, SemanticDedup
from curator_core.across.decisions import Decisions
from curator_core.across.index import Index
from curator_core.executors.base import BaseExecutor
from curator_core.workflow import Workflow
from curator_text import Decontamination, FuzzyDedup, LineDedup, SubstringDedup

WORDS = [f"w{number}" for number in range(900)]
ENGINES = [
    pytest.param("RayDataExecutor", marks=pytest.mark.ray),
    pytest.param("XennaExecutor", marks=pytest.mark.xenna),
]
# For tests of code that is the same on both engines: `make test-engines` also tests the other engine.
ON_RAY_DATA = [ENGINES[0], pytest.param("XennaExecutor", marks=[pytest.mark.xenna, pytest.mark.thorough])]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Documents, some of which are copies or near copies."""
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
    """The decisions and output of one process."""
    return written(LocalExecutor(workers=0), data, tmp_path_factory.mktemp("one"))


def engine(name: str) -> BaseExecutor:
    """An executor of this name, which starts a Ray unless this process is connected to one."""
    curator_backends = pytest.importorskip("curator_backends")
    made: BaseExecutor = getattr(curator_backends, name)(num_cpus=2)
    return made


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


def files_in(folder: Path) -> dict[str, bytes]:
    """All files in a folder and its subfolders."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("_SUCCESS", ".lock")
    }


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Vectors, some of which point in nearly the same direction."""
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
    """The decisions and output of one process."""
    return written_by_vectors(LocalExecutor(workers=0), vectors, tmp_path_factory.mktemp("one-by-vectors"))


@pytest.mark.slow
def test_a_killed_run_on_vectors_has_the_same_result(
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


KILLED = """
import os, signal, sys
from {module} import {executor}
from {home} import {work}
def progress(state):
    if state.step == int(sys.argv[3]) and state.finished_sources:
        os.kill(os.getpid(), signal.SIGKILL)
work = {work}(paths=sys.argv[1], path=sys.argv[2] + "/out", partitions={partitions})
resume = os.path.exists(sys.argv[2] + "/run/run.json")
work.run({executor}({options}), run_dir=sys.argv[2] + "/run", progress=progress, resume=resume)
"""


BY_TEXTS = ("curator_text", "FuzzyDedup", 3)


def kill_at(
    step: int,
    data: str,
    place: Path,
    module: str,
    executor: str,
    options: str,
    workflow: tuple[str, str, int] = BY_TEXTS,
) -> None:
    """Begin or resume a run in a process that kills itself when a source of a step is complete."""
    home, work, partitions = workflow
    code = KILLED.format(module=module, executor=executor, options=options, home=home, work=work, partitions=partitions)
    command = [sys.executable, "-c", code, data, str(place), str(step)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(2, 4, 7), pytest.param((1, 2, 4, 5, 7), marks=pytest.mark.thorough)])
def test_a_run_killed_several_times_has_the_same_result(
    data: str, expected: dict[str, bytes], tmp_path: Path, steps: tuple[int, ...]
) -> None:
    for step in steps:
        kill_at(step, data, tmp_path, "curator_core", "LocalExecutor", "workers=2")
    assert written(LocalExecutor(workers=2), data, tmp_path, resume=True) == expected


@pytest.mark.parametrize("name", ON_RAY_DATA)
def test_a_run_killed_on_an_engine_has_the_same_result(
    name: str, data: str, expected: dict[str, bytes], tmp_path: Path
) -> None:
    kill_at(4, data, tmp_path, "curator_backends", name, "num_cpus=2")
    assert written(engine(name), data, tmp_path, resume=True) == expected


# On Ray Data, the run that is killed (above) has the same steps. For Xenna, `make test` runs a smaller workflow in
# test_workflow_on_engines.py, and kills a driver in test_conformance.py.
@pytest.mark.thorough
@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_makes_the_same_decisions_as_one_process(
    name: str, data: str, expected: dict[str, bytes], tmp_path: Path
) -> None:
    assert written(engine(name), data, tmp_path) == expected


# `make test` runs the steps over documents on both engines (above), and those of an index with several processes in
# test_dedup_index.py.
@pytest.mark.thorough
@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_compares_with_an_index_and_adds_to_it_as_one_process_does(
    name: str, data: str, tmp_path: Path
) -> None:
    old, new = [f"{data}/0.jsonl"], [f"{data}/1.jsonl", f"{data}/2.jsonl"]
    here = LocalExecutor(workers=0)
    FuzzyDedup(paths=old, index=str(tmp_path / "old")).run(here, run_dir=str(tmp_path / "first"))
    found = []
    for executor, place in ((here, tmp_path / "here"), (engine(name), tmp_path / "there")):
        shutil.copytree(tmp_path / "old", place / "index")
        work = FuzzyDedup(paths=new, path=str(place / "out"), index=str(place / "index"), partitions=2)
        work.run(executor, run_dir=str(place / "run"))
        found.append(contents(place) | files_in(place / "index"))
    assert found[1] == found[0]
    assert [run.documents > 0 for run in Index.read(str(tmp_path / "there" / "index")).runs] == [True, True]
    table = Decisions.open(str(tmp_path / "there" / "run" / "decisions"))
    sources = [row for part in table.tables(["witness_source"]) for row in part["witness_source"].to_pylist()]
    assert any(source and source.startswith("index:") for source in sources)


@pytest.mark.parametrize("name", ON_RAY_DATA)
def test_an_engine_cuts_out_test_questions_as_one_process_does(name: str, data: str, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in Path(data, "0.jsonl").read_text().splitlines()]
    questions = [" ".join(row["text"].split()[3:18]) for row in rows]
    (tmp_path / "test.txt").write_text("\n".join(questions) + "\n")
    found = []
    for executor, place in ((LocalExecutor(workers=0), tmp_path / "here"), (engine(name), tmp_path / "there")):
        work = Decontamination(
            paths=data, path=str(place / "out"), test_sets={"test": str(tmp_path / "test.txt")}, mode="cut", margin=5
        )
        work.run(executor, run_dir=str(place / "run"))
        found.append(files_in(place / "out") | files_in(place / "run" / "decontamination"))
    assert found[1] == found[0]
    report = json.loads((tmp_path / "there" / "run" / "decontamination" / "decontamination.json").read_text())
    assert [(test["name"], test["found"]) for test in report["test_sets"]] == [("test", len(questions))]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Texts that share passages and lines, with vectors, and a query with its own vector for each."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = random.Random(11)
    passages = [" ".join(rng.choice(WORDS) for _ in range(15)) for _ in range(6)]
    for file in range(3):
        rows = []
        for number in range(15):
            lines = [" ".join(rng.choice(WORDS) for _ in range(20)), rng.choice(passages)]
            rng.shuffle(lines)
            vector = [rng.gauss(0, 1) for _ in range(8)]
            row = {"id": f"d{file}-{number}", "text": "\n".join(lines), "vector": vector, "query": f"q{number}"}
            rows.append(row | {"asks": [value + rng.gauss(0, 0.2) for value in vector]})
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Drawn pictures, smaller copies of some of them, and one that cannot be decoded."""
    pytest.importorskip("curator_image")
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    rng = random.Random(13)
    made: list[bytes] = []
    for number in range(16):
        coarse = Image.frombytes("RGB", (5, 4), rng.randbytes(60))
        for side in (160, 120) if number % 2 else (160,):
            out = io.BytesIO()
            coarse.resize((side, side * 3 // 4), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
            made.append(out.getvalue())
    made.append(made[0][:500])
    for file in range(2):
        with tarfile.open(folder / f"{file}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, data in list(enumerate(made))[file::2]:
                info = tarfile.TarInfo(f"{number:03d}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return str(folder)


def written_by_images(executor: BaseExecutor, data: str, place: Path, *, resume: bool = False) -> dict[str, bytes]:
    from curator_image.dedup.perceptual import ImageDedup

    work = ImageDedup(paths=data, path=str(place / "out"), partitions=2)
    summary = work.run(executor, run_dir=str(place / "run"), resume=resume).summary
    assert (summary.rows_dropped, summary.rows_rejected) == (8, 1)
    return contents(place)


@pytest.fixture(scope="module")
def expected_by_images(images: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The decisions and output of one process."""
    return written_by_images(LocalExecutor(workers=0), images, tmp_path_factory.mktemp("one-by-images"))


BY_IMAGES = ("curator_image.dedup.perceptual", "ImageDedup", 2)


@pytest.mark.slow
def test_a_killed_run_on_images_has_the_same_result(
    images: str, expected_by_images: dict[str, bytes], tmp_path: Path
) -> None:
    kill_at(3, images, tmp_path, "curator_core", "LocalExecutor", "workers=0", BY_IMAGES)
    assert written_by_images(LocalExecutor(workers=0), images, tmp_path, resume=True) == expected_by_images


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("RayDataExecutor", marks=pytest.mark.ray),
        pytest.param("XennaExecutor", marks=pytest.mark.xenna),
    ],
)
def test_a_killed_run_on_an_engine_makes_the_same_decisions_about_images(
    name: str, images: str, expected_by_images: dict[str, bytes], tmp_path: Path
) -> None:
    kill_at(3, images, tmp_path, "curator_backends", name, "num_cpus=2", BY_IMAGES)
    assert written_by_images(engine(name), images, tmp_path, resume=True) == expected_by_images


# The step in which a run is killed, and the workflow.
WORKS: dict[str, tuple[int, Callable[..., Workflow]]] = {
    "substring": (3, partial(SubstringDedup, words=8, partitions=2)),
    "lines": (3, partial(LineDedup, false_rate=0.1, partitions=2)),
    "clusters": (4, partial(Clusters, column="vector", clusters=4, most=8, partitions=2)),
    "negatives": (
        3,
        partial(
            HardNegatives,
            passage_column="text",
            query_vector="asks",
            passage_vector="vector",
            negatives=2,
            partitions=2,
        ),
    ),
}


def each_written(
    executor: BaseExecutor, data: str, place: Path, names: Iterable[str] = WORKS, **options: bool
) -> dict[str, bytes]:
    """The decisions and output of each of these workflows."""
    found = {}
    for name in names:
        run = place / name / "run"
        WORKS[name][1](paths=data, path=str(place / name / "out")).run(executor, run_dir=str(run), **options)
        for folder in (place / name / "out", run / "spans", run / "clusters"):
            files = sorted(folder.iterdir()) if folder.exists() else []
            found |= {f"{name}/{path.name}": path.read_bytes() for path in files if path.name != "_SUCCESS"}
    return found


@pytest.fixture(scope="module")
def expected_of_each(pairs: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The output of one process."""
    found = each_written(LocalExecutor(workers=0), pairs, tmp_path_factory.mktemp("one-of-each"))
    rows = dict.fromkeys(WORKS, 0)
    for path, content in found.items():
        rows[path.split("/")[0]] += content.count(b"\n") if path.endswith(".jsonl") else 0
    assert rows["substring"] == rows["lines"] == 45
    assert 0 < rows["clusters"] < 45
    assert 0 < rows["negatives"] <= 45
    assert {path.split("/")[0] for path in found if path.endswith(".parquet")} == {"substring", "lines", "clusters"}
    return found


@pytest.mark.slow
def test_each_killed_workflow_has_the_same_result(
    pairs: str, expected_of_each: dict[str, bytes], tmp_path: Path
) -> None:
    code = (
        "import os, runpy, signal, sys\n"
        "from curator_core import LocalExecutor\n"
        "step, work = runpy.run_path(sys.argv[1])['WORKS'][sys.argv[2]]\n"
        "def progress(state):\n"
        "    if state.step == step and state.finished_sources:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "work = work(paths=sys.argv[3], path=sys.argv[4] + '/out')\n"
        "work.run(LocalExecutor(workers=0), run_dir=sys.argv[4] + '/run', progress=progress)\n"
    )
    begun = {
        name: subprocess.Popen(
            [sys.executable, "-c", code, __file__, name, pairs, str(tmp_path / name)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in WORKS
    }
    for name, process in begun.items():
        _, errors = process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL, f"{name}: {errors}"
    assert each_written(LocalExecutor(workers=0), pairs, tmp_path, resume=True) == expected_of_each


# `make test` kills each of these workflows with local processes (above), and on both engines it kills the longest one.
@pytest.mark.thorough
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("work", ["vectors", *WORKS])
def test_an_engine_writes_the_same_as_one_process(
    work: str, name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if work == "vectors":
        vectors, expected = (request.getfixturevalue(asked) for asked in ("vectors", "expected_by_vectors"))
        assert written_by_vectors(engine(name), vectors, tmp_path) == expected
        return
    pairs, expected = (request.getfixturevalue(asked) for asked in ("pairs", "expected_of_each"))
    mine = {path: content for path, content in expected.items() if path.startswith(f"{work}/")}
    assert each_written(engine(name), pairs, tmp_path, [work]) == mine
