"""A pipeline file says what runs; a mistake in it is shown with its line and the nearest valid word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core import Resources, UsageError
from curator_core.config.pipeline_file import PipelineFile, load_pipeline
from curator_core.config.yaml_file import FileError, parse_value, read_yaml
from curator_core.stages.columns import SelectColumns, Where
from curator_core.stages.files import FilePartitioning
from curator_core.stages.sampling import Sample

GOOD = """\
# A comment.
name: tidy
stages:
  - FilePartitioning: {paths: "in/*.jsonl", split_bytes: 64MB}
  - Sample:
      fraction: 0.5
      seed: 7
    with: {batch_size: 4, resources: {cpus: 2}, name: half}
  - curator_core.stages.columns.SelectColumns: {columns: [text]}
executor: {local: {workers: 0}}
run_dir: runs/tidy
on_error: quarantine
retries: 2
max_error_fraction: 1e-2
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "tidy.yaml"
    path.write_text(text)
    return path


def message(folder: Path, text: str, *settings: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_pipeline(write(folder, text), settings)
    return str(caught.value).replace(f"{folder}/", "")


def test_a_valid_file_becomes_stages_and_options(tmp_path: Path) -> None:
    file = load_pipeline(write(tmp_path, GOOD))
    assert file.name == "tidy"
    assert list(file.stages) == [
        FilePartitioning(paths=str(tmp_path / "in/*.jsonl"), split_bytes="64MB"),
        Sample(fraction=0.5, seed=7).with_(batch_size=4, resources=Resources(cpus=2.0), name="half"),
        SelectColumns(columns=["text"]),
    ]
    assert file.stages[1].name == "half"
    assert file.run_dir == str(tmp_path / "runs/tidy")
    assert file.options == {"on_error": "quarantine", "retries": 2, "max_error_fraction": 0.01}
    executor = file.make_executor()
    assert repr(executor) == "LocalExecutor(workers=0)"
    assert repr(file.make_executor(workers=3)) == "LocalExecutor(workers=3)"
    assert file.pipeline().name == "tidy"


def test_the_name_defaults_to_that_of_the_file(tmp_path: Path) -> None:
    file = load_pipeline(write(tmp_path, "stages: [{FilePartitioning: {paths: x}}]"))
    assert (file.name, file.run_dir, file.executor, file.options) == ("tidy", None, "local", {})


def test_relative_paths_are_relative_to_the_file_and_others_stay(tmp_path: Path) -> None:
    text = 'stages: [{FilePartitioning: {paths: [a/, "../b/*", /c, "s3://d/e", "file:///f"]}}]'
    stage = load_pipeline(write(tmp_path / ".", text)).stages[0]
    assert stage.params()["paths"] == [f"{tmp_path}/a/", f"{tmp_path.parent}/b/*", "/c", "s3://d/e", "/f"]


def test_settings_take_precedence_and_their_paths_are_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    path = write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = ["Sample.fraction=0.25", "FilePartitioning.paths=[x.jsonl, y.jsonl]", "SelectColumns.columns=[a, b]"]
    stages = load_pipeline(path, settings).stages
    assert stages[0].params()["paths"] == [f"{tmp_path}/elsewhere/x.jsonl", f"{tmp_path}/elsewhere/y.jsonl"]
    assert stages[1].params()["fraction"] == 0.25
    assert stages[2].params()["columns"] == ["a", "b"]


def test_parameters_of_the_second_stage_of_a_name_can_be_set(tmp_path: Path) -> None:
    text = "stages:\n- Where: {column: a, value: 1}\n- Where: {column: b, value: 1}\n"
    stages = load_pipeline(write(tmp_path, text), ["Where#2.value=5"]).stages
    assert list(stages) == [Where(column="a", value=1), Where(column="b", value=5)]


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("Sampel.fraction=1", "no stage 'Sampel'; did you mean 'Sample'"),
        ("Sample=1", "--set takes stage.parameter=value, not 'Sample=1'"),
        ("Sample.fraction", "--set takes stage.parameter=value"),
        ("Sample.fraction=much", "--set Sample.fraction=much: Sample.fraction must be float, not 'much'"),
        ("Sample.fractoin=1", "--set Sample.fractoin=1: Sample has no parameter 'fractoin'; did you mean 'fraction'"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, setting: str, wanted: str) -> None:
    assert wanted in message(tmp_path, GOOD, setting)


@pytest.mark.parametrize(
    ("text", "line", "wanted"),
    [
        ("stagse: []", 1, "unknown key 'stagse'; did you mean 'stages'"),
        ("name: x", 1, "either `stages:` or `workflow:`"),
        ("stages: []", 1, "`stages:` is a list"),
        ("- FilePartitioning", 1, "a pipeline file is a mapping"),
        ("", None, "a pipeline file is a mapping"),
        ("stages:\n  - FilePartitionin: {paths: x}", 2, "no stage 'FilePartitionin'; did you mean 'FilePartitioning'"),
        ("stages:\n  - FilePartitioning: {path: x}", 2, "no parameter 'path'; did you mean 'paths'"),
        ("stages:\n  - FilePartitioning: {}", 2, "FilePartitioning needs the parameter 'paths'"),
        ("stages:\n  - FilePartitioning", 2, "FilePartitioning needs the parameter 'paths'"),
        ("stages:\n  - Sample:\n      seed: 1\n      fraction: some", 4, "Sample.fraction must be float, not 'some'"),
        ("stages:\n  - Sample:\n      fraction: 7", 2, "Sample.fraction must be a number from 0 to 1, not 7.0"),
        ("stages:\n  - Sample:\n    fraction: 1", 3, "indent 'fraction' further than 'Sample'"),
        ("stages:\n  - {Sample: {fraction: 1}, Where: {column: x}}", 2, "one stage for each `-`"),
        ("stages:\n  - 7", 2, "a stage is written `- StageName: {parameter: value}`"),
        ("stages:\n  - Sample: 7", 2, "Sample takes a mapping of parameters"),
        *(
            (f"stages:\n  - {item}", line, "the colon after 'Sample' is missing: write `Sample: {key: value}`")
            for item, line in {
                "Sample {fraction: 1}": 2,
                "Sample{fraction: 1}": 2,
                "Sample fraction: 1": 2,
                "Sample {}": 2,
                'Sample {fraction: "1"}': 2,
                "Sample {fraction: 1,\n      seed: 2}": 3,
            }.items()
        ),
        (
            "stages:\n  - Sample: {fraction: 1}\n    with: {batch: 1}",
            3,
            "with takes no 'batch'; did you mean 'batch_size'",
        ),
        (
            "stages:\n  - Sample: {fraction: 1}\n    with:\n      batch_size: x",
            4,
            "with.batch_size must be int, not 'x'",
        ),
        ("stages:\n  - Sample: {fraction: 1}\n    with: {resources: {cpu: 1}}", 3, "resources has no parameter 'cpu'"),
        ("stages:\n  - Sample: {fraction: 1}\nexecutor: [x]", 3, "executor is a name"),
        ("stages:\n  - Sample: {fraction: 1}\non_error: ignore", 3, "on_error must be one of 'fail', 'quarantine'"),
        ("stages:\n  - Sample: {fraction: 1}\nlimit: ten", 3, "limit must be int, not 'ten'"),
        ("stages:\n  - Sample: {fraction: 1}\nlimit: 0", 3, "limit must be a whole number of 1 or more, not 0"),
        ("stages:\n  - Sample: {fraction: 1}\nretries: -1", 3, "retries must be a whole number of 0 or more, not -1"),
        (
            "stages:\n  - Sample: {fraction: 1}\nmax_error_fraction: 2",
            3,
            "max_error_fraction must be a number between 0 and 1, not 2",
        ),
        ("workflow: {Nothing: {}}", 1, "no workflow 'Nothing'"),
        ("workflow: {curator_core.stages.files.FilePartitioning: {paths: x}}", 1, "is not a workflow but"),
        ("workflow: {ExactDedup: {path: out, reader: {Nothing: {}}}}", 1, "no stage 'Nothing'"),
        ("workflow: {ExactDedup: {path: out, reader: {Sample: {fracton: 1}}}}", 1, "Sample has no parameter 'fracton'"),
        ("workflow: {ExactDedup: {path: out, reader: [Sample]}}", 1, "ExactDedup.reader is a stage, written"),
        ("name: x\nname: y", 2, "'name' is here twice"),
        ("stages:\n\t- x", 2, "a tab cannot indent YAML"),
        ("stages: [", 1, ""),
        ("name: 'open", 1, ""),
        ("name: !!python/object/apply:os.system [ls]", 1, "the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("a: &x [*x]", 1, "contains itself"),
        ("{[1]: 2}", 1, "a key must be one word"),
        ("name: a\n---\nname: b", 2, "expected a single document"),
    ],
)
def test_an_error_is_shown_with_its_line(tmp_path: Path, text: str, line: int | None, wanted: str) -> None:
    said = message(tmp_path, text)
    assert wanted in said
    if line is None:
        assert said.startswith("tidy.yaml: ")
    else:
        assert said.startswith(f"tidy.yaml:{line}: ")
        assert f"\n{line:>5} | {text.splitlines()[line - 1]}" in said


def test_the_mark_is_under_the_wrong_key(tmp_path: Path) -> None:
    said = message(tmp_path, "stages:\n  - Sample: {fraction: 1, sed: 2}")
    shown, mark = said.splitlines()[-2:]
    assert shown[mark.index("^") :].startswith("sed")


def test_all_errors_are_reported_together(tmp_path: Path) -> None:
    said = message(tmp_path, "nmae: x\nstages:\n- Sample: {fractoin: 1}\n- Wher: {}\n")
    assert [line for line in said.splitlines() if line.startswith("tidy.yaml")] == [
        line for number in (1, 3, 4) for line in said.splitlines() if line.startswith(f"tidy.yaml:{number}:")
    ]
    assert len(said.splitlines()) == 9


def test_modules_beside_the_file_provide_stages(tmp_path: Path) -> None:
    (tmp_path / "stages_beside_the_file.py").write_text(
        "from curator_core import DocumentBatch, stage\n\n"
        "@stage\ndef Louder(batch: DocumentBatch, times: int = 1) -> DocumentBatch:\n    return batch\n"
    )
    file = load_pipeline(write(tmp_path, "stages:\n  - stages_beside_the_file.Louder: {times: 2}\n"))
    assert file.stages[0].params() == {"times": 2}


def test_a_missing_file_or_one_that_is_not_text_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_pipeline(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff")
    with pytest.raises(UsageError, match="byte 6 is not"):
        load_pipeline(tmp_path / "bytes.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1e-3", 0.001),
        ("1_000", "1_000"),
        ("0x10", 16),
        ("010", 10),
        ("-.inf", float("-inf")),
        ("null", None),
        ("~", None),
        ("", None),
        ("[1, a]", [1, "a"]),
        ("{a: 1.5}", {"a": 1.5}),
        ("'5'", "5"),
        ("{a: &x {b: 1}, c: {<<: *x, b: 2}}", {"a": {"b": 1}, "c": {"b": 2}}),
    ],
)
def test_values_follow_yaml_1_2(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@given(st.text(alphabet="ab:-{}[]&*!'\"\n \t#|>%@`0.", max_size=40))
def test_any_text_is_a_value_or_a_file_error(text: str) -> None:
    said = "x.yaml"
    try:
        read_yaml(text, "x.yaml")
    except FileError as error:
        said = str(error)
    assert said.startswith("x.yaml")


@pytest.mark.slow
def test_a_small_file_that_expands_without_end_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(FileError, match="too many"):
        read_yaml("\n".join(lines), "bomb.yaml")
    with pytest.raises(FileError, match="nested too deep"):
        read_yaml("[" * 2000, "deep.yaml")


def test_a_run_can_be_made_from_values_without_a_file() -> None:
    file = PipelineFile("x.yaml", "x", (FilePartitioning(paths="in/"),))
    assert repr(file.make_executor("local", workers=0)) == "LocalExecutor(workers=0)"
    with pytest.raises(UsageError, match="no executor 'xena'"):
        file.make_executor("xena")


def test_a_parameter_that_may_be_a_path_is_one_if_the_file_exists(tmp_path: Path) -> None:
    (tmp_path / "listed_words.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import Any\n"
        "from curator_core import DocumentBatch, ProcessingStage\n"
        "@dataclass\n"
        "class Words(ProcessingStage[DocumentBatch, DocumentBatch]):\n"
        "    maybe_paths = ('words',)\n"
        "    words: Any = None\n"
        "    other: str = ''\n"
        "    def process(self, task: DocumentBatch) -> DocumentBatch:\n"
        "        return task\n"
    )
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "bad.txt").write_text("bad")
    file = tmp_path / "p.yaml"

    def words(value: str, *settings: str) -> Any:
        file.write_text(f"stages:\n  - listed_words.Words: {{words: {value}, other: lists/bad.txt}}")
        (stage,) = load_pipeline(file, settings, settings_folder=str(tmp_path / "lists")).stages
        assert stage.other == "lists/bad.txt"  # type: ignore[attr-defined]
        return stage.words  # type: ignore[attr-defined]

    assert words("lists/bad.txt") == str(tmp_path / "lists" / "bad.txt")
    assert words("lists") == str(tmp_path / "lists")
    assert words("some/model") == "some/model"
    assert words(f'"{"x" * 5000}"') == "x" * 5000
    assert words("[lists/bad.txt]") == ["lists/bad.txt"]
    assert words("some/model", "Words.words=bad.txt") == str(tmp_path / "lists" / "bad.txt")
