"""Exact deduplication: of documents with the same value one stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from curator_core import storage
from curator_core.across.copies import EXACT, DecideCopies, ExactKeys
from curator_core.across.shuffle import Partitions
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step, Workflow
from curator_core.workflows.dedup import Dedup


@dataclass(kw_only=True)
class ExactDedup(Dedup):
    """Removes documents whose ``column`` has the same value as that of a document that stays.

    Values are the same if a 128-bit hash and the length are, of text in NFC. With ``normalize`` case, white space and
    punctuation do not count. Null and the empty text are no copies of one another. ``keep`` says which one stays.
    """

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        keys, decided = (storage.join(work_dir, name) for name in ("keys", "decided"))
        yield Pipeline(
            [self._reader(), ExactKeys(**self._documents(), path=keys, partitions=self.partitions)], name="keys"
        )
        decide = DecideCopies(path=decided, keys=keys, keep=self.keep, parts=self.partitions)
        yield Pipeline([Partitions(path=storage.join(keys, EXACT)), decide], name="decide")
        yield from self._after(work_dir, keys, decided, {"rule": "exact", "normalize": self.normalize})
