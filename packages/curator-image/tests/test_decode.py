"""Decoding: the decoders agree, formats and orientations are handled correctly, and bad images get a reason."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
import warnings
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from curator_core.errors import UsageError
from curator_core.model.engine_facts import WorkerMetadata
from curator_image.batch import ImageBatch, tensor_to_numpy
from curator_image.decode import BadImage, CpuDecoder, ImageDecode, Picture, decode_batch, probe
from curator_image.decode.pictures import draw, fast_resizer, grey, pillow_resize
from curator_image.decode.probe import exif_orientation

# The largest and the mean difference of levels that decoders of intact images may show.
MAX_LEVELS, MEAN_LEVELS = 8, 1.0


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    field = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 6):
        cells = 2**octave + 1
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        field += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32) * 0.6**octave
    return Image.fromarray((field / field.max() * 255).astype(np.uint8))


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def reason(data: bytes, decoder: Any = None, **options: Any) -> str:
    _, errors = decode_batch([data], 32, decoder=decoder or CpuDecoder(**options))
    return errors[0].reason if errors else ""


def boxed(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return (8 + len(body)).to_bytes(4, "big") + kind + body


HEIC_META = boxed(
    b"meta",
    bytes(4),
    boxed(b"pitm", bytes(4), b"\x00\x01"),
    boxed(
        b"iprp",
        boxed(
            b"ipco", boxed(b"ispe", bytes(4), (60).to_bytes(4, "big"), (40).to_bytes(4, "big")), boxed(b"irot", b"\x01")
        ),
        boxed(b"ipma", bytes(4), (1).to_bytes(4, "big"), b"\x00\x01\x02\x01\x82"),
    ),
)
SIZES = [(330, 330), (400, 300), (301, 401), (900, 203), (64, 48), (20, 1000)]


@pytest.mark.parametrize(
    ("mode", "resample"), list(product(["crop", "squash", "pad"], ["bilinear", "bicubic", "lanczos"]))
)
def test_turbo_and_pillow_agree(mode: Any, resample: Any) -> None:
    images = [encode(photo(*size, seed=number), quality=90) for number, size in enumerate(SIZES)]
    picture = Picture(224, 224, mode, resample)
    turbo, ours = CpuDecoder()(images, [picture]), CpuDecoder(turbo=False)(images, [picture])
    assert turbo.errors == ours.errors == {}
    difference = np.abs(turbo.pictures[0].astype(int) - ours.pictures[0].astype(int))
    assert difference.max() <= 3
    assert difference.mean() <= 0.3


@pytest.mark.slow
@pytest.mark.dali
@pytest.mark.parametrize(("mode", "resample"), list(product(["crop", "squash", "pad"], ["bilinear", "bicubic"])))
def test_dali_and_turbo_agree(mode: Any, resample: Any) -> None:
    pytest.importorskip("nvidia.dali")
    from curator_image.decode.dali import DaliDecoder

    images = [encode(photo(*size, seed=number), quality=90) for number, size in enumerate(SIZES[:5])]
    # detail: both decode at full size, where `turbo` would start from a smaller one.
    picture = Picture(224, 224, mode, resample, detail=8)
    turbo, dali = CpuDecoder()(images, [picture]), DaliDecoder()(images, [picture])
    difference = np.abs(turbo.pictures[0].astype(int) - dali.pictures[0].astype(int))
    assert difference.max() <= MAX_LEVELS
    assert difference.mean() <= MEAN_LEVELS


@pytest.mark.dali
def test_a_corrupt_image_costs_dali_a_pipeline_but_no_other_picture() -> None:
    pytest.importorskip("nvidia.dali")
    from curator_image.decode.dali import DaliDecoder

    good = [encode(photo(90, 70, seed)) for seed in range(6)]
    # A valid header, followed by tables that no decoder accepts.
    broken = bytearray(good[0])
    at = broken.find(b"\xff\xc4") + 5
    broken[at : at + 16] = b"\xff" * 16
    decoder = DaliDecoder()
    picture = [Picture(32, 32)]
    mixed = decoder([*good[:3], bytes(broken), *good[3:]], picture)
    assert list(mixed.errors) == [3]
    assert mixed.errors[3].reason == "corrupt"
    assert decoder.rebuilt == 1
    assert not mixed.pictures[0][3].any()
    after = decoder(good, picture)
    assert after.errors == {}
    assert decoder.rebuilt == 1
    for row, other in enumerate((0, 1, 2, 4, 5, 6)):
        assert np.abs(after.pictures[0][row].astype(int) - mixed.pictures[0][other].astype(int)).mean() <= MEAN_LEVELS


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos", "box"])
@pytest.mark.parametrize("size", [(37, 53), (224, 224), (600, 31)])
def test_the_fast_resizer_is_within_two_levels_of_pillow(resample: str, size: tuple[int, int]) -> None:
    pixels = np.asarray(photo(301, 203))
    difference = np.abs(fast_resizer()(pixels, *size, resample).astype(int) - pillow_resize(pixels, *size, resample))
    assert difference.max() <= 2


@pytest.mark.slow
def test_decoding_smaller_is_close_to_decoding_whole() -> None:
    images = [encode(photo(1200, 900, 1)), encode(photo(460, 450, 2))]
    small, _ = decode_batch(images, Picture(224, 224))
    whole, _ = decode_batch(images, Picture(224, 224, detail=8))
    assert np.abs(small.astype(int) - whole.astype(int)).mean() <= MEAN_LEVELS


@pytest.mark.parametrize(
    ("mode", "size"), list(product(["crop", "squash"], [(300, 200), (200, 300), (224, 224), (225, 449)]))
)
def test_pictures_equal_those_that_pillow_makes_step_by_step(mode: Any, size: tuple[int, int]) -> None:
    image = photo(*size)
    if mode == "squash":
        expected = image.resize((224, 224), Image.Resampling.BICUBIC)
    else:  # the shorter side becomes 224, the longer side is proportional and rounded down, and the middle is cut out
        short = min(size)
        across, down = (max(224, side * 224 // short) for side in size)
        left, top = (across - 224) // 2, (down - 224) // 2
        expected = image.resize((across, down), Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
    made, errors = decode_batch([encode(image, "PNG")], 224, mode=mode, decoder=CpuDecoder(turbo=False))
    assert not errors
    assert np.array_equal(made[0], np.asarray(expected))


def test_a_padded_picture_shows_the_whole_image_on_black() -> None:
    made, _ = decode_batch([encode(Image.new("RGB", (200, 100), (255, 255, 255)), "PNG")], 64, mode="pad")
    assert (made[0][16:48] == 255).all()
    assert not made[0][:16].any()
    assert not made[0][48:].any()


def test_a_very_long_image_gives_its_middle_without_a_very_large_intermediate_image() -> None:
    long = np.zeros((2, 60_000, 3), np.uint8)
    long[:, 29_900:30_100] = 200
    made, errors = decode_batch([encode(Image.fromarray(long), "PNG")], 128)
    assert not errors
    assert made[0][:, 64].mean() > 150


@pytest.mark.parametrize("decoder", [CpuDecoder(), CpuDecoder(turbo=False)])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_applied_and_the_header_tells_the_upright_size(
    decoder: CpuDecoder, orientation: int, kind: str
) -> None:
    from PIL import ImageOps

    image = photo(60, 40)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    header = probe(data)
    assert (header.width, header.height) == upright.size
    made, errors = decode_batch([data], Picture(upright.height, upright.width, "squash"), decoder=decoder)
    assert not errors
    assert np.abs(made[0].astype(int) - np.asarray(upright).astype(int)).max() <= 3


@pytest.mark.parametrize("decoder", [CpuDecoder(), CpuDecoder(turbo=False)])
@pytest.mark.parametrize("size", [(64, 64), (50, 30), (31, 77)])
def test_heic_is_read_where_its_extra_is_installed(decoder: CpuDecoder, size: tuple[int, int]) -> None:
    heif = pytest.importorskip("pillow_heif")
    image = photo(*size)
    out = io.BytesIO()
    heif.from_pillow(image).save(out, quality=-1)
    header = probe(out.getvalue(), ext="heic")
    assert (header.format, header.width, header.height) == ("heic", *size)
    made, errors = decode_batch([out.getvalue()], Picture(size[1], size[0], "squash"), decoder=decoder)
    assert not errors
    assert np.array_equal(made[0], np.asarray(heif.open_heif(out.getvalue()).to_pillow().convert("RGB")))


@pytest.mark.slow
def test_a_missing_package_for_a_format_is_named_with_the_command_that_installs_it() -> None:
    code = (
        "import sys; sys.modules['pillow_heif'] = None\nfrom curator_image import probe\nprobe(sys.stdin.buffer.read())"
    )
    data = b"\x00\x00\x00\x18ftypheic\0\0\0\0mif1heic" + HEIC_META
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=False)
    assert b'unsupported format: HEIC is read with: pip install "curator-image[heif]"' in done.stderr


@pytest.mark.parametrize("kind", ["AVIF", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "I;16"])
def test_every_format_and_mode_becomes_rgb(kind: str, mode: str) -> None:
    image = photo(50, 40)
    if mode == "I;16":
        if kind not in ("PNG", "TIFF"):
            pytest.skip(f"{kind} has no {mode}")
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    try:
        data = encode(image, kind)
    except (OSError, KeyError, ValueError):
        pytest.skip(f"{kind} has no {mode}")
    made, errors = decode_batch([data], Picture(40, 50, "squash"))
    assert not errors
    header = probe(data)
    assert (header.format, header.width, header.height) == (kind.lower(), 50, 40)
    grey = np.asarray(photo(50, 40).convert("L")).astype(int)
    if mode not in ("1", "P"):
        shown = np.asarray(Image.fromarray(made[0]).convert("L")).astype(int)
        assert np.abs(shown - grey).mean() < 12


def test_cmyk_of_an_inverted_adobe_jpeg_is_not_a_negative() -> None:
    image = Image.new("RGB", (64, 64), (250, 40, 40)).convert("CMYK")
    made, errors = decode_batch([encode(image, quality=95)], 32)
    assert not errors
    assert made[0][:, :, 0].mean() > 200
    assert made[0][:, :, 1].mean() < 90


def test_transparent_pixels_become_white() -> None:
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    made, _ = decode_batch([encode(image, "PNG")], 16)
    assert (made == 255).all()


def test_the_first_frame_of_an_animation_is_the_picture() -> None:
    frames = [Image.new("RGB", (40, 30), color) for color in ((200, 0, 0), (0, 200, 0))]
    for kind in ("GIF", "WEBP"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
        made, errors = decode_batch([data], 16)
        assert not errors
        assert made[0][:, :, 0].mean() > 150


def test_bad_images_are_distinguished() -> None:
    jpeg, png = encode(photo(80, 60)), encode(photo(80, 60), "PNG")
    assert reason(b"") == "empty"
    assert reason(b"<html>") == "not an image"
    assert reason(b"\x00\x00\x00\x0cjP  \r\n\x87\n") == "unsupported format"
    assert reason(b"\x00\x00\x00\x1cftypavif" + b"\0" * 50) == "truncated"
    assert reason(jpeg[: len(jpeg) // 2]) == "truncated"
    assert reason(png[: len(png) // 2]) == "truncated"
    assert reason(jpeg[:10]) == "truncated"
    assert reason(jpeg, max_pixels=1000) == "too many pixels"
    assert reason(jpeg, max_side=70) == "absurd dimensions"
    with pytest.raises(BadImage, match="wrong extension"):
        probe(png, ext="jpg")
    assert probe(png, ext="seg.png").format == "png"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg width='3'></svg>", "SVG"),
        (b"\xef\xbb\xbf  <SVG>", "SVG"),
        (b"P6\n2 2 255\n", "PNM"),
        (b"\x00\x00\x00\x18ftypmif1\0\0\0\0mif1j2ki", "HEIF"),
    ],
)
def test_unsupported_pictures_are_rejected_by_the_name_of_their_format(data: bytes, name: str) -> None:
    with pytest.raises(BadImage, match=f"unsupported format: {name}"):
        probe(data)


def progressive(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated many times."""
    data = encode(Image.new("RGB", (side, side), (90, 120, 30)), progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * (scans - data.count(b"\xff\xda")) + data[-2:]


@pytest.mark.slow
def test_scans_are_counted_before_they_are_decoded() -> None:
    assert probe(progressive(64, 10)).scans == 10
    assert reason(progressive(64, 300)) == ""  # a small picture takes little time however many scans it has
    started = time.process_time()
    assert reason(progressive(4000, 300)) == "too many scans"
    assert time.process_time() - started < 0.5
    assert reason(progressive(500, 300), max_pixels=500 * 500) == "too many scans"
    three = encode(photo(64, 64))
    assert probe(three).scans == 1


def test_many_scans_are_also_counted_in_a_jpeg_that_is_not_progressive() -> None:
    # A scan has one of three components: decoders keep the whole picture and process it again for each scan.
    data = bytearray(encode(photo(300, 300), subsampling=0))
    scan = data.find(b"\xff\xda")
    one = b"\xff\xda\x00\x08\x01" + bytes(data[scan + 5 : scan + 7]) + b"\x00\x3f\x00" + bytes(data[scan + 14 : -2])
    many = bytes(data[:scan]) + one * 50 + b"\xff\xd9"
    assert probe(many).scans == 50
    assert reason(many, max_pixels=300 * 300) == "too many scans"


@pytest.mark.slow
@pytest.mark.parametrize("stray", [b"\x00", b"\xff", b"\x11\xff\x00", b"\xff\xd0"])
def test_stray_bytes_before_a_picture_are_not_searched_in_python(stray: bytes) -> None:
    data = encode(photo(60, 40))
    first = 4 + int.from_bytes(data[4:6], "big")  # after the first segment, which identifies the file
    padded = data[:first] + stray * (50_000_000 // len(stray)) + data[first:]
    started = time.process_time()
    try:
        header = probe(padded, check_end=False)
    except BadImage as error:
        assert error.reason == "truncated"  # noqa: PT017 - both ends are right
    else:
        assert (header.width, header.height) == (60, 40)
    took, started = time.process_time() - started, time.process_time()
    at, looked_at = 0, 1_000_000
    while at < looked_at:
        at += 1 + (padded[at] > 255)
    in_python = (time.process_time() - started) * len(padded) / looked_at
    assert took < in_python / 4


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("stray", [b"\x00", b"\x11\x22\xff\x00\x33", b"\xff\xff"])
def test_stray_bytes_between_segments_do_not_prevent_decoding(stray: bytes, progressive: bool) -> None:
    data = encode(photo(60, 40), progressive=progressive)
    clean, _ = decode_batch([data], 32)
    at = 2
    while data[at + 1] != 0xDA:
        odd = data[:at] + stray + data[at:]
        made, errors = decode_batch([odd], 32)
        # Stray bytes before the first segment hide the format of the file.
        assert errors == {} or at == 2
        assert errors or np.array_equal(made, clean)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def test_an_image_that_cannot_be_decoded_is_corrupt() -> None:
    data = bytearray(encode(photo(200, 200), quality=95))
    middle = len(data) // 2
    data[middle : middle + 60] = b"\xff\xd3" * 30
    assert reason(bytes(data)) == "corrupt"


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    bomb = bytearray(encode(Image.new("L", (10, 10)), "PNG"))
    bomb[16:24] = (2**31 - 1).to_bytes(4, "big") * 2
    assert reason(bytes(bomb)) == "absurd dimensions"
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    assert reason(bytes(bomb)) == "too many pixels"


def test_one_bad_image_does_not_affect_the_others_of_its_batch() -> None:
    good = [encode(photo(50, 50, seed)) for seed in range(3)]
    pixels, errors = decode_batch([good[0], b"junk", None, good[1], good[2][:200]], 32)
    assert {row: error.reason for row, error in errors.items()} == {1: "not an image", 2: "empty", 4: "truncated"}
    alone, _ = decode_batch([good[1]], 32)
    assert np.array_equal(pixels[3], alone[0])
    assert not pixels[[1, 2, 4]].any()


@pytest.mark.parametrize("decoder", [CpuDecoder(), CpuDecoder(turbo=False)])
def test_luminance_is_that_of_the_coloured_picture(decoder: CpuDecoder) -> None:
    image, turned = photo(200, 150), Image.Exif()
    turned[0x0112] = 6
    good = [
        encode(image),
        encode(image, exif=turned),
        encode(image.convert("L")),
        encode(image.convert("CMYK")),
        encode(image, "PNG"),
    ]
    images = [*good, good[0][: len(good[0]) // 2], b"", encode(image, "PNG")[:2000]]
    wanted = Picture(64, 64, "squash", "bilinear")
    greys, errors = decoder.greys(images, wanted)
    coloured = decoder(images, [wanted])
    assert {row: error.reason for row, error in errors.items()} == {
        row: error.reason for row, error in coloured.errors.items()
    }
    assert list(errors) == [5, 6, 7]
    far = np.abs(greys.astype(int) - grey(coloured.pictures[0]))
    assert far.max() <= 3
    assert far.mean() < 0.5
    assert greys[:5].std() > 20


def test_threads_change_nothing() -> None:
    images = [encode(photo(60, 50, seed)) for seed in range(9)] + [b"x"]
    one, errors = decode_batch(images, 32)
    two, others = decode_batch(images, 32, threads=3)
    assert np.array_equal(one, two)
    assert list(errors) == list(others) == [9]


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from(["crop", "squash", "pad"]), st.integers(1, 300))
def test_every_window_covers_the_picture_and_stays_small(width: int, height: int, mode: Any, size: int) -> None:
    picture = Picture(size, size, mode)
    fit = picture.fit(width, height)
    left, top, right, bottom = fit.box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if mode == "pad":
        assert -fit.left + fit.width <= size
        assert -fit.top + fit.height <= size
    else:
        assert 0 <= fit.left <= fit.width - size
        assert 0 <= fit.top <= fit.height - size
    assert max(fit.width, fit.height) <= 9 * size
    assert picture.dct_scale(width, height) in (1, 2, 4, 8)


@pytest.mark.slow
@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.sampled_from(["crop", "squash", "pad"]),
    st.sampled_from([1, 2, 7, 32, 224]),
)
@example(500, 498, "pad", 224)
@example(498, 500, "pad", 224)
@settings(max_examples=300, deadline=None)
def test_every_image_fits_into_every_picture(width: int, height: int, mode: Any, size: int) -> None:
    picture = Picture(size, size, mode)
    fit = picture.fit(width, height)
    target = np.full(picture.shape, 7, np.uint8)
    fit.place(np.full((fit.height, fit.width, 3), 255, np.uint8), target)
    assert set(np.unique(target)) <= {0, 255}
    shown = int((target[:, :, 0] == 255).sum())
    assert shown == min(size, fit.width) * min(size, fit.height)
    if mode == "pad":  # the picture is in the middle, up to a pixel
        rows, columns = target[:, :, 0].any(1), target[:, :, 0].any(0)
        for line in (rows, columns):
            before, after = int(line.argmax()), int(line[::-1].argmax())
            assert 0 <= after - before <= 1
    if width * height <= 200_000:  # draw real pixels if there are only a few
        target[:] = 7
        draw(np.full((height, width, 3), 255, np.uint8), picture, target, pillow_resize)
        assert int((target[:, :, 0] == 255).sum()) == shown


# The stage -----------------------------------------------------------------------------------------------------------


def batch(images: list[bytes]) -> ImageBatch:
    import pyarrow as pa

    keys = [f"k{row}" for row in range(len(images))]
    return ImageBatch(data=pa.table({"key": keys, "shard": ["s.tar"] * len(images), "bytes": images}))


@pytest.mark.slow
def test_the_stage_adds_both_pictures_and_rejects_images_by_key() -> None:
    stage = ImageDecode(size=48, thumb_size=16)
    stage.setup(WorkerMetadata())
    task = batch([encode(photo(90, 60)), b"junk", encode(photo(60, 90))])
    out = stage.process(task)
    assert out is not None
    table = out.to_pyarrow()
    assert table.column("key").to_pylist() == ["k0", "k2"]
    assert tensor_to_numpy(table.column("pixels")).shape == (2, 48, 48, 3)
    assert out.pictures("thumb").shape == (2, 16, 16, 3)
    assert "pixels" not in task.column_names
    (reject,) = stage.recorder.rejects
    assert (reject.reason, reject.source, reject.position, reject.raw) == ("not an image", "s.tar", "k1", b"junk")


def test_the_stage_makes_only_the_columns_that_later_stages_read() -> None:
    stage = ImageDecode(size=48)
    assert stage.needed_by(frozenset({"caption", "thumb"})).outputs() == ["thumb"]
    assert stage.needed_by(frozenset({"pixels"})).outputs() == ["pixels"]
    idle = stage.needed_by(frozenset({"caption"}))
    assert idle.outputs() == []
    task = batch([b"not decoded, so not noticed"])
    assert idle.process(task) is task


def test_wrong_parameters_are_refused_with_their_name() -> None:
    for wrong in ({"size": 0}, {"mode": "stretch"}, {"resample": "cubic"}, {"decoder": "fast"}, {"columns": ["x"]}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            ImageDecode(**wrong)  # type: ignore[arg-type]


@pytest.mark.slow
@given(st.integers(1, 8), st.sampled_from("<>"), st.lists(st.tuples(st.integers(0, 21), st.integers(0, 9)), max_size=2))
def test_a_damaged_orientation_rotates_no_picture_that_pillow_does_not_rotate(
    orientation: int, order: str, changes: list[tuple[int, int]]
) -> None:
    tag = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = bytearray((b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, 1) + tag + bytes(4))
    for at, value in changes:
        exif[at] = value
    image = Image.Exif()
    try:
        with warnings.catch_warnings(action="ignore"):
            image.load(b"Exif\0\0" + bytes(exif))
            expected = image.get(0x0112, 1)
    except Exception:  # Pillow has many exceptions for EXIF that it cannot read
        expected = 1
    found = exif_orientation(bytes(exif), 0, len(exif))
    if not changes:
        assert found == orientation
    assert found in (1, expected)
