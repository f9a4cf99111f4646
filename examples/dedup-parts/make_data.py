"""Makes pages that share parts in a folder: ``python make_data.py FOLDER``.

The same files every time. 200 pages have a title, prose of their own, and one of three footers; 40 of them quote one of
eight press releases in full, and 10 consist only of a press release.
"""

from __future__ import annotations

import json
import random
import runpy
import sys
from pathlib import Path

sentence = runpy.run_path(str(Path(__file__).resolve().parent.parent / "dedup" / "make_data.py"))["sentence"]
FOOTERS = (
    "All rights reserved by the publisher of this page.",
    "Subscribe to our newsletter to hear of new pages first.",
    "This page was printed from the archive of the harbour town.",
)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    random_ = random.Random(5)
    releases = ["\n".join(sentence(random_).capitalize() + "." for _ in range(6)) for _ in range(8)]
    rows = []
    for number in range(200):
        lines = [f"Page {number} of the harbour news", *(f"{sentence(random_).capitalize()}." for _ in range(8))]
        if number % 5 == 0:
            lines.insert(4, random_.choice(releases))
        text = random_.choice(releases) if number % 20 == 7 else "\n".join([*lines, FOOTERS[number % 3]])
        rows.append({"id": f"p{number}", "text": text})
    for part in range(2):
        lines = [json.dumps(row) + "\n" for row in rows[part::2]]
        (folder / f"part-{part}.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
