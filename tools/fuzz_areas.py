"""The areas of the fuzzer: one class for each kind of input, which damages it and checks the result.

An area makes good input, damages it, runs Curator on it and compares the result with that of another reader of the
format. All random choices come from one generator, so an input can be made again from its number.
"""

from __future__ import annotations

import bz2
import csv
import functools
import gzip
import importlib
import io
import json
import lzma
import random
import re
import shutil
import sys
import tarfile
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
import zstandard
from PIL import Image
from warcio.archiveiterator import ArchiveIterator  # type: ignore[import-untyped]
from workspace import ROOT

from curator_core import CuratorError, DocumentBatch, LocalExecutor, Pipeline, RunResult, StageError, WorkerMetadata
from curator_core.accounts.ledger import open_accounts
from curator_core.cli import run_command
from curator_core.config.pipeline_file import load_pipeline
from curator_image import ImageReader, ImageWriter
from curator_text import CsvReader, HtmlExtractor, JsonlReader, JsonlWriter, ParquetReader, WarcReader

# Reasons of rejects that cover a whole file, or the rest of a file from some place on.
FILE_REASONS = {"truncated file", "broken CSV", "damaged Parquet"}
HERE = LocalExecutor(workers=0)
TEMPORARY = tempfile.gettempdir()  # because each input gets its own temporary folder
Rows = list[dict[str, Any]]


class Finding(Exception):
    """A fault; the message describes it without details that differ between inputs."""


class Area(ABC):
    """A kind of input. ``share`` is its share of all inputs; ``noted`` counts notable results that are not faults."""

    share: ClassVar[int] = 1

    def __init__(self) -> None:
        self.noted: Counter[str] = Counter()

    @abstractmethod
    def check(self, rng: random.Random, cage: Path) -> None:
        """Make an input in ``cage/in``, run Curator over it, and raise `Finding` if something is wrong."""

    def close(self) -> None:  # noqa: B027 - most areas keep nothing
        """Release objects that are kept between inputs."""


# Damage ---------------------------------------------------------------------------------------------------------------

PIECES = [
    *(
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\r",
        b"\n",
        b'"',
        b'""',
        b",",
        b"{",
        b"[" * 900,
        b"]",
        b"}",
    ),
    *(
        b"-",
        b"1e999",
        b"NaN",
        b"\\ud800",
        b"\\",
        b"../",
        b"WARC/1.0\r\n",
        b"\x1f\x8b",
        b"PK",
        b"99999999999999999999",
        b"&",
        b"<!--",
    ),
    *(
        b"\xff\xd8",
        b"\xff\xd9",
        b"\x89PNG",
        b"RIFF",
        b"ustar",
        b"*a",
        b"&a ",
        b"!!python/object:os.system ",
        b"\t",
        b"PAR1",
    ),
]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """``data`` with a few changes, and sometimes with none, because good input must be accepted."""
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3, 6])):
        at, length = rng.randrange(len(data) + 1), rng.choice([1, 1, 4, 20, 200])
        match rng.randrange(9):
            case 0:
                data = data[:at] + rng.randbytes(length) + data[at + length :]
            case 1:
                data = data[:at] + rng.choice(PIECES) + data[at:]
            case 2:
                data = data[:at] + data[at + length :]
            case 3:
                data = data[:at]
            case 4:
                data = data[:at] + data[at : at + length] * rng.choice([2, 3, 40]) + data[at + length :]
            case 5:
                other = rng.randrange(len(data) + 1)
                data = data[:at] + data[other : other + length] + data[at:]
            case 6 if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
            case 7:
                data = data[:at] + bytes(rng.choice([8, 512, 4096])) + data[at:]
            case _:
                data = data[at:] if rng.random() < 0.2 else data + data[:at]
    return data


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": functools.partial(gzip.compress, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
OPENERS: dict[str, Callable[[io.BytesIO], Any]] = {
    "": lambda raw: raw,
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": lambda raw: zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True),
}


