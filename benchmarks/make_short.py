"""Makes very many short documents for deduplication: ten million of about 190 bytes in a minute or two of CPU time.

    python benchmarks/make_short.py FOLDER [--documents 10000000] [--words 24]

Documents are random words of a vocabulary of 30,000, the common ones more often, half to one and a half times
``--words``. Of every ten, one is an exact copy of another, and one is a copy with a single word replaced; the originals
are anywhere in the same block of 100,000. FOLDER gets `jsonl/part-00000.jsonl` …, one for each block, with the columns
id and text, and
`corpus.json` as `make_dedup.py` writes it. Everything follows from the options alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

BLOCK = 100_000
VOCABULARY = 30_000
LETTERS = "etaoinshrdlucmfwypvbgkqjxz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=10_000_000)
    parser.add_argument("--words", type=int, default=24, help="words of a document, on average")
    options = parser.parse_args()
    out = options.folder / "jsonl"
    out.mkdir(parents=True)
    words = vocabulary()
    sha256, size = hashlib.sha256(), 0
    kinds = {"base": 0, "exact": 0, "near": 0}
    for number, start in enumerate(range(0, options.documents, BLOCK)):
        count = min(BLOCK, options.documents - start)
        rng = np.random.default_rng([5, number])
        lengths = rng.integers(options.words // 2, options.words * 3 // 2 + 1, count)
        chosen = (rng.random(int(lengths.sum())) ** 2 * VOCABULARY).astype(np.int64)
        texts = np.split(chosen, np.cumsum(lengths)[:-1])
        kind = rng.integers(0, 10, count)
        originals = rng.choice(np.flatnonzero(kind > 1), count)
        for at in np.flatnonzero(kind < 2).tolist():
            texts[at] = texts[originals[at]].copy()
        for at in np.flatnonzero(kind == 1).tolist():
            texts[at][rng.integers(0, len(texts[at]))] = rng.integers(0, VOCABULARY)
        for name, many in zip(("exact", "near", "base"), np.bincount(np.minimum(kind, 2), minlength=3), strict=True):
            kinds[name] += int(many)
        lines = (
            f'{{"id": "d{start + at:08d}", "text": "{" ".join([words[word] for word in text.tolist()])}"}}\n'
            for at, text in enumerate(texts)
        )
        content = "".join(lines).encode()
        (out / f"part-{number:05d}.jsonl").write_bytes(content)
        sha256.update(content)
        size += len(content)
    facts = {"documents": options.documents, "bytes": size, "sha256": sha256.hexdigest(), "kinds": kinds}
    (options.folder / "corpus.json").write_text(json.dumps(facts) + "\n")
    print(json.dumps(facts))


def vocabulary() -> list[str]:
    """Words of three to eleven letters, no two alike."""
    rng = np.random.default_rng(4)
    found: dict[str, None] = {}
    while len(found) < VOCABULARY:
        letters = (rng.random(int(rng.integers(3, 12))) ** 1.5 * len(LETTERS)).astype(int)
        found["".join(LETTERS[at] for at in letters.tolist())] = None
    return list(found)


if __name__ == "__main__":
    main()
