"""How many pieces does work between files come in?"""

from __future__ import annotations

import pytest

from curator_core.workflows.pieces import pieces_of


@pytest.mark.parametrize(
    ("size", "usual", "larger"), [(0, 8, 8), (256, 8, 8), (257, 32, 32), (2048, 128, 32), (16384, 1024, 256)]
)
def test_only_a_small_input_is_divided_into_few_pieces(size: int, usual: int, larger: int) -> None:
    """An input of 2 GiB in 8 pieces of 256 MiB would take more memory than a worker is meant to."""
    assert (pieces_of(size << 20), pieces_of(size << 20, in_one=4)) == (usual, larger)
