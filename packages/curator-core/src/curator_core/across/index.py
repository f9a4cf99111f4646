"""What is stored about documents for later runs to compare with, and which runs does an index hold?

An *index* is a folder: a manifest, and folders that hold the runs that have been added, each in its own folder or
several in one (`compact_index`). Nothing changes a folder afterwards. For each document that stayed it holds the hash
and the keys, sorted by place as in a shuffle; the id and the collection; and other data that the deduplication
compares, but no texts. A run is added by writing its files, each whole or not at all, and then the manifest in one
step. So an interrupted addition leaves files that no manifest names, and repeating it writes the same files.

A run that compares its documents with an index keeps a copy of the manifest beside its keys (`pin`), so that it works
with the same runs to its end, even when it is resumed. The folders that hold these runs are looked up in the index
itself, since folders may be replaced by one that holds the same runs in the same order. During the run, documents of
the index have numbers after those of the new ones (`OldDocuments`). In the table of decisions their numbers have the
highest bit set; the other bits give their place in the index.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.roll import ROW_BITS, Roll, batches_of, first_number, rows_of
from curator_core.across.shuffle import PLACE, Manifest, read_manifest, rows_between
from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.json_column import JSON
from curator_core.errors import CuratorError, RunRefused, UsageError
from curator_core.running.directory import RunDirectory

MANIFEST = "_index.json"
RUNS = "runs"
ROLLS = "rolls"
# The list of batches of each file, in the folder of a kind whose files are not sorted by place.
FILES = "_files.json"
# The name of a source in an index is this, followed by the name of the run.
INDEX = "index:"
# In a table of decisions, this bit is set in the number of a document of the index.
INDEXED = np.uint64(1 << 63)
# The metadata keys under which a batch's file records the kind of its values and their hash.
KIND, VALUES = b"curator.kind", b"curator.values"
# The metadata key under which a file of several batches records the first record batch of each.
BEGINS = b"curator.begins"
# The number of documents in a record batch of a file that is not sorted by place; the last one of a batch may have
# fewer.
ROWS = 1 << 10

_VERSION = 2

type Against = Literal["self", "index", "both"]
AGAINST: tuple[Against, ...] = ("self", "index", "both")


@dataclass(frozen=True, slots=True)
class IndexRun:
    """A run of an index. Its name identifies the documents that it examined; ``made_by`` identifies the settings that
    it decided by.
    """

    name: str
    documents: int
    batches: int
    bytes: int
    made_by: str


@dataclass(frozen=True, slots=True)
class IndexFolder:
    """A folder of an index that holds the next ``runs`` runs."""

    name: str
    runs: int
    bytes: int


@dataclass(frozen=True)
class Index:
    """The manifest of an index: the kind of deduplication, the parameters of its keys, its runs in order, and the
    folders that hold them.

    ``replaced`` are folders whose runs are in other folders now; they have yet to be removed.
    """

    path: str
    kind: str
    parameters: dict[str, Any]
    runs: list[IndexRun] = field(default_factory=list)
    folders: list[IndexFolder] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: str) -> Index:
        """The index in a folder."""
        place = storage.join(path, MANIFEST)
        if not storage.exists(place):
            raise UsageError(
                f"{path!r} holds no index (there is no {MANIFEST}): give the folder that was the index of a "
                "deduplication"
            )
        return cls._from(storage.read_bytes(place), place, path)

    @classmethod
    def _from(cls, content: bytes, place: str, path: str) -> Index:
        try:
            found = json.loads(content)
            version = found["version"]
            if version == _VERSION:
                return cls(path, *_values(found))
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{place!r} is damaged ({error}): it is written whole or not at all, so something else changed it"
            ) from None
        raise UsageError(f"{place!r} has format {version!r}, and this version of Curator reads {_VERSION}")

    @property
    def documents(self) -> int:
        return sum(run.documents for run in self.runs)

    @property
    def size(self) -> int:
        return sum(folder.bytes for folder in self.folders)

    def runs_of(self) -> list[list[IndexRun]]:
        """The runs that each folder holds."""
        ends = itertools.accumulate((folder.runs for folder in self.folders), initial=0)
        return [self.runs[first:stop] for first, stop in itertools.pairwise(ends)]

    def content(self) -> bytes:
        values = {
            "version": _VERSION,
            "kind": self.kind,
            "parameters": self.parameters,
            "runs": [asdict(run) for run in self.runs],
            "folders": [asdict(folder) for folder in self.folders],
            "replaced": self.replaced,
        }
        return json.dumps(values, indent=1, sort_keys=True).encode()

    def require(self, kind: str, parameters: Mapping[str, Any], owner: str) -> None:
        """Raise if the parameters differ from those that the keys of this index were made with."""
        if kind != self.kind:
            raise UsageError(
                f"{owner}.index {self.path!r} is an index of {self.kind} deduplication, and this one is {kind}: give each "
                "an index of its own"
            )
        for name in sorted(self.parameters.keys() | parameters.keys()):
            has, given = self.parameters.get(name), parameters.get(name)
            if has != given and not (name == "values" and None in (has, given)):
                raise UsageError(
                    f"{owner}.index {self.path!r} was made with {name} {has!r}, and this run has {given!r}: their keys "
                    "cannot be compared. Use the same value, or another index"
                )


def _values(found: Mapping[str, Any]) -> tuple[str, dict[str, Any], list[IndexRun], list[IndexFolder], list[str]]:
    """The content of a manifest without its version."""
    runs = [IndexRun(**run) for run in found["runs"]]
    folders = [IndexFolder(**folder) for folder in found["folders"]]
    return found["kind"], found["parameters"], runs, folders, found["replaced"]


def run_folder(path: str, name: str) -> str:
    """The path of a folder of an index. A folder for a single run is named after it."""
    return storage.join(path, RUNS, name)


def roll_in(folder: str, run: str) -> str:
    """The path of a run's roll in its folder."""
    return storage.join(folder, ROLLS, f"{run}.arrow")


