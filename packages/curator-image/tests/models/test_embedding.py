"""Embeddings equal those of the Hugging Face processor and model, within the tolerance that the documentation states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curator_core import Resources, UsageError, WorkerMetadata
from curator_image.batch import ImageBatch
from curator_image.embedding import ImageEmbedding, embedding_matrix, embedding_origin

pytestmark = pytest.mark.models

MakeBatch = Callable[..., ImageBatch]


def reference(folder: Path, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The results of transformers itself: its processor on Pillow images, its model, unit length."""
    import torch
    import transformers

    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")
    with torch.inference_mode():
        answer = model.get_image_features(**inputs) if hasattr(model, "get_image_features") else model(**inputs)
    vectors = getattr(answer, "pooler_output", answer)
    return np.asarray(torch.nn.functional.normalize(vectors, dim=-1).numpy())


def embed(batch: ImageBatch, **parameters: Any) -> np.ndarray[Any, Any]:
    stage = ImageEmbedding(**parameters)
    stage.setup(WorkerMetadata())
    table = stage.process(batch).to_pyarrow()
    return np.asarray(embedding_matrix(table, "embedding")[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2", "dinov2"])
def test_pixels_of_the_models_size_give_the_references_vectors(
    name: str, request: pytest.FixtureRequest, image_batch: MakeBatch, pictures: Any
) -> None:
    folder, images = request.getfixturevalue(name), pictures(9)
    np.testing.assert_allclose(embed(image_batch(images), model=str(folder)), reference(folder, images), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(48, 64), (64, 48), (33, 200), (32, 50), (20, 24)])
@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2"])
def test_pixels_of_another_size_are_resized_and_cropped_as_the_reference_does(
    name: str, size: tuple[int, int], request: pytest.FixtureRequest, image_batch: MakeBatch, pictures: Any
) -> None:
    folder, images = request.getfixturevalue(name), pictures(6, *size)
    ours, theirs = embed(image_batch(images), model=str(folder)), reference(folder, images)
    assert (ours * theirs).sum(axis=1).min() > 0.9999


def test_every_vector_has_length_one_and_the_column_says_where_it_came_from(clip: Path, image_batch: MakeBatch) -> None:
    stage = ImageEmbedding(model=str(clip))
    stage.setup(WorkerMetadata())
    table = stage.process(image_batch(5)).to_pyarrow()
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 24)
    np.testing.assert_allclose(np.linalg.norm(embedding_matrix(table, "embedding")[0], axis=1), 1, atol=1e-6)
    assert embedding_origin(table, "embedding") == (str(clip), "clip")


def test_pixels_stay_only_for_later_stages_that_read_them(clip: Path, image_batch: MakeBatch) -> None:
    stage = ImageEmbedding(model=str(clip))
    last, not_last = stage.needed_by(frozenset({"key", "bytes"})), stage.needed_by(frozenset({"pixels"}))
    assert (last.removes(), not_last.removes()) == (["pixels"], [])
    for variant, kept in ((last, False), (not_last, True), (stage.with_(keep_pixels=False), False)):
        variant.setup(WorkerMetadata())
        assert ("pixels" in variant.process(image_batch(3)).column_names) is kept


def test_the_input_is_not_changed(clip: Path, image_batch: MakeBatch) -> None:
    batch = image_batch(3)
    before = batch.to_pyarrow()
    embed(batch, model=str(clip))
    assert batch.to_pyarrow() is before


