"""Turns uint8 pixels into a vision model's input on the device, with the steps of its Hugging Face image processor."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from curator_core.errors import UsageError
from curator_image.decode.picture import Picture, Resample
from curator_image.models.source import ModelNotFound, local_file, split_model

# Files of a model folder that may hold the configuration; the first one with content is used.
CONFIG_FILES = ("preprocessor_config.json", "processor_config.json")

# Filters by their number in Pillow.
_RESAMPLE = {0: "nearest-exact", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
# Filters that torch lacks, and the most similar filter that it has.
_ON_DEVICE = {"lanczos": "bicubic", "box": "bilinear"}
# The pictures that the stages' default models need at their pinned revisions, for planning before they are downloaded.
PUBLISHED = {"openai/clip-vit-large-patch14": Picture(224, 224, "crop", "bicubic")}


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop, rescale, normalise: the content of a model's ``preprocessor_config.json``."""

    shortest_edge: int | None = None
    size: tuple[int, int] | None = None  # height, width
    crop: tuple[int, int] | None = None
    resample: str = "bicubic"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @classmethod
    def load(cls, folder: Path) -> Preprocessing:
        """Read it from a model folder."""
        for name in CONFIG_FILES:
            if (folder / name).is_file() and (found := cls.read(folder / name)):
                return found
        raise UsageError(
            f"the model folder {str(folder)!r} has no preprocessor_config.json, which says how its images are resized "
            "and normalised: copy it from the model's repository"
        )

    @classmethod
    def read(cls, path: Path) -> Preprocessing | None:
        """Read it from one of `CONFIG_FILES`; returns None if the file has no image settings."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values = values.get("image_processor") if path.name == "processor_config.json" else values
            return cls.from_values(values) if values else None
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise UsageError(f"{str(path)!r} does not say how images are resized and normalised: {error}") from error

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Preprocessing:
        """Read the values in any generation of the format: ``size`` may be a number, an edge, or height and width."""
        size, edge = values.get("size"), None
        exact: tuple[int, int] | None = None
        crop = _height_width(values.get("crop_size"))
        if not values.get("do_resize", True):
            size = None
        if isinstance(size, dict) and "shortest_edge" in size:
            edge = int(size["shortest_edge"])
        elif isinstance(size, int) and values.get("do_center_crop"):
            edge = size  # the original format of CLIP, in which sizes had no names
        else:
            exact = _height_width(size)
        if "max_num_patches" in values:
            # NaFlex keeps the aspect ratio of each image. Here, all images of a batch have one shape, so images are
            # squashed into a square with the same number of patches.
            side = math.isqrt(int(values["max_num_patches"])) * int(values.get("patch_size", 16))
            edge, exact = None, (side, side)
        normalises = values.get("do_normalize", True)
        return cls(
            shortest_edge=edge,
            size=exact,
            crop=crop if values.get("do_center_crop") else None,
            resample=_RESAMPLE.get(int(values.get("resample", 3)), "bicubic"),
            scale=float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0,
            mean=tuple(values["image_mean"]) if normalises and "image_mean" in values else (0.0, 0.0, 0.0),
            std=tuple(values["image_std"]) if normalises and "image_std" in values else (1.0, 1.0, 1.0),
        )

    @property
    def picture(self) -> Picture | None:
        """The picture from which the device computes exactly the same input as the model's own processor.

        Its size is that to which the processor resizes before it crops. None if the processor does not resize, or
        resizes in a way that pictures do not support.
        """
        if self.resample not in get_args(Resample):
            return None
        resample: Any = self.resample
        if self.size:
            return Picture(*self.size, "squash", resample)
        if self.shortest_edge and (not self.crop or max(self.crop) <= self.shortest_edge):
            return Picture(self.shortest_edge, self.shortest_edge, "crop", resample)
        return None

    @property
    def target(self) -> tuple[int, int] | None:
        """Height and width of the model's input."""
        if self.crop:
            return self.crop
        return self.size or ((self.shortest_edge, self.shortest_edge) if self.shortest_edge else None)

    def __call__(self, pixels: Any, dtype: Any) -> Any:
        """A uint8 tensor ``(n, height, width, 3)`` on its device, as ``(n, 3, h, w)`` in ``dtype``.

        Pixels that already have the target size count as resized and cropped.
        """
        import torch

        images = pixels.permute(0, 3, 1, 2)
        if self.target and tuple(images.shape[-2:]) != self.target:
            images = self._resized(images.float())
        # Compute in float32 whatever the model's type: bf16 has 8 bits and would round the values before the first
        # layer.
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        return ((images.float() * self.scale - mean) / std).to(dtype)

    def _resized(self, images: Any) -> Any:
        import torch

        height, width = images.shape[-2:]
        if self.size:
            to = self.size
        elif self.shortest_edge:
            short, long = min(height, width), max(height, width)
            other = int(self.shortest_edge * long / short)  # truncate instead of rounding, as the reference does
            to = (self.shortest_edge, other) if height <= width else (other, self.shortest_edge)
        else:
            to = (height, width)
        mode = _ON_DEVICE.get(self.resample, self.resample)
        smooth = mode in ("bilinear", "bicubic")
        # The reference, Pillow, resizes one axis after the other and rounds to whole numbers after each.
        for step in ((height, to[1]), to):
            if tuple(images.shape[-2:]) != step:
                images = torch.nn.functional.interpolate(images, size=step, mode=mode, antialias=smooth)
                images = images.round_().clamp_(0, 255)
        if self.crop:
            crop_height, crop_width = self.crop
            pad_height, pad_width = max(0, crop_height - to[0]), max(0, crop_width - to[1])
            if pad_height or pad_width:
                left, top = pad_width // 2, pad_height // 2
                images = torch.nn.functional.pad(images, (left, pad_width - left, top, pad_height - top))
            top, left = (images.shape[-2] - crop_height) // 2, (images.shape[-1] - crop_width) // 2
            images = images[..., top : top + crop_height, left : left + crop_width]
        return images


def needed_picture(model: str, revision: str | None = None) -> tuple[bool, Picture | None]:
    """Whether a model's preprocessing is known without a network, and the picture that it needs, if any."""
    try:
        for name in CONFIG_FILES:
            path = local_file(model, revision, name)
            if path is not None and (found := Preprocessing.read(path)):
                return True, found.picture
    except ModelNotFound:  # it may be on the workers; if it is not, their setup reports it
        return False, None
    name, at = split_model(model, revision)
    published = PUBLISHED.get(name) if at == split_model(name)[1] else None
    return published is not None, published


def _height_width(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, dict) and "height" in value:
        return int(value["height"]), int(value["width"])
    return None
