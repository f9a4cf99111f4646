"""Detects sexual content in images with LAION's detector on CLIP embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import scalar
from curator_core.errors import UsageError
from curator_image.embedding import check_number
from curator_image.head_filter import EmbeddingHeadFilter
from curator_image.models.heads import NSFWHead
from curator_image.models.source import HubFile
from curator_image.models.weights import read_weights

LAION_HEAD = "laion/clip-autokeras-binary-nsfw"
# The name above is the usual name of the head. This file, at a fixed commit of LAION's repository, is LAION's PyTorch
# version of the Keras model; the Keras version can also be read (see read_weights).
_LAION_URL = (
    "https://raw.githubusercontent.com/LAION-AI/CLIP-based-NSFW-Detector/"
    "21072a2a38e6d2bb294be03c005aaa9a65778e47/models/clip_ViT-L-14_openai_binary_nsfw_head.pth"
)


@dataclass(kw_only=True)
class NSFWFilter(EmbeddingHeadFilter):
    """Keeps images whose probability of sexual content is below ``max_score``.

    The score, from 0 to 1, is that of LAION's ``clip-autokeras-binary-nsfw`` head on CLIP ViT-L/14. ``model`` may also
    be a local file: the published ``.pth``, a Keras SavedModel (folder or zip), or safetensors made from one by
    ``python -m curator_image.models.convert``.
    """

    max_score: float = 0.5
    model: str = LAION_HEAD

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("NSFWFilter.max_score", self.max_score)
        if not 0 <= self.max_score <= 1:
            raise UsageError(f"NSFWFilter.max_score is a probability from 0 to 1, not {self.max_score!r}")

    def short_name(self) -> str:
        return "nsfw"

    def weights_file(self) -> HubFile:
        """LAION's file at its fixed commit, or ``model.safetensors`` of another repository."""
        if self.model == LAION_HEAD:
            return HubFile(_LAION_URL, sha256=self.sha256)
        return HubFile(self.model, "model.safetensors", self.revision, self.sha256)

    def load_head(self, path: Path) -> NSFWHead:
        """The normalisation and the dense layers."""
        return NSFWHead.from_weights(read_weights(path), repr(str(path)))

    def keep_array(self, scores: pa.Array) -> Any:
        return pc.less(scores, scalar(self.max_score))

    def limits(self) -> str:
        return f"images with an NSFW score of at most {self.max_score:g}"