def check_index(path: str, kind: str, parameters: Mapping[str, Any], owner: str, *, required: bool) -> None:
    """Raise if a folder is not an index of this kind. A missing one will be made, unless it is ``required``."""
    if storage.exists(storage.join(path, MANIFEST)):
        Index.read(path).require(kind, parameters, owner)
        return
    if required:
        raise UsageError(
            f"{owner}.index {path!r} holds no index (there is no {MANIFEST}), and this run compares with one "
            "and would not add to it: correct the path, or first make the index with a run that has index_add"
        )
    if not storage.exists(path):
        return
    # An interrupted addition leaves these behind.
    for file in storage.scan(path, hidden=True):
        name = storage.relative(file.path, path)
        if not name.startswith((f"{RUNS}/", ".")) and not storage.is_temporary(file.path):
            raise UsageError(
                f"{owner}.index {path!r} holds files but no index (there is no {MANIFEST}; there is {name!r}): give "
                "the index a folder of its own"
            )


# The records of a run -------------------------------------------------------------------------------------------


def kind_of(type_: pa.DataType) -> str:
    """The kind of a column's values, as deduplication distinguishes them; empty if the type does not say."""
    if pa.types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if pa.types.is_null(type_) or type_ == JSON:  # a column of JSON may hold values of any kind
        return ""
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return "text"
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
        return "bytes"
    return "other"


def described(table: pa.Table, type_: pa.DataType, hashes: Iterable[NDArray[Any]]) -> pa.Table:
    """The table of keys with the kind of the values and a hash of them in its metadata."""
    digest = hashlib.sha256()
    for values in hashes:
        digest.update(np.ascontiguousarray(values).tobytes())
    notes = {KIND: kind_of(type_).encode(), VALUES: digest.hexdigest().encode()}
    return table.replace_schema_metadata({**(table.schema.metadata or {}), **notes})


def _notes(path: str) -> tuple[str, str]:
    with storage.open_input(path) as stream, pa.ipc.open_file(stream) as file:
        found = file.schema.metadata or {}
    return found.get(KIND, b"").decode(), found.get(VALUES, b"").decode()


