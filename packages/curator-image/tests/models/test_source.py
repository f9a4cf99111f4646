"""One string names a model; if it is missing, the error says what to download and where to put it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from curator_core import UsageError
from curator_core.testing.loopback import loopback_only
from curator_image.models.source import (
    PINNED,
    HubFile,
    ModelNotFound,
    cache_folder,
    locate_file,
    locate_folder,
    split_model,
)


def test_a_default_model_is_one_commit_for_every_user() -> None:
    for model, commit in PINNED.items():
        assert split_model(model) == (model, commit)
        assert len(commit) == 40
    assert split_model("org/name") == ("org/name", None)
    assert split_model("org/name@abc") == ("org/name", "abc")
    assert split_model("org/name", "abc") == ("org/name", "abc")


def test_two_different_revisions_are_refused() -> None:
    with pytest.raises(UsageError, match="give one"):
        split_model("org/name@abc", "def")


def test_a_local_folder_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert locate_folder(str(tmp_path)) == tmp_path


def test_a_folder_with_pickled_weights_only_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelNotFound, match="save_pretrained"):
        locate_folder(str(tmp_path))


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        locate_folder(str(tmp_path))


@pytest.mark.parametrize("name", ["./models/clip", "/no/such/folder", "models/clip/vit", "just-a-name"])
def test_a_missing_path_is_not_searched_for_on_the_hub(name: str) -> None:
    with pytest.raises(ModelNotFound, match="there is no model at"):
        locate_folder(name)


def test_a_checksum_that_differs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    path.write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    assert locate_file(HubFile(str(path), sha256=right)) == path
    assert locate_file(HubFile(str(path), sha256=right.upper())) == path
    with pytest.raises(ModelNotFound, match=f"{right}, but {'0' * 64} was expected"):
        locate_file(HubFile(str(path), sha256="0" * 64))


def test_a_file_name_is_looked_up_in_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert locate_file(HubFile(str(tmp_path), "model.safetensors")) == tmp_path / "model.safetensors"


@pytest.mark.slow
def test_a_file_from_an_address_is_cached_and_not_fetched_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("CURATOR_MODEL_CACHE", str(tmp_path))
    url = "https://models.invalid/head.pth"
    with loopback_only(), pytest.raises(ModelNotFound) as caught:
        locate_file(HubFile(url))
    message = str(caught.value)
    assert "could not be downloaded" in message
    # The advice in the error works: a file at the named path is found.
    target = Path(message.split("put it at ")[1].split("'")[1])
    assert cache_folder() in target.parents
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"weights")
    assert locate_file(HubFile(url)).read_bytes() == b"weights"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "[::1]"])
def test_a_model_is_not_fetched_from_a_private_network(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("CURATOR_MODEL_CACHE", str(tmp_path))
    with loopback_only(), pytest.raises(ModelNotFound, match=r"private address: .* is not a public address"):
        locate_file(HubFile(f"https://{host}/head.pth"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_address_without_encryption_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATOR_MODEL_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="only over https"):
        locate_file(HubFile("http://models.invalid/head.pth"))


@pytest.mark.models
def test_if_the_hub_cannot_be_resolved_there_is_no_wait_for_retries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "https://models.invalid")
    for locate in (
        lambda: locate_folder("openai/clip-vit-large-patch14"),
        lambda: locate_file(HubFile("ttj/sac-logos-ava1-l14-linearMSE", "model.safetensors")),
    ):
        message = r"there is no network, or the name 'models\.invalid' has no address"
        with loopback_only(), pytest.raises(ModelNotFound, match=message) as error:
            locate()
        assert "hf download" in str(error.value)
    assert not caplog.records


@pytest.mark.models
def test_without_a_network_the_error_gives_the_command_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFound) as folder:
        locate_folder("openai/clip-vit-large-patch14")
    assert "hf download openai/clip-vit-large-patch14 --revision 32bd64288804d66eefd0ccbe215aa642df71cc41" in str(
        folder.value
    )
    with pytest.raises(ModelNotFound) as file:
        locate_file(HubFile("ttj/sac-logos-ava1-l14-linearMSE", "model.safetensors"))
    assert "hf download ttj/sac-logos-ava1-l14-linearMSE model.safetensors --revision 1e77fa0" in str(file.value)
    assert "--local-dir models/sac-logos-ava1-l14-linearMSE" in str(file.value)
