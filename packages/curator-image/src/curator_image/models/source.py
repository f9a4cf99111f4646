"""Locates a model: a local folder or file, a Hugging Face id at a pinned revision, or an https address.

One string names a model. `locate_folder` and `locate_file` turn it into a local path and download missing files. If
they cannot, they raise `ModelNotFound` with the command to type and the folder to use.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator_core.download import Client, FetchRules, fetch_file
from curator_core.errors import CuratorError, MissingDependency, UsageError

# The files to download from a repository. Weights must not be pickled; a repository that has only pickled weights is
# refused, with a hint on how to convert them.
FOLDER_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors")

# The commits of the stages' default models. An id without a revision means this commit.
PINNED = {
    "openai/clip-vit-large-patch14": "32bd64288804d66eefd0ccbe215aa642df71cc41",
    "ttj/sac-logos-ava1-l14-linearMSE": "1e77fa05081323d99725fc40a9bf9f88180490e7",
}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_DOWNLOAD = 2 << 30


class ModelNotFound(CuratorError):
    """A model is not on this machine and cannot be downloaded; the message says what to download and where to put it."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file in a model repository or at an https address; ``sha256`` is checked if it is given."""

    model: str
    filename: str = ""
    revision: str | None = None
    sha256: str | None = None


def split_model(model: str, revision: str | None = None) -> tuple[str, str | None]:
    """``org/name@revision`` as id and revision; without one, the pinned revision of the id if there is one."""
    name, _, given = model.partition("@")
    if given and revision and given != revision:
        raise UsageError(f"model {model!r} names revision {given!r}, but revision={revision!r} was given: give one")
    return name, given or revision or PINNED.get(name)


def check_model(stage: str, model: object, revision: object = None) -> None:
    """Raise if ``model`` cannot be the name of a model; this check does not access the disk."""
    if not isinstance(model, str) or not model:
        raise UsageError(
            f"{stage}.model must be a Hugging Face id such as 'openai/clip-vit-large-patch14', "
            f"or a local path, not {model!r}"
        )
    if revision is not None and (not isinstance(revision, str) or not revision):
        raise UsageError(
            f"{stage}.revision must be a commit, tag or branch of the model's repository, not {revision!r}"
        )


def locate_folder(model: str, revision: str | None = None) -> Path:
    """The folder of a Hugging Face model: ``model`` itself if it is a folder, otherwise a snapshot from the hub."""
    local = _local(model)
    if local is not None:
        if not local.is_dir():
            raise ModelNotFound(f"model {model!r} is a file, but a folder with config.json and weights is needed")
        _check_folder(model, local)
        return local
    name, revision = split_model(model, revision)
    hub = _hub_library(name, revision)
    try:
        # Try the cache first: a run must not depend on a server that it does not need.
        folder = Path(
            hub.snapshot_download(name, revision=revision, allow_patterns=list(FOLDER_PATTERNS), local_files_only=True)
        )
        _check_folder(model, folder)
        return folder
    except (hub.errors.LocalEntryNotFoundError, ModelNotFound):
        pass
    try:
        _check_reachable(hub)
        folder = Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(FOLDER_PATTERNS)))
    except Exception as error:  # all errors of the hub library and its HTTP client mean that the model is not available
        raise ModelNotFound(_advice(name, revision, "", error)) from error
    _check_folder(model, folder)
    for path in sorted(folder.glob("*.safetensors")):
        _check_blob(path)
    return folder


def local_file(model: str, revision: str | None, filename: str) -> Path | None:
    """A file of a Hugging Face model if it is on this machine, in a folder or in the cache; nothing is downloaded."""
    local = _local(model)
    if local is not None:
        return local / filename if (local / filename).is_file() else None
    name, revision = split_model(model, revision)
    try:
        import huggingface_hub
    except ImportError:
        return None
    found = huggingface_hub.try_to_load_from_cache(name, filename, revision=revision)
    return Path(found) if isinstance(found, str) else None


def locate_file(file: HubFile) -> Path:
    """The local path of one file, which is given as a path, as ``org/name`` and ``filename``, or as an https address."""
    if file.model.startswith(("https://", "http://")):
        return _checked(_fetch(file), file.sha256)
    local = _local(file.model)
    if local is not None:
        if local.is_dir() and file.filename and (local / file.filename).exists():
            local = local / file.filename
        return local if local.is_dir() else _checked(local, file.sha256)
    name, revision = split_model(file.model, file.revision)
    hub = _hub_library(name, revision, file.filename)
    try:
        path = Path(hub.hf_hub_download(name, file.filename, revision=revision, local_files_only=True))
    except hub.errors.LocalEntryNotFoundError:
        try:
            _check_reachable(hub)
            path = Path(hub.hf_hub_download(name, file.filename, revision=revision))
        except Exception as error:  # every error of the hub library means that the file is not available
            raise ModelNotFound(_advice(name, revision, file.filename, error)) from error
        _check_blob(path)
    return _checked(path, file.sha256)


