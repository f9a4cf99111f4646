"""Makes pictures from encoded bytes; each image is decoded once, however many pictures are needed."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from curator_core.errors import UsageError
from curator_image.decode.picture import Picture
from curator_image.decode.probe import (
    ABSURD,
    CORRUPT,
    MAX_PIXELS,
    MAX_SIDE,
    TOO_LARGE,
    TRUNCATED,
    UNSUPPORTED,
    BadImage,
    Header,
    check_closed,
    check_size,
    probe,
    without_stray_bytes,
)

Pixels = NDArray[np.uint8]
DecoderName = Literal["auto", "dali", "turbo", "pillow"]

_FORMATS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF", "avif": "AVIF"}
# libjpeg reports these errors and still decodes every pixel.
_HARMLESS = ("extraneous bytes before marker", "unknown Adobe color transform", "Inconsistent progression sequence")


@dataclass(frozen=True, slots=True)
class Decoded:
    """The pictures of a batch. Row *i* of each array (or torch tensor, where the decoder left it on a device) belongs
    to image *i*; it is black where ``errors`` has *i*.
    """

    pictures: tuple[Any, ...]
    errors: dict[int, BadImage]


class Decoder(Protocol):
    """Makes the pictures of a batch."""

    def __call__(self, images: Sequence[bytes | memoryview], wanted: Sequence[Picture]) -> Decoded:
        """All ``wanted`` pictures of all images."""


class Shelf:
    """Arrays that are reused when nothing else refers to them.

    The first access to fresh memory costs more than making the picture. An array is free when only the shelf refers to
    it; views and Arrow columns of it also count as references.
    """

    def __init__(self, keep: int = 3) -> None:
        self._keep = keep
        self._arrays: list[Pixels] = []

    def take(self, shape: tuple[int, ...]) -> Pixels:
        """An array of this shape, not yet filled."""
        size = int(np.prod(shape))
        for index in range(len(self._arrays)):
            # Two references: the list, and getrefcount's argument.
            if sys.getrefcount(self._arrays[index]) == 2 and size <= self._arrays[index].size <= 4 * max(size, 1):
                return self._arrays[index][:size].reshape(shape)
        fresh = np.empty(size, np.uint8)
        self._arrays = [*self._arrays[-(self._keep - 1) :], fresh]
        return fresh.reshape(shape)


@dataclass(frozen=True)
class CpuDecoder:
    """Decodes on the CPU: ``turbo`` decodes JPEGs with libjpeg-turbo and resizes with SIMD, ``pillow`` uses only
    Pillow.

    Both use Pillow for every other format. ``threads`` splits a batch; if an executor offers processes, use those
    instead.
    """

    turbo: bool = True
    max_pixels: int = MAX_PIXELS
    max_side: int = MAX_SIDE
    threads: int = 1
    shelves: dict[int, Shelf] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, images: Sequence[bytes | memoryview], wanted: Sequence[Picture]) -> Decoded:
        arrays = tuple(
            self.shelves.setdefault(number, Shelf()).take((len(images), *picture.shape))
            for number, picture in enumerate(wanted)
        )
        errors: dict[int, BadImage] = {}
        resize = fast_resizer() if self.turbo else pillow_resize

        def work(rows: range) -> None:
            for row in rows:
                try:
                    self._one(bytes(images[row]), wanted, [array[row] for array in arrays], resize)
                except BadImage as error:
                    for array in arrays:
                        array[row] = 0
                    errors[row] = error

        if self.threads > 1 and len(images) > 1:
            step = -(-len(images) // self.threads)
            parts = [range(at, min(at + step, len(images))) for at in range(0, len(images), step)]
            with ThreadPoolExecutor(self.threads) as pool:
                list(pool.map(work, parts))
        else:
            work(range(len(images)))
        return Decoded(arrays, dict(sorted(errors.items())))

    def _one(self, data: bytes, wanted: Sequence[Picture], into: Sequence[Pixels], resize: Resize) -> None:
        header = probe(data, max_pixels=self.max_pixels, max_side=self.max_side, check_end=False)
        scale = 1
        if header.format != "jpeg":  # the JPEG decoder itself reports a truncated file
            check_closed(header.format, data)
        else:
            scale = min(picture.dct_scale(header.width, header.height) for picture in wanted)
        pixels = self._pixels(data, header, scale)
        # A JPEG that was decoded at a smaller scale is fitted by its full size; decoding a HEIC may crop it.
        original = (header.width, header.height) if header.format == "jpeg" else None
        for picture, target in zip(wanted, into, strict=True):
            draw(pixels, picture, target, resize, original)

    def greys(self, images: Sequence[bytes | memoryview], wanted: Picture) -> tuple[Pixels, dict[int, BadImage]]:
        """The luminance of the picture of each image, and the errors by row; a bad row is black.

        The colours of a JPEG are not decoded, so its luminance may differ by one or two levels from that of its RGB
        picture.
        """
        made = np.zeros((len(images), *wanted.shape[:2]), np.uint8)
        errors: dict[int, BadImage] = {}
        resize = fast_resizer() if self.turbo else pillow_resize
        coloured = np.empty(wanted.shape, np.uint8)
        for row, image in enumerate(images):
            data = bytes(image)
            try:
                header = probe(data, max_pixels=self.max_pixels, max_side=self.max_side, check_end=False)
                if self._by_turbo(header):
                    pixels = _turbo(data, header, wanted.dct_scale(header.width, header.height), "GRAY")[:, :, 0]
                    pixels = upright(pixels, header.orientation)
                    if wanted.mode == "squash":  # the whole image is resized, so there is nothing to cut out or place
                        made[row] = resize(pixels, wanted.width, wanted.height, wanted.resample)
                    else:
                        draw(pixels, wanted, made[row], resize, (header.width, header.height))
                else:
                    self._one(data, [wanted], [coloured], resize)
                    made[row] = grey(coloured)
            except BadImage as error:
                errors[row] = error
        return made, errors

    def full_size(self, data: bytes) -> Pixels:
        """All pixels of an image as RGB, upright."""
        header = probe(data, max_pixels=self.max_pixels, max_side=self.max_side, check_end=False)
        if header.format != "jpeg":
            check_closed(header.format, data)
        return self._pixels(data, header, 1)

    def _pixels(self, data: bytes, header: Header, scale: int) -> Pixels:
        if self._by_turbo(header):
            return upright(_turbo(data, header, scale), header.orientation)
        return pillow_pixels(data, header, scale, self.max_pixels, self.max_side)

    def _by_turbo(self, header: Header) -> bool:
        return self.turbo and header.format == "jpeg" and header.channels in (1, 3)


def cpu_decoder(name: DecoderName = "auto", **limits: Any) -> CpuDecoder:
    """The CPU decoder of this name; ``auto`` is ``turbo``."""
    if name not in get_args(DecoderName) or name == "dali":
        raise UsageError(f"decoder must be 'auto', 'turbo' or 'pillow' here, not {name!r}")
    return CpuDecoder(turbo=name != "pillow", **limits)


def decode_batch(
    images: Sequence[bytes | memoryview | None] | Any,
    picture: Picture | int = 224,
    *,
    mode: Literal["crop", "squash", "pad"] = "crop",
    resample: Literal["bilinear", "bicubic", "lanczos", "box"] = "bicubic",
    decoder: Decoder | None = None,
    threads: int = 1,
) -> tuple[Pixels, dict[int, BadImage]]:
    """Decode and resize encoded images (a list or an Arrow column) in one call.

    Returns an array ``(n, height, width, 3)`` and the errors by row; a row with an error is black. ``picture`` may be
    the size of a square::

        pixels, errors = decode_batch(batch.to_pyarrow()["bytes"], 224, mode="crop", resample="bicubic")
    """
    if isinstance(picture, int):
        picture = Picture(picture, picture, mode, resample)
    decoded = (decoder or CpuDecoder(threads=threads))(encoded(images), [picture])
    return decoded.pictures[0], decoded.errors


def encoded(images: Any) -> list[bytes]:
    """The values of a column of bytes; a null becomes empty bytes."""
    values = images.to_pylist() if hasattr(images, "to_pylist") else images
    return [b"" if value is None else value for value in values]


def draw(
    pixels: Pixels, picture: Picture, target: Pixels, resize: Resize, original: tuple[int, int] | None = None
) -> None:
    """Put the picture of upright ``pixels`` into ``target``. ``original`` is the full size, if the pixels are scaled."""
    height, width = pixels.shape[:2]
    full_width, full_height = original or (width, height)
    fit = picture.fit(full_width, full_height)
    left, top, right, bottom = fit.box
    if (left, top, right, bottom) != (0, 0, full_width, full_height):
        left, right = left * width // full_width, max(1, right * width // full_width)
        top, bottom = top * height // full_height, max(1, bottom * height // full_height)
        left, top = min(left, right - 1), min(top, bottom - 1)
        pixels = pixels[top:bottom, left:right]
    made = (
        pixels
        if pixels.shape[:2] == (fit.height, fit.width)
        else resize(pixels, fit.width, fit.height, picture.resample)
    )
    fit.place(made, target)


# Resizing ------------------------------------------------------------------------------------------------------------

Resize = Callable[[Pixels, int, int, str], Pixels]


def pillow_resize(pixels: Pixels, width: int, height: int, resample: str) -> Pixels:
    """Pillow's antialiased resize, which is the reference."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.Resampling[resample.upper()]))


