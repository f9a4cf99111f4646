"""Fuzzy deduplication: a document goes if one that stays was compared with it and has nearly all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curator_core import storage
from curator_core.across.groups import Groups
from curator_core.across.shuffle import Partitions
from curator_core.errors import UsageError, check_whole
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step, Workflow
from curator_core.workflows.dedup import Dedup
from curator_text.dedup.keys import COPIES, EDGES, FindCandidates, FuzzyKeys, KeyPartitions, SketchParameters
from curator_text.dedup.pair import compare_pair
from curator_text.dedup.texts import GroupedTexts
from curator_text.dedup.verdicts import DecideGroups, RuleParameters


@dataclass(kw_only=True)
class FuzzyDedup(RuleParameters, SketchParameters, Dedup):
    """Removes documents of which a document that stays has nearly everything.

    No document goes without a *witness*: a document that stays, comes before it in the order of preference ``keep``, and was
    compared with it word by word. By the rule ``nothing_new`` a document goes if the witness has at least ``threshold`` (0.8)
    of its distinct shingles, and no 25 words in a row hold more than ``max_new_words`` that the witness lacks; by
    ``containment``, if it has 0.98 of them; by ``jaccard``, if 0.8 of the union are shared. Shingles are runs of ``ngram``
    words. Exact copies go first, and name the same witness as what they are a copy of.

    Which documents are compared is decided by ``bands`` of ``rows`` over a sketch: with 26 of 5, two documents with a Jaccard
    of 0.7 are compared with a probability of 0.99. The table of decisions says of each document that goes which one stays for
    it, and how alike the two are.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.the_rule()
        owner = type(self).__name__
        for name in ("ngram", "bands", "rows"):
            check_whole(f"{owner}.{name}", getattr(self, name))
        if self.normalize:
            raise UsageError(
                f"{owner}.normalize is for exact deduplication: fuzzy deduplication compares words, and their case and what "
                "stands between them never count"
            )

    @classmethod
    def spans(
        cls, text: str, witness: str, settings: Mapping[str, Any]
    ) -> tuple[Sequence[tuple[int, int, bool]], Sequence[tuple[int, int, bool]]]:
        pair = compare_pair(text, witness, size=settings.get("ngram", 3))
        return pair.text, pair.witness

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        keys, pairs, groups, texts, decided = (
            storage.join(work_dir, name) for name in ("keys", "pairs", "groups", "texts", "decided")
        )
        documents = self._documents()
        sketch: dict[str, Any] = {name: getattr(self, name) for name in ("ngram", "bands", "rows", "seed")}
        rule: dict[str, Any] = {name: getattr(self, name) for name in ("rule", "threshold", "max_new_words")}
        pieces: dict[str, Any] = {"keep": self.keep, "parts": self.partitions}
        make = FuzzyKeys(**documents, **sketch, path=keys, partitions=self.partitions)
        yield Pipeline([self._reader(), make], name="keys")
        yield Pipeline([KeyPartitions(keys=keys), FindCandidates(path=pairs, keys=keys, **pieces)], name="candidates")
        yield Groups(edges=storage.join(pairs, EDGES), path=groups)
        gather = GroupedTexts(
            **documents,
            path=texts,
            keys=keys,
            groups=groups,
            copies=storage.join(pairs, COPIES),
            partitions=self.partitions,
        )
        yield Pipeline([self._reader(), gather], name="texts")
        compare = DecideGroups(**sketch, **rule, **pieces, path=decided, keys=keys)
        yield Pipeline([Partitions(path=texts), compare], name="compare")
        the_rule = self.the_rule()
        settings = {**sketch, "rule": self.rule, "threshold": the_rule.threshold, "max_new_words": self.max_new_words}
        yield from self._after(work_dir, keys, decided, settings)
