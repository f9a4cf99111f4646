"""The plan finds which pixels a model needs: vectors equal those of its own processor, or the user gets a warning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curator_core import ColumnNeed, LocalExecutor, Pipeline, PlanError, UsageError, WorkerMetadata
from curator_image import ImageDecode, ImageEmbedding, ImageReader
from curator_image.decode.needs import check_made_as, derive, written
from curator_image.decode.picture import Picture
from curator_image.embedding import embedding_matrix
from curator_image.models.preprocess import Preprocessing, needed_picture

SIZES = [(48, 64), (64, 48), (33, 120), (120, 41), (32, 32), (50, 51), (400, 300), (35, 90)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, pictures: Any) -> Path:
    """Pictures of many shapes, as lossless files."""
    folder = tmp_path_factory.mktemp("images")
    for number, (height, width) in enumerate(SIZES):
        Image.fromarray(pictures(1, height, width, seed=number)[0]).save(folder / f"{number:03d}.png")
    return folder


def reference(folder: Path, images: Path) -> np.ndarray[Any, Any]:
    """The vectors that transformers computes for the files, with its own processor and model, at unit length."""
    import torch
    import transformers

    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    opened = [Image.open(path).convert("RGB") for path in sorted(images.iterdir())]
    inputs = processor(images=opened, return_tensors="pt")
    with torch.inference_mode():
        answer = model.get_image_features(**inputs) if hasattr(model, "get_image_features") else model(**inputs)
    vectors = getattr(answer, "pooler_output", answer)
    return np.asarray(torch.nn.functional.normalize(vectors, dim=-1).numpy())


def embedded(images: Path, reader: dict[str, Any], *stages: Any) -> tuple[Any, np.ndarray[Any, Any]]:
    """The run, and the vectors in the order of names."""
    result = Pipeline([ImageReader(paths=str(images), **reader), *stages]).run(LocalExecutor(workers=0))
    table = pa.concat_tables([task.to_pyarrow() for task in result.tasks]).sort_by("key")
    return result, np.asarray(embedding_matrix(table, "embedding")[0])


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2"])
def test_vectors_are_those_of_the_models_own_processor(name: str, request: pytest.FixtureRequest, images: Path) -> None:
    folder = request.getfixturevalue(name)
    result, ours = embedded(images, {"decoder": "pillow"}, ImageEmbedding(model=str(folder)))
    assert (ours * reference(folder, images)).sum(axis=1).min() > 0.9999
    assert result.summary.warnings == []


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize(
    ("name", "reader", "words"),
    [
        (
            "siglip",
            {"mode": "crop"},
            "needs pixels of 32 x 32 (squash, bicubic), but ImageDecode makes 32 x 32 (crop, bicubic)",
        ),
        (
            "dinov2",
            {"size": 28},
            "needs pixels of 32 x 32 (crop, bicubic), but ImageDecode makes 28 x 28 (crop, bicubic)",
        ),
        ("clip", {"size": 40}, "Leave size out"),
        ("clip", {"resample": "box"}, "Leave resample out"),
    ],
)
def test_pixels_that_the_user_chose_are_made_with_a_warning(
    name: str, reader: dict[str, Any], words: str, request: pytest.FixtureRequest, images: Path
) -> None:
    folder = request.getfixturevalue(name)
    result, ours = embedded(images, {"decoder": "pillow", **reader}, ImageEmbedding(model=str(folder)))
    (warning,) = result.summary.warnings
    assert words in warning
    assert (ours * reference(folder, images)).sum(axis=1).min() < 0.9999


@pytest.mark.slow
@pytest.mark.models
def test_models_with_different_pixels_are_refused_together_and_work_with_a_decode_stage_each(
    clip: Path, siglip: Path, images: Path
) -> None:
    first, second = ImageEmbedding(model=str(clip), embedding_column="clip"), ImageEmbedding(model=str(siglip))
    with pytest.raises(PlanError, match=r"crop.*squash.*put an ImageDecode before 'ImageEmbedding#2'"):
        Pipeline([ImageReader(paths=str(images)), first, second]).plan()
    _, ours = embedded(images, {"decoder": "pillow"}, first, ImageDecode(decoder="pillow"), second)
    assert (ours * reference(siglip, images)).sum(axis=1).min() > 0.9999


@pytest.mark.models
def test_wrong_pixels_that_neither_user_nor_plan_chose_are_refused_at_the_first_batch(
    siglip: Path, images: Path, image_batch: Any
) -> None:
    data = [path.read_bytes() for path in sorted(images.iterdir())]
    batch = image_batch(len(data))
    batch = batch.with_data(batch.to_pyarrow().drop_columns(["pixels"]).append_column("bytes", pa.array(data)))
    stage = ImageEmbedding(model=str(siglip))
    stage.setup(WorkerMetadata())
    with pytest.raises(
        UsageError, match=r"the pixels are 224 x 224 \(crop, bicubic\).*give the reader size: 32, mode: squash"
    ):
        stage.process(ImageDecode(columns=["pixels"]).process(batch))
    chosen = ImageDecode(columns=["pixels"], size=32, mode="crop").process(batch)
    assert stage.process(chosen).num_rows == len(data)


@pytest.mark.models
def test_a_column_of_the_user_is_not_overwritten(clip: Path, image_batch: Any) -> None:
    stage = ImageEmbedding(model=str(clip))
    stage.setup(WorkerMetadata())
    with pytest.raises(UsageError, match=r"adds a column 'embedding', and there is one already"):
        stage.process(image_batch(2, embedding=["mine", "mine too"]))


@pytest.mark.parametrize(
    ("values", "picture"),
    [
        ({"size": 224, "do_center_crop": True, "crop_size": 224}, Picture(224, 224, "crop", "bicubic")),
        ({"size": {"height": 384, "width": 384}, "resample": 2}, Picture(384, 384, "squash", "bilinear")),
        ({"size": {"height": 384, "width": 128}}, Picture(384, 128, "squash", "bicubic")),
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            Picture(256, 256, "crop", "bicubic"),
        ),
        ({"size": {"shortest_edge": 224}, "resample": 1}, Picture(224, 224, "crop", "lanczos")),
        ({"size": {"shortest_edge": 224}, "resample": 0}, None),
        ({"size": {"shortest_edge": 200}, "do_center_crop": True, "crop_size": 224}, None),
        (
            {"size": None, "max_num_patches": 256, "patch_size": 16, "resample": 2},
            Picture(256, 256, "squash", "bilinear"),
        ),
        ({"do_resize": False, "do_center_crop": True, "crop_size": 224}, None),
    ],
)
def test_the_picture_is_what_the_processor_resizes_to(values: dict[str, Any], picture: Picture | None) -> None:
    assert Preprocessing.from_values(values).picture == picture


def test_a_model_in_the_cache_is_read_and_a_missing_one_causes_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Path
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    stages = [ImageReader(paths=str(images)), ImageEmbedding(model="some/siglip")]
    (warning,) = Pipeline(stages).plan().warnings
    assert "the model of ImageEmbedding is not on this machine yet" in warning
    assert Pipeline([ImageReader(paths=str(images), size=64, mode="squash"), stages[1]]).plan().warnings == ()
    snapshot = tmp_path / "models--some--siglip" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (snapshot / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 64, "width": 64}}))
    (tmp_path / "models--some--siglip" / "refs").mkdir()
    (tmp_path / "models--some--siglip" / "refs" / "main").write_text("0123abc")
    plan = Pipeline(stages).plan()
    assert plan.warnings == ()
    assert "ImageDecode makes pixels of 64 x 64 (squash, bicubic), as ImageEmbedding needs them" in plan.decisions


def test_the_pixels_of_the_default_model_are_known_without_its_files() -> None:
    assert needed_picture("openai/clip-vit-large-patch14") == (True, Picture(224, 224, "crop", "bicubic"))


def test_if_models_need_several_sizes_the_largest_is_made() -> None:
    needs = [ColumnNeed("A", Picture(224, 224)), ColumnNeed("B", Picture(336, 336))]
    derived = derive("ImageDecode", Picture(224, 224), frozenset(), needs)
    assert derived.picture == Picture(336, 336)
    (warning,) = derived.warnings
    assert warning.startswith("A needs pixels of 224 x 224 (crop, bicubic), but ImageDecode makes 336 x 336")
    assert warning.endswith("Put an ImageDecode before 'A' to make them again")


def test_the_metadata_of_a_column_are_checked_against_what_the_user_chose() -> None:
    made, needed = Picture(224, 224, "crop"), Picture(384, 384, "squash")
    check_made_as("E", None, needed)
    check_made_as("E", {b"curator.picture": written(made, frozenset({"size", "mode"}))}, needed)
    with pytest.raises(UsageError, match=r"give the reader mode: squash$"):
        check_made_as("E", {b"curator.picture": written(made, frozenset({"size"}))}, needed)
