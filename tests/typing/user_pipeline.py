"""A user's pipeline. `test_types_for_users.py` runs type checkers over it; the code itself never runs.

``# -> T`` marks the revealed type of a line. ``# error`` marks a mistake; a type checker must find exactly these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import reveal_type

import curator_text
from curator_backends import RayDataExecutor
from curator_core import DocumentBatch, LocalExecutor, Pipeline, ProcessingStage, Resources, stage
from curator_core.testing import Subject, checks
from curator_image import ImageReader, ResolutionFilter
from curator_text import JsonlReader, JsonlWriter, WebEnglish, WordCountFilter, filters, readers

words = WordCountFilter(min_words=50)
reveal_type(words)  # -> WordCountFilter
reveal_type(words.min_words)  # -> int
reveal_type(words.with_(name="length", resources=Resources(cpus=0.5)))  # -> WordCountFilter
reveal_type(curator_text.WordCountFilter())  # -> WordCountFilter
reveal_type(filters.GopherQualityFilter())  # -> GopherQualityFilter
reveal_type(readers.CsvReader(paths="in"))  # -> CsvReader
reveal_type(ImageReader(paths="in"))  # -> ImageReader
reveal_type(ResolutionFilter())  # -> ResolutionFilter
reveal_type(RayDataExecutor())  # -> RayDataExecutor
reveal_type(checks(Subject("my_package:MyExecutor")))  # -> list[Check]

WordCountFilter(min_words="50")  # error
WordCountFilter(min_word=50)  # error
WordCountFilter(mode="anotate")  # error
JsonlReader()  # error
print(curator_text.WordCountFiltre)  # error


@dataclass
class AddLength(ProcessingStage[DocumentBatch, DocumentBatch]):
    column: str = "text"

    def inputs(self) -> list[str]:
        return [self.column]

    def outputs(self) -> list[str]:
        return ["length"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        reveal_type(task.column_names)  # -> list[str]
        reveal_type(task.num_rows)  # -> int
        self.record_dropped("short", rows="1")  # error
        return task


reveal_type(AddLength("body").column)  # -> str
AddLength(colum="body")  # error


@stage(inputs=["text"], outputs=["shout"])
def Shout(batch: DocumentBatch, mark: str = "!") -> DocumentBatch:  # noqa: N802 - it makes a stage
    reveal_type(mark)  # -> str
    return batch


@stage
def Longer(  # noqa: N802
    batch: DocumentBatch, itself: ProcessingStage[DocumentBatch, DocumentBatch], chars: int = 3
) -> DocumentBatch:
    itself.record_dropped("short", chars)
    return batch


@stage
def Rows(batch: DocumentBatch) -> Iterator[DocumentBatch]:  # noqa: N802
    yield batch


reveal_type(Shout(mark="?"))  # -> FunctionStage
reveal_type(Shout("?").with_(batch_size=4))  # -> FunctionStage
reveal_type(Rows())  # -> FunctionStage
Rows(3)  # error
reveal_type(Longer(chars=5))  # -> FunctionStage
Shout(mark=1)  # error
Longer(char=5)  # error

pipeline = Pipeline(
    [JsonlReader(paths="in/*.jsonl"), words, WebEnglish(), AddLength(), Shout(), JsonlWriter(path="out")]
)
reveal_type(pipeline.add_stage(words))  # -> Pipeline
result = pipeline.run(LocalExecutor(workers=2), on_error="quarantine")
reveal_type(result)  # -> RunResult
reveal_type(list(result))  # -> list[Task[Any]]
reveal_type(result.summary.rows_dropped)  # -> int
pipeline.run(on_error="ignore")  # error
Pipeline([WordCountFilter])  # error
