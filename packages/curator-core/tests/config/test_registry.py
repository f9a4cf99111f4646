"""Stages and executors are found by name, and built from a file's values under strict checks."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest

from curator_core import DocumentBatch, MissingDependency, ProcessingStage, UsageError, registry, stage
from curator_core.config.build import build_stage, load_executor, load_stage
from curator_core.registry import EXECUTORS, STAGES, entries
from curator_core.stages.files import FilePartitioning


@dataclass
class Picky(ProcessingStage[DocumentBatch, DocumentBatch]):
    level: int
    share: float = 0.5
    words: tuple[str, ...] = ()
    mode: Literal["soft", "hard"] = "soft"
    table: dict[str, int] = field(default_factory=dict)
    folder: Path | None = None
    schema: pa.Schema | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if self.level > 9:
            raise ValueError("level goes to nine")

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task


@stage
def Shout(batch: DocumentBatch, mark: str = "!") -> DocumentBatch:  # noqa: N802 - a stage
    return batch


def plain_function(batch: DocumentBatch) -> DocumentBatch:
    return batch


HERE = f"{__name__}:"


def test_core_registers_its_own_stages_and_executor() -> None:
    assert load_stage("FilePartitioning") is FilePartitioning
    assert load_executor("local").__name__ == "LocalExecutor"
    assert entries(STAGES)["FilePartitioning"][0].owner == "curator-core"


def test_every_registered_name_of_core_loads() -> None:
    for group, loader in ((STAGES, load_stage), (EXECUTORS, load_executor)):
        for name, owners in entries(group).items():
            if owners[0].owner == "curator-core":
                assert loader(name)


def test_listing_imports_nothing_that_is_listed() -> None:
    code = """
import sys
from curator_core.registry import entries, STAGES
assert entries(STAGES)
assert not {"pyarrow", "pydantic", "curator_core.stages.files", "curator_text"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def install(folder: Path, package: str, *lines: str) -> None:
    """A package in the form that an installer leaves: metadata that lists what it registers."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[curator.stages]", *lines]))


@pytest.mark.slow
def test_single_values_of_the_right_type_need_no_pydantic() -> None:
    code = """
import sys
from curator_core.config.build import build_stage
assert build_stage("Sample", {"fraction": 0.5}).fraction == 0.5
assert build_stage("FilePartitioning", {"paths": "in", "limit": None, "recursive": True}).recursive
assert "pydantic" not in sys.modules
assert build_stage("FilePartitioning", {"paths": ["in"]}).paths == ["in"]
assert "pydantic" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_clash_names_both_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "one", "nice-stages", "Tidy = nice:Tidy")
    install(tmp_path / "two", "other-stages", "Tidy = other:Tidy")
    monkeypatch.syspath_prepend(tmp_path / "one")
    monkeypatch.syspath_prepend(tmp_path / "two")
    with pytest.raises(UsageError, match=r"nice-stages \(nice:Tidy\).*|other-stages \(other:Tidy\).*") as caught:
        load_stage("Tidy")
    assert "nice-stages" in str(caught.value)
    assert "other-stages" in str(caught.value)


def test_a_package_that_is_on_the_path_twice_is_no_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("one", "two"):
        install(tmp_path / place, "nice-stages", f"Tidy = {__name__}:Picky")
        monkeypatch.syspath_prepend(tmp_path / place)
    assert load_stage("Tidy") is Picky


def test_an_unknown_name_is_reported_with_the_nearest_and_the_packages_searched() -> None:
    with pytest.raises(UsageError, match=r"no stage 'FilePartitionin'; did you mean 'FilePartitioning'.*curator-core"):
        load_stage("FilePartitionin")
    with pytest.raises(UsageError, match="no executor 'locl'; did you mean 'local'"):
        load_executor("locl")


def test_dotted_paths_name_unregistered_stages() -> None:
    assert load_stage("curator_core.stages.files.FilePartitioning") is FilePartitioning
    assert load_stage("curator_core.stages.files:FilePartitioning") is FilePartitioning
    with pytest.raises(UsageError, match="there is no module 'nowhere'"):
        load_stage("nowhere.stages.Thing")
    with pytest.raises(UsageError, match="has no 'FilePartition'; did you mean 'FilePartitioning'"):
        load_stage("curator_core.stages.files.FilePartition")
    with pytest.raises(UsageError, match="is not a stage but"):
        load_stage("curator_core.stages.files.parse_bytes")
    with pytest.raises(UsageError, match="put @stage above it"):
        load_stage(f"{HERE}plain_function")
    with pytest.raises(UsageError, match="is a base class"):
        load_stage("curator_core.model.stage.ProcessingStage")
    with pytest.raises(UsageError, match="is not an executor"):
        load_executor("curator_core.stages.files.FilePartitioning")


