"""Checks that every example of the documentation runs as shown, with the packages in the form that users get.

It builds the wheels, installs them into a bare environment, and makes a folder with the mentioned data for each page.
There, `read_page.py`, which also explains the fences, runs the blocks of the page.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from check_wheels import build
from PIL import Image
from workspace import ROOT, UV, packages

# Pages that install an engine come last, so that the others are checked without one.
LAST = ("packages/curator-backends/README.md", "docs/executors.md")
ALSO = ["duckdb"]  # docs/ledger.md uses it


def pages(root: Path = ROOT) -> list[str]:
    """Every page with examples for users; those with the most requirements come last."""
    found = [
        *root.glob("*.md"),
        *root.glob("packages/*/README.md"),
        *root.glob("docs/*.md"),
        *root.glob("examples/*.md"),
    ]
    names = sorted(path.relative_to(root).as_posix() for path in found)
    return sorted(names, key=lambda name: (LAST.index(name) + 1 if name in LAST else 0, name))


def main() -> int:
    """Check the pages; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", help="only these (default: all)")
    chosen = parser.parse_args().pages or pages()
    with tempfile.TemporaryDirectory(prefix="curator-docs-") as scratch:
        environment = _installed(Path(scratch))
        # Check one page after the other: with two at a time, runs take so long that they print progress lines, which no
        # page shows.
        wrong = [page for page in chosen if not _works(page, environment, Path(scratch))]
    if wrong:
        print(f"error: not as shown: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def _works(page: str, environment: Path, scratch: Path) -> bool:
    started = time.monotonic()
    folder = scratch / "pages" / page.replace("/", "-")
    folder.mkdir(parents=True)
    give_data(folder, images="image" in page)
    done = subprocess.run(
        [environment / "bin" / "python", ROOT / "tools" / "read_page.py", page, ROOT / page],
        cwd=folder,
        env={**_plain_environment(), "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stderr or done.stdout, file=sys.stderr)
        return False
    print(f"{page}: as shown ({time.monotonic() - started:.1f} s)", flush=True)
    return True


def give_data(folder: Path, *, images: bool) -> None:
    """Make the data that a page expects: text in JSON lines or tars of pictures, and a picture."""
    text = (ROOT / "examples" / "web-english" / "sample" / "documents.jsonl").read_bytes()
    for name in ("in", "crawl", "web", "books", "more/deep", "."):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("web/a.jsonl", "books/a.jsonl", "more/deep/b.jsonl", "a.jsonl", *([] if images else ["in/a.jsonl"])):
        (folder / name).write_bytes(text)
    (folder / "crawl" / "a.jsonl.gz").write_bytes(gzip.compress(text, mtime=0))
    (folder / "shards").mkdir()
    for shard in ("shards/00000.tar", "shards/00001.tar", *(["in/00000.tar"] if images else [])):
        with tarfile.open(folder / shard, "w") as tar:
            for number in range(6):
                facts = {"url": f"https://example.org/{number}", "similarity": number / 10}
                for ending, data in {
                    "jpg": _picture(number),
                    "txt": f"a picture with the number {number}".encode(),
                    "json": json.dumps(facts).encode(),
                }.items():
                    member = tarfile.TarInfo(f"{number:03d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    (folder / "cat.jpg").write_bytes(_picture(0))


def _picture(seed: int) -> bytes:
    """A JPEG of 320 x 240 that is not plain."""
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((320, 240), Image.Resampling.NEAREST).save(out, "JPEG")
    return out.getvalue()


def _installed(scratch: Path) -> Path:
    """Make a bare environment with all packages as wheels, and with a pip that finds them without an index."""
    wheels = build(packages(), scratch / "dist")
    environment = scratch / "environment"
    python = environment / "bin" / "python"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    install = [UV, "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*install, *wheels.values(), *ALSO], cwd=ROOT, check=True)
    # For `pip install "curator-backends[ray]"` on a page, install the wheel that was built here.
    pip = environment / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\n[ "$1" = install ] || exit 2\nshift\ncd "{ROOT}" && exec {" ".join(install)} "$@"\n')
    pip.chmod(pip.stat().st_mode | stat.S_IXUSR)
    return environment


def _plain_environment() -> dict[str, str]:
    kept = dict(os.environ)
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT", "RAY_ADDRESS"):
        kept.pop(name, None)
    return kept


if __name__ == "__main__":
    sys.exit(main())
