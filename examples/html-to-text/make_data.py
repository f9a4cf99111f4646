"""Makes a small web archive: pages with menus and footers, an image, a page cut short.

python make_data.py FOLDER
"""

from __future__ import annotations

import gzip
import random
import sys
from pathlib import Path

SUBJECTS = ["the harbour", "the old mill", "a small orchard", "the night train", "the village school", "a stone bridge"]
VERBS = ["was built by", "is looked after by", "was painted for", "is remembered by", "was sold to", "is shared by"]
PEOPLE = ["three sisters", "the fishermen", "a retired teacher", "the town council", "two carpenters", "a choir"]
ENDS = ["long before the railway came", "every summer", "in a cold winter", "with little money", "after the flood"]


def paragraph(rng: random.Random) -> str:
    sentences = [
        f"{rng.choice(SUBJECTS).capitalize()} {rng.choice(VERBS)} {rng.choice(PEOPLE)} {rng.choice(ENDS)}."
        for _ in range(rng.randint(4, 8))
    ]
    return f"<p>{' '.join(sentences)}</p>"


def page(rng: random.Random, number: int) -> bytes:
    menu = "".join(f'<li><a href="/{name}">{name}</a></li>' for name in ("home", "news", "people", "contact", "shop"))
    body = "\n".join(paragraph(rng) for _ in range(rng.choice([1, 3, 6])))
    if number % 5 == 0:
        body += f"<p>Write to person{number}@example.org or call +44 20 7946 0{number:03d}.</p>"
    if number % 7 == 0:
        body += "<p>The caf\u00c3\u00a9 opens at nine.</p>"  # the result of a wrong decoding
    html = (
        f"<!doctype html><html><head><title>Page {number}</title></head><body><nav><ul>{menu}</ul></nav>"
        f"<main><h1>Notes, part {number}</h1>{body}</main><footer>All rights reserved. This site uses cookies.</footer>"
        "</body></html>"
    )
    return html.encode()


def record(number: int, content: bytes, kind: str) -> bytes:
    http = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://example.org/{number}\r\n"
        f"WARC-Date: 2024-05-01T12:00:00Z\r\nWARC-Record-ID: <urn:uuid:{number:08d}-0000-4000-8000-000000000000>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    ).encode()
    return gzip.compress(head + http + b"\r\n\r\n", mtime=0)


def main(folder: Path) -> None:
    rng = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    records = [record(number, page(rng, number), "text/html; charset=utf-8") for number in range(60)]
    records[20] = record(20, b"\x89PNG\r\n\x1a\n" + rng.randbytes(500), "image/png")
    records[-1] = records[-1][:-200]
    (folder / "pages.warc.gz").write_bytes(b"".join(records))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
