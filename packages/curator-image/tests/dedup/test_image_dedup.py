"""Images that show the same picture: which of them are found, and no picture is removed without a witness."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from curator_core.errors import UsageError
from curator_core.executors.local import LocalExecutor
from curator_image.decode.picture import Picture
from curator_image.decode.pictures import CpuDecoder
from curator_image.dedup import pairs
from curator_image.dedup.compare import likeness
from curator_image.dedup.hashes import RADIUS, boxes_of, hashes_of
from curator_image.dedup.perceptual import ImageDedup

pytestmark = pytest.mark.slow


def picture(seed: int, side: int = 200) -> Image.Image:
    """Noise at many scales, which looks like a photograph to a hash."""
    rng = np.random.default_rng(seed)
    field = np.zeros((side, side * 4 // 3, 3), np.float32)
    for octave in range(1, 7):
        coarse = Image.fromarray(rng.integers(0, 256, (2**octave + 1, 2**octave + 1, 3), dtype=np.uint8))
        field += np.asarray(coarse.resize(field.shape[1::-1], Image.Resampling.BICUBIC), np.float32) * 0.7**octave
    field = (field - field.min()) / (field.max() - field.min()) * 255
    return Image.fromarray(field.astype(np.uint8))


def encoded(image: Image.Image, quality: int = 88) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=quality)
    return out.getvalue()


def cropped(image: Image.Image, share: float, across: float = 0.5) -> Image.Image:
    width, height = image.size
    left, top = int(width * share * across), int(height * share * across)
    return image.crop((left, top, left + width - int(width * share), top + height - int(height * share)))


def captioned(image: Image.Image) -> Image.Image:
    image = image.copy()
    ImageDraw.Draw(image).text((20, image.height - 40), "A caption stands here", fill="white", font_size=18)
    return image


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "smaller": lambda image: encoded(image.resize((image.width // 2, image.height // 2))),
    "squeezed": lambda image: encoded(image.resize((image.width * 4 // 5, image.height))),
    "quality 30": lambda image: encoded(image, 30),
    "crop 2 %": lambda image: encoded(cropped(image, 0.02, 1.0)),
    "crop 5 %": lambda image: encoded(cropped(image, 0.05, 0.2)),
    "crop 10 %": lambda image: encoded(cropped(image, 0.10, 0.0)),
    "brighter": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.3)),
    "border": lambda image: encoded(ImageOps.expand(image, 15, (0, 0, 0))),
    "caption": lambda image: encoded(captioned(image)),
    "mirrored": lambda image: encoded(ImageOps.mirror(image)),
}
EACH = 4


def write(path: Path, images: dict[str, bytes], tars: int = 2) -> str:
    path.mkdir(exist_ok=True)
    for number in range(tars):
        with tarfile.open(path / f"{number}.tar", "w") as tar:
            for name, data in list(images.items())[number::tars]:
                info = tarfile.TarInfo(f"{name}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    """Pictures, and changed copies of some; the names say what each is a copy of."""
    made = {f"o{seed}": encoded(picture(seed)) for seed in range(60)}
    for number, change in enumerate(CHANGES.values()):
        for seed in range(number * EACH, number * EACH + EACH):
            made[f"c{seed}"] = change(picture(seed))
    made["again"] = made["o59"]
    return made


def decided(run: Path) -> dict[str, tuple[str, float]]:
    rows = [row for path in sorted((run / "decisions").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    return {row["id"]: (row["witness_id"], row["similarity"]) for row in rows if row["decision"] == "removed"}


def run(data: str, place: Path, workers: int = 0, **how: object) -> dict[str, tuple[str, float]]:
    work = ImageDedup(paths=data, path=str(place / "out"), **how)  # type: ignore[arg-type]
    work.run(LocalExecutor(workers=workers), run_dir=str(place / "run"))
    return decided(place / "run")


def kept(place: Path) -> set[str]:
    return {
        name.removesuffix(".jpg") for path in (place / "out").glob("*.tar") for name in tarfile.open(path).getnames()
    }


def test_copies_of_each_kind_are_found_and_nothing_else(images: dict[str, bytes], tmp_path: Path) -> None:
    found = run(write(tmp_path / "in", images), tmp_path, mirror=True)
    exact = found.pop("again" if "again" in found else "o59")
    assert exact[0] in ("o59", "again")
    assert exact[1] == 1.0
    missed = []
    for number, name in enumerate(CHANGES):
        for seed in range(number * EACH, number * EACH + EACH):
            pair = {f"c{seed}", f"o{seed}"}
            if not any(lost in pair and witness in pair for lost, (witness, _) in found.items()):
                missed.append(name)
    assert len(missed) <= 2, missed
    for lost, (witness, similarity) in found.items():
        assert lost[1:] == witness[1:], (lost, witness)
        assert 0.9 <= similarity <= 1.0
    assert len(kept(tmp_path)) == len(images) - len(found) - 1


def test_the_larger_file_stays_unless_another_order_is_given(tmp_path: Path) -> None:
    original = picture(1)
    data = write(tmp_path / "in", {"small": encoded(original, 30), "large": encoded(original, 95)}, tars=1)
    assert run(data, tmp_path / "a") == {"small": ("large", pytest.approx(1, abs=0.01))}
    assert list(run(data, tmp_path / "b", keep=["first"])) == ["large"]


def test_the_decisions_do_not_depend_on_files_partitions_or_workers(images: dict[str, bytes], tmp_path: Path) -> None:
    some = dict(list(images.items())[:8] + list(images.items())[60:80])
    first = run(write(tmp_path / "a", some, tars=1), tmp_path / "one", keep=["longest"], partitions=1)
    mixed = dict(sorted(some.items(), key=lambda item: item[0][::-1]))
    second = run(write(tmp_path / "b", mixed, tars=3), tmp_path / "two", keep=["longest"], partitions=7, workers=2)
    assert first == second
    assert len(first) >= 6


@pytest.mark.parametrize("width", [9, 19, 23])
def test_a_line_that_is_partly_border_does_not_count_as_part_of_the_picture(width: int) -> None:
    """At 64 x 64, a border may end inside a line of pixels. With this line, the hashes of these copies differ in up to
    16 bits, and the pictures correlate by 0.54 to 0.79.
    """
    for seed, colour in enumerate(["black", "white"] * 3):
        given = picture(seed), ImageOps.expand(picture(seed), width, colour)
        greys, _ = CpuDecoder().greys([encoded(image) for image in given], Picture(64, 64, "squash", "bilinear"))
        boxes = boxes_of(greys)
        one, other = hashes_of(greys, boxes, crops=False)[:, 0]
        assert np.bitwise_count(one ^ other) <= RADIUS
        assert likeness(greys[0], tuple(boxes[0]), 0, greys[1], tuple(boxes[1])) > 0.95


def test_mirrored_copies_stay_unless_mirror_is_set(tmp_path: Path) -> None:
    data = write(tmp_path / "in", {"a": encoded(picture(3)), "b": encoded(ImageOps.mirror(picture(3)))}, tars=1)
    assert run(data, tmp_path / "no") == {}
    assert len(run(data, tmp_path / "yes", mirror=True)) == 1


def test_plain_pictures_are_removed_only_as_exact_copies(tmp_path: Path) -> None:
    plain = {f"p{n}": encoded(Image.new("RGB", (90 + n, 60), (200, 200, 200))) for n in range(40)}
    assert list(run(write(tmp_path / "in", {**plain, "again": plain["p3"]}, tars=1), tmp_path)) == ["again"]


@pytest.mark.parametrize("mode", ["remove", "annotate", "rehydrate"])
def test_an_image_that_cannot_be_decoded_is_rejected_and_is_no_witness(tmp_path: Path, mode: str) -> None:
    whole = encoded(picture(5))
    cut = whole[: len(whole) // 2]
    given = {"a": whole, "cut": cut, "cut again": cut, "text": b"no picture", "small": encoded(picture(5), 30)}
    work = ImageDedup(
        paths=write(tmp_path / "in", given, tars=1),
        path=str(tmp_path / "out"),
        mode=mode,
        removed=str(tmp_path / "gone"),
    )
    summary = work.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"), max_reject_fraction=1).summary
    assert decided(tmp_path / "run") == {"small": ("a", pytest.approx(1, abs=0.01))}
    assert (summary.rows_in, summary.rows_rejected) == (5, 3)
    assert kept(tmp_path) == ({"a", "small"} if mode == "annotate" else {"a"})
    records = [row for path in (tmp_path / "run").rglob("rejects/*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {(row["position"], row["reason"]) for row in records} == {
        ("cut", "truncated"),
        ("cut again", "truncated"),
        ("text", "not an image"),
    }
    assert {row["raw"] for row in records} == {cut, b"no picture"}


def test_the_pairs_found_do_not_depend_on_how_many_hashes_a_task_searches(
    images: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "in", dict(list(images.items())[40:]))
    expected = run(data, tmp_path / "one")
    monkeypatch.setattr(pairs, "_MOST_AT_ONCE", 40)
    monkeypatch.setattr(pairs, "_FEW", 30)
    assert run(data, tmp_path / "many") == expected
    assert expected


def test_of_many_versions_of_one_picture_one_stays(tmp_path: Path) -> None:
    versions = {f"v{n}": encoded(picture(7, 120).resize((120 + n, 90 + n // 2)), 60 + n % 30) for n in range(60)}
    found = run(write(tmp_path / "in", versions), tmp_path)
    assert len(found) == 59
    assert len({witness for witness, _ in found.values()}) == 1


def test_meaningless_parameters_are_refused() -> None:
    with pytest.raises(UsageError, match="radius must be at most 11, not 12"):
        ImageDedup(paths="x", radius=12)
    with pytest.raises(UsageError, match="threshold must be a number above 0"):
        ImageDedup(paths="x", threshold=0)
