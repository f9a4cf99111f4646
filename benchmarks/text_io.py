"""Compares reading, writing and extracting with bare libraries over the same bytes in one process.

python benchmarks/text_io.py json FOLDER SCRATCH        FOLDER contains *.jsonl python benchmarks/text_io.py parquet
FOLDER SCRATCH     FOLDER contains *.parquet python benchmarks/text_io.py run FOLDER SCRATCH         whole processes:
`curate run` and a script of pyarrow and orjson python benchmarks/text_io.py html

Contenders take turns (for JSON, on each file of the corpus), and a ratio of processor time is the median over many
short rounds, so that other load affects all of them equally. The time of the stages includes their additional work:
checks of every line, a hash of every file, atomic writing; and for pages a separate process and, unless `text_only`,
title, language and share of links. `…_with_sha256` compares with bare calls that also hash their output.

For pages, the bare loop detects the encoding, decodes, and calls `extract_plain_text`, without checking the type of the
page, limits, or a table. `…_with_details` compares with a bare loop that also finds title, language and share of links,
on one tree, with the language from the same number of characters and the links by the same expression as the stage
(reading links from the tree takes a hundred times as long as everything else). The time in the guarded process counts.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

TURNS = 25


def turns(
    jobs: dict[str, Callable[[], object]], clock: Callable[[], float], count: int = TURNS
) -> list[dict[str, float]]:
    """The times of many short rounds. Each round runs the jobs forwards and backwards, so a change in load affects all
    of them equally.
    """
    for job in jobs.values():
        job()
    rounds = []
    for _ in range(count):
        taken = dict.fromkeys(jobs, 0.0)
        for name in [*jobs, *reversed(jobs)]:
            started = clock()
            jobs[name]()
            taken[name] += (clock() - started) / 2
        rounds.append(taken)
    return rounds


def ratio_of(rounds: list[dict[str, float]], one: str, other: str) -> float:
    return statistics.median(taken[one] / taken[other] for taken in rounds)


def bench_json(folder: Path, scratch: Path) -> dict[str, float]:
    import orjson
    import pyarrow.json as pj

    from curator_core.model.task import FileGroupTask
    from curator_text.readers import JsonlRead
    from curator_text.writers import JsonlWriter

    bare = scratch / "bare.jsonl"
    options = pj.ReadOptions(use_threads=False, block_size=8 << 20)

    def ours_read(path: Path) -> int:
        return sum(batch.num_rows for batch in JsonlRead().process(FileGroupTask(data=[str(path)])))

    def ours(path: Path) -> None:
        writer = JsonlWriter(path=str(scratch / "ours"))
        for number, batch in enumerate(JsonlRead().process(FileGroupTask(data=[str(path)]))):
            batch.task_id = f"part-{number}"
            writer.process(batch)

    def arrow_read(path: Path) -> None:
        pj.read_json(path, read_options=options)

    def arrow(path: Path) -> None:
        with bare.open("wb", buffering=1 << 20) as out:
            for batch in pj.read_json(path, read_options=options).to_batches():
                for row in batch.to_pylist():
                    out.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def arrow_hashed(path: Path) -> None:
        arrow(path)
        with bare.open("rb") as written:
            hashlib.file_digest(written, "sha256")

    def plain_orjson(path: Path) -> None:
        with bare.open("wb", buffering=1 << 20) as out, path.open("rb") as lines:
            for line in lines:
                out.write(orjson.dumps(orjson.loads(line), option=orjson.OPT_APPEND_NEWLINE))

    jobs = (ours_read, ours, arrow_read, arrow, arrow_hashed, plain_orjson)
    rounds, sizes = [], []
    for path in sorted(folder.glob("**/*.jsonl")):
        rounds += turns({job.__name__: partial(job, path) for job in jobs}, time.process_time, 1)
        sizes.append(path.stat().st_size / 1e6)

    def speed(job: str) -> float:
        return statistics.median(size / taken[job] for size, taken in zip(sizes, rounds, strict=True))

    ratio = partial(ratio_of, rounds)
    return {
        "mb": sum(sizes),
        "read_mb_s": speed("ours_read"),
        "read_write_mb_s": speed("ours"),
        "read_to_pyarrow": ratio("arrow_read", "ours_read"),
        "read_write_to_pyarrow_and_orjson": ratio("arrow", "ours"),
        "read_write_to_pyarrow_and_orjson_with_sha256": ratio("arrow_hashed", "ours"),
        "read_write_to_orjson": ratio("plain_orjson", "ours"),
    }


def bench_parquet(folder: Path, scratch: Path) -> dict[str, float]:
    import pyarrow.parquet as pq

    from curator_core.model.task import FileGroupTask
    from curator_text.readers.parquet import ParquetRead
    from curator_text.writers import ParquetWriter

    def ours_read(path: Path) -> int:
        return sum(batch.num_rows for batch in ParquetRead().process(FileGroupTask(data=[str(path)])))

    def ours(path: Path) -> None:
        writer = ParquetWriter(path=str(scratch / "ours"))
        for number, batch in enumerate(ParquetRead().process(FileGroupTask(data=[str(path)]))):
            batch.task_id = f"part-{number}"
            writer.process(batch)

    def arrow_read(path: Path) -> None:
        pq.read_table(path, use_threads=False)

    def arrow(path: Path) -> None:
        pq.write_table(pq.read_table(path, use_threads=False), scratch / "bare.parquet", compression="zstd")

    jobs = (ours_read, ours, arrow_read, arrow)
    rounds = []
    for path in sorted(folder.glob("**/*.parquet")):
        if path.name != "labels.parquet":
            rounds += turns({job.__name__: partial(job, path) for job in jobs}, time.process_time, 1)

    ratio = partial(ratio_of, rounds)
    return {
        "parquet_read_to_pyarrow": ratio("arrow_read", "ours_read"),
        "parquet_read_write_to_pyarrow": ratio("arrow", "ours"),
    }


SCRIPT = """\
import sys, orjson, pyarrow.json as pj
from pathlib import Path
folder, target = map(Path, sys.argv[1:])
target.mkdir()
for path in sorted(folder.glob("**/*.jsonl")):
    with (target / path.name).open("wb", buffering=1 << 20) as out:
        for batch in pj.read_json(path, read_options=pj.ReadOptions(block_size=8 << 20)).to_batches():
            for row in batch.to_pylist():
                out.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
