"""Makes the labelled corpus for testing deduplication: 50,000 documents, 150 MB of JSON lines.

    python benchmarks/make_dedup.py FOLDER [--documents 50000] [--base real|recombined] [--words 160]
                                    [--copies N] [--bucket N] [--trap-bucket N]

The text is the documentation of `make_text.py`, from exactly the wheels that ``benchmarks/corpus.txt`` names. The
documents are labelled in a separate file, and nowhere in their own rows:

- 56 % `base`: real documents, of 200 to 12,000 characters; at most three in four of a document's sequences of three
words occur in all longer ones together, so none is a copy or a part of another;
- 10 % `exact`: copies of some of these, one to four of each;
- 10 % `near`: copies with 1, 2, 5, 10 or 20 % of their words replaced, deleted or followed by another (`rate`);
- 2 % `contained`: pages that hold a base document whole and are 1.25 to 16 times as long (`ratio`, the nearest);
- 2 % `form`: copies in other lines, other case, another Unicode form or other blanks (`form`);
- 20 % the template trap: different documents that share 60 to 90 % of their words with many others, around 20 to 80
words of their own (`own_words`, `template`): `trap_prose` (14 %; a quarter of it in one template), `trap_code` (a
licence,
  imports and a skeleton around functions) and `trap_dialogue` (a system prompt before the turns). Their own words are
  running text or functions of the corpus, no two alike. None of them is a duplicate.

Besides these, on demand: `--copies` exact copies of one document, `--bucket` documents that differ in one word (all in the same
buckets of any hash, and all but one near copies), and `--trap-bucket` documents of one template with 40 words of their own
(all in the same buckets, and none a copy). `--documents 0` makes these alone.

``--base recombined`` is for sizes that the packages do not reach: documents of about ``--words`` words made of runs of four to
nine words from anywhere in the corpus; they come in blocks of 50,000, and a copy's original can be in an earlier block.

FOLDER gets `jsonl/COLLECTION/part-00000.jsonl` … with the columns id, text, url (which copies share half of the time),
`labels.parquet` (id, kind, original, rate, ratio, form, own_words, template, collection, file, row) and `corpus.json` (documents, bytes
and checksum). Everything follows from the options alone.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import multiprocessing
import random
import re
import shutil
import sys
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from make_text import ROOT, base_documents, unpacked

FILE_BYTES = 10_000_000
LONGEST = 12_000
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
RATIOS = (1.25, 1.5, 2.0, 4.0, 8.0, 16.0)
SHARES = {"exact": 10, "near": 10, "contained": 2, "form": 2, "trap_prose": 14, "trap_code": 3, "trap_dialogue": 3}
# Words of boilerplate of the templates of prose. With 120 to 180 a paragraph of any size from 20 to 80 words is 10 to 40 %.
BOILERPLATE = (45, 60, 90, 120, 120, 150, 150, 180, 240, 320, 450, 600)
OWN_LEAST, OWN_MOST = 20, 80
WORD = re.compile(r"[^\W_]+")
SENTENCE = re.compile(r"[A-Z][^.!?\n]{30,400}[.!?](?=\s|$)")
LABELS = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("original", pa.string()),
        ("rate", pa.float64()),
        ("ratio", pa.float64()),
        ("form", pa.string()),
        ("own_words", pa.int32()),
        ("template", pa.string()),
        ("collection", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
    ]
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--base", choices=["real", "recombined"], default="real")
    parser.add_argument("--words", type=int, default=160, help="words of a recombined document, on average")
    parser.add_argument("--block", type=int, default=50_000, help="documents of a block of recombined ones")
    parser.add_argument("--copies", type=int, default=0, help="add so many exact copies of one document")
    parser.add_argument("--bucket", type=int, default=0, help="add so many documents that differ in one word")
    parser.add_argument("--trap-bucket", type=int, default=0, help="add so many documents of one template")
    parser.add_argument(
        "--packages", type=Path, default=ROOT / "benchmarks" / "corpus.txt", help="the wheels, with hashes"
    )
    parser.add_argument("--sources", type=Path, help="a folder of unpacked wheels, instead of downloading them")
    options = parser.parse_args()
    wheels = options.sources or unpacked(options.folder / "sources", options.packages.resolve())
    pieces = base_documents(wheels)
    material = Material(distinct(pieces), sentences(pieces), functions(wheels))
    blocks = [min(options.block, options.documents - start) for start in range(0, options.documents, options.block)]
    if options.base == "real":
        blocks = [options.documents] if options.documents else []
    out = Writer(options.folder)
    rng = random.Random(3)
    earlier: list[Row] = []
    for number, size in enumerate(blocks):
        rows = block(material, rng, size, earlier, None if options.base == "real" else options.words)
        for index, one in enumerate(rows, number * options.block):
            one["id"] = f"doc-{index:08d}"
        out.write(rows)
    for rows in extra(material, rng, options):
        out.write(rows)
    print(json.dumps(out.close()))
    if options.sources is None:
        shutil.rmtree(options.folder / "sources")


Row = dict[str, Any]


def marks_of(text: str) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """The text's distinct sequences of three words, as 26-bit hashes."""
    words = [xxhash.xxh3_64_intdigest(word.encode()) for word in WORD.findall(text.casefold())]
    codes = np.array(words, dtype=np.uint64)
    if len(codes) < 3:
        return np.zeros(0, dtype=np.uint32)
    mixed = codes[:-2] * np.uint64(0x9E3779B97F4A7C15) ^ codes[1:-1] * np.uint64(0xC2B2AE3D27D4EB4F) ^ codes[2:]
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    return np.unique((mixed >> np.uint64(36)).astype(np.uint32))


