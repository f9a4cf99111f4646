"""Makes the data of benchmarks once for each command, and verifies it before use."""

from __future__ import annotations

import hashlib
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow.parquet as pq

from benching.suite import BenchError, Data, Entry


class Folders:
    """The folders with the data of entries; each command that makes data has one folder."""

    def __init__(self, root: Path, checkout: Path, run: Callable[[Entry, list[str]], object]) -> None:
        self._root, self._checkout, self._run = root, checkout, run
        self._verified: set[tuple[Path, str, str]] = set()

    def of(self, entry: Entry) -> Path:
        """The folder with the data of an entry, which is made if it does not exist, and verified."""
        if entry.data is None:
            return self._root
        words = shlex.split(entry.data.make)
        folder = self._root / self._key(entry.data.make, words)
        if not folder.is_dir():
            print(f"  {entry.name}: making its data", flush=True)
            self._root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._root, prefix="making-") as scratch:
                target = Path(scratch) / "data"
                target.mkdir()
                self._run(entry, [word.replace("{data}", str(target)) for word in words])
                target.rename(folder)
        self._verify(folder, entry.data)
        return folder

    def _key(self, command: str, words: list[str]) -> str:
        key = hashlib.sha256(command.encode())
        for word in words:
            if (self._checkout / word).is_file():  # a changed command or script makes new data
                key.update((self._checkout / word).read_bytes())
        return key.hexdigest()[:16]

    def _verify(self, folder: Path, data: Data) -> None:
        for pattern, wanted in data.sha256.items():
            if (folder, pattern, wanted) in self._verified:
                continue
            found = rows_sha256(folder, pattern)
            if found != wanted:
                raise BenchError(
                    f"the data in {folder} is wrong: the rows of {pattern} have the checksum {found}, not {wanted}. "
                    "Remove the folder to have the data made again. If the checksum is still wrong then, the script "
                    "or its input has changed: update the checksum, and every count and speed that was measured on "
                    "the old data"
                )
            self._verified.add((folder, pattern, wanted))


def rows_sha256(folder: Path, pattern: str) -> str:
    """The checksum of the rows in the files of a pattern: it covers the JSON of each row, one per line, in the order of
    the file names.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob(pattern)):
        if path.suffix == ".parquet":
            for row in pq.read_table(path).to_pylist():
                digest.update(orjson.dumps(row) + b"\n")
        else:
            digest.update(path.read_bytes())
    return digest.hexdigest()
