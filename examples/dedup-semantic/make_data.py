"""Makes questions and answers with vectors in a folder: ``python make_data.py FOLDER``.

The same files every time. The vectors are invented, not computed by a model: the vectors of a topic have similar
directions. A third of the 300 answers repeat what another answer says.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

TOPICS = ("rivers", "bridges", "violins", "bread", "clocks", "lanterns")
SIZE = 24


def near(random_: random.Random, vector: list[float], far: float) -> list[float]:
    return [round(value + random_.gauss(0, far), 4) for value in vector]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    random_ = random.Random(6)
    centres = {topic: [random_.gauss(0, 1) for _ in range(SIZE)] for topic in TOPICS}
    rows: list[dict[str, object]] = []
    answers: list[tuple[str, list[float]]] = []
    for number in range(300):
        if number % 3 == 2:
            topic, vector = random_.choice(answers)
            vector = near(random_, vector, 0.05)
        else:
            # The first topics have the most answers.
            topic = TOPICS[min(int(random_.expovariate(0.7)), len(TOPICS) - 1)]
            vector = near(random_, centres[topic], 0.6)
            answers.append((topic, vector))
        rows.append(
            {
                "id": f"a{number}",
                "topic": topic,
                "query": f"What does page {number} say of {topic}?",
                "passage": f"Page {number} says this and that of {topic}.",
                "embedding": vector,
                "query_embedding": near(random_, vector, 0.3),
            }
        )
    for part in range(2):
        (folder / f"part-{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[part::2]))


if __name__ == "__main__":
    main()
