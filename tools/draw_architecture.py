"""Draw packages and layers as docs/architecture.svg, from the import contracts that CI holds.

    tools/draw_architecture.py            write the picture
    tools/draw_architecture.py --check    exit 1 where it is not what the contracts say

The picture has no other source than ``[tool.importlinter]`` in pyproject.toml, so it cannot show a layer that is not
enforced. Each package is a column; within it a layer may import what is below it and nothing above.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"
PACKAGES = ("curator_core", "curator_backends", "curator_text", "curator_image")

WIDTH, ROW, GAP, PAD, TITLE = 250, 30, 6, 14, 34
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
    """A package with its layers from the top; modules that share a layer do not import one another, or may where said."""

    name: str
    layers: tuple[tuple[str, ...], ...]

    @property
    def height(self) -> int:
        return TITLE + len(self.layers) * (ROW + GAP) + PAD


def packages(contracts: Sequence[Mapping[str, Any]]) -> list[Package]:
    """The packages in reading order, with the layers that the contracts of type ``layers`` give them."""
    found: dict[str, tuple[tuple[str, ...], ...]] = {}
    for contract in contracts:
        if contract["type"] != "layers":
            continue
        containers = contract.get("containers") or [""]
        for container in containers:
            for name in PACKAGES:
                layers = [_members(layer, container, name) for layer in contract["layers"]]
                if all(layers):
                    found[name] = tuple(layers)
    return [Package(name, found.get(name, ())) for name in PACKAGES]


def _members(layer: str, container: str, package: str) -> tuple[str, ...]:
    """The modules of one layer below ``package``; nothing where the layer belongs to another package."""
    words = layer.replace("|", " ").replace(":", " ").replace("(", " ").replace(")", " ").split()
    full = [f"{container}.{word}" if container else word for word in words]
    return tuple(word.removeprefix(f"{package}.") for word in full if word.startswith(f"{package}."))


def draw(found: Sequence[Package]) -> str:
    """The picture: core below, what builds on it above."""
    core, others = found[0], list(found[1:])
    wide = len(others) * WIDTH + (len(others) - 1) * PAD * 2
    top = max(package.height for package in others)
    below = top + 60
    shapes: list[str] = []
    for number, package in enumerate(others):
        left = number * (WIDTH + PAD * 2)
        shapes += _package(package, left, top - package.height, WIDTH)
        middle = left + WIDTH // 2
        shapes.append(f'<path class="arrow" marker-end="url(#tip)" d="M {middle} {top} V {below - 3}"/>')
    shapes += _package(core, 0, below, wide)
    height = below + core.height
    note = "An arrow reads “imports”. Inside a package each layer imports what is below it, never what is above."
    shapes.append(f'<text class="note" x="0" y="{height + 24}">{note}</text>')
    tip = '<marker id="tip" markerWidth="8" markerHeight="8" refX="6" refY="4" orient="auto"><path class="arrow" d="M 0 0 L 7 4 L 0 8"/></marker>'
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
        f'<rect class="package" x="{left}" y="{top}" width="{width}" height="{package.height}" rx="6"/>',
        f'<text class="title" x="{left + PAD}" y="{top + 23}">{escape(package.name)}</text>',
    ]
    for number, members in enumerate(package.layers):
        y = top + TITLE + number * (ROW + GAP)
        inner = width - 2 * PAD
        each = (inner - GAP * (len(members) - 1)) / len(members)
        for place, member in enumerate(members):
            x = left + PAD + place * (each + GAP)
            shapes.append(f'<rect class="layer" x="{x:.1f}" y="{y}" width="{each:.1f}" height="{ROW}" rx="4"/>')
            shown = member if len(member) * 8 < each - 8 else f"{member[: int(each // 8) - 2]}…"
            shapes.append(
                f'<text x="{x + each / 2:.1f}" y="{y + 20}" text-anchor="middle">{escape(shown)}'
                f"<title>{escape(package.name)}.{escape(member)}</title></text>"
            )
    return shapes


def main(arguments: Sequence[str]) -> int:
    """Write or check the picture; the exit code."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    picture = draw(packages(settings["contracts"]))
    if "--check" in arguments:
        if not PICTURE.exists() or PICTURE.read_text() != picture:
            print(f"{PICTURE.relative_to(ROOT)} is not what the import contracts say: run tools/draw_architecture.py")
            return 1
        return 0
    PICTURE.write_text(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
