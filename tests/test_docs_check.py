"""The checker runs the examples of the documentation as shown, and finds an example with wrong output."""

from __future__ import annotations

from pathlib import Path

import docs_check
import pytest
import read_page

from curator_core.running.progress import RunProgress, line

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("page", docs_check.pages())
def test_every_fence_of_the_documentation_says_how_its_block_is_used(page: str) -> None:
    read_page.blocks_of((ROOT / page).read_text(encoding="utf-8"))


def fenced(*blocks: tuple[str, str]) -> str:
    return "\n".join(f"text\n```{info}\n{text}\n```" for info, text in blocks)


@pytest.mark.parametrize(
    ("blocks", "complaint"),
    [
        ([("python", "x = 1"), ("python", "print(x + 1)"), ("text", "2")], None),
        ([("python", "print('took 3.25 s: 4 rows')"), ("text", "took 1 s: 4 rows")], None),
        ([("python", "print('took 3.25 s: 5 rows')"), ("text", "took 1 s: 4 rows")], "but this is printed:\ntook 3.25"),
        ([("sh", "echo a; echo b; echo c"), ("text", "a\n…\nc")], None),
        ([("sh", "echo one"), ("python", "open('x')")], "No such file"),
        ([("python", "y")], "NameError: name 'y' is not defined"),
        ([("sh", "echo said; false; echo on")], "ends with 1:\nsaid"),
        ([("sh", "exit 2  # exit code 2")], None),
        ([("sh", "true  # exit code 2")], "ends with 0"),
        ([("python", "# mine.py\nvalue = 7"), ("python", "import mine\nassert mine.value == 7")], None),
        ([("toml", "a = ")], "Invalid value"),
        ([("python not run: needs a cluster", "no.such.thing()")], None),
        ([("python not run: needs a cluster", "no such thing")], "SyntaxError"),
        ([("sh not run: needs a cluster", "if then")], "syntax error"),
        ([("sh not run:", "ls")], "only by `not run: REASON`"),
        ([("bash", "ls")], "the language of a block must be one of sh, python"),
        ([("text", "x")], "no block before it prints"),
    ],
)
def test_a_page_is_read_as_a_user_would_read_it(
    blocks: list[tuple[str, str]], complaint: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    found = list(read_page.problems("page.md", fenced(*blocks)))
    assert len(found) == (complaint is not None)
    assert complaint is None or complaint in found[0]


@pytest.mark.parametrize("state", ["starting", "running"])
def test_a_run_on_a_busy_machine_may_report_its_progress(state: str) -> None:
    known = {"total_sources": 3, "taken_sources": 2, "finished_sources": 1, "workers": 2}
    report = line(RunProgress("words", state=state, seconds=63.0, begun=None, **known))
    printed = f"words: 3 sources, two of them read\n{report}\nwords: done"

    def faults(shown: str) -> list[str]:
        return list(read_page.problems("page.md", fenced(("python", f"print({printed!r})"), ("text", shown))))

    assert faults("words: 3 sources, two of them read\nwords: done") == []
    assert faults(f"…\n{report}\nwords: done") == []
    assert faults("words: done")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- AddId", None),
        ("executor: local", None),
        ("- WordCountFiltre: {min_words: 3}", "WordCountFilter"),
        ("on_eror: fail", "on_error"),
    ],
)
def test_yaml_that_is_not_run_names_existing_stages_and_parameters(
    text: str, complaint: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(read_page.problems("page.md", fenced(("yaml not run: no data", text))))
    assert len(found) == (complaint is not None)
    assert complaint is None or complaint in found[0]
