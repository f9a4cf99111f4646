from __future__ import annotations

import bz2

import pytest

from curator_core.task import FileGroupTask
from curator_text.extract.wikipedia import WikipediaDumpRead, WikipediaDumpReader

TEXT = (
    "{{Infobox|x=1}}'''Ada''' was a [[mathematician|mathematician]].&lt;ref&gt;Note&lt;/ref&gt; [[File:A.png|thumb|Pic]]\n"
    '== Life ==\n{| class="wikitable"\n| cell\n|}\nShe wrote [http://x.org notes].\n[[Category:People]]'
)


def page(number, ns=0, redirect=False, text=TEXT):
    extra = '<redirect title="x" />' if redirect else ""
    return (
        f"<page><title>Ada {number}</title><ns>{ns}</ns><id>{number}</id>{extra}"
        f'<revision><id>9</id><text bytes="3" xml:space="preserve">{text}</text></revision></page>'
    )


def dump(*pages):
    head = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="en"><siteinfo></siteinfo>'
    return (head + "".join(pages) + "</mediawiki>").encode()


def read(path, **params):
    stage = WikipediaDumpRead(**params)
    rows = [row for batch in stage.process(FileGroupTask(data=[str(path)])) for row in batch.to_pyarrow().to_pylist()]
    assert stage.recorder.read == len(rows) + len(stage.recorder.rejects)
    return rows, stage.recorder.rejects


def test_articles_are_plain_text_and_other_pages_are_no_rows(tmp_path):
    pytest.importorskip("mwparserfromhell")
    path = tmp_path / "enwiki.xml.bz2"
    path.write_bytes(bz2.compress(dump(page(1), page(2, ns=1), page(3, redirect=True), page(4, text=""))))
    rows, rejects = read(path)
    assert rejects == []
    assert [row["id"] for row in rows] == ["1", "4"]
    assert rows[0]["url"] == "https://en.wikipedia.org/wiki/Ada_1"
    text = rows[0]["text"]
    assert text.startswith("Ada was a mathematician.")
    assert "She wrote notes." in text
    assert not any(junk in text for junk in ("Infobox", "Note", "thumb", "cell", "Category", "[", "{"))


def test_a_dump_that_is_cut_short_gives_its_whole_articles_and_tells_the_rest(tmp_path):
    pytest.importorskip("mwparserfromhell")
    path = tmp_path / "cut.xml"
    path.write_bytes(dump(*(page(number) for number in range(50)))[:-600])
    rows, rejects = read(path, batch_bytes=200)
    assert 45 <= len(rows) < 50
    assert [reject.reason for reject in rejects] == ["truncated file"]
    assert len(WikipediaDumpReader(paths=str(path)).decompose()) == 2
