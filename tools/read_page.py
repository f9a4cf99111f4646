"""Checks that a page of documentation works for its reader, by running its blocks in order in one folder.

A block is the text between fences. The word after the fence decides what happens to it:

- ``sh`` is run by bash, ``python`` in one interpreter for the whole page, ``sql`` by DuckDB;
- ``yaml`` with stages is a pipeline file and is run; other YAML is inserted into a pipeline file and checked; ``toml``
  is parsed;
- a block whose first line is ``# name.yaml`` or ``# name.py`` is saved under that name instead, for later blocks;
- ``text`` after a block is the output of that block: ``…`` matches anything, times may differ, and lines that report
  the progress of a run in between may be left out;
- ``not run: REASON`` after the language is for blocks that need a cluster, a network or a GPU: they are only parsed.

It needs only Python, and runs in the environment of the packages.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import linecache
import re
import subprocess
import sys
import tomllib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LANGUAGES = ("sh", "python", "sql", "yaml", "toml", "text")
MARK = "not run: "
# A run that takes more than three seconds reports its progress: on a busy machine, any run.
PROGRESS = re.compile(r"^.+: (?:starting|.*\bsources?, .*\brows?\b.*), [\d.]+ (?:min \d+ )?s(?:; .*)?\n", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block: its first line, its language, the reason why it is not run (empty if it is run), and its text."""

    line: int
    language: str
    not_run: str
    text: str

    @property
    def file(self) -> str:
        """The file name under which to save the block, if its first line names one."""
        found = re.match(r"# ([\w-]+\.(?:yaml|py))\n", self.text)
        return found[1] if found else ""


class WrongPageError(Exception):
    """A block does not do what the page says."""


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page with their settings; a fence without a usable word is an error."""
    found: list[Block] = []
    opened: tuple[int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.startswith("```"):
            lines.append(line)
        elif opened is None:
            opened, lines = (number, line[3:].strip()), []
        else:
            language, _, rest = opened[1].partition(" ")
            if language not in LANGUAGES:
                raise WrongPageError(
                    f"line {opened[0]}: the language of a block must be one of {', '.join(LANGUAGES)}, not {language!r}"
                )
            if rest and (not rest.startswith(MARK) or not rest.removeprefix(MARK).strip()):
                raise WrongPageError(
                    f"line {opened[0]}: the language may be followed only by `{MARK}REASON`, not by {rest!r}"
                )
            found.append(Block(opened[0], language, rest.removeprefix(MARK), "\n".join(lines) + "\n"))
            opened = None
    if opened:
        raise WrongPageError(f"line {opened[0]}: the block does not end")
    return found


class Reader:
    """Acts as a reader who types what a page shows."""

    def __init__(self, page: str) -> None:
        self.page = page
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.printed: str | None = None

    def read(self, block: Block) -> None:
        """Run a block, or only check it if it must not run."""
        if block.language == "text":
            if not block.not_run:
                self._compare(block)
            return
        self.printed = None
        if block.file and not block.not_run:
            Path(block.file).write_text(block.text)
        elif block.not_run:
            self._parse(block)
        else:
            self.printed = getattr(self, f"_{block.language}")(block)

    def _parse(self, block: Block) -> None:
        if block.language == "sh":
            self._called(["bash", "-n", "-c", block.text])
        elif block.language == "python":
            ast.parse(block.text)
        elif block.language == "yaml":
            self._check_yaml(block)
        elif block.language == "toml":
            tomllib.loads(block.text)

    def _sh(self, block: Block) -> str:
        # A block that fails on purpose states its exit code.
        code = re.search(r"# exit code (\d+)", block.text)
        return self._called(["bash", "-euo", "pipefail", "-c", block.text], int(code[1]) if code else 0)

    def _called(self, command: list[str], code: int = 0) -> str:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != code:
            raise WrongPageError(f"ends with {done.returncode}:\n{done.stdout[-3000:]}")
        return done.stdout

    def _python(self, block: Block) -> str:
        name = f"{self.page}:{block.line}"
        # Python uses this to find the source for tracebacks and functions.
        linecache.cache[name] = (len(block.text), None, block.text.splitlines(keepends=True), name)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(block.text, name, "exec"), self.names)  # noqa: S102 - the page's own examples
        return printed.getvalue()

    def _sql(self, block: Block) -> str:
        # Import it by name, since the tools are also type-checked where it is not installed.
        rows = importlib.import_module("duckdb").sql(block.text).fetchall()
        if not rows:
            raise WrongPageError("the query finds nothing")
        return "\n".join(map(str, rows))

    def _toml(self, block: Block) -> str:
        tomllib.loads(block.text)
        return ""

    def _yaml(self, block: Block) -> str:
        if not re.search(r"^(stages|workflow):", block.text, re.MULTILINE):
            self._check_yaml(block)
            return ""
        path = Path(f"block-{block.line}.yaml")
        path.write_text(block.text)
        return self._called(["curate", "run", str(path)])

    def _check_yaml(self, block: Block) -> None:
        """Check that all names and parameters in the YAML exist; a fragment is inserted into a complete file."""
        from curator_core.config.pipeline_file import load_pipeline

        text = block.text
        if not re.search(r"^(stages|workflow):", text, re.MULTILINE):
            fragment = text.lstrip().startswith("- ")
            text = f"stages:\n{text}" if fragment else f"stages: [AddId]\n{text}"
        path = Path(f"block-{block.line}.yaml")
        path.write_text(text)
        load_pipeline(str(path))

    def _compare(self, block: Block) -> None:
        if self.printed is None:
            raise WrongPageError("shows output, but no block before it prints; use `text not run: …`")
        if not any(matches(block.text, printed) for printed in (self.printed, PROGRESS.sub("", self.printed))):
            raise WrongPageError(f"shows\n{block.text}\nbut this is printed:\n{self.printed}")


def matches(shown: str, printed: str) -> bool:
    """Whether the text on a page matches the output; ``…`` matches anything, and a time matches any time."""
    pattern = re.escape(shown.strip())
    pattern = re.sub(r"[\d.]+(?:\\\.\d+)?\\ s\b", r"[\\d.]+ s", pattern)
    return re.fullmatch(pattern.replace("…", ".*?"), printed.strip(), re.DOTALL) is not None


def problems(page: str, text: str) -> Iterator[str]:
    """Check the blocks of a page in order, and stop at the first error, since later blocks depend on earlier ones."""
    try:
        blocks = blocks_of(text)
    except WrongPageError as error:
        yield f"{page}: {error}"
        return
    reader = Reader(page)
    for block in blocks:
        try:
            reader.read(block)
        except WrongPageError as error:
            yield f"{page}:{block.line}: {block.language}: {error}"
            return
        except Exception:
            yield f"{page}:{block.line}: {block.language}: {traceback.format_exc()}"
            return


def main() -> int:
    """Check the named page; returns the exit code."""
    page, path = sys.argv[1:]
    sys.path[0] = ""  # import modules from the page's folder, not those next to this file
    found = list(problems(page, Path(path).read_text(encoding="utf-8")))
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