def expanded(data: bytes, suffix: str) -> tuple[bytes, bool]:
    """The data that another program reads from a compressed file before it stops, and whether it reached the end."""
    out = bytearray()
    try:
        with OPENERS[suffix](io.BytesIO(data)) as file:
            while piece := file.read(1 << 16):
                out += piece
                if len(out) > 64 << 20:
                    return bytes(out), False
    except Exception:  # each library has its own errors for damaged data
        return bytes(out), False
    return bytes(out), True


def packed(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """The data, damaged and compressed in either order, and the suffix of the file."""
    suffix = rng.choice(list(COMPRESSORS))
    if suffix and rng.random() < 0.4:
        return damaged(COMPRESSORS[suffix](data), rng), suffix
    return COMPRESSORS[suffix](damaged(data, rng)), suffix


# Checks of every run ---------------------------------------------------------------------------------------------


def put(cage: Path, name: str, data: bytes) -> Path:
    path = cage / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def run(cage: Path, rng: random.Random, *stages: Any) -> RunResult:
    """Run stages over the files in the cage, and check that bad input does not end the run, and that every row and
    source is accounted for.
    """
    with_directory = rng.random() < 0.05
    run_dir = str(cage / "run") if with_directory else None
    try:
        result = Pipeline(list(stages), name="fuzz").run(HERE, run_dir=run_dir)
    except CuratorError as error:
        what = (
            f"{error.stage}: {first_words(error.reason)}" if isinstance(error, StageError) else first_words(str(error))
        )
        raise Finding(f"bad input ends the run: {type(error).__name__}: {what}") from error
    if sum(map(Fraction, result.summary.shares.values()), Fraction()) != result.summary.sources:
        raise Finding("shares do not add up to the number of sources")
    for stage in result.summary.stages[1:]:  # the first stage lists files, the others have rows
        left = sum(stage.dropped.values()) + sum(stage.rejected.values()) + stage.quarantined
        if not stage.name.endswith("Writer") and stage.rows_in != stage.rows_out + left:
            raise Finding(f"rows of {stage.name} do not add up")
    if with_directory:
        accounts = open_accounts(str(cage / "run"))
        for source in accounts.sources():
            if sum(accounts.shares([source]).values()) != 1:
                raise Finding("the ledger's share of a source is not 1")
        if run_command(["verify", str(cage / "run")]) != 0:
            raise Finding("a finished run does not verify")
    return result


def rejected(result: RunResult) -> int:
    return result.summary.rows_rejected


def cut_short(result: RunResult) -> bool:
    """Whether a file or a part of it could not be read, so that the number of lost rows is unknown."""
    return any(reason in FILE_REASONS for stage in result.summary.stages for reason in stage.rejected)


def tables(result: RunResult) -> Iterator[pa.Table]:
    for task in result:
        assert isinstance(task, DocumentBatch)
        yield task.to_pyarrow()


def kept_rows(result: RunResult) -> Rows:
    return [row for table in tables(result) for row in table.to_pylist()]


def first_words(message: str) -> str:
    """The beginning of a message, without names and numbers, to distinguish faults."""
    return re.sub(r"\d+", "#", (message.splitlines() or [""])[0].split("'")[0])[:90]


def without_nulls(value: Any) -> Any:
    """The row without nulls, since a missing key and a null are the same in a table."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


@functools.cache
def makers(path: str) -> ModuleType:
    """Import a test module, for the input that it makes."""
    folder = ROOT / "packages" / Path(path).parent
    # Import it in a separate package, since test modules in different folders have the same name, and import modules
    # next to them.
    package = ModuleType("fuzz_makers_" + "_".join(Path(path).parent.parts).replace("-", "_"))
    package.__path__ = [str(folder)]
    sys.modules[package.__name__] = package
    return importlib.import_module(f"{package.__name__}.{Path(path).stem}")


# Text -----------------------------------------------------------------------------------------------------------------

WORDS = ["a", "word", "größer", "深い", "🙂", "", " ", "x" * 300, "line\nend", 'a "quoted" word', "1", "null", "\u2028"]


def value(rng: random.Random, depth: int = 0) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: rng.choice(WORDS),
        lambda: rng.randrange(-(10**6), 10**6),
        rng.random,
        lambda: rng.random() < 0.5,
        lambda: None,
        lambda: rng.choice([2**53 + 1, 2**63 - 1, -(2**63), 0, 1.0, -0.0, 1e300]),
    ]
    if depth < 2:
        kinds += [
            lambda: [value(rng, depth + 1) for _ in range(rng.randrange(3))],
            lambda: {rng.choice("abc"): value(rng, depth + 1) for _ in range(rng.randrange(3))},
        ]
    return rng.choice(kinds)()


class Jsonl(Area):
    """JSON lines, plain and in all compressions; compared with `json`."""

    share = 5

    def check(self, rng: random.Random, cage: Path) -> None:
        steady = rng.random() < 0.7
        rows: Rows = []
        for number in range(rng.choice([1, 3, 12, 40])):
            row: dict[str, Any] = {"id": number, "text": rng.choice(WORDS) * rng.choice([1, 3])}
            if steady:
                row |= {"score": number / 8, "meta": {"lang": "en", "tags": ["a", "b"][: number % 3]}}
            else:
                row |= {rng.choice(["score", "meta", "x"]): value(rng)}
            rows.append(row)
        text = "\n".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) for row in rows) + rng.choice(["\n", ""])
        data, suffix = packed(rng, text.encode())
        path = put(cage, "a.jsonl" + suffix, data)
        out = cage / "out"
        result = run(cage, rng, JsonlReader(paths=str(path)), JsonlWriter(path=str(out)))
        written = [
            json.loads(line)
            for file in sorted(out.glob("*.jsonl"))
            for line in file.read_bytes().split(b"\n")
            if line.strip()
        ]
        plain, whole = expanded(data, suffix)
        lines = plain.split(b"\n")
        if not whole:
            lines.pop()  # the line in which the damage begins does not count
        lines = [line for line in lines if line.strip()]
        # Some libraries do not report a truncated stream, and each stops at a different place.
        if cut_short(result):
            self.noted["JSONL: lines that others read from damaged files, and we do not"] += max(
                0, len(lines) - len(written) - rejected(result)
            )
        elif whole and len(lines) != len(written) + rejected(result):
            raise Finding("JSONL: lines are not kept plus rejected")
        readable = [row for row in map(strict_json, lines) if row is not None]
        self.noted["JSONL: lines that json reads"] += len(readable)
        self.noted["JSONL: lines that json reads and we reject"] += max(0, len(readable) - len(written))
        # We may read more from a damaged stream than the other library.
        if whole and not in_order([without_nulls(row) for row in written], [without_nulls(row) for row in readable]):
            raise Finding("JSONL: a row is written that is not in the input, or that has changed")


def strict_json(line: bytes) -> dict[str, Any] | None:
    """The object in a line if all JSON parsers agree about it: UTF-8, distinct keys, no NaN, and not nested too deeply."""

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a key occurs twice")
        return dict(pairs)

    def refuse(name: str) -> Any:
        raise ValueError(name)

    try:
        found = json.loads(line.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def in_order(some: Rows, all_of_them: Rows) -> bool:
    """Whether ``some`` can be made from ``all_of_them`` by removing rows."""
    rest = iter(all_of_them)
    return all(any(row == one for one in rest) for row in some)


class Csv(Area):
    """CSV, plain and compressed; compared with `csv`."""

    share = 3

    def check(self, rng: random.Random, cage: Path) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator=rng.choice(["\n", "\r\n"]), quoting=rng.choice([0, 1]))
        writer.writerow(["id", "text", "score"])
        for number in range(rng.choice([1, 5, 30])):
            writer.writerow([number, rng.choice(WORDS), number / 4])
        data, suffix = packed(rng, text.getvalue().encode())
        path = put(cage, "a.csv" + suffix, data)
        result = run(cage, rng, CsvReader(paths=str(path)))
        kept = kept_rows(result)
        plain, whole = expanded(data, suffix)
        try:
            expected = list(csv.reader(io.StringIO(plain.decode(), newline=""), strict=True))
        except (UnicodeDecodeError, csv.Error):
            return
        expected = [row for row in expected if row]
        # Programs differ about a quote in the middle of a cell, a lone return and a NUL.
        alike = not (set(plain) & {0} or b"\r" in plain.replace(b"\r\n", b"") or plain.startswith(b"\xef\xbb\xbf"))
        if whole and alike and expected and len(set(expected[0])) == len(expected[0]) and b'"' not in plain:
            right = [row for row in expected[1:] if len(row) == len(expected[0])]
            if cut_short(result):
                self.noted["CSV: rows that others read from damaged files, and we do not"] += max(
                    0, len(right) - len(kept)
                )
            elif len(expected) - 1 != len(kept) + rejected(result):
                raise Finding("CSV: rows are not kept plus rejected")
            elif [list(row.values()) for row in kept] != right:
                raise Finding("CSV: rows with the right number of cells are not kept unchanged")


class Parquet(Area):
    """Parquet; compared with pyarrow."""

    share = 2

    def check(self, rng: random.Random, cage: Path) -> None:
        rows = rng.choice([1, 20, 300])
        table = pa.table(
            {
                "id": pa.array(range(rows), pa.int64()),
                "text": pa.array(
                    [rng.choice(WORDS) for _ in range(rows)], rng.choice([pa.string(), pa.large_string()])
                ),
                "tags": pa.array([["a"] * (row % 3) for row in range(rows)]),
            }
        )
        sink = io.BytesIO()
        codec = rng.choice(["none", "snappy", "zstd", "gzip"])
        pq.write_table(table, sink, row_group_size=rng.choice([7, 100]), compression=codec)
        data = damaged(sink.getvalue(), rng)
        path = put(cage, "a.parquet", data)
        result = run(cage, rng, ParquetReader(paths=str(path)))
        kept = kept_rows(result)
        try:
            expected = pq.read_table(pa.BufferReader(data)).to_pylist()
        except (
            Exception
        ):  # pyarrow raises many kinds of errors for damaged files; we need not read files that it cannot read
            return
        if cut_short(result):
            self.noted["Parquet: rows that others read from damaged files, and we do not"] += len(expected) - len(kept)
        elif kept != expected:
            raise Finding("Parquet: rows differ from those that pyarrow reads")


class Warc(Area):
    """WARC files, plain or with a gzip member for each record; compared with warcio."""

    share = 3

    def check(self, rng: random.Random, cage: Path) -> None:
        made = makers("curator-text/tests/readers/test_other_readers.py")
        records = [made.warc_record(n, made.http(made.page(n))) for n in range(1, rng.choice([3, 9]))]
        records.insert(0, made.warc_record(0, b"software: x\r\n", "warcinfo", "application/warc-fields"))
        zipped = rng.random() < 0.5
        if rng.random() < 0.5:
            one = rng.randrange(len(records))
            records[one] = damaged(records[one], rng)
        data = b"".join(gzip.compress(record, mtime=0) if zipped else record for record in records)
        if rng.random() < 0.5:
            data = damaged(data, rng)
        path = put(cage, "a.warc" + (".gz" if zipped else ""), data)
        result = run(cage, rng, WarcReader(paths=str(path)))
        # Compare by number, since the two show non-ASCII bytes in an id differently.
        missing = len(list(warcio_ids(data))) - len(kept_rows(result))
        if missing > rejected(result):
            raise Finding("WARC: records that warcio reads are neither kept nor rejected")


def warcio_ids(data: bytes) -> Iterator[str]:
    """The ids of the responses that warcio reads completely before it stops."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for record in ArchiveIterator(io.BytesIO(data)):
                length = int(record.rec_headers.get_header("Content-Length"))
                identity = record.rec_headers.get_header("WARC-Record-ID")
                # The HTTP headers, which it has already read, count towards the length.
                body = record.raw_stream.read()
                if record.rec_type == "response" and record.raw_stream.limit == 0 and body and length and identity:
                    yield identity
        except Exception:  # warcio may raise any error for damaged data
            return


class Html(Area):
    """HTML pages: each becomes text, is dropped as not HTML, or is rejected."""

    share = 2

    def __init__(self) -> None:
        super().__init__()
        self._stage: HtmlExtractor | None = None

    def check(self, rng: random.Random, cage: Path) -> None:
        parts = [
            "<p>",
            "</p>",
            "<div class=x>",
            "</div>",
            "<a href='u'>",
            "text ",
            "<b>",
            "&amp;",
            "&#x110000;",
            "<!--",
        ]
        parts += [
            "-->",
            "<script>",
            "</script>",
            "<table><tr><td>",
            "<title>t</title>",
            "<meta charset=utf-16>",
            "größer",
        ]
        pages = []
        for _ in range(6):
            middle = "".join(rng.choice(parts) * rng.choice([1, 1, 1, 50]) for _ in range(rng.choice([3, 30])))
            pages.append(damaged(f"<html><body>{middle}</body></html>".encode(), rng))
        if self._stage is None:
            self._stage = HtmlExtractor(keep_content=True)
            self._stage.setup(WorkerMetadata())
        stage = self._stage
        stage.recorder.rejects.clear()
        stage.recorder.dropped.clear()
        done = stage.process(DocumentBatch(data=pa.table({"content": pages})))
        texts = [] if done is None else done.to_pyarrow().to_pylist()
        left = sum(stage.recorder.dropped.values()) + sum(one.rows for one in stage.recorder.rejects)
        if len(texts) + left != len(pages):
            raise Finding("HTML: pages are not kept plus dropped plus rejected")
        if any(row["content"] not in pages or not isinstance(row["text"], str) for row in texts):
            raise Finding("HTML: a page has changed, or has no text")

    def close(self) -> None:
        if self._stage is not None:
            self._stage.teardown()


PIPELINE = """\
name: clean
defaults: &common {min_words: 5}
stages:
  - JsonlReader: {paths: "in/*.jsonl", schema: {text: string}}
  - WordCountFilter: {<<: *common, max_words: 1e3}
    with: {name: length, batch_size: 4, resources: {cpus: 2}}
  - LanguageFilter: {languages: [en, no]}
  - AddId
  - JsonlWriter: {path: out/}
executor: {local: {workers: 2}}
run_dir: runs/clean
on_error: quarantine
max_error_fraction: 0.1
"""


class PipelineFiles(Area):
    """Pipeline files: each gives a pipeline, or an error that says what is wrong; compared with PyYAML."""

    share = 3

    def check(self, rng: random.Random, cage: Path) -> None:
        text = PIPELINE.replace("defaults: &common", "x: &common") if rng.random() < 0.2 else PIPELINE
        text = text.replace("defaults: &common {min_words: 5}\n", "").replace("<<: *common, ", "")
        if rng.random() < 0.3:
            lines = text.splitlines(keepends=True)
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))
            text = "".join(lines)
        data = damaged(text.encode(), rng)
        path = put(cage, "clean.yaml", data)
        try:
            load_pipeline(str(path))
        except CuratorError as error:
            if len(str(error)) < 20:
                raise Finding("YAML: an error without a useful message") from error
            return
        try:
            found = yaml.safe_load(data.decode())
        except Exception as error:
            raise Finding("YAML: Curator accepts a file as a pipeline that PyYAML cannot read") from error
        if not isinstance(found, dict) or not {"stages", "workflow"} & set(found):
            raise Finding("YAML: a pipeline without stages")


