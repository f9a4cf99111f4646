"""Thumbnails: small, upright, never an error."""

import io

import pyarrow as pa
from PIL import Image

from curator_image import ImageBatch, Thumbnail, jpeg_thumbnail


def encoded(size, color="red", kind="PNG", **options):
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, kind, **options)
    return out.getvalue()


def shape(data):
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        return image.size


def test_a_thumbnail_has_the_shape_of_its_image_and_is_never_larger():
    assert shape(jpeg_thumbnail(encoded((800, 400)), 96)) == (96, 48)
    assert shape(jpeg_thumbnail(encoded((800, 400), kind="JPEG"), 96)) == (96, 48)
    assert shape(jpeg_thumbnail(encoded((40, 20)), 96)) == (40, 20)


def test_the_thumbnail_of_a_very_long_image_shows_its_middle():
    image = Image.new("RGB", (10, 4000), "blue")
    image.paste("red", (0, 1980, 10, 2020))
    out = io.BytesIO()
    image.save(out, "PNG")
    small = jpeg_thumbnail(out.getvalue(), 96)
    with Image.open(io.BytesIO(small)) as found:
        assert found.size == (10, 40)
        assert found.getpixel((5, 20))[0] > 200


def test_the_thumbnail_of_a_photo_is_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert shape(jpeg_thumbnail(encoded((80, 40), kind="JPEG", exif=exif.tobytes()), 96)) == (40, 80)


def test_an_image_that_cannot_be_decoded_has_no_thumbnail():
    images = [encoded((8, 8)), b"no image", b"", None]
    table = pa.table({"key": list("abcd"), "bytes": pa.array(images, pa.binary())})
    made = Thumbnail(side=4).process(ImageBatch(data=table)).to_pyarrow()["thumbnail"].to_pylist()
    assert [value is not None for value in made] == [True, False, False, False]