def cache_folder() -> Path:
    """The folder for files from https addresses; ``CURATOR_MODEL_CACHE`` moves it."""
    given = os.environ.get("CURATOR_MODEL_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "curator" / "models"


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _local(model: str) -> Path | None:
    path = Path(model).expanduser()
    if path.exists():
        return path
    # An id has one slash and no leading dot; any other name of something that does not exist is meant as a path.
    if model.startswith(("/", ".", "~")) or not _HUB_ID.fullmatch(model.partition("@")[0]):
        raise ModelNotFound(
            f"there is no model at {model!r} ({str(path.absolute())!r} does not exist): give the folder that holds "
            "config.json and model.safetensors, or a Hugging Face id such as 'openai/clip-vit-large-patch14'"
        )
    return None


def _hub_library(name: str, revision: str | None, filename: str = "") -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise MissingDependency(
            f'downloading the model {name!r} needs huggingface_hub: pip install "curator-image[models]", or download '
            f"{filename or 'its folder'} at revision {revision or 'main'!r} and give the local path as the model"
        ) from error
    return huggingface_hub


def _check_reachable(hub: Any) -> None:
    """Raise at once if there is no network: the hub library would retry for half a minute and print each failure."""
    host = urllib.parse.urlsplit(hub.constants.ENDPOINT).hostname or ""
    if urllib.request.getproxies() or hub.constants.HF_HUB_OFFLINE:
        return  # the proxy resolves the name; in offline mode, the library raises by itself
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise ConnectionError(f"there is no network, or the name {host!r} has no address: {error.strerror}") from error


def _check_folder(model: str, folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelNotFound(
            f"model {model!r} has no config.json in {str(folder)!r}: is this a Hugging Face model folder?"
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelNotFound(
            f"model {model!r} has no *.safetensors in {str(folder)!r}. Pickled weights are not loaded; where a "
            "repository has only pytorch_model.bin, save the model once with save_pretrained(folder) "
            "and give that folder as the model"
        )


def _advice(name: str, revision: str | None, filename: str, error: Exception) -> str:
    short = name.rpartition("/")[2]
    flag = f" --revision {revision}" if revision else ""
    what = f"{filename} of the model {name!r}" if filename else f"the model {name!r}"
    reason = str(error).strip().splitlines()
    return (
        f"{what} (revision {revision or 'main'}) is not on this machine and could not be downloaded: "
        f"{type(error).__name__}: {reason[0][:200] if reason else 'no reason given'}\n"
        f"On a machine with a network:  hf download {name}{' ' + filename if filename else ''}{flag} "
        f"--local-dir models/{short}\n"
        f"Then copy models/{short} here and give its path as the model, or copy the Hugging Face cache "
        "(~/.cache/huggingface/hub, or $HF_HOME/hub)."
    )


def _check_blob(path: Path) -> None:
    """Check a fresh download against its SHA-256, which is its file name in the hub's cache."""
    blob = path.resolve()
    if _SHA256.fullmatch(blob.name):
        _checked(blob, blob.name)


def _checked(path: Path, expected: str | None) -> Path:
    if expected is None:
        return path
    found = file_sha256(path)
    if found != expected.lower():
        raise ModelNotFound(
            f"{str(path)!r} has SHA-256 {found}, but {expected} was expected: delete it and download it again, "
            "or, if the new file is right, change the expected checksum"
        )
    return path


def _fetch(file: HubFile) -> Path:
    url = file.model
    folder = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.+-]", "_", url.rpartition("/")[2]) or "file"
    target = folder / name
    if target.exists():
        return target
    if not url.startswith("https://"):
        raise UsageError(f"a model is downloaded only over https, not from {url!r}: download it and give its path")
    by_hand = f"put it at {str(target)!r}, or anywhere else and give that path as the model"
    # The user has named this file, so the site's opt-out from training does not apply.
    rules = FetchRules(
        timeout_s=None, idle_timeout_s=60.0, max_bytes=_MAX_DOWNLOAD, https_only=True, respect_opt_out=False
    )
    try:
        client = Client(rules)
    except MissingDependency as error:
        raise MissingDependency(
            f'downloading {url} needs aiohttp: pip install "curator-image[download]", or download it and {by_hand}'
        ) from error
    try:
        outcome = fetch_file(client, url, target)
    finally:
        client.close()
    if outcome is not None and not outcome.ok:
        raise ModelNotFound(
            f"{url} is not on this machine and could not be downloaded: {outcome.reason}"
            f"{': ' if outcome.message else ''}{outcome.message}\n"
            f"Download it on a machine with a network and {by_hand}."
        )
    try:
        return _checked(target, file.sha256)
    except ModelNotFound:
        target.unlink(missing_ok=True)  # it has just been downloaded, so it is not the user's own file
        raise
