"""Filters on embeddings: published heads, thresholds and their direction, and embeddings that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curator_core import DocumentBatch, UsageError, WorkerMetadata
from curator_image.aesthetic import AestheticFilter
from curator_image.batch import ImageBatch
from curator_image.caption_score import CaptionScoreFilter
from curator_image.embedding import ImageEmbedding, embedding_matrix
from curator_image.nsfw import LAION_HEAD, NSFWFilter

MakeBatch = Callable[..., ImageBatch]


def unit_vectors(count: int, width: int = 768, seed: int = 0) -> np.ndarray[Any, Any]:
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def batch_of(vectors: np.ndarray[Any, Any], **columns: Any) -> DocumentBatch:
    kind = pa.list_(pa.float32(), vectors.shape[1])
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=kind)
    keys = [f"k{index}" for index in range(len(vectors))]
    return DocumentBatch(data=pa.table({"key": keys, "embedding": values, **columns}))


@pytest.fixture
def heads(tmp_path: Path) -> tuple[Path, Path]:
    import image_models

    return image_models.save_heads(tmp_path / "heads", 768)


def torch_scores(path: Path, vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The score of the head as its authors compute it: layer by layer, in torch."""
    import safetensors.torch
    import torch
    from torch import nn

    x = torch.from_numpy(vectors)
    if path.suffix == ".safetensors":
        layers = nn.Sequential(
            *(nn.Linear(768, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2), nn.Linear(128, 64)),
            *(nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1)),
        ).eval()
        state = safetensors.torch.load_file(path)
        layers.load_state_dict({name.removeprefix("layers."): value for name, value in state.items()})
        with torch.inference_mode():
            return np.asarray(layers(x)[:, 0].numpy())
    state = torch.load(path, weights_only=True)
    x = (x - state["norm.mean"]) / (state["norm.variance"].sqrt() + 1e-10)
    for number in (1, 2, 3):
        x = torch.relu(nn.functional.linear(x, state[f"linear_{number}.weight"], state[f"linear_{number}.bias"]))
    return np.asarray(
        torch.sigmoid(nn.functional.linear(x, state["linear_4.weight"], state["linear_4.bias"]))[:, 0].numpy()
    )


@pytest.mark.slow
@pytest.mark.models
def test_scores_are_those_of_the_published_networks(heads: tuple[Path, Path]) -> None:
    vectors = unit_vectors(40)
    for stage, path in ((AestheticFilter(model=str(heads[0])), heads[0]), (NSFWFilter(model=str(heads[1])), heads[1])):
        stage.setup(WorkerMetadata())
        scores = np.array(stage.score_batch(batch_of(vectors)))
        np.testing.assert_allclose(scores, torch_scores(path, vectors), rtol=2e-5, atol=2e-6)
        assert scores.std() > 0.01


@pytest.mark.slow
@pytest.mark.models
def test_the_aesthetic_filter_keeps_scores_above_and_the_nsfw_filter_scores_below_its_limit(
    heads: tuple[Path, Path],
) -> None:
    batch = batch_of(unit_vectors(60))
    beauty, safety = AestheticFilter(model=str(heads[0]), score_column="beauty"), NSFWFilter(model=str(heads[1]))
    beauty.setup(WorkerMetadata())
    kept = beauty.process(batch).to_pyarrow()
    assert 0 < kept.num_rows < 60
    assert min(kept["beauty"].to_pylist()) >= 5.0
    assert beauty.recorder.dropped == {"aesthetic": 60 - kept.num_rows}
    annotated = safety.with_(mode="annotate")
    annotated.setup(WorkerMetadata())
    table = annotated.process(batch).to_pyarrow()
    assert table.column_names[-2:] == ["nsfw", "nsfw_keep"]
    assert [score < 0.5 for score in table["nsfw"].to_pylist()] == table["nsfw_keep"].to_pylist()
    safety.setup(WorkerMetadata())
    assert safety.process(batch).num_rows == sum(table["nsfw_keep"].to_pylist())
    assert list(safety.recorder.dropped) == ["nsfw"]


@pytest.mark.models
def test_a_score_at_the_threshold_is_kept_by_the_aesthetic_and_dropped_by_the_nsfw_filter() -> None:
    scores = pa.array([0.4999, 0.5, 0.5001], pa.float32())
    assert AestheticFilter(min_score=0.5).keep(scores).to_pylist() == [False, True, True]
    assert NSFWFilter(max_score=0.5).keep(scores).to_pylist() == [True, False, False]


@pytest.mark.models
def test_an_image_without_an_embedding_does_not_pass(heads: tuple[Path, Path]) -> None:
    vectors = unit_vectors(3)
    column = pa.array([vectors[0].tolist(), None, vectors[2].tolist()], pa.list_(pa.float32(), 768))
    batch = DocumentBatch(data=pa.table({"key": ["a", "b", "c"], "embedding": column}))
    stage = AestheticFilter(model=str(heads[0]), min_score=-1e9)
    stage.setup(WorkerMetadata())
    assert stage.process(batch).to_pyarrow()["key"].to_pylist() == ["a", "c"]


@pytest.mark.models
def test_lists_of_varying_type_are_read_as_well(heads: tuple[Path, Path]) -> None:
    vectors = unit_vectors(4)
    stage = AestheticFilter(model=str(heads[0]))
    stage.setup(WorkerMetadata())
    fixed = stage.score_batch(batch_of(vectors))
    plain = stage.score(pa.array(vectors.tolist(), pa.list_(pa.float64())))
    assert fixed.equals(plain)


