"""How many pieces does work between files come in?"""

from __future__ import annotations

from curator_core.across.shuffle import MOST_PARTITIONS

# The size of the input for each piece: comparing takes up to nine times what it holds of words, and packed files hold
# several times their size.
PIECE_BYTES = 16 << 20
# A piece costs about 10 ms in each step that takes it, whatever it holds: for an input of 150 MB, 32 pieces take 0.8 s of
# processor time more than 8. Up to SMALL_BYTES, twice the size is held for each piece, which is still little.
SMALL_BYTES = 256 << 20
LEAST_PIECES = 8
_LEAST_OF_LARGE = 32


def pieces_of(input_bytes: int, in_one: int = 1) -> int:
    """Enough pieces that a worker does not hold more of a larger input; ``in_one`` is how many times the usual size a
    piece may have.

    A power of two, so that a few files more do not change the steps of a run that is resumed.
    """
    if input_bytes <= SMALL_BYTES:
        return LEAST_PIECES
    wanted = -(-input_bytes // (PIECE_BYTES * in_one))
    return min(MOST_PARTITIONS, max(_LEAST_OF_LARGE, 1 << (wanted - 1).bit_length()))
