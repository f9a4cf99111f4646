"""Checks that the version ranges of packages admit the current versions of their siblings. uv ignores these ranges
inside a workspace.

So core 0.4.0 and a text package that requires ``<0.4`` lock and pass tests together, and only users would notice.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workspace import ROOT, Package, packages


def problems(known: list[Package]) -> list[str]:
    """One sentence, with a remedy, for each wrong range between siblings."""
    by_name = {package.name: package for package in known}
    found: list[str] = []
    for package in known:
        where = f"{package.name}/pyproject.toml"
        for requirement in package.requirements:
            sibling = by_name.get(requirement.name)
            if sibling is None:
                continue
            for extra in sorted(requirement.extras - set(sibling.extras)):
                found.append(f"{where}: asks for {sibling.name}[{extra}], which has only {sorted(sibling.extras)}")
            if sibling is package:
                continue
            if not requirement.specifier.contains(sibling.version, prereleases=True):
                found.append(
                    f"{where}: wants {requirement}, but {sibling.name} is {sibling.version} here; widen the range, "
                    f"or set the version back"
                )
            # Before 1.0, a new minor version may be incompatible: without an upper bound, an old release breaks with a
            # new sibling.
            if not any(spec.operator in ("<", "~=", "==") for spec in requirement.specifier):
                found.append(f"{where}: {requirement} has no upper bound; add one, such as <{_next_minor(sibling)}")
            if sibling.name not in package.sources:
                found.append(
                    f"{where}: requires {sibling.name} from the registry; add {sibling.name} = {{ workspace = true }} "
                    f"under [tool.uv.sources]"
                )
    return found


def main() -> int:
    """Print problems; the exit code says whether there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, help="the workspace (default: this checkout)")
    known = packages(parser.parse_args().root)
    found = problems(known)
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    if not found:
        print(f"ranges of {len(known)} packages admit their siblings")
    return 1 if found else 0


def _next_minor(package: Package) -> str:
    major, minor, *_ = package.version.split(".")
    return f"{major}.{int(minor) + 1}" if major == "0" else str(int(major) + 1)


if __name__ == "__main__":
    sys.exit(main())
