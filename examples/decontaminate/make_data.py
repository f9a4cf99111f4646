"""Makes documents and two small test sets in a folder; some documents contain test items.

    python make_data.py FOLDER

The same bytes every time.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

SUBJECTS = ["a ferry", "the old library", "every second tram", "her cousin", "a box of apples", "the night train"]
VERBS = ["left", "passed", "carried", "missed", "counted", "waited for"]
OBJECTS = ["the harbour", "forty letters", "the market hall", "a grey dog", "the last bridge", "three crates of tea"]
WHENS = ["before noon", "in heavy rain", "on the second of May", "without a word", "as it always had", "for once"]
# Common on the web, and also at the end of an item.
NOTICE = "Please read the terms of use before you copy any part of this text to another place."


def sentences(random_: random.Random, count: int) -> str:
    """Plain prose with little repetition."""
    parts = (SUBJECTS, VERBS, OBJECTS, WHENS)
    return " ".join(" ".join(map(random_.choice, parts)).capitalize() + "." for _ in range(count))


def problem(random_: random.Random, number: int) -> dict[str, str]:
    """A word problem of arithmetic."""
    crates, each, sold = (random_.randint(3, 99) for _ in range(3))
    name = ["Imani", "Jonas", "Wei", "Lucia", "Amal"][number % 5]
    question = (
        f"{name} has {crates} crates with {each} oranges in each of them and sells {sold} oranges at the market on "
        f"{WHENS[number % 6]} day {number}. How many oranges does {name} bring back home in the evening?"
    )
    return {"id": f"oranges-{number}", "question": question, "answer": str(crates * each - sold)}


def main(folder: str) -> None:
    target = Path(folder)
    (target / "tests").mkdir(parents=True, exist_ok=True)
    (target / "data").mkdir(exist_ok=True)
    random_ = random.Random(7)
    problems = [problem(random_, number) for number in range(20)]
    problems[3]["question"] += f" {NOTICE}"
    capitals = [f"Which town on the river number {n} is the capital of its province?" for n in range(10)]
    write(target / "tests" / "oranges.jsonl", problems)
    (target / "tests" / "capitals.txt").write_text("".join(f"{line}\n" for line in [*capitals, "Is it Rome?"]))
    for part in range(2):
        rows = []
        for number in range(100):
            text = sentences(random_, random_.randint(8, 20))
            if number % 4 == 0:
                text += f" {NOTICE}"
            if number in (10, 60):  # as it is, but for case and punctuation
                text += " " + problems[part + number // 10]["question"].upper().replace(",", ";") + " " + text
            if number == 20:
                text = f"{text} {capitals[part]} {text}"
            if number == 30:  # half of one
                words = problems[12 + part]["question"].split()
                text = f"{text} {' '.join(words[: len(words) // 2])} and so on. {text}"
            rows.append({"id": f"{part}-{number:03d}", "text": text})
        write(target / "data" / f"{part}.jsonl", rows)


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main(sys.argv[1])