# Images ---------------------------------------------------------------------------------------------------------------


class Tars(Area):
    """Tars of images, plain and gzipped; compared with `tarfile`."""

    share = 3

    def check(self, rng: random.Random, cage: Path) -> None:
        made = makers("curator-image/tests/test_fuzz.py")
        data = made.archives()[rng.choice(sorted(made.archives()))]
        zipped = rng.random() < 0.3
        data = damaged(gzip.compress(data, mtime=0), rng) if zipped else damaged(data, rng)
        path = put(cage, "a.tar" + (".gz" if zipped else ""), data)
        out = cage / "out"
        result = run(cage, rng, ImageReader(paths=str(path), decode=False), ImageWriter(path=str(out)))
        written: Counter[bytes] = Counter()
        for tar in sorted(out.glob("*.tar")):
            with tarfile.open(tar) as file:
                written.update(file.extractfile(one).read() for one in file if one.isreg())  # type: ignore[union-attr]
        missing = Counter(pictures_in(data)) - written
        if missing.total() > rejected(result):
            raise Finding("tar: images that tarfile and Pillow read are neither kept nor rejected")


def pictures_in(data: bytes) -> Iterator[bytes]:
    """The images that tarfile lists and Pillow opens, before tarfile stops."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as file:
            for one in file:
                if one.isreg() and not one.issparse() and one.name.endswith((".jpg", ".png")):
                    content = file.extractfile(one)
                    assert content is not None
                    picture = content.read()
                    if is_picture(picture):
                        yield picture
    except Exception:  # tarfile may raise any error for damaged data
        return


def is_picture(data: bytes) -> bool:
    """Whether Pillow can decode the image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data)) as picture:
                if picture.width * picture.height > 1_000_000:
                    return False
                picture.load()
        except Exception:  # Pillow may raise any error for damaged data
            return False
    return True