@pytest.mark.models
def test_embeddings_of_another_length_are_refused_with_the_remedy(heads: tuple[Path, Path]) -> None:
    stage = NSFWFilter(model=str(heads[1]))
    stage.setup(WorkerMetadata())
    with pytest.raises(UsageError, match=r"768 numbers, but column 'embedding' has 512.*clip-vit-large-patch14"):
        stage.process(batch_of(unit_vectors(3, 512)))


@pytest.mark.models
def test_embeddings_of_another_model_are_refused_even_if_their_length_fits(
    siglip: Path, image_batch: MakeBatch, tmp_path: Path
) -> None:
    import image_models

    head, _ = image_models.save_heads(tmp_path, 32)
    embedding = ImageEmbedding(model=str(siglip))
    embedding.setup(WorkerMetadata())
    stage = AestheticFilter(model=str(head))
    with pytest.raises(UsageError, match="which is a siglip model"):
        stage.process(embedding.process(image_batch(3)))


@pytest.mark.models
def test_a_wrong_checksum_stops_the_stage_before_it_scores(heads: tuple[Path, Path]) -> None:
    with pytest.raises(Exception, match="was expected"):
        AestheticFilter(model=str(heads[0]), sha256="0" * 64).setup(WorkerMetadata())


@pytest.mark.models
def test_swapped_heads_are_detected(heads: tuple[Path, Path]) -> None:
    with pytest.raises(Exception, match="not LAION's NSFW head"):
        NSFWFilter(model=str(heads[0])).setup(WorkerMetadata())
    with pytest.raises(Exception, match="linear layers at"):
        AestheticFilter(model=str(heads[1])).setup(WorkerMetadata())


def test_the_default_nsfw_head_is_one_file_at_one_commit() -> None:
    file = NSFWFilter().weights_file()
    assert NSFWFilter().model == LAION_HEAD
    assert "/21072a2a38e6d2bb294be03c005aaa9a65778e47/" in file.model


def test_wrong_thresholds_are_refused() -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        NSFWFilter(max_score=5)
    with pytest.raises(UsageError, match="must be a number"):
        AestheticFilter(min_score=float("nan"))
    with pytest.raises(UsageError, match="64 hex digits"):
        AestheticFilter(sha256="abc")


CAPTIONS = ["a dog", "", None, "  ", "a cat in a hat on a mat, seen from far away", "a dog"]


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize("name", ["clip", "siglip2"])
def test_caption_scores_are_cosines_of_the_reference_model(
    name: str, request: pytest.FixtureRequest, image_batch: MakeBatch, pictures: Any
) -> None:
    import torch
    import transformers
    from PIL import Image

    folder = request.getfixturevalue(name)
    images = pictures(6)
    batch = image_batch(images, caption=pa.array(CAPTIONS))
    embedding, stage = ImageEmbedding(model=str(folder)), CaptionScoreFilter(model=str(folder), mode="annotate")
    embedding.setup(WorkerMetadata())
    stage.setup(WorkerMetadata())
    out = stage.process(embedding.process(batch)).to_pyarrow()
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    padding = "max_length" if name == "siglip2" else True
    for index in (0, 4, 5):
        with torch.inference_mode():
            answer = model(
                **processor(images=[Image.fromarray(images[index])], return_tensors="pt"),
                **tokenizer([CAPTIONS[index]], return_tensors="pt", truncation=True, max_length=24, padding=padding),
            )
            expected = float(torch.nn.functional.cosine_similarity(answer.image_embeds, answer.text_embeds))
        assert out["caption_score"][index].as_py() == pytest.approx(expected, abs=1e-5)
    assert [out["caption_score"][index].as_py() for index in (1, 2, 3)] == [None] * 3
    assert out["caption_score_keep"].to_pylist()[1:4] == [False] * 3


@pytest.mark.models
def test_images_without_a_caption_are_dropped_with_a_separate_reason(clip: Path, image_batch: MakeBatch) -> None:
    embedding, stage = ImageEmbedding(model=str(clip)), CaptionScoreFilter(model=str(clip), min_score=-1.0)
    embedding.setup(WorkerMetadata())
    stage.setup(WorkerMetadata())
    kept = stage.process(embedding.process(image_batch(6, caption=pa.array(CAPTIONS))))
    assert kept.to_pyarrow()["caption"].to_pylist() == ["a dog", CAPTIONS[4], "a dog"]
    assert stage.recorder.dropped == {"no caption": 3}


@pytest.mark.models
def test_captions_and_pictures_of_different_models_are_not_compared(
    clip: Path, image_batch: MakeBatch, tmp_path: Path
) -> None:
    import image_models

    other = image_models.save_clip(tmp_path / "other", seed=1)
    embedding, stage = ImageEmbedding(model=str(clip)), CaptionScoreFilter(model=str(other))
    embedding.setup(WorkerMetadata())
    stage.setup(WorkerMetadata())
    with pytest.raises(UsageError, match="give both stages the same model"):
        stage.process(embedding.process(image_batch(6, caption=pa.array(CAPTIONS))))


@pytest.mark.models
def test_a_model_without_a_text_encoder_is_refused(dinov2: Path) -> None:
    with pytest.raises(UsageError, match="no text model"):
        CaptionScoreFilter(model=str(dinov2)).setup(WorkerMetadata())


@pytest.mark.models
def test_the_filter_reads_the_matrix_without_copying_it(clip: Path) -> None:
    vectors = unit_vectors(4)
    matrix, valid = embedding_matrix(batch_of(vectors).to_pyarrow(), "embedding")
    np.testing.assert_array_equal(matrix, vectors)
    assert valid.to_pylist() == [True] * 4
