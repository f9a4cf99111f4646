"""Tars as a stream: those of Python's own writer are read, and hostile or broken ones are reported."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_image.tar.names import clean_name, unsafe_name
from curator_image.tar.read import (
    BAD_HEADER,
    DEVICE,
    LINK,
    MEMBER_TOO_LARGE,
    NESTED,
    SPARSE,
    TRUNCATED_TAR,
    UNSAFE_NAME,
    Member,
    Problem,
    read_tar,
)
from curator_image.tar.write import END, padding, tar_header


def archive(entries: list[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def special(name: str, kind: bytes, link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        tar.addfile(info)
    return out.getvalue()


def read(data: bytes, **options: int) -> tuple[list[tuple[str, bytes]], list[Problem]]:
    members, problems = [], []
    for item in read_tar(io.BytesIO(data), **options):
        if isinstance(item, Member):
            members.append((item.name, item.data))
        else:
            problems.append(item)
    return members, problems


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_every_common_format_have_their_name_and_bytes(kind: int) -> None:
    entries = [("a.jpg", b"x" * 513), ("dir/b.txt", b""), ("d" * 90 + "/" + "e" * 60 + ".json", b"{}" * 300)]
    assert read(archive(entries, kind)) == (entries, [])


def test_members_that_are_not_wanted_are_not_read() -> None:
    entries = [("a.jpg", b"x" * 513), ("b.jpg", b"y" * 70_000), ("c.jpg", b"z" * 10)]

    class Counted(io.BytesIO):
        given = 0

        def read(self, size: int | None = -1) -> bytes:
            found = super().read(size)
            Counted.given += len(found)
            return found

    found = list(read_tar(Counted(archive(entries)), wanted=lambda name: name == "c.jpg"))
    assert [(item.name, item.data) for item in found if isinstance(item, Member)] == [
        ("a.jpg", b""),
        ("b.jpg", b""),
        ("c.jpg", b"z" * 10),
    ]
    assert Counted.given < 20_000
    assert [item.data_at for item in found if isinstance(item, Member)] == [
        item.data_at for item in read_tar(io.BytesIO(archive(entries))) if isinstance(item, Member)
    ]


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_non_ascii_names_are_read(kind: int) -> None:
    entries = [("ü" * 120 + ".jpg", b"1"), ("short.jpg", b"2"), ("n" * 300 + ".txt", b"3")]
    assert read(archive(entries, kind)) == (entries, [])


def test_offsets_point_at_the_bytes_of_a_member() -> None:
    data = archive([("n" * 300 + ".jpg", b"first"), ("b.jpg", b"second")])
    for item in read_tar(io.BytesIO(data)):
        assert isinstance(item, Member)
        assert data[item.data_at : item.data_at + len(item.data)] == item.data
        again, problems = read(data[item.header_at :])
        assert again[0] == (item.name, item.data)
        assert not problems


def test_concatenated_archives_are_read_to_the_last() -> None:
    data = archive([("a.jpg", b"1")]) + archive([("b.jpg", b"2")])
    assert read(data) == ([("a.jpg", b"1"), ("b.jpg", b"2")], [])


def test_a_gzipped_archive_is_unzipped_on_the_way() -> None:
    data = archive([("a.jpg", b"1" * 5000)])
    assert read(gzip.compress(data)) == ([("a.jpg", b"1" * 5000)], [])


def test_an_archive_without_its_end_marks_is_complete() -> None:
    data = tar_header("a.jpg", 3) + b"abc"  # not even padded
    assert read(data) == ([("a.jpg", b"abc")], [])


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../up.jpg", "a/../../b.jpg", "C:/x.jpg", "a\\b.jpg", "a\nb.jpg", "..", "bell\x07.jpg"],
)
def test_names_that_lead_outside_the_folder_are_set_aside_and_the_rest_is_read(name: str) -> None:
    members, problems = read(archive([(name, b"evil"), ("fine.jpg", b"good")]))
    assert members == [("fine.jpg", b"good")]
    assert [problem.reason for problem in problems] == [UNSAFE_NAME]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, LINK),
        (tarfile.LNKTYPE, LINK),
        (tarfile.CHRTYPE, DEVICE),
        (tarfile.BLKTYPE, DEVICE),
        (tarfile.FIFOTYPE, DEVICE),
        (tarfile.GNUTYPE_SPARSE, SPARSE),
    ],
)
def test_links_and_devices_are_recorded_and_not_followed(kind: bytes, reason: str) -> None:
    members, problems = read(special("a.jpg", kind, "/etc/passwd")[:512] + archive([("b.jpg", b"2")]))
    assert members == [("b.jpg", b"2")]
    assert [(problem.reason, problem.name) for problem in problems] == [(reason, "a.jpg")]


def test_folders_give_nothing() -> None:
    assert read(special("dir", tarfile.DIRTYPE)) == ([], [])


def test_a_tar_in_a_tar_is_recorded_and_not_opened() -> None:
    inner = archive([("x.jpg", b"1")])
    members, problems = read(archive([("inner.tar", inner), ("b.jpg", b"2")]))
    assert members == [("b.jpg", b"2")]
    assert [problem.reason for problem in problems] == [NESTED]


def test_a_member_over_the_limit_is_skipped() -> None:
    members, problems = read(archive([("a.jpg", b"1" * 2000), ("b.jpg", b"2")]), max_member_bytes=1000)
    assert members == [("b.jpg", b"2")]
    assert [problem.reason for problem in problems] == [MEMBER_TOO_LARGE]


@pytest.mark.parametrize("cut", [1, 100, 511, 513, 900, 1500, 1700])
def test_a_truncated_archive_gives_its_complete_members_and_says_where_it_ends(cut: int) -> None:
    data = archive([("a.jpg", b"1" * 600), ("b.jpg", b"2" * 600)], tarfile.USTAR_FORMAT)
    members, problems = read(data[:cut])
    assert members == [("a.jpg", b"1" * 600), ("b.jpg", b"2" * 600)][: len(members)]
    whole = [end for end in (512 + 600, 512 + 1024 + 512 + 600) if end <= cut]
    assert len(members) == len(whole)
    assert [problem.reason for problem in problems] == ([] if cut in whole else [TRUNCATED_TAR] if problems else [])
    assert problems or cut in (1024 + 512,) or cut > 512 + 600


def test_an_empty_file_is_recorded() -> None:
    assert [problem.reason for problem in read(b"")[1]] == [TRUNCATED_TAR]


def test_a_damaged_header_costs_only_its_own_member() -> None:
    data = bytearray(archive([("a.jpg", b"1"), ("b.jpg", b"2"), ("c.jpg", b"3")], tarfile.USTAR_FORMAT))
    data[1024 + 20] ^= 0xFF
    members, problems = read(bytes(data))
    assert members == [("a.jpg", b"1"), ("c.jpg", b"3")]
    assert [(problem.reason, problem.offset) for problem in problems] == [(BAD_HEADER, 1024)]


def test_a_file_that_is_no_archive_is_one_problem() -> None:
    members, problems = read(b"<html>not found</html>" * 200)
    assert not members
    assert len(problems) <= 2
    assert problems[-1].reason in (BAD_HEADER, TRUNCATED_TAR)


def test_a_false_size_costs_no_memory() -> None:
    header = bytearray(tar_header("a.jpg", 3))
    header[124:136] = b"\x80" + (200 << 20).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    members, problems = read(bytes(header) + b"abc", max_member_bytes=1 << 40)
    assert not members
    assert [problem.reason for problem in problems] == [TRUNCATED_TAR]


names = st.text(st.characters(codec="utf-8", exclude_characters="\\/\0", exclude_categories=["Cc", "Cs"]), min_size=1)


@pytest.mark.slow
@given(st.lists(st.tuples(names, st.binary(max_size=2000)), max_size=6))
@settings(deadline=None, max_examples=100)
def test_our_archives_are_read_by_us_and_by_python(entries: list[tuple[str, bytes]]) -> None:
    entries = [(f"k{number}/{name}x", data) for number, (name, data) in enumerate(entries) if ".." not in name]
    entries = [(name, data) for name, data in entries if not unsafe_name(name) and clean_name(name) == name]
    data = b"".join(tar_header(name, len(body)) + body + padding(len(body)) for name, body in entries) + END
    members, problems = read(data)
    nested = [problem for problem in problems if problem.reason == NESTED]
    assert len(nested) == len(problems)
    assert members == [entry for entry in entries if entry[0] not in {problem.name for problem in nested}]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(info.name, tar.extractfile(info).read()) for info in tar] == entries  # type: ignore[union-attr]


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=100)
def test_a_safe_name_stays_inside_any_folder(raw: bytes) -> None:
    import posixpath

    if unsafe_name(raw) is None:
        joined = posixpath.normpath(posixpath.join("/out", clean_name(raw.decode())))
        assert joined.startswith("/out/") or joined == "/out"