def made_by(settings: Mapping[str, Any]) -> str:
    """A short hash of the settings that decide which documents stay."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=list).encode()).hexdigest()[:16]


# The runs to compare with --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pinned:
    """What a run fixes at its beginning: its own name in an index, the kind of its values, and the state of the index."""

    name: str
    values: str | None
    index: Index | None

    @classmethod
    def read(cls, keys: str) -> Pinned | None:
        place = storage.join(keys, MANIFEST)
        if not storage.exists(place):
            return None
        found = json.loads(storage.read_bytes(place))
        held = found["index"]
        index = None
        if held is not None:
            index = Index(held["path"], *_values(held))
        return cls(found["name"], found["values"], index)


@dataclass(frozen=True, kw_only=True)
class IndexUse:
    """How a run uses an index: ``add`` says whether the documents that stay are added; ``settings`` decide which stay."""

    path: str
    kind: str
    parameters: Mapping[str, Any]
    against: Against
    add: bool
    settings: Mapping[str, Any]

    @property
    def compares(self) -> bool:
        return self.against != "self"

    def values(self) -> dict[str, Any]:
        """These settings as a parameter of a stage."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def pin(use: IndexUse, keys: str, roll: Roll, files: Sequence[str], owner: str) -> None:
    """Fix the runs of the index that the documents are compared with: those in it now.

    If these same documents are in it already, they are compared only with the runs before their own: a repeated run
    gives the same result and does not find its own documents. ``files`` are the files of exact keys in the order of the
    roll.
    """
    kinds: dict[str, str] = {}
    digest = hashlib.sha256()
    for task_id, rows, path in zip(roll.task_ids.to_pylist(), roll.rows.tolist(), files, strict=True):
        kind, values = _notes(path)
        if kind:
            kinds.setdefault(kind, path)
        digest.update(f"{task_id}\0{rows}\0{values}\n".encode())
    if len(kinds) > 1:
        raise UsageError(
            f"{owner}: an index holds values of one kind, but the column is {' and '.join(sorted(kinds))} in different "
            "files: give it one type before (Cast)"
        )
    values_kind = next(iter(kinds), None)
    name = f"run-{digest.hexdigest()[:16]}"
    index = None
    if storage.exists(storage.join(use.path, MANIFEST)):
        index = Index.read(use.path)
        index.require(use.kind, {**use.parameters, "values": values_kind}, owner)
        if use.add:
            _require_same(index, name, made_by(use.settings), owner)
            names = [run.name for run in index.runs]
            if name in names:
                index = replace(index, runs=index.runs[: names.index(name)])
    held = None if index is None else {"path": index.path, **json.loads(index.content())}
    content = {"name": name, "values": values_kind, "index": held}
    storage.write_bytes_atomic(storage.join(keys, MANIFEST), json.dumps(content, indent=1).encode())


def _require_same(index: Index, name: str, made: str, owner: str) -> bool:
    """Whether the index has these documents already; raise if other settings decided about them."""
    for run in index.runs:
        if run.name == name:
            if run.made_by != made:
                raise RunRefused(
                    f"{owner}: the index {index.path!r} holds these documents already, as {name}, and other settings decided "
                    "which of them stay. Use those settings, or another index, or only compare (index_add=False)"
                )
            return True
    return False


