"""Examples of lines that recipes remove from documents."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest

from curator_core import DocumentBatch
from curator_text.filters import C4QualityFilter, RefinedWebLineFilter
from curator_text.filters.recipes import count_sentences


@pytest.mark.parametrize(
    ("line", "clutter"),
    [
        ("A plain sentence of an article about something.", False),
        ("SHOUTED HEADLINE OF THE DAY", True),
        ("ÜBERSCHRIFT IN GROSSBUCHSTABEN", True),
        ("12,345", True),
        ("3 / 7 - 2021", True),
        ("3 likes", True),
        ("1.2k followers", True),
        ("3+ likes", True),
        ("10 K+   Views!", True),
        ("- 1,234 comments -", True),
        ("likes", True),
        ("3likes of it", False),
        ("2 comments on what was said yesterday", False),
        ("Home", True),
        ("Sign in to continue", True),
        ("Read the rest of it: read more...", True),
        ("You should read more books than you do, as he signed in a letter of that year.", False),
        ("Two items in your cart", True),
    ],
)
def test_refinedweb_removes_menus_counters_and_shouting(line: str, clutter: bool) -> None:
    assert RefinedWebLineFilter().is_clutter(line, len(line.split())) is clutter


@pytest.mark.parametrize("line", ["1" + " " * 200_000 + "x y", "." * 200_000 + " x y", "1" * 200_000 + " x y"], ids=len)
def test_a_long_line_takes_no_extra_time(line: str) -> None:
    started = time.process_time()
    assert RefinedWebLineFilter().is_clutter(line, 3) is False
    assert count_sentences(f"{'.' * 200_000}x {'!' * 200_000}") == 1
    assert time.process_time() - started < 10


def test_refinedweb_drops_a_page_of_which_more_than_a_twentieth_was_clutter() -> None:
    article = "This is a sentence of ten words, as you see.\n"
    stage = RefinedWebLineFilter()
    batch = DocumentBatch(data=pa.table({"text": [article * 10 + "Home\n", article + "Home\nSHARE THIS\n", "", None]}))
    after = stage.process(batch)
    assert after.to_pyarrow().column("text").to_pylist() == [article * 10]
    assert stage.recorder.dropped == {"removed_lines": 3}


GOOD = "This line is a sentence. And here is another one!"


@pytest.mark.parametrize(
    ("extra", "left"),
    [
        ("no mark at its end", False),
        ("it trails off...", False),
        ("Two words.", False),
        ("Please enable JavaScript to read this.", False),
        ("We care about your privacy policy.", False),
        ("Quoted as saying “yes.”", False),
        ('He said "yes, of course."', True),
        (f"{'x' * 1001} is too long a word.", False),
        ("A fact.[12] Another fact.", True),
    ],
)
def test_c4_removes_lines_that_are_not_sentences(extra: str, left: bool) -> None:
    text, reason = C4QualityFilter().edit_one("\n".join([GOOD, GOOD, GOOD, extra]))
    assert reason == ""
    assert text is not None
    assert text.count("\n") == (3 if left else 2)
    assert "[12]" not in text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n".join([GOOD] * 3 + ["Here is lorem ipsum for you."]), "lorem_ipsum"),
        ("\n".join([GOOD] * 3 + ["A function { body } it is."]), "curly_bracket"),
        (GOOD, "too_few_sentences"),
        ("", "too_few_sentences"),
    ],
)
def test_c4_drops_pages_with_the_reason(text: str, reason: str) -> None:
    assert C4QualityFilter().edit_one(text) == (None, reason)


def test_sentences_are_counted_by_their_ends_plus_an_unfinished_one() -> None:
    assert [count_sentences(line) for line in ("", "One.", "One. Two", "v1.2 is out.", 'Is it? "Yes!" he said')] == [
        0, 1, 2, 1, 3,
    ]  # fmt: skip


def test_lines_of_other_columns_and_types_are_edited_in_place() -> None:
    table = pa.table({"id": [1, 2], "body": pa.array([f"{GOOD}\n" * 3 + "menu", "x"], pa.large_string())})
    after = C4QualityFilter(column="body").process(DocumentBatch(data=table)).to_pyarrow()
    assert after.schema == table.schema
    assert after.to_pydict() == {"id": [1], "body": ["\n".join([GOOD] * 3)]}
    assert table.column("body").to_pylist()[1] == "x"
