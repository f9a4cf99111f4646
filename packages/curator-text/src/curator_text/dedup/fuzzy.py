"""Fuzzy deduplication removes a document if another one, which stays, was compared with it and contains nearly all of
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from curator_core import storage
from curator_core.across.copies import EXACT
from curator_core.across.inputs import Inputs
from curator_core.across.shuffle import Partitions
from curator_core.errors import UsageError, check_whole
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step, Workflow
from curator_core.workflows.dedup import Dedup
from curator_core.workflows.estimate import Costs
from curator_core.workflows.groups import Groups
from curator_text.dedup.indexed import AddTexts, IndexBatches, IndexedTexts
from curator_text.dedup.keys import COPIES, EDGES, NEAR, FindCandidates, FuzzyKeys, KeyPartitions, SketchParameters
from curator_text.dedup.pair import compare_pair
from curator_text.dedup.sketch import ALGORITHM, probability
from curator_text.dedup.texts import GroupedTexts
from curator_text.dedup.verdicts import DecideGroups, RuleParameters


@dataclass(kw_only=True)
class FuzzyDedup(RuleParameters, SketchParameters, Dedup):
    """Removes documents whose content is almost entirely contained in a document that stays.

    No document is removed without a *witness*: a document that stays, comes before it in the order of preference
    ``keep``, and was compared with it word by word. By the rule ``nothing_new`` a document is removed if the witness
    has at least ``threshold`` (0.8) of its distinct shingles, and no 25 consecutive words contain more than
    ``max_new_words`` words that the witness lacks; by ``containment``, if the witness has 0.98 of them; by ``jaccard``,
    if the two share 0.8 of all their shingles. Shingles are runs of ``ngram`` words (3), or of as many characters (13)
    with ``unit="characters"``. Exact copies are removed first, and have the same witness as the document that they
    copy.

    A sketch of ``bands`` bands with ``rows`` rows decides which documents are compared: with 26 and 5, two documents
    with a Jaccard similarity of 0.7 are compared with a probability of 0.99. The table of decisions names the witness
    of each removed document, and says how similar the two are.
    """

    # The workflow reads the input three times and writes it once; gathering and comparing texts takes about as long as
    # making keys. It stores keys on disk, and the words of documents that are compared, at eight bytes for each word.
    disk_of_input = 0.25
    costs = Costs(readings=4, keys=2.2, disk_of_keys=2, disk_of_text=1.4)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.the_rule()
        owner = type(self).__name__
        check_whole(f"{owner}.ngram", self.ngram, optional=True)
        for name in ("bands", "rows"):
            check_whole(f"{owner}.{name}", getattr(self, name))
        if self.unit not in ("words", "characters"):
            raise UsageError(f"{owner}.unit must be 'words' or 'characters', not {self.unit!r}")
        if self.normalize:
            raise UsageError(
                f"{owner}.normalize is for exact deduplication: fuzzy deduplication compares words and always "
                "ignores case and the characters between words"
            )

    def index_parameters(self) -> tuple[str, dict[str, Any]]:
        return "fuzzy", {"algorithm": ALGORITHM, **self._sketch()}

    def _sketch(self) -> dict[str, Any]:
        names = ("bands", "rows", "seed")
        return {"unit": self.unit, "ngram": self.shingle, **{name: getattr(self, name) for name in names}}

    def costs_of_work(self) -> Costs:
        # English has five characters a word, and each of them becomes eight bytes too.
        return (
            replace(self.costs, disk_of_text=5 * self.costs.disk_of_text) if self.unit == "characters" else self.costs
        )

    def chances(self) -> dict[str, float]:
        similarities = [number / 10 for number in range(3, 10)]
        return {f"{at:.1f}": round(float(probability(at, self.bands, self.rows)), 4) for at in similarities}

    @classmethod
    def spans(
        cls, text: str, witness: str, settings: Mapping[str, Any]
    ) -> tuple[Sequence[tuple[int, int, bool]], Sequence[tuple[int, int, bool]]]:
        pair = compare_pair(text, witness, kind=settings.get("unit", "words"), size=settings.get("ngram", 3))
        return pair.text, pair.witness

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        keys, pairs, groups, texts, decided = (
            storage.join(work_dir, name) for name in ("keys", "pairs", "groups", "texts", "decided")
        )
        documents, count = self._documents(), self.pieces()
        sketch = self._sketch()
        rule: dict[str, Any] = {name: getattr(self, name) for name in ("rule", "threshold", "max_new_words")}
        pieces: dict[str, Any] = {"keep": self.keep, "parts": count}
        the_rule = self.the_rule()
        settings = {**sketch, "rule": self.rule, "threshold": the_rule.threshold, "max_new_words": self.max_new_words}
        index = self._index(settings, work_dir)
        pieces["against"] = against = self.against if index is not None else "self"
        make = FuzzyKeys(**documents, **sketch, path=keys, partitions=count, index=index)
        yield from self._whole(Pipeline([self._reader(), make], name="keys"), work_dir)
        near = yield from self._together(storage.join(keys, NEAR), count)
        exact = yield from self._together(storage.join(keys, EXACT), count)
        find = FindCandidates(path=pairs, keys=keys, **pieces)
        yield Pipeline([KeyPartitions(near=near, exact=exact), find], name="candidates")
        yield Groups(edges=storage.join(pairs, EDGES), path=groups)
        gather = GroupedTexts(
            **documents,
            path=texts,
            keys=keys,
            groups=groups,
            copies=storage.join(pairs, COPIES),
            partitions=count,
            unit=self.unit,
        )
        inputs = Inputs.read(keys)
        if inputs is not None:
            inputs.require_there()
        yield from self._whole(Pipeline([self._reader(), gather], name="texts"), work_dir)
        texts = yield from self._together(texts, count)
        old_texts = None
        if against != "self":
            old_texts = storage.join(work_dir, "old-texts")
            theirs = IndexedTexts(path=old_texts, keys=keys, groups=groups, keep=self.keep, partitions=count)
            yield Pipeline([IndexBatches(keys=keys), theirs], name="old-texts")
        compare = DecideGroups(**sketch, **rule, **pieces, path=decided, keys=keys, old_texts=old_texts)
        yield Pipeline([Partitions(path=texts), compare], name="compare")
        add = None
        if index is not None and self.index_add:
            add = partial(AddTexts, **documents, **sketch, keys=keys, index=index, partitions=count)
        yield from self._after(work_dir, keys, decided, settings, add)
