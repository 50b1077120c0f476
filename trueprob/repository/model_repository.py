"""The model repository: folders of model versions that the trainer writes and the service reads.

    ROOT/NAME/VERSION/{manifest.json, model.onnx, calibrator.json, baseline.npz, MODEL_CARD.md}

A network may have further files with weights, where `model.onnx` says that they are.

The layout is Triton's; VERSION is a positive integer without leading zeros. A version is written
under a temporary name, synced and renamed, so that it appears as a whole. Afterwards it never
changes; the digests in its manifest show whether somebody changed it anyway.
"""

from __future__ import annotations

import errno
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trueprob.arrays.synced_files import copy_synced, sync_directory, write_synced
from trueprob.errors import InvalidDocument, InvalidInput, ModelVersionNotFound, VersionExists
from trueprob.repository.manifest import Manifest, valid_file_name, valid_model_name
from trueprob.repository.model_version import ModelVersion, file_digest

__all__ = ["ModelRepository"]

MANIFEST: Final = "manifest.json"
VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class ModelRepository:
    """The models under one directory.

    Attributes
    ----------
    root : Path
        The directory. The first `add` creates it; a missing one is an empty repository.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    def models(self) -> list[str]:
        """Names of the models that have a version, sorted."""
        names = (entry.name for entry in _directories(self.root))
        return sorted(name for name in names if valid_model_name(name) and self.versions(name))

    def versions(self, name: str) -> list[int]:
        """Versions of a model, ascending; empty for an unknown model."""
        if not valid_model_name(name):
            return []
        return sorted(
            int(entry.name)
            for entry in _directories(self.root / name)
            if VERSION.fullmatch(entry.name) and (entry / MANIFEST).is_file()
        )

    def next_version(self, name: str) -> int:
        """The number of the next version to add."""
        return max(self.versions(name), default=0) + 1

    def get(self, name: str, version: int) -> ModelVersion:
        """Read a version.

        Raises
        ------
        ModelVersionNotFound
            There is no such version, or the name is not valid.
        InvalidDocument
            The manifest cannot be read or belongs to another version.
        """
        missing = f"model version {str(name)[:100]}/{version} is not in the repository"
        if not valid_model_name(name) or VERSION.fullmatch(str(version)) is None:
            raise ModelVersionNotFound(missing)
        path = self.root / name / str(version)
        try:
            data = (path / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise ModelVersionNotFound(missing) from None
        manifest = Manifest.loads(data)
        if (manifest.name, manifest.version) != (name, version):
            raise InvalidDocument(
                f"manifest.name and manifest.version must be those of the directory, "
                f"{name}/{version}"
            )
        return ModelVersion(name, version, path, manifest)

    def add(self, manifest: Manifest, files: Mapping[str, bytes | Path]) -> ModelVersion:
        """Write a version, as a whole or not at all.

        Parameters
        ----------
        manifest : Manifest
            Its `files` are replaced by the digests of the written files.
        files : mapping of file name to bytes or Path
            A path is copied. A name may have folders, separated by ``/``.

        Returns
        -------
        ModelVersion

        Raises
        ------
        VersionExists
            The version exists, or another process added it first.
        InvalidInput
            A file name has other characters than a plain one, or is that of the manifest.
        """
        for file in files:
            if not valid_file_name(file) or file == MANIFEST:
                raise InvalidInput(
                    f"files must have plain names other than {MANIFEST}, got {str(file)[:100]!r}",
                    field="files",
                )
        name, version = manifest.name, str(manifest.version)
        parent = self.root / name
        final = parent / version
        if VERSION.fullmatch(version) is None:
            raise InvalidInput("version must have at most 9 digits", field="version")
        if final.exists():
            raise VersionExists(f"model version {name}/{version} exists, and versions never change")
        parent.mkdir(parents=True, exist_ok=True)
        temporary = parent / f".{version}.{secrets.token_hex(8)}.partial"
        temporary.mkdir()
        try:
            for file, data in files.items():
                place = temporary / file
                place.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(data, Path):
                    copy_synced(data, place)
                else:
                    write_synced(place, data)
            complete = manifest.with_files({f: file_digest(temporary / f) for f in files})
            write_synced(temporary / MANIFEST, complete.dumps())
            for folder in {(temporary / file).parent for file in files} | {temporary}:
                sync_directory(folder)
            # Renaming onto a directory that has files fails: of two writers one wins.
            temporary.rename(final)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise VersionExists(
                    f"model version {name}/{version} exists, and versions never change"
                ) from None
            raise
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_directory(parent)
        return ModelVersion(name, manifest.version, final, complete)


def _directories(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
