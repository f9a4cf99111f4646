"""Do the rows of one call of a stage add up? Rows in, rows out, and rows that left.

One rule applies to maps, fan-outs and merges: rows in = rows out + rows that left with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

ROWS = "rows"


class Amount(NamedTuple):
    """The amount in a task: ``items`` of ``unit``. For a list of files, also the number of their rows, if it is
    recorded.
    """

    # It is a tuple, because one is made for each call of a stage and a frozen dataclass takes three times as long.

    items: int
    unit: str = ROWS
    rows_in_files: int | None = None

    def plus(self, other: Amount) -> Amount:
        known = self.rows_in_files is not None and other.rows_in_files is not None
        rows = (self.rows_in_files or 0) + (other.rows_in_files or 0) if known else None
        return Amount(self.items + other.items, self.unit, rows)


@dataclass(frozen=True, slots=True)
class Balance:
    """The rows of one call on one task. ``created`` are rows that nothing accounts for; a negative number means that
    rows were lost.
    """

    rows_in: int
    rows_out: int
    # The rows of a task without results, about which the stage has recorded nothing.
    dropped: int = 0
    created: int = 0


def balance(
    given: Amount,
    made: Sequence[Amount] | None,
    *,
    gone: int = 0,
    read: int | None = None,
    quarantined: int = 0,
    fans_out: bool = False,
) -> Balance:
    """The balance of a call with the input ``given`` and the output ``made``, which is None if it dropped the task.

    ``gone`` are rows that it dropped or rejected with a reason, ``read`` the rows in a reader's input, and
    ``quarantined`` rows of ``given`` that the error policy has set aside.
    """
    left = gone + quarantined
    if not made:
        if given.unit != ROWS:
            rows_in = read if read is not None else left
            return Balance(rows_in, 0, created=left - rows_in)
        # None drops the remaining rows, and so does an empty list, unless the stage has recorded losses: then the
        # remaining rows are lost.
        rest = given.items - left if made is None or not left else 0
        return Balance(given.items, 0, max(0, rest), left + max(0, rest) - given.items)
    if len(made) == 1:  # the usual case
        (only,) = made
        rows_out, units = only.items, {only.unit}
    else:
        rows_out, units = sum([amount.items for amount in made]), {amount.unit for amount in made}
    if units == {given.unit}:
        # A fan-out may group or split items other than rows in any way.
        rows_in = given.items if given.unit == ROWS or not fans_out else rows_out + left
    elif given.unit == ROWS and ROWS not in units:  # a writer writes rows to files
        rows_in = given.items
        written = [amount.rows_in_files for amount in made]
        rows_out = rows_in - left if None in written else sum([rows or 0 for rows in written])
    else:  # a reader makes rows
        rows_in = read if read is not None else rows_out + left
    return Balance(rows_in, rows_out, created=rows_out + left - rows_in)
