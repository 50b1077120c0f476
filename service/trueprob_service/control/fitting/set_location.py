"""Where uploaded sets lie: the state directory, another folder, or a URL of fsspec."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from trueprob_service.control.fitting.set_files import Artifacts
from trueprob_service.errors import InvalidSettings

__all__ = ["open_artifacts"]

_FILE: Final = "file"


def open_artifacts(state_dir: Path, url: str) -> Artifacts:
    """The place of uploaded sets, ready for use.

    Raises `InvalidSettings`: fsspec, or what it needs for this URL, is not installed; or it does
    not know the URL. Raises `Unavailable`: the place does not answer.
    """
    artifacts = _opened(state_dir, url)
    artifacts.start()
    return artifacts


def _opened(state_dir: Path, url: str) -> Artifacts:
    if not url:
        return Artifacts(state_dir)
    if "://" not in url:
        return Artifacts(state_dir, Path(url))
    parts = urlsplit(url)
    if parts.scheme == _FILE:
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise InvalidSettings("artifact_url must be file:///FOLDER to name a folder")
        return Artifacts(state_dir, Path(unquote(parts.path)))
    try:
        from fsspec.core import url_to_fs

        from trueprob_service.control.fitting.remote_set_files import RemoteArtifacts
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
    return RemoteArtifacts(state_dir, files, folder)
