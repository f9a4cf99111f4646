"""A stage that needs pixels and does nothing with them. Without a stage that needs pixels, `ImageReader` does not
decode images.
"""

from __future__ import annotations

from dataclasses import dataclass

from curator_core.model.stage import ProcessingStage
from curator_image.batch import PIXELS, ImageBatch


@dataclass
class NeedsPixels(ProcessingStage[ImageBatch, ImageBatch]):
    """Takes pixels and drops them."""

    def inputs(self) -> list[str]:
        return [PIXELS]

    def process(self, task: ImageBatch) -> ImageBatch:
        return task.drop_columns([PIXELS])
