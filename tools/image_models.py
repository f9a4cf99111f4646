"""Makes image models with random weights in the real file formats, for tests and benchmarks without downloads.

python tools/image_models.py FOLDER [--size tiny|vit-l-14]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Shapes with transformers' names: one that runs in milliseconds on a laptop, and that of the published CLIP ViT-L/14.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vision": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"image_size": 32, "patch_size": 8},
        "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"max_position_embeddings": 24},
        "projection": 24,
    },
    "vit-l-14": {
        "vision": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
        | {"image_size": 224, "patch_size": 14},
        "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        "projection": 768,
    },
}


def save_clip(folder: Path, *, size: str = "tiny", projection: int | None = None, seed: int = 0) -> Path:
    """A CLIP with its image processor and a tokenizer of single bytes, as a Hugging Face model folder."""
    import torch
    import transformers

    shape = SIZES[size]
    dimension = projection or shape["projection"]
    image = shape["vision"]["image_size"]
    with _silent():
        _write_tokenizer(folder)
        torch.manual_seed(seed)
        ids = {"vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
        config = transformers.CLIPConfig(
            text_config={**shape["text"], **ids, "projection_dim": dimension},
            vision_config={**shape["vision"], "projection_dim": dimension},
            projection_dim=dimension,
        )
        model = transformers.CLIPModel(config)
        _spread(model)
        model.save_pretrained(folder)
        processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": image}, crop_size={"height": image, "width": image}
        )
        processor.save_pretrained(folder)
    return folder


def save_siglip(folder: Path, *, seed: int = 0) -> Path:
    """A tiny SigLIP, which does not crop, normalises differently, and uses its pooled output as the embedding."""
    import torch
    import transformers

    shape = SIZES["tiny"]
    with _silent():
        torch.manual_seed(seed)
        ids = {"vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 1}
        config = transformers.SiglipConfig(text_config={**shape["text"], **ids}, vision_config=shape["vision"])
        model = transformers.SiglipModel(config)
        _spread(model)
        model.save_pretrained(folder)
        transformers.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_siglip2(folder: Path, *, seed: int = 0) -> Path:
    """A tiny SigLIP 2 for any aspect ratio (NaFlex), which takes patches. SigLIP 2 with a fixed size has the format of
    SigLIP.
    """
    import torch
    import transformers

    vision = {key: value for key, value in SIZES["tiny"]["vision"].items() if key != "image_size"}
    with _silent():
        _write_tokenizer(folder)
        torch.manual_seed(seed)
        ids = {"vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 1}
        config = transformers.Siglip2Config(
            text_config={**SIZES["tiny"]["text"], **ids}, vision_config={**vision, "num_patches": 16}
        )
        model = transformers.Siglip2Model(config)
        _spread(model)
        model.save_pretrained(folder)
        transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(folder)
    return folder


def save_dinov2(folder: Path, *, seed: int = 0) -> Path:
    """A tiny DINOv2, for which images are resized to a larger size than its input and then cropped."""
    import torch
    import transformers

    with _silent():
        torch.manual_seed(seed)
        config = transformers.Dinov2Config(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14
        )
        model = transformers.Dinov2Model(config)
        _spread(model)
        model.save_pretrained(folder)
        processor = transformers.BitImageProcessor(
            size={"shortest_edge": 32},
            crop_size={"height": 28, "width": 28},
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        )
        processor.save_pretrained(folder)
    return folder


def aesthetic_tensors(dimension: int = 768, *, seed: int = 0, scale: float = 1.0) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of the aesthetic head, named and shaped as published; scores of unit vectors are around 5."""
    random = np.random.default_rng(seed)
    widths, numbers = (dimension, 1024, 128, 64, 16, 1), (0, 2, 4, 6, 7)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for number, before, after in zip(numbers, widths[:-1], widths[1:], strict=True):
        tensors[f"layers.{number}.weight"] = random.normal(0, before**-0.5, (after, before)).astype(np.float32)
        tensors[f"layers.{number}.bias"] = random.normal(0, 0.1, after).astype(np.float32)
    tensors["layers.7.weight"] *= np.float32(scale * dimension**0.5)
    # Shift the output for an embedding of zeros to 5.
    offset = np.zeros(1, np.float32)
    for number in numbers:
        offset = tensors[f"layers.{number}.weight"] @ offset.ravel() if number else np.zeros(1024, np.float32)
        offset = offset + tensors[f"layers.{number}.bias"]
    tensors["layers.7.bias"] += np.float32(5.0) - offset
    return tensors


def nsfw_tensors(dimension: int = 768, *, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of LAION's NSFW head, named and shaped as published for PyTorch."""
    random = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "norm.mean": random.normal(0, 0.02, dimension).astype(np.float32),
        "norm.variance": random.uniform(0.5, 1.5, dimension).astype(np.float32) / np.float32(dimension),
    }
    widths = (dimension, 64, 512, 256, 1)
    for number, (before, after) in enumerate(itertools.pairwise(widths), start=1):
        tensors[f"linear_{number}.weight"] = random.normal(0, (2 / before) ** 0.5, (after, before)).astype(np.float32)
        tensors[f"linear_{number}.bias"] = np.zeros(after, np.float32)
    return tensors


def save_heads(folder: Path, dimension: int, *, seed: int = 0) -> tuple[Path, Path]:
    """Both heads in their published formats: the aesthetic head as safetensors, the NSFW head as a torch file."""
    import safetensors.numpy
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    aesthetic, nsfw = folder / "model.safetensors", folder / "clip_ViT-L-14_openai_binary_nsfw_head.pth"
    safetensors.numpy.save_file(aesthetic_tensors(dimension, seed=seed), str(aesthetic))
    torch.save({name: torch.from_numpy(value) for name, value in nsfw_tensors(dimension, seed=seed).items()}, nsfw)
    return aesthetic, nsfw


def _spread(model: Any) -> None:
    """Use larger random weights: with the initial ones, all pictures would get nearly the same vector."""
    import torch

    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim >= 2 and "position" not in name:
                value.mul_(3.0)


def _write_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # The printable characters for the 256 bytes, in the order of byte-level tokenizers.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    settings |= {"bos_token": "<|startoftext|>", "unk_token": "<|endoftext|>"}
    settings |= {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    from transformers.utils import logging as library

    before = library.get_verbosity()
    library.set_verbosity(logging.ERROR)
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(before)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a CLIP and its heads with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny")
    options = parser.parse_args()
    clip = save_clip(options.folder / "clip", size=options.size)
    heads = save_heads(options.folder / "heads", SIZES[options.size]["projection"])
    print(clip, *heads, sep="\n")


if __name__ == "__main__":
    main()
