"""Times NeMo Curator's filters over the documents of text_filters.py, with the same filters, limits and order.

The filter objects are called in the same way as by NeMo Curator's ScoreFilter stage, in one process without an engine,
and only the filters are timed; the cost of an engine would be added to that.

    {peer}/bin/python benchmarks/peers/nemo_text_filters.py FOLDER [--set web-english|eight] [--documents 1500]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pyarrow.parquet as pq
from nemo_curator.stages.text.filters.heuristic import repetition as r
from nemo_curator.stages.text.filters.heuristic import string as s

EIGHT = [
    s.WordCountFilter(min_words=50, max_words=100000),
    s.NonAlphaNumericFilter(0.25),
    s.SymbolsToWordsFilter(0.1),
    s.BulletsFilter(0.9),
    s.EllipsisFilter(0.3),
    s.MeanWordLengthFilter(3, 10),
    r.RepeatedLinesFilter(0.7),
    r.RepeatingTopNGramsFilter(n=2, max_repeating_ngram_ratio=0.2),
]
WEB_ENGLISH = [
    s.NonAlphaNumericFilter(),
    s.SymbolsToWordsFilter(),
    s.NumbersFilter(),
    s.UrlsFilter(),
    s.WhiteSpaceFilter(),
    s.ParenthesesFilter(),
    s.BoilerPlateStringFilter(),
    r.RepeatedLinesFilter(),
    r.RepeatedParagraphsFilter(),
    r.RepeatedLinesByCharFilter(),
    r.RepeatedParagraphsByCharFilter(),
    s.WordCountFilter(),
    s.PunctuationFilter(),
    s.WordsWithoutAlphabetsFilter(),
    s.CommonEnglishWordsFilter(),
    s.MeanWordLengthFilter(),
    s.LongWordFilter(),
    s.EllipsisFilter(),
    *(r.RepeatingTopNGramsFilter(n, limit) for n, limit in ((2, 0.2), (3, 0.18), (4, 0.16))),
    *(
        r.RepeatingDuplicateNGramsFilter(n, limit)
        for n, limit in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    ),
    s.BulletsFilter(),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", choices=("web-english", "eight"), default="web-english", dest="name")
    parser.add_argument("--chars", type=int, default=4000)
    parser.add_argument("--documents", type=int, default=1500)
    options = parser.parse_args()
    judges = EIGHT if options.name == "eight" else WEB_ENGLISH
    documents: list[str] = []
    for path in sorted((options.folder / "parquet").glob("*.parquet")):
        documents += [
            t[: options.chars] if options.chars else t
            for t in pq.read_table(path, columns=["text"]).column("text").to_pylist()
            if len(t) >= options.chars
        ]
    documents = documents[: options.documents]
    started = time.process_time()
    kept = sum(all(judge.keep_document(judge.score_document(text)) for judge in judges) for text in documents)
    filtered = time.process_time() - started
    started = time.process_time()
    for text in documents:
        for judge in judges:
            try:
                judge.score_document(text)
            except (ValueError, ZeroDivisionError):  # a text without words
                continue
    scored = time.process_time() - started
    print(
        "BENCH",
        json.dumps(
            {
                "filters": len(judges),
                "documents": len(documents),
                "kept": kept,
                "docs_per_s": round(len(documents) / filtered, 1),
                "docs_per_s_all": round(len(documents) / scored, 1),
            }
        ),
    )


if __name__ == "__main__":
    main()
