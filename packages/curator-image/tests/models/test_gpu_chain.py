"""Keeping a GPU busy: the next images are decoded and sent while earlier ones are computed, and pixels stay on the
device.

No GPU is needed: models compute on the CPU, DALI decodes there, and a thread does the work that a GPU would do on its
own.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curator_core import LocalExecutor, Pipeline, ProcessingStage, Resources, WorkerMetadata
from curator_core.accounts.ledger import MemorySink
from curator_core.model.machine import Machine
from curator_core.planning.make import make_plan
from curator_core.planning.plan import PlannedStage
from curator_core.worker.context import RunContext
from curator_core.worker.group import GroupRunner
from curator_image import BlurFilter, ImageDecode, ImageEmbedding, ImageReader, ImageWriter, ResolutionFilter
from curator_image.batch import ImageBatch
from curator_image.decode.beside import PixelsBeside
from curator_image.embedding import embedding_matrix
from curator_image.models import towers

MakeBatch = Callable[..., ImageBatch]


def jpeg(seed: int, width: int = 48, height: int = 40) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(out, "JPEG", quality=95)
    return out.getvalue()


def broken(seed: int) -> bytes:
    """A valid header, followed by tables that no decoder accepts."""
    data = bytearray(jpeg(seed))
    at = data.find(b"\xff\xc4") + 5
    data[at : at + 16] = b"\xff" * 16
    return bytes(data)


def png(seed: int, width: int = 48) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(jpeg(seed, width))).save(out, "PNG")
    return out.getvalue()


# The next batch on its way ----------------------------------------------------------------------------------------------


class Gpu:
    """Computes batches in order on its own thread, like a GPU: requests return at once.

    It works on a batch until the next has been sent, or until nothing more comes.
    """

    def __init__(self, batches: int) -> None:
        self.sent = [threading.Event() for _ in range(batches)]
        self.waited: list[int] = []
        self._number = 0
        self._numbers = 0

    def send(self, tensor: Any) -> Any:
        self.sent[self._number].set()
        self._number += 1
        return tensor

    def fetch(self, answer: Any, device: str, torch: Any) -> Any:
        gpu, number = self, self._numbers
        self._numbers += 1

        class Late:
            def result(self) -> Any:
                if number + 1 < len(gpu.sent):
                    assert gpu.sent[number + 1].wait(20), f"batch {number + 1} is not sent while {number} is computed"
                gpu.waited.append(number)
                return answer.numpy()

        return Late()


@pytest.mark.models
def test_the_next_batch_is_sent_while_one_is_computed_within_a_task_and_across_tasks(
    clip: Path, image_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [image_batch(5).with_data(image_batch(5).to_pyarrow()) for _ in range(3)]
    for number, batch in enumerate(batches):
        batch.task_id = f"t.{number:05d}"
    stage = ImageEmbedding(model=str(clip), model_batch_size=2)
    runner = GroupRunner([PlannedStage(stage, "ImageEmbedding")], RunContext(), sink=MemorySink())
    runner.setup(WorkerMetadata())
    plain = [table_of(task) for task in runner.run(batches)]
    gpu = Gpu(3 * 3)  # two, two and one image for each task
    assert stage._tower is not None
    stage._tower._send = gpu.send
    stage.begins_ahead = 2  # as on a GPU
    monkeypatch.setattr(towers, "fetch", gpu.fetch)
    assert [table_of(task) for task in runner.run(batches)] == plain
    assert gpu.waited == list(range(9))
    runner.teardown()


def table_of(task: Any) -> Any:
    return task.to_pyarrow()


# Pixels that stay where DALI has made them -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEGs, two PNGs, and one image that only decoding shows to be corrupt."""
    pytest.importorskip("nvidia.dali")
    folder = tmp_path_factory.mktemp("images")
    for number in range(22):
        (folder / f"{number:03d}.jpg").write_bytes(broken(number) if number == 7 else jpeg(number, 48 + number))
    for number in (3, 11):
        (folder / f"{number:03d}.jpg").unlink()
        (folder / f"{number:03d}.png").write_bytes(png(number, 48 + number))
    return folder


def embedded(images: Path, model: Path, decoder: str, *middle: Any, **reader: Any) -> tuple[Any, pa.Table]:
    stages = [ImageReader(paths=str(images), decoder=decoder, images_per_batch=6, **reader), *middle]  # type: ignore[arg-type]
    result = Pipeline([*stages, ImageEmbedding(model=str(model))]).run(LocalExecutor(workers=0))
    return result, pa.concat_tables([task.to_pyarrow() for task in result.tasks]).sort_by("key")


