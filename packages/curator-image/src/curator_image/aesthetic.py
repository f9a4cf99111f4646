"""Scores the aesthetic quality of images with a model that was trained on people's ratings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import scalar
from curator_image.embedding import check_number
from curator_image.head_filter import EmbeddingHeadFilter
from curator_image.models.heads import LinearHead
from curator_image.models.source import HubFile
from curator_image.models.weights import read_weights


@dataclass(kw_only=True)
class AestheticFilter(EmbeddingHeadFilter):
    """Keeps images whose aesthetic score is ``min_score`` or more.

    The score is that of the LAION aesthetic predictor V2 (linear-MSE head on CLIP ViT-L/14), an estimate of the mean
    rating on a scale from 1 to 10; nearly all images on the web score between 3 and 7. LAION's own subsets start at
    4.5, 5, 6 and 6.5: the default of 5 keeps images that are somewhat better than average, and 6 keeps clearly pleasing
    ones.
    """

    min_score: float = 5.0
    model: str = "ttj/sac-logos-ava1-l14-linearMSE"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("AestheticFilter.min_score", self.min_score)

    def weights_file(self) -> HubFile:
        """``model.safetensors`` of the repository."""
        return HubFile(self.model, "model.safetensors", self.revision, self.sha256)

    def load_head(self, path: Path) -> LinearHead:
        """The head's five linear layers, combined into one linear map."""
        return LinearHead.from_weights(read_weights(path), repr(str(path)))

    def keep_array(self, scores: pa.Array) -> Any:
        return pc.greater_equal(scores, scalar(self.min_score))

    def limits(self) -> str:
        return f"images with an aesthetic score of {self.min_score:g} or more"