class OldDocuments:
    """The documents of an index beside the new ones of a run, whose keys are in the folder ``keys``."""

    def __init__(self, keys: str, new_batches: int, *, compare: bool = True) -> None:
        pinned = Pinned.read(keys) if compare else None
        self.index = pinned.index if pinned is not None else None
        self.runs = self.index.runs if self.index is not None else []
        self.new_batches = new_batches
        self.starts = new_batches + np.cumsum([0, *(run.batches for run in self.runs)])
        self.first = first_number(new_batches)
        self._rolls: dict[int, Roll] = {}
        self._look()

    def __bool__(self) -> bool:
        return bool(self.runs)

    def _look(self) -> None:
        """Look up the folders that hold the runs."""
        self._manifests: dict[tuple[int, str], Manifest] = {}
        self._files: dict[tuple[int, str], list[tuple[str, int, int]]] = {}
        self._folders: list[str] = []
        # The number of the first batch of each folder.
        self._begins: list[int] = []
        if not self.runs:
            return
        assert self.index is not None
        now = Index.read(self.index.path)
        if [run.name for run in now.runs[: len(self.runs)]] != [run.name for run in self.runs]:
            raise RunRefused(
                f"the index {self.index.path!r} no longer begins with the runs that this run is compared with: something has "
                "replaced it. Run it again from the start (fresh=True, --fresh)"
            )
        begin = self.new_batches
        for folder, runs in zip(now.folders, now.runs_of(), strict=True):
            if begin >= int(self.starts[-1]):
                break
            self._folders.append(run_folder(now.path, folder.name))
            self._begins.append(begin)
            begin += sum(run.batches for run in runs)

    def _found[T](self, read: Callable[[], T]) -> T:
        """The result of ``read``, which is called again if the folders have been replaced in the meantime."""
        while True:
            before = self._folders
            try:
                return read()
            except (OSError, CuratorError):
                self._look()
                if self._folders == before:
                    raise

    def are_old(self, numbers: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return numbers >= self.first

    def without_old(self, decided: pa.Table) -> pa.Table:
        """The decisions about new documents: a table of decisions has no rows for documents of an index."""
        return decided.filter(array(~self.are_old(to_numpy(decided["number"])))) if self else decided

    def matching(self, kind: str, places: NDArray[np.uint64]) -> pa.Table | None:
        """The keys of old documents at one of these ``places``, which are sorted; the column ``number`` replaces
        ``row``.
        """
        return self._found(lambda: self._matching(kind, places)) if len(places) else None

    def _matching(self, kind: str, places: NDArray[np.uint64]) -> pa.Table | None:
        found = []
        stop = int(self.starts[-1])
        for at, begin in enumerate(self._begins):
            for files, table in rows_between(self._manifest(at, kind), int(places[0]), int(places[-1]) + 1):
                theirs = to_numpy(table[PLACE])
                hit = places[np.minimum(np.searchsorted(places, theirs), len(places) - 1)] == theirs
                # A folder may hold runs that were added later.
                hit &= begin + files < stop
                if hit.any():
                    rows = to_numpy(table["row"])[hit].astype(np.uint64)
                    numbers = (begin + files[hit]).astype(np.uint64) << np.uint64(ROW_BITS) | rows
                    chosen = table.filter(array(hit)).drop_columns(["row"])
                    found.append(chosen.append_column("number", array(numbers)))
        return pa.concat_tables(found, promote_options="default").unify_dictionaries() if found else None

    def batches(self) -> list[tuple[int, int]]:
        """For each run, the number of its first batch and that of the batch after its last."""
        return [(int(start), int(start) + run.batches) for start, run in zip(self.starts[:-1], self.runs, strict=True)]

    def rows_of_batch(self, kind: str, batch: int, rows: NDArray[np.int64]) -> pa.Table:
        """These rows of a batch, in order, from the files of a ``kind`` that is not sorted by place."""
        return self._found(lambda: self._rows_of_batch(kind, batch, rows))

    def _rows_of_batch(self, kind: str, batch: int, rows: NDArray[np.int64]) -> pa.Table:
        at = bisect.bisect_right(self._begins, batch) - 1
        own = batch - self._begins[at]
        folder = storage.join(self._folders[at], kind)
        if (at, kind) not in self._files:
            self._files[at, kind] = read_files(folder)
        files = self._files[at, kind]
        name, first, _ = files[bisect.bisect_right(files, own, key=lambda file: file[1]) - 1]
        path = storage.join(folder, name)
        with _readable(path), storage.open_arrow(path) as source, pa.ipc.open_file(source) as file:
            begins = json.loads((file.schema.metadata or {}).get(BEGINS, b"[0]"))
            found = []
            for part in np.unique(rows // ROWS).tolist():
                piece = pa.Table.from_batches([file.get_batch(begins[own - first] + part)])
                found.append(piece.take(array(rows[rows // ROWS == part] - part * ROWS)))
            return pa.concat_tables(found).replace_schema_metadata(None)

    def places_in_table(
        self, numbers: NDArray[np.uint64], roll: Roll
    ) -> tuple[NDArray[np.uint64], pa.Array, NDArray[np.int64]]:
        """The numbers of old and new documents in a table of decisions, and their sources and rows. The source of an
        old document is its run, and its row is its place among the documents that the run added.
        """
        if not self:
            return numbers, *roll.places(numbers)
        old = np.flatnonzero(self.are_old(numbers))
        plain = numbers.copy()
        plain[old] = 0
        if len(old) == len(numbers):
            sources, rows = np.full(len(numbers), "", object), np.zeros(len(numbers), np.int64)
        else:
            # Old documents get the place of an arbitrary new one here; it is overwritten below.
            plain[old] = numbers[~self.are_old(numbers)][0]
            names, rows = roll.places(plain)
            sources, rows = names.to_numpy(zero_copy_only=False).astype(object), rows.copy()
        runs = np.searchsorted(self.starts, batches_of(numbers[old]), "right") - 1
        for at in np.unique(runs).tolist():
            chosen = old[runs == at]
            own = batches_of(numbers[chosen]) - int(self.starts[at])
            before = np.append(0, np.cumsum(self._roll(at).rows))
            rows[chosen] = before[own] + rows_of(numbers[chosen])
            sources[chosen] = f"{INDEX}{self.runs[at].name}"
        shown = numbers.copy()
        shown[old] = numbers[old] - self.first | INDEXED
        return shown, array(sources.tolist(), pa.string()), rows

    def _manifest(self, at: int, kind: str) -> Manifest:
        if (at, kind) not in self._manifests:
            found = read_manifest(storage.join(self._folders[at], kind))
            # There may be many folders, and the number of open files is limited.
            self._manifests[at, kind] = replace(found, keeps_open=False)
        return self._manifests[at, kind]

    def _roll(self, run: int) -> Roll:
        if run not in self._rolls:
            self._rolls[run] = self._found(lambda: self._read_roll(run))
        return self._rolls[run]

    def _read_roll(self, run: int) -> Roll:
        at = bisect.bisect_right(self._begins, int(self.starts[run])) - 1
        path = roll_in(self._folders[at], self.runs[run].name)
        with _readable(path):
            return Roll.read(path)


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise CuratorError(
            f"{path!r} of the index cannot be read ({error}): Curator never changes a file of an index, so something "
            "else did; restore it, or make the index again"
        ) from error


# Files that are not sorted by place ---------------------------------------------------------------------------------


def read_files(folder: str) -> list[tuple[str, int, int]]:
    """The files of a kind that is not sorted by place: the name of each, its first batch, and its number of batches."""
    place = storage.join(folder, FILES)
    with _readable(place):
        return [(name, first, count) for name, first, count in json.loads(storage.read_bytes(place))]


def write_files(folder: str, files: Sequence[tuple[str, int, int]]) -> None:
    """Write the list of files that `read_files` reads."""
    storage.write_bytes_atomic(storage.join(folder, FILES), json.dumps(files).encode())


# Adding --------------------------------------------------------------------------------------------------------------


def add_run(use: IndexUse, pinned: Pinned, run: IndexRun, owner: str) -> bool:
    """Add a run with complete files to the manifest; return False if it is there already. Only one run does this at a
    time.

    The run is refused if another one was added after it was compared with the index.
    """
    doing = f"{owner}: another run is being added to the index {use.path!r}"
    with locked(use.path, doing, "Nothing was added; resume this run with resume=True (--resume)."):
        parameters = {**use.parameters, "values": pinned.values}
        place = storage.join(use.path, MANIFEST)
        index = Index.read(use.path) if storage.exists(place) else Index(use.path, use.kind, parameters)
        index.require(use.kind, parameters, owner)
        if _require_same(index, run.name, run.made_by, owner):
            return False
        if not run.documents:
            return False
        seen = [each.name for each in pinned.index.runs] if pinned.index is not None else []
        others = [each.name for each in index.runs[len(seen) :]]
        if use.compares and others:
            raise RunRefused(
                f"{owner}: the index {use.path!r} gained {', '.join(others)} since this run was compared with it, so there "
                "may be duplicates between the two, and nothing was added. Run it again from the start (fresh=True, --fresh)"
            )
        known = {**index.parameters, "values": index.parameters.get("values") or pinned.values}
        folders = [*index.folders, IndexFolder(run.name, 1, run.bytes)]
        changed = replace(index, parameters=known, runs=[*index.runs, run], folders=folders)
        storage.write_bytes_atomic(place, changed.content())
        return True


@contextlib.contextmanager
def locked(folder: str, doing: str, refusal: str) -> Iterator[None]:
    """Lock a folder, and remove the unfinished files of killed processes from it. If another process holds the lock,
    raise: ``doing`` says what the other process does, and ``refusal`` what this means for the caller.
    """
    lock = RunDirectory(folder)
    try:
        lock.lock()
    except RunRefused as error:
        raise RunRefused(f"{doing} at this moment, or its folder cannot be written to. {refusal} ({error})") from error
    try:
        # Only the holder of the lock writes directly to the folder, so unfinished files are from a killed process.
        lock.sweep(recursive=False)
        yield
    finally:
        lock.unlock()


def remove_unnamed(path: str, name: str) -> None:
    """Remove a folder of an index that the manifest does not name: its run is in another folder or has added nothing."""
    if storage.exists(storage.join(path, MANIFEST)) and any(f.name == name for f in Index.read(path).folders):
        return
    storage.remove(run_folder(path, name))