def fast_resizer() -> Resize:
    """The same filters with SIMD, three to six times faster and within two levels of Pillow's results; Pillow itself if
    there is no wheel for the platform.
    """
    try:
        import cykooz_resizer
    except ImportError:
        return pillow_resize
    global _fast  # noqa: PLW0603 - one resizer per process keeps its buffers
    if _fast is None:
        _fast = _simd(cykooz_resizer)
    return _fast


_fast: Resize | None = None


def _simd(library: Any) -> Resize:
    names = {"bilinear": "bilinear", "bicubic": "catmull_rom", "lanczos": "lanczos3", "box": "box"}
    options = {
        ours: library.ResizeOptions(library.ResizeAlg.convolution(library.FilterType[theirs]), use_alpha=False)
        for ours, theirs in names.items()
    }
    kinds = {2: library.PixelType.U8, 3: library.PixelType.U8x3}
    own = threading.local()  # a resizer keeps buffers, so threads must not share it

    def resize(pixels: Pixels, width: int, height: int, resample: str) -> Pixels:
        kind = kinds[pixels.ndim]  # grey, or RGB
        source = library.ImageData(pixels.shape[1], pixels.shape[0], kind, pixels.tobytes())
        target = library.ImageData(width, height, kind)
        try:
            resizer = own.resizer
        except AttributeError:
            resizer = own.resizer = library.Resizer()
        resizer.resize(source, target, options[resample])
        return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, *pixels.shape[2:])

    return resize