class Images(Area):
    """Image files in a folder, decoded; compared with Pillow."""

    share = 4

    def check(self, rng: random.Random, cage: Path) -> None:
        pictures: Mapping[str, bytes] = makers("curator-image/tests/test_fuzz.py").pictures()
        suffixes = {"PNG": "png", "WEBP": "webp"}
        data = {}
        for number in range(3):
            kind = rng.choice(["JPEG", "PNG", "WEBP", "CMYK", "GREY", "PROGRESSIVE"])
            picture = pictures[kind] if number == 0 else damaged(pictures[kind], rng)
            data[f"{number}.{suffixes.get(kind, 'jpg')}"] = picture
        for name, picture in data.items():
            put(cage, name, picture)
        stages = ImageReader(paths=str(cage / "in"), size=16, thumb_size=8, max_pixels=1_000_000, decode=True)
        result = run(cage, rng, stages)
        kept = kept_rows(result)
        if len(kept) + rejected(result) != len(data):
            raise Finding("image: files are not kept plus rejected")
        if not any(row["bytes"] == data[name] for row in kept for name in data if name.startswith("0.")):
            raise Finding("image: a good picture is not kept among damaged ones")
        if any(row["bytes"] not in data.values() for row in kept):
            raise Finding("image: bytes have changed")
        readable = sum(map(is_picture, data.values()))
        self.noted["images that Pillow decodes"] += readable
        self.noted["images that Pillow decodes and we reject"] += max(0, readable - len(kept))


