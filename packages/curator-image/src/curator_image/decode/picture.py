"""The picture to make from an image: its size, how the image is fitted into it, and with which filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from curator_core.errors import UsageError

Mode = Literal["crop", "squash", "pad"]
Resample = Literal["bilinear", "bicubic", "lanczos", "box"]

MAX_PICTURE_SIDE = 4096
# An image is resized to at most this many times the picture's width before its centre is cut out.
_LONGEST = 4


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of ``height`` x ``width`` RGB bytes made from an image.

    ``crop`` resizes the shorter side to fit and cuts out the centre, as CLIP does; ``squash`` ignores the aspect ratio;
    ``pad`` shows the whole image on a black background. The filter is always antialiased.

    JPEGs are decoded at the smallest scale of 1, 1/2, 1/4 and 1/8 that is at least ``detail`` times the final size. A
    value of 1 is fastest; from 2 on, the result looks the same as after a decode at full size.
    """

    height: int = 224
    width: int = 224
    mode: Mode = "crop"
    resample: Resample = "bicubic"
    detail: float = 1.0

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_PICTURE_SIDE:
                raise UsageError(f"Picture.{name} must be 1 to {MAX_PICTURE_SIDE} pixels, not {value!r}")
        for name, kind in (("mode", Mode), ("resample", Resample)):
            if getattr(self, name) not in get_args(kind):
                raise UsageError(
                    f"Picture.{name} must be one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}"
                )
        if not isinstance(self.detail, int | float) or not 0 < self.detail <= 8:
            raise UsageError(f"Picture.detail must be above 0 and at most 8, not {self.detail!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, 3

    def fit(self, width: int, height: int) -> Fit:
        """The steps that turn an upright image of this size into the picture."""
        if self.mode == "squash":
            return Fit((0, 0, width, height), self.width, self.height, 0, 0)
        if self.mode == "pad":
            scale = min(self.width / width, self.height / height)
            across, down = max(1, round(width * scale)), max(1, round(height * scale))
            return Fit((0, 0, width, height), across, down, -((self.width - across) // 2), -((self.height - down) // 2))
        left = top = 0
        # A very long image is cut first, because resizing all of it could produce thousands of times as many pixels as
        # the picture has.
        if width * self.height > _LONGEST * height * self.width:
            keep = max(1, _LONGEST * height * self.width // self.height)
            left, width = (width - keep) // 2, keep
        elif height * self.width > _LONGEST * width * self.height:
            keep = max(1, _LONGEST * width * self.height // self.width)
            top, height = (height - keep) // 2, keep
        box = (left, top, left + width, top + height)
        # The longer side is rounded down, as the processors of published models do.
        if width * self.height >= height * self.width:
            across, down = max(self.width, width * self.height // height), self.height
        else:
            across, down = self.width, max(self.height, height * self.width // width)
        return Fit(box, across, down, (across - self.width) // 2, (down - self.height) // 2)

    def dct_scale(self, width: int, height: int) -> int:
        """The largest of 8, 4, 2 and 1 by which decoding may reduce a JPEG of this size."""
        fit = self.fit(width, height)
        left, top, right, bottom = fit.box
        for scale in (8, 4, 2):
            if (right - left) // scale >= self.detail * fit.width and (
                bottom - top
            ) // scale >= self.detail * fit.height:
                return scale
        return 1


@dataclass(frozen=True, slots=True)
class Fit:
    """Cut out ``box`` (left, top, right, bottom) and resize it to ``width`` x ``height``. The picture begins at
    ``left``, ``top`` of the result; negative values mean a margin.
    """

    box: tuple[int, int, int, int]
    width: int
    height: int
    left: int
    top: int

    def place(self, made: NDArray[Any], target: NDArray[np.uint8]) -> None:
        """Put the resized image into the picture: crop it where it is larger, and leave black where it is smaller.

        A margin is detected by size, not by the sign of ``left`` and ``top``: a margin of a single pixel is only at the
        far end, and the image then begins at 0.
        """
        height, width = target.shape[:2]
        if self.width < width or self.height < height:
            target[:] = 0
            target[-self.top : self.height - self.top, -self.left : self.width - self.left] = made
        else:
            target[:] = made[self.top : self.top + height, self.left : self.left + width]
