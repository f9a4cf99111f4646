"""What all model stages share: weights found, texts batched by length, batches that fit the memory there is."""

from __future__ import annotations

import contextlib
import functools
import gc
import re
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curator_core.errors import CuratorError, MissingDependency, UsageError, check_whole
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.resources import Resources
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch

# What is fetched of a model: its settings, its tokenizer, and weights that cannot run code.
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "*/config.json"]
_MOST_TOKENS = 1 << 20
_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d+)?")
DTYPES = ("float32", "bfloat16", "float16")

# Commits of models that stages name by default: without a revision, this one is used.
PINNED = {
    "HuggingFaceFW/fineweb-edu-classifier": "284663cbb2dabf9bda30d8f8cc49601251ee1631",
    "microsoft/deberta-v3-base": "8ccc9b6f36199bec6961081d44eb72fb3f7353f3",
    "sentence-transformers/all-MiniLM-L6-v2": "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
}


@dataclass(kw_only=True)
class TextModel(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Base of stages that run a Hugging Face model over a column of text.

    ``model`` is a folder or the name of a model on the hub, at ``revision``: a commit, best of all. Without one it is the
    commit that is pinned here for the models that stages name, and for others the newest, with a warning. Weights are
    ``safetensors``. Texts are cut to ``max_tokens`` (by default what the model takes) for the model alone: the columns stay
    as they are. ``max_chars`` cuts them before, which saves time for long ones. ``device``: ``auto`` takes a GPU where there
    is one. A null text has null results.

    On a CPU texts are computed one by one, on one thread: then a text has the same numbers, bit for bit, whatever other
    texts there are and however many threads, which costs no time where texts have more than a few words, since nothing is
    padded (give the stage more workers, not more threads). On a GPU a batch holds at most ``batch_tokens`` tokens, padding
    included; if memory runs out it is halved, for good, and tried again. There the last bits of a number depend on the
    texts of its batch, which are those of one task, and on the card: see docs/text-io.md.
    """

    tried_by_plan = False

    maybe_paths = ("model",)

    model: str = ""
    revision: str | None = None
    column: str = "text"
    max_tokens: int | None = None
    max_chars: int | None = None
    batch_tokens: int | None = None
    device: str = "auto"
    dtype: str = "float32"
    gpu_memory_gb: float = 0.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not isinstance(self.model, str) or not self.model:
            raise UsageError(f"{name}.model must be a folder or the name of a model on the hub, not {self.model!r}")
        for parameter in ("max_tokens", "max_chars", "batch_tokens"):
            check_whole(f"{name}.{parameter}", getattr(self, parameter), optional=True)
        for parameter in ("revision", "column"):
            value = getattr(self, parameter)
            if not (isinstance(value, str) and value) and not (parameter == "revision" and value is None):
                raise UsageError(f"{name}.{parameter} must be a text, not {value!r}")
        if not isinstance(self.device, str) or not _DEVICE.fullmatch(self.device):
            raise UsageError(
                f"{name}.device must be 'auto', 'cpu', 'cuda', 'cuda:1' or the like, or 'mps', not {self.device!r}"
            )
        if self.dtype not in DTYPES:
            raise UsageError(f"{name}.dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        if self.gpu_memory_gb:
            self.resources = Resources(cpus=1.0, gpu_memory_gb=self.gpu_memory_gb)
        self._loaded: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    def inputs(self) -> list[str]:
        return [self.column]

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        model_folder(self.model, self.revision)

    def setup(self, worker: WorkerMetadata) -> None:
        torch = import_torch()
        folder = model_folder(self.model, self.revision)
        device = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UsageError(
                f"{type(self).__name__}.device is {device!r}, and torch sees no GPU here: give auto or cpu"
            )
        self._loaded = self.load(folder, device)
        self._tokenizer = _tokenizer(folder)
        self._limit = min(
            [self.max_tokens, *self.token_limits()] if self.max_tokens else self.token_limits(), default=512
        )
        self._batch_tokens = 1 if device == "cpu" else self.batch_tokens or 65_536
        self._threads = 1 if device == "cpu" else None

    def teardown(self) -> None:
        self._loaded = None
        gc.collect()

    @abstractmethod
    def load(self, folder: Path, device: str) -> Any:
        """The model in ``folder``, ready to be called."""

    @abstractmethod
    def forward(self, inputs: dict[str, Any]) -> Any:
        """The model's answers for a padded batch: a tensor with one row for each text."""

    def answers(self, texts: Sequence[str | None]) -> list[Any]:
        """A numpy row for each text, None for a null one."""
        if self._loaded is None:
            self.setup(WorkerMetadata())
        rows = [row for row, text in enumerate(texts) if text is not None]
        found: list[Any] = [None] * len(texts)
        if not rows:
            return found
        pieces = [(texts[row] or "")[: self.max_chars] for row in rows]
        encoded = self._tokenizer(
            pieces, truncation=True, max_length=self._limit, return_attention_mask=False, verbose=False
        )
        # Longest first: what does not fit the memory shows at once, and padding is short.
        order = sorted(range(len(rows)), key=lambda at: (-len(encoded["input_ids"][at]), at))
        for start, stop, answer in self._batches(encoded, order):
            for at, values in zip(order[start:stop], answer, strict=True):
                found[rows[at]] = values
        return found

    def _batches(self, encoded: Any, order: list[int]) -> Iterator[tuple[int, int, Any]]:
        with _threads(self._threads):
            yield from self._forward_all(encoded, order)

    def _forward_all(self, encoded: Any, order: list[int]) -> Iterator[tuple[int, int, Any]]:
        torch = import_torch()
        start = 0
        while start < len(order):
            longest = max(1, len(encoded["input_ids"][order[start]]))
            stop = min(len(order), start + max(1, self._batch_tokens // longest))
            try:
                padded = self._tokenizer.pad(
                    {key: [encoded[key][at] for at in order[start:stop]] for key in encoded},
                    padding="max_length",
                    max_length=longest,  # 1 for a text without tokens, which models cannot take
                    return_tensors="pt",
                )
                with torch.inference_mode():
                    answer = self.forward(dict(padded)).float().cpu().numpy()
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error, torch):
                    raise
                if stop - start == 1:
                    raise CuratorError(
                        f"{type(self).__name__}: one text of {longest} tokens does not fit the memory: lower max_tokens"
                    ) from error
                self._batch_tokens = max(1, longest * (stop - start) // 2)
                self.record_metric("batches_halved", 1)
            else:
                yield start, stop, answer
                start = stop
                continue
            # Outside of `except`: the exception holds on to what did not fit.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def token_limits(self) -> list[int]:
        """How many tokens the model takes, as far as its tokenizer and its settings say."""
        limits = [self._tokenizer.model_max_length]
        config = self._config()
        if getattr(config, "position_biased_input", True):  # relative positions have no end
            limits.append(getattr(config, "max_position_embeddings", None))
        return [int(limit) for limit in limits if isinstance(limit, int) and 0 < limit < _MOST_TOKENS]

    def _config(self) -> Any:
        return getattr(self._loaded, "config", None)


def import_torch() -> Any:
    """torch, or the command that installs it."""
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            'model stages need torch and transformers: pip install "curator-text[models]"'
        ) from error
    return torch


def model_folder(name: str, revision: str | None) -> Path:
    """The folder with a model: the one that is named, or that of the hub's cache, filled where there is a network."""
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise UsageError(f"the folder {name!r} is not a model: there is no config.json in it")
        return path
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(f"there is no folder {name!r} with a model")
    revision = revision or PINNED.get(name)
    import_torch()
    import huggingface_hub as hub

    try:
        try:
            found = hub.snapshot_download(name, revision=revision, allow_patterns=_FILES, local_files_only=True)
        except (OSError, ValueError):  # not in the cache, or not all of it
            found = hub.snapshot_download(name, revision=revision, allow_patterns=_FILES)
    except Exception as error:  # whatever went wrong on the way, the remedy is the same
        at = f" at revision {revision!r}" if revision else ""
        raise CuratorError(
            f"the model {name!r}{at} is not on this machine and could not be fetched ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}): where there is a network run "
            f"`hf download {name}{f' --revision {revision}' if revision else ''} --local-dir FOLDER`, and give model: FOLDER"
        ) from error
    if revision is None:
        _warn_of_moving(name, Path(found).name)  # the hub's cache names a folder by its commit
    return Path(found)


@functools.cache  # once for each model in a process
def _warn_of_moving(name: str, commit: str) -> None:
    warnings.warn(
        f"model {name!r} is taken at its newest revision, so results may change from one day to another: to keep the one "
        f"that is used now, give revision: {commit}",
        stacklevel=3,
    )


def load_weights(
    make: Callable[..., Any], folder: Path, dtype: str, device: str, unneeded: tuple[str, ...] = ()
) -> Any:
    """A model of transformers' from a folder, with weights that cannot run code, and all of them except ``unneeded`` ones."""
    torch = import_torch()
    try:
        model, loaded = make(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
        )
    except OSError as error:
        raise UsageError(
            f"{str(folder)!r} has no weights that can be loaded ({error}): they must be safetensors, since other formats "
            "can run code"
        ) from error
    # transformers initialises at random what is missing: a classifier without a head would give random answers.
    missing = sorted(
        key for key in loaded["missing_keys"] if not key.startswith(unneeded) and "position_ids" not in key
    )
    if missing:
        raise UsageError(
            f"the weights in {str(folder)!r} are not those of a {type(model).__name__}, there is no {', '.join(missing[:4])}: "
            "give a model that was trained for this"
        )
    return model.eval().to(device)


def vectors(rows: Sequence[Any], width: int) -> pa.Array:
    """Rows of numbers as a column of fixed-size lists; None is null."""
    mask = np.array([row is None for row in rows], np.bool_)
    data = np.zeros((len(rows), width), np.float32)
    for at, row in enumerate(rows):
        if row is not None:
            data[at] = row
    flat = pa.array(data.reshape(-1), pa.float32())
    return (
        pa.FixedSizeListArray.from_arrays(flat, width, mask=pa.array(mask))
        if len(rows)
        else pa.array([], pa.list_(pa.float32(), width))
    )


def _tokenizer(folder: Path) -> Any:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Have torch compute on this many threads, and on as many as before afterwards; None changes nothing.

    How a product of matrices is divided among threads decides in which order its terms are added up.
    """
    if number is None:
        yield
        return
    torch = import_torch()
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _out_of_memory(error: BaseException, torch: Any) -> bool:
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or any(
        sign in str(error).lower() for sign in ("out of memory", "can't allocate memory", "not enough memory")
    )
