"""The page of a run in a real Chromium has correct numbers and handles, and runs no code from the data."""

from __future__ import annotations

import io
import json
import re
import runpy
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curator_core import Pipeline, ProcessingStage
from curator_core.cli import run_command
from curator_core.config.pipeline_file import load_pipeline
from curator_core.executors.local import LocalExecutor
from curator_image import BlurFilter, ImageBatch, ImageReader, ImageWriter, ResolutionFilter

sys.path.insert(0, str(Path(__file__).parent))
from browser import Browser, chromium

pytestmark = [pytest.mark.browser, pytest.mark.slow]
EXAMPLE = Path(__file__).parent.parent / "examples" / "text"
IMAGES = Path(__file__).parent.parent / "examples" / "images-basic"
ALIKE = Path(__file__).parent.parent / "examples" / "images-alike"
HOSTILE_FILE = "'><img src=x onerror=hacked=1>"
HOSTILE = "\"><img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
NAME = "x'><img src=x onerror=hacked=1>.jsonl"


@dataclass
class Demo:
    folder: Path
    numbers: dict[str, Any]

    @property
    def page(self) -> Path:
        return self.folder / "run" / "report.html"


def run(folder: Path, name: str = "run", *settings: str) -> dict[str, Any]:
    """Run the demo's pipeline on the data in a folder, with other parameters; returns the numbers of the run."""
    file = folder / "pipeline.yaml"
    file.write_text((EXAMPLE / "pipeline.yaml").read_text())
    given = [f"JsonlWriter.path={folder}/out-{name}", *settings]
    load_pipeline(str(file), given).pipeline().run(LocalExecutor(workers=0), run_dir=str(folder / name))
    found: dict[str, Any] = json.loads((folder / name / "report.json").read_text())
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    made = folder / "made"
    old = sys.argv
    sys.argv = ["make_data.py", str(made)]
    try:
        runpy.run_path(str(EXAMPLE / "make_data.py"), run_name="__main__")
    finally:
        sys.argv = old
    rows = [
        {"id": HOSTILE, "text": HOSTILE},
        {"id": "long", "text": f"{HOSTILE} " + "the cat and the dog have to be " * 40},
    ]
    (made / NAME).write_text("".join(json.dumps(row) + "\n" for row in rows) + f"{{{HOSTILE}\n")
    return Demo(folder, run(folder))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


