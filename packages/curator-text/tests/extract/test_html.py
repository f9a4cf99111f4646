from __future__ import annotations

import pickle
import subprocess
import sys

import pyarrow as pa
import pytest

from curator_core.errors import UsageError
from curator_core.model.task import DocumentBatch
from curator_text.extract import HtmlExtractor
from curator_text.extract._guard import GuardedProcess

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
PARAGRAPHS = "".join(
    f"<p>On {day} the committee met to discuss the plans for the new library, which will open in the spring of next "
    f"year, and after {number} hours of debate it was decided that the reading room on the second floor should be "
    f"open until the late evening, because many of the visitors who came to the hearing on {day} had asked for it.</p>"
    for number, day in enumerate(DAYS)
)
MENU = "".join(f"<li><a href='/{i}'>Menu entry {i}</a></li>" for i in range(20))
PAGE = (
    "<!doctype html><html><head><title> The\n library </title><script>var hidden = 1;</script></head><body>"
    f"<nav><ul>{MENU}</ul></nav><main><h1>Opening</h1>{PARAGRAPHS}</main><footer>imprint</footer></body></html>"
)


@pytest.fixture
def extract():
    stages = []

    def run(pages, kind=None, **params):
        stage = HtmlExtractor(**params)
        stages.append(stage)
        batch = DocumentBatch(data=pa.table({"id": list(range(len(pages))), "content": pa.array(pages, kind)}))
        out = stage.process(batch).to_pyarrow()
        gone = sum(stage.recorder.dropped.values()) + len(stage.recorder.rejects)
        assert out.num_rows + gone == len(pages)
        return out, stage

    yield run
    for stage in stages:
        stage.teardown()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["resiliparse", "trafilatura", "justext"])
def test_a_page_gives_text_title_language_and_link_ratio(extract, engine):
    pytest.importorskip(engine)
    out, _ = extract([PAGE.encode(), None, b""], engine=engine)
    page, null, _empty = out.to_pylist()
    assert out.column_names == ["id", "text", "title", "language", "link_ratio"]
    assert page["text"].count("new library") == 6
    assert "Menu entry" not in page["text"]
    assert "hidden" not in page["text"]
    assert (page["title"], page["language"]) == ("The library", "en")
    assert 0.05 < page["link_ratio"] < 0.3
    assert null == {"id": 1, "text": None, "title": None, "language": None, "link_ratio": None}


@pytest.mark.slow
def test_the_encoding_is_detected_from_the_page_or_from_a_column(extract):
    text = "Grüße aus München: die Bücherei öffnet im Frühjahr wieder für alle. " * 5
    page = f"<html><body><p>{text}</p></body></html>"
    out, _ = extract([page.encode("latin-1"), page.encode("utf-8")])
    assert [t.strip() for t in out["text"].to_pylist()] == [text.strip()] * 2
    out, _ = extract([page])
    assert out["text"][0].as_py().strip() == text.strip()
    stage = HtmlExtractor(charset_column="charset")
    page = "<p>\u041f\u0440\u0438\u0432\u0435\u0442</p>".encode("cp1251")
    table = pa.table({"content": [page] * 2, "charset": ["windows-1251", "no-such"]})
    first, second = stage.process(DocumentBatch(data=table)).to_pyarrow()["text"].to_pylist()
    stage.teardown()
    assert first.strip() == "\u041f\u0440\u0438\u0432\u0435\u0442"
    assert second


@pytest.mark.slow
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_page_in_utf8_is_read_as_utf8_even_with_few_non_ascii_characters(extract, start):
    text = "Some words in English. " * 30 + "caf\u00e9"
    out, _ = extract([start + f"<html><body><p>{text}</p></body></html>".encode()])
    assert out["text"][0].as_py().strip() == text


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["iso2022_jp", "utf-16"])
def test_an_encoding_of_plain_bytes_is_not_mistaken_for_utf8(extract, encoding):
    text = "\u56f3\u66f8\u9928\u306f\u6625\u306b\u958b\u304d\u307e\u3059\u3002" * 20
    out, _ = extract([f"<html><body><p>{text}</p></body></html>".encode(encoding)])
    assert out["text"][0].as_py().strip() == text


@pytest.mark.slow
def test_a_page_of_frames_has_no_text_and_no_link_ratio(extract):
    out, stage = extract([b"<html><frameset cols='50%,*'><frame src='a.html'><frame src='b.html'></frameset></html>"])
    assert not stage.recorder.rejects
    assert out.to_pylist() == [{"id": 0, "text": "", "title": None, "language": None, "link_ratio": None}]


@pytest.mark.slow
def test_a_slow_page_is_set_aside_and_its_neighbours_are_not(extract):
    slow = b"<div>" * 400_000 + b"x"  # time that grows with the square of the depth
    pages = [PAGE.encode()] * 6
    pages[2] = slow
    out, stage = extract(pages, timeout_s=3.0)
    assert out["id"].to_pylist() == [0, 1, 3, 4, 5]
    assert [(r.reason, r.position) for r in stage.recorder.rejects] == [("extraction timed out", "row 2, id 2")]


