from __future__ import annotations

import bz2

import pytest

from curator_core.errors import UsageError
from curator_core.model.task import FileGroupTask
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


def dump(*pages, namespaces=""):
    head = (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="en"><siteinfo><namespaces>'
        f"{namespaces}</namespaces></siteinfo>"
    )
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


def test_files_and_categories_are_left_out_by_the_names_that_the_wiki_gives_them(tmp_path):
    pytest.importorskip("mwparserfromhell")
    path = tmp_path / "dump.xml"
    names = (
        '<namespace key="6" case="x">Soubor</namespace><namespace key="14">Kategorie</namespace><namespace key="0" />'
    )
    text = "__NOTOC__\n[[Soubor:a.jpg|mini|no]] [[Bild:b.jpg|no]] [[File:c.jpg]] yes [[Nein: ja]] [[ kategorie:no]]"
    path.write_bytes(dump(page(1, text=text), namespaces=names))
    ((row,), rejects) = read(path, language="cs")
    assert (row["text"].split(), rejects) == (["yes", "Nein:", "ja"], [])


@pytest.mark.parametrize(
    ("title", "address"),
    [("Ada &amp; Co?", "Ada_%26_Co%3F"), ("50%/Ü #1", "50%25/%C3%9C_%231"), ("A (b), c!", "A_(b),_c!")],
)
def test_the_url_of_an_article_leads_to_it(tmp_path, title, address):
    pytest.importorskip("mwparserfromhell")
    path = tmp_path / "dump.xml"
    path.write_bytes(dump(page(1).replace("Ada 1", title)))
    assert read(path)[0][0]["url"] == f"https://en.wikipedia.org/wiki/{address}"


def test_incomplete_articles_are_reported(tmp_path):
    pytest.importorskip("mwparserfromhell")
    path = tmp_path / "dump.xml"
    whole, bare = page(1), "<page><title>B</title><ns>0</ns><id>2</id></page>"
    path.write_bytes(dump(bare, whole, whole.replace("<id>1</id>", ""), whole.replace("<ns>0</ns>", "")))
    rows, rejects = read(path)
    assert [row["id"] for row in rows] == ["1", "1"]
    assert [(reject.reason, reject.position) for reject in rejects] == [
        ("incomplete page", "page 2 B"),
        ("incomplete page", "page  Ada 1"),
    ]
    path.write_text("<html><page></page></html>")
    stage = WikipediaDumpRead()
    (empty,) = stage.process(FileGroupTask(data=[str(path)]))
    assert (empty.num_rows, empty.to_pyarrow().column_names) == (0, stage.outputs())
    assert [reject.reason for reject in stage.recorder.rejects] == ["not a dump"]
    for language in ("", "-", "en.evil", 5):
        with pytest.raises(UsageError, match="such as 'en'"):
            WikipediaDumpReader(paths="x", language=language)


def test_a_truncated_dump_gives_its_complete_articles_and_reports_the_rest(tmp_path):
    pytest.importorskip("mwparserfromhell")
    path = tmp_path / "cut.xml"
    path.write_bytes(dump(*(page(number) for number in range(50)))[:-600])
    rows, rejects = read(path, batch_bytes=200)
    assert 45 <= len(rows) < 50
    assert [reject.reason for reject in rejects] == ["truncated file"]
    assert len(WikipediaDumpReader(paths=str(path)).decompose()) == 2
