from __future__ import annotations

import pickle
import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core.errors import UsageError
from curator_core.model.task import DocumentBatch
from curator_text.modifiers import (
    BoilerplateLineRemover,
    DocumentJoiner,
    DocumentSplitter,
    LineRemover,
    MarkdownRemover,
    NewlineNormalizer,
    PiiRedactor,
    QuotationRemover,
    Slicer,
    UnicodeRepair,
    UrlRemover,
    WhitespaceNormalizer,
)
from curator_text.modifiers.pii import luhn, valid_iban

EVERY = [
    UnicodeRepair(),
    UnicodeRepair(everything=True),
    NewlineNormalizer(),
    WhitespaceNormalizer(),
    BoilerplateLineRemover(),
    LineRemover(patterns=["x"]),
    UrlRemover(),
    MarkdownRemover(),
    QuotationRemover(),
    Slicer(left=1),
    PiiRedactor(),
]
ODD = [
    None,
    "",
    " \n\t ",
    "a",
    "\x00",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002" * 50,
    "\u0645\u0631\u062d\u0628\u0627",
    "\U0001f600\u200d\U0001f468",
    "\ufeffbom",
    "a" * 1_000_000,
    "1." * 200_000,
    "[" * 100_000,
    "*" * 100_000,
    "a@" * 100_000,
    "_a" * 100_000,
    "1:" * 200_000,
    "`" * 50_001,
    "> " * 100_000,
    "- " * 100_000,
    "![](" * 30_000,
    "~~~ x\n" * 100_000,
    "4 " * 200_000,
    "4111 " * 100_000,
]


@pytest.mark.slow
@pytest.mark.parametrize("stage", EVERY, ids=lambda stage: repr(stage)[:40])
def test_every_modifier_is_defined_and_fast_for_odd_texts(stage):
    batch = DocumentBatch(data=pa.table({"id": range(len(ODD)), "text": pa.array(ODD, pa.string()), "other": ODD}))
    started = time.process_time()
    out = stage.process(batch).to_pyarrow()
    assert time.process_time() - started < 20
    assert out.num_rows == len(ODD)
    assert out["text"][0].as_py() is None
    assert out["text"].type == pa.string()
    assert out["other"].to_pylist() == ODD
    assert batch.to_pyarrow()["text"].to_pylist() == ODD
    assert pickle.loads(pickle.dumps(stage)) == stage


def test_the_quick_check_skips_only_texts_that_would_not_change():
    # A modifier may skip texts by a quick check, which must never skip a text that would change.
    texts = [
        "plain",
        "sch\u00c3\u00b6n",
        "a\r\nb",
        "a\x85b",
        "a\u2028b",
        "x\n\n\n\ny",
        "see HTTPS://x.org/a.",
        "WWW.x.org",
        "# h",
    ]
    texts += ["1) x", "a *b* c", "Privacy POLICY\nkept", "mail a@b.org", "+49 30 1234567", "::1 fe80::1", "tick `a_b_`"]
    texts += ["i\u0307stanbul", "\u0130STANBUL", "coo\u212aie", "STRA\u1e9eE", "a\tB. x"]
    phrases = BoilerplateLineRemover(phrases=["\u0130stanbul", "Cookie", "stra\u00dfe", "A\tb. "])
    for stage in [*EVERY, phrases]:
        slow = [stage.modify(text) for text in texts]
        assert stage.apply(texts).to_pylist() == slow, stage