class Met:
    """Which sequences of three words have been met: one bit of a hash for each, so that it errs towards `met`."""

    def __init__(self) -> None:
        self.seen = np.zeros(1 << 28, dtype=np.bool_)

    def share(self, text: str) -> float:
        """The share of the text's sequences that were met; `add` adds those of an accepted text."""
        marks = marks_of(text)
        return float(self.seen[marks].mean()) if len(marks) else 1.0

    def add(self, text: str) -> None:
        self.seen[marks_of(text)] = True


def distinct(pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pieces that do not largely repeat longer ones word for word, in random order."""
    met, chosen = Met(), []
    short = [piece for piece in pieces if len(piece[1]) <= LONGEST]
    for source, text in sorted(short, key=lambda piece: (-len(piece[1]), piece)):
        marks = marks_of(text)
        if len(marks) and met.seen[marks].mean() <= 0.75:
            met.seen[marks] = True
            chosen.append((source, text))
    random.Random(5).shuffle(chosen)
    return chosen


def sentences(pieces: list[tuple[str, str]]) -> list[str]:
    """Sentences with content of their own: at most one in four of their sequences occurs in two others.

    Generated documentation is full of "the value to assign to the … property of this …", which is a template too.
    """
    every = list(dict.fromkeys(found for _, text in pieces for found in SENTENCE.findall(text)))
    with multiprocessing.Pool(2) as pool:
        marks = list(pool.imap(marks_of, every, 2000))
    count = np.zeros(1 << 28, dtype=np.uint16)
    for one in marks:
        count[one] += 1
    chosen = [text for text, one in zip(every, marks, strict=True) if len(one) > 5 and (count[one] > 2).mean() <= 0.25]
    random.Random(4).shuffle(chosen)
    return chosen


def functions(root: Path) -> list[str]:
    """Functions of 20 to 80 words from the packages' Python files, at most three in ten of whose sequences repeat others'."""
    files = [path.relative_to(root).as_posix() for path in root.rglob("*.py") if 500 < path.stat().st_size < 60_000]
    files.sort(key=lambda name: xxhash.xxh3_64_intdigest(name.encode()))
    met, chosen = Met(), []
    with multiprocessing.Pool(2) as pool:
        for found in pool.imap(functions_of, [str(root / name) for name in files[:6000]], 32):
            for code in found:
                if met.share(code) <= 0.3:
                    met.add(code)
                    chosen.append(code)
    return chosen


def functions_of(path: str) -> list[str]:
    text = Path(path).read_bytes().decode("utf-8", "replace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about their escapes
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return []
    lines = text.split("\n")
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            code = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
            if OWN_LEAST <= len(WORD.findall(code)) <= OWN_MOST:
                found.append(code)
    return found


class Material:
    """The material of documents: real documents, and running text, functions and words that no real document uses."""

    def __init__(self, pieces: list[tuple[str, str]], prose: list[str], code: list[str]) -> None:
        # The last tenth is for surroundings of copies and for templates.
        self.pieces = pieces[: len(pieces) * 9 // 10]
        rest = [text for _, text in pieces[len(self.pieces) :]]
        self.code = code
        self.code_lines = [line for text in code for line in text.split("\n") if line.strip()]
        self.words = [word for text in rest for word in text.split() if word.isalpha() and len(word) > 2]
        self.surroundings = [text for text in rest if len(text) > 2000]
        self.prose = [word for sentence in prose for word in sentence.split()]
        self.met = Met()
        self.at = {"piece": 0, "code": 0, "prose": 0}
        if min(len(self.pieces), len(code), len(self.words), len(self.surroundings), len(self.prose)) < 2:
            sys.exit("error: the packages have too little text and code to make documents of")

    def base(self, count: int) -> list[tuple[str, str]]:
        start = self.at["piece"]
        if start + count > len(self.pieces):
            sys.exit(
                f"error: the packages give {len(self.pieces)} real documents, {start + count} are asked for: "
                "name fewer --documents, or --base recombined"
            )
        self.at["piece"] += count
        return self.pieces[start : start + count]

    def recombination(self, rng: random.Random, count: int) -> str:
        """About this many words, in runs of four to nine from the corpus."""
        parts: list[str] = []
        while len(parts) < count:
            start = rng.randrange(len(self.words) - 9)
            parts += self.words[start : start + min(rng.randint(4, 9), count - len(parts))]
        return " ".join(parts)

    def paragraph(self, count: int) -> str:
        """The given number of words of running text; at most one in five of its sequences occurs in any other paragraph."""
        while self.at["prose"] + count < len(self.prose):
            start = end = self.at["prose"]
            found = 0
            while found < count and end < len(self.prose):
                found += len(WORD.findall(self.prose[end]))
                end += 1
            self.at["prose"] = end
            text = " ".join(self.prose[start:end])
            if self.met.share(text) <= 0.2:
                self.met.add(text)
                return text
        sys.exit("error: the packages have too little running text for so many: name fewer, or --base recombined")

    def function(self) -> str:
        if self.at["code"] == len(self.code):
            sys.exit(f"error: the packages give {len(self.code)} functions, and more are needed: name fewer documents")
        self.at["code"] += 1
        return self.code[self.at["code"] - 1]

    def lines_of_code(self, rng: random.Random, count: int) -> str:
        """About this many words of code, in lines from anywhere."""
        lines: list[str] = []
        found = 0
        while found < count:
            lines.append(rng.choice(self.code_lines))
            found += len(WORD.findall(lines[-1]))
        return "\n".join(lines)


def block(material: Material, rng: random.Random, size: int, earlier: list[Row], words: int | None) -> list[Row]:
    """The documents of a block, shuffled; ``words`` is the size of recombined ones, None for real ones."""
    count = {kind: size * share // 100 for kind, share in SHARES.items()}
    count["base"] = size - sum(count.values())
    if words is None:
        texts = material.base(count["base"])
    else:
        # Lengths like those of pages: half of them between two thirds and one and a half times the median.
        sizes = (max(12, round(words * math.exp(rng.gauss(-0.18, 0.6)))) for _ in range(count["base"]))
        texts = [("recombined", material.recombination(rng, one)) for one in sizes]
    rows = [row("base", text, rng, source=source) for source, text in texts]
    copies = copied(material, rng, count, rows, earlier, words)
    rows += copies + trapped(material, rng, count, recombined=words is not None)
    rng.shuffle(rows)
    return rows


def row(kind: str, text: str, rng: random.Random, *, of: Row | None = None, source: str = "", **labels: Any) -> Row:
    """A document with its labels; a copy has its original's address half of the time."""
    if of is not None and rng.random() < 0.5:
        url = of["url"]
    else:
        name = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=10))
        url = f"https://{(source or 'pages').split('-')[0]}.example/{name}/{rng.randrange(10**6)}"
    collection = {"trap_code": "code", "trap_dialogue": "dialogues"}.get(kind)
    collection = collection or rng.choices(["web", "docs", "forum"], [7, 2, 1])[0]
    return {"kind": kind, "text": text, "url": url, "of": of, "collection": collection, **labels}