# Run directories ------------------------------------------------------------------------------------------------------


class RunDirectories(Area):
    """A run directory with one damaged file: every command names the file, and a resumed run has the same output."""

    share = 1

    def __init__(self) -> None:
        super().__init__()
        self._template: Path | None = None

    def check(self, rng: random.Random, cage: Path) -> None:
        if self._template is None:
            self._template = Path(tempfile.mkdtemp(prefix="curator-fuzz-run-", dir=TEMPORARY))
            self._make(cage)
            shutil.copytree(cage, self._template, dirs_exist_ok=True)
        # The cage always has the same path, so the copy is the same run.
        shutil.copytree(self._template, cage, dirs_exist_ok=True)
        run_dir, out = cage / "run", cage / "out"
        files = sorted(path for path in run_dir.rglob("*") if path.is_file() and path.name != ".lock")
        # Choose a kind first, since most files belong to the ledger.
        kind = rng.choice(sorted(set(map(kind_of, files))))
        victim = rng.choice([path for path in files if kind_of(path) == kind])
        good = victim.read_bytes()
        victim.write_bytes(rng.choice([damaged(good, rng), b"", b"{}", rng.choice(files).read_bytes()]))
        for command in (["report"], ["rejects"], ["rejects", "--json"], ["verify"], ["report", "--json"]):
            self._command([*command, str(run_dir)], victim)
        written = contents(out)
        raised = False
        try:
            self._pipeline(cage).run(HERE, run_dir=str(run_dir), resume=True)
        except CuratorError as error:
            raised = True
            if victim.name not in str(error):
                what = f"resume with a damaged {kind} says {type(error).__name__}: {first_words(str(error))}"
                raise Finding(f"run directory: {what}") from error
        except Exception as error:
            raise Finding(f"run directory: resume with a damaged {kind} raises {type(error).__name__}") from error
        # Damage may be detected only after the run has begun, and then the output is not marked as complete.
        known = {name for name in written if not (raised and name == "_SUCCESS")}
        after = contents(out)
        if {name: after.get(name) for name in known} != {name: written[name] for name in known}:
            raise Finding(f"run directory: resume with a damaged {kind} changes the output")

    def _make(self, cage: Path) -> None:
        lines = [json.dumps({"id": n, "text": "some words " * n}) for n in range(30)] + ["broken", "{}"]
        put(cage, "a.jsonl", "\n".join(lines).encode())
        put(cage, "b.jsonl", "\n".join(reversed(lines)).encode())
        self._pipeline(cage).run(HERE, run_dir=str(cage / "run"))

    def _pipeline(self, cage: Path) -> Pipeline:
        return Pipeline([JsonlReader(paths=str(cage / "in")), JsonlWriter(path=str(cage / "out"))], name="fuzz")

    def _command(self, arguments: list[str], victim: Path) -> None:
        output, sys.stdout, sys.stderr = (sys.stdout, sys.stderr), io.StringIO(), io.StringIO()
        try:
            code = run_command(arguments)
            said = sys.stderr.getvalue()
        except Exception as error:
            what = f"`{' '.join(arguments[:-1])}` with a damaged {kind_of(victim)} raises {type(error).__name__}"
            raise Finding(f"run directory: {what}") from error
        finally:
            sys.stdout, sys.stderr = output
        if code not in (0, 1, 2):
            raise Finding(f"run directory: `{arguments[0]}` ends with {code}")
        if code == 2 and victim.name not in said:
            raise Finding(f"run directory: `{arguments[0]}` fails and does not name the damaged file")

    def close(self) -> None:
        if self._template is not None:
            shutil.rmtree(self._template, ignore_errors=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def kind_of(file: Path) -> str:
    """The name of a kind of file in a run directory, since some file names differ between runs."""
    return file.parent.name if file.suffix == ".parquet" else file.name


AREAS: dict[str, type[Area]] = {
    "jsonl": Jsonl,
    "csv": Csv,
    "parquet": Parquet,
    "warc": Warc,
    "html": Html,
    "yaml": PipelineFiles,
    "tar": Tars,
    "image": Images,
    "run": RunDirectories,
}