@pytest.mark.parametrize(
    ("stage", "before", "after"),
    [
        (UnicodeRepair(), "sch\u00c3\u00b6n \u2019s &amp;", "sch\u00f6n \u2019s &amp;"),
        (UnicodeRepair(), "gr\u00f6\u00dfer \u201cgut\u201d \ufb01n", "gr\u00f6\u00dfer \u201cgut\u201d \ufb01n"),
        (UnicodeRepair(everything=True), "&lt;b&gt; \ufb01n", "<b> fin"),
        (NewlineNormalizer(), "a\r\n\r\n\r\n\r\nb\rc\n\nd", "a\n\nb\nc\n\nd"),
        (WhitespaceNormalizer(), "  a \t b  \n\n  c\u00a0\u00a0d ", "a b\n\nc d"),
        (BoilerplateLineRemover(), "keep\nRead our Privacy Policy\nkeep too", "keep\nkeep too"),
        (BoilerplateLineRemover(phrases=["subscribe"]), "SUBSCRIBE now\njavascript", "javascript"),
        (LineRemover(patterns=["-->", "a.b"]), "x\n-->\naxb\na.b", "x\naxb"),
        (LineRemover(patterns=[r"\d+"], regex=True), "x\n12\n12a", "x\n12a"),
        (UrlRemover(), "see http://a.b/c?d=e. Or (www.x.org/y), ok", "see . Or (), ok"),
        (UrlRemover(replacement="<url>"), "at https://x.org!", "at <url>!"),
        (QuotationRemover(), '"said"', "said"),
        (QuotationRemover(), '"a" and "b"', '"a" and "b"'),
        (QuotationRemover(), '"', '"'),
        (Slicer(left=2, right=-1), "abcdef", "cde"),
        (Slicer(left="<a>", right="</a>", include_left=False, include_right=False), "x<a> y </a>z", "y"),
        (Slicer(left="none"), "abc", ""),
        (
            MarkdownRemover(),
            "# Title #\n\nSome *it* and **bold** and ***both*** and ~~no~~",
            "Title\n\nSome it and bold and both and no",
        ),
        (MarkdownRemover(), '[a link](http://x.org/a_(b) "t") ![img](i.png) [r][1]\n[1]: http://y', "a link img r\n"),
        (MarkdownRemover(), "- one\n* two\n  + [x] three\n> quoted", "one\ntwo\n  three\nquoted"),
        (
            MarkdownRemover(),
            "snake_case_name and 2 * 3 * 4 and _em_ and a*b",
            "snake_case_name and 2 * 3 * 4 and em and a*b",
        ),
        (
            MarkdownRemover(),
            "run `rm *_x_*` now\n```py\n# not *a* title\nx_y_ = 1\n```\nend",
            "run rm *_x_* now\n# not *a* title\nx_y_ = 1\n\nend",
        ),
        (MarkdownRemover(), "```\n*a*\n```\n*b* `*c*`\n~~~ py\n*d* `_e_`", "*a*\n\nb *c*\n~~~ py\nd _e_"),
        (MarkdownRemover(), "Title\n=====\n\ntext\n\n---\nmore", "Title\n\ntext\n\nmore"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_modifier_changes_a_text_as_expected(stage, before, after):
    assert stage.apply([before]).to_pylist() == [after]


SECRET = "RSA PRIVATE " + "KEY-----"
PII = [
    ("mail jane.doe+x@mail.example.co.uk.", "mail <EMAIL>.", {"email": 1}),
    ("a@b is none, nor is x@localhost", "a@b is none, nor is x@localhost", {}),
    ("host 192.168.0.1, not 1.2.3.400 and not 1.2.3.4.5", "host <IP>, not 1.2.3.400 and not 1.2.3.4.5", {"ip": 1}),
    ("v6 2001:db8::ff00:42:8329 and std::vector at 12:30:45", "v6 <IP> and std::vector at 12:30:45", {"ip": 1}),
    ("call +49 (30) 901820 or (212) 555-0143 or 212-555-0143", "call <PHONE> or <PHONE> or <PHONE>", {"phone": 3}),
    ("in 1995-2004 we sold 100.200.3000 for 1234567", "in 1995-2004 we sold 100.200.3000 for 1234567", {}),
    (
        "card 4111 1111 1111 1111 not 4111 1111 1111 1112",
        "card <CREDIT_CARD> not 4111 1111 1111 1112",
        {"credit_card": 1},
    ),
    ("GB82 WEST 1234 5698 7654 32, DE89370400440532013000", "<IBAN>, <IBAN>", {"iban": 2}),
    ("GB82 WEST 1234 5698 7654 33", "GB82 WEST 1234 5698 7654 33", {}),
    # The text before or after has the same form.
    ("AT61 1904 3002 3457 3201 BIC X, BE68 5390 0754 7034 AND I", "<IBAN> BIC X, <IBAN> AND I", {"iban": 2}),
    ("BE68 5390 0754 7034 BE68 5390 0754 7034 NO93", "<IBAN> <IBAN> NO93", {"iban": 2}),
    ("AB12 GB82\u00a0WEST\u00a01234 5698 7654 32", "AB12 <IBAN>", {"iban": 1}),
    ("4111 1111 1111 1111 123, 12 4111-1111-1111-1111", "<CREDIT_CARD> 123, 12 <CREDIT_CARD>", {"credit_card": 2}),
    ("card 4111\u00a01111\u00a01111\u00a01111", "card <CREDIT_CARD>", {"credit_card": 1}),
    ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", {}),
    ("at 1700000000007 the book 9780131103627", "at 1700000000007 the book 9780131103627", {}),
    ("\u90ae\u7bb1abc@x.com\u8c22\u8c22", "\u90ae\u7bb1<EMAIL>\u8c22\u8c22", {"email": 1}),
    (
        "m\u00fcller@b\u00fccher.example, \u0438@\u043f\u043e\u0447\u0442\u0430.\u0440\u0444",
        "<EMAIL>, <EMAIL>",
        {"email": 2},
    ),
    ("a@xn--bcher-kva.xn--p1ai", "<EMAIL>", {"email": 1}),
    ("tel +49\u00a030\u00a0901820", "tel <PHONE>", {"phone": 1}),
    ("key AKIA" + "IOSFODNN7EXAMPLE and ghp_" + "a1" * 18, "key <KEY> and <KEY>", {"key": 2}),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIa+/=\n-----END RSA PRIVATE KEY-----", "<KEY>", {"key": 1}),
    (f'k = "-----BEGIN {SECRET}\\nMIIa+/=\\n-----END {SECRET}\\n"', 'k = "<KEY>\\n"', {"key": 1}),
    (f"-----BEGIN {SECRET}\n{'Mb3/' * 16}\n{'Mb3/' * 16}\nMb3", "<KEY>", {"key": 1}),
    (f"-----BEGIN {SECRET} is how such a file begins", f"-----BEGIN {SECRET} is how such a file begins", {}),
]


@pytest.mark.parametrize(("before", "after", "counts"), PII, ids=[case[0][:25] for case in PII])
def test_personal_data_is_found_checked_replaced_and_counted_by_kind(before, after, counts):
    stage = PiiRedactor()
    out = stage.process(DocumentBatch(data=pa.table({"text": [before]}))).to_pyarrow()
    assert out["text"].to_pylist() == [after]
    assert {k: v for k, v in stage.recorder.metrics.items() if k != "modified"} == counts


def test_equal_values_have_equal_hashes_and_another_salt_gives_others():
    text = "a@b.org, A@b.org, c@d.org"
    first, second, third = PiiRedactor(replace="hash", salt="s").apply([text])[0].as_py().split(", ")
    assert first == second != third
    assert first.startswith("<EMAIL_")
    assert PiiRedactor(replace="hash", salt="t").apply([text])[0].as_py().split(", ")[0] != first
    with pytest.raises(UsageError, match="salt"):
        PiiRedactor(replace="hash")
    assert PiiRedactor(kinds=["ip"]).apply([text]).to_pylist() == [text]
    with pytest.raises(UsageError, match="did you mean 'email'"):
        PiiRedactor(kinds=["emial"])


@given(st.integers(10**12, 10**18))
def test_exactly_one_last_digit_passes_the_luhn_check(number):
    text = str(number)
    if len(set(text)) > 1:
        assert sum(luhn(text + str(last)) for last in range(10)) == 1


def test_one_wrong_character_fails_an_iban():
    good = "DE89370400440532013000"
    assert valid_iban(good)
    assert not any(valid_iban(good[:i] + str((int(good[i]) + 1) % 10) + good[i + 1 :]) for i in range(2, len(good)))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | st.text("ab|\n", max_size=12), max_size=6), st.sampled_from(["|", "\n\n", "ab"]))
def test_a_split_document_is_joined_to_the_original(texts, separator):
    table = pa.table({"id": pa.array(range(len(texts)), pa.int64()), "text": pa.array(texts, pa.string())})
    split = DocumentSplitter(separator=separator).process(DocumentBatch(data=table))
    joiner = DocumentJoiner(separator=separator)
    joined = joiner.process(split)
    assert joined.to_pyarrow().equals(table)
    assert split.num_rows - joined.num_rows == sum(joiner.recorder.dropped.values())


def test_a_joined_document_ends_before_it_becomes_too_long():
    table = pa.table({"id": [1] * 5 + [2], "segment": [4, 3, 2, 1, 0, 0], "text": ["ee", "dd", "cc", "bb", "aa", "zz"]})
    out = DocumentJoiner(separator="-", max_chars=5).process(DocumentBatch(data=table)).to_pyarrow()
    assert out.to_pylist() == [
        {"id": 1, "text": "aa-bb"},
        {"id": 1, "text": "cc-dd"},
        {"id": 1, "text": "ee"},
        {"id": 2, "text": "zz"},
    ]


def test_rows_without_an_id_are_not_joined():
    table = pa.table({"id": pa.array([None, None, 1, 1]), "segment": [0, 0, 0, 1], "text": ["a", "b", "c", "d"]})
    out = DocumentJoiner(separator="-").process(DocumentBatch(data=table)).to_pyarrow()
    assert out.to_pydict() == {"id": [None, None, 1], "text": ["a", "b", "c-d"]}


def test_a_column_of_nulls_stays_as_it_is():
    batch = DocumentBatch(data=pa.table({"id": [1, 2], "text": pa.nulls(2)}))
    for stage in EVERY:
        assert stage.process(batch).to_pyarrow().equals(batch.to_pyarrow())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UrlRemover(output_column=""), "output_column must be the name of a column"),
        (lambda: UrlRemover(replacement=None), "must be text, not None"),
        (lambda: UrlRemover().apply("one text"), "in brackets"),
        (lambda: UrlRemover().apply(pa.array([1])), "these values are int64: cast them first, for example with Cast"),
        (lambda: BoilerplateLineRemover(phrases=[""]), "must not contain an empty text"),
        (lambda: BoilerplateLineRemover(phrases=[1]), "must be a list of phrases"),
        (lambda: LineRemover(patterns="x"), "must be a list of lines"),
        (lambda: LineRemover(patterns=["("], regex=True), "contains an invalid expression"),
        (lambda: Slicer(left=1.5), "a position or a text"),
        (lambda: PiiRedactor(kinds=[1]), "It can contain key, email"),
        (lambda: PiiRedactor(kinds=1), "must be a list of key, email"),
        (lambda: PiiRedactor(replace="hash", salt=3), "salt must be text"),
        (lambda: DocumentSplitter(column=3), "name of a column"),
        (lambda: DocumentJoiner(max_chars="5"), "whole number of 1 or more"),
        (lambda: DocumentJoiner(separator=None), "must be text"),
        (lambda: DocumentSplitter().process(DocumentBatch(data=pa.table({"text": [1]}))), "is int64: put Cast"),
        *(
            (lambda stage=stage: stage.process(DocumentBatch(data=pa.table({"body": ["a"]}))), "no column '(text|id)'")
            for stage in (UrlRemover(), DocumentSplitter(), DocumentJoiner())
        ),
    ],
)
def test_a_wrong_parameter_or_column_is_named_with_its_remedy(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_with_another_output_column_the_text_is_unchanged():
    stage = UrlRemover(output_column="clean")
    out = stage.process(DocumentBatch(data=pa.table({"text": ["see http://x.org", None]}))).to_pyarrow()
    assert out.to_pydict() == {"text": ["see http://x.org", None], "clean": ["see ", None]}
    assert stage.recorder.metrics == {"modified": 1}
    with pytest.raises(UsageError, match="adds a column 'clean', and there is one already"):
        stage.process(DocumentBatch(data=out))
