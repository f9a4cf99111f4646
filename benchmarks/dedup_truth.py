"""Checks the decisions of deduplication by brute force. It shares no code with the packages and implements the rules
independently.

    python benchmarks/dedup_truth.py CORPUS --run RUN_DIR [--output FOLDER] [--threshold 0.8] [--max-new-words 12] [--recall]
    python benchmarks/dedup_truth.py CORPUS --kept KEPT.txt

CORPUS is the output of `make_dedup.py`. The first form reads the table of decisions of a run and checks:

- every removal: its witness stays and is not shorter, and the two texts meet the rule and have the figures in the
  table. With ``--output``, it also checks that the output contains exactly the documents that were not removed,
  unchanged;
- equal texts (in NFC): all but one of each class are removed (recall), and for each document removed as `exact`, an
  equal one stays (precision);
- with ``--recall``, how many of the possible removals happened. *All* pairs of a document and a document that stays are
  considered: a witness that covers the share t of a document's n distinct shingles has at least one of any n - ⌈t n⌉ +
  1 of them, so the rarest shingles of each document are looked up in an index of all shingles of all documents that
  stay, and each pair that is found is compared in full. No pair that could meet the rule is left out. Intervals are
  Wilson's at 95 %.

The second form takes the ids that another tool kept, one per line. Both forms print a comparison with the labels: the
share of copies that were found, by kind (a copy is found unless all documents of its family are kept), and how many
different documents that share a template were removed.

Words, shingles and windows are compared by consecutive numbers, so no result depends on a hash. The exit code is 1 if
there is a violation; the first violations of each kind are listed.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq

WINDOW = 25
# Each base character of these scripts is a word by itself: Thai, Lao, Tibetan, Myanmar, Khmer, Tai Tham, kana, Han.
SPACELESS = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ua9e0-\ua9ff\uaa60-\uaa7f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)


def _class_of(*categories: str) -> str:
    """A regular expression class of all characters in these categories."""
    points = [point for point in range(sys.maxunicode + 1) if unicodedata.category(chr(point)).startswith(categories)]
    runs: list[list[int]] = []
    for point in points:
        if runs and runs[-1][1] == point - 1:
            runs[-1][1] = point
        else:
            runs.append([point, point])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs)


ASCII_WORD = re.compile("[a-z0-9]+")
MARKS = _class_of("M")
# A separate mark, such as the rest of an overline, is not a word.
LETTERS = _class_of("L", "Nd")
WORD = re.compile(f"[{SPACELESS}][{MARKS}]*|(?![{SPACELESS}])[{LETTERS}](?:(?![{SPACELESS}])[{LETTERS}{MARKS}])*")
IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
ALONE = re.compile(f"[{SPACELESS}]")


def words_of(text: str) -> list[str]:
    """The words of a text: case-folded runs of letters, marks and digits; single characters in scripts without spaces."""
    if text.isascii():
        return ASCII_WORD.findall(text.lower())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold())
    folded = unicodedata.normalize("NFKC", IGNORED.sub("", folded).casefold())
    return WORD.findall(folded)


def shingle_bounds(words: list[str]) -> list[tuple[int, int]]:
    """The begin and end of the shingles of a text: runs of three words, or of five characters of scripts without
    spaces.
    """
    if not words:
        return []
    # Weights in fifteenths: a word is a third of a shingle, a character a fifth.
    parts = [3 if ALONE.match(word) else 5 for word in words]
    bounds, end, held = [], 0, 0
    for start, part in enumerate(parts):
        while end < len(parts) and held < 15:
            held += parts[end]
            end += 1
        if held < 15:
            break
        bounds.append((start, end))
        held -= part
    if not bounds:
        return [(0, len(words))]
    bounds[-1] = (bounds[-1][0], len(words))
    return bounds


@dataclass
class Document:
    """A document, its place, and its shingles, which are computed when they are needed."""

    id: str
    file: str
    row: int
    text: str
    # One number for each shingle, in the order of the text, and the distinct numbers, sorted.
    places: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    distinct: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    word_count: int = 0
    # The begin and end of shingles, unless they begin at every word and have three words.
    bounds: np.ndarray[Any, Any] | None = None


class Shingler:
    """Gives each distinct shingle a number."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}
        self.other: dict[tuple[str, ...], int] = {}

    def fill(self, document: Document) -> None:
        words = words_of(document.text)
        document.word_count = len(words)
        if not words:
            return
        # Three numbers of 21 bits, counted from 1; shorter texts are padded with zeros.
        if len(words) < 3 or any(ALONE.match(word) for word in words):
            bounds = shingle_bounds(words)
            numbers = [self.other.setdefault(tuple(words[a:b]), len(self.other)) for a, b in bounds]
            document.places = -1 - np.array(numbers, dtype=np.int64)
            document.bounds = np.array(bounds, dtype=np.int64)
        else:
            known = self.words
            codes = np.array([known.setdefault(word, len(known) + 1) for word in words], dtype=np.int64)
            if len(known) >= 1 << 21:
                sys.exit("error: more than two million different words: check a smaller corpus")
            document.places = codes[:-2] << 42 | codes[1:-1] << 21 | codes[2:]
        document.distinct = np.unique(document.places)


