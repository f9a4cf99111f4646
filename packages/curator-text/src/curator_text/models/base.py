"""The base of model stages: finds weights, tokenizes texts ahead, and computes batches without waiting."""

from __future__ import annotations

import contextlib
import functools
import gc
import re
import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curator_core.errors import CuratorError, MissingDependency, UsageError, check_whole
from curator_core.model.compiling import MaybeCompiled, check_compile, compile_decisions
from curator_core.model.cuda import fetch, free_memory, is_out_of_memory
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.parameters import paths_as_text
from curator_core.model.resources import Resources
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_text.models.ahead import ahead
from curator_text.models.batches import Batch, Padding, batches
from curator_text.models.device import (
    choose_device,
    choose_dtype,
    multiply_in_bfloat16,
    send,
    tokens_that_fit_cuda,
)
from curator_text.models.packed import attend_in_packs, first_position, packs_cuda

# The files of a model that are downloaded: its settings, its tokenizer, and weights that cannot run code.
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "*/config.json"]
_MOST_TOKENS = 1 << 20
_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d+)?")
DTYPES = ("auto", "float32", "bfloat16", "float16")
# How many texts are tokenized and sorted by length at once; enough for batches of similar length on a GPU.
_WINDOW = {"cpu": 64, "cuda": 1024}
# On a GPU, lengths are rounded up to a multiple of this, and several tasks go through the model together.
_LENGTHS, _TASKS = 32, 8
# How many batches are in progress before the oldest one is waited for.
_IN_FLIGHT = 2

# The commits of the stages' default models, which are used if no revision is given.
PINNED = {
    "HuggingFaceFW/fineweb-edu-classifier": "284663cbb2dabf9bda30d8f8cc49601251ee1631",
    "microsoft/deberta-v3-base": "8ccc9b6f36199bec6961081d44eb72fb3f7353f3",
    "sentence-transformers/all-MiniLM-L6-v2": "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
}


