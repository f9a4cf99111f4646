"""The first hour with your own data: a starter pipeline is made for the data, and a plan examines it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curator_core import Pipeline, UsageError
from curator_core.cli import BAD_USAGE, DONE, run_command
from curator_text import JsonlReader, JsonlWriter, WordCountFilter

SENTENCES = [
    f"In the town of number {n} there is a market, and that is where the people have to be on a day like this, with bread, "
    f"fruit and {n} kinds of cheese; nobody sells more than {n + 1} of each, and of the rest we know little. "
    for n in range(40)
]


def documents(count: int) -> list[str]:
    return ["".join(SENTENCES[(n + k * 7) % 40] for k in range(1 + n % 4)) for n in range(count)]


def write_jsonl(path: Path, rows: Sequence[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_jsonl_with_ids_and_a_body(folder: Path) -> str:
    for n in range(2):
        rows = [{"id": f"{n}-{i}", "body": text, "url": "u"} for i, text in enumerate(documents(30))]
        write_jsonl(folder / "data" / "sub" / f"p{n}.jsonl", rows)
    (folder / "data" / "README.md").write_text("about this data")
    return "data"


def make_csv(folder: Path) -> str:
    lines = ["title,content", *(f'"t{n}","{text}"' for n, text in enumerate(documents(20)))]
    (folder / "pages.csv").write_text("\n".join(lines) + "\n")
    return "pages.csv"


def make_parquet(folder: Path) -> str:
    (folder / "pq").mkdir()
    pq.write_table(
        pa.table({"key": [str(n) for n in range(20)], "raw_content": documents(20)}), folder / "pq/a.parquet"
    )
    return "pq"


def make_text_files(folder: Path) -> str:
    (folder / "books").mkdir()
    for n, text in enumerate(documents(5)):
        (folder / "books" / f"{n}.txt").write_text(text)
    return "books/*.txt"


def make_image_folder(folder: Path) -> str:
    (folder / "photos").mkdir()
    for n in range(6):
        image = Image.effect_noise((300, 300), 80).convert("RGB")
        image.save(folder / "photos" / f"{n}.jpg")
        (folder / "photos" / f"{n}.txt").write_text(f"a caption of picture number {n} with some words in it")
    return "photos"


def make_image_parquet(folder: Path) -> str:
    (folder / "images").mkdir()
    images = []
    for n in range(4):
        path = folder / f"{n}.png"
        Image.effect_noise((300, 300), 80).convert("RGB").save(path)
        images.append({"bytes": path.read_bytes(), "path": path.name})
    pq.write_table(pa.table({"image": images, "caption": ["some words of a caption"] * 4}), folder / "images/a.parquet")
    return "images"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "rows"),
    [
        (make_jsonl_with_ids_and_a_body, 60),
        (make_csv, 20),
        (make_parquet, 20),
        (make_text_files, 5),
        (make_image_folder, 6),
        (make_image_parquet, 4),
    ],
)
def test_a_starter_made_for_data_runs_on_it(
    here: Path, capfd: pytest.CaptureFixture[str], make: Callable[[Path], str], rows: int
) -> None:
    data = make(here)
    assert run_command(["init", "--data", data, "-o", "mine.yaml"]) == DONE, capfd.readouterr().err
    assert run_command(["plan", "mine.yaml"]) == DONE, capfd.readouterr().err
    assert f"the first {rows} rows" in capfd.readouterr().out
    assert run_command(["run", "mine.yaml", "--quiet", "--workers", "0", "--run-dir", "run"]) == DONE
    record = json.loads((here / "run" / "run.json").read_text())
    assert max(stage["rows_in"] for stage in record["summary"]["stages"]) == rows
    assert (here / "out" / "_SUCCESS").exists()


def test_the_text_column_is_found_and_ids_are_kept(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = make_jsonl_with_ids_and_a_body(here)
    run_command(["init", "--data", data])
    printed = capfd.readouterr()
    assert "column: body" in printed.out
    assert "- AddId" not in printed.out, "the data has ids"
    assert "the text is in 'body'" in printed.err
    assert "left out, of other formats: 1 md" in printed.err


def test_a_template_that_does_not_fit_the_data_is_refused(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = make_csv(here)
    assert run_command(["init", "image", "--data", data]) == BAD_USAGE
    assert "that is for `curate init text`" in capfd.readouterr().err


def test_data_that_no_reader_accepts_is_named(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "a.xlsx").write_bytes(b"PK")
    assert run_command(["init", "--data", "a.xlsx"]) == BAD_USAGE
    assert "1 file with '.xlsx'. Curator reads files that end with .avif" in capfd.readouterr().err


def test_a_plan_names_the_column_that_looks_like_the_text(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_jsonl_with_ids_and_a_body(here)
    (here / "p.yaml").write_text("stages:\n  - JsonlReader: {paths: data}\n  - WordCountFilter\n")
    assert run_command(["plan", "p.yaml"]) == BAD_USAGE
    out = capfd.readouterr().out
    assert "stage 'WordCountFilter' reads column 'text', which the data lack: they have id, body, url" in out
    assert "give the stage column='body'" in out
    assert run_command(["plan", "p.yaml", "--no-data"]) == DONE


def test_a_plan_with_a_missing_path_has_the_error_of_a_run(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "p.yaml").write_text("stages:\n  - JsonlReader: {paths: nothing.jsonl}\n  - WordCountFilter\n")
    assert run_command(["plan", "p.yaml"]) == BAD_USAGE
    out = capfd.readouterr().out
    assert "WordCountFilter" in out, "the plan is shown all the same"
    assert "problem: " in out
    assert "nothing.jsonl" in out


@pytest.mark.slow
def test_a_preview_counts_what_a_run_of_the_same_rows_counts(here: Path) -> None:
    write_jsonl(here / "in" / "a.jsonl", [{"text": text} for text in documents(50)])
    pipeline = Pipeline([JsonlReader(paths="in"), WordCountFilter(min_words=60), JsonlWriter(path="out")])
    preview = pipeline.preview()
    assert (preview.sources, preview.files, preview.rows) == (1, 1, 50)
    assert preview.bytes == (here / "in" / "a.jsonl").stat().st_size
    assert not (here / "out").exists(), "a preview writes nothing"
    done = pipeline.run()
    tried = {stage.name: stage for stage in preview.stages}["WordCountFilter"]
    ran = {stage.name: stage for stage in done.summary.stages}["WordCountFilter"]
    assert 0 < tried.rows_out < 50
    assert (tried.rows_in, tried.rows_out, tried.dropped) == (ran.rows_in, ran.rows_out, ran.dropped)
    assert preview.not_tried == ("JsonlWriter",)


def test_a_preview_reads_no_more_than_it_shows(here: Path) -> None:
    write_jsonl(here / "in" / "a.jsonl", [{"text": text} for text in documents(2000)])
    preview = Pipeline([JsonlReader(paths="in"), WordCountFilter(min_words=60)]).preview(rows=100)
    assert preview.rows == 100
    assert preview.stages[-1].rows_in == 100


def test_a_preview_requires_a_number_of_rows(here: Path) -> None:
    with pytest.raises(UsageError, match="rows must be a whole number of 1 or more, not 0"):
        Pipeline([JsonlReader(paths="in")]).preview(rows=0)
