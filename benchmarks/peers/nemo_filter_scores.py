"""Records the scores and decisions of NeMo Curator's filters for the parity corpus in a committed file.

    sh benchmarks/peers/nemo.sh
    PYTHONHASHSEED=0 benchmarks/peers/envs/nemo/bin/python benchmarks/peers/nemo_filter_scores.py \
        packages/curator-text/tests/filters/data

If a filter raises on a document, its score there is null. The hash seed is fixed because the most frequent n-gram is
picked from a set, so some scores of RepeatingTopNGramsFilter would differ between runs; the tests list these scores.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from nemo_curator.stages.text.filters.heuristic import code, repetition, string

warnings.simplefilter("ignore")


def main() -> None:
    folder = Path(sys.argv[1])
    texts = pq.read_table(folder / "corpus.parquet").column("text").to_pylist()
    per_extension = code.PerExtensionFilter("python", "py", metadata_file=str(folder / "code_meta.csv"))
    filters = {
        **{
            cls.__name__: cls()
            for cls in (
                string.NonAlphaNumericFilter,
                string.SymbolsToWordsFilter,
                string.NumbersFilter,
                string.UrlsFilter,
                string.BulletsFilter,
                string.WhiteSpaceFilter,
                string.ParenthesesFilter,
                string.LongWordFilter,
                string.WordCountFilter,
                string.BoilerPlateStringFilter,
                string.MeanWordLengthFilter,
                string.PunctuationFilter,
                string.EllipsisFilter,
                string.CommonEnglishWordsFilter,
                string.WordsWithoutAlphabetsFilter,
                string.PornographicUrlsFilter,
                repetition.RepeatedLinesFilter,
                repetition.RepeatedParagraphsFilter,
                repetition.RepeatedLinesByCharFilter,
                repetition.RepeatedParagraphsByCharFilter,
                code.PythonCommentToCodeFilter,
                code.NumberOfLinesOfCodeFilter,
                code.AlphaFilter,
                code.XMLHeaderFilter,
                code.HTMLBoilerplateFilter,
            )
        },
        "CommonEnglishWordsFilter(stop_at_false=False)": string.CommonEnglishWordsFilter(stop_at_false=False),
        "SubstringFilter(substring='the', position='any')": string.SubstringFilter("the", "any"),
        "SubstringFilter(substring='T', position='prefix')": string.SubstringFilter("T", "prefix"),
        "SubstringFilter(substring='.', position='suffix')": string.SubstringFilter(".", "suffix"),
        "GeneralCommentToCodeFilter(language='text/x-c')": code.GeneralCommentToCodeFilter("text/x-c"),
        "GeneralCommentToCodeFilter(language='text/x-python')": code.GeneralCommentToCodeFilter("text/x-python"),
        "GeneralCommentToCodeFilter(language='text/html')": code.GeneralCommentToCodeFilter("text/html"),
        "GeneralCommentToCodeFilter(language='text/x-shellscript')": code.GeneralCommentToCodeFilter(
            "text/x-shellscript"
        ),
        "GeneralCommentToCodeFilter(language='application/javascript')": code.GeneralCommentToCodeFilter(
            "application/javascript"
        ),
        "PerExtensionFilter(lang='python', extension='py')": per_extension,
        **{f"RepeatingTopNGramsFilter(n={n})": repetition.RepeatingTopNGramsFilter(n=n) for n in (1, 2, 3, 4)},
        **{
            f"RepeatingDuplicateNGramsFilter(n={n})": repetition.RepeatingDuplicateNGramsFilter(n=n)
            for n in (1, 2, 3, 5, 6, 7, 8, 9, 10)
        },
    }
    columns: dict[str, pa.Array] = {}
    for name, judge in filters.items():
        scores: list[float | None] = []
        kept: list[bool | None] = []
        for text in texts:
            try:
                score = judge.score_document(text)
                scores.append(None if score is None else float(score))
                kept.append(bool(judge.keep_document(score)))
            except Exception:  # an error of the peer is recorded as its result
                scores.append(None)
                kept.append(None)
        columns[name] = pa.array(scores, pa.float64())
        columns[f"{name} keep"] = pa.array(kept, pa.bool_())
        print(name, sum(score is None for score in scores), "without a score", flush=True)
    pq.write_table(pa.table(columns), folder / "nemo.parquet", compression="zstd", compression_level=19)


if __name__ == "__main__":
    main()
