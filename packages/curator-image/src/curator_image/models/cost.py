"""Estimates a model's work for each image from its configuration, so that the plan can compare its speed with that of
decoding on CPUs.
"""

from __future__ import annotations

import json
from typing import Any

from curator_image.models.source import ModelNotFound, local_file, split_model

# How many 16-bit operations per second a data-centre GPU does in such models: an H100 computes 2,239 images/s with CLIP
# ViT-L/14 (measured), which needs 162 billion operations for each image. Slower GPUs need fewer images, so CPUs can
# supply them more easily.
GPU_OPERATIONS_S = 3.6e14
# The configurations of the stages' default models, for planning before they are downloaded.
_PUBLISHED: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "image_size": 224,
        "patch_size": 14,
    }
}


def operations(model: str, revision: str | None = None) -> float | None:
    """The operations for one image, or None if the configuration is not on this machine or is incomplete."""
    try:
        path = local_file(model, revision, "config.json")
        values = json.loads(path.read_text(encoding="utf-8")) if path else _PUBLISHED.get(split_model(model)[0], {})
        vision = values.get("vision_config", values)
        width, layers = int(vision["hidden_size"]), int(vision["num_hidden_layers"])
        inner = int(vision.get("intermediate_size") or width * vision.get("mlp_ratio", 4))
        tokens = (
            int(vision["num_patches"])
            if "num_patches" in vision
            else (int(vision["image_size"]) // int(vision["patch_size"])) ** 2 + 1
        )
    except (ModelNotFound, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    # A layer has four products with square matrices, two in attention, and two in the feed-forward part; each element
    # costs a multiplication and an addition.
    return float(layers * (8 * tokens * width**2 + 4 * tokens**2 * width + 4 * tokens * width * inner))