@pytest.mark.slow
@pytest.mark.dali
@pytest.mark.models
def test_pixels_that_stay_on_the_device_give_the_same_vectors_and_records(
    images: Path, siglip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landings: list[int] = []
    landed = PixelsBeside.landed
    monkeypatch.setattr(PixelsBeside, "landed", lambda self: landings.append(len(self.tensor)) or landed(self))
    result, beside = embedded(images, siglip, "dali", ResolutionFilter(min_width=50))
    assert not landings
    assert any("column pixels of ImageDecode stays where it is made" in text for text in result.summary.decisions)
    # A stage that reads pixels but cannot take them from a device finds them in the table.
    looked, column = embedded(images, siglip, "dali", ResolutionFilter(min_width=50), Look())
    assert column.drop_columns(["seen"]) == beside
    turbo_result, turbo = embedded(images, siglip, "turbo", ResolutionFilter(min_width=50), detail=8.0)
    assert turbo["key"] == beside["key"]
    a, b = (np.asarray(embedding_matrix(table, "embedding")[0]) for table in (beside, turbo))
    assert (a * b).sum(
        axis=1
    ).min() > 0.995  # the difference between two decoders, for a small model with large random weights
    for one in (result, looked, turbo_result):
        counts = {counts.name: (counts.rows_in, counts.rows_out, counts.rejected) for counts in one.summary.stages}
        assert counts["ImageDecode"] == (22, 21, {"corrupt": 1})
        assert counts["ImageEmbedding"][:2] == (19, 19)


class Look(ProcessingStage[ImageBatch, ImageBatch]):
    """Reads pixels, and does not handle columns beside the table."""

    def inputs(self) -> list[str]:
        return ["pixels"]

    def outputs(self) -> list[str]:
        return ["seen"]

    def process(self, task: ImageBatch) -> ImageBatch:
        return task.append_column("seen", [len(task.pictures())] * task.num_rows)


@pytest.mark.dali
@pytest.mark.models
def test_a_batch_is_decoded_while_the_model_computes_the_previous_one(images: Path, clip: Path) -> None:
    # The model waits until DALI has begun the next batch, and each batch waits until the model has begun the one
    # before.
    begun = [threading.Event() for _ in range(5)]
    decode = ImageDecode(decoder="dali", size=32).with_()
    decode.columns = ["pixels"]
    decode._beside = True
    embedding = ImageEmbedding(model=str(clip))
    members = [PlannedStage(decode, "ImageDecode"), PlannedStage(embedding, "ImageEmbedding")]
    runner = GroupRunner(members, RunContext(), sink=MemorySink())
    runner.setup(WorkerMetadata())
    assert decode.begins_ahead
    begin, process = decode.begin, embedding.process
    numbers = iter(range(5))

    def beginning(task: ImageBatch) -> Any:
        finish = begin(task)
        begun[next(numbers)].set()
        return finish

    def processing(task: ImageBatch) -> Any:
        number = int(task.task_id.rpartition(".")[2])
        if number + 1 < 5:
            assert begun[number + 1].wait(20), f"batch {number + 1} is not begun while {number} is embedded"
        assert isinstance(task.beside("pixels"), PixelsBeside)
        return process(task)

    decode.begin, embedding.process = beginning, processing  # type: ignore[method-assign]
    tasks = []
    for number in range(5):
        data = [jpeg(10 * number + row) for row in range(3)]
        table = pa.table({"key": [f"{number}-{row}" for row in range(3)], "bytes": data})
        tasks.append(ImageBatch(data=table, task_id=f"t.{number:05d}"))
    assert [task.num_items for task in runner.run(tasks)] == [3] * 5
    runner.teardown()


@pytest.mark.slow
@pytest.mark.dali
def test_batches_that_are_begun_together_give_the_same_results_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nvidia.dali")
    from curator_image.decode import Picture, dali

    monkeypatch.setattr(dali, "PART_IMAGES", 4)
    monkeypatch.setattr(dali, "PART_PIXELS", 3 * 60 * 40)
    wanted = [Picture(32, 32), Picture(24, 40, "pad", "bilinear")]
    batches = [[jpeg(10 * number + row, 40 + row) for row in range(9)] for number in range(4)]
    batches[1][5] = broken(15)
    batches[2][0] = png(20)
    decoder = dali.DaliDecoder(threads=2)
    decodings = [decoder.begin(batch, wanted, (True, False)) for batch in batches]
    alone = dali.DaliDecoder(threads=1)
    for batch, decoding in zip(batches, decodings, strict=True):
        found, expected = decoding.result(), alone(batch, wanted)
        assert {row: error.reason for row, error in found.errors.items()} == {
            row: error.reason for row, error in expected.errors.items()
        }
        np.testing.assert_array_equal(found.pictures[0].numpy(), expected.pictures[0])
        np.testing.assert_array_equal(found.pictures[1], expected.pictures[1])
    assert decoder.rebuilt == 1
    decoder.close()
    alone.close()


@pytest.mark.dali
def test_an_error_that_no_image_causes_is_an_error_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nvidia.dali")
    from curator_image.decode import Picture, dali

    def no_memory(self: Any) -> None:
        raise RuntimeError("no memory on the device")

    with monkeypatch.context() as patched:
        patched.setattr(dali._Server, "_build", no_memory)
        decoder = dali.DaliDecoder()
        with pytest.raises(RuntimeError, match="no memory on the device"):
            decoder([jpeg(1)], [Picture(16, 16)])
    # The next batch has a pipeline again.
    assert decoder([jpeg(1)], [Picture(16, 16)]).errors == {}
    assert decoder.rebuilt == 0
    monkeypatch.setattr(dali, "_taken", lambda output, stays: output.there_is_no_such_thing)
    with pytest.raises(AttributeError, match="there_is_no_such_thing"):
        decoder([jpeg(1)], [Picture(16, 16)])
    decoder.close()


# Where images are decoded -----------------------------------------------------------------------------------------------


def planned(
    cpus: float, *middle: Any, reader: Any = None, gpus: float = 1, memory: float = 80, **embedding: Any
) -> Any:
    machine = Machine(cpus=cpus, gpus=gpus, gpu_memory_gb=memory, memory_gb=64, name="the cluster")
    stages = [reader or ImageReader("in/*.tar"), *middle, ImageEmbedding(gpu_memory_gb=8, **embedding)]
    plan = make_plan([*stages, ImageWriter(path="out")], machine, simultaneous=True)
    (decode,) = [one.stage for one in plan.stages if isinstance(one.stage, ImageDecode)]
    said = [text for text in (*plan.decisions, *plan.warnings) if "decode" in text and "fused" not in text]
    return decode.resources.requires_gpu, [text for text in said if "images/s" in text or "CPUs" in text]


def test_images_are_decoded_on_the_gpu_only_if_the_cpus_are_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    from curator_image.decode import stage

    monkeypatch.setattr(stage, "dali_installed", lambda: True)
    rates = "16 CPUs decode about 16,000 images/s, and ImageEmbedding takes 2,226"
    assert planned(16) == (False, [f"ImageDecode decodes on CPUs: {rates}"])
    on_gpu, (said,) = planned(2)
    assert on_gpu
    assert said == (
        "ImageDecode decodes on the GPU of ImageEmbedding, with DALI: 2 CPUs decode about 2,000 images/s, and "
        "ImageEmbedding takes 2,226"
    )
    assert planned(2, ResolutionFilter(min_width=1))[0]
    assert planned(8, gpus=4)[0]
    # A stage between them on CPUs would cause pixels to be sent twice; the speed of a missing model is unknown.
    assert planned(2, BlurFilter()) == (False, [])
    assert planned(2, model="some/model")[1] == [
        "ImageDecode decodes on CPUs: the speed of ImageEmbedding is not known"
    ]
    assert "3 GB of the GPU are left" in planned(2, memory=11)[1][0]
    # The user's choice is kept.
    assert planned(2, reader=ImageReader("in/*.tar", decoder="turbo")) == (False, [])
    assert planned(64, reader=ImageReader("in/*.tar").with_(resources=Resources(gpu_memory_gb=4)))[0]
    monkeypatch.setattr(stage, "dali_installed", lambda: False)
    on_gpu, (decision, warning) = planned(2)
    assert (on_gpu, decision) == (False, "ImageDecode decodes on CPUs")
    assert warning.startswith("the GPU will wait: 2 CPUs decode")
    assert "curator-image[dali]" in warning


def test_the_plan_says_when_a_model_is_compiled_and_a_gpu_gets_several_tasks_a_call() -> None:
    stage = ImageEmbedding(gpu_memory_gb=8)
    assert (ImageEmbedding().batch_size, stage.batch_size, stage.with_(batch_size=2).batch_size) == (1, 4, 2)
    assert ImageEmbedding().plan_notes() == []
    (said,) = stage.plan_notes()
    assert said.startswith("ImageEmbedding compiles its model once a worker has computed for 30 s")
