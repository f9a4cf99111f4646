"""Packing: each part is in one full file, whatever was there before and however often the pass is repeated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from curator_core import FileRecord, storage
from curator_core.errors import CuratorError, OutputError
from curator_core.storage.packing import PACKED, pack, parts_folder


def part(folder: Path, name: str, text: str) -> FileRecord:
    with storage.write_atomic(storage.join(parts_folder(str(folder)), name)) as out:
        out.write(text.encode())
    return out.record(rows=len(text))


def packed(folder: Path, parts: Sequence[FileRecord]) -> str:
    """All parts with rows in one more file; the remaining files, joined."""

    def make(fresh: Sequence[FileRecord], standing: Sequence[FileRecord]) -> list[FileRecord]:
        text = "".join(Path(record.path).read_text() for record in fresh)
        if not text:
            return []
        with storage.write_atomic(storage.join(str(folder), f"{len(standing):05d}.txt")) as out:
            out.write(text.encode())
        return [out.record(rows=len(text))]

    return "".join(Path(record.path).read_text() for record in pack(str(folder), parts, make))


def test_new_parts_come_after_existing_files_and_a_repetition_changes_nothing(tmp_path: Path) -> None:
    first = [part(tmp_path, "a", "aa"), part(tmp_path, "b", "b")]
    assert packed(tmp_path, first) == packed(tmp_path, first) == "aab"
    assert packed(tmp_path, [*first, part(tmp_path, "c", "cc")]) == "aabcc"


def test_a_part_that_was_empty_and_now_has_rows_is_packed(tmp_path: Path) -> None:
    assert packed(tmp_path, [part(tmp_path, "a", "")]) == ""
    assert packed(tmp_path, [part(tmp_path, "a", "now")]) == "now"


def test_parts_that_are_missing_before_packing_are_reported(tmp_path: Path) -> None:
    lost = part(tmp_path, "a", "aa")
    Path(lost.path).unlink()
    with pytest.raises(CuratorError, match=r"1 of 1 file to be packed is gone.*a'.*--fresh"):
        packed(tmp_path, [lost])


def test_law_2_parts_stay_until_the_packed_files_are_recorded(tmp_path: Path) -> None:
    """An interrupted pass is repeated, so everything that it needs must still be there."""
    parts = [part(tmp_path, "a", "aa"), part(tmp_path, "b", "b")]
    note = tmp_path / PACKED

    def cut_off(fresh: Sequence[FileRecord], _: Sequence[FileRecord]) -> list[FileRecord]:
        with storage.write_atomic(storage.join(str(tmp_path), "00000.txt")) as out:
            out.write(b"".join(Path(record.path).read_bytes() for record in fresh))
        note.mkdir()  # from here on the note cannot be written: it is a folder
        return [out.record(rows=3)]

    with pytest.raises(OutputError):
        pack(str(tmp_path), parts, cut_off)
    assert [Path(record.path).read_text() for record in parts] == ["aa", "b"]
    note.rmdir()
    assert packed(tmp_path, parts) == "aab"
    assert not Path(parts_folder(str(tmp_path))).exists()


def test_law_2_replaced_files_stay_until_the_new_ones_are_recorded(tmp_path: Path) -> None:
    first = part(tmp_path, "a", "aa")
    assert packed(tmp_path, [first]) == "aa"
    changed = part(tmp_path, "a", "changed")
    note = (tmp_path / PACKED).read_bytes()

    def fails(*_: Sequence[FileRecord]) -> list[FileRecord]:
        raise OutputError("no space is left")

    with pytest.raises(OutputError):
        pack(str(tmp_path), [changed], fails)
    assert (tmp_path / "00000.txt").read_text() == "aa"
    assert (tmp_path / PACKED).read_bytes() == note
    assert packed(tmp_path, [changed]) == "changed"
