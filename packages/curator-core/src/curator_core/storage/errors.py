"""How is an error of a file reported? The message says which file, why, and what to do."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from curator_core.errors import CuratorError, OutputError, UsageError, nearest
from curator_core.storage.names import AnyPath, is_local, local_path

_WRITING = frozenset({"write", "make the folder", "move", "remove"})


@contextlib.contextmanager
def explained(verb: str, path: AnyPath) -> Iterator[None]:
    try:
        yield
    except CuratorError:
        raise
    except OSError as error:
        translated = _translated(error, verb, os.fspath(path))
        if verb in _WRITING:
            translated = OutputError(str(translated))
        raise translated from error
    except Exception as error:
        # The errors of a store's own client are not OSErrors: botocore's NoCredentialsError, aiohttp's ClientError.
        if is_local(path) or type(error).__module__.partition(".")[0] in ("builtins", "curator_core"):
            raise
        raise _store_error(error, verb, os.fspath(path)) from error


def _translated(error: OSError, verb: str, path: str) -> CuratorError:
    what = f"cannot {verb} {path!r}: "
    code = error.errno
    if isinstance(error, FileNotFoundError):
        answer = no_answer(error)
        if answer is not None:
            return CuratorError(f"{what}{answer}")
        return UsageError(f"{what}there is no such file or folder{_neighbour(path)}")
    if code in (errno.ENOSPC, errno.EDQUOT):
        return CuratorError(
            f"{what}no space is left there. No partial file remains; free some space, or choose another place, "
            "and start the run again with resume"
        )
    if code == errno.EROFS:
        return UsageError(f"{what}the file system is read-only: choose a folder that is writable")
    if isinstance(error, PermissionError):
        return UsageError(f"{what}no permission ({error}): check its owner and mode, or the store's credentials")
    if isinstance(error, IsADirectoryError):
        return UsageError(f"{what}it is a folder, but a file is needed")
    if isinstance(error, NotADirectoryError | FileExistsError):
        return UsageError(f"{what}a part of the path is a file, but a folder is needed")
    if code == errno.ENAMETOOLONG:
        return UsageError(f"{what}the name is longer than the file system allows")
    if code == errno.EMFILE:
        return CuratorError(f"{what}too many files are open: raise the limit with `ulimit -n`, or use fewer workers")
    return CuratorError(f"{what}{error}")


def no_answer(error: BaseException) -> str | None:
    """The reason why a store did not say whether a file exists; None if the file does not exist.

    fsspec reports every failure to reach a web server as a missing file.
    """
    cause = error.__cause__
    if cause is None or isinstance(cause, FileNotFoundError):
        return None
    text = str(cause).strip().partition("\n")[0]
    said = f"{type(cause).__name__}{f': {text}' if text else ''}"
    status = getattr(cause, "status", None)
    if isinstance(status, int):
        return f"the server answers with status {status} ({said}): check the address, and whether it needs credentials"
    return f"no server answers there ({said}): check the address, the network and the proxy"


def _store_error(error: Exception, verb: str, path: str) -> CuratorError:
    kind = type(error).__name__
    text = str(error).strip().partition("\n")[0]
    what = f"cannot {verb} {path!r}: {kind}{f': {text}' if text else ''}"
    protocol = path.partition("://")[0]
    if "credential" in f"{kind} {text}".lower() and protocol in ("s3", "s3a"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS itself"
        profile = os.environ.get("AWS_PROFILE")
        return UsageError(
            f"{what}. The endpoint is {endpoint} (AWS_ENDPOINT_URL_S3). Credentials were looked for in AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY, in {f'the profile {profile!r} of ' if profile else ''}~/.aws, and in the machine's role: "
            "set one of these; for a public bucket set FSSPEC_S3_ANON=true"
        )
    if "credential" in f"{kind} {text}".lower():
        return UsageError(
            f"{what}. Give the store's credentials in the way that the fsspec package for {protocol}:// expects"
        )
    return CuratorError(what)


def _neighbour(path: str) -> str:
    """A hint at the nearest name in the deepest folder of ``path`` that exists."""
    if not is_local(path):
        return ""
    target = Path(os.path.abspath(local_path(path)))  # noqa: PTH100 - resolve() would follow links
    child = target
    for folder in target.parents:
        if folder.is_dir():
            try:
                names: Iterable[str] = [entry.name for entry in itertools.islice(os.scandir(folder), 1000)]
            except OSError:
                return ""
            where = "" if folder == target.parent else f"; {str(folder)!r} exists, {child.name!r} in it does not"
            return f"{where}{nearest(child.name, names)}"
        child = folder
    return ""
