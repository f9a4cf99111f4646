"""Draws packages and layers as docs/architecture.svg from the import contracts that CI enforces.

    tools/draw_architecture.py            write the picture
    tools/draw_architecture.py --check exit with 1 if the picture differs from the contracts

The only source of the picture is ``[tool.importlinter]`` in pyproject.toml, so every layer that it shows is enforced.
Each package is a column; a layer may import the layers below it, but not those above.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"
_NAME = re.compile(r"[\w.]+")
PACKAGES = ("curator_core", "curator_backends", "curator_text", "curator_image")

WIDTH, LINE, INSET, GAP, PAD, TITLE, LETTER = 250, 18, 6, 6, 14, 34, 8
STYLE = """
  text { font: 13px ui-monospace, SFMono-Regular, Menlo, monospace; fill: #24292f }
  .title { font: 600 15px system-ui, sans-serif }
  .note { font: 13px system-ui, sans-serif; fill: #57606a }
  .package { fill: #f6f8fa; stroke: #d0d7de }
  .layer { fill: #ffffff; stroke: #8c959f }
  .arrow { stroke: #57606a; fill: none; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #9198a1 } .package { fill: #151b23; stroke: #3d444d }
    .layer { fill: #0d1117; stroke: #656c76 } .arrow { stroke: #9198a1 }
  }
"""


@dataclass(frozen=True)
class Package:
    """A package with its layers from the top; the modules of a layer are side by side."""

    name: str
    layers: tuple[tuple[str, ...], ...]

    def height(self, width: int) -> int:
        rows = sum(len(_lines(members, width)) * LINE + 2 * INSET + GAP for members in self.layers)
        return TITLE + rows + PAD


def packages(contracts: Sequence[Mapping[str, Any]]) -> list[Package]:
    """The packages in reading order, with the layers of their contracts, but not those of their folders."""
    found: dict[str, tuple[tuple[str, ...], ...]] = {}
    for contract in contracts:
        containers = contract.get("containers") or []
        if contract["type"] == "layers" and len(containers) == 1 and containers[0] in PACKAGES:
            found[containers[0]] = tuple(tuple(_NAME.findall(layer)) for layer in contract["layers"])
    return [Package(name, found.get(name, ())) for name in PACKAGES]


def draw(found: Sequence[Package]) -> str:
    """The picture, with core at the bottom and the packages that build on it above."""
    core, others = found[0], list(found[1:])
    wide = len(others) * WIDTH + (len(others) - 1) * PAD * 2
    top = max(package.height(WIDTH) for package in others)
    below = top + 48
    shapes: list[str] = []
    for number, package in enumerate(others):
        left = number * (WIDTH + PAD * 2)
        shapes += _package(package, left, top - package.height(WIDTH), WIDTH)
        middle = left + WIDTH // 2
        shapes.append(f'<path class="arrow" marker-end="url(#tip)" d="M {middle} {top} V {below - 3}"/>')
    shapes += _package(core, 0, below, wide)
    height = below + core.height(wide)
    note = "An arrow reads “imports”. Inside a package each layer imports what is below it, never what is above."
    shapes.append(f'<text class="note" x="0" y="{height + 24}">{note}</text>')
    tip = (
        '<marker id="tip" markerWidth="8" markerHeight="8" refX="6" refY="4" orient="auto">'
        '<path class="arrow" d="M 0 0 L 7 4 L 0 8"/></marker>'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 -8 {wide + 16} {height + 48}" role="img" '
            'aria-label="The packages of Curator and their layers">',
            f"<style>{STYLE}</style>",
            f"<defs>{tip}</defs>",
            *shapes,
            "</svg>",
            "",
        ]
    )


def _package(package: Package, left: int, top: int, width: int) -> list[str]:
    shapes = [
        f'<rect class="package" x="{left}" y="{top}" width="{width}" height="{package.height(width)}" rx="6"/>',
        f'<text class="title" x="{left + PAD}" y="{top + 23}">{escape(package.name)}</text>',
    ]
    y = top + TITLE
    for members in package.layers:
        lines = _lines(members, width)
        height = len(lines) * LINE + 2 * INSET
        shapes.append(
            f'<rect class="layer" x="{left + PAD}" y="{y}" width="{width - 2 * PAD}" height="{height}" rx="4"/>'
        )
        for number, line in enumerate(lines):
            at = y + INSET + number * LINE + 13
            shapes.append(f'<text x="{left + width / 2:g}" y="{at}" text-anchor="middle">{escape(line)}</text>')
        y += height + GAP
    return shapes


def _lines(members: Sequence[str], width: int) -> list[str]:
    """The names of a layer, in as many lines as necessary."""
    room = int((width - 2 * PAD - 2 * INSET) / LETTER)
    lines = [""]
    for member in members:
        longer = f"{lines[-1]} · {member}" if lines[-1] else member
        if lines[-1] and len(longer) > room:
            lines.append(member)
        else:
            lines[-1] = longer
    return lines


def main(arguments: Sequence[str]) -> int:
    """Write or check the picture; returns the exit code."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    picture = draw(packages(settings["contracts"]))
    if "--check" in arguments:
        if not PICTURE.exists() or PICTURE.read_text() != picture:
            print(f"{PICTURE.relative_to(ROOT)} does not match the import contracts: run tools/draw_architecture.py")
            return 1
        return 0
    PICTURE.write_text(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
