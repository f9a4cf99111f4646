"""The two halves of a CLIP-like model, from pixels to vectors and from texts to vectors, on the CPU or a GPU.

This module needs torch and transformers, so stages import it in their `setup`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator_core.errors import CuratorError, MissingDependency, UsageError
from curator_core.model.compiling import MaybeCompiled
from curator_core.model.cuda import Late, fetch, items_that_fit_cuda, seconds_cuda, sender
from curator_image.exact import unit_rows
from curator_image.models.preprocess import Preprocessing

PRECISIONS = ("auto", "fp32", "fp16", "bf16")
DEVICES = ("auto", "cpu", "cuda")
# The batch size that the model is compiled for on a GPU: larger ones run no faster and take much longer to compile.
COMPILED_BATCH = 64
CPU_BATCH = 32
LARGEST_BATCH = 1024

_LOG = logging.getLogger(__name__)
_CLIP = ("clip", "clip_vision_model", "clip_text_model")
_SIGLIP = ("siglip", "siglip_vision_model", "siglip_text_model")
# SigLIP 2 with any aspect ratio (NaFlex); SigLIP 2 with a fixed size has the type of SigLIP.
_NAFLEX = ("siglip2", "siglip2_vision_model", "siglip2_text_model")
_DINO = ("dinov2", "dinov2_with_registers", "dinov3_vit")


class OutOfMemory(CuratorError):
    """Not even one item fits into the stage's memory."""