@dataclass(kw_only=True)
class TextModel(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Base of stages that run a Hugging Face model over a column of text.

    ``model`` is a folder or the name of a model on the hub, at ``revision``, ideally a commit. The default revision is
    the pinned commit for default models of stages, and the newest one, with a warning, for others. Weights must be
    ``safetensors``. Texts are truncated to ``max_tokens`` (by default the model's limit) only for the model; the
    columns do not change. ``max_chars`` truncates them before that, which saves time for long texts. ``device``:
    ``auto`` uses a GPU if there is one. A null text has null results.

    ``dtype``: ``auto`` is bfloat16 on a GPU (float16 on one without it) and float32 on a CPU. On a CPU, bfloat16 is used
    for the products of linear layers alone. ``compile``: ``always``
    compiles the model when the worker starts, ``never`` does not, and ``auto`` compiles it on a GPU after the worker
    has computed for half a minute, which is about as long as compiling takes. So a short run never waits for compiling,
    and a long run gains.

    A separate thread tokenizes texts ahead of the model. On a CPU, texts are computed one by one, each on one thread,
    with as many threads as the stage has ``cpus``. So a text gets the same numbers, bit for bit, whatever the other
    texts and the number of threads, and nothing is padded. On a GPU, a batch contains texts of similar length, padded
    or, if the model supports it, one after another in one row. It has at most ``batch_tokens`` tokens including padding
    (by default as many as fit into memory, which is measured); if memory runs out, this number is halved permanently
    and the batch is tried again. On a GPU, the last bits of a number depend on the other texts of its batch, which come
    from up to eight tasks, and on the GPU: see docs/text-io.md.
    """

    tried_by_plan = False

    maybe_paths = ("model",)
    # Whether `forward` takes packed batches.
    packs = False

    model: str = ""
    revision: str | None = None
    column: str = "text"
    max_tokens: int | None = None
    max_chars: int | None = None
    batch_tokens: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    compile: str = "auto"
    gpu_memory_gb: float = 0.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        paths_as_text(self, "model")
        if not isinstance(self.model, str) or not self.model:
            raise UsageError(f"{name}.model must be a folder or the name of a model on the hub, not {self.model!r}")
        for parameter in ("max_tokens", "max_chars", "batch_tokens"):
            check_whole(f"{name}.{parameter}", getattr(self, parameter), optional=True)
        for parameter in ("revision", "column"):
            value = getattr(self, parameter)
            if not (isinstance(value, str) and value) and not (parameter == "revision" and value is None):
                raise UsageError(f"{name}.{parameter} must be text, not {value!r}")
        if not isinstance(self.device, str) or not _DEVICE.fullmatch(self.device):
            raise UsageError(
                f"{name}.device must be 'auto', 'cpu', 'cuda', a GPU such as 'cuda:1', or 'mps', not {self.device!r}"
            )
        if self.dtype not in DTYPES:
            raise UsageError(f"{name}.dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        check_compile(f"{name}.compile", self.compile)
        if self.gpu_memory_gb:
            self.resources = Resources(cpus=1.0, gpu_memory_gb=self.gpu_memory_gb)
            self.batch_size = _TASKS
        self._loaded: Any = None
        self._model: MaybeCompiled | None = None
        self._pool: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None, "_pool": None, "_model": None}

    def inputs(self) -> list[str]:
        return [self.column]

    def plan_notes(self) -> Sequence[str]:
        on_gpu = self.device != "cpu" and (self.resources.requires_gpu or self.device.startswith("cuda"))
        return compile_decisions(self.name, self.compile, on_gpu)

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        model_folder(self.model, self.revision)

    def setup(self, worker: WorkerMetadata) -> None:
        torch = import_torch()
        folder = model_folder(self.model, self.revision)
        self._device = device = choose_device(type(self).__name__, self.device, torch)
        self._loaded = self.load(folder, device, choose_dtype(self.dtype, device, torch))
        self._model = MaybeCompiled(
            self._loaded,
            self.compile,
            on_gpu=device.startswith("cuda"),
            compile=lambda model: torch.compile(model, dynamic=True),
        )
        self._tokenizer = _tokenizer(folder)
        self._limit = min(
            [self.max_tokens, *self.token_limits()] if self.max_tokens else self.token_limits(), default=512
        )
        packed_from = first_position(self._loaded) if self.packs and device.startswith("cuda") else None
        self._pad(packed_from if packed_from is not None and packs_cuda(self._loaded, torch) else None)
        self._threads = max(1, int(self.resources.cpus)) if device == "cpu" else 1
        self._batch_tokens = 1 if device == "cpu" else self.batch_tokens or 65_536
        if self.batch_tokens is None and device.startswith("cuda"):
            self._batch_tokens = tokens_that_fit_cuda(self._compute_longest, self._limit, self.gpu_memory_gb, torch)
        self._pool = ThreadPoolExecutor(self._threads, "model") if self._threads > 1 else None

    def _pad(self, packed_from: int | None) -> None:
        """Pad batches, or pack them if the number of the first position is given."""
        self._padding = Padding.of(self._tokenizer, 1 if self._device == "cpu" else _LENGTHS, self._limit, packed_from)
        if packed_from is not None:
            attend_in_packs(self._loaded)

    def _compute_longest(self, count: int) -> None:
        """Run the model on ``count`` texts of its full length."""
        tokens = {"input_ids": [[self._padding.fill["input_ids"]] * self._limit] * count}
        self.forward(send(Batch(range(count), tokens, self._padding).inputs(), self._device, import_torch()))

    def teardown(self) -> None:
        self._loaded = self._model = None
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        gc.collect()

    @abstractmethod
    def load(self, folder: Path, device: str, dtype: str) -> Any:
        """The model in ``folder``, ready to be called."""

    @abstractmethod
    def forward(self, inputs: dict[str, Any]) -> Any:
        """The model's output for a batch on its device: a tensor with one row for each text. The batch is padded unless
        the stage `packs`.
        """

    @abstractmethod
    def texts(self, task: DocumentBatch) -> tuple[DocumentBatch, list[str | None]]:
        """The task with its column as text, and the texts for the model."""

    @abstractmethod
    def add(self, task: DocumentBatch, rows: list[Any]) -> DocumentBatch:
        """The task with columns for the model's output."""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        task, texts = self.texts(task)
        return self.add(task, self.answers(texts))

    def process_batch(self, tasks: list[DocumentBatch]) -> list[DocumentBatch]:
        if len(tasks) == 1:
            return [self.process(tasks[0])]
        found = []
        for task in tasks:
            with self.about(task):
                found.append(self.texts(task))
        rows = iter(self.answers([text for _, texts in found for text in texts]))
        made = []
        for task, (changed, texts) in zip(tasks, found, strict=True):
            with self.about(task):
                made.append(self.add(changed, [next(rows) for _ in texts]))
        return made

    def answers(self, texts: Sequence[str | None]) -> list[Any]:
        """A numpy row for each text, or None if the text is null."""
        if self._loaded is None:
            self.setup(WorkerMetadata())
        rows = [row for row, text in enumerate(texts) if text is not None]
        found: list[Any] = [None] * len(texts)
        if not rows:
            return found
        pieces = [(texts[row] or "")[: self.max_chars] for row in rows]
        with _one_thread(self._device == "cpu"):
            for batch, answer in self._computed(pieces):
                for at, values in zip(batch.rows, answer, strict=True):
                    found[rows[at]] = values
        return found

    def _computed(self, pieces: list[str]) -> Iterator[tuple[Batch, Any]]:
        """Yield each batch with its output. The output is fetched late, so the next batches are tokenized, sent and
        computed meanwhile.
        """
        window = _WINDOW["cpu" if self._device == "cpu" else "cuda"]
        made = batches(pieces, self._tokenize, window, lambda: self._batch_tokens, self._padding)
        prepared = ((batch, batch.inputs()) for batch in made)
        late: deque[Future[Any]] = deque()
        # On a CPU, a window contains a whole number of batches; the next window is tokenized while half of this one is
        # computed.
        for batch, inputs in ahead(prepared, window // 2 if self._device == "cpu" else 2 * _IN_FLIGHT):
            late.append(self._submit(batch, inputs))
            if len(late) > _IN_FLIGHT * self._threads:
                yield from self._finished(late.popleft())
        while late:
            yield from self._finished(late.popleft())

    def _tokenize(self, texts: list[str]) -> Mapping[str, Sequence[Sequence[int]]]:
        found = self._tokenizer(
            texts, truncation=True, max_length=self._limit, return_attention_mask=False, verbose=False
        )
        return dict(found)

    def _submit(self, batch: Batch, inputs: Mapping[str, Any]) -> Future[Any]:
        if self._pool is not None:
            return self._pool.submit(self._compute, batch, inputs)
        done: Future[Any] = Future()
        done.set_result(self._compute(batch, inputs))
        return done

    def _finished(self, one: Future[Any]) -> Iterator[tuple[Batch, Any]]:
        for batch, answer in one.result():
            yield batch, answer.result()

    def _compute(self, batch: Batch, inputs: Mapping[str, Any]) -> list[tuple[Batch, Any]]:
        """The output for a batch, or for its parts if the whole batch does not fit into memory."""
        torch = import_torch()
        if batch.size() <= self._batch_tokens or len(batch.rows) == 1:
            try:
                if self._pool is not None:
                    torch.set_num_threads(1)  # is a setting of the thread
                with torch.inference_mode():
                    return [(batch, fetch(self.forward(send(inputs, self._device, torch)), self._device, torch))]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error, torch):
                    raise
                if len(batch.rows) == 1:
                    raise CuratorError(
                        f"{type(self).__name__}: one text of {batch.width()} tokens does not fit into memory: lower max_tokens"
                    ) from error
                self._batch_tokens = max(1, batch.size() // 2)
                self.record_metric("batches_halved", 1)
            # This is outside of `except`, because the exception keeps the data alive that did not fit.
            free_memory(torch)
        return [answer for half in batch.halves() for answer in self._compute(half, half.inputs())]

    def call_model(self, inputs: dict[str, Any]) -> Any:
        """The model's output, computed by the compiled model if there is one."""
        assert self._model is not None, "setup() must be called first"
        if self._model.in_time():
            self.record_metric("compiled", 1)
        return self._model.current(**inputs)

    def token_limits(self) -> list[int]:
        """The largest number of tokens that the model takes, according to its tokenizer and its settings."""
        limits = [self._tokenizer.model_max_length]
        config = self._config()
        if getattr(config, "position_biased_input", True):  # relative positions have no limit
            limits.append(getattr(config, "max_position_embeddings", None))
        return [int(limit) for limit in limits if isinstance(limit, int) and 0 < limit < _MOST_TOKENS]

    def _config(self) -> Any:
        return getattr(self._loaded, "config", None)


def import_torch() -> Any:
    """Import torch, or say which command installs it."""
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            'model stages need torch and transformers: pip install "curator-text[models]"'
        ) from error
    return torch


def model_folder(name: str, revision: str | None) -> Path:
    """The folder of a model: the named one, or one in the hub's cache, which is downloaded if there is a network."""
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
        except (OSError, ValueError):  # the model is not in the cache, or not complete
            found = hub.snapshot_download(name, revision=revision, allow_patterns=_FILES)
    except Exception as error:  # the remedy is the same for all errors
        at = f" at revision {revision!r}" if revision else ""
        raise CuratorError(
            f"the model {name!r}{at} is not on this machine and could not be downloaded ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}): on a machine with a network, run `hf download "
            f"{name}{f' --revision {revision}' if revision else ''} --local-dir FOLDER`, and give model: FOLDER"
        ) from error
    if revision is None:
        _warn_of_moving(name, Path(found).name)  # the hub's cache names a folder by its commit
    return Path(found)


@functools.cache  # once for each model in a process
def _warn_of_moving(name: str, commit: str) -> None:
    warnings.warn(
        f"model {name!r} is used at its newest revision, so results may change from day to day: to keep the current "
        f"one, give revision: {commit}",
        stacklevel=3,
    )


def load_weights(
    make: Callable[..., Any], folder: Path, dtype: str, device: str, unneeded: tuple[str, ...] = ()
) -> Any:
    """A transformers model from a folder, whose weights cannot run code. All weights except ``unneeded`` ones must be
    there.
    """
    torch = import_torch()
    only_products = device == "cpu" and dtype == "bfloat16"
    try:
        model, loaded = make(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32 if only_products else getattr(torch, dtype),
            output_loading_info=True,
        )
    except OSError as error:
        raise UsageError(
            f"{str(folder)!r} has no weights that can be loaded ({error}): they must be safetensors, since other formats "
            "can run code"
        ) from error
    # transformers initialises missing weights at random, so a classifier without a head would give random results.
    missing = sorted(
        key for key in loaded["missing_keys"] if not key.startswith(unneeded) and "position_ids" not in key
    )
    if missing:
        raise UsageError(
            f"the weights in {str(folder)!r} are not those of a {type(model).__name__}: they lack "
            f"{', '.join(missing[:4])}. Give a model that was trained for this"
        )
    if only_products:
        multiply_in_bfloat16(model, torch)
    return model.eval().to(device)


def vectors(rows: Sequence[Any], width: int) -> pa.Array:
    """Rows of numbers as a column of fixed-size lists; None becomes null."""
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
def _one_thread(wanted: bool) -> Iterator[None]:
    """Let torch compute each product on one thread, and restore the number of threads afterwards; False changes
    nothing.

    The order in which the terms of a matrix product are added depends on how it is divided among threads.
    """
    if not wanted:
        yield
        return
    torch = import_torch()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
