"""Weights of heads are read from their published formats, and nothing in them is executed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curator_image.models import LinearHead, NSFWHead, read_weights, write_weights
from curator_image.models.convert import main as convert
from curator_image.models.heads import WrongWeights
from curator_image.models.tensor_bundle import BrokenBundle, read_bundle
from curator_image.models.weights import UnreadableWeights

SAVED_MODEL = Path(__file__).parent / "data" / "nsfw_savedmodel"


def published_scores() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    values = json.loads((SAVED_MODEL / "predictions.json").read_text())
    return np.array(values["embeddings"], np.float32), np.array(values["scores"], np.float32)


def test_a_keras_saved_model_is_read_without_tensorflow_and_scores_as_keras_did() -> None:
    head = NSFWHead.from_weights(read_weights(SAVED_MODEL))
    embeddings, expected = published_scores()
    assert head.dimension == 8
    assert [weight.shape for weight, _ in head.layers] == [(4, 8), (6, 4), (5, 6), (1, 5)]
    np.testing.assert_allclose(head(embeddings), expected, atol=1e-6)


def test_a_zip_of_a_saved_model_is_read_like_the_folder(tmp_path: Path) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "clip_autokeras_binary_nsfw"), "zip", SAVED_MODEL.parent))
    packed, plain = read_weights(path), read_weights(SAVED_MODEL)
    assert packed.keys() == plain.keys()
    assert all(np.array_equal(packed[name], plain[name]) for name in plain)


def test_a_checkpoint_cut_off_anywhere_is_an_error_and_never_a_wrong_tensor() -> None:
    index = (SAVED_MODEL / "variables/variables.index").read_bytes()
    data = (SAVED_MODEL / "variables/variables.data-00000-of-00001").read_bytes()
    whole = read_bundle(index, lambda i, of: data)
    assert len(whole) == 15
    with pytest.raises(BrokenBundle):
        read_bundle(index, lambda i, of: data[:40])
    for length in range(0, len(index), 7):
        with pytest.raises(BrokenBundle):
            read_bundle(index[:length], lambda i, of: data)


def test_a_damaged_index_fails_with_our_own_error(tmp_path: Path) -> None:
    folder = shutil.copytree(SAVED_MODEL, tmp_path / "model")
    path = folder / "variables" / "variables.index"
    good = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(200):
        broken = bytearray(good)
        for position in random.integers(0, len(good), 3):
            broken[position] = int(random.integers(0, 256))
        path.write_bytes(bytes(broken))
        try:
            read_weights(folder)
        except (BrokenBundle, UnreadableWeights):
            continue


def test_the_converter_writes_safetensors_that_score_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("safetensors")
    target = tmp_path / "nsfw.safetensors"
    assert convert([str(SAVED_MODEL), str(target)]) == 0
    assert "linear_4.weight  [1, 5]" in capsys.readouterr().out
    embeddings, expected = published_scores()
    np.testing.assert_allclose(NSFWHead.from_weights(read_weights(target))(embeddings), expected, atol=1e-6)


def test_the_converter_says_what_is_wrong_with_its_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "head.txt"
    path.write_text("not weights")
    assert convert([str(path), str(tmp_path / "out.safetensors")]) == 2
    assert "have an unsupported format" in capsys.readouterr().err


@pytest.mark.models
@pytest.mark.parametrize("packed", [False, True])
def test_a_torch_file_is_read_both_plain_and_inside_a_zip(tmp_path: Path, packed: bool) -> None:
    torch = pytest.importorskip("torch")
    tensors = read_weights(SAVED_MODEL)
    path = tmp_path / "head.pth"
    torch.save({name: torch.from_numpy(value.copy()) for name, value in tensors.items()}, path)
    if packed:
        with zipfile.ZipFile(tmp_path / "head.zip", "w") as archive:
            archive.write(path, "clip_autokeras_binary_nsfw.pth")
        path = tmp_path / "head.zip"
    read = read_weights(path)
    assert read.keys() == tensors.keys()
    assert all(np.array_equal(read[name], tensors[name]) for name in tensors)


@pytest.mark.models
def test_a_pickle_that_would_run_a_command_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    mark = tmp_path / "was-run"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(mark),)

    plain, saved = tmp_path / "plain.pth", tmp_path / "saved.pth"
    plain.write_bytes(pickle.dumps({"weight": Hostile()}, protocol=2))
    torch.save({"weight": Hostile()}, saved)
    for path in (plain, saved):
        with pytest.raises(UnreadableWeights, match="weights_only"):
            read_weights(path)
    assert not mark.exists()


def test_a_zip_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curator_image.models.weights._MAX_MEMBER", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("head.safetensors", bytes(100_000))
    with pytest.raises(UnreadableWeights, match="unpacks to more"):
        read_weights(tmp_path / "bomb.zip")


def linear_stack(*widths: int, numbers: tuple[int, ...], seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(seed)
    tensors = {}
    for number, before, after in zip(numbers, widths[:-1], widths[1:], strict=True):
        tensors[f"layers.{number}.weight"] = random.normal(0, before**-0.5, (after, before)).astype(np.float32)
        tensors[f"layers.{number}.bias"] = random.normal(0, 1, after).astype(np.float32)
    return tensors


def test_the_aesthetic_layers_collapse_into_one_map_with_the_same_scores() -> None:
    tensors = linear_stack(48, 32, 16, 8, 4, 1, numbers=(0, 2, 4, 6, 7))
    embeddings = np.random.default_rng(1).normal(size=(20, 48)).astype(np.float32)
    x = embeddings
    for number in (0, 2, 4, 6, 7):
        x = x @ tensors[f"layers.{number}.weight"].T + tensors[f"layers.{number}.bias"]
    np.testing.assert_allclose(LinearHead.from_weights(tensors)(embeddings), x[:, 0], rtol=1e-4, atol=1e-5)


def test_a_score_does_not_depend_on_the_batch_that_it_is_computed_in() -> None:
    head = LinearHead.from_weights(linear_stack(768, 1024, 128, 64, 16, 1, numbers=(0, 2, 4, 6, 7)))
    embeddings = np.random.default_rng(1).normal(size=(50, 768)).astype(np.float32)
    together = head(embeddings)
    alone = np.concatenate([head(embeddings[i : i + 1]) for i in range(50)])
    assert together.tobytes() == alone.tobytes()


def test_a_head_with_activations_is_not_mistaken_for_a_linear_one() -> None:
    with pytest.raises(WrongWeights, match="activations"):
        LinearHead.from_weights(linear_stack(48, 32, 16, 8, 4, 1, numbers=(0, 3, 6, 9, 11)))


def test_a_file_of_other_tensors_is_refused_and_its_content_named() -> None:
    with pytest.raises(WrongWeights, match="It contains: encoder"):
        NSFWHead.from_weights({"encoder.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(WrongWeights, match="no linear layers"):
        LinearHead.from_weights({"x": np.zeros(3, np.float32)})
    tensors = linear_stack(48, 32, 16, 8, 4, 1, numbers=(0, 2, 4, 6, 7))
    tensors["layers.0.weight"] = np.zeros((8, 48), np.float32)
    with pytest.raises(WrongWeights, match="takes 32 numbers and gets 8"):
        LinearHead.from_weights(tensors)


def test_extreme_values_give_a_probability_and_no_overflow() -> None:
    head = NSFWHead.from_weights(read_weights(SAVED_MODEL))
    with np.errstate(over="raise"):
        scores = head(np.array([[1e6] * 8, [-1e6] * 8], np.float32))
    assert ((scores >= 0) & (scores <= 1)).all()


def test_written_tensors_can_be_read_again(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    weights = read_weights(SAVED_MODEL)
    write_weights(weights, tmp_path / "head.safetensors")
    again = read_weights(tmp_path / "head.safetensors")
    assert all(np.array_equal(weights[name], again[name]) for name in weights)
