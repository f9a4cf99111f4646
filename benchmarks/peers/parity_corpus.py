"""Makes the corpus for comparing our filters with those of NeMo Curator and datatrove.

    sh benchmarks/peers/datatrove.sh
    benchmarks/peers/envs/datatrove/bin/python benchmarks/peers/parity_corpus.py packages/curator-text/tests/filters/data

The corpus is committed, so the tests do not depend on the machine; this script documents its origin. It uses text that
may be redistributed: Python's own sources, headers and documentation (PSF licence), names of places, languages and
units from CLDR as packaged by Babel (Unicode licence), example sentences of spaCy's languages (MIT), and generated
junk. With the same versions of these sources, it writes the same documents.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import random
import sys
import sysconfig
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SEED = 20261121


def main() -> None:
    rng = random.Random(SEED)
    parts = {
        "prose": prose(rng, 1500),
        "code": code(rng, 1100),
        "c": headers(rng, 300),
        "html": [],
        "table": tables(rng, 400),
        "script": scripts(rng, 1400),
        "junk": [],
    }
    lines = [line for text in parts["prose"] for line in text.split("\n") if line.strip()]
    parts["html"] = html(rng, parts["prose"], 200)
    parts["junk"] = junk(rng, lines, 1100)
    rows = [{"kind": kind, "text": text} for kind, texts in parts.items() for text in texts]
    rng.shuffle(rows)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    table = pa.table({"kind": [r["kind"] for r in rows], "text": [r["text"] for r in rows]})
    pq.write_table(table, out / "corpus.parquet", compression="zstd", compression_level=19)
    print(len(rows), {k: len(v) for k, v in parts.items()}, sum(len(r["text"].encode()) for r in rows))


def library() -> list[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    found = [p for p in root.rglob("*.py") if "site-packages" not in p.parts and "__pycache__" not in p.parts]
    return sorted(p for p in found if p.stat().st_size < 400_000)


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def chunks(rng: random.Random, texts: list[str], count: int, low: int = 80, high: int = 5000) -> list[str]:
    """Pieces of complete lines, with lengths that are spread evenly over the orders of magnitude."""
    pieces = []
    for text in texts:
        current: list[str] = []
        target = low * (high / low) ** rng.random()
        for line in text.split("\n"):
            current.append(line)
            if sum(map(len, current)) > target:
                pieces.append("\n".join(current))
                current, target = [], low * (high / low) ** rng.random()
        if sum(map(len, current)) > low:
            pieces.append("\n".join(current))
    return rng.sample(pieces, min(count, len(pieces)))


def prose(rng: random.Random, count: int) -> list[str]:
    topics = importlib.import_module("pydoc_data.topics").topics
    texts = [topics[key] for key in sorted(topics)]
    for path in library():
        if "test" in path.parts or "idlelib" in path.parts:
            continue
        try:
            tree = ast.parse(read(path))
        except (SyntaxError, ValueError):
            continue
        found = [
            ast.get_docstring(node)
            for node in ast.walk(tree)
            if hasattr(node, "body") and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        ]
        texts += [text for text in found if text and len(text) > 200]
    return chunks(rng, texts, count)


def code(rng: random.Random, count: int) -> list[str]:
    return (
        chunks(rng, [read(p) for p in rng.sample(library(), 500)], count - 100)
        + [text for p in library() if 200 < len(text := read(p)) < 6000][:100]
    )


def headers(rng: random.Random, count: int) -> list[str]:
    return chunks(rng, [read(p) for p in sorted(Path(sysconfig.get_path("include")).rglob("*.h"))], count)


def html(rng: random.Random, texts: list[str], count: int) -> list[str]:
    pages = []
    for text in rng.sample(texts, count):
        body = "".join(f"<p class='c{rng.randrange(9)}'>{part}</p>\n" for part in text.split("\n\n"))
        menu = "".join(
            f"<li><a href='/{rng.randrange(99)}.html'>Item {rng.randrange(99)}</a></li>"
            for _ in range(rng.randrange(40))
        )
        head = "<?xml version='1.0'?>\n" if rng.random() < 0.1 else ""
        script = f"<script>var x={rng.random()};</script><style>p{{margin:{rng.randrange(9)}px}}</style>"
        pages.append(
            f"{head}<!DOCTYPE html><html><head><title>t</title>{script}</head><body><ul>{menu}</ul>{body}</body></html>"
        )
    return pages


def tables(rng: random.Random, count: int) -> list[str]:
    out = []
    for index in range(count):
        rows = rng.randrange(3, 60)
        if index % 4 == 0:
            out.append(
                "\n".join(
                    ",".join(str(rng.randrange(10 ** rng.randrange(1, 8))) for _ in range(8)) for _ in range(rows)
                )
            )
        elif index % 4 == 1:
            out.append(
                "\n".join(f"| item {i} | {rng.random():.3f} | {rng.choice(['yes', 'no', '…'])} |" for i in range(rows))
            )
        elif index % 4 == 2:
            out.append(
                "\n".join(
                    f"{i}\t{rng.choice('abcdef') * rng.randrange(1, 9)}\t({rng.randrange(999)})" for i in range(rows)
                )
            )
        else:
            out.append("\n\n".join(f"{{'id': {i}, 'value': [{rng.random()}, {rng.random()}]}}" for i in range(rows)))
    return out


def scripts(rng: random.Random, count: int) -> list[str]:
    from babel import Locale, localedata

    spacy_lang = importlib.import_module("spacy.lang")
    sentences: dict[str, list[str]] = {}
    for found in pkgutil.iter_modules(spacy_lang.__path__):
        try:
            sentences[found.name] = list(importlib.import_module(f"spacy.lang.{found.name}.examples").sentences)
        except ImportError:
            continue
    names: dict[str, list[str]] = {}
    for tag in sorted(localedata.locale_identifiers()):
        locale = Locale.parse(tag)
        if "_" not in tag and len(locale.territories) > 100:
            names[tag] = sorted(map(str, locale.territories.values())) + sorted(map(str, locale.languages.values()))
    out = []
    codes, tags = sorted(sentences), sorted(names)
    gaps = [" ", " ", "\n", "\n\n", "\u3000", "\u00a0", "\u2003"]
    for index in range(count):
        if index % 2:
            code = rng.choice(codes)
            parts = [rng.choice(sentences[code]) for _ in range(rng.randrange(2, 25))]
        else:
            tag = rng.choice(tags)
            parts = [
                rng.choice(names[tag]) + rng.choice(["", ",", ".", "。", "؟", "!"])
                for _ in range(rng.randrange(10, 120))
            ]
        out.append("".join(part + rng.choice(gaps) for part in parts))
    return out


POLICIES = [
    "Terms of Use",
    "PRIVACY POLICY",
    "This site uses cookies",
    "privacy overview",
    "We make use of cookies.",
    "cooKies",
    "Privacy & Cookies Policy",
    "lorem ipsum dolor sit amet",
    "cookie policy",
    "Share this page",
]


def junk(rng: random.Random, lines: list[str], count: int) -> list[str]:
    words = sorted({word for line in lines for word in line.split()})
    out = []
    for index in range(count):
        kind, size = index % 14, rng.randrange(3, 60)
        some = [rng.choice(lines) for _ in range(rng.randrange(1, 6))]
        if kind == 0:
            out.append("".join(rng.choice("#$%^&*()[]{}<>~|\\/+=_-:;.,!?@ \n0123456789") for _ in range(size * 20)))
        elif kind == 1:
            out.append("\n".join(rng.choice(some) for _ in range(size)))
        elif kind == 2:
            out.append("\n\n".join(rng.choice(some) for _ in range(size)))
        elif kind == 3:
            out.append(
                "\n".join(rng.choice(["• ", "- ", "  ◦ ", "* ", "● "]) + rng.choice(lines)[:40] for _ in range(size))
            )
        elif kind == 4:
            out.append(
                "\n".join(
                    rng.choice(lines).rstrip(". ") + rng.choice(["...", "…", "[...]", " Read more", ".", "-»", "…  "])
                    for _ in range(size)
                )
            )
        elif kind == 5:
            pieces = [rng.choice(POLICIES) if rng.random() < 0.3 else rng.choice(lines) for _ in range(size)]
            out.append("\n\n".join(piece for piece in pieces if rng.random() < 0.97 or "lorem" not in piece))
        elif kind == 6:
            out.append(" ".join([" ".join(rng.sample(words, rng.randrange(2, 6)))] * size))
        elif kind == 7:
            out.append(
                " ".join(
                    rng.choice(words)
                    if rng.random() < 0.6
                    else f"http{rng.choice(['', 's'])}://{rng.choice(['example.org', 'porn.example', 'a.b/c?d=%20e&f=(g)'])}/{rng.randrange(999)}"
                    for _ in range(size)
                )
            )
        elif kind == 8:
            out.append(
                " ".join(
                    rng.choice(["#", "##", "#tag", "a#", "...", "…", "#a#", "[…]"])
                    if rng.random() < 0.3
                    else rng.choice(words)
                    for _ in range(size)
                )
            )
        elif kind == 9:
            out.append(rng.choice("abcé漢") * rng.randrange(1, 3000) + " " + rng.choice(lines))
        elif kind == 10:
            out.append(
                "".join(
                    rng.choice(lines) + rng.choice(["\r\n", "\n", "\x0b", "\x0c", "\u2028", "\x85", "\x1c", "\n\n\n"])
                    for _ in range(size)
                )
            )
        elif kind == 11:
            out.append(
                "".join(
                    rng.choice("😀🎉👩\u200d💻é中文اب\x00\u0301ǅ") + rng.choice(["", " ", "\n"])
                    for _ in range(size * 5)
                )
            )
        elif kind == 12:
            out.append(" ".join(rng.choice(words) for _ in range(rng.randrange(1, 60))))
        else:
            out.append(
                "\n" * rng.randrange(5)
                + ("\n" * rng.randrange(1, 5)).join(rng.choice(some) for _ in range(size))
                + "\n" * rng.randrange(5)
            )
    return out


if __name__ == "__main__":
    main()
