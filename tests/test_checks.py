"""The tools that check the workspace find the faults for which they were made."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import check_siblings
import check_text
import pytest
from workspace import ROOT, packages


def workspace(folder: Path, core: str, requires: str, *, source: bool = True) -> Path:
    sources = "[tool.uv.sources]\ncurator-core = { workspace = true }\n" if source else ""
    for name, body in {
        "curator-core": f'version = "{core}"\n',
        "curator-text": f'version = "0.1.0"\ndependencies = ["{requires}"]\n{sources}',
    }.items():
        (folder / "packages" / name).mkdir(parents=True)
        (folder / "packages" / name / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n{body}')
    return folder


@pytest.mark.parametrize(
    ("core", "requires", "source", "complaint"),
    [
        ("0.1.7", "curator-core>=0.1,<0.2", True, None),
        ("0.2.0", "curator-core>=0.1,<0.2", True, "but curator-core is 0.2.0 here"),
        ("0.1.0", "curator-core>=0.1.1,<0.2", True, "but curator-core is 0.1.0 here"),
        ("0.1.0", "curator-core>=0.1", True, "no upper bound; add one, such as <0.2"),
        ("0.1.0", "curator-core>=0.1,<0.2", False, "add curator-core = { workspace = true }"),
        ("0.1.0", "curator-core[gpu]>=0.1,<0.2", True, "asks for curator-core[gpu]"),
    ],
)
def test_a_range_that_does_not_admit_its_sibling_is_found(
    tmp_path: Path, core: str, requires: str, source: bool, complaint: str | None
) -> None:
    found = check_siblings.problems(packages(workspace(tmp_path, core, requires, source=source)))
    if complaint is None:
        assert found == []
    else:
        assert len(found) == 1
        assert complaint in found[0]


@pytest.mark.parametrize(
    "line",
    [
        "open('/" + "root/data.txt')",
        "cd /" + "work/main",
        "cache: /" + "home/ada/.cache",
        "index = https://pypi." + "org/simple",
    ],
)
def test_a_machine_path_or_a_registry_host_is_found(line: str) -> None:
    assert [number for number, _, _ in check_text.findings(f"fine\n{line}\n")] == [2]


@pytest.mark.parametrize(
    "line",
    ["src/work/items.py", "s3://bucket/root/part", "a framework/test", "/tmp/x", "the root/ folder", "network/work/x"],
)
def test_ordinary_text_passes(line: str) -> None:
    assert check_text.findings(line) == []


@pytest.fixture(scope="module")
def shared() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conftest_of_the_workspace", ROOT / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("parts", "marks", "named"),
    [
        ({"setup": 0.1, "call": 0.2}, [], False),
        ({"setup": 0.3, "call": 0.2}, [], True),
        ({"call": 60}, ["slow"], False),
        ({"call": 60}, ["ray"], False),
        ({"call": 0.1, "teardown": 60}, [], False),
    ],
)
def test_a_slow_test_without_the_mark_is_named(
    shared: ModuleType, parts: dict[str, float], marks: list[str], named: bool
) -> None:
    reports = [
        pytest.TestReport(
            "test_one", ("f.py", 1, "test_one"), dict.fromkeys(marks, 1), "passed", None, when, duration=took
        )
        for when, took in parts.items()
    ]
    assert [name for name, _ in shared.slow_without_mark(reports)] == ["test_one"] * named
