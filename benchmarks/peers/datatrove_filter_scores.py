"""Records the decisions and reasons of datatrove's filters for the parity corpus in a committed file.

    sh benchmarks/peers/datatrove.sh
    benchmarks/peers/envs/datatrove/bin/python benchmarks/peers/datatrove_filter_scores.py \
        packages/curator-text/tests/filters/data

Words are separated by white space, and sentences end with `.?!`: datatrove gets a tokenizer for that as its language,
so the comparison is with its own rules, not with spaCy's. Every rule is also recorded alone, with all other limits off,
because the first broken limit hides the others.
"""

from __future__ import annotations

import re
import sys
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4ParagraphFilter,
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils.word_tokenizers import WordTokenizer

END = re.compile(r"[.?!]+[\"'”’)\]]*(?=\s|$)")  # noqa: RUF001


class WhiteSpace(WordTokenizer):
    """A tokenizer with words and sentences as described above."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        raise NotImplementedError

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        ends = [match.end() for match in END.finditer(text)]
        if text[ends[-1] if ends else 0 :].strip():
            ends.append(len(text))
        return list(zip([0, *ends], ends, strict=False))


def main() -> None:
    folder = Path(sys.argv[1])
    texts = pq.read_table(folder / "corpus.parquet").column("text").to_pylist()
    words = WhiteSpace()
    none = dict.fromkeys(
        (
            "min_doc_words",
            "max_doc_words",
            "min_avg_word_length",
            "max_avg_word_length",
            "max_symbol_word_ratio",
            "max_bullet_lines_ratio",
            "max_ellipsis_lines_ratio",
            "max_non_alpha_words_ratio",
            "min_stop_words",
        )
    )
    calm = {
        "dup_line_frac": None,
        "dup_para_frac": None,
        "dup_line_char_frac": None,
        "dup_para_char_frac": None,
        "top_n_grams": (),
        "dup_n_grams": (),
    }
    open_ = {"line_punct_thr": -1.0, "short_line_thr": 2.0, "char_duplicates_ratio": 2.0, "new_line_ratio": 1e9}
    quality = [
        {},
        *(
            {**none, **limit}
            for limit in (
                {"min_doc_words": 50},
                {"min_avg_word_length": 4},
                {"max_avg_word_length": 6},
                {"max_symbol_word_ratio": 0.02},
                {"max_bullet_lines_ratio": 0.3},
                {"max_ellipsis_lines_ratio": 0.1},
                {"max_non_alpha_words_ratio": 0.7},
                {"min_stop_words": 3},
            )
        ),
    ]
    repetition = [
        {},
        *(
            {**calm, **limit}
            for limit in (
                {"dup_line_frac": 0.05},
                {"dup_para_frac": 0.05},
                {"dup_line_char_frac": 0.03},
                {"dup_para_char_frac": 0.02},
                {"top_n_grams": ((2, 0.05),)},
                {"top_n_grams": ((3, 0.07),)},
                {"top_n_grams": ((4, 0.08),)},
                {"dup_n_grams": ((5, 0.05),)},
                {"dup_n_grams": ((6, 0.04),)},
                {"dup_n_grams": ((7, 0.03),)},
                {"dup_n_grams": ((10, 0.02),)},
            )
        ),
    ]
    fineweb = [
        {},
        *(
            {**open_, **limit}
            for limit in (
                {"line_punct_thr": 0.3},
                {"short_line_thr": 0.5},
                {"char_duplicates_ratio": 0.005},
                {"new_line_ratio": 0.1},
            )
        ),
    ]
    c4 = [
        {},
        {"filter_no_terminal_punct": False},
        {"min_num_sentences": 1, "filter_curly_bracket": False},
        {"min_num_sentences": 2, "remove_citations": False, "filter_policy": False},
    ]
    columns: dict[str, pa.Array] = {}
    for kind, variants in (
        (GopherQualityFilter, quality),
        (GopherRepetitionFilter, repetition),
        (FineWebQualityFilter, fineweb),
        (C4QualityFilter, c4),
        (C4ParagraphFilter, [{}]),
    ):
        for variant in variants:
            language = {} if kind is C4ParagraphFilter else {"language": words}
            judge = kind(**variant, **language)
            reasons: list[str] = []
            hashes: list[int] = []
            for index, text in enumerate(texts):
                document = Document(text=text, id=str(index))
                try:
                    answer = judge.filter(document)
                    reasons.append("" if answer is True else answer[1])
                except ZeroDivisionError:
                    reasons.append("ZeroDivisionError")
                hashes.append(zlib.crc32(document.text.encode()) if answer is True else 0)
            name = f"{kind.__name__} {variant!r}"
            columns[name] = pa.array(reasons).dictionary_encode()
            if kind is C4QualityFilter:
                columns[f"{name} crc32"] = pa.array(hashes)
            print(name, sum(not reason for reason in reasons), "kept", reasons.count("ZeroDivisionError"), flush=True)
    pq.write_table(pa.table(columns), folder / "datatrove.parquet", compression="zstd", compression_level=19)


if __name__ == "__main__":
    main()