def copied(
    material: Material,
    rng: random.Random,
    count: dict[str, int],
    rows: list[Row],
    earlier: list[Row],
    words: int | None,
) -> list[Row]:
    """Copies of all kinds. An original has copies of one kind only, so that the findings of each kind can be
    counted.
    """
    originals = [one for one in rows if len(one["text"].split()) >= 60]
    if len(originals) < len(rows) // 2:  # short documents
        originals = list(rows)
    rng.shuffle(originals)
    later = [originals.pop() for _ in range(min(500, len(originals) // 4))]
    accented = [one for one in originals if unicodedata.normalize("NFD", one["text"]) != one["text"]]
    taken: set[int] = set()

    def take(ones: list[Row]) -> Row:
        while ones:
            one = ones.pop()
            if id(one) not in taken:
                taken.add(id(one))
                return one
        sys.exit("error: too few documents for so many copies: name more --documents")

    copies = []
    for _ in range(count["form"]):
        form = rng.choice([*FORMS, "nfd"] if accented else list(FORMS))
        original = take(accented if form == "nfd" else originals)
        text = unicodedata.normalize("NFD", original["text"]) if form == "nfd" else FORMS[form](original["text"])
        copies.append(row("form", text, rng, of=original, form=form))
    left = count["exact"]
    while left:
        original = take(earlier if earlier and rng.random() < 0.1 else originals)
        times = min(left, rng.choices([1, 2, 3, 4], [6, 2, 1, 1])[0])
        copies += [row("exact", original["text"], rng, of=original) for _ in range(times)]
        left -= times
    for _ in range(count["near"]):
        original = take(earlier if earlier and rng.random() < 0.1 else originals)
        rate = rng.choice(RATES)
        copies.append(row("near", edited(original["text"], rate, rng, material.words), rng, of=original, rate=rate))
    for _ in range(count["contained"]):
        original, ratio = take(originals), rng.choice(RATIOS)
        text = original["text"]
        around = round(min(len(text) * (ratio - 1), 20_000))
        if words is not None:
            added = material.recombination(rng, max(2, around // 6))
        else:
            added = rng.choice(material.surroundings)
            while len(added) < around:
                added += "\n\n" + rng.choice(material.surroundings)
        middle = rng.randint(0, around)
        page = f"{added[:middle]}\n\n{text}\n\n{added[middle:around]}".strip()
        # Around a long one there is less, since pages have an end.
        ratio = min(RATIOS, key=lambda one: abs(math.log(one * len(text) / len(page))))
        copies.append(row("contained", page, rng, of=original, ratio=ratio))
    earlier += later
    return copies


def edited(text: str, rate: float, rng: random.Random, words: list[str]) -> str:
    """A copy with this share of its words, at least one, replaced, deleted or followed by another, a third each."""
    parts = re.split(r"(\s+)", text)
    places = [index for index in range(0, len(parts), 2) if parts[index]]
    for index in rng.sample(places, max(1, round(len(places) * rate))):
        match rng.randrange(3):
            case 0:
                parts[index] = rng.choice(words)
            case 1:
                parts[index] = ""
            case _:
                parts[index] += " " + rng.choice(words)
    return "".join(parts)


FORMS: dict[str, Callable[[str], str]] = {
    "lines": lambda text: textwrap.fill(" ".join(text.split()), 50, break_long_words=False, break_on_hyphens=False),
    "upper": lambda text: text.upper(),
    "lower": lambda text: text.lower(),
    "blanks": lambda text: "\u00a0".join(text.split(" ")).replace("\n", "\r\n"),
    "punctuation": lambda text: text.translate(str.maketrans("\"'-", "\u201d\u2019\u2013")),
}


def trapped(material: Material, rng: random.Random, count: dict[str, int], *, recombined: bool) -> list[Row]:
    """The template trap."""
    rows = []
    prose = templates(material, rng, count["trap_prose"])
    # One template in four documents, the others about equally often.
    weights = [len(prose) / 3] + [1] * (len(prose) - 1)
    for _ in range(count["trap_prose"]):
        template = rng.choices(prose, weights)[0]
        own = rng.randint(*template.own)
        text = material.recombination(rng, own) if recombined else material.paragraph(own)
        rows.append(template.document(text, rng))
    skeletons = [skeleton(rng, number) for number in range(12)] if count["trap_code"] else []
    for _ in range(count["trap_code"]):
        text = material.lines_of_code(rng, rng.randint(20, 70)) if recombined else material.function()
        rows.append(rng.choice(skeletons).document(text, rng))
    prompts = [system_prompt(rng, number) for number in range(12)] if count["trap_dialogue"] else []
    for _ in range(count["trap_dialogue"]):
        own = rng.randint(OWN_LEAST, OWN_MOST)
        text = material.recombination(rng, own) if recombined else material.paragraph(own)
        rows.append(rng.choice(prompts).document(turns(text, rng), rng))
    return rows


class Template:
    """The text that many documents share, before and after their own."""

    def __init__(self, kind: str, name: str, before: str, after: str, gap: str = "\n\n") -> None:
        self.kind, self.name, self.before, self.after, self.gap = kind, name, before, after, gap
        self.size = len(WORD.findall(before + " " + after))
        # The boilerplate is 60 to 90 % of the words.
        self.own = (max(OWN_LEAST, math.ceil(self.size / 9)), min(OWN_MOST, self.size * 2 // 3))

    def document(self, own: str, rng: random.Random) -> Row:
        text = self.gap.join(part for part in (self.before, own, self.after) if part)
        return row(self.kind, text, rng, own_words=len(WORD.findall(own)), template=self.name)


def templates(material: Material, rng: random.Random, count: int) -> list[Template]:
    """About forty, or fewer for few documents; the first one, which most documents have, is of medium size."""
    if not count:
        return []
    found = []
    for number in range(min(40, max(4, count // 20))):
        size = 150 if number == 0 else BOILERPLATE[number % len(BOILERPLATE)]
        words = " ".join(SENTENCE.findall(" ".join(rng.choice(material.surroundings) for _ in range(8)))).split()
        while len(words) < size:
            words += " ".join(SENTENCE.findall(rng.choice(material.surroundings))).split()
        menu = " ".join(rng.sample(MENU, 4))
        boilerplate = f"{menu}\n{' '.join(words)}".split(" ")
        while len(WORD.findall(" ".join(boilerplate))) > size:
            boilerplate.pop()
        middle = rng.choice([0.3, 0.5, 0.8])
        at = max(1, round(len(boilerplate) * middle))
        found.append(Template("trap_prose", f"prose-{number}", " ".join(boilerplate[:at]), " ".join(boilerplate[at:])))
    return found


MENU = (
    "Home About Contact",
    "All rights reserved",
    "Sign in to continue",
    "Subscribe to our newsletter",
    "Terms of use",
    "Privacy policy",
    "Share this page",
    "Was this helpful",
)
LICENCE = """# Copyright (c) {year} {owner}. All rights reserved.
# Use of this file is subject to the terms that come with {name}, in the file LICENCE at the top of the project.
# It is distributed in the hope that it is of use to somebody, without a promise of any kind, neither that it does what
# its documentation says nor that it is fit for any purpose. Whoever passes it on, changed or not, has to keep this notice,
# and has to say in it what was changed, and when, and by whom.
"""
IMPORTS = (
    "argparse",
    "collections",
    "dataclasses",
    "functools",
    "itertools",
    "json",
    "logging",
    "os",
    "pathlib",
    "re",
    "sys",
    "time",
)
MAIN = """def main(arguments=None):
    parser = argparse.ArgumentParser(description="{name}")
    parser.add_argument("--verbose", action="store_true", help="say more about what is done")
    parser.add_argument("--config", default="{name}.toml", help="the file of settings")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.INFO)
    return run(load(options.config))


if __name__ == "__main__":
    sys.exit(main())
"""


def skeleton(rng: random.Random, number: int) -> Template:
    """A licence and imports before the function, a main program after it."""
    name = f"{rng.choice(MENU).split()[-1].lower()}{number}"
    owner = f"The {name.title()} Project"
    head = LICENCE.format(year=2010 + number, owner=owner, name=name)
    head += "\n" + "\n".join(
        f"import {module}" for module in sorted({"argparse", "logging", "sys", *rng.sample(IMPORTS, 5)})
    )
    return Template("trap_code", f"code-{number}", head, MAIN.format(name=name), gap="\n\n\n")


RULES = (
    "You are {name}, an assistant that answers questions about software for people who are new to it.",
    "Answer in the language of the question, in short sentences, and without assuming that the reader has used a shell.",
    "If you do not have what is needed to answer, say so and ask for it; never make up an option, a file or an address.",
    "Do not repeat what the user has said, and do not praise the question.",
    "When you show a command, say first what it changes and how that can be undone.",
    "Never ask for passwords, keys or tokens, and warn the user who pastes one.",
    "Prices, contracts and legal questions are for the staff: give the address of the help desk and stop there.",
    "Quote documentation with its title, so that the user can find the page again.",
    "If two answers are possible, give the one that is easier to take back, and mention the other in one sentence.",
    "Keep every answer below two hundred words unless the user asks for more.",
    "Code goes into blocks of its own, with the name of the language at the top.",
    "Numbers have units, dates have years, and times have zones.",
)


def system_prompt(rng: random.Random, number: int) -> Template:
    rules = [RULES[0], *rng.sample(RULES[1:], 7)]
    text = "System: " + " ".join(rules).format(name=f"Helper {number}")
    return Template("trap_dialogue", f"dialogue-{number}", text, "")


def turns(text: str, rng: random.Random) -> str:
    """A question and an answer, or two of them."""
    words, parts = text.split(), rng.choice([2, 4])
    size = -(-len(words) // parts)
    speakers = ("User", "Assistant")
    return "\n".join(
        f"{speakers[turn % 2]}: {' '.join(words[turn * size : (turn + 1) * size])}" for turn in range(parts)
    )


def extra(material: Material, rng: random.Random, options: argparse.Namespace) -> Iterator[list[Row]]:
    """Copies of one document, documents that differ in one word, and documents of one template, in blocks."""
    for kind, count in (("copy", options.copies), ("bucket", options.bucket), ("trap_bucket", options.trap_bucket)):
        words = material.recombination(rng, 300 if kind == "copy" else 60).split()
        template = Template("trap_bucket", "bucket", " ".join(words), "")
        first: Row | None = None
        for start in range(0, count, options.block):
            rows = []
            for number in range(start, min(count, start + options.block)):
                if kind == "trap_bucket":
                    one = template.document(material.recombination(rng, 40), rng)
                else:
                    text = words if kind == "copy" else [*words[:40], f"w{number:07d}", *words[41:]]
                    one = row(kind, " ".join(text), rng, of=first)
                    first = first or one
                one |= {"id": f"{kind}-{number:08d}", "collection": "web"}
                rows.append(one)
            yield rows


class Writer:
    """Writes documents into a folder for each collection, in files of about 10 MB, and their labels."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder / "jsonl", ignore_errors=True)
        (folder / "jsonl").mkdir(parents=True)
        self.labels = pq.ParquetWriter(folder / "labels.parquet", LABELS)
        self.files: dict[str, int] = {}
        self.documents = self.bytes = 0
        self.sha256 = hashlib.sha256()
        self.kinds: dict[str, int] = {}

    def write(self, rows: list[Row]) -> None:
        for collection in sorted({one["collection"] for one in rows}):
            (self.folder / "jsonl" / collection).mkdir(exist_ok=True)
            part: list[Row] = []
            size = 0
            for one in rows:
                if one["collection"] == collection:
                    part.append(one)
                    size += len(one["text"])
                    if size > FILE_BYTES:
                        self._write_file(collection, part)
                        part, size = [], 0
            if part:
                self._write_file(collection, part)

    def _write_file(self, collection: str, rows: list[Row]) -> None:
        number = self.files[collection] = self.files.get(collection, -1) + 1
        name = f"{collection}/part-{number:05d}.jsonl"
        with (self.folder / "jsonl" / name).open("wb") as file:
            for one in rows:
                line = orjson.dumps({"id": one["id"], "text": one["text"], "url": one["url"]}) + b"\n"
                file.write(line)
                self.sha256.update(line)
                self.bytes += len(line)
        self.documents += len(rows)
        for index, one in enumerate(rows):
            one |= {"file": name, "row": index, "original": one["of"]["id"] if one["of"] else None}
            self.kinds[one["kind"]] = self.kinds.get(one["kind"], 0) + 1
        columns = {label: [one.get(label) for one in rows] for label in LABELS.names}
        self.labels.write_table(pa.table(columns, schema=LABELS))

    def close(self) -> dict[str, Any]:
        self.labels.close()
        facts = {
            "documents": self.documents,
            "bytes": self.bytes,
            "sha256": self.sha256.hexdigest(),
            "kinds": self.kinds,
        }
        (self.folder / "corpus.json").write_text(json.dumps(facts) + "\n")
        return facts


if __name__ == "__main__":
    main()
