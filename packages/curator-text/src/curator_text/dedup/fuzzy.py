"""Fuzzy deduplication: a document goes if one that stays was compared with it and has nearly all of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from curator_core import storage
from curator_core.across.groups import Groups
from curator_core.across.shuffle import Partitions
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step, Workflow
from curator_core.workflows.dedup import Dedup
from curator_text.dedup.keys import COPIES, EDGES, FindCandidates, FuzzyKeys, KeyPartitions, SketchParameters
from curator_text.dedup.texts import GroupedTexts
from curator_text.dedup.verdicts import DecideGroups, RuleParameters


@dataclass(kw_only=True)
class FuzzyDedup(RuleParameters, SketchParameters, Dedup):
    """Removes documents of which a document that stays has nearly everything.

    """

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        keys, pairs, groups, texts, decided = (
            storage.join(work_dir, name) for name in ("keys", "pairs", "groups", "texts", "decided")
        )
        documents, sketch = self._documents(), self._sketch()
        inner = {"keep": self.keep, "parts": self.partitions}
        make = FuzzyKeys(**documents, **sketch, path=keys, partitions=self.partitions)
        yield Pipeline([self._reader(), make], name="keys")
        yield Pipeline([KeyPartitions(keys=keys), FindCandidates(path=pairs, keys=keys, **inner)], name="candidates")
        raise NotImplementedError