@pytest.mark.slow
def test_a_page_that_needs_too_much_memory_is_set_aside(extract):
    huge = b"<p>" + b"<b>x</b>" * 4_000_000
    out, stage = extract([PAGE.encode(), huge, PAGE.encode()], memory_mb=64, timeout_s=60)
    assert out["id"].to_pylist() == [0, 2]
    assert stage.recorder.rejects[0].reason in (
        "extraction crashed",
        "extraction failed",
        "extraction out of memory",
    )


@pytest.mark.slow
def test_the_limit_on_address_space_of_the_process_is_not_changed():
    program = """
import resource
from curator_text.extract._guard import GuardedProcess
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
guard = GuardedProcess(["resiliparse", "1", "title", str(64 << 20)], 60.0)
(answer,) = guard.answers([(b"<html><title>T</title>some words</html>", None)])
print(answer.title.decode(), open(f"/proc/{guard._process.pid}/limits").read(), sep="\\n")
guard.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    title, *limits = done.stdout.splitlines()
    (space,) = [line.split() for line in limits if line.startswith("Max address space")]
    assert (title, space[4]) == ("T", str(8 << 30))  # the hard limit, which root could raise
    assert int(space[3]) < 8 << 30


def test_content_that_is_no_page_is_dropped_and_plain_text_stays(extract):
    out, stage = extract(
        [b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40, b"just a line of text", b"%PDF-1.7\n" + b"\x00\xff" * 99]
    )
    assert out["text"].to_pylist() == ["just a line of text"]
    assert stage.recorder.dropped == {"not HTML": 2}


@pytest.mark.slow
def test_the_page_stays_if_requested(extract):
    out, stage = extract([PAGE], keep_content=True, title_column=None, language_column=None, link_ratio_column=None)
    assert out.column_names == ["id", "content", "text"]
    assert stage.removes() == []
    out, stage = extract([PAGE], column="content", text_column="content")
    assert out["content"][0].as_py().count("new library") == 6


def test_a_batch_without_rows_has_the_columns(extract):
    out, _ = extract([], kind=pa.binary())
    assert out.schema.field("link_ratio").type == pa.float64()


@pytest.mark.slow
def test_many_large_pages_do_not_block_each_other(extract):
    pages = [PAGE.replace("Opening", f"No {i} " + "word " * 40_000).encode() for i in range(20)]
    out, _ = extract(pages)
    assert [f"No {i} " in text for i, text in enumerate(out["text"].to_pylist())] == [True] * 20


@pytest.mark.slow
def test_many_small_pages_are_returned_in_order(extract):
    out, _ = extract([f"<html><title>No {i}</title><p>{'word ' * i}</html>".encode() for i in range(500)])
    assert out["title"].to_pylist() == [f"No {i}" for i in range(500)]
    assert [text.count("word") for text in out["text"].to_pylist()] == list(range(500))


@pytest.mark.slow
def test_abandoned_answers_are_not_given_to_other_pages():
    guard = GuardedProcess(["resiliparse", "1", "title", str(1 << 30)], 60.0)

    def titles(names):
        return [f"<html><title>{name}</title>{PARAGRAPHS}</html>".encode() for name in names]

    try:
        left = guard.answers([(page, None) for page in titles(range(300))])
        assert next(left).title == b"0"
        left.close()
        answers = list(guard.answers([(page, None) for page in titles("abc")]))
        assert [answer.title for answer in answers] == [b"a", b"b", b"c"]
    finally:
        guard.close()


@pytest.mark.slow
def test_no_page_is_lost_when_the_process_dies_between_two_batches(extract):
    _, stage = extract([PAGE])
    process = stage._guard._process
    process.kill()
    process.wait()
    batch = DocumentBatch(data=pa.table({"id": [0, 1], "content": [PAGE, PAGE]}))
    assert stage.process(batch).num_items == 2


def test_a_used_stage_can_be_sent_to_a_worker(extract):
    _, stage = extract([PAGE])
    assert pickle.loads(pickle.dumps(stage)) == stage


def test_an_existing_column_is_not_replaced():
    table = pa.table({"content": [PAGE], "title": ["mine"]})
    with pytest.raises(UsageError, match="adds a column 'title', and there is one already"):
        HtmlExtractor().process(DocumentBatch(data=table))
    stage = HtmlExtractor(text_column="content", title_column=None)
    out = stage.process(DocumentBatch(data=table)).to_pyarrow()
    stage.teardown()
    assert (out["title"].to_pylist(), out.column_names[0]) == (["mine"], "content")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"engine": "lynx"}, "engine must be one of resiliparse"),
        ({"timeout_s": 0}, "timeout_s must be more than 0 seconds, not 0"),
        ({"timeout_s": "5"}, "timeout_s must be more than 0 seconds, not '5'"),
        ({"timeout_s": float("inf")}, "timeout_s must be more than 0 seconds, not inf"),
        ({"memory_mb": 1}, "memory_mb must be a whole number of 64 or more"),
        ({"memory_mb": "1GB"}, "memory_mb must be a whole number of 64 or more"),
        ({"title_column": "text"}, "different names: text, text"),
        ({"text_column": "content", "keep_content": True}, "different names: content, content"),
    ],
    ids=str,
)
def test_wrong_parameters_are_refused(params, message):
    with pytest.raises(UsageError, match=message):
        HtmlExtractor(**params)