def compare(document: Document, witness: Document) -> tuple[float, float, int]:
    """The Jaccard similarity, the containment of the document in the witness, and the largest number of uncovered words
    in a window.
    """
    if not len(document.distinct) or not len(witness.distinct):
        return 0.0, 0.0, document.word_count
    shared = int(members(document.distinct, witness.distinct).sum())
    union = len(document.distinct) + len(witness.distinct) - shared
    return (
        shared / union,
        shared / len(document.distinct),
        new_words(document, members(document.places, witness.distinct)),
    )


def members(numbers: np.ndarray[Any, Any], of: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which of the numbers are in the sorted array."""
    at = np.searchsorted(of, numbers)
    at[at == len(of)] = 0
    return of[at] == numbers


def new_words(document: Document, hits: np.ndarray[Any, Any]) -> int:
    """The largest number of words in a window that are in no shared shingle."""
    count = document.word_count
    change = np.zeros(count + 1, dtype=np.int64)
    if document.bounds is None:
        first = np.flatnonzero(hits)
        last = first + 3
    else:
        first, last = document.bounds[hits].T
    np.add.at(change, first, 1)
    np.add.at(change, last, -1)
    lacking = np.concatenate([[0], np.cumsum(np.cumsum(change)[:-1] == 0)])
    if count <= WINDOW:
        return int(lacking[-1])
    return int((lacking[WINDOW:] - lacking[:-WINDOW]).max())


@dataclass(frozen=True)
class Rule:
    """The rule by which a document may be removed for a witness."""

    name: str
    threshold: float
    max_new_words: int

    def meets(self, jaccard: float, containment: float, new: int) -> bool:
        match self.name:
            case "nothing_new":
                return containment >= self.threshold - 1e-12 and new <= self.max_new_words
            case "containment":
                return containment >= self.threshold - 1e-12
            case "jaccard":
                return jaccard >= self.threshold - 1e-12
        raise ValueError(f"no such rule: {self.name!r}")


class Violations:
    """The violations, counted by kind; the first three of each are printed."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def add(self, kind: str, said: str) -> None:
        self.count[kind] += 1
        if self.count[kind] <= 3:
            print(f"VIOLATION {kind}: {said}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--run", type=Path, help="the run directory, with decisions/")
    parser.add_argument("--output", type=Path, help="the output of the run")
    parser.add_argument("--kept", type=Path, help="the ids that another tool kept, one per line")
    parser.add_argument("--rule", choices=["nothing_new", "containment", "jaccard", "exact"], default="nothing_new")
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--max-new-words", type=int, default=12)
    parser.add_argument("--recall", action="store_true", help="search for all possible removals")
    options = parser.parse_args()
    if (options.run is None) == (options.kept is None):
        parser.error("give either --run or --kept")
    labels = {one["id"]: one for one in pq.read_table(options.corpus / "labels.parquet").to_pylist()}
    violations = Violations()
    metrics: dict[str, Any] = {}
    if options.kept:
        kept = set(options.kept.read_text().split())
        removed = set(labels) - kept
        if unknown := kept - set(labels):
            sys.exit(f"error: {options.kept} has ids that are not in the corpus, such as {min(unknown)!r}")
    else:
        started = time.perf_counter()
        documents = read(options.corpus)
        rule = Rule(options.rule, options.threshold, options.max_new_words)
        table = decisions(options.run)
        removed = {one["id"] for one in table if one["decision"] == "removed"}
        shingler = Shingler()
        metrics |= check_table(table, documents, labels, violations)
        metrics |= check_exact(table, removed, documents, violations)
        metrics |= check_witnesses(table, removed, documents, rule, shingler, violations)
        if options.output:
            metrics |= check_output(options.output, removed, documents, violations)
        if options.recall:
            metrics |= recall(removed, documents, rule, shingler)
        metrics["truth_s"] = round(time.perf_counter() - started, 1)
    metrics |= by_label(labels, removed)
    metrics["violations"] = sum(violations.count.values())
    for kind, number in sorted(violations.count.items()):
        print(f"{number} times: {kind}")
    print("BENCH", json.dumps(metrics))
    return 1 if violations.count else 0


def read(corpus: Path) -> dict[str, Document]:
    documents = {}
    for path in sorted((corpus / "jsonl").rglob("*.jsonl")):
        name = path.relative_to(corpus / "jsonl").as_posix()
        with path.open("rb") as file:
            for row, line in enumerate(file):
                one = json.loads(line)
                documents[one["id"]] = Document(one["id"], name, row, one["text"])
    return documents


def decisions(run: Path) -> list[dict[str, Any]]:
    """The rows of the table of decisions."""
    files = sorted(str(path) for path in (run / "decisions").rglob("*.parquet"))
    if not files:
        sys.exit(f"error: {run / 'decisions'} has no Parquet files")
    return ds.dataset(files, format="parquet").to_table().to_pylist()


def check_table(
    table: list[dict[str, Any]], documents: dict[str, Document], labels: dict[str, Any], violations: Violations
) -> dict[str, Any]:
    """Check that each row names an existing document and its place, that no document has two rows, and that each
    witness has a row.
    """
    met = Counter(one["id"] for one in table)
    decided = {one["id"]: one["decision"] for one in table}
    sizes = Counter(one["witness_id"] for one in table if one["decision"] == "removed")
    begin: dict[str, tuple[str, int]] = {}
    for one in table:
        name = one["id"]
        if name not in documents:
            violations.add("a row of the table names no existing document", repr(name))
            continue
        document = documents[name]
        if met[name] > 1:
            violations.add("a document has several rows", f"{name} has {met[name]}")
        # A source is a range of one file, and its rows are counted from the first.
        begins = begin.setdefault(one["source"], (document.file, document.row - one["row"]))
        if begins != (document.file, document.row - one["row"]) or one["row"] < 0:
            violations.add("source and row belong to another document", f"{name}: {one['source']} row {one['row']}")
        if one.get("collection") is not None and one["collection"] != labels[name]["collection"]:
            violations.add("the collection is wrong", f"{name}: {one['collection']} not {labels[name]['collection']}")
        if one["decision"] == "removed" and decided.get(one["witness_id"]) != "kept":
            violations.add(
                "the witness does not stay", f"{name}: {one['witness_id']} is {decided.get(one['witness_id'])}"
            )
        cluster = one["witness_id"] if one["decision"] == "removed" else name
        if one.get("cluster_size") is not None and one["cluster_size"] != 1 + sizes[cluster]:
            violations.add(
                "the size of the cluster is wrong", f"{name}: {one['cluster_size']} not {1 + sizes[cluster]}"
            )
        if one["decision"] == "kept" and not sizes[name]:
            violations.add("a row says kept, but its document is not a witness", name)
    return {"documents": len(documents), "removed": sum(one["decision"] == "removed" for one in table)}


def check_exact(
    table: list[dict[str, Any]], removed: set[str], documents: dict[str, Document], violations: Violations
) -> dict[str, Any]:
    """Check the classes of equal texts: precision and recall."""
    classes: defaultdict[str, list[str]] = defaultdict(list)
    for name, document in documents.items():
        if document.text:
            classes[unicodedata.normalize("NFC", document.text)].append(name)
    classes_of = {name: members for members in classes.values() for name in members}
    due = gone = 0
    for members in classes.values():
        stay = sum(name not in removed for name in members)
        due += len(members) - 1
        gone += len(members) - max(stay, 1)
        if stay > 1:
            violations.add("equal texts stay", ", ".join(members[:4]))
    rows = [one for one in table if one["decision"] == "removed" and one["rule"] == "exact"]
    right = sum(one["witness_id"] in classes_of.get(one["id"], ()) for one in rows)
    for one in rows:
        if one["witness_id"] not in classes_of.get(one["id"], ()):
            violations.add("removed as exact, but the texts differ", f"{one['id']}: {one['witness_id']}")
    return {
        "exact_recall": gone / due if due else 1.0,
        "exact_precision": right / len(rows) if rows else 1.0,
        "exact_copies": due,
    }


def check_witnesses(
    table: list[dict[str, Any]],
    removed: set[str],
    documents: dict[str, Document],
    rule: Rule,
    shingler: Shingler,
    violations: Violations,
) -> dict[str, Any]:
    """Check each removal by a rule against the two texts."""
    checked = 0
    for one in table:
        if one["decision"] != "removed" or one["id"] not in documents:
            continue
        document, witness = documents[one["id"]], documents.get(one["witness_id"])
        if witness is None or one["witness_id"] in removed or witness is document:
            violations.add("the witness does not stay", f"{one['id']}: {one['witness_id']}")
            continue
        if len(witness.text) < len(document.text) and not equal(document, witness):
            violations.add(
                "the witness is shorter", f"{one['id']} {len(document.text)}: {one['witness_id']} {len(witness.text)}"
            )
        if one["rule"] == "exact":
            continue  # checked with the classes
        if rule.name == "exact" or not str(one["rule"]).startswith(rule.name):
            violations.add("removed by a rule that was not requested", f"{one['id']}: {one['rule']}")
            continue
        for text in (document, witness):
            if not len(text.distinct):
                shingler.fill(text)
        jaccard, containment, new = compare(document, witness)
        checked += 1
        if not rule.meets(jaccard, containment, new):
            violations.add(
                "the rule is not met",
                f"{one['id']}: {one['witness_id']}, jaccard {jaccard:.4f}, containment {containment:.4f}, new words {new}",
            )
        for name, value in (("jaccard", jaccard), ("containment", containment), ("new_words", new)):
            if one[name] is None or not math.isclose(one[name], value, abs_tol=1e-6):
                violations.add(f"{name} is wrong for these texts", f"{one['id']}: {one[name]} not {value}")
    return {"witnesses_checked": checked}


def equal(one: Document, other: Document) -> bool:
    return unicodedata.normalize("NFC", one.text) == unicodedata.normalize("NFC", other.text)


def check_output(
    output: Path, removed: set[str], documents: dict[str, Document], violations: Violations
) -> dict[str, Any]:
    """Check that the output has exactly the documents that were not removed, each once and unchanged."""
    met: Counter[str] = Counter()
    for path in sorted(output.rglob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                one = json.loads(line)
                met[one["id"]] += 1
                if one["id"] not in documents or documents[one["id"]].text != one["text"]:
                    violations.add("a document was written that is not in the input", one["id"])
    for name in documents:
        if met[name] != (name not in removed):
            kind = (
                "a document that stays was not written once"
                if name not in removed
                else "a removed document was written"
            )
            violations.add(kind, f"{name}: {met[name]} times")
    return {"written": sum(met.values())}


def recall(removed: set[str], documents: dict[str, Document], rule: Rule, shingler: Shingler) -> dict[str, Any]:
    """Count the removed documents among all that have a possible witness: one that stays, comes earlier and meets the
    rule.
    """
    everyone = list(documents.values())
    for document in everyone:
        if not len(document.distinct):
            shingler.fill(document)
    # Small numbers for shingles, so that the shingles of a document can be marked in an array.
    counts = np.array([len(document.distinct) for document in everyone], dtype=np.int64)
    bounds = np.concatenate([[0], np.cumsum(counts)])
    numbers, sets = np.unique(np.concatenate([document.distinct for document in everyone]), return_inverse=True)
    stay = np.array([document.id not in removed for document in everyone])
    owner = np.repeat(np.arange(len(everyone)), counts)
    of_stayers = stay[owner]
    order = np.argsort(sets[of_stayers], kind="stable")
    posted, posters = sets[of_stayers][order], owner[of_stayers][order]
    frequency = np.bincount(posted, minlength=len(numbers))
    first = np.concatenate([[0], np.cumsum(frequency)])
    sizes = np.array([len(document.text) for document in everyone])
    marked = np.zeros(len(numbers), dtype=bool)
    found: list[tuple[float, float, bool, bool]] = []
    for index, document in enumerate(everyone):
        own = sets[bounds[index] : bounds[index + 1]]
        if not len(own):
            continue
        probes = len(own) - math.ceil(rule.threshold * len(own) - 1e-9) + 1
        rarest = own[np.argsort(frequency[own], kind="stable")[:probes]]
        pieces = [posters[first[one] : first[one + 1]] for one in rarest if frequency[one] > (1 if stay[index] else 0)]
        if not pieces:
            continue
        others = np.unique(np.concatenate(pieces))
        # A witness comes first if it is longer; of equally long ones, the one that the table kept comes first, or else
        # the earlier one.
        before = (sizes[others] > sizes[index]) | (
            (sizes[others] == sizes[index]) & ((others < index) | (not stay[index]))
        )
        others = others[before & (others != index)]
        if not len(others):
            continue
        marked[own] = True
        parts = [sets[bounds[other] : bounds[other + 1]] for other in others]
        ends = np.cumsum([len(part) for part in parts])
        shared = np.add.reduceat(marked[np.concatenate(parts)].astype(np.int64), np.concatenate([[0], ends[:-1]]))
        marked[own] = False
        containment = shared / len(own)
        jaccard = shared / (len(own) + counts[others] - shared)
        fit = (jaccard if rule.name == "jaccard" else containment) >= rule.threshold - 1e-12
        if not fit.any():
            continue
        others, jaccard = others[fit], jaccard[fit]
        if rule.name == "nothing_new":
            # If a word is not covered by all candidates together, no candidate covers it; most documents with a
            # template are excluded here.
            together = np.concatenate([part for part, fits in zip(parts, fit, strict=True) if fits])
            marked[together] = True
            hits = marked[np.searchsorted(numbers, document.places)]
            marked[together] = False
            if new_words(document, hits) > rule.max_new_words:
                continue
        for at in np.argsort(-jaccard, kind="stable"):
            witness = everyone[others[at]]
            if rule.meets(*compare(document, witness)):
                ratio = counts[others[at]] / len(own)
                found.append((float(jaccard[at]), float(ratio), not stay[index], equal(document, witness)))
                break
    similar = [one for one in found if one[0] >= 0.7]
    metrics = {
        "recall": share([one[2] for one in similar]),
        "recall_unequal": share([one[2] for one in similar if not one[3]]),
    }
    metrics["recall_any_jaccard"] = share([one[2] for one in found])
    for low, high in ((0.0, 0.5), (0.5, 0.6), (0.6, 0.7), (0.7, 0.75), (0.75, 0.8), (0.8, 0.9), (0.9, 1.0), (1.0, 1.1)):
        chosen = [one[2] for one in found if low <= one[0] < high and not one[3]]
        metrics[f"recall_jaccard_{low:g}_{min(high, 1):g}"] = share(chosen)
    for low, high in ((0.0, 1.05), (1.05, 1.25), (1.25, 1.5), (1.5, 2.0), (2.0, 4.0), (4.0, 8.0), (8.0, math.inf)):
        chosen = [one[2] for one in found if low <= one[1] < high and not one[3]]
        metrics[f"recall_ratio_{low:g}_{high:g}"] = share(chosen)
    width = max(map(len, metrics))
    for name, value in metrics.items():
        print(f"{name:<{width}} {value['share']:.4f} [{value['low']:.4f}, {value['high']:.4f}] of {value['of']}")
    flat = {name: round(value["share"], 5) for name, value in metrics.items() if value["of"]}
    return flat | {"recall_low": round(metrics["recall"]["low"], 5), "recall_of": metrics["recall"]["of"]}


def share(hits: list[bool]) -> dict[str, Any]:
    """A share with its 95 % interval (Wilson)."""
    count, z = len(hits), 1.96
    if not count:
        return {"share": math.nan, "low": math.nan, "high": math.nan, "of": 0}
    rate = sum(hits) / count
    middle, spread = rate + z * z / (2 * count), z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    below, above = (middle - spread) / (1 + z * z / count), (middle + spread) / (1 + z * z / count)
    return {"share": rate, "low": max(0.0, below), "high": min(1.0, above), "of": count}


def by_label(labels: dict[str, dict[str, Any]], removed: set[str]) -> dict[str, Any]:
    """Compare with the labels: copies found, by kind, and different documents that were removed."""
    families: defaultdict[str, list[str]] = defaultdict(list)
    for name, one in labels.items():
        if one["original"] is not None:
            families[one["original"]].append(name)
    found: defaultdict[str, list[bool]] = defaultdict(list)
    lost = 0
    for original, copies in families.items():
        family = [original, *copies]
        kept = [name for name in family if name not in removed]
        lost += not kept
        one = labels[copies[0]]
        match one["kind"]:
            case "near":
                found[f"near_{one['rate']:g}"].append(len(kept) < len(family))
            case "contained":
                found[f"contained_{one['ratio']:g}"].append(len(kept) < len(family))
            case "form":
                found[f"form_{one['form']}"].append(len(kept) < len(family))
            case kind:
                due = len(copies)
                gone = min(due, len(family) - len(kept))
                found[kind] += [True] * gone + [False] * (due - gone)
    for name, one in labels.items():
        kind, gone = one["kind"], name in removed
        if kind.startswith("trap_"):
            own = one["own_words"]
            found[f"removed_{kind}_{'under_40' if own < 40 else '40_or_more'}"].append(gone)
        elif kind == "base" and name not in families:
            found["removed_base_alone"].append(gone)
    print(f"{'by label':<32} {'share':>7}  count")
    for kind in sorted(found, key=natural):
        print(f"{kind:<32} {sum(found[kind]) / len(found[kind]):7.2%}  {sum(found[kind])} of {len(found[kind])}")
    print(f"families without any kept document: {lost}")
    shares = {f"label_{kind}": round(sum(hits) / len(hits), 5) for kind, hits in sorted(found.items())}
    trap = {f"count_{kind}": sum(hits) for kind, hits in sorted(found.items()) if kind.startswith("removed_")}
    return shares | trap | {"families_lost": lost}


def report_kept(corpus: Path, output: Path) -> dict[str, Any]:
    """Compare the documents that another tool wrote with the labels."""
    labels = {one["id"]: one for one in pq.read_table(corpus / "labels.parquet").to_pylist()}
    files = sorted(output.glob("*.jsonl"))  # Data-Juicer keeps logs in subfolders
    kept = {json.loads(line)["id"] for path in files for line in path.read_bytes().splitlines()}
    return {"documents": len(labels), "rows_out": len(kept), **by_label(labels, set(labels) - kept)}


def natural(name: str) -> list[Any]:
    return [float(part) if part[:1].isdigit() else part for part in re.split(r"(\d+(?:\.\d+)?)", name)]


if __name__ == "__main__":
    sys.exit(main())