# Decoding ------------------------------------------------------------------------------------------------------------


def grey(pixels: Pixels) -> Pixels:
    """The luminance of RGB pictures, rounded."""
    wide = pixels.astype(np.uint32)
    return ((wide[..., 0] * 299 + wide[..., 1] * 587 + wide[..., 2] * 114 + 500) // 1000).astype(np.uint8)


def _turbo(data: bytes, header: Header, scale: int, colours: Literal["RGB", "GRAY"] = "RGB") -> Pixels:
    import simplejpeg

    width, height = header.width, header.height
    if header.orientation >= 5:
        width, height = height, width
    sizes = (
        {"min_width": -(-width // scale), "min_height": -(-height // scale), "min_factor": scale} if scale > 1 else {}
    )
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colours, **sizes))
    except ValueError as error:
        message = str(error)
        if any(text in message for text in _HARMLESS):
            # Even a lenient decoder rejects stray bytes between the segments of the header, so remove them.
            try:
                return np.asarray(simplejpeg.decode_jpeg(without_stray_bytes(data), colours, strict=False, **sizes))
            except ValueError as again:
                message = str(again)
        check_closed("jpeg", data)  # this gives a more exact reason
        reason = TRUNCATED if "Premature end of JPEG file" in message else CORRUPT
        raise BadImage(reason, message) from error


def pillow_pixels(
    data: bytes, header: Header, scale: int, max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE
) -> Pixels:
    """Upright RGB of an image in any supported format."""
    from PIL import Image

    try:
        with _opened(data, header.format) as image:
            # The file's header was checked before; this checks the size that Pillow is about to allocate.
            check_size(image.width, image.height, max_pixels, max_side)
            if header.format == "jpeg" and scale > 1:
                image.draft("RGB" if image.mode in ("RGB", "L") else None, _stored(header, scale))
            image.load()
            orientation = _orientation(image, header)
            pixels = _rgb(image)
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(TOO_LARGE, str(error)) from error
    except MemoryError as error:
        raise BadImage(TOO_LARGE, "no memory for its pixels") from error
    except Exception as error:  # a decoder may raise anything for broken bytes: OSError, SyntaxError, KeyError …
        check_closed(header.format, data)
        message = f"{type(error).__name__}: {error}"
        reason = TRUNCATED if "truncated" in message.lower() else CORRUPT
        raise BadImage(reason, message) from error
    return upright(pixels, orientation)


def _opened(data: bytes, kind: str) -> Any:
    """A Pillow image whose header has been read, but not its pixels."""
    from PIL import Image

    if kind == "heic":
        # The HEIF opener is not registered, because that would change Pillow for the whole process.
        import pillow_heif

        return pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True).to_pillow()
    return Image.open(io.BytesIO(data), formats=[_FORMATS[kind]])


def _orientation(image: Any, header: Header) -> int:
    """The EXIF orientation that must still be applied to a decoded image."""
    if header.format in ("tiff", "heic"):
        return 1  # their decoders apply it
    if header.format == "avif":  # Pillow translates the file's own form of orientation
        found = image.getexif().get(0x0112, 1)
        return found if found in range(1, 9) else 1
    return header.orientation


def _stored(header: Header, scale: int) -> tuple[int, int]:
    width, height = header.width // scale, header.height // scale
    return (height, width) if header.orientation >= 5 else (width, height)


def _rgb(image: Any) -> Pixels:
    """RGB of a loaded Pillow image; transparent parts become white."""
    from PIL import Image

    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):
        values = np.asarray(image).astype(np.int64)
        if image.mode == "I" and values.size and not 0 <= values.min() <= values.max() <= 65_535:
            raise BadImage(UNSUPPORTED, "32-bit grey values have no agreed range")
        return np.repeat((values >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise BadImage(UNSUPPORTED, "floating-point values have no agreed range")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    pixels = np.asarray(image.convert("RGB"))
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise BadImage(ABSURD, f"decodes to an array of shape {pixels.shape}")
    return pixels


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation; returns a view, not a copy."""
    turn = _TURNS.get(orientation)
    return pixels if turn is None else turn(pixels)


_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: p.swapaxes(0, 1)[::-1],
}
