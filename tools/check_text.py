"""Checks that no tracked file or commit message names the machine on which it was written.

A path of one machine means nothing on another; the host of a registry would tie all users to that registry.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from workspace import ROOT

# The patterns are written so that they do not match their own source.
PATTERNS = {
    "a path of one machine": re.compile(
        r"(?<![\w./-])/(?:work|root|home/[a-z][\w-]*|Users/[A-Za-z][\w-]*)/|/tmp/(?:heavy|git)\b"
    ),
    "a registry's host": re.compile(
        r"\b(?:test\.)?pypi\.(?:org|python\.org)|pythonhosted\.(?:org)|registry\.(?:npmjs\.org|yarnpkg\.com)"
        r"|download\.pytorch\.(?:org)|pypi\.nvidia\.(?:com)|\bconda\.anaconda\.(?:org)|\bstatic\.crates\.(?:io)"
    ),
}
# A line with this word is exempt, for example in a test of this check.
EXCUSE = "check-text: ok"


def findings(text: str) -> list[tuple[int, str, str]]:
    """Line number, problem and offending words of each finding."""
    return [
        (number, what, match.group())
        for number, line in enumerate(text.splitlines(), start=1)
        if EXCUSE not in line
        for what, pattern in PATTERNS.items()
        for match in pattern.finditer(line)
    ]


def main() -> int:
    """Print findings; the exit code says whether there are any."""
    count = 0
    for name in _git("ls-files", "-z").split("\0"):
        path = ROOT / name
        if not name or path.is_symlink() or not path.is_file():
            continue
        count += _report(name, _text_of(path))
    # A shallow clone has fewer messages, and only these are checked.
    count += _report("commit messages", _git("log", "--format=%B"))
    if not count:
        print("no tracked file names a machine's path or a registry's host")
    return 1 if count else 0


def _report(name: str, text: str) -> int:
    found = findings(text)
    for number, what, words in found:
        print(f"error: {name}:{number}: {what}: {words!r}; take it out or make it relative", file=sys.stderr)
    return len(found)


def _text_of(path: Path) -> str:
    data = path.read_bytes()
    return "" if b"\0" in data[:8192] else data.decode("utf-8", errors="replace")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
