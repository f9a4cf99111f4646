"""Do the numbers and hashes of rows depend on the rows alone?"""

from __future__ import annotations

import hashlib

from curator_core.arrow.row_hash import lineage_numbers


def test_the_number_of_a_row_does_not_depend_on_how_many_rows_its_task_has() -> None:
    many = lineage_numbers("task", 5000, 3).tolist()
    assert lineage_numbers("task", 4096, 3).tolist() == many[:4096]
    assert lineage_numbers("task", 7, 3).tolist() == many[:7]
    assert len(set(many)) == 5000


def test_the_numbers_of_rows_are_those_that_earlier_versions_gave() -> None:
    value = int.from_bytes(hashlib.blake2b(b"3\0task", digest_size=8).digest(), "little")
    expected = []
    for row in range(3):
        number = (row * 0x9E3779B97F4A7C15 + value) % 2**64
        number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        number = (number ^ number >> 27) * 0x94D049BB133111EB % 2**64
        expected.append(number ^ number >> 31)
    assert lineage_numbers("task", 3, 3).tolist() == expected
