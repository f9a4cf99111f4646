"""Finds http(s) addresses in texts."""

from __future__ import annotations

import re

import numpy as np

from curator_text.features.block import Block, Ints, once

_URL = re.compile(rb"https?://(?:[A-Za-z0-9$\-_@.&+/:=?#~!*(),]|%[0-9A-Fa-f]{2})+")


@once
def urls_of(block: Block) -> list[tuple[int, bytes]]:
    """The document and the address, for every http(s) address in the text."""
    at = block.find(b"://")
    if not len(at):
        return []
    # The places where a scheme may begin; a scheme inside an earlier address belongs to that address.
    secure = block.data[at - 1] == ord("s")
    found = []
    behind = 0
    for row, start in zip(block.rows_of(at).tolist(), (at - 4 - secure).tolist(), strict=True):
        if start >= behind and (match := _URL.match(block.raw, start)):
            found.append((row, match.group()))
            behind = match.end()
    return found


def url_chars(block: Block) -> Ints:
    total = np.zeros(block.rows, np.int64)
    for row, url in urls_of(block):
        total[row] += len(url)
    return total
