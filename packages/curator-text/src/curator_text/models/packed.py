"""Lets models process texts without padding, as one row of tokens in which each text attends only to itself.

transformers passes a model's arguments on to its attention function, which can be replaced by name: ours cuts the row
at ``bounds``. On a GPU, one torch kernel computes all texts of a row; on a CPU, they are computed one after the other.
"""

from __future__ import annotations

import itertools
from typing import Any

# The name of our attention function in transformers.
NAME = "curator_packed"
# Encoders that pass these arguments on to attention, and accept explicit position numbers. Other models pad.
TYPES = ("bert", "roberta", "xlm-roberta")
LARGEST_HEAD = 256


def first_position(model: Any) -> int | None:
    """The position number of a text's first token, or None if a model cannot take packed texts."""
    config = model.config
    if config.model_type not in TYPES or getattr(config, "is_decoder", False):
        return None
    return 0 if config.model_type == "bert" else int(config.pad_token_id) + 1


def packs_cuda(model: Any, torch: Any) -> bool:
    """Whether the GPU and this torch version have the kernel for the model's number type."""
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: F401 - since 2.10
    except ImportError:
        return False
    head = model.config.hidden_size // model.config.num_attention_heads
    half = model.dtype in (torch.bfloat16, torch.float16)
    return half and head % 8 == 0 and head <= LARGEST_HEAD and torch.cuda.get_device_capability()[0] >= 8


def attend_in_packs(model: Any) -> None:
    """Change ``model`` so that it takes only packed texts."""
    import transformers

    transformers.AttentionInterface.register(NAME, _attend)
    transformers.AttentionMaskInterface.register(NAME, _no_mask)
    model.set_attn_implementation(NAME)


def _no_mask(*_: Any, **__: Any) -> None:
    """The bounds replace the mask."""


def _attend(
    _module: Any, query: Any, key: Any, value: Any, _mask: Any, *, bounds: Any, longest: int, scaling: float, **_: Any
) -> tuple[Any, None]:
    queries, keys, values = (part[0].transpose(0, 1) for part in (query, key, value))  # tokens, heads, numbers
    if query.is_cuda:
        return attend_cuda(queries, keys, values, bounds, longest, scaling)[None], None
    return _attend_one_by_one(queries, keys, values, bounds, scaling)[None], None


def attend_cuda(query: Any, key: Any, value: Any, bounds: Any, longest: int, scaling: float) -> Any:
    """Attention for all texts with one kernel."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(query, key, value, bounds, bounds, longest, longest, scale=scaling)


def _attend_one_by_one(query: Any, key: Any, value: Any, bounds: Any, scaling: float) -> Any:
    import torch

    done = [
        torch.nn.functional.scaled_dot_product_attention(
            *(part[start:end].transpose(0, 1) for part in (query, key, value)), scale=scaling
        ).transpose(0, 1)
        for start, end in itertools.pairwise(bounds.tolist())
    ]
    return torch.cat(done)
