"""Opens the storage of uploaded sets: the state directory, another folder, or a URL of fsspec."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from trueprob_service.control.fitting.set_files import SetFiles
from trueprob_service.errors import InvalidSettings

__all__ = ["open_set_files"]

_FILE: Final = "file"


def open_set_files(
    state_dir: Path,
    url: str,  # empty: in the state directory; a path or file:// URL; or any URL of fsspec
) -> SetFiles:
    """Open the storage that ``artifact_url`` names.

    Raises `InvalidSettings` when fsspec does not know the URL, or when it or a package that it
    needs is not installed; `Unavailable` when the storage does not answer.
    """
    set_files = _opened(state_dir, url)
    set_files.start()
    return set_files


def _opened(state_dir: Path, url: str) -> SetFiles:
    if not url:
        return SetFiles(state_dir)
    if "://" not in url:
        return SetFiles(state_dir, Path(url))
    parts = urlsplit(url)
    if parts.scheme == _FILE:
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise InvalidSettings("artifact_url must be file:///FOLDER to name a folder")
        return SetFiles(state_dir, Path(unquote(parts.path)))
    try:
        from fsspec.core import url_to_fs

        from trueprob_service.control.fitting.remote_set_files import RemoteSetFiles
    except ImportError:
        raise InvalidSettings(
            f"artifact_url {parts.scheme}:// needs the package fsspec (extra artifacts)"
        ) from None
    try:
        files, folder = url_to_fs(url)
    except ImportError as error:
        raise InvalidSettings(f"artifact_url {parts.scheme}://: {error}") from None
    except ValueError:
        raise InvalidSettings(f"artifact_url {parts.scheme}:// is not known to fsspec") from None
    return RemoteSetFiles(state_dir, files, folder)
