"""Mutated tars and images, hundreds here and thousands in thorough cases: no crash, no hang, nothing lost without a record, no path outside."""

from __future__ import annotations

import functools
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from curator_core.model.task import FileGroupTask
from curator_image import ImageWriter, decode_batch
from curator_image.decode import BadImage, CpuDecoder, ImageDecode, Picture, probe
from curator_image.reading.read import ImageRead
from curator_image.tar.names import unsafe_name
from curator_image.tar.read import Member, read_tar


def examples(few: int, many: int) -> pytest.MarkDecorator:
    """How many a test tries, and how many if it is thorough; the variable FUZZ_EXAMPLES says how many that is."""
    many = int(os.environ.get("FUZZ_EXAMPLES", many))
    return pytest.mark.parametrize("number", [few, pytest.param(many, marks=pytest.mark.thorough)])


def tried(number: int) -> settings:
    return settings(deadline=None, max_examples=number, suppress_health_check=list(HealthCheck), database=None)


Edit = tuple[str, float, bytes]
edits = st.lists(
    st.tuples(
        st.sampled_from(["put", "cut", "insert", "drop", "repeat"]), st.floats(0, 1), st.binary(min_size=1, max_size=12)
    ),
    min_size=1,
    max_size=5,
)


def mutated(data: bytes, changes: list[Edit]) -> bytes:
    for what, where, piece in changes:
        at = int(where * len(data))
        if what == "put":
            data = data[:at] + piece + data[at + len(piece) :]
        elif what == "cut":
            data = data[:at]
        elif what == "insert":
            data = data[:at] + piece + data[at:]
        elif what == "drop":
            data = data[:at] + data[at + 17 * len(piece) :]
        else:
            data = data[: at + 512] + data[at:]
    return data


@functools.cache
def pictures() -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((45, 35), Image.Resampling.BICUBIC)
    made = {}
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"exif": exif},
        "PNG": {"exif": exif},
        "WEBP": {"exif": exif},
        "AVIF": {"exif": exif},
    }
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        out = io.BytesIO()
        image.save(out, kind, **options.get(kind, {}))
        made[kind] = out.getvalue()
    for name, mode in (("CMYK", "CMYK"), ("GREY", "L")):
        out = io.BytesIO()
        image.convert(mode).save(out, "JPEG")
        made[name] = out.getvalue()
    out = io.BytesIO()
    image.save(out, "JPEG", progressive=True)
    made["PROGRESSIVE"] = out.getvalue()
    return made


@functools.cache
def dali() -> Any:
    from curator_image.decode.dali import DaliDecoder

    return DaliDecoder(max_pixels=1_000_000)


@functools.cache
def archives() -> dict[int, bytes]:
    made = {}
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
            entries = [
                ("a.jpg", pictures()["JPEG"]),
                ("a.txt", b"one"),
                ("b.png", pictures()["PNG"]),
                ("b.json", b"{}"),
            ]
            if kind != tarfile.USTAR_FORMAT:
                entries += [("n" * 150 + ".jpg", pictures()["GREY"])]
            for name, data in entries:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        made[kind] = out.getvalue().rstrip(b"\0") + bytes(1024)
    return made


@pytest.mark.slow
@examples(300, 1500)
def test_a_mutated_image_gives_a_picture_or_a_reason(number: int) -> None:
    @tried(number)
    @given(st.sampled_from(sorted(pictures())), edits)
    def holds(name: str, changes: list[Edit]) -> None:
        data = mutated(pictures()[name], changes)
        made, errors = decode_batch(
            [data, pictures()["JPEG"]], Picture(24, 24), decoder=CpuDecoder(max_pixels=1_000_000)
        )
        assert made.shape == (2, 24, 24, 3)
        assert 1 not in errors
        assert made[1].any()
        if errors:
            assert errors[0].reason
            assert not made[0].any()

    holds()


@pytest.mark.slow
@pytest.mark.dali
@examples(80, 400)
def test_a_mutated_image_costs_dali_no_other_picture(number: int) -> None:
    @tried(number)
    @given(st.sampled_from(sorted(pictures())), edits)
    def holds(name: str, changes: list[Edit]) -> None:
        pytest.importorskip("nvidia.dali")
        good = pictures()["JPEG"]
        decoded = dali()([good, mutated(pictures()[name], changes), good], [Picture(24, 24)])
        assert set(decoded.errors) <= {1}
        first, _, last = decoded.pictures[0]
        assert first.any()
        assert (first == last).all()

    holds()


@pytest.mark.slow
@examples(300, 1500)
def test_a_mutated_header_is_read_or_refused(number: int) -> None:
    @tried(number)
    @given(st.sampled_from(sorted(pictures())), edits)
    def holds(name: str, changes: list[Edit]) -> None:
        data = mutated(pictures()[name][:700], changes)
        try:
            header = probe(data, ext="jpg", check_end=False)
        except BadImage as error:
            reason = error.reason
        else:
            reason = "none"
            assert 1 <= header.orientation <= 8
            assert min(header.width, header.height) >= 1
        assert reason

    holds()


@pytest.mark.slow
@examples(300, 1500)
def test_a_mutated_tar_gives_safe_members_or_problems(number: int) -> None:
    @tried(number)
    @given(st.sampled_from(sorted(archives())), edits, st.booleans())
    def holds(kind: int, changes: list[Edit], zipped: bool) -> None:
        import gzip

        data = archives()[kind]
        data = mutated(gzip.compress(data, mtime=0), changes) if zipped else mutated(data, changes)
        total = 0
        for item in read_tar(io.BytesIO(data), max_member_bytes=1 << 20):
            if isinstance(item, Member):
                assert unsafe_name(item.name) is None
                total += len(item.data)
            else:
                assert item.reason
        assert zipped or total <= len(data)

    holds()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.slow
@examples(60, 300)
def test_a_mutated_tar_goes_through_the_stages_and_everything_is_accounted_for(place: Path, number: int) -> None:
    @tried(number)
    @given(st.sampled_from(sorted(archives())), edits)
    def holds(kind: int, changes: list[Edit]) -> None:
        path = place / "in.tar"
        path.write_bytes(mutated(archives()[kind], changes))
        reader, decode = ImageRead(), ImageDecode(size=16, thumb_size=8)
        writer = ImageWriter(path=str(place / "box" / "out"))
        out = 0
        records = []
        for at, batch in enumerate(reader.process(FileGroupTask(data=[str(path)]))):
            out += batch.num_rows
            decoded = decode.process(batch)
            assert decoded is not None
            assert decoded.num_rows + len(decode.recorder.rejects) == batch.num_rows
            decoded.task_id = f"in.{at:05d}"
            done = writer.process(decoded)
            assert done is not None
            assert done.records[0].rows + len(writer.recorder.rejects) == decoded.num_rows
            records += done.records
        assert (reader.recorder.read or 0) == out + sum(reject.rows for reject in reader.recorder.rejects)
        standing = writer.finish(records)
        assert sum(record.rows for record in standing) == sum(record.rows for record in records)
        assert sorted(entry.name for entry in place.iterdir()) in (["box", "in.tar"], ["in.tar"])
        if (place / "box").exists():
            assert [entry.name for entry in (place / "box").iterdir()] == ["out"]
            for entry in (place / "box" / "out").iterdir():
                entry.unlink()

    holds()