def test_the_page_opens_at_once_without_an_error_and_fetches_nothing(demo: Demo, browser: Browser) -> None:
    browser.requests.clear()
    browser.open(demo.page)
    assert browser.errors == []
    assert [url for url in browser.requests if url != demo.page.absolute().as_uri()] == []
    opened = browser.value("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert opened < 1000
    assert demo.page.stat().st_size < 2_000_000


def test_every_chart_has_marks_and_every_bar_a_width(demo: Demo, browser: Browser) -> None:
    browser.open(demo.page)
    charts = browser.value(
        "[...document.querySelectorAll('.histogram')].map(f => f.querySelectorAll('svg g rect').length)"
    )
    scores = [score for stage in demo.numbers["stages"] for score in stage["scores"]]
    assert len(charts) == len(scores) > 0
    assert all(marks > 1 for marks in charts)
    widths = browser.value("[...document.querySelectorAll('.bars span')].map(s => s.getBoundingClientRect().width)")
    assert len(widths) > 20
    assert all(width > 0 for width in widths)
    assert browser.value("document.querySelectorAll('.flow li').length") == len(demo.numbers["plan"]["groups"])


def test_the_numbers_equal_those_of_the_output(demo: Demo, browser: Browser) -> None:
    browser.open(demo.page)
    out = [line for path in (demo.folder / "out-run").glob("*.jsonl") for line in path.read_text().splitlines()]
    cards = dict(
        browser.value(
            "[...document.querySelectorAll('.card')].map(c => "
            "[c.querySelector('span').textContent, c.querySelector('b').textContent])"
        )
    )
    given = [line for path in (demo.folder / "made").glob("*.jsonl") for line in path.read_text().splitlines()]
    assert int(cards["rows in"].replace(",", "")) == len(given)
    assert int(cards["rows kept"].replace(",", "")) == len(out)
    assert int(cards["rows dropped"].replace(",", "")) + int(cards["rows set aside"].replace(",", "")) + len(
        out
    ) == len(given)
    assert demo.numbers["bytes"]["out"] == sum(len(json.loads(line)["text"].encode()) for line in out)
    lost = browser.value(
        "[...document.querySelectorAll('#collections tbody tr')].map(r => [r.querySelector('th').textContent,"
        "+r.querySelector('[data-name=kept]').textContent.replace(/,/g,'')])"
    )
    written = [json.loads(line)["id"] for line in out]
    # Without their common folder, which is named above them.
    assert {file for file, _ in lost} == {path.name for path in (demo.folder / "made").glob("*.jsonl")}
    for file, kept in lost:
        text = (demo.folder / "made" / file).read_text()
        read = [re.search(r'"id": ("(?:[^"\\\\]|\\\\.)*")', line) for line in text.splitlines()]
        ids = {json.loads(found[1]) for found in read if found}
        assert kept == sum(name in ids for name in written)


@dataclass(kw_only=True)
class Colours(ProcessingStage[ImageBatch, ImageBatch]):
    """An embedding of 12 numbers: the colours of four parts of a picture."""

    def inputs(self) -> list[str]:
        return ["bytes"]

    def outputs(self) -> list[str]:
        return ["embedding"]

    def process(self, task: ImageBatch) -> ImageBatch:
        small = []
        for raw in task.to_pyarrow()["bytes"].to_pylist():
            with Image.open(io.BytesIO(raw)) as image:
                small.append(np.asarray(image.convert("RGB").resize((2, 2)), np.float32).reshape(-1) - 128)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(small)), 12)
        return task.append_column("embedding", vectors)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The image demo, with an embedding, and with captions that contain code."""
    folder = tmp_path_factory.mktemp("pictures")
    runpy.run_path(str(IMAGES / "make_data.py"))["main"](str(folder / "made"))
    (folder / "hostile").mkdir()
    for path in sorted((folder / "made").glob("*.tar")):
        with tarfile.open(path) as given, tarfile.open(folder / "hostile" / f"{HOSTILE_FILE}{path.name}", "w") as made:
            for member in given:
                data = given.extractfile(member).read()  # type: ignore[union-attr]
                if member.name.endswith(".txt"):
                    data = HOSTILE.encode()
                    member.size = len(data)
                made.addfile(member, io.BytesIO(data))
    stages = [
        ImageReader(paths=str(folder / "hostile")),
        ResolutionFilter(min_width=128, min_height=128),
        Colours(),
        BlurFilter(min_variance=50.0, score_column="sharpness"),
        ImageWriter(path=str(folder / "out")),
    ]
    Pipeline(stages, name="pictures").run(LocalExecutor(workers=0), run_dir=str(folder / "run"))
    found: dict[str, Any] = json.loads((folder / "run" / "report.json").read_text())
    return Demo(folder, found)


def test_pictures_are_shown_on_both_sides_of_a_limit_and_on_a_map(pictures: Demo, browser: Browser) -> None:
    browser.requests.clear()
    browser.open(pictures.page, 390, 844)
    assert pictures.page.stat().st_size < 2_000_000
    shots = "[...document.querySelectorAll('.shot img')]"
    shown = browser.value(f"Promise.all({shots}.map(i => i.decode().then(() => [i.naturalWidth, i.alt])))")
    in_json = {s["picture"] for stage in pictures.numbers["stages"] for s in stage["samples"] if s["picture"]}
    assert 12 < len(shown) <= 48
    assert set(browser.value(f"{shots}.map(i => i.src)")) <= in_json
    assert all(0 < width <= 96 for width, _ in shown)
    assert any(HOSTILE[:20] in alt for _, alt in shown)
    blur = next(n for n, stage in enumerate(pictures.numbers["stages"]) if stage["name"] == "BlurFilter")
    kept = browser.value(
        f"[...document.querySelectorAll('#filter-{blur} .sides > div')].map(d => [d.querySelector('h4').textContent,"
        "[...d.querySelectorAll('summary')].map(s => +s.textContent.split(' ').pop().replace(/,/g, ''))])"
    )
    (dropped_said, dropped), (kept_said, scores) = kept
    rows = sum(pictures.numbers["stages"][blur]["dropped"].values())
    assert rows > 2
    assert dropped_said.startswith(f"Dropped {min(12, rows)} of {rows}, nearest to the limit first")
    assert kept_said.startswith("Kept 9 of ")
    assert max(dropped) < 50 <= min(scores) == scores[0]
    browser.value("document.querySelector('.shot summary').click()")
    assert "curate show" in browser.value("document.querySelector('.shot[open]').textContent")
    # In the map, each row is a mark, and arrow keys move from one mark to the next and announce it.
    points = pictures.numbers["embeddings"]["points"]
    marks = browser.value("document.querySelectorAll('.map [data-point]').length")
    assert marks == len(points) == pictures.numbers["stages"][blur]["rows_in"]
    browser.value("document.querySelector('.map svg').focus()")
    first = browser.value("document.querySelector('.map .stays').textContent")
    browser.press("ArrowRight")
    second = browser.value("document.querySelector('.map .stays').textContent")
    assert first != second
    assert browser.value("document.querySelector('.map svg').getAttribute('aria-valuetext')") == second
    assert browser.value("document.querySelectorAll('#map tbody tr').length") == len(points)
    # The timeline has marks, and its table lists the workers of report.json.
    assert browser.value("[...document.querySelectorAll('.timeline path')].every(p => p.getBBox().width > 0)")
    assert browser.value("document.querySelectorAll('.timeline + details tbody tr').length") == len(
        pictures.numbers["time"]["timeline"]["workers"]
    )
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.value("typeof window.hacked") == "undefined"
    assert browser.value("document.querySelectorAll('img[onerror]').length") == 0
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert_nothing_is_cut_off(browser, 390)
    assert_axe_finds_nothing(browser)


@pytest.mark.parametrize(("filter_", "key"), [("WordCountFilter", "ArrowRight"), ("RepeatedLinesFilter", "PageUp")])
def test_a_handle_says_how_many_rows_a_run_with_that_limit_keeps(
    demo: Demo, browser: Browser, filter_: str, key: str
) -> None:
    browser.open(demo.page)
    place, stage = next((n, s) for n, s in enumerate(demo.numbers["stages"]) if s["name"] == filter_)
    limit = stage["scores"][0]["limits"][0]["parameter"]
    at = f"document.getElementById('handle-{place}-0-0')"
    browser.value(f"{at}.focus()")
    output = f"+document.querySelector('#filter-{place} output').textContent.replace(/,/g,'')"
    assert browser.value(output) == stage["rows_out"]
    for _ in range(400):
        browser.press(key)
        if browser.value(output) < 0.75 * stage["rows_in"]:
            break
    said, value = browser.value(output), float(browser.value(f"{at}.dataset.value"))
    assert said < 0.75 * stage["rows_in"]
    assert f"{said:,} of" in browser.value(f"{at}.getAttribute('aria-valuetext')")
    setting = f"{filter_}.{limit}={int(value) if filter_ == 'WordCountFilter' else repr(value)}"
    then = run(demo.folder, f"then-{filter_}", setting)
    found = next(s for s in then["stages"] if s["name"] == filter_)
    assert found["rows_out"] == said


def test_a_handle_is_dragged_and_reset(demo: Demo, browser: Browser) -> None:
    browser.open(demo.page)
    place = next(n for n, s in enumerate(demo.numbers["stages"]) if s["name"] == "NumbersFilter")
    at = f"document.getElementById('handle-{place}-0-0')"
    browser.value(f"{at}.scrollIntoView({{block:'center',behavior:'instant'}})")
    x, y = browser.value(
        f"(()=>{{const b={at}.querySelector('circle').getBoundingClientRect();return [b.x+b.width/2,b.y+b.height/2]}})()"
    )
    before = browser.value(f"{at}.getAttribute('aria-valuenow')")
    browser.drag((x, y), (x + 700, y))
    assert browser.value(f"{at}.getAttribute('aria-valuenow')") != before
    rows = demo.numbers["stages"][place]["rows_in"]
    assert browser.value(f"document.querySelector('#filter-{place} output').textContent") == f"{rows:,}"
    browser.press("Escape")
    assert browser.value(f"{at}.getAttribute('aria-valuenow')") == before


def test_hostile_texts_and_names_remain_plain_text(demo: Demo, browser: Browser) -> None:
    browser.open(demo.page)
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.value("document.querySelectorAll('img').length") == 0
    assert browser.value("document.scripts.length") == 1
    assert browser.value("typeof window.hacked") == "undefined"
    text = browser.value("document.body.textContent")
    assert HOSTILE in text
    assert NAME in text
    assert browser.errors == []


@pytest.mark.parametrize("width", [390, 800, 1100])
def test_nothing_is_cut_off(demo: Demo, browser: Browser, width: int) -> None:
    browser.open(demo.page, width, 844)
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert_nothing_is_cut_off(browser, width)


def test_nothing_is_cut_off_on_paper(demo: Demo, browser: Browser) -> None:
    browser.open(demo.page)
    browser.on_paper()
    assert_nothing_is_cut_off(browser, 718)
    assert browser.value("[...document.querySelectorAll('details')].every(d => d.open || d.matches('.shot'))")


def assert_nothing_is_cut_off(browser: Browser, width: int) -> None:
    assert browser.value("document.documentElement.scrollWidth") <= width
    outside = browser.value(
        f"[...document.querySelectorAll('body *')].filter(e => {{const b = e.getBoundingClientRect();"
        f"return b.width && (b.right > {width} + 0.5 || b.left < -0.5)}}).map(e => e.outerHTML.slice(0, 200))"
    )
    assert outside == []
    cut = browser.value(
        "[...document.querySelectorAll('.wide, pre, code, .card')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth)"
        ".map(e => e.outerHTML.slice(0, 200))"
    )
    assert cut == []


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_and_labels_pass_axe(demo: Demo, browser: Browser, dark: bool) -> None:
    browser.open(demo.page, dark=dark)
    # Unfold everything, since axe treats folded content as hidden.
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert_axe_finds_nothing(browser)


def assert_axe_finds_nothing(browser: Browser) -> None:
    spec = find_spec("axe_core_python")
    assert spec is not None
    assert spec.origin is not None
    axe = (Path(spec.origin).parent / "axe.min.js").read_text()
    browser.value(f"{axe};0")
    found = browser.value(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(v => "
        "[v.id, v.nodes.slice(0, 3).map(n => JSON.stringify([n.html.slice(0, 200), n.any.map(a => a.data)]))]))"
    )
    assert found == []


def test_a_removed_picture_is_shown_next_to_the_one_that_stays(tmp_path: Path, browser: Browser) -> None:
    runpy.run_path(str(ALIKE / "make_data.py"))["main"](str(tmp_path / "made"))
    run_dir, page = str(tmp_path / "run"), tmp_path / "pair.html"
    given = ["dedup", "image", str(tmp_path / "made"), str(tmp_path / "out"), "--workers", "0", "--quiet"]
    assert run_command([*given, "--run-dir", run_dir]) == 0
    assert run_command(["dedup", "show", run_dir, "scene-02-bordered", "--html", str(page)]) == 0
    browser.requests.clear()
    for width in (1280, 390):
        browser.open(page, width, 900)
        boxes = browser.value(
            "[...document.images].map(i => [i.naturalWidth, ...['left', 'right', 'top'].map(s => i.getBoundingClientRect()[s])])"
        )
        (wide, left, right, top), (other_wide, other_left, other_right, other_top) = boxes
        assert (wide, other_wide) == (344, 320)
        assert 0 <= left < right < other_left < other_right <= width
        assert abs(top - other_top) < 1
        assert browser.value("document.documentElement.scrollWidth") <= width
    differ = browser.value("[...document.querySelectorAll('mark')].map(m => m.textContent)")
    assert {"scene-02-bordered", "scene-02", "344", "320", "264", "240"} <= set(differ)
    assert "jpeg" not in differ
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert browser.errors == []
