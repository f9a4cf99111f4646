"""Makes a small web crawl in a folder: notes worth keeping, and every kind of junk that crawls contain.

    python make_data.py FOLDER

The same files every time. Each document has a ``kind``, so that you can check the filters.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

SUBJECTS = (
    "the old mill by the river",
    "a kitchen garden in early spring",
    "the night train across the plain",
    "a violin maker at her bench",
    "the tide table on the harbour wall",
    "an apple orchard after the first frost",
    "the village library on a rainy day",
    "a bicycle with a bent wheel",
    "the lighthouse keeper's weather book",
    "bread that is left to rise overnight",
)
OPENINGS = (
    "Anyone who has spent a morning with {0} knows that patience is most of the work",
    "The first thing that visitors ask about {0} is how long it has been that way",
    "There is more than one reason to write down what happens around {0}",
    "People have argued about {0} for as long as they have had the time to argue",
)
MIDDLES = (
    "In the beginning the changes are small, and only those who come every day will notice them",
    "It helps to keep a notebook, because memory tends to be kind to our mistakes",
    "Some of the neighbours still have photographs that show what it was like before the war",
    "What looks simple from the road turns out to be a chain of decisions, each resting on the last",
    "The tools are plain and have hardly changed, although the hands that hold them have",
    "On a good day the light comes in low and makes every surface look as if it had been painted",
    "Nobody can say exactly when the habit started, but everybody remembers who taught them",
    "A stranger once offered to pay for it and was sent away with tea and a slice of cake",
    "The cost is never only in money; it is counted in weekends and in quiet evenings",
    "If the weather holds, the next step can be taken within the week and without any hurry",
)
CLOSINGS = (
    "That is all there is to say about it, and yet we will talk about it again tomorrow",
    "Whoever takes over will find the notes in the drawer and the key where it has always been",
    "It is not a large thing, but the town would be a different place without it",
)
LANGUAGES = (
    "Der Zug fährt jeden Morgen durch das Tal, und die Leute winken vom Feld herüber. ",
    "Le boulanger ouvre sa porte avant le lever du soleil et allume le four sans bruit. ",
)


def note(random_: random.Random) -> str:
    """A few paragraphs of plain English prose."""
    paragraphs = []
    for _ in range(random_.randint(2, 5)):
        sentences = [random_.choice(OPENINGS).format(random_.choice(SUBJECTS))]
        sentences += random_.sample(MIDDLES, random_.randint(3, 7))
        sentences.append(random_.choice(CLOSINGS))
        paragraphs.append(". ".join(sentences) + ".")
    return "\n\n".join(paragraphs)


def words(text: str, most: int) -> str:
    return " ".join(text.split()[:most])


def junk(kind: str, random_: random.Random) -> str:
    """Text of one kind, from plain cases to some that a limit only just keeps or drops."""
    if kind == "short":
        if random_.random() < 0.5:
            return random_.choice(("Home", "Page not found", "Click here", "", "Log in to continue"))
        return words(note(random_), random_.randint(20, 90))
    if kind == "symbols":
        marks = " ".join("".join(random_.choice("#$%&*{}<>|~^=+") for _ in range(6)) for _ in range(60))
        return f"{marks}\n{words(note(random_), random_.randint(0, 600))}"
    if kind == "repeated lines":
        lines = ["Subscribe to our newsletter for more news like this"] * random_.randint(4, 30)
        lines += [
            random_.choice(MIDDLES) + f", as {random_.choice(SUBJECTS)} shows" for _ in range(random_.randint(2, 20))
        ]
        return "\n".join(lines)
    if kind == "numbers":
        rows = [" ".join(str(random_.randint(0, 10**4)) for _ in range(8)) for _ in range(random_.randint(2, 12))]
        return words(note(random_), random_.randint(0, 250)) + "\n" + "\n".join(rows)
    if kind == "bullets":
        points = [f"• {random_.choice(SUBJECTS)} and {random_.choice(SUBJECTS)}" for _ in range(30)]
        return "\n".join(points + random_.sample(MIDDLES, random_.randint(0, 6)))
    if kind == "keywords":
        between = random_.randint(5, 16)
        return " ".join(
            f"cheap tickets {words(random_.choice(MIDDLES), between)}" for _ in range(random_.randint(20, 40))
        )
    foreign = random_.choice(LANGUAGES) * random_.randint(12, 30)
    return foreign + words(random_.choice(MIDDLES), random_.randint(0, 12))


def main(folder: str) -> None:
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    random_ = random.Random(7)
    kinds = ("short", "symbols", "repeated lines", "numbers", "bullets", "keywords", "other language")
    number = 0
    # The last part of the crawl is worse than the others.
    for part, good in enumerate((0.76, 0.7, 0.72, 0.45)):
        lines = []
        for _ in range(250):
            kind = "note" if random_.random() < good else random_.choice(kinds)
            text = note(random_) if kind == "note" else junk(kind, random_)
            # The id has leading zeros on purpose: it must stay unchanged.
            lines.append(json.dumps({"id": f"{number:06d}", "kind": kind, "text": text}, ensure_ascii=False))
            number += 1
        if part == 2:
            lines.insert(100, '{"id": "broken", "text": "this line was cut off in the mid')
        (target / f"crawl-{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
