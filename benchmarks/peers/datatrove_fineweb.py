"""Compares FineWeb's recipe in datatrove with ours, stage by stage, on the pages of `examples/fineweb-minhash`.

    benchmarks/peers/envs/datatrove/bin/python benchmarks/peers/datatrove_fineweb.py there MADE OUT
    python benchmarks/peers/datatrove_fineweb.py here MADE OUT

``there`` runs the filters of datatrove's own `examples/fineweb.py`, in its order and with its limits, and then its
MinHash (word 5-grams, 14 buckets of 8), and writes the ids that remain after each stage to ``OUT/there.json``. ``here``
does the same with our filters, writes to ``OUT/here.json``, and prints both results side by side, with the reasons why
documents remain on only one side. datatrove gets words separated by white space, as in `datatrove_filter_scores.py`;
its address filter gets the one word that the example blocks.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

BLOCKED = ["casino"]
STAGES = ["addresses", "repetition", "quality", "c4", "fineweb", "minhash"]


def main() -> None:
    side, made, out = sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    left = there(made, out / "there") if side == "there" else here(made, out / "here")
    (out / f"{side}.json").write_text(json.dumps(left))
    if side == "here" and (out / "there.json").exists():
        theirs = json.loads((out / "there.json").read_text())
        print(compared(left, theirs))
        print(explained(left, theirs, out / "here" / "fineweb"))


def compared(ours: dict[str, list[str]], theirs: dict[str, list[str]]) -> str:
    lines = ["| stage | left here | left there | only here | only there |", "|---|---|---|---|---|"]
    for name in STAGES:
        one, other = set(ours[name]), set(theirs[name])
        lines.append(f"| {name} | {len(one)} | {len(other)} | {len(one - other)} | {len(other - one)} |")
    return "\n".join(lines)


def explained(ours: dict[str, list[str]], theirs: dict[str, list[str]], before: Path) -> str:
    """Documents that remain on only one side after MinHash, with the most similar document that remains on the other,
    by brute force.
    """
    texts = {}
    for file in before.rglob("*.jsonl"):
        for line in file.read_bytes().splitlines():
            row = json.loads(line)
            words = re.findall(r"\w+", row["text"].lower())
            texts[row["id"]] = {tuple(words[at : at + 5]) for at in range(max(1, len(words) - 4))}

    def alike(one: str, among: set[str]) -> float:
        own = texts[one]
        return max((len(own & texts[other]) / len(own | texts[other]) for other in among if other != one), default=0.0)

    left, kept = set(ours["minhash"]), set(theirs["minhash"])
    lines = []
    for name, alone, others in (("here", left - kept, kept), ("there", kept - left, left)):
        found = [alike(one, others) for one in sorted(alone)]
        lines.append(
            f"only {name}: {len(found)}; for {sum(value >= 0.75 for value in found)}, the other side has one with a "
            f"Jaccard similarity of 0.75 or more, for {sum(value < 0.75 for value in found)} it has none"
        )
    pairs = sum(alike(one, kept) >= 0.75 for one in kept) / 2, sum(alike(one, left) >= 0.75 for one in left) / 2
    lines.append(f"remaining pairs of 0.75 or more: about {pairs[1]:.0f} here, {pairs[0]:.0f} there")
    return "\n".join(lines)


def ids_in(folder: Path) -> list[str]:
    files = sorted(folder.rglob("*.jsonl"))
    return sorted(json.loads(line)["id"] for file in files for line in file.read_bytes().splitlines())


def here(made: Path, work: Path) -> dict[str, list[str]]:
    from curator_core import LocalExecutor, Pipeline
    from curator_text import JsonlReader, JsonlWriter
    from curator_text.dedup.fuzzy import FuzzyDedup
    from curator_text.presets import FineWeb

    shutil.rmtree(work, ignore_errors=True)
    local = LocalExecutor(workers=0)
    before, left = str(made), {}
    recipe = FineWeb(language=None, blocked_words=BLOCKED).filters()
    for name, stage in zip(STAGES, recipe, strict=False):
        target = work / name
        pipeline = Pipeline([JsonlReader(paths=before), stage, JsonlWriter(path=str(target))])
        pipeline.run(local, run_dir=str(work / "runs" / name))
        before, left[name] = str(target), ids_in(target)
    target = work / "minhash"
    keep = FuzzyDedup(
        paths=before, path=str(target), ngram=5, bands=14, rows=8, rule="jaccard", threshold=0.75, keep=["first"]
    )
    keep.run(local, run_dir=str(work / "runs" / "minhash"))
    return {**left, "minhash": ids_in(target)}


def there(made: Path, work: Path) -> dict[str, list[str]]:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        URLFilter,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove_filter_scores import WhiteSpace

    shutil.rmtree(work, ignore_errors=True)
    words: Any = WhiteSpace()
    filters = [
        URLFilter(banned_words=BLOCKED, use_integrated_lists=False),
        GopherRepetitionFilter(language=words),
        GopherQualityFilter(language=words),
        C4QualityFilter(filter_no_terminal_punct=False, language=words),
        FineWebQualityFilter(language=words),
    ]

    def run(name: str, steps: list[Any], tasks: int = 1) -> None:
        logs = str(work / "logs" / name)
        LocalPipelineExecutor(pipeline=steps, tasks=tasks, workers=1, logging_dir=logs).run()

    before, left = str(made), {}
    for name, stage in zip(STAGES, filters, strict=False):
        target = work / name
        run(name, [JsonlReader(before), stage, JsonlWriter(str(target), compression=None)])
        before, left[name] = str(target), ids_in(target)
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    signatures, buckets, found = (str(work / name) for name in ("signatures", "buckets", "found"))
    sign = MinhashDedupSignature(output_folder=signatures, config=config, language=words)
    run("sign", [JsonlReader(before), sign])
    run("join", [MinhashDedupBuckets(input_folder=signatures, output_folder=buckets, config=config)], 14)
    run("cluster", [MinhashDedupCluster(input_folder=buckets, output_folder=found, config=config)])
    target = work / "minhash"
    drop = MinhashDedupFilter(input_folder=found)
    run("drop", [JsonlReader(before), drop, JsonlWriter(str(target), compression=None)])
    return {**left, "minhash": ids_in(target)}


if __name__ == "__main__":
    main()
