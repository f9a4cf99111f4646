"""Exact deduplication: of the documents with the same value, one stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from curator_core import storage
from curator_core.across.additions import AddToIndex
from curator_core.across.copies import EXACT, DecideCopies, ExactKeys
from curator_core.across.shuffle import Partitions
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step, Workflow
from curator_core.workflows.dedup import Dedup


@dataclass(kw_only=True)
class ExactDedup(Dedup):
    """Removes documents with the same value of ``column`` as a document that stays.

    Values are the same if their 128-bit hashes and lengths are; text is hashed in NFC. With ``normalize``, case, white
    space and punctuation do not count. Null and empty texts are never copies. ``keep`` says which one stays.
    """

    def index_parameters(self) -> tuple[str, dict[str, Any]]:
        return "exact", {"normalize": self.normalize}

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        keys, decided = (storage.join(work_dir, name) for name in ("keys", "decided"))
        documents, pieces = self._documents(), self.pieces()
        settings = {"rule": "exact", "normalize": self.normalize}
        index = self._index(settings, work_dir)
        make = ExactKeys(**documents, path=keys, partitions=pieces, index=index)
        yield from self._whole(Pipeline([self._reader(), make], name="keys"), work_dir)
        against = self.against if index is not None else "self"
        decide = DecideCopies(path=decided, keys=keys, keep=self.keep, parts=pieces, against=against)
        exact = yield from self._together(storage.join(keys, EXACT), pieces)
        yield Pipeline([Partitions(path=exact), decide], name="decide")
        add = None
        if index is not None and self.index_add:
            add = partial(AddToIndex, **documents, keys=keys, index=index, partitions=pieces)
        yield from self._after(work_dir, keys, decided, settings, add)
