"""Do the numbers and hashes of rows depend on the rows alone?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from curator_core.arrow.row_hash import lineage_numbers, row_numbers


@pytest.mark.parametrize("numbers", [lineage_numbers, row_numbers])
def test_the_number_of_a_row_does_not_depend_on_how_many_rows_its_task_has(numbers: Callable[..., Any]) -> None:
    many = numbers("task", 5000, 3).tolist()
    assert numbers("task", 4096, 3).tolist() == many[:4096]
    assert numbers("task", 7, 3).tolist() == many[:7]
    assert len(set(many)) == 5000


def test_rows_with_the_smallest_numbers_are_from_anywhere() -> None:
    tasks = [row_numbers(f"task{task}", 1000, 0) for task in range(200)]
    bound = np.sort(np.concatenate(tasks))[1000]
    places = np.concatenate([np.flatnonzero(numbers < bound) for numbers in tasks])
    # As many of each tenth of the tasks, and most tasks have some: 5 are expected of each.
    assert np.bincount(places // 100, minlength=10).min() > 70
    assert sum(bool((numbers < bound).any()) for numbers in tasks) > 190


def test_the_numbers_of_rows_are_those_that_earlier_versions_gave() -> None:
    value = int.from_bytes(hashlib.blake2b(b"3\0task", digest_size=8).digest(), "little")
    expected = []
    for row in range(3):
        number = (row * 0x9E3779B97F4A7C15 + value) % 2**64
        number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        number = (number ^ number >> 27) * 0x94D049BB133111EB % 2**64
        expected.append(number ^ number >> 31)
    assert lineage_numbers("task", 3, 3).tolist() == expected
