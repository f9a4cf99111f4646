"""Writes the ``__init__.pyi`` of packages whose names load on first use, for type checkers and editors.

``from curator_text import WordCountFilter`` loads one module at run time, through a table (``_HOME``) with the module
of each name. A type checker cannot follow a table, so without a stub, every such name would be `Any`. The stub
expresses the table as imports. It is generated and never edited; ``--check`` lists the stubs that differ from the
table.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from pathlib import Path

from workspace import ROOT, packages

RENEW = "make generate"


def table(init: Path) -> dict[str, str]:
    """The ``_HOME`` of a package: a mapping from names to modules, relative to the package. It is empty if names load
    with the package.
    """
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "_HOME" for target in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            home: dict[str, str] = ast.literal_eval(node.value)
            return home
    return {}


def stub(init: Path, package: str) -> str:
    """The stub of ``package``, whose ``__init__.py`` is ``init``, in formatted form."""
    home = table(init)
    by_module: dict[str, list[str]] = {}
    for name, module in home.items():
        by_module.setdefault(f"{package}.{module}", []).append(name)
    lines = [f"# Made from _HOME in __init__.py; not for editing: `{RENEW}` renews it.", ""]
    for module in sorted(by_module):
        names = ", ".join(f"{name} as {name}" for name in sorted(by_module[module]))
        lines.append(f"from {module} import {names}")
    lines += ["", f"__all__ = {sorted(home)!r}"]
    if "\n__version__ = " in init.read_text(encoding="utf-8"):
        lines += ["", "__version__: str"]
    return _formatted("\n".join(lines) + "\n", init.with_suffix(".pyi"))


def lazy_packages(root: Path = ROOT) -> dict[Path, str]:
    """The ``__init__.py`` of each package that has a table, and the import name of the package."""
    found: dict[Path, str] = {}
    for package in packages(root):
        source = package.folder / "src"
        for init in sorted(source.rglob("__init__.py")):
            if table(init):
                found[init] = ".".join(init.parent.relative_to(source).parts)
    return found


def stale(root: Path = ROOT) -> dict[Path, str | None]:
    """Outdated stubs with their correct content; None for a stub that should not exist."""
    wanted: dict[Path, str | None] = {
        init.with_suffix(".pyi"): stub(init, name) for init, name in lazy_packages(root).items()
    }
    for package in packages(root):
        for path in (package.folder / "src").rglob("__init__.pyi"):
            wanted.setdefault(path, None)
    return {path: text for path, text in sorted(wanted.items()) if _text(path) != text}


def main() -> int:
    """Write the stubs, or with ``--check`` list the outdated ones; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a stub is out of date")
    check = parser.parse_args().check
    found = stale()
    for path, text in found.items():
        if check:
            print(f"error: {path.relative_to(ROOT)} is out of date: `{RENEW}` renews it", file=sys.stderr)
        elif text is None:
            path.unlink()
        else:
            path.write_text(text, encoding="utf-8")
    if not found:
        print(f"stubs of {len(lazy_packages())} packages are up to date")
    return 1 if check and found else 0


def _formatted(text: str, path: Path) -> str:
    ruff = [str(Path(sys.executable).with_name("ruff"))]
    for command in (["check", "--quiet", "--fix-only", "--select=I,RUF022", "--exit-zero"], ["format", "--quiet"]):
        done = subprocess.run(
            [*ruff, *command, f"--stdin-filename={path}", "-"],
            cwd=ROOT,
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        text = done.stdout
    return text


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
