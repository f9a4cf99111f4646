"""Makes a small crawl with duplicates in a folder: two collections, with a ``kind`` for each document.

    python make_data.py FOLDER

The same files every time. Of 600 pages, 60 are copies, 60 are copies with some words changed, and 60 share a template around
a paragraph of their own; the rest are unique, or junk that filters of web text drop.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

NOUNS = (  # noqa: SIM905 - words in a line read better
    "mill river garden train plain violin bench tide table harbour wall orchard frost library village bicycle wheel keeper "
    "weather book bread kitchen morning window letter bridge teacher market engine valley ladder island winter summer candle "
    "forest stone path baker sailor clock tower field shepherd road lantern boat doctor painter field station ticket museum"
).split()
ADJECTIVES = (  # noqa: SIM905 - words in a line read better
    "old quiet early wooden narrow bright distant careful heavy gentle broken hidden patient famous empty crowded cold warm "
    "green silver honest clever tired young ancient simple strange golden rough smooth steep shallow deep hollow"
).split()
VERBS = (  # noqa: SIM905 - words in a line read better
    "follows crosses repairs remembers watches carries opens paints measures forgets describes reaches protects changes "
    "surprises answers leaves visits warms hides finds counts gathers borrows mends lifts"
).split()
JOINS = ("and", "while", "because", "although", "until", "where")
OPENINGS = ("In the end", "Every spring", "At first", "With some luck", "On most days", "After the storm", "By noon")


def sentence(random_: random.Random) -> str:
    def clause() -> str:
        first, second = random_.choice(NOUNS), random_.choice(NOUNS)
        return f"the {random_.choice(ADJECTIVES)} {first} {random_.choice(VERBS)} one {random_.choice(ADJECTIVES)} {second}"

    text = f"{clause()} {random_.choice(JOINS)} {clause()} of this {random_.choice(NOUNS)}"
    if random_.random() < 0.3:
        text = f"{random_.choice(OPENINGS)} {text}"
    return f"{text[0].upper()}{text[1:]}."


def page(random_: random.Random, sentences: int) -> str:
    return "\n".join(" ".join(sentence(random_) for _ in range(3)) for _ in range(sentences // 3))


def changed(text: str, random_: random.Random) -> str:
    """Replace one word in 30."""
    words = text.split(" ")
    return " ".join(random_.choice(NOUNS) if random_.random() < 1 / 30 else word for word in words)


def main(folder: str) -> None:
    target = Path(folder)
    random_ = random.Random(11)
    template = page(random_, 12).split("\n")
    whole = [(f"http://example/{number}", page(random_, random_.randrange(12, 30))) for number in range(360)]
    pages = [("page", url, text) for url, text in whole]
    # Half of the copies also have the address of their original.
    for number, (url, text) in enumerate(random_.sample(whole, 60)):
        pages.append(("copy", url if number % 2 else f"{url}?again", text))
    pages += [("changed", f"{url}?changed", changed(text, random_)) for url, text in random_.sample(whole, 60)]
    for number in range(60):
        pages.append(("template", f"http://shop/{number}", "\n".join([*template[:2], page(random_, 6), *template[2:]])))
        junk = ["Subscribe to our newsletter for more"] * random_.randrange(20, 40)
        pages.append(("junk", f"http://junk/{number}", "\n".join(junk)))
    random_.shuffle(pages)
    for collection, start in (("news", 0), ("forum", 1)):
        (target / collection).mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps(
                {
                    "id": f"{number:04d}",
                    "kind": kind,
                    "url": url,
                    "quality": round(random_.random(), 3),
                    "text": text,
                }
            )
            for number, (kind, url, text) in enumerate(pages)
            if number % 2 == start
        ]
        (target / collection / "pages.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
