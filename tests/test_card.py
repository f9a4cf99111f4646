"""The card of an output contains the counts of its run, leaves the licence to the user, and is valid for Hugging Face
and Croissant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from curator_core import LocalExecutor, Pipeline, UsageError
from curator_core.cli import run_command
from curator_core.data import card as module
from curator_core.data.card import make_card
from curator_core.running.directory import RunDirectory
from curator_text import JsonlReader, JsonlWriter, WordCountFilter

ROWS = [
    {"text": text, "scores": [0.5, 1.5], "n": 1, "raw": {"a": 1}} for text in ("a b c", "d e f", "g h i", "one", "two")
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five rows and a broken one, of which two are dropped."""
    folder = tmp_path_factory.mktemp("card")
    (folder / "in").mkdir()
    (folder / "in" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "{broken\n")
    stages = [
        JsonlReader(paths=str(folder / "in")),
        WordCountFilter(min_words=2),
        JsonlWriter(path=str(folder / "out")),
    ]
    Pipeline(stages, name="web | <b>").run(
        LocalExecutor(workers=0), run_dir=str(folder / "run"), max_reject_fraction=1.0, dropped=str(folder / "dropped")
    )
    return folder


@pytest.fixture
def run_dir(made: Path, tmp_path: Path) -> Path:
    """The run directory, next to the folder with the data; only this test uses them."""
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(made / "run", run)
    shutil.copytree(made / "out", out)
    record = (run / "run.json").read_text().replace(str(made / "out"), str(out))
    changed(run, **json.loads(record))
    return run


def changed(run_dir: Path, **changes: Any) -> str:
    """A copy of the run with changes in its record."""
    directory = RunDirectory(str(run_dir))
    directory.write_json("run.json", {**json.loads((run_dir / "run.json").read_text()), **changes})
    return str(run_dir)


def test_the_card_has_the_counts_of_the_run_and_says_that_the_licence_is_open(run_dir: Path) -> None:
    card = make_card(str(run_dir))
    _, front, text = card.readme.split("---\n", 2)
    assert "# license: you must state it" in front
    head = yaml.safe_load(front)
    assert "license" not in head
    assert head["size_categories"] == ["n<1K"]
    assert head["configs"] == [{"config_name": "default", "data_files": "**/*.jsonl*"}]
    assert "## License\n\nNot stated yet." in text
    for row in (
        "| read | 6 |",
        "| kept | 3 |",
        "| dropped | 2 |",
        "| WordCountFilter | word\\_count | 2 |",
        "| JsonlRead | 6 | 5 | 0 | 1 |",
    ):
        assert row in text
    assert "min\\_words: 2" in text
    assert "in/a.jsonl" not in text
    assert str(run_dir.parent) not in text
    assert card.left == ["license", "creator", "url"]


def test_a_name_remains_plain_text_in_the_card(run_dir: Path) -> None:
    assert "# web \\| &lt;b&gt;\n" in make_card(str(run_dir)).readme


def test_the_values_that_the_user_gives_are_in_both_files(run_dir: Path) -> None:
    card = make_card(str(run_dir), license="cc-by-4.0", creator="Ada", url="https://example.org/web")
    assert yaml.safe_load(card.readme.split("---\n")[1])["license"] == "cc-by-4.0"
    assert card.croissant["license"] == "cc-by-4.0"
    assert card.croissant["creator"] == {"@type": "sc:Person", "name": "Ada"}
    assert card.croissant["url"] == "https://example.org/web"
    assert card.left == []


def test_croissant_has_the_properties_that_its_specification_requires(run_dir: Path) -> None:
    found = make_card(str(run_dir), license="cc-by-4.0", creator="Ada", url="https://example.org/web").croissant
    # The required properties of a dataset and its parts in version 1.0 of the specification.
    required = ("@context", "@type", "conformsTo", "description", "license", "name", "url", "creator", "datePublished")
    assert all(found[name] for name in required)
    assert found["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    (files,) = found["distribution"]
    assert files["@type"] == "cr:FileSet"
    assert files["includes"] == "*.jsonl*"
    assert files["encodingFormat"] == "application/jsonlines"
    (rows,) = found["recordSet"]
    kinds = {each["name"]: (each["dataType"], each.get("repeated", False)) for each in rows["field"]}
    assert kinds == {"text": ("sc:Text", False), "scores": ("sc:Float", True), "n": ("sc:Integer", False)}
    for each in rows["field"]:
        assert each["source"] == {"fileSet": {"@id": files["@id"]}, "extract": {"column": each["name"]}}


def test_a_column_that_croissant_has_no_type_for_is_named(run_dir: Path) -> None:
    assert make_card(str(run_dir)).notes == ["column 'raw' (JSON) is not in croissant.jsonld, which has no type for it"]


@pytest.mark.parametrize(
    ("rows", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (5_000_000, "1M<n<10M"), (10**11, "100B<n<1T"), (10**12, "n>1T")],
)
def test_the_size_is_one_of_the_hub_s_categories(rows: int, category: str) -> None:
    assert module._size_category(rows) == category


def test_the_command_writes_both_files_and_keeps_edited_ones(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_dir.parent / "out"
    assert run_command(["card", str(run_dir), "--write"]) == 0
    assert "left to you: license, creator, url" in capsys.readouterr().err
    assert json.loads((out / "croissant.jsonld").read_text())["name"] == "web | <b>"
    (out / "README.md").write_text("mine")
    assert run_command(["card", str(run_dir), "--write"]) == 2
    assert "README.md" in capsys.readouterr().err
    assert (out / "README.md").read_text() == "mine"
    assert run_command(["card", str(run_dir), "--write", "--replace"]) == 0
    assert (out / "README.md").read_text() == make_card(str(run_dir)).readme
    capsys.readouterr()
    assert run_command(["card", str(run_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left"] == ["license", "creator", "url"]


def test_a_run_without_a_card_says_why(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run"):
        make_card(str(tmp_path))
    with pytest.raises(UsageError, match="no output 'JsonlWrite'; did you mean 'JsonlWriter'"):
        make_card(str(run_dir), "JsonlWrite")
    two = {name: {"folder": name, "files": 1} for name in "AB"}
    with pytest.raises(UsageError, match="several outputs, choose one with --output: A, B"):
        make_card(changed(run_dir, outputs=two))
    with pytest.raises(UsageError, match="has no writer"):
        make_card(changed(run_dir, outputs={}))
    with pytest.raises(UsageError, match="is running: a card can only be made for a run that has ended"):
        make_card(changed(run_dir, state="running"))
