"""Reads weights as NumPy arrays from the formats in which heads are published, without unpickling executable code.

- ``.safetensors``
- ``.pth``, ``.pt``, ``.bin``, ``.ckpt``: `torch.load(weights_only=True)`
- a Keras SavedModel: its folder, or a zip of it; TensorFlow is not needed
- a zip that contains one file of these formats
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator_core.errors import CuratorError, MissingDependency
from curator_image.models.tensor_bundle import read_bundle

Weights = dict[str, NDArray[Any]]

_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
# A head has a few megabytes; this limit keeps a zip from filling the memory.
_MAX_MEMBER = 1 << 30
_KERAS = re.compile(r"layer_with_weights-(\d+)/(\w+)/\.ATTRIBUTES/VARIABLE_VALUE")


class UnreadableWeights(CuratorError):
    """A file of weights is broken or has an unsupported format; the message lists the supported formats."""


def read_weights(path: str | Path) -> Weights:
    """The tensors of a file or SavedModel folder by name; floating-point tensors are float32."""
    path = Path(path)
    try:
        if path.is_dir():
            return _from_folder(path)
        if path.suffix == ".safetensors":
            return _from_safetensors(path.read_bytes())
        if zipfile.is_zipfile(path):
            return _from_zip(path)
        if path.suffix in _TORCH_SUFFIXES:
            return _from_torch(path.read_bytes(), str(path))
    except (OSError, EOFError, KeyError, struct.error, zipfile.BadZipFile) as error:
        raise UnreadableWeights(f"the weights {str(path)!r} cannot be read: {error}") from error
    raise UnreadableWeights(
        f"the weights {str(path)!r} have an unsupported format: give a .safetensors or .pth file, a Keras SavedModel "
        "folder (with saved_model.pb and variables/), or a zip of one of these"
    )


def write_weights(weights: Mapping[str, NDArray[Any]], path: str | Path) -> None:
    """Save tensors as safetensors, the format of a converted head."""
    _safetensors().save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, str(path))


def _from_folder(folder: Path) -> Weights:
    index = folder / "variables" / "variables.index"
    if index.is_file():
        return _keras(
            read_bundle(
                index.read_bytes(),
                lambda i, of: (index.parent / f"variables.data-{i:05d}-of-{of:05d}").read_bytes(),
            )
        )
    found = sorted(folder.glob("*.safetensors")) or sorted(p for p in folder.iterdir() if p.suffix in _TORCH_SUFFIXES)
    if len(found) != 1:
        raise UnreadableWeights(
            f"the folder {str(folder)!r} contains {len(found)} files of weights, but must contain one: give the file "
            "itself"
        )
    return read_weights(found[0])


def _from_zip(path: Path) -> Weights:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(PurePosixPath(name).name == "data.pkl" for name in names):  # a file from torch.save is itself a zip
            return _from_torch(path.read_bytes(), str(path))
        hidden = [name for name in names if not name.startswith("__MACOSX/")]
        index = [name for name in hidden if name.endswith("variables/variables.index")]
        if len(index) == 1:
            base = index[0].removesuffix("index")
            return _keras(
                read_bundle(
                    _member(archive, index[0]), lambda i, of: _member(archive, f"{base}data-{i:05d}-of-{of:05d}")
                )
            )
        found = [name for name in hidden if PurePosixPath(name).suffix in (".safetensors", *_TORCH_SUFFIXES)]
        if len(found) != 1:
            raise UnreadableWeights(
                f"the zip {str(path)!r} contains {len(found)} files of weights, but must contain one"
            )
        data = _member(archive, found[0])
    if found[0].endswith(".safetensors"):
        return _from_safetensors(data)
    return _from_torch(data, f"{path}:{found[0]}")


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MAX_MEMBER:
        raise UnreadableWeights(f"{name!r} in {archive.filename!r} unpacks to more than {_MAX_MEMBER >> 20} MiB")
    return archive.read(name)


def _from_safetensors(data: bytes) -> Weights:
    library = _safetensors()
    try:
        return {name: _float32(value) for name, value in library.load(data).items()}
    except Exception as error:  # safetensors raises its own errors, and KeyError for types that NumPy lacks
        raise UnreadableWeights(f"the safetensors file cannot be read: {error}") from error


def _from_torch(data: bytes, what: str) -> Weights:
    import pickle

    try:
        import torch
    except ImportError as error:
        raise MissingDependency(
            f'reading {what!r} needs torch: pip install "curator-image[models]", or convert it to safetensors '
            "elsewhere (python -m curator_image.models.convert)"
        ) from error
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        first = str(error).strip().splitlines()[0]
        raise UnreadableWeights(
            f"{what!r} is not a plain file of tensors, so it was not loaded (weights_only=True): {first}"
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise UnreadableWeights(f"{what!r} contains a {type(loaded).__name__} instead of named tensors")
    return {name: _float32(value.detach().float().numpy()) for name, value in tensors.items()}


def _keras(tensors: Mapping[str, NDArray[Any]]) -> Weights:
    """Keras' dense layers under the names of the PyTorch version of LAION's head."""
    layers: dict[int, dict[str, NDArray[Any]]] = {}
    for name, value in tensors.items():
        match = _KERAS.fullmatch(name)
        if match:
            layers.setdefault(int(match[1]), {})[match[2]] = value
    weights: Weights = {}
    dense = 0
    for _, layer in sorted(layers.items()):
        if {"mean", "variance"} <= layer.keys():
            weights["norm.mean"] = _float32(layer["mean"]).reshape(-1)
            weights["norm.variance"] = _float32(layer["variance"]).reshape(-1)
        elif "kernel" in layer:
            dense += 1
            weights[f"linear_{dense}.weight"] = _float32(layer["kernel"]).T
            weights[f"linear_{dense}.bias"] = _float32(layer["bias"])
    return weights or {name: _float32(value) for name, value in tensors.items()}


def _float32(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float32) if np.issubdtype(value.dtype, np.floating) else np.asarray(value)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingDependency('safetensors files need safetensors: pip install "curator-image[models]"') from error
    return safetensors.numpy
