"""Writes the index of docs/decisions, or with ``--check`` fails if a record is malformed or the index is old.

A record has a title ``# NNNN: …`` and the sections Status, Context, Decision and Consequences, in this order.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "decisions"
SECTIONS = ["Status", "Context", "Decision", "Consequences"]
INTRODUCTION = """# Decisions

Each page records one choice between real alternatives: its context, what was decided, and what follows. A decision that no
longer holds stays, with a status that names its successor. `make generate` writes this list.

"""


def problems(path: Path) -> list[str]:
    """The problems of a record's form."""
    text = path.read_text()
    found = []
    if not re.match(rf"# {path.name[:4]}: \S", text):
        found.append(f"{path.name}: the title must begin with '# {path.name[:4]}: '")
    headings = [heading for heading in re.findall(r"^## (.+)$", text, re.MULTILINE) if heading in SECTIONS]
    if headings != SECTIONS:
        found.append(
            f"{path.name}: the sections must be {', '.join(SECTIONS)}; they are {', '.join(headings) or 'none'}"
        )
    elif not re.fullmatch(r"Accepted\.|Superseded by \[\d{4}\]\(\d{4}-[\w-]+\.md\)\.", status(text)):
        found.append(f"{path.name}: the status must be 'Accepted.' or 'Superseded by [NNNN](NNNN-name.md).'")
    return found


def status(text: str) -> str:
    """The text of the section Status."""
    return text.partition("\n## Status\n")[2].partition("\n## ")[0].strip()


def index(records: list[Path]) -> str:
    """The index as Markdown."""
    lines = []
    for path in records:
        text = path.read_text()
        state = status(text)
        note = "" if state == "Accepted." else f" ({state[0].lower()}{state[1:].rstrip('.')})"
        lines.append(f"- [{text.splitlines()[0].removeprefix('# ')}]({path.name}){note}")
    return INTRODUCTION + "\n".join(lines) + "\n"


def main() -> int:
    """Write or check the index; returns the exit code."""
    records = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
    found = [problem for path in records for problem in problems(path)]
    numbers = [path.name[:4] for path in records]
    found += [f"the number {number} is taken twice" for number in sorted({n for n in numbers if numbers.count(n) > 1})]
    target = FOLDER / "README.md"
    if found:
        print("\n".join(found))
        return 1
    if "--check" in sys.argv[1:]:
        if target.read_text() != index(records):
            print("docs/decisions/README.md is out of date: run `make generate`")
            return 1
        print(f"{len(records)} decisions are well-formed and in the index")
        return 0
    target.write_text(index(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
