"""Reads the articles of a Wikipedia dump as plain text, streaming from the compressed XML."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pyarrow as pa

from curator_core.errors import MissingDependency, UsageError
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import CompositeStage, FanOut, ProcessingStage
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask
from curator_core.stages.files import FilePartitioning, checked_paths
from curator_core.storage import open_input
from curator_text.readers._arguments import bounded_bytes
from curator_text.readers._bytes import Truncated, decompressed

_SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("url", pa.string()), ("text", pa.string())])
_RAW_KEPT = 1 << 16
_CHUNK = 1 << 18
# The numbers of the namespaces for files and categories; a dump contains their names in its wiki. Many articles still
# use older names.
_NOT_TEXT = ("6", "14")
_OLDER_NAMES = frozenset(
    (
        "file",
        "image",
        "category",
        "bild",
        "imagen",
        "imagem",
        "immagine",
        "afbeelding",
        "grafika",
        "изображение",
        "画像",
    )
)
_SWITCHES = re.compile(r"__(?:NO|FORCE)?(?:TOC|EDITSECTION|INDEX|GALLERY)__|__(?:HIDDENCAT|DISAMBIG|NEWSECTIONLINK)__")


@dataclass(kw_only=True)
class WikipediaDumpRead(FanOut[FileGroupTask, DocumentBatch]):
    """Reads the dumps of a task; see `WikipediaDumpReader`."""

    language: str = "en"
    batch_bytes: int | str = "8MiB"

    def __post_init__(self) -> None:
        if not isinstance(self.language, str) or not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", self.language):
            raise UsageError(f"language must be the one in the wiki's address, such as 'en', not {self.language!r}")
        self._batch_bytes = bounded_bytes("batch_bytes", self.batch_bytes)

    def outputs(self) -> list[str]:
        return list(_SCHEMA.names)

    def setup(self, worker: WorkerMetadata) -> None:
        _parser()

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        rows: list[tuple[str, str, str, str]] = []
        held = 0
        given = False
        for path in task.data:
            for row in self._articles(path):
                rows.append(row)
                held += len(row[-1])
                if held >= self._batch_bytes:
                    yield _batch(rows, task)
                    rows, held, given = [], 0, True
        # A dump without articles still has the columns, so that its output has a schema.
        if rows or not given:
            yield _batch(rows, task)

    def _articles(self, path: str) -> Iterator[tuple[str, str, str, str]]:
        names: set[str] = set(_OLDER_NAMES)
        plain = _parser(names)
        with open_input(path) as raw:
            file = decompressed(raw)
            events: Any = ElementTree.XMLPullParser(["start", "end"])
            root: Any = None
            pages = 0
            try:
                while chunk := file.read(_CHUNK):
                    events.feed(chunk)
                    for event, element in events.read_events():
                        if root is None:
                            root = element
                            if _tag(root) != "mediawiki":
                                self._reject(
                                    "not a dump", path, "", f"the dump begins with <{_tag(root)}>, not <mediawiki>"
                                )
                                return
                        if event != "end":
                            continue
                        if _tag(element) == "namespace" and element.get("key") in _NOT_TEXT:
                            names.add((element.text or "").lower())
                        if _tag(element) != "page":
                            continue
                        pages += 1
                        article = self._article(element, path, plain)
                        root.clear()  # otherwise, finished pages would fill the memory
                        if article is not None:
                            yield article
                events.close()
            except (Truncated, ElementTree.ParseError) as error:
                self._reject("truncated file", path, f"after page {pages}", str(error.args[0]))

    def _reject(self, reason: str, path: str, position: str, message: str) -> None:
        self.record_read(1)
        self.record_rejected(reason, source=path, position=position, message=message)

    def _article(self, page: Any, path: str, plain: Any) -> tuple[str, str, str, str] | None:
        found = {_tag(child): child for child in page}
        if page.findtext("{*}ns", "0") != "0" or "redirect" in found:
            return None  # pages about talk, users or categories are not articles, so they are not rows
        number, title = page.findtext("{*}id") or "", page.findtext("{*}title") or ""
        if not number or not title or "revision" not in found:
            self._reject("incomplete page", path, f"page {number} {title}", f"it has only {', '.join(found)}")
            return None
        self.record_read(1)
        source = found["revision"].findtext("{*}text") or ""
        try:
            text = plain(source)
        except Exception as error:  # wikitext has no grammar, so its parser may raise anything
            self.record_rejected(
                "wikitext not understood",
                source=path,
                position=f"page {number} {title}",
                message=f"{type(error).__name__}: {error}",
                raw=source.encode("utf-8", "replace")[:_RAW_KEPT],
            )
            return None
        return number, title, _address(self.language, title), text


@dataclass(kw_only=True)
class WikipediaDumpReader(CompositeStage[EmptyTask, DocumentBatch]):
    """Reads dumps such as ``enwiki-latest-pages-articles1.xml-p1p41242.bz2``: one row with plain text for each article.

    The columns are ``id``, ``title``, ``url`` and ``text``. Redirects and pages that are not articles are skipped;
    tables, templates, references and file links are left out of the text. Needs the extra ``wikipedia``.
    """

    paths: str | Sequence[str]
    language: str = "en"
    limit: int | None = None
    batch_bytes: int | str = "8MiB"

    def __post_init__(self) -> None:
        self.decompose()

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        checked_paths("WikipediaDumpReader.paths", self.paths)
        return [
            FilePartitioning(paths=self.paths, limit=self.limit),
            WikipediaDumpRead(language=self.language, batch_bytes=self.batch_bytes),
        ]


def _parser(names: Set[str] = _OLDER_NAMES) -> Callable[[str], str]:
    """Turns wikitext into plain text; ``names`` are the namespaces whose links are left out."""
    try:
        import mwparserfromhell
    except ImportError as error:
        raise MissingDependency('reading Wikipedia needs a parser: pip install "curator-text[wikipedia]"') from error

    def plain(source: str) -> str:
        code = mwparserfromhell.parse(source)
        for tag in code.filter_tags(matches=lambda node: str(node.tag).lower() in ("ref", "table", "gallery", "math")):
            _drop(code, tag)
        for link in code.filter_wikilinks():
            if str(link.title).strip().lower().partition(":")[0].strip() in names:
                _drop(code, link)
        return _SWITCHES.sub("", str(code.strip_code(normalize=True, collapse=True))).strip()

    return plain


def _drop(code: Any, node: Any) -> None:
    with contextlib.suppress(ValueError):  # the node was removed with an outer one
        code.remove(node)


def _batch(rows: list[tuple[str, str, str, str]], task: FileGroupTask) -> DocumentBatch:
    columns = zip(*rows, strict=True) if rows else [()] * len(_SCHEMA)
    arrays = [pa.array(values, pa.string()) for values in columns]
    return DocumentBatch(data=pa.table(arrays, schema=_SCHEMA), dataset_name=task.dataset_name)


def _address(language: str, title: str) -> str:
    return f"https://{language}.wikipedia.org/wiki/{quote(title.replace(' ', '_'), safe='/:,;()!*@$~')}"


def _tag(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]