"""
PIPELINE = "stages: [{{JsonlReader: {{paths: {source}}}}}, {{JsonlWriter: {{path: {target}}}}}]\n"


def bench_run(folder: Path, scratch: Path) -> dict[str, float]:
    """The wall time of the whole command, for the corpus once and for eight copies of it, since the start dominates the
    first time.
    """
    eightfold = scratch / "eightfold"
    eightfold.mkdir(parents=True)
    for path in sorted(folder.glob("**/*.jsonl")):
        for number in range(8):
            (eightfold / f"{number}-{path.name}").symlink_to(path.resolve())
    script, pipeline = scratch / "bare.py", scratch / "pipeline.yaml"
    script.write_text(SCRIPT)
    found = {}
    for name, source, repeats in (("once", folder.resolve(), 5), ("eightfold", eightfold.resolve(), 3)):
        walls: dict[str, list[float]] = {"bare": [], "ours": []}
        for _ in range(repeats):
            target = scratch / "out"
            pipeline.write_text(
                PIPELINE.format(source=json.dumps(f"{source}/**/*.jsonl"), target=json.dumps(str(target)))
            )
            bare = [sys.executable, script, source, target]
            curate = [
                Path(sys.executable).with_name("curate"),
                "run",
                pipeline,
                "--quiet",
                "--run-dir",
                scratch / "run",
            ]
            for job, command in (("bare", bare), ("ours", curate)):
                started = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                walls[job].append(time.perf_counter() - started)
                shutil.rmtree(target)
            shutil.rmtree(scratch / "run")
        found[f"{name}_s"] = statistics.median(walls["ours"])
        found[f"{name}_to_script"] = statistics.median(b / o for b, o in zip(walls["bare"], walls["ours"], strict=True))
    return found


def bench_html() -> dict[str, float]:
    import pyarrow as pa
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding
    from resiliparse.parse.html import HTMLTree
    from resiliparse.parse.lang import detect_fast

    from curator_core.model.task import DocumentBatch
    from curator_text.extract import HtmlExtractor

    menu = "".join(f'<li><a href="/{n}">entry {n}</a></li>' for n in range(60))
    pages = []
    for number in range(75):
        body = "".join(
            f"<p>Sentence {i} of page {number} says that <b>much</b> is <a href='/x'>known</a> about it. " * 2 + "</p>"
            for i in range(100)
        )
        page = f"<html><head><title>{number}</title></head><body><nav><ul>{menu}</ul></nav><main>{body}</main></body></html>"
        pages.append(page.encode())
    batch = DocumentBatch(data=pa.table({"content": pages}))
    stages = {
        "ours": HtmlExtractor(),
        "text_only": HtmlExtractor(title_column=None, language_column=None, link_ratio_column=None),
    }
    link = re.compile(r"<a[\s>][^>]*>([^<]*)", re.IGNORECASE)

    def bare() -> None:
        for page in pages:
            extract_plain_text(bytes_to_str(page, detect_encoding(page) or "utf-8"), main_content=True)

    def bare_details() -> None:
        for page in pages:
            text = bytes_to_str(page, detect_encoding(page) or "utf-8")
            tree = HTMLTree.parse(text)
            _ = tree.title, detect_fast(extract_plain_text(tree, main_content=True)[:2000])
            _ = sum(map(len, link.findall(text))) / len(tree.body.text)

    def clock() -> float:
        """The processor time of this process and of its children."""
        spent = time.process_time()
        for child in Path("/proc/self/task").glob("*/children"):
            for number in child.read_text().split():
                spent += int(Path(f"/proc/{number}/schedstat").read_text().split()[0]) / 1e9
        return spent

    jobs: dict[str, Callable[[], object]] = {"bare": bare, "bare_details": bare_details}
    for name, stage in stages.items():
        jobs[name] = partial(stage.process, batch)
    try:
        rounds = turns(jobs, clock)
    finally:
        for stage in stages.values():
            stage.teardown()

    ratio = partial(ratio_of, rounds)
    return {
        "pages_s": len(pages) / statistics.median(taken["ours"] for taken in rounds),
        "text_only_to_resiliparse": ratio("bare", "text_only"),
        "extract_to_resiliparse": ratio("bare", "ours"),
        "extract_to_resiliparse_with_details": ratio("bare_details", "ours"),
    }


if __name__ == "__main__":
    kind, *folders = sys.argv[1:]
    bench = {"json": bench_json, "parquet": bench_parquet, "run": bench_run, "html": bench_html}[kind]
    found = bench(*map(Path, folders))
    print("BENCH", json.dumps({key: round(value, 4) for key, value in found.items()}))