@dataclass
class Batcher:
    """Runs a function over chunks; if a chunk does not fit into memory, the chunk size is halved permanently and the
    chunk is tried again.
    """

    size: int
    retries: int = 0

    def run(self, count: int, forward: Callable[[int, int], Any]) -> list[Any]:
        """``forward(start, stop)`` for consecutive ranges that cover ``count`` items."""
        import torch

        results: list[Any] = []
        start = 0
        while start < count:
            stop = min(count, start + self.size)
            try:
                results.append(forward(start, stop))
            except torch.OutOfMemoryError as error:
                if self.size == 1:
                    raise OutOfMemory(
                        f"one item does not fit into memory: give the stage more gpu_memory_gb. {error}"
                    ) from error
                self.size = max(1, min(self.size, stop - start) // 2)
                self.retries += 1
                _LOG.warning("out of memory with %d items at a time, continuing with %d", stop - start, self.size)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            start = stop
        return results


@dataclass
class ImageTower:
    """A vision model with its preprocessing."""

    model: Any
    preprocessing: Preprocessing
    kind: str
    dimension: int
    device: str
    dtype: Any
    batcher: Batcher = field(default_factory=lambda: Batcher(CPU_BATCH))
    compiling: MaybeCompiled | None = None
    _send: Callable[[Any], Any] | None = field(default=None, init=False)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "cpu",
        precision: str = "auto",
        batch_size: int | None = None,
        memory_gb: float = 0.0,
        compile: str = "never",  # noqa: A002 - the name of the option
    ) -> ImageTower:
        """Load the vision half of the model in ``folder``; ``memory_gb`` limits its GPU memory, and 0 means all of it."""
        transformers = import_models("transformers")
        kind = model_type(folder)
        if kind in _CLIP:
            family = transformers.CLIPVisionModelWithProjection
        elif kind in _SIGLIP:
            family = transformers.SiglipVisionModel
        elif kind in _NAFLEX:
            family = transformers.Siglip2VisionModel
        elif kind in _DINO:
            family = transformers.AutoModel
        else:
            raise UsageError(
                f"the model in {str(folder)!r} is of type {kind!r}; image embeddings are made with "
                f"{', '.join(sorted({*_CLIP[:1], *_SIGLIP[:1], *_NAFLEX[:1], *_DINO}))}"
            )
        dtype = torch_dtype(precision, device)
        model = load_pretrained(family, folder, dtype, device)
        if kind in _CLIP:
            dimension = int(model.config.projection_dim)
        else:
            config = getattr(model.config, "vision_config", model.config)
            dimension = int(config.hidden_size)
        tower = cls(model, Preprocessing.load(folder), kind, dimension, device, dtype)
        if device == "cuda":
            tower.choose_layout_cuda()
        tower.batcher.size = batch_size or tower.fitting_batch(memory_gb)
        tower.compiling = MaybeCompiled(model, compile, on_gpu=device == "cuda", compile=tower._compiled)
        return tower

    def _compiled(self, model: Any) -> Any:
        """Compile the model, and use only batches of one shape afterwards."""
        import torch

        if self.device == "cuda":
            self.batcher.size = min(self.batcher.size, COMPILED_BATCH)
        return torch.compile(model, dynamic=False)

    def forward(self, pixels: Any) -> Any:
        """The model's output for a uint8 tensor ``(n, height, width, 3)``, on the device, as float32."""
        import torch

        inputs = self.preprocessing(pixels, self.dtype)
        count = len(inputs)
        compiled = self.compiling is not None and self.compiling.compiled is not None
        if compiled and count < self.batcher.size:
            # Another shape would be compiled again, so the last batch is padded, and the surplus output is cut off.
            inputs = torch.nn.functional.pad(inputs, (0, 0) * 3 + (0, self.batcher.size - count))
        model = self.model if self.compiling is None else self.compiling.current
        answer = model(**self._named(inputs))
        vectors = answer.image_embeds if self.kind in _CLIP else answer.pooler_output
        return vectors[:count].float()

    def _named(self, images: Any) -> dict[str, Any]:
        """The model's input: whole images, or patches with the shape of their grid."""
        if self.kind not in _NAFLEX:
            return {"pixel_values": images}
        import torch

        count, channels, height, width = images.shape
        patch = int(getattr(self.model.config, "vision_config", self.model.config).patch_size)
        rows, columns = height // patch, width // patch
        patches = images.reshape(count, channels, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
        shape = torch.tensor([[rows, columns]]).expand(count, 2)
        return {
            "pixel_values": patches.reshape(count, rows * columns, -1),
            "pixel_attention_mask": torch.ones((count, rows * columns), dtype=torch.int64, device=images.device),
            "spatial_shapes": shape,
        }

    def embed(self, pixels: Any) -> NDArray[np.float32]:
        """Unit vectors of ``(n, height, width, 3)`` pixels: an array, or a tensor on the model's device."""
        return self.begin(pixels)()

    def begin(self, pixels: Any) -> Callable[[], NDArray[np.float32]]:
        """Start to compute the vectors on a GPU. The returned function waits for them."""
        import torch

        if self._send is None:
            self._send = sender(self.device, torch)
        send = self._send
        here = not isinstance(pixels, torch.Tensor)

        def part(start: int, stop: int) -> Late:
            chunk = pixels[start:stop]
            if here:
                with warnings.catch_warnings():
                    # Arrow's memory is read-only; nothing here writes to it.
                    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                    chunk = send(torch.from_numpy(chunk))
            return fetch(self.forward(chunk), self.device, torch)

        with torch.inference_mode():
            parts = self.batcher.run(len(pixels), part)

        def finish() -> NDArray[np.float32]:
            if not parts:
                return np.empty((0, self.dimension), np.float32)
            return unit_rows(np.concatenate([late.result() for late in parts]))

        return finish

    def compile_in_time(self) -> bool:
        """Compile the model if it is time; returns whether it has just been compiled."""
        return self.compiling is not None and self.compiling.in_time()

    def _zeros_cuda(self, count: int) -> Any:
        import torch

        height, width = self.preprocessing.target or (224, 224)
        return torch.zeros((count, height, width, 3), dtype=torch.uint8, device=self.device)

    def choose_layout_cuda(self) -> None:
        """Keep the weights channels-last if this GPU computes faster that way."""
        import torch

        pixels = self._zeros_cuda(8)
        with torch.inference_mode():
            usual = seconds_cuda(lambda: self.forward(pixels), 3, torch)
            self.model = self.model.to(memory_format=torch.channels_last)
            last = seconds_cuda(lambda: self.forward(pixels), 3, torch)
        if last > usual:
            self.model = self.model.to(memory_format=torch.contiguous_format)
        _LOG.info("a batch takes %.1f ms, channels-last %.1f ms", usual / 3 * 1000, last / 3 * 1000)

    def fitting_batch(self, memory_gb: float) -> int:
        """How many images fit into memory: a constant on the CPU, and on a GPU computed from the measured need of an
        image.
        """
        if self.device != "cuda":
            return CPU_BATCH
        import torch

        with torch.inference_mode():
            # A fifth of the memory stays free for fragmentation and for the pixels of the next chunk.
            images = items_that_fit_cuda(lambda count: self.forward(self._zeros_cuda(count)), memory_gb, 0.8, torch)
        fitting = int(images)
        return max(1, min(LARGEST_BATCH, fitting // 8 * 8 or fitting))


@dataclass
class TextTower:
    """The text model of a CLIP or SigLIP with its tokenizer."""

    model: Any
    tokenizer: Any
    kind: str
    max_tokens: int
    device: str
    batcher: Batcher = field(default_factory=lambda: Batcher(CPU_BATCH))

    @classmethod
    def load(
        cls, folder: Path, *, device: str = "cpu", precision: str = "auto", batch_size: int | None = None
    ) -> TextTower:
        """Load the text half of the model in ``folder``."""
        transformers = import_models("transformers")
        kind = model_type(folder)
        if kind in _CLIP:
            family = transformers.CLIPTextModelWithProjection
        elif kind in _SIGLIP:
            family = transformers.SiglipTextModel
        elif kind in _NAFLEX:
            family = transformers.Siglip2TextModel
        else:
            raise UsageError(
                f"the model in {str(folder)!r} is of type {kind!r}, which has no text model: use CLIP or SigLIP"
            )
        model = load_pretrained(family, folder, torch_dtype(precision, device), device)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"the model folder {str(folder)!r} has no tokenizer that can be loaded (tokenizer.json, or vocab.json "
                f"and merges.txt): {error}"
            ) from error
        config = getattr(model.config, "text_config", model.config)
        tower = cls(model, tokenizer, kind, int(config.max_position_embeddings), device)
        tower.batcher.size = batch_size or (256 if device == "cuda" else CPU_BATCH)
        return tower

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of texts; a text longer than the model's context is cut."""
        import torch

        def part(start: int, stop: int) -> Any:
            # SigLIP was trained on padded texts without a mask and needs all its positions filled.
            tokens = self.tokenizer(
                list(texts[start:stop]),
                padding="max_length" if self.kind in (*_SIGLIP, *_NAFLEX) else True,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            ).to(self.device)
            answer = self.model(**tokens)
            vectors = answer.text_embeds if self.kind in _CLIP else answer.pooler_output
            return vectors.float()

        with torch.inference_mode():
            parts = self.batcher.run(len(texts), part)
            return unit_rows(torch.cat(parts).cpu().numpy())


def model_type(folder: Path) -> str:
    """The type of the model in a folder, from its config.json."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"{str(folder / 'config.json')!r} is not the configuration of a model: no model_type"
        ) from error


def choose_device(device: str, wants_gpu: bool) -> str:
    """``cuda`` if the stage has a GPU or names the device, otherwise ``cpu``."""
    torch = import_models("torch")
    available = bool(torch.cuda.is_available())
    if device == "cuda" and not available:
        raise UsageError("device='cuda', but this worker sees no NVIDIA GPU: use device='auto' or 'cpu'")
    if device == "auto":
        if available and not wants_gpu:
            _LOG.warning(
                "there is a GPU, but the stage did not request it, so the model runs on the CPU: "
                "set gpu_memory_gb to use it"
            )
        return "cuda" if available and wants_gpu else "cpu"
    return device


def torch_dtype(precision: str, device: str) -> Any:
    """The torch type of a precision by name; ``auto`` is bf16 on a GPU (fp16 on an old one) and fp32 on the CPU."""
    torch = import_models("torch")
    if precision == "auto":
        if device != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def load_pretrained(family: Any, folder: Path, dtype: Any, device: str) -> Any:
    """A model from a local folder, in evaluation mode, on its device."""
    with _quiet():
        model = family.from_pretrained(str(folder), dtype=dtype, use_safetensors=True, local_files_only=True)
    return model.to(device).eval()


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch with ``count`` CPU threads: the same number everywhere, so that sums are added in the same order
    everywhere.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars, and the warning that half of a two-tower checkpoint is unused, which is intended."""
    from transformers.utils import logging as library

    before = library.get_verbosity()
    bar = library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(before)
        if bar:
            library.enable_progress_bar()


def import_models(name: str) -> Any:
    """Import torch or transformers, or raise an error that says how to install them."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependency(f'models need {name}: pip install "curator-image[models]"') from error