def test_a_module_that_breaks_on_import_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_stages.py").write_text("1 / 0")
    (tmp_path / "poor_stages.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        load_stage("broken_stages.X")
    with pytest.raises(UsageError, match="it needs the module 'not_installed_anywhere'"):
        load_stage("poor_stages.X")


def test_values_get_the_type_that_the_constructor_declares() -> None:
    built = build_stage(
        f"{HERE}Picky",
        {"level": 3, "share": 1, "words": ["a"], "mode": "hard", "table": {"x": 1}, "folder": "in/"},
    )
    assert built == Picky(3, share=1.0, words=("a",), mode="hard", table={"x": 1}, folder=Path("in/"))
    assert isinstance(built.share, float)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"level": "3"}, r"Picky.level must be int, not '3'"),
        ({"level": 3.0}, r"level must be int, not 3.0"),
        ({"level": True}, r"level must be int, not True"),
        ({"level": 3, "share": "half"}, r"share must be float, not 'half'"),
        ({"level": 3, "strict": "no"}, r"strict must be bool, not 'no'"),
        ({"level": 3, "strict": 1}, r"strict must be bool, not 1"),
        ({"level": 3, "words": "one"}, r"words must be tuple\[str, \.\.\.\], not 'one'"),
        ({"level": 3, "words": ["one", 2]}, r"item 1 is 2"),
        ({"level": 3, "mode": "firm"}, r"mode must be one of 'soft', 'hard', not 'firm'"),
        ({"level": 3, "folder": 7}, r"folder must be pathlib\.Path \| None, not 7"),
        ({"level": 3, "levl": 3}, r"no parameter 'levl'; did you mean 'level'"),
        ({"level": 3, "zzz": 3}, r"no parameter 'zzz'\. It takes: level, share"),
        ({}, r"needs the parameter 'level'"),
        ({"level": 10}, r"level goes to nine"),
    ],
)
def test_a_wrong_value_is_reported_with_stage_parameter_and_expected_type(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_stage(f"{HERE}Picky", params)


def test_inherited_parameters_are_checked_with_the_types_of_their_own_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heirs_of_a_filter.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import TYPE_CHECKING\n"
        "from curator_core import ColumnFilter\nif TYPE_CHECKING:\n    from decimal import Decimal\n"
        "@dataclass\nclass Heir(ColumnFilter):\n    level: int = 1\n    unknown: Decimal | None = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"mode must be one of 'filter', 'annotate', 'invert', not 'keep'"):
        build_stage("heirs_of_a_filter.Heir", {"mode": "keep"})
    with pytest.raises(UsageError, match=r"level must be int, not 'x'"):
        build_stage("heirs_of_a_filter.Heir", {"level": "x"})
    assert build_stage("heirs_of_a_filter.Heir", {"unknown": 5}).params()["unknown"] == 5


def test_a_stage_made_of_a_function_is_checked_the_same_way() -> None:
    assert build_stage(f"{HERE}Shout", {"mark": "?"}).params() == {"mark": "?"}
    with pytest.raises(UsageError, match=r"mark must be str, not 1"):
        build_stage(f"{HERE}Shout", {"mark": 1})
    with pytest.raises(UsageError, match=r"no parameter 'mrk'; did you mean 'mark'"):
        build_stage(f"{HERE}Shout", {"mrk": "?"})


def test_paths_may_be_one_or_many() -> None:
    assert build_stage("FilePartitioning", {"paths": "in/"}) == FilePartitioning(paths="in/")
    assert build_stage("FilePartitioning", {"paths": ["a", "b"]}) == FilePartitioning(paths=["a", "b"])
    with pytest.raises(UsageError, match=r"FilePartitioning.paths must be str \| Sequence\[str\], not 5"):
        build_stage("FilePartitioning", {"paths": 5})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("RayData", "ray_data"),
        ("ray-data", "ray_data"),
        ("raydata", "ray_data"),
        ("ray", "ray_data"),
        ("RayDataExecutor", "ray_data"),
        ("xena", "xenna"),
        ("Xenna", "xenna"),
        ("locl", "local"),
        ("LocalExecutor", "local"),
    ],
)
@pytest.mark.parametrize("backends", [True, False])
def test_a_misspelt_executor_is_recognised(
    written: str, meant: str, backends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the package that brings it is installed or not."""
    known = {name: [registry.Entry(name, f"a.module:{name}", "a-package")] for name in ("local", "ray_data", "xenna")}
    shown = known if backends else {"local": known["local"]}
    monkeypatch.setattr(registry, "entries", lambda _: shown)
    with pytest.raises(UsageError, match=rf"there is no executor {written!r}; did you mean {meant!r}\?"):
        registry.load(registry.EXECUTORS, written)


def test_an_executor_whose_package_is_missing_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entries", lambda _: {})
    with pytest.raises(
        MissingDependency, match=r'executor \'xenna\' is not installed: pip install "curator-backends\[xenna\]"'
    ):
        registry.load(registry.EXECUTORS, "xenna")
