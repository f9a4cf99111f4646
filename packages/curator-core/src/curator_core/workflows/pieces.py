"""How many pieces does work between files come in?"""

from __future__ import annotations

from curator_core.across.shuffle import MOST_PARTITIONS

# The size of the input for each piece: comparing takes up to nine times what it holds of words, and packed files hold
# several times their size.
PIECE_BYTES = 16 << 20
LEAST_PIECES = 32


def pieces_of(input_bytes: int) -> int:
    """Enough pieces that a worker does not hold more of a larger input.

    A power of two, so that a few files more do not change the steps of a run that is resumed.
    """
    wanted = -(-input_bytes // PIECE_BYTES)
    return min(MOST_PARTITIONS, max(LEAST_PIECES, 1 << (wanted - 1).bit_length() if wanted else 0))
