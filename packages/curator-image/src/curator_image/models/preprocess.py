"""From uint8 pixels to what a vision model takes, on the device: the steps of its Hugging Face image processor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator_core.errors import UsageError

_RESAMPLE = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop, rescale, normalise: what ``preprocessor_config.json`` says of a model."""

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
        for name, key in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
            path = folder / name
            if path.is_file():
                values = json.loads(path.read_text(encoding="utf-8"))
                values = values.get(key, {}) if key else values
                if values:
                    return cls.from_values(values)
        raise UsageError(
            f"the model folder {str(folder)!r} has no preprocessor_config.json, which says how its images are resized "
            "and normalised: copy it from the model's repository"
        )

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Preprocessing:
        """Understand the forms of several years: ``size`` as a number, as an edge, as height and width."""
        size, edge = values.get("size"), None
        exact: tuple[int, int] | None = None
        crop = _height_width(values.get("crop_size"))
        if not values.get("do_resize", True):
            size = None
        if isinstance(size, dict) and "shortest_edge" in size:
            edge = int(size["shortest_edge"])
        elif isinstance(size, int) and values.get("do_center_crop"):
            edge = size  # CLIP's own file, from before sizes had names
        else:
            exact = _height_width(size)
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
    def target(self) -> tuple[int, int] | None:
        """Height and width of what the model sees."""
        if self.crop:
            return self.crop
        return self.size or ((self.shortest_edge, self.shortest_edge) if self.shortest_edge else None)

    def __call__(self, pixels: Any, dtype: Any) -> Any:
        """A uint8 tensor ``(n, height, width, 3)`` on its device, as ``(n, 3, h, w)`` in ``dtype``.

        Pixels that already have the target size are taken as resized and cropped.
        """
        import torch

        images = pixels.permute(0, 3, 1, 2)
        if self.target and tuple(images.shape[-2:]) != self.target:
            images = self._resized(images.float())
        # In float32 whatever the model's type: bf16 has 8 bits and would blur the values before the first layer.
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
            other = int(self.shortest_edge * long / short)  # cut, not rounded, as the reference does
            to = (self.shortest_edge, other) if height <= width else (other, self.shortest_edge)
        else:
            to = (height, width)
        smooth = self.resample in ("bilinear", "bicubic")
        # Pillow, the reference, goes along one axis after the other and has whole numbers after each.
        for step in ((height, to[1]), to):
            if tuple(images.shape[-2:]) != step:
                images = torch.nn.functional.interpolate(images, size=step, mode=self.resample, antialias=smooth)
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


def _height_width(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, dict) and "height" in value:
        return int(value["height"]), int(value["width"])
    return None
