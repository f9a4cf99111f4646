"""Images in a run's report: thumbnails on both sides of a limit, a map of embeddings, and duplicates side by side."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections import Counter
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curator_core.accounts.seen import read_seen
from curator_core.accounts.seen_rows import MOST_PICTURES
from curator_core.arrow.arrays import to_numpy
from curator_core.cli import DONE, run_command
from curator_core.executors.local import LocalExecutor
from curator_core.model.stage import ProcessingStage
from curator_core.pipeline import Pipeline
from curator_image import ImageBatch, ImageReader, ImageWriter, ResolutionFilter
from curator_image.dedup.perceptual import ImageDedup

HOSTILE = "'><img src=x onerror=hacked=1>"


@dataclass(kw_only=True)
class Measured(ProcessingStage[ImageBatch, ImageBatch]):
    """An embedding of three numbers that come from the header."""

    def inputs(self) -> list[str]:
        return ["width", "height"]

    def outputs(self) -> list[str]:
        return ["embedding", "area"]

    def process(self, task: ImageBatch) -> ImageBatch:
        table = task.to_pyarrow()
        sizes = np.stack([to_numpy(table[name]).astype(np.float32) for name in ("width", "height")], axis=1)
        vectors = np.concatenate([sizes, np.ones((len(sizes), 1), np.float32) * 50], axis=1)
        made = task.append_column("embedding", pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 3))
        return made.append_column("area", pa.array(vectors[:, 0].astype(np.float64) * vectors[:, 1]))


def images(folder: Path, tars: int = 3, each: int = 30) -> str:
    folder.mkdir()
    for number in range(tars):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for place in range(each):
                width = 40 + (number * each + place) * 3
                out = io.BytesIO()
                Image.new("RGB", (width, 60 + place % 7), (place * 8, width % 256, 9)).save(out, "PNG")
                for name, data in (("png", out.getvalue()), ("txt", f"{HOSTILE} {place}".encode())):
                    member = tarfile.TarInfo(f"{number:02d}{place:04d}.{name}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return f"{folder}/*.tar"


def run(paths: str, folder: Path, workers: int, samples: int = 6) -> dict[str, Any]:
    stages = [
        ImageReader(paths=paths),
        Measured(),
        ResolutionFilter(min_width=100),
        ImageWriter(path=str(folder / "out")),
    ]
    Pipeline(stages).run(
        LocalExecutor(workers=workers), run_dir=str(folder / "run"), seen={"samples": samples, "map": 40}
    )
    found: dict[str, Any] = json.loads((folder / "run" / "report.json").read_text())
    return found


@pytest.mark.slow
def test_the_first_samples_of_each_kind_have_a_picture_whatever_worker_made_it(tmp_path: Path) -> None:
    paths = images(tmp_path / "in")
    found = []
    for workers in (0, 2):
        run(paths, tmp_path / str(workers), workers, samples=20)
        samples = read_seen(str(tmp_path / str(workers) / "run")).stages["ResolutionFilter"].samples
        found.append([(s.side, s.near, s.limit, s.id, s.picture) for s in samples])
    assert found[0] == found[1]
    kinds: dict[tuple[str, bool, str], list[bool]] = {}
    for side, near, limit, _, picture in found[0]:
        kinds.setdefault((side, near, limit), []).append(picture is not None)
    for (side, near, _), pictured in kinds.items():
        size = (20 if side == "dropped" else 10) if near else 5
        few = min(size, MOST_PICTURES)
        assert pictured == [True] * few + [False] * (size - few)


@pytest.mark.slow
def test_samples_of_images_have_thumbnails_and_a_map_on_any_executor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = images(tmp_path / "in")
    alone, both = run(paths, tmp_path / "a", 0), run(paths, tmp_path / "b", 2)
    assert alone["embeddings"] == both["embeddings"]
    assert [stage["samples"] for stage in alone["stages"]] == [stage["samples"] for stage in both["stages"]]
    stage = next(stage for stage in alone["stages"] if stage["name"] == "ResolutionFilter")
    near = [(s["scores"]["width"], s["side"], s["picture"]) for s in stage["samples"] if s["limit"] == "min_width"]
    assert sorted(width for width, _, _ in near) == [82, 85, 88, 91, 94, 97, 100, 103, 106]
    for width, side, picture in near:
        assert side == ("kept" if width >= 100 else "dropped")
        with Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))) as image:
            assert image.format == "JPEG"
            assert image.size[0] == min(width, 96)
    # `curate drops --json` has the same pictures.
    capsys.readouterr()
    assert run_command(["drops", str(tmp_path / "a" / "run"), "--json"]) == DONE
    drops = json.loads(capsys.readouterr().out)
    assert [row["picture"] for row in drops["rows"]] == [
        picture for _, side, picture in sorted(near, reverse=True) if side == "dropped"
    ][: len(drops["rows"])]
    assert drops["stages"][0]["dropped"] == stage["dropped"]
    found = alone["embeddings"]
    assert (found["rows"], found["of"], found["dimensions"], found["score"]) == (40, 90, 3, "area")
    assert Counter(point["side"] for point in found["points"]).keys() == {"kept", "dropped"}
    assert sum(found["held"]) == pytest.approx(1, abs=0.01)  # nearly all of the difference is the width
    page = (tmp_path / "a" / "run" / "report.html").read_text()
    assert 9 < page.count('class="shot"') <= 24
    assert HOSTILE not in page
    assert escape(HOSTILE, quote=True) in page


def test_an_image_that_cannot_be_decoded_is_a_sample_without_a_picture(tmp_path: Path) -> None:
    table = pa.table({"key": ["a", "b"], "bytes": [b"no image", None], "width": [3, 400], "height": [3, 400]})
    Pipeline([ResolutionFilter(min_width=100)]).run(
        LocalExecutor(workers=0), initial_tasks=[ImageBatch(data=table)], run_dir=str(tmp_path / "run")
    )
    seen = read_seen(str(tmp_path / "run"))
    assert {sample.id: sample.picture for sample in seen.stages["ResolutionFilter"].samples} == {"a": None, "b": None}
    assert seen.map == []


def test_every_limit_of_a_size_is_found_and_agrees_with_the_filter() -> None:
    sizes = ResolutionFilter(min_width=3, min_height=4, max_width=9, max_height=8)
    found = {limit.parameter: asdict(limit) for score in sizes.declared_scores() for limit in score.limits}
    assert {name: (entry["value"], entry["keeps"]) for name, entry in found.items()} == {
        "min_width": (3.0, "at least"),
        "max_width": (9.0, "at most"),
        "min_height": (4.0, "at least"),
        "max_height": (8.0, "at most"),
    }
    grid = [{"width": width, "height": height} for width in (*range(12), None) for height in (*range(12), None)]
    scores = pa.array(grid, sizes.score_type)
    failed = np.any([to_numpy(test).astype(bool) for test in sizes.tests(scores).values()], axis=0)
    assert (~failed).tolist() == [bool(kept) for kept in sizes.keep_array(scores).to_pylist()]
    for test in sizes.tests(scores).values():
        assert test.null_count == 0


@pytest.mark.slow
def test_duplicates_are_shown_as_pictures_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(3).integers(0, 256, (12, 12, 3), np.uint8)
    with tarfile.open(tmp_path / "in" / "0.tar", "w") as tar:
        for key, side in (("large", 300), ("small", 150)):
            out = io.BytesIO()
            Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC).save(out, "PNG")
            member = tarfile.TarInfo(f"{key}.png")
            member.size = len(out.getvalue())
            tar.addfile(member, io.BytesIO(out.getvalue()))
    reader = ImageReader(paths=str(tmp_path / "in" / "*.tar"))
    ImageDedup(reader=reader, writer=ImageWriter(path=str(tmp_path / "out"))).run(
        LocalExecutor(workers=0), run_dir=str(tmp_path / "run")
    )
    found = json.loads((tmp_path / "run" / "report.json").read_text())["duplicates"]
    (pair,) = found["least_alike"]
    assert (pair["id"], pair["witness_id"]) == ("small", "large")
    for end in ("picture", "witness_picture"):
        with Image.open(io.BytesIO(base64.b64decode(pair[end].partition(",")[2]))) as image:
            assert image.size == (96, 96)
    assert (tmp_path / "run" / "report.html").read_text().count('class="pair"') >= 2
