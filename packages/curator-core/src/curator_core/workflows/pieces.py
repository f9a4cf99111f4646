"""Into how many pieces is the work between files divided?"""

from __future__ import annotations

from curator_core.across.shuffle import MOST_PARTITIONS

# The size of the input for each piece. Comparing takes up to nine times the size of the words in memory, and compressed
# files contain several times their size.
PIECE_BYTES = 16 << 20
# A piece takes about 10 ms in each step, whatever its size: for an input of 150 MB, 32 pieces take 0.8 s of processor
# time more than 8. Up to SMALL_BYTES, pieces have twice the size, which is still small.
SMALL_BYTES = 256 << 20
LEAST_PIECES = 8
_LEAST_OF_LARGE = 32


def pieces_of(input_bytes: int, in_one: int = 1) -> int:
    """The number of pieces, so that a larger input does not take more memory in a worker; a piece may have ``in_one``
    times the usual size.

    It is a power of two, so that a few more files do not change the steps of a resumed run.
    """
    if input_bytes <= SMALL_BYTES:
        return LEAST_PIECES
    wanted = -(-input_bytes // (PIECE_BYTES * in_one))
    return min(MOST_PARTITIONS, max(_LEAST_OF_LARGE, 1 << (wanted - 1).bit_length()))