def test_an_empty_batch_and_a_batch_of_several_chunks_work(clip: Path, image_batch: MakeBatch) -> None:
    batch = image_batch(7)
    table = batch.to_pyarrow()
    split = batch.with_data(pa.concat_tables([table.slice(0, 3), table.slice(3)]))
    assert embed(batch.with_data(table.slice(0, 0)), model=str(clip)).shape == (0, 24)
    np.testing.assert_array_equal(embed(split, model=str(clip)), embed(batch, model=str(clip)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2", "dinov2"])
def test_the_other_images_of_a_batch_change_only_the_last_bits_of_a_vector(
    name: str, request: pytest.FixtureRequest, image_batch: MakeBatch, pictures: Any
) -> None:
    folder, images = str(request.getfixturevalue(name)), pictures(21)
    together = embed(image_batch(images), model=folder)
    one_by_one = embed(image_batch(images), model=folder, model_batch_size=1)
    order = np.random.default_rng(1).permutation(21)
    shuffled = embed(image_batch(images[order]), model=folder, model_batch_size=8)
    np.testing.assert_allclose(one_by_one, together, atol=1e-6)
    np.testing.assert_allclose(shuffled, together[order], atol=1e-6)


@pytest.mark.slow
def test_the_number_of_torch_threads_outside_the_stage_changes_no_bit(clip: Path, image_batch: MakeBatch) -> None:
    import torch

    given, found = torch.get_num_threads(), []
    try:
        for outside in (1, 2, 3):
            torch.set_num_threads(outside)
            found.append(embed(image_batch(70), model=str(clip)).tobytes())
            assert torch.get_num_threads() == outside
    finally:
        torch.set_num_threads(given)
    assert len(set(found)) == 1


def test_half_precision_is_close_to_single_precision(clip: Path, image_batch: MakeBatch) -> None:
    single = embed(image_batch(8), model=str(clip))
    for precision in ("bf16", "fp16"):
        half = embed(image_batch(8), model=str(clip), precision=precision)
        assert half.dtype == np.float32
        assert (single * half).sum(axis=1).min() > 0.999


def test_a_batch_that_does_not_fit_is_halved_and_keeps_every_row(clip: Path, image_batch: MakeBatch) -> None:
    import torch

    stage = ImageEmbedding(model=str(clip), model_batch_size=16)
    stage.setup(WorkerMetadata())
    expected = embedding_matrix(stage.process(image_batch(23)).to_pyarrow(), "embedding")[0]
    tower = stage._tower
    assert tower is not None

    def small_memory(module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        if len(keywords["pixel_values"]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    tower.model.register_forward_pre_hook(small_memory, with_kwargs=True)
    halved = embedding_matrix(stage.process(image_batch(23)).to_pyarrow(), "embedding")[0]
    np.testing.assert_allclose(halved, expected, atol=1e-6)
    assert tower.batcher.size == 2
    assert stage.recorder.metrics["out_of_memory_retries"] == 3


def test_a_compiled_model_gets_one_shape_and_gives_the_same_vectors(
    clip: Path, image_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    import functools

    import torch

    shapes = []

    def compiled(model: Any, **options: Any) -> Any:
        # Everything but the code generator, which would take half a minute.
        made = compile_(model, backend="eager", **options)

        @functools.wraps(made)
        def call(pixel_values: Any) -> Any:
            shapes.append(tuple(pixel_values.shape))
            return made(pixel_values=pixel_values)

        return call

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", compiled)
    expected = embed(image_batch(11), model=str(clip), model_batch_size=4)
    assert not shapes
    got = embed(image_batch(11), model=str(clip), model_batch_size=4, compile="always")
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert shapes == [(4, 3, 32, 32)] * 3


def test_one_image_that_does_not_fit_is_an_error_that_names_the_remedy(clip: Path, image_batch: MakeBatch) -> None:
    import torch

    from curator_image.models.towers import OutOfMemory

    stage = ImageEmbedding(model=str(clip))
    stage.setup(WorkerMetadata())
    assert stage._tower is not None

    def no_memory(module: Any, arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    stage._tower.model.register_forward_pre_hook(no_memory)
    with pytest.raises(OutOfMemory, match="gpu_memory_gb"):
        stage.process(image_batch(4))


def test_an_image_whose_vector_is_not_finite_is_rejected_with_its_key(clip: Path, image_batch: MakeBatch) -> None:
    stage = ImageEmbedding(model=str(clip), model_batch_size=2)
    stage.setup(WorkerMetadata())
    assert stage._tower is not None
    calls = []

    def overflow(module: Any, arguments: Any, answer: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            answer.image_embeds[1] = float("inf")
        return answer

    stage._tower.model.register_forward_hook(overflow)
    out = stage.process(image_batch(5))
    assert out.to_pyarrow()["key"].to_pylist() == ["k000", "k001", "k002", "k004"]
    (reject,) = stage.recorder.rejects
    assert (reject.reason, reject.source, reject.position) == ("embedding not finite", "a.tar", "k003")


def test_a_gpu_is_requested_by_parameter_and_by_with(clip: Path) -> None:
    stage = ImageEmbedding(model=str(clip), gpu_memory_gb=6)
    assert stage.resources == Resources(cpus=1, gpu_memory_gb=6)
    assert stage.with_(gpu_memory_gb=2).resources.gpu_memory_gb == 2
    assert stage.with_(resources=Resources(gpus=1)).resources == Resources(gpus=1)
    assert ImageEmbedding().resources == Resources()
    assert stage.settings() == {}


def test_a_named_gpu_is_refused_if_there_is_none(clip: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(UsageError, match="no NVIDIA GPU"):
        ImageEmbedding(model=str(clip), device="cuda").setup(WorkerMetadata())


def test_a_model_of_an_unsupported_kind_is_refused_and_the_supported_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"'bert'.*clip, dinov2"):
        ImageEmbedding(model=str(tmp_path)).setup(WorkerMetadata())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model": ""}, "Hugging Face id"),
        ({"precision": "int8"}, "fp32, fp16, bf16"),
        ({"model_batch_size": 0}, "1 or more"),
        ({"gpu_memory_gb": -1}, "zero or more"),
        ({"embedding_column": ""}, "name of a new column"),
        ({"modle": "x"}, "did you mean 'model'"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_loaded(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ImageEmbedding(**wrong)
